//! `thinwire drop`: takes away what `init` has made at the source.

use anyhow::{Result, bail};
use thinwire_capture::{
    Source,
    slot::{self, Removal},
};

use super::{init::admin, print_line};
use crate::{cli, config::Config, control};

pub(super) async fn run(arguments: &cli::Setup) -> Result<u8> {
    let config = Config::load(&arguments.config.config)?;
    let Some(admin) = admin(arguments, &config)? else { bail!("this node has no database") };
    let source = Source { config: admin.config, tls: admin.tls };
    if arguments.print_sql {
        for Removal { what, statement } in slot::plan_drop(&source, &config.name).await? {
            print_line(&format!("-- {what}\n{statement};"))?;
        }
        return Ok(0);
    }
    if control::ask(&config.control_path(), &control::Request::Status).await?.is_some() {
        bail!("this node is running: stop it first; nothing was changed");
    }
    let removals = slot::drop(&source, &config.name).await?;
    for Removal { what, .. } in &removals {
        print_line(&format!("dropped {what}"))?;
    }
    if removals.is_empty() {
        print_line("there is nothing of this node at the source")?;
    }
    Ok(0)
}
