//! `thinwire run`: the sidecar itself.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::{
    config::Config,
    control, keyfile,
    node::Node,
    page::{self, Page},
};

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
    let status = config.status;
    // First of all: it takes the lock by which a second process for the same folder is refused.
    let (node, mut fatal) = Node::start(config, identity).await?;
    if let Some(address) = status {
        let page = Page::open(address).await;
        let page = page.map_err(|error| anyhow!(page::unopened(address, &error)))?;
        tokio::spawn(page.serve(node.clone()));
    }
    // Before anybody can see that it runs, and tell it something.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let listener = match control::listen(&control_path) {
        Ok(listener) => listener,
        Err(error) => bail!("cannot open the control socket {}: {error}", control_path.display()),
    };
    let server = tokio::spawn(control::serve(listener, node.clone()));
    let failure = loop {
        select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => reload(&node),
            Some(reason) = fatal.recv() => break Some(reason),
        }
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

fn reload(node: &Node) {
    if let Err(why) = node.reload() {
        error!("the peers stay as they are: {why}");
    }
}
