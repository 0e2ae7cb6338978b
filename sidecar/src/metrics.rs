//! The status as Prometheus reads it.
//!
//! The names of the metrics and labels are a contract. What is unknown has no sample.

use std::fmt::Write as _;

use crate::status::{Peer, Pressure, Status, Stream};

/// What the text is, for an HTTP header.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a node, in Prometheus' text format.
pub fn render(status: &Status) -> String {
    let mut page = Page::default();
    page.journal(status);
    page.mended(status);
    page.scrubbed(status);
    page.streams(&status.streams);
    page.counts(status);
    page.peers(&status.peers);
    page.terms(&status.peers);
    page.capture(status);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn journal(&mut self, status: &Status) {
        let journal = &status.journal;
        self.gauge("journal_bytes", "On disk, and staged for it.", [alone(journal.bytes)]);
        let budget = [alone(journal.budget_bytes)];
        self.gauge("journal_budget_bytes", "What the journal may take.", budget);
        let steps = [
            ("none", Pressure::None),
            ("retention", Pressure::Retention),
            ("copies", Pressure::Copies),
            ("receiving", Pressure::Receiving),
            ("hold_wal", Pressure::HoldWal),
            ("resync", Pressure::Resync),
        ];
        let samples =
            steps.map(|(name, step)| (vec![("step", name)], u64::from(step == journal.pressure)));
        self.gauge("journal_pressure", "1 for the step of the budget that is in force.", samples);
        let hours = journal.hours_left.map(alone);
        self.gauge("journal_hours_left", "Until there is no room, at the present rate.", hours);
    }

    fn mended(&mut self, status: &Status) {
        let help = "Damaged segments that were written anew, since the start.";
        self.counter(
            "journal_mended_segments_total",
            help,
            [alone(status.journal.mended_segments)],
        );
    }

    fn scrubbed(&mut self, status: &Status) {
        let ago = status.journal.scrubbed_seconds_ago.map(alone);
        let help = "Since when all of it had been read in the background.";
        self.gauge("journal_scrubbed_seconds_ago", help, ago);
    }

    fn streams(&mut self, streams: &[Stream]) {
        type Field = fn(&Stream) -> u64;
        let fields: [(&str, &str, Field); 6] = [
            ("stream_first_offset", "The first record that is held.", |it| it.first),
            ("stream_appended_offset", "The last record in memory.", |it| it.appended),
            ("stream_synced_offset", "The last durable record.", |it| it.synced),
            ("stream_applied_offset", "The last record in the local database.", |it| it.applied),
            ("stream_journal_bytes", "What the stream takes on disk.", |it| it.journal_bytes),
            ("stream_paused", "1 if capture or apply was told to pause.", |it| it.paused.into()),
        ];
        for (name, help, field) in fields {
            self.gauge(name, help, streams.iter().map(|it| (labels(it), field(it))));
        }
        let halts = streams.iter().map(|it| {
            let code = it.halted.as_ref().map_or("", |halted| &halted.code);
            let labels = [labels(it), vec![("code", code)]].concat();
            (labels, u64::from(it.halted.is_some()))
        });
        self.gauge("stream_halted", "1 if the stream stands still, with the code.", halts);
    }

    fn counts(&mut self, status: &Status) {
        let help = "When the node was started, and with it all counters, in seconds since 1970.";
        self.gauge("start_time_seconds", help, [alone(status.since)]);
        let applied =
            || status.streams.iter().filter_map(|it| Some((labels(it), it.counts.as_ref()?)));
        let help = "How often the database refused a change, each try counted.";
        let errors = applied().map(|(labels, counts)| (labels, counts.apply_errors));
        self.counter("stream_apply_errors_total", help, errors);
        let help = "How often the database refused a copy, each try counted.";
        let errors = applied().map(|(labels, counts)| (labels, counts.copy_errors));
        self.counter("stream_copy_errors_total", help, errors);
        let conflicts = applied().flat_map(|(labels, counts)| {
            let labels = move |kind| [labels.clone(), vec![("kind", kind)]].concat();
            counts.conflicts.iter().map(move |(kind, count)| (labels(&**kind), *count))
        });
        // A sample of 0 before the database was asked would read as a counter that was reset.
        let skipped = status.streams.iter().filter_map(|it| Some((labels(it), it.skipped?)));
        let help = "Transactions and copies ever left out on somebody's decision.";
        self.counter("stream_skipped_total", help, skipped);
        let help = "Conflicts by kind: resolved by a policy, or halting the stream.";
        self.counter("stream_conflicts_total", help, conflicts);
    }

    fn peers(&mut self, peers: &[Peer]) {
        let of = |peer: &'_ Peer| vec![("peer", peer.name.clone())];
        let flag = |field: fn(&Peer) -> bool| {
            peers.iter().map(move |peer| (of(peer), u64::from(field(peer))))
        };
        self.gauge("peer_connected", "1 if there is a connection.", flag(|it| it.connected));
        self.gauge("peer_paused", "1 if nothing is exchanged with it.", flag(|it| it.paused));
        let known = |field: fn(&Peer) -> Option<u64>| {
            peers.iter().filter_map(move |peer| Some((of(peer), field(peer)?)))
        };
        self.gauge("peer_rtt_milliseconds", "The round trip.", known(|it| it.rtt_ms));
        let help = "Bits of records a second, before compression, acknowledged lately.";
        self.gauge("peer_goodput_bits_per_second", help, known(|it| it.goodput_bps));
        let help = "Until it has everything, at its present pace.";
        self.gauge("peer_eta_seconds", help, known(|it| it.eta_seconds));
        let help = "Bytes of whole packets sent since the start.";
        self.counter("peer_sent_bytes_total", help, known(|it| Some(it.bytes_sent)));
        let help = "Bytes of whole packets received since the start.";
        self.counter("peer_received_bytes_total", help, known(|it| Some(it.bytes_received)));
        type Field = fn(&crate::status::PeerStream) -> u64;
        let fields: [(&str, &str, Field); 5] = [
            ("peer_shipped_offset", "The last record that was sent.", |it| it.shipped),
            ("peer_acked_offset", "The last record that is durable there.", |it| it.acked),
            ("peer_applied_offset", "The last record in its database.", |it| it.applied),
            ("peer_pending_records", "Records that it lacks.", |it| it.pending_records),
            ("peer_pending_bytes", "Those, as they are on disk here.", |it| it.pending_bytes),
        ];
        for (name, help, field) in fields {
            let streams = peers.iter().flat_map(|peer| {
                peer.streams.iter().map(move |it| {
                    let labels =
                        vec![("peer", &peer.name), ("origin", &it.origin), ("epoch", &it.epoch)];
                    (labels, field(it))
                })
            });
            self.gauge(name, help, streams);
        }
    }

    /// When peers are talked to, and what that has cost.
    fn terms(&mut self, peers: &[Peer]) {
        let of = |peer: &Peer| vec![("peer", peer.name.clone())];
        let stops = peers.iter().map(|it| {
            let code = it.stopped.as_ref().map_or(String::new(), |stopped| stopped.code.clone());
            let labels = [of(it), vec![("code", code)]].concat();
            (labels, u64::from(it.stopped.is_some()))
        });
        self.gauge("peer_stopped", "1 if its window or budget stops it, with the code.", stops);
        type Field = fn(&Peer) -> Option<u64>;
        let spent: [(&str, &str, Field); 4] = [
            ("peer_day_bytes", "What its link carried today.", |it| Some(it.budget.day_bytes)),
            ("peer_day_limit_bytes", "What it may carry a day.", |it| it.budget.day_limit),
            ("peer_month_bytes", "What it carried this month.", |it| Some(it.budget.month_bytes)),
            ("peer_month_limit_bytes", "What it may carry a month.", |it| it.budget.month_limit),
        ];
        for (name, help, field) in spent {
            let samples = peers.iter().filter_map(|peer| Some((of(peer), field(peer)?)));
            self.gauge(name, help, samples);
        }
    }

    fn capture(&mut self, status: &Status) {
        let slot = status.slot.iter();
        let samples = slot.map(|slot| (vec![("slot", &slot.name)], slot.retained_wal_bytes));
        let help = "What of its log the database keeps for the slot.";
        self.gauge("slot_retained_wal_bytes", help, samples);
        let rows = status.copy.iter().map(|copy| (vec![("table", &copy.table)], copy.rows_done));
        self.gauge("copy_rows_done", "Rows of the current or last copy.", rows);
    }

    fn gauge<L: AsRef<str>, V: ToString>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, L)>, V)>,
    ) {
        self.metric("gauge", name, help, samples);
    }

    fn counter<L: AsRef<str>, V: ToString>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, L)>, V)>,
    ) {
        self.metric("counter", name, help, samples);
    }

    fn metric<L: AsRef<str>, V: ToString>(
        &mut self,
        kind: &str,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, L)>, V)>,
    ) {
        let out = &mut self.0;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP thinwire_{name} {help}\n# TYPE thinwire_{name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<_> = labels
                .iter()
                .map(|(label, text)| format!("{label}=\"{}\"", escaped(text.as_ref())))
                .collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            let _ = writeln!(out, "thinwire_{name}{labels} {}", value.to_string());
        }
    }
}

