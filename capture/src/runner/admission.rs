//! Whether the source and its slot are the ones that the journal knows, and nothing lies between what the slot gave
//! away and what the journal holds. Nothing is appended before this was found.

use std::time::Duration;

use thinwire_engine::{
    journal::{Mark, Tail},
    model::{Halt, Lsn},
};
use tokio_postgres::Client;

use super::{Trouble, poll::Tables};
use crate::{
    Ddl, Options,
    confirm::Confirm,
    error::{Error, Result, sqlstate},
    replication::{Connection, System},
    schema::Secret,
    slot::{Accepted, SlotState, misjudged, published, secret, slot_state},
    sql,
};

/// What a session starts with.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    /// Where to begin to read: all before it is in the journal or was not captured.
    pub(super) from: Lsn,
    /// What to journal before anything else, if the journal does not know the source yet.
    pub(super) mark: Option<Mark>,
    /// Which source it is.
    pub(super) identity: Identity,
    /// After how long the server gives up a silent client.
    pub(super) silence: Duration,
    /// The tables that are published.
    pub(super) tables: Tables,
    /// What proves messages about the schema, if they are wanted.
    pub(super) secret: Option<Secret>,
}

/// What a position of a source's log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) timeline: u32,
    pub(super) system: u64,
}

impl Identity {
    pub(super) fn mark(self, lsn: Lsn) -> Mark {
        Mark { lsn, timeline: self.timeline, system: self.system, released: false }
    }
}

/// All that is compared with what the journal says.
#[derive(Clone, Debug)]
struct Found {
    system: System,
    /// Where earlier timelines were left.
    history: Vec<(u32, Lsn)>,
    slot: Option<SlotState>,
    wal_level: String,
    /// Where the slot was created, if that is known.
    created: Option<Lsn>,
}

/// Looks at the source and compares.
pub(super) async fn admit(
    control: &Client,
    replication: &mut Connection,
    options: &Options,
    confirm: &Confirm,
) -> Result<Admitted, Trouble> {
    let tail = options.stream.tail();
    let system = replication.identify_system().await?;
    let is_same_timeline = tail.mark.is_none_or(|mark| mark.timeline == system.timeline);
    let history = match is_same_timeline || system.timeline <= 1 {
        true => Vec::new(),
        false => replication.timeline_history(system.timeline).await?,
    };
    let server = control.query_one(sql::SERVER, &[]).await?;
    let mut accepted = Accepted::default();
    let published = published(control, &options.publication, &options.choice, &mut accepted);
    let published = match published.await {
        Err(Error::Refused(why)) => return Err(halt("publication_missing", why)),
        found => found?,
    };
    let mut differences = published.differences;
    let secret = match options.ddl {
        Ddl::Stop => None,
        Ddl::Replicate => {
            let secret = proof(control, &options.publication).await?;
            differences.extend(misjudged(control, &options.publication, &options.choice).await?);
            Some(secret)
        }
    };
    if let Some(halt) = differs(&differences) {
        return Err(Trouble::Differs(Box::new((halt, published.differing))));
    }
    let found = Found {
        system,
        history,
        slot: slot_state(control, &options.slot).await?,
        wal_level: server.try_get(1)?,
        created: published.created,
    };
    let timeout: i64 = control.query_one(sql::WAL_SENDER_TIMEOUT, &[]).await?.try_get(0)?;
    let silence = match u64::try_from(timeout) {
        Ok(0) | Err(_) => SILENCE_DEFAULT,
        Ok(millis) => Duration::from_millis(millis),
    };
    compare(&found, &tail, confirm.advance(), &options.slot)
        .map(|(from, mark, identity)| Admitted {
            from,
            mark,
            identity,
            silence,
            tables: published.tables.into_iter().collect(),
            secret,
        })
        .map_err(Trouble::Halt)
}

/// Why nothing may be captured while something else is published than was chosen.
pub(super) fn differs(differences: &[String]) -> Option<Halt> {
    if differences.is_empty() {
        return None;
    }
    let what = differences.join("; ");
    Some(Halt::new(
        "publication_differs",
        format!("{what}: run `thinwire init` to publish what the configuration says"),
    ))
}

/// What proves messages about the schema.
async fn proof(control: &Client, publication: &str) -> Result<Secret, Trouble> {
    match secret(control, publication).await {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(halt(
            "ddl_not_installed",
            "`[capture] ddl = \"replicate\"` is wanted, but nothing at the source follows schema changes for this \
             node: run `thinwire init`"
                .to_owned(),
        )),
        Err(error) if error.code() == Some(sqlstate::INSUFFICIENT_PRIVILEGE) => Err(halt(
            "ddl_not_installed",
            format!("the login may not follow schema changes: run `thinwire init` ({error})"),
        )),
        Err(error) => Err(error.into()),
    }
}

