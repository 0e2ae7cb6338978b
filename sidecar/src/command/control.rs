//! The commands that talk to the running node.

use anyhow::{Context, Result, bail};

use super::{NOT_RUNNING, print_line};
use crate::{
    cli,
    config::Config,
    control::{Request, Response, Scope, Skip, ask},
};

/// What the node is told to do.
pub(super) enum Verb {
    Pause,
    Resume,
    Retry,
}

pub(super) async fn status(arguments: &cli::Status) -> Result<u8> {
    let config = Config::load(&arguments.config.config)?;
    match exchange(&config, &Request::Status).await? {
        None => Ok(NOT_RUNNING),
        Some(Response::Status(status)) => {
            let text = match arguments.json {
                true => serde_json::to_string(&status)?,
                false => status.render().trim_end().to_owned(),
            };
            print_line(&text)?;
            Ok(0)
        }
        Some(other) => bail!("the node answered something else: {other:?}"),
    }
}

pub(super) async fn tell(target: &cli::Target, verb: Verb) -> Result<u8> {
    let config = Config::load(&target.config.config)?;
    let scope = Scope { peer: target.peer.clone(), stream: target.stream.clone() };
    let request = match verb {
        Verb::Pause => Request::Pause(scope),
        Verb::Resume => Request::Resume(scope),
        Verb::Retry => Request::Retry(scope),
    };
    done(exchange(&config, &request).await?)
}

pub(super) async fn skip(what: &cli::Skip) -> Result<u8> {
    let config = Config::load(&what.config.config)?;
    let skip = Skip { origin: what.origin.clone(), offset: what.offset };
    done(exchange(&config, &Request::Skip(skip)).await?)
}

pub(super) async fn reload(arguments: &cli::Config) -> Result<u8> {
    let config = Config::load(&arguments.config)?;
    done(exchange(&config, &Request::Reload).await?)
}

fn done(answer: Option<Response>) -> Result<u8> {
    match answer {
        None => Ok(NOT_RUNNING),
        Some(Response::Done) => Ok(0),
        Some(Response::Refused(why)) => bail!("{why}"),
        Some(other) => bail!("the node answered something else: {other:?}"),
    }
}

async fn exchange(config: &Config, request: &Request) -> Result<Option<Response>> {
    let path = config.control_path();
    let answer = ask(&path, request)
        .await
        .with_context(|| format!("cannot talk to the node through {}", path.display()))?;
    if answer.is_none() {
        // Commands have no log; what they have to say beside their result goes to stderr.
        eprintln!("thinwire: the node {} is not running", config.name);
    }
    Ok(answer)
}
