//! `thinwire init`: the identity, and what the database needs before `run`.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use thinwire_apply::{Seal, Target};
use thinwire_capture::{
    Source,
    slot::{self, InitOptions},
};
use thinwire_engine::{
    journal::inspect,
    model::Origin,
    storage::{Disk, disk::RealDisk},
};
use thinwire_transport::{Peer, Streams};

use super::print_line;
use crate::{cli, config::Config, database::Database, keyfile};

pub(super) async fn run(arguments: &cli::Setup) -> Result<u8> {
    let config = Config::load(&arguments.config.config)?;
    let admin = admin(arguments, &config)?;
    if arguments.print_sql {
        return print_sql(&config, admin.as_ref()).await;
    }
    RealDisk
        .create_dir(&config.dir)
        .with_context(|| format!("cannot create {}", config.dir.display()))?;
    let identity = keyfile::load_or_create(&config.key_path())?;
    if let (Some(admin), Some(database)) = (&admin, &config.database) {
        prepare(&config, admin, database).await?;
    }
    if let Some(warning) = config.copy_warning() {
        eprintln!("thinwire: {warning}");
    }
    print_line(&identity.public().to_string())?;
    Ok(0)
}

/// The login that makes or drops things: the one that was named, or else the node's own.
pub(super) fn admin(arguments: &cli::Setup, config: &Config) -> Result<Option<Database>> {
    Ok(match &arguments.admin_url {
        Some(url) => Some(Database::parse(url).context("--admin-url")?),
        None => config.database.clone(),
    })
}

async fn prepare(config: &Config, admin: &Database, database: &Database) -> Result<()> {
    if let Some(setup) = capture_setup(config, database) {
        let source = Source { config: admin.config.clone(), tls: admin.tls.clone() };
        let report = slot::init(&source, &setup).await?;
        for statement in report.needed {
            eprintln!("thinwire: somebody with more privileges has to run: {statement};");
        }
        for doubt in report.doubts {
            eprintln!("thinwire: {doubt}");
        }
        for table in report.absent {
            eprintln!(
                "thinwire: rows or columns of {table} are chosen, and there is no such table at present"
            );
        }
    }
    if let Some(setup) = apply_setup(config, database) {
        let target = Target { config: admin.config.clone(), tls: admin.tls.clone() };
        for origin in thinwire_apply::init(&target, &setup).await? {
            eprintln!(
                "thinwire: how far the stream of {origin} is applied was not written by this node; it is taken over as it is"
            );
        }
    }
    Ok(())
}

async fn print_sql(config: &Config, admin: Option<&Database>) -> Result<u8> {
    let (Some(admin), Some(database)) = (admin, &config.database) else { return Ok(0) };
    let mut statements = Vec::new();
    if let Some(setup) = capture_setup(config, database) {
        let source = Source { config: admin.config.clone(), tls: admin.tls.clone() };
        statements.extend(slot::plan(&source, &setup).await?);
    }
    if let Some(setup) = apply_setup(config, database) {
        let target = Target { config: admin.config.clone(), tls: admin.tls.clone() };
        statements.extend(thinwire_apply::plan(&target, &setup).await?);
    }
    for statement in statements {
        print_line(&format!("{statement};"))?;
    }
    Ok(0)
}

pub(super) fn capture_setup(config: &Config, database: &Database) -> Option<InitOptions> {
    let capture = config.capture.as_ref()?;
    Some(InitOptions {
        node: config.name.clone(),
        patterns: capture.tables.clone(),
        choice: capture.choice.clone(),
        ddl: capture.ddl,
        run_as: database.config.get_user().map(str::to_owned),
    })
}

pub(super) fn apply_setup(config: &Config, database: &Database) -> Option<thinwire_apply::Setup> {
    let apply = config.apply.as_ref()?;
    let owner = apply.owner.as_ref().and_then(|owner| owner.config.get_user());
    // Without a key, there is nothing that it has sealed.
    let identity = keyfile::load(&config.key_path()).ok();
    let mut streams = received(config);
    if let Some(identity) = &identity {
        streams.remove(&identity.public().origin());
    }
    Some(thinwire_apply::Setup {
        owner: owner.map(str::to_owned),
        login: database.config.get_user().unwrap_or_default().to_owned(),
        tables: apply.tables.clone(),
        streams: streams.into_iter().collect(),
        seal: identity.map(|identity| Seal::new(&identity.to_bytes())),
    })
}

/// Whose streams are applied: those of peers, those that peers pass on by name, and whichever the journal holds by now.
fn received(config: &Config) -> BTreeSet<Origin> {
    let mut origins: BTreeSet<_> = config.peers.iter().map(Peer::origin).collect();
    for peer in &config.peers {
        if let Streams::Listed(listed) = &peer.receive {
            origins.extend(listed);
        }
    }
    let held = inspect::stream_dirs(&RealDisk, &config.journal_dir()).ok().flatten();
    let held = held.iter().flatten().filter_map(|dir| inspect::stream_of(dir));
    origins.extend(held.map(|stream| stream.origin));
    origins
}
