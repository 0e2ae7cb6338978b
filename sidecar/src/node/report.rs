//! The node's status, put together from what its parts say of themselves.

use std::sync::atomic::Ordering::Relaxed;

use thinwire_apply::{Applier, ApplierStatus, LastSkipped};
use thinwire_capture::{Capture, OnFull};
use thinwire_engine::{
    Error,
    journal::{Pressure, Stream, Unopened, Watermarks},
    model::{Halt, Offset, StreamId},
};
use thinwire_transport::{PeerStatus, PeerStream};

use super::{Node, keeper::pending, lock};
use crate::{access::Local, drain::Pending, status};

impl Node {
    /// How the node is doing.
    pub fn status(&self) -> status::Status {
        let capture = self.capture.get().map(Capture::status);
        status::Status {
            node: self.config.name.clone(),
            key: self.key.clone(),
            since: self.since,
            streams: self.streams(),
            peers: self.transport.peers().iter().map(|peer| self.peer(peer)).collect(),
            copy: capture.iter().flat_map(|capture| &capture.copy).map(copy).collect(),
            slot: capture.map(slot),
            journal: self.budget(),
        }
    }

    fn budget(&self) -> status::Journal {
        let usage = self.journal.usage();
        let pressure = match (self.journal.pressure(), self.config.journal.on_full) {
            (Pressure::None, _) => status::Pressure::None,
            (Pressure::Retention, _) => status::Pressure::Retention,
            (Pressure::Copies, _) => status::Pressure::Copies,
            (Pressure::Receiving, _) => status::Pressure::Receiving,
            (Pressure::Capture, OnFull::HoldWal) => status::Pressure::HoldWal,
            (Pressure::Capture, OnFull::Resync) => status::Pressure::Resync,
        };
        let hours_left = match pressure {
            // What is refused something has no time left, whatever it did before.
            status::Pressure::Receiving | status::Pressure::HoldWal | status::Pressure::Resync => {
                Some(0.0)
            }
            _ => lock(&self.forecast).hours_left().map(|hours| (hours * 1_000.0).round() / 1_000.0),
        };
        status::Journal {
            bytes: usage.bytes,
            budget_bytes: usage.budget,
            pressure,
            hours_left,
            mended_segments: self.mended.load(Relaxed),
            scrubbed_seconds_ago: self.scrubbed_seconds_ago(),
        }
    }

    fn streams(&self) -> Vec<status::Stream> {
        let mut streams: Vec<_> =
            self.journal.streams().iter().map(|stream| self.stream(stream)).collect();
        // One that was mended meanwhile is among those.
        let closed = |unopened: &&Unopened| self.journal.stream(unopened.id).is_none();
        for unopened in lock(&self.unopened).iter().filter(closed) {
            streams.push(status::Stream {
                halted: Some(halted(&unopened_halt(&unopened.error))),
                journal_bytes: unopened.bytes,
                ..self.stream_of(unopened.id, None)
            });
        }
        streams
    }

    fn stream(&self, stream: &Stream) -> status::Stream {
        let halt = stream.halted().borrow().as_ref().map(halted);
        let applier = lock(&self.appliers).get(&stream.id()).map(Applier::status);
        let capture = self.capture.get().filter(|_| stream.id().origin == self.journal.own());
        let is_paused = match (&applier, capture) {
            (Some(applier), _) => applier.state == thinwire_apply::State::Paused,
            (None, Some(capture)) => capture.status().state == thinwire_capture::State::Paused,
            (None, None) => false,
        };
        let marks = Some(stream.watermarks());
        let left_out = applier.as_ref().and_then(|applier| applier.skipped.as_ref());
        status::Stream {
            halted: halt,
            paused: is_paused,
            counts: applier.as_ref().map(counts),
            skipped: left_out.map(|it| it.count),
            last_skipped: left_out.and_then(|it| it.last.as_ref()).map(skipped),
            detail: applier.and_then(|applier| applier.last_error),
            ..self.stream_of(stream.id(), marks)
        }
    }