/// The decision itself.
fn compare(
    found: &Found,
    tail: &Tail,
    durable: Lsn,
    slot: &str,
) -> Result<(Lsn, Option<Mark>, Identity), Halt> {
    if found.wal_level != "logical" {
        return Err(Halt::new(
            "wal_level",
            format!(
                "the server's wal_level is {}: run `ALTER SYSTEM SET wal_level = logical` and restart it",
                found.wal_level
            ),
        ));
    }
    let held = position(tail);
    if let Some(mark) = tail.mark {
        same_source(found, mark, held)?;
    }
    let confirmed = usable(found.slot.as_ref(), slot)?;
    let identity = Identity { timeline: found.system.timeline, system: found.system.id };
    let Some(mark) = tail.mark else {
        // A journal that knows nothing begins with the slot's whole life or not at all.
        return match found.created == Some(confirmed) {
            true => Ok((confirmed, Some(identity.mark(confirmed)), identity)),
            false => Err(behind(slot, confirmed, Lsn::ZERO)),
        };
    };
    if confirmed > durable {
        return Err(behind(slot, confirmed, durable));
    }
    let is_known = mark.timeline == identity.timeline;
    Ok((held, (!is_known).then(|| identity.mark(held)), identity))
}

/// All before this is in the journal, or was not captured.
fn position(tail: &Tail) -> Lsn {
    let mark = tail.mark.map_or(Lsn::ZERO, |mark| mark.lsn);
    tail.last_commit.map_or(mark, |(_, end)| end.max(mark))
}

/// Whether the source's log is a continuation of the one that the journal was read from.
fn same_source(found: &Found, mark: Mark, held: Lsn) -> Result<(), Halt> {
    let System { id, timeline, flushed } = found.system;
    if id != mark.system {
        return Err(wrong_system(id, mark.system));
    }
    let left_at = found.history.iter().find(|(left, _)| *left == mark.timeline);
    let diverged = match left_at {
        Some((_, at)) => held > *at,
        None => timeline != mark.timeline,
    };
    if diverged {
        return Err(Halt::new(
            "timeline_diverged",
            format!(
                "the cluster is on timeline {timeline} now, and transactions up to {held} that were captured on \
                 timeline {} are not part of it: the tables have to be copied anew (`thinwire init` with \
                 another `dir`)",
                mark.timeline
            ),
        ));
    }
    if flushed < held {
        return Err(Halt::new(
            "source_rolled_back",
            format!(
                "the source's log ends at {flushed}, but transactions up to {held} were captured from it: \
                 it was restored from an older copy, and the tables have to be copied anew"
            ),
        ));
    }
    Ok(())
}

pub(super) fn wrong_system(found: u64, known: u64) -> Halt {
    Halt::new(
        "wrong_system",
        format!(
            "this is another database cluster (system {found}) than the journal was captured from \
             (system {known}): correct `url`, or begin anew with another `dir`"
        ),
    )
}

/// The slot's confirmed position, if it can be read from.
pub(super) fn usable(slot: Option<&SlotState>, name: &str) -> Result<Lsn, Halt> {
    let Some(slot) = slot else {
        return Err(Halt::new(
            "slot_missing",
            format!(
                "the replication slot {name} is not there: whatever was committed since it was dropped is \
                 unknown. Run `thinwire init` to make it, and begin anew with another `dir` if anything was \
                 captured before"
            ),
        ));
    };
    if slot.wal_status.as_deref() == Some("lost") {
        return Err(Halt::new(
            "slot_lost",
            format!(
                "the server removed log that the slot {name} needs (see max_slot_wal_keep_size): drop the slot, \
                 run `thinwire init`, and begin anew with another `dir`"
            ),
        ));
    }
    let is_ours = slot.is_here && !slot.is_temporary && slot.plugin.as_deref() == Some("pgoutput");
    match slot.confirmed {
        Some(confirmed) if is_ours => Ok(confirmed),
        _ => Err(Halt::new(
            "slot_foreign",
            format!(
                "the slot {name} is not Thinwire's for this database: drop it, or give the node another name"
            ),
        )),
    }
}

fn behind(slot: &str, confirmed: Lsn, durable: Lsn) -> Halt {
    Halt::new(
        "journal_behind_slot",
        format!(
            "the slot {slot} has given away everything before {confirmed}, but the journal holds it only up to \
             {durable}: part of the journal was lost, or somebody else read from the slot. Put the journal back, or \
             drop the slot, run `thinwire init` and begin anew with another `dir`"
        ),
    )
}

fn halt(code: &str, detail: String) -> Trouble {
    Trouble::Halt(Halt::new(code, detail))
}

