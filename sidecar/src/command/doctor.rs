//! `thinwire doctor`: every precondition, one line each, with the cure.

use std::{fs, net::UdpSocket, os::unix::fs::MetadataExt};

use anyhow::Result;
use thinwire_apply::Target;
use thinwire_capture::Source;

use super::{
    init::{apply_setup, capture_setup},
    print_line,
};
use crate::{
    config::{Apply, Config},
    control,
    database::Database,
    keyfile,
};

struct Check {
    ok: bool,
    what: String,
    cure: String,
}

pub(super) async fn run(config: Config) -> Result<u8> {
    let running = matches!(
        control::ask(&config.control_path(), &control::Request::Status).await,
        Ok(Some(_))
    );
    let mut checks = vec![identity(&config), folder(&config)];
    checks.extend(port(&config, running));
    checks.extend(peers(&config));
    checks.extend(config.copy_warning().map(|cure| Check {
        ok: true,
        what: "copies of this node's tables".to_owned(),
        cure,
    }));
    if let Some(database) = &config.database {
        checks.extend(server(database));
        if let Some(setup) = capture_setup(&config, database) {
            let source = Source { config: database.config.clone(), tls: database.tls.clone() };
            let found = thinwire_capture::slot::check(&source, &setup).await;
            checks.extend(found.into_iter().map(|found| Check {
                ok: found.ok,
                what: found.what,
                cure: found.cure.unwrap_or_default(),
            }));
        }
        if let Some(setup) = apply_setup(&config, database) {
            let target = Target { config: database.config.clone(), tls: database.tls.clone() };
            let mut found = thinwire_apply::check(&target, &setup).await;
            if config.apply.as_ref().is_some_and(Apply::needs_commit_timestamps) {
                found.push(thinwire_apply::check_commit_timestamps(&target).await);
            }
            checks.extend(found.into_iter().map(|c| Check {
                ok: c.ok,
                what: c.what,
                cure: c.cure,
            }));
        }
    }
    for check in &checks {
        match check.ok {
            true if check.cure.is_empty() => print_line(&format!("ok    {}", check.what))?,
            true => print_line(&format!("ok    {} (warning: {})", check.what, check.cure))?,
            false => print_line(&format!("FAIL  {}: {}", check.what, check.cure))?,
        }
    }
    Ok(u8::from(checks.iter().any(|check| !check.ok)))
}

fn identity(config: &Config) -> Check {
    let what = "identity key".to_owned();
    match keyfile::load(&config.key_path()) {
        Ok(_) => Check { ok: true, what, cure: String::new() },
        Err(error) => Check { ok: false, what, cure: error.to_string() },
    }
}

fn folder(config: &Config) -> Check {
    let what = format!("folder {}", config.dir.display());
    let probe = config.dir.join(".doctor");
    let written = fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe));
    let cure = match (written, fs::metadata(&config.dir)) {
        (Err(error), _) => format!("cannot write there: {error}"),
        (_, Ok(metadata)) if metadata.mode() & 0o022 != 0 => {
            "others can write there: chmod 0700".to_owned()
        }
        _ => String::new(),
    };
    Check { ok: cure.is_empty(), what, cure }
}

/// Traffic to a server elsewhere can be led to another one, unless it proves who it is.
fn server(database: &Database) -> Option<Check> {
    (!database.is_certain).then(|| Check {
        ok: true,
        what: "the database server is believed to be the right one".to_owned(),
        cure: "it is not asked for proof; use sslmode=verify-full and sslrootcert".to_owned(),
    })
}

fn port(config: &Config, running: bool) -> Option<Check> {
    let address = config.listen?;
    let what = format!("listening address {address}");
    // The running node holds it, as it should.
    let cure = match (running, UdpSocket::bind(address)) {
        (true, _) | (_, Ok(_)) => String::new(),
        (false, Err(error)) => format!("cannot be bound: {error}"),
    };
    Some(Check { ok: cure.is_empty(), what, cure })
}

fn peers(config: &Config) -> Vec<Check> {
    let keyless = config.keyless_peers.iter().map(|name| Check {
        ok: false,
        what: format!("peer {name}"),
        cure: "has no key; put the line that `thinwire key` prints there into its [[peer]]"
            .to_owned(),
    });
    let lonely = config.peers.iter().filter(|peer| peer.address.is_none()).map(|peer| Check {
        ok: config.listen.is_some(),
        what: format!("way to peer {}", peer.name),
        cure: match config.listen {
            Some(_) => String::new(),
            None => "it has no address, and this node does not listen: give either one".to_owned(),
        },
    });
    keyless.chain(lonely).collect()
}