    fn stream_of(&self, id: StreamId, marks: Option<Watermarks>) -> status::Stream {
        let get = |of: fn(&Watermarks) -> Offset| marks.as_ref().map_or(0, |marks| of(marks).get());
        status::Stream {
            origin: id.origin.to_string(),
            name: self.name_of(id.origin).unwrap_or_else(|| id.origin.to_string()),
            epoch: id.epoch.to_string(),
            first: get(|marks| marks.first),
            appended: get(|marks| marks.appended),
            synced: get(|marks| marks.synced),
            applied: get(|marks| marks.applied),
            journal_bytes: marks.map_or(0, |marks| marks.bytes),
            halted: None,
            paused: false,
            detail: None,
            counts: None,
            copied_with: match id.origin == self.journal.own() {
                true => self.config.copied_with().into_iter().map(str::to_owned).collect(),
                false => Vec::new(),
            },
            skipped: None,
            last_skipped: None,
        }
    }

    fn peer(&self, peer: &PeerStatus) -> status::Peer {
        let pending = |at| pending(&self.journal, at).map(|pending| (at, pending));
        let streams: Vec<_> = peer.streams.iter().filter_map(pending).map(peer_stream).collect();
        let pending: u64 = streams.iter().map(|stream| stream.pending_bytes).sum();
        let (eta, wire) = {
            let mut drains = lock(&self.drains);
            let drain = drains.entry(peer.origin).or_default();
            (drain.eta_seconds(pending), drain.wire_bytes(pending))
        };
        let outlook = lock(&self.doors)
            .get(&peer.origin)
            .map(|door| door.access.outlook(Local::now(), eta, wire))
            .unwrap_or_default();
        status::Peer {
            name: peer.name.clone(),
            connected: peer.connected,
            rtt_ms: peer.rtt_ms,
            goodput_bps: (peer.goodput_bps > 0).then_some(peer.goodput_bps),
            streams,
            bytes_sent: peer.bytes_sent,
            bytes_received: peer.bytes_received,
            eta_seconds: outlook.eta_seconds,
            eta_bytes: wire,
            fits_budget: outlook.fits_budget,
            fits_window: outlook.fits_window,
            window: outlook.window,
            budget: outlook.budget,
            stopped: outlook.stopped,
            paused: peer.paused,
            detail: peer.last_error.clone(),
        }
    }
}

fn peer_stream((at, pending): (&PeerStream, Pending)) -> status::PeerStream {
    status::PeerStream {
        origin: at.id.origin.to_string(),
        epoch: at.id.epoch.to_string(),
        shipped: at.shipped.get(),
        acked: at.acked.get(),
        applied: at.applied.get(),
        pending_records: pending.records,
        pending_bytes: pending.bytes(),
    }
}

fn unopened_halt(error: &Error) -> Halt {
    let (code, offset) = match error {
        Error::Corrupt { offset, .. } => ("journal_corrupt", Some(*offset)),
        Error::Version { .. } => ("journal_version", None),
        Error::NoSpace { .. } => ("disk_full", None),
        _ => ("journal_io", None),
    };
    Halt { offset, ..Halt::new(code, error.to_string()) }
}

fn halted(halt: &Halt) -> status::Halted {
    status::Halted {
        code: halt.code.clone(),
        offset: halt.offset.map(Offset::get),
        table: halt.table.clone(),
        key: halt.key.clone(),
        detail: halt.detail.clone(),
    }
}

fn counts(applier: &ApplierStatus) -> status::Counts {
    status::Counts {
        apply_errors: applier.apply_errors,
        copy_errors: applier.copy_errors,
        conflicts: applier.conflicts.all().map(|(kind, count)| (kind.to_owned(), count)).collect(),
    }
}

fn skipped(last: &LastSkipped) -> status::Skipped {
    let LastSkipped { offset, code, at, by } = last.clone();
    status::Skipped { offset, code, at, by }
}

fn copy(copy: &thinwire_capture::CopyProgress) -> status::Copy {
    status::Copy {
        table: copy.table.clone(),
        rows_done: copy.rows_done,
        rows_total: copy.rows_total,
        bytes_done: copy.bytes_done,
    }
}

fn slot(capture: thinwire_capture::CaptureStatus) -> status::Slot {
    status::Slot {
        name: capture.slot,
        retained_wal_bytes: capture.retained_wal_bytes,
        confirmed: capture.confirmed.to_string(),
        state: format!("{:?}", capture.state).to_lowercase(),
        detail: capture.last_error,
        unpublished: capture.unpublished,
    }
}