/// The server's own default, for one that never gives up.
const SILENCE_DEFAULT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        Found {
            system: System { id: 7, timeline: 1, flushed: Lsn::new(1_000) },
            history: vec![],
            slot: Some(SlotState {
                plugin: Some("pgoutput".into()),
                is_here: true,
                is_temporary: false,
                wal_status: Some("reserved".into()),
                confirmed: Some(Lsn::new(100)),
                active_pid: None,
                retained_bytes: 0,
            }),
            wal_level: "logical".into(),
            created: Some(Lsn::new(100)),
        }
    }

    /// A journal that has captured up to 500.
    fn tail() -> Tail {
        let mut tail = Tail::default();
        tail.mark = Some(Mark { lsn: Lsn::new(300), timeline: 1, system: 7, released: false });
        tail.last_commit = Some((Lsn::new(490), Lsn::new(500)));
        tail
    }

    fn code(found: &Found, tail: &Tail, durable: u64) -> String {
        compare(found, tail, Lsn::new(durable), "s").unwrap_err().code
    }

    fn with_slot(change: impl FnOnce(&mut SlotState)) -> Found {
        let mut found = found();
        change(found.slot.as_mut().unwrap());
        found
    }

    #[test]
    fn a_new_journal_takes_a_slot_that_was_never_read_from() {
        let (from, mark, identity) = compare(&found(), &Tail::default(), Lsn::ZERO, "s").unwrap();
        assert_eq!(from, Lsn::new(100));
        assert_eq!(
            mark,
            Some(Mark { lsn: Lsn::new(100), timeline: 1, system: 7, released: false })
        );
        assert_eq!(identity, Identity { timeline: 1, system: 7 });
    }

    #[test]
    fn a_new_journal_refuses_a_slot_that_was_read_from_or_may_have_been() {
        let read = with_slot(|slot| slot.confirmed = Some(Lsn::new(101)));
        assert_eq!(code(&read, &Tail::default(), 0), "journal_behind_slot");
        let unknown = Found { created: None, ..found() };
        assert_eq!(code(&unknown, &Tail::default(), 0), "journal_behind_slot");
    }

    #[test]
    fn a_journal_goes_on_behind_its_last_commit_without_a_new_mark() {
        let (from, mark, _) = compare(&found(), &tail(), Lsn::new(500), "s").unwrap();
        assert_eq!((from, mark), (Lsn::new(500), None));
        let mut idle = tail();
        idle.last_commit = None;
        assert_eq!(compare(&found(), &idle, Lsn::new(300), "s").unwrap().0, Lsn::new(300));
    }

    #[test]
    fn a_slot_that_gave_away_more_than_is_durable_is_refused() {
        let found = with_slot(|slot| slot.confirmed = Some(Lsn::new(501)));
        assert_eq!(code(&found, &tail(), 500), "journal_behind_slot");
        let found = with_slot(|slot| slot.confirmed = Some(Lsn::new(500)));
        assert!(compare(&found, &tail(), Lsn::new(500), "s").is_ok());
    }

    #[test]
    fn slots_that_cannot_be_read_from_are_told_apart() {
        let none = Found { slot: None, ..found() };
        assert_eq!(code(&none, &tail(), 500), "slot_missing");
        let lost = with_slot(|slot| {
            (slot.wal_status, slot.confirmed) = (Some("lost".into()), None);
        });
        assert_eq!(code(&lost, &tail(), 500), "slot_lost");
        let other = with_slot(|slot| slot.plugin = Some("test_decoding".into()));
        assert_eq!(code(&other, &tail(), 500), "slot_foreign");
        let elsewhere = with_slot(|slot| slot.is_here = false);
        assert_eq!(code(&elsewhere, &tail(), 500), "slot_foreign");
        let replica = Found { wal_level: "replica".into(), ..found() };
        assert_eq!(code(&replica, &tail(), 500), "wal_level");
    }

    #[test]
    fn another_cluster_or_one_that_went_back_is_refused() {
        let system = found().system;
        let other = Found { system: System { id: 8, ..system }, ..found() };
        assert_eq!(code(&other, &tail(), 500), "wrong_system");
        let short = Found { system: System { flushed: Lsn::new(499), ..system }, ..found() };
        assert_eq!(code(&short, &tail(), 500), "source_rolled_back");
    }

    #[test]
    fn a_promoted_standby_goes_on_only_if_it_has_all_that_was_captured() {
        let system = System { timeline: 3, ..found().system };
        let promoted = |left: u64| {
            let history = vec![(1, Lsn::new(left)), (2, Lsn::new(900))];
            Found { system, history, ..found() }
        };
        let (from, mark, _) = compare(&promoted(500), &tail(), Lsn::new(500), "s").unwrap();
        assert_eq!(from, Lsn::new(500));
        assert_eq!(
            mark,
            Some(Mark { lsn: Lsn::new(500), timeline: 3, system: 7, released: false })
        );
        assert_eq!(code(&promoted(499), &tail(), 500), "timeline_diverged");
        let unrelated = Found { system, history: vec![(2, Lsn::new(900))], ..found() };
        assert_eq!(code(&unrelated, &tail(), 500), "timeline_diverged");
    }
}
