//! PostgreSQL's own logical replication as a contender: a publication and a subscription.
//!
//! Where the emulation would be unkind to it beyond what the link does, it is helped: it is
//! disabled
//! in order before a backlog is collected and enabled when the link is back, and a new address of
//! its publisher is told to it at once.

use anyhow::{Context, Result};

use crate::contender::Contender;
use crate::contender::bed::{Bed, DATABASE};

#[derive(Debug)]
pub(crate) struct Native;

impl Native {
    /// The publication is there.
    pub(crate) fn new(bed: &Bed) -> Result<Native> {
        bed.source.psql(DATABASE, "create publication native for all tables")?;
        Ok(Native)
    }
}

impl Contender for Native {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&mut self, bed: &Bed) -> Result<()> {
        let subscribe = format!(
            "create subscription native connection '{}' publication native",
            connection(bed)?
        );
        bed.at_target(&subscribe)
    }

    fn has_copied(&self, bed: &Bed) -> Result<bool> {
        let ready = "select count(*) > 0 and bool_and(srsubstate = 'r') from pg_subscription_rel";
        Ok(bed.target.psql(DATABASE, ready)? == "t")
    }

    fn part(&mut self, bed: &Bed) -> Result<()> {
        bed.at_target("alter subscription native disable")
    }

    fn meet(&mut self, bed: &Bed) -> Result<()> {
        bed.at_target("alter subscription native enable")
    }

    fn disconnect(&mut self, bed: &mut Bed) -> Result<()> {
        let terminate = "select pg_terminate_backend(pid) from pg_stat_replication \
             where application_name like '%native%' or application_name like 'pg\\_%sync%'";
        bed.source.psql(DATABASE, terminate)?;
        Ok(())
    }

    fn readdressed(&mut self, bed: &Bed) -> Result<()> {
        bed.at_target(&format!("alter subscription native connection '{}'", connection(bed)?))
    }
}

/// How the target reaches the source: over the link.
pub(crate) fn connection(bed: &Bed) -> Result<String> {
    let address = bed.emulator.near_address();
    let host = address.context("logical replication needs a link that carries TCP")?;
    let port = bed.source.port();
    Ok(format!("host={host} port={port} user=postgres dbname={DATABASE}"))
}

pub(crate) const NAME: &str = "native";
