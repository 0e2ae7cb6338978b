//! How the node is doing: watermarks, lag and health, for a person and for a program.
//!
//! The names of the JSON fields are a contract.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use crate::access::clock;

/// A node's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct Status {
    pub node: String,
    /// The public key.
    pub key: String,
    /// When the node was started, and with it all that is counted, in seconds since 1970 by the node's clock.
    pub since: u64,
    pub streams: Vec<Stream>,
    pub peers: Vec<Peer>,
    /// Tables being copied out of the local database.
    pub copy: Vec<Copy>,
    pub slot: Option<Slot>,
    pub journal: Journal,
}

/// A stream that is held here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct Stream {
    /// The fingerprint of its origin's key.
    pub origin: String,
    /// Its origin's name; the fingerprint again where the configuration knows none.
    pub name: String,
    pub epoch: String,
    /// The first record that is held.
    pub first: u64,
    pub appended: u64,
    pub synced: u64,
    /// 0 where there is no database to apply it to, and for the node's own.
    pub applied: u64,
    pub journal_bytes: u64,
    pub halted: Option<Halted>,
    /// Whether somebody told its capture or its apply to pause.
    pub paused: bool,
    /// What went wrong last with applying it and is waited for, such as a database that is away.
    pub detail: Option<String>,
    /// What was counted while it was applied here; null where it is not.
    pub counts: Option<Counts>,
    /// Whose rows a copy of its tables holds besides its origin's own: the peers that are applied where it is captured.
    pub copied_with: Vec<String>,
    /// How many transactions and copies were ever left out of the local database on somebody's decision; null before it
    /// was asked.
    pub skipped: Option<u64>,
    pub last_skipped: Option<Skipped>,
}

/// What was left out last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The record that was refused.
    pub offset: u64,
    /// Why.
    pub code: String,
    /// When, by the database's clock.
    pub at: String,
    /// Who has decided so.
    pub by: String,
}

/// What was counted since the node was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How often the database refused a change, each try counted.
    pub apply_errors: u64,
    /// The same of copies.
    pub copy_errors: u64,
    /// Conflicts by kind, each counted once: those that a policy has resolved, and those that have halted the stream.
    pub conflicts: BTreeMap<String, u64>,
}

/// Why a stream stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract")]
pub struct Halted {
    pub code: String,
    pub offset: Option<u64>,
    pub table: Option<String>,
    pub key: Option<String>,
    pub detail: String,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct Peer {
    pub name: String,
    pub connected: bool,
    /// Whether somebody told the node to exchange nothing with it.
    pub paused: bool,
    pub rtt_ms: Option<u64>,
    /// Bits of records a second, before compression, that it acknowledged lately.
    pub goodput_bps: Option<u64>,
    /// What is shipped to it.
    pub streams: Vec<PeerStream>,
    /// Since the start, packets' overhead included.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// When it will have everything, at the pace at which it took what was pending while it was connected; the time
    /// outside of its window included, and days and months whose budget is spent. Null if that is unknown, or beyond ten years.
    pub eta_seconds: Option<u64>,
    /// What the link will carry until then, at the ratio of its bytes to the journal's that was measured lately.
    pub eta_bytes: Option<u64>,
    /// Whether that fits into what is left of its budget now; null if there is none, or that is unknown.
    pub fits_budget: Option<bool>,
    /// Whether it fits into its window, the next one if it is closed; null if there is none, or that is unknown.
    pub fits_window: Option<bool>,
    /// When it is talked to; null if always.
    pub window: Option<Window>,
    pub budget: Budget,
    /// Why it is not talked to; null if it is.
    pub stopped: Option<Stopped>,
    /// Why it is not connected, as far as that is known.
    pub detail: Option<String>,
}

/// Whether a peer's window is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct Window {
    pub open: bool,
    /// Until it is otherwise; null if it never is.
    pub changes_in_seconds: Option<u64>,
}

/// What a link has cost, in bytes of whole packets in both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct Budget {
    pub day_bytes: u64,
    pub day_limit: Option<u64>,
    pub month_bytes: u64,
    pub month_limit: Option<u64>,
    /// Whether four fifths of either limit are reached.
    pub warning: bool,
    /// Whether one is reached, and the peer not talked to for that.
    pub stopped: bool,
    /// Whether somebody has set limits and window aside until the day is over.
    pub set_aside: bool,
}

/// Why a peer is not talked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct Stopped {
    /// `outside_window`, `day_budget_spent` or `month_budget_spent`.
    pub code: String,
    pub detail: String,
    /// Until it goes on by itself.
    pub lifts_in_seconds: u64,
}

