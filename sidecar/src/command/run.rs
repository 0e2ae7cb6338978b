//! `thinwire run`: the sidecar itself.

use std::{future::pending, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::{config::Config, control, keyfile, node::Node, page};

/// What a supervisor is promised: told to stop, the node has ended after this long.
const DRAIN: Duration = Duration::from_millis(4_000);

pub(super) async fn run(config: Config) -> Result<u8> {
    let filter = EnvFilter::try_from_env("THINWIRE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let identity = keyfile::load(&config.key_path())?;
    let control_path = config.control_path();
    let page = match config.status {
        None => None,
        Some(address) => Some(
            page::listen(address)
                .await
                .with_context(|| format!("cannot open the status page at {address}"))?,
        ),
    };
    let (node, mut fatal) = Node::start(config, identity).await?;
    if let Some(page) = page {
        tokio::spawn(page::serve(page, node.clone()));
    }
    let listener = match control::listen(&control_path) {
        Ok(listener) => listener,
        Err(error) => bail!("cannot open the control socket {}: {error}", control_path.display()),
    };
    let server = tokio::spawn(control::serve(listener, node.clone()));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let failure = select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = fatal.recv() => match reason {
            Some(reason) => Some(reason),
            None => pending().await,
        },
    };
    info!("stopping");
    server.abort();
    let _ = std::fs::remove_file(&control_path);
    if timeout(DRAIN, node.stop()).await.is_err() {
        error!("not everything was drained in time; nothing is lost");
    }
    match failure {
        None => Ok(0),
        Some(reason) => bail!("{reason}"),
    }
}
