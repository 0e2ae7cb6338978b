//! PostgreSQL's own `pg_recvlogical`, which reads the same changes as a capture and keeps nothing of them: what
//! capturing is measured by.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::contender::bed::{Bed, DATABASE};
use crate::contender::{Contender, Part};
use crate::node;

#[derive(Debug)]
pub(crate) struct Recvlogical {
    /// What it complains about.
    log: PathBuf,
    child: Option<Child>,
    /// When it was first seen to have ended well.
    ended: Option<Instant>,
}

impl Recvlogical {
    /// Its slot is there.
    pub(crate) fn new(bed: &Bed) -> Result<Recvlogical> {
        bed.source.psql(
            DATABASE,
            "create publication recvlogical for all tables;\n\
             select from pg_create_logical_replication_slot('recvlogical', 'pgoutput')",
        )?;
        let log = bed.folder.path().join("pg_recvlogical.log");
        Ok(Recvlogical { log, child: None, ended: None })
    }
}

impl Contender for Recvlogical {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    /// Reads up to where the log ends at this moment. Only there does it confirm what it has read; before, it would do so
    /// every ten seconds.
    fn release(&mut self, bed: &Bed, _part: Part) -> Result<()> {
        let end = bed.source.psql(DATABASE, "select pg_current_wal_flush_lsn()")?;
        let mut command = bed.source.command("pg_recvlogical", DATABASE);
        // Unlike other clients, it takes no database from its environment.
        command
            .args(["--dbname", DATABASE, "--slot", "recvlogical", "--start", "--file", "/dev/null"])
            .args(["--option", "proto_version=1", "--option", "publication_names=recvlogical"])
            .args(["--option", "messages=true", "--endpos", &end, "--no-loop"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&self.log)?)
            .process_group(0);
        self.child = Some(command.spawn().context("starting pg_recvlogical")?);
        self.ended = None;
        Ok(())
    }

    fn disconnect(&mut self, _bed: &mut Bed) -> Result<()> {
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            ensure!(status.success(), "pg_recvlogical ended with {status}");
            let ended = self.ended.get_or_insert_with(Instant::now).elapsed();
            ensure!(ended < HEARD_WITHIN, "pg_recvlogical ended before all was confirmed");
        }
        Ok(())
    }

    fn log(&self, bed: &Bed) -> String {
        format!("pg_recvlogical:\n{}\nsource:\n{}", node::tail(&self.log), bed.source.log_tail())
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
/// For the server to hear its last word. Nobody asks after it when that was about all.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::contender::bed;
    use crate::emulator::Kind;
    use crate::link::ladder::LAN;
    use crate::stop::Stop;
    use crate::workload;

    /// What is said of it when it has ended.
    fn complaint(recvlogical: &mut Recvlogical) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match recvlogical.check() {
                Ok(()) => assert!(Instant::now() < deadline, "nothing is said of its end"),
                Err(error) => return error.to_string(),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn whoever_waits_for_it_in_vain_learns_why() {
        let servers = bed::options(Kind::Udp, None);
        let mut state = workload::find("state").unwrap().begin(1);
        let bed = Bed::make(Kind::Udp, &servers, LAN.link, 1, state.as_mut(), &Stop::default());
        let bed = bed.unwrap();
        let mut recvlogical = Recvlogical::new(&bed).unwrap();
        recvlogical.check().unwrap();
        recvlogical.release(&bed, Part::Capture).unwrap();
        let early = complaint(&mut recvlogical);
        assert!(early.contains("before all was confirmed"), "{early}");
        bed.source.psql(DATABASE, "select pg_drop_replication_slot('recvlogical')").unwrap();
        recvlogical.release(&bed, Part::Capture).unwrap();
        let failed = complaint(&mut recvlogical);
        assert!(failed.contains("exit status: 1"), "{failed}");
        let log = recvlogical.log(&bed);
        assert!(log.contains("\"recvlogical\" does not exist"), "{log}");
    }
}
