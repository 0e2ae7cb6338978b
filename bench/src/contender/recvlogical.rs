//! PostgreSQL's own `pg_recvlogical`, which reads the same changes as a capture and keeps nothing of them: what
//! capturing is measured by.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use crate::contender::bed::{Bed, DATABASE};
use crate::contender::{Contender, Part};

#[derive(Debug)]
pub(crate) struct Recvlogical {
    child: Option<Child>,
}

impl Recvlogical {
    /// Its slot is there.
    pub(crate) fn new(bed: &Bed) -> Result<Recvlogical> {
        bed.source.psql(
            DATABASE,
            "create publication recvlogical for all tables;\n\
             select from pg_create_logical_replication_slot('recvlogical', 'pgoutput')",
        )?;
        Ok(Recvlogical { child: None })
    }
}

impl Contender for Recvlogical {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    fn has_copied(&self, _bed: &Bed) -> Result<bool> {
        Ok(true)
    }

    fn has_shipped(&self, _bed: &Bed) -> Result<bool> {
        Ok(true)
    }

    fn hold(&mut self, _bed: &Bed, _part: Part) -> Result<()> {
        Ok(())
    }

    /// Reads up to where the log ends at this moment.
    fn release(&mut self, bed: &Bed, _part: Part) -> Result<()> {
        let end = bed.source.psql(DATABASE, "select pg_current_wal_flush_lsn()")?;
        let mut command = bed.source.command("pg_recvlogical", DATABASE);
        command
            .args(["--slot", "recvlogical", "--start", "--file", "/dev/null"])
            .args(["--option", "proto_version=1", "--option", "publication_names=recvlogical"])
            .args(["--endpos", end.trim(), "--no-loop"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        self.child = Some(command.spawn().context("starting pg_recvlogical")?);
        Ok(())
    }

    fn part(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    fn meet(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    fn disconnect(&mut self, _bed: &mut Bed) -> Result<()> {
        Ok(())
    }

    fn readdressed(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    fn log(&self, bed: &Bed) -> String {
        format!("source:\n{}", bed.source.log_tail())
    }
}

impl Drop for Recvlogical {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) const NAME: &str = "pg_recvlogical";