/// A sample without labels.
fn alone<V>(value: V) -> (Vec<(&'static str, &'static str)>, V) {
    (Vec::new(), value)
}

fn labels(stream: &Stream) -> Vec<(&'static str, &str)> {
    vec![("origin", &stream.origin), ("epoch", &stream.epoch), ("name", &stream.name)]
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Budget, Copy, Counts, Halted, Journal, PeerStream};

    fn counts() -> Counts {
        let conflicts = [("update_missing".to_owned(), 6)].into();
        Counts { apply_errors: 4, copy_errors: 5, conflicts }
    }

    fn halted() -> Halted {
        let (code, detail) = ("conflict".into(), "x".into());
        Halted { code, offset: None, table: None, key: None, detail }
    }

    fn status() -> Status {
        let stream = |epoch: &str| PeerStream {
            origin: "o".into(),
            epoch: epoch.into(),
            shipped: 6,
            acked: 5,
            applied: 4,
            pending_records: 3,
            pending_bytes: 2,
        };
        let peer = Peer {
            name: "hq".into(),
            connected: true,
            rtt_ms: None,
            goodput_bps: None,
            streams: vec![stream("e"), stream("f")],
            bytes_sent: 1,
            bytes_received: 1,
            eta_seconds: None,
            eta_bytes: None,
            fits_budget: None,
            fits_window: None,
            window: None,
            budget: Budget::default(),
            stopped: None,
            paused: false,
            detail: None,
        };
        Status {
            node: "n".into(),
            key: "k".into(),
            since: 1_700_000_000,
            streams: vec![Stream {
                origin: "o".into(),
                name: "edge".into(),
                epoch: "e".into(),
                first: 1,
                appended: 9,
                synced: 8,
                applied: 7,
                journal_bytes: 100,
                halted: Some(halted()),
                paused: false,
                detail: None,
                counts: Some(counts()),
                copied_with: Vec::new(),
                skipped: Some(2),
                last_skipped: None,
            }],
            peers: vec![peer],
            copy: vec![Copy {
                table: "public.\"odd\\\n".into(),
                rows_done: 3,
                rows_total: 4,
                bytes_done: 5,
            }],
            slot: None,
            journal: Journal {
                bytes: 100,
                budget_bytes: 1_000,
                pressure: Pressure::Retention,
                hours_left: None,
                mended_segments: 0,
                scrubbed_seconds_ago: Some(60),
            },
        }
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample_and_labels_are_escaped() {
        let text = render(&status());
        for line in text.lines() {
            let is_sample = line.starts_with("thinwire_")
                && line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok());
            assert!(line.starts_with("# ") || is_sample, "{line}");
        }
        for expected in [
            "thinwire_stream_synced_offset{origin=\"o\",epoch=\"e\",name=\"edge\"} 8\n",
            "thinwire_stream_halted{origin=\"o\",epoch=\"e\",name=\"edge\",code=\"conflict\"} 1\n",
            "thinwire_journal_pressure{step=\"retention\"} 1\n",
            "thinwire_journal_pressure{step=\"none\"} 0\n",
            "thinwire_journal_scrubbed_seconds_ago 60\n",
            "thinwire_peer_acked_offset{peer=\"hq\",origin=\"o\",epoch=\"e\"} 5\n",
            "thinwire_peer_acked_offset{peer=\"hq\",origin=\"o\",epoch=\"f\"} 5\n",
            "thinwire_start_time_seconds 1700000000\n",
            "thinwire_stream_apply_errors_total{origin=\"o\",epoch=\"e\",name=\"edge\"} 4\n",
            "thinwire_stream_copy_errors_total{origin=\"o\",epoch=\"e\",name=\"edge\"} 5\n",
            "thinwire_stream_conflicts_total{origin=\"o\",epoch=\"e\",name=\"edge\",kind=\"update_missing\"} 6\n",
            "thinwire_stream_skipped_total{origin=\"o\",epoch=\"e\",name=\"edge\"} 2\n",
            "# TYPE thinwire_stream_conflicts_total counter\n",
            "thinwire_copy_rows_done{table=\"public.\\\"odd\\\\\\n\"} 3\n",
            "# TYPE thinwire_peer_sent_bytes_total counter\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in:\n{text}");
        }
        assert!(!text.contains("\nthinwire_journal_hours_left"), "what is unknown has no sample");
        let mut unread = status();
        unread.streams[0].skipped = None;
        assert!(!render(&unread).contains("\nthinwire_stream_skipped_total"));
    }
}