/// How far a stream is at a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct PeerStream {
    pub origin: String,
    pub epoch: String,
    pub shipped: u64,
    pub acked: u64,
    pub applied: u64,
    pub pending_records: u64,
    /// As they are on this node's disk.
    pub pending_bytes: u64,
}

/// A table being copied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct Copy {
    pub table: String,
    pub rows_done: u64,
    /// By the database's own estimate.
    pub rows_total: u64,
    pub bytes_done: u64,
}

/// The replication slot of the local database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct Slot {
    pub name: String,
    pub retained_wal_bytes: u64,
    /// What was confirmed to the database: durable here.
    pub confirmed: String,
    /// What capture is doing.
    pub state: String,
    /// Why it is not streaming.
    pub detail: Option<String>,
    /// Tables that are meant and not captured, by what is published.
    pub unpublished: Vec<String>,
}

/// The journal's share of the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract; those that need it are explained")]
pub struct Journal {
    pub bytes: u64,
    pub budget_bytes: u64,
    /// Damaged segments that were written anew with what peers hold, since the start.
    pub mended_segments: u64,
    /// Since when all of it had been read in the background; null if it was not yet, since the start.
    pub scrubbed_seconds_ago: Option<u64>,
    /// What is given up because the budget runs out.
    pub pressure: Pressure,
    /// Until there is no room, at the rate of the last minutes; null if it does not grow.
    pub hours_left: Option<f64>,
}

/// What is given up as a budget runs out, each step after those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pressure {
    /// Nothing.
    None,
    /// The retention window and the history for priming.
    Retention,
    /// Copies wait.
    Copies,
    /// Receiving waits.
    Receiving,
    /// Capture waits, and the database keeps its log.
    HoldWal,
    /// The slot is let go of, and the tables are copied again later.
    Resync,
}

impl Status {
    /// For a person.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let percent = self.journal.bytes.saturating_mul(100) / self.journal.budget_bytes.max(1);
        writeln!(out, "node {}  {}", self.node, self.key)?;
        let (used, budget) = (bytes(self.journal.bytes), bytes(self.journal.budget_bytes));
        write!(out, "journal {used} of {budget} ({percent} %)")?;
        if let Some(hours) = self.journal.hours_left {
            write!(out, "  full in {hours:.1} h at this rate")?;
        }
        writeln!(out)?;
        if let Some(sentence) = self.journal.pressure.sentence() {
            writeln!(out, "  {sentence}")?;
        }
        if let Some(slot) = &self.slot {
            let retained = bytes(slot.retained_wal_bytes);
            let Slot { name, state, confirmed, .. } = slot;
            writeln!(
                out,
                "slot {name}  {state}  confirmed {confirmed}  retains {retained} of WAL"
            )?;
            if let Some(detail) = &slot.detail {
                writeln!(out, "  {detail}")?;
            }
            if !slot.unpublished.is_empty() {
                writeln!(out, "  meant and not captured: {}", slot.unpublished.join(", "))?;
            }
        }
        for copy in &self.copy {
            let Copy { table, rows_done, rows_total, bytes_done } = copy;
            writeln!(
                out,
                "copy {table}  {rows_done} of about {rows_total} rows, {}",
                bytes(*bytes_done)
            )?;
        }
        for stream in &self.streams {
            let Stream { origin, name, appended, synced, applied, .. } = stream;
            let paused = if stream.paused { "  PAUSED" } else { "" };
            writeln!(
                out,
                "stream {name} {origin}  appended {appended}  synced {synced}  applied {applied}{paused}"
            )?;
            if let Some(halted) = &stream.halted {
                writeln!(out, "  HALTED {}: {}", halted.code, halted.detail)?;
            } else if let Some(detail) = &stream.detail {
                writeln!(out, "  {detail}")?;
            }
            if !stream.copied_with.is_empty() {
                writeln!(
                    out,
                    "  a copy of it holds rows of {} too",
                    stream.copied_with.join(", ")
                )?;
            }
            if let Some(Skipped { offset, code, at, by }) = &stream.last_skipped {
                let count = stream.skipped.unwrap_or_default();
                writeln!(out, "  left out {count}, the last at {offset} ({code}) by {by}, {at}")?;
            }
            if let Some(counts) = &stream.counts {
                counts.write(self.since, out)?;
            }
        }
        for peer in &self.peers {
            peer.write(out)?;
        }
        Ok(())
    }
}

