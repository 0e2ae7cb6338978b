//! Doors for the fuzz targets to the two halves of a session, as a connection uses them.

use std::{collections::BTreeMap, sync::Arc};

use thinwire_engine::{
    codec::Records,
    journal::Journal,
    model::{Offset, StreamId},
};

use crate::{
    frame::{Ack, Control, Excerpt as Wanted, Opening, data_header, put_opening},
    peer::Peer,
    session::{
        Violation,
        cursor::Ends,
        excerpt::Excerpt,
        receiver::{Receiver, Taken},
        sender::{Outgoing, Sender},
    },
};

/// What a node does with all that one peer says.
#[derive(Debug)]
pub struct Session {
    journal: Arc<Journal>,
    peer: Peer,
    receiver: Receiver,
    sender: Sender,
}

/// What became of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are in the journal, or were, or their stream was stopped before.
    Taken,
    /// There was no room.
    Later,
    /// Their stream does not go on.
    Stopped,
}

/// The peer broke the rules; the connection ends.
#[derive(Debug)]
pub struct Broken;

impl Session {
    /// A connection to `peer` begins.
    pub fn new(journal: &Arc<Journal>, peer: &Peer) -> Self {
        let mut receiver = Receiver::new(journal.clone(), peer.clone());
        receiver.holdings();
        let sender = Sender::new(journal.clone(), peer.clone(), BTreeMap::new());
        Self { journal: journal.clone(), peer: peer.clone(), receiver, sender }
    }

    /// The peer opens a stream; returns whether it is taken.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn open(&mut self, opening: &Opening) -> Result<bool, Broken> {
        Ok(self.receiver.open(opening)?.is_none())
    }

    /// The peer ships records.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn records(
        &mut self,
        index: u32,
        first: Offset,
        records: &Records,
    ) -> Result<Fate, Broken> {
        if self.receiver.inspect(index, records)?.is_some() {
            return Ok(Fate::Stopped);
        }
        Ok(match self.receiver.take(index, first, records)? {
            Taken::Done => Fate::Taken,
            Taken::Later(_) => Fate::Later,
            Taken::Stopped(_) => Fate::Stopped,
        })
    }

    /// The peer says something beside records.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn control(&mut self, control: Control) -> Result<(), Broken> {
        match control {
            Control::Hello(hello) => {
                self.sender.pause(hello.paused);
                self.sender.holds(hello.holds)?;
                self.sender.wants(hello.wants);
            }
            Control::Holds(holds) => self.sender.holds(holds)?,
            Control::Acks(acks) => acks.iter().try_for_each(|ack| self.sender.acked(ack))?,
            Control::Stop(stop) => {
                self.receiver.stopped(&stop);
                self.sender.stopped(stop.stream);
            }
            Control::Pause(paused) => self.sender.pause(paused),
            Control::Copy(request) => self.sender.serve_from(request.stream, Offset::FIRST),
            Control::Prove(prefix) => {
                self.receiver.prove(&prefix)?;
            }
            Control::Proof(prefix, running) => self.sender.proven(prefix, running),
            Control::Fetch(_) => return Err(Broken),
        }
        self.sender.effects();
        Ok(())
    }

    /// What is due to be acknowledged.
    pub fn acks(&mut self) -> Vec<Ack> {
        self.receiver.acks()
    }

    /// The next frames to ship, as they are before compression.
    pub fn ship(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        for outgoing in self.sender.next_batch() {
            match outgoing {
                Outgoing::Open(opening) => put_opening(&opening, &mut wire),
                Outgoing::Run(index, run) => {
                    data_header(index, run.first, &run.records, &mut wire);
                    wire.extend_from_slice(run.records.bytes());
                }
            }
        }
        wire
    }

    /// What the peer gets of a range that it asks for again, each part with its first offset; `None` if it is not held.
    pub fn excerpt(&self, wanted: &Wanted) -> Option<Vec<(Offset, Records)>> {
        let stream = self.journal.stream(wanted.stream)?;
        let ends = Ends { node: self.journal.own(), peer: self.peer.origin() };
        let mut excerpt = Excerpt::open(&stream, wanted, ends).ok()??;
        let mut parts = Vec::new();
        while let Ok(Some(part)) = excerpt.next_part() {
            parts.push((part.first, part.records));
        }
        Some(parts)
    }

    /// How far the peer is believed to hold each stream.
    pub fn acked(&self) -> Vec<(StreamId, Offset)> {
        self.sender.marks().map(|(id, marks)| (id, marks.acked)).collect()
    }
}

impl From<Violation> for Broken {
    fn from(_: Violation) -> Self {
        Self
    }
}