impl Counts {
    /// A line, if there is anything to tell.
    fn write(&self, since: u64, out: &mut String) -> std::fmt::Result {
        let errors = [("apply", self.apply_errors), ("copy", self.copy_errors)];
        let errors: Vec<_> = errors.iter().filter(|it| it.1 > 0).map(named).collect();
        let kinds = self.conflicts.iter().map(|(kind, count)| (&**kind, *count));
        let kinds: Vec<_> = kinds.filter(|it| it.1 > 0).map(|it| named(&it)).collect();
        let told = [("errors", errors), ("conflicts", kinds)];
        let told = told.iter().filter(|(_, counts)| !counts.is_empty());
        let told: Vec<_> =
            told.map(|(what, counts)| format!("{what}: {}", counts.join(", "))).collect();
        match told.is_empty() {
            true => Ok(()),
            false => writeln!(out, "  since {}  {}", clock::written(since), told.join("  ")),
        }
    }
}

fn named((what, count): &(&str, u64)) -> String {
    format!("{what} {count}")
}

impl Pressure {
    fn sentence(self) -> Option<&'static str> {
        Some(match self {
            Self::None => return None,
            Self::Retention => "short of room: what everybody has goes at once",
            Self::Copies => "short of room: copies wait",
            Self::Receiving => "FULL: what is received waits",
            Self::HoldWal => "FULL: capture waits, and the database keeps its log",
            Self::Resync => "FULL: the slot is let go of, and the tables are copied again later",
        })
    }
}

impl Peer {
    /// When it is talked to, and how much.
    fn write_terms(&self, out: &mut String) -> std::fmt::Result {
        let Budget { day_bytes, day_limit, month_bytes, month_limit, .. } = self.budget;
        let spent = [("today", day_bytes, day_limit), ("this month", month_bytes, month_limit)];
        for (when, spent, limit) in spent {
            if let Some(limit) = limit {
                let warning = if self.budget.warning { "  MOSTLY SPENT" } else { "" };
                writeln!(out, "  {when} {} of {}{warning}", bytes(spent), bytes(limit))?;
            }
        }
        if self.budget.set_aside {
            writeln!(out, "  window and budget are set aside until the day is over")?;
        }
        if let Some(Stopped { code, detail, lifts_in_seconds }) = &self.stopped {
            writeln!(out, "  STOPPED {code}: {detail}, for another {lifts_in_seconds} s")?;
        }
        if self.fits_budget == Some(false) {
            writeln!(out, "  what is pending does not fit into what is left of its budget")?;
        }
        if self.fits_window == Some(false) {
            writeln!(out, "  what is pending does not fit into its window")?;
        }
        Ok(())
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let state = if self.connected { "connected" } else { "not connected" };
        let paused = if self.paused { "  PAUSED" } else { "" };
        write!(out, "peer {}  {state}{paused}", self.name)?;
        if let Some(rtt) = self.rtt_ms {
            write!(out, "  rtt {rtt} ms")?;
        }
        if let Some(goodput) = self.goodput_bps {
            write!(out, "  goodput {} kbit/s", goodput / 1_000)?;
        }
        write!(out, "  sent {}  received {}", bytes(self.bytes_sent), bytes(self.bytes_received))?;
        if let Some(eta) = self.eta_seconds {
            write!(out, "  drained in {eta} s")?;
        }
        if let Some(wire) = self.eta_bytes.filter(|wire| *wire > 0) {
            write!(out, "  about {} on the link", bytes(wire))?;
        }
        writeln!(out)?;
        self.write_terms(out)?;
        if let Some(detail) = &self.detail {
            writeln!(out, "  {detail}")?;
        }
        for stream in &self.streams {
            let PeerStream { origin, shipped, acked, applied, pending_records, .. } = stream;
            writeln!(
                out,
                "  {origin}  shipped {shipped}  acked {acked}  applied {applied}  pending {pending_records} records, {}",
                bytes(stream.pending_bytes)
            )?;
        }
        Ok(())
    }
}

/// Bytes in the largest unit that leaves a number of at least one.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, units[unit as usize]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told_with_the_moment_since_when_if_there_is_any() {
        let told = |counts: &Counts| {
            let mut out = String::new();
            counts.write(0, &mut out).unwrap();
            out
        };
        let mut counts = Counts::default();
        counts.conflicts.insert("update_missing".into(), 0);
        assert_eq!(told(&counts), "");
        counts.copy_errors = 2;
        assert_eq!(told(&counts), "  since 1970-01-01T00:00:00Z  errors: copy 2\n");
        counts.apply_errors = 1;
        counts.conflicts.insert("insert_exists".into(), 3);
        assert_eq!(
            told(&counts),
            "  since 1970-01-01T00:00:00Z  errors: apply 1, copy 2  conflicts: insert_exists 3\n"
        );
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }
}
