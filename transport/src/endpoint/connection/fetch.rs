//! Asking a peer for records that were lost here, and answering when a peer asks: each time over a stream of its own.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::{Buf, Bytes};
use quinn::{RecvStream, SendStream};
use thinwire_engine::{
    codec::{Records, Tag},
    model::{Offset, StreamId},
};

use super::{Conversation, End, next_control, write_all};
use crate::{
    endpoint::blocking,
    frame::{Control, ControlDecoder, DataDecoder, DataFrame, Excerpt, Stop, data_header},
    session::{Violation, cursor::Ends, excerpt},
    wire::{Compressor, Decompressor},
};

/// Why records could not be had from a peer. Another one may have them.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no connection to it, or it ended.
    #[error("no connection to {peer}: {reason}")]
    NotConnected {
        /// The peer.
        peer: String,
        /// What happened.
        reason: String,
    },
    /// It does not have them, or this node may not have them from it.
    #[error("{peer} does not give the records: {reason}")]
    Refused {
        /// The peer.
        peer: String,
        /// Its words.
        reason: String,
    },
    /// What it sent is not what was asked for.
    #[error("{peer} answers with something else than the records: {reason}")]
    Misbehaved {
        /// The peer.
        peer: String,
        /// What is wrong.
        reason: String,
    },
}

/// Records on their way from a peer.
#[derive(Debug)]
pub struct Fetching {
    peer: String,
    read: RecvStream,
    decompressor: Decompressor,
    decoder: DataDecoder,
    /// What was not decompressed yet, and whether the decompressor may have more.
    compressed: Bytes,
    pending: bool,
    wanted: Range<Offset>,
    /// How long a record may be.
    room: u64,
    /// Whether the stream is our own, of which nothing was ever withheld from us.
    is_own: bool,
}

impl Fetching {
    /// The next records, in order, none beyond what was asked for; `None` when all have come.
    ///
    /// # Errors
    /// Whatever ended the answer before its end.
    pub async fn next(&mut self) -> Result<Option<Records>, FetchError> {
        while self.wanted.start < self.wanted.end {
            if let Some(frame) = self.decoder.next_frame().map_err(|error| self.bad(error))? {
                return self.check(frame).map(Some);
            }
            if let Some(announced) = self.decoder.announced() {
                self.admit(announced)?;
            }
            if self.pending {
                self.decompress()?;
                continue;
            }
            let chunk = self.read.read_chunk(READ_BYTES, true).await;
            let chunk = chunk.map_err(|error| self.gone(error))?;
            let Some(chunk) = chunk else {
                return Err(FetchError::Refused {
                    peer: self.peer.clone(),
                    reason: "it cannot read them itself".to_owned(),
                });
            };
            (self.compressed, self.pending) = (chunk.bytes, true);
        }
        Ok(None)
    }

    /// Takes one piece out of what came, so that little is held whatever it becomes.
    fn decompress(&mut self) -> Result<(), FetchError> {
        let mut rest = &self.compressed[..];
        match self.decompressor.pull(&mut rest) {
            Ok(piece) => {
                self.pending = !piece.is_empty() || !rest.is_empty();
                self.decoder.push(piece);
            }
            Err(error) => {
                let (peer, reason) = (self.peer.clone(), error.to_string());
                return Err(FetchError::Misbehaved { peer, reason });
            }
        }
        let taken = self.compressed.len() - rest.len();
        self.compressed.advance(taken);
        Ok(())
    }

    /// Whether a long record that is about to come is gathered. Nobody withholds one, and one for which there is no room at
    /// all cannot have been lost.
    fn admit(&mut self, (index, bytes): (u32, usize)) -> Result<(), FetchError> {
        if index != HELD || bytes as u64 > self.room {
            let room = self.room;
            let reason = format!("a record of {bytes} bytes, and there is room for {room}");
            return Err(self.bad(reason));
        }
        self.decoder.admit();
        Ok(())
    }

    fn check(&mut self, frame: DataFrame) -> Result<Records, FetchError> {
        let DataFrame::Records { index, first, records } = frame else {
            return Err(self.bad("it opens a stream"));
        };
        let after = first.forward(records.span());
        if first != self.wanted.start || after > self.wanted.end || records.is_empty() {
            return Err(self.bad("the records are others than those asked for"));
        }
        let skips = records.iter().any(|record| Tag::of(&record) == Ok(Tag::Skip));
        if skips && (index != WITHHELD || self.is_own) {
            return Err(FetchError::Refused {
                peer: self.peer.clone(),
                reason: "some were withheld from it too".to_owned(),
            });
        }
        self.wanted.start = after;
        Ok(records)
    }

    fn bad(&self, reason: impl ToString) -> FetchError {
        FetchError::Misbehaved { peer: self.peer.clone(), reason: reason.to_string() }
    }

    fn gone(&self, reason: impl ToString) -> FetchError {
        FetchError::NotConnected { peer: self.peer.clone(), reason: reason.to_string() }
    }
}

impl Conversation {
    /// Asks the peer for records of a stream.
    pub(crate) async fn fetch(
        &self,
        stream: StreamId,
        wanted: Range<Offset>,
    ) -> Result<Fetching, FetchError> {
        let peer = self.link.peer.name.clone();
        let gone = |reason: String| FetchError::NotConnected { peer: peer.clone(), reason };
        let bad = |reason: String| FetchError::Misbehaved { peer: peer.clone(), reason };
        let (mut write, mut read) =
            self.connection.open_bi().await.map_err(|error| gone(error.to_string()))?;
        let mut bytes = Vec::new();
        let asked = Excerpt { stream, from: wanted.start, until: wanted.end };
        Control::Fetch(asked).encode(&mut bytes).map_err(|error| bad(error.to_string()))?;
        write_all(&mut write, &bytes).await.map_err(|end| gone(end.to_string()))?;
        let _ = write.finish();
        let mut control = ControlDecoder::default();
        match next_control(&mut read, &mut control).await {
            Ok(Control::Fetch(echo)) if echo == asked => {}
            Ok(Control::Stop(stop)) => {
                return Err(FetchError::Refused { peer, reason: stop.detail });
            }
            Ok(_) => return Err(bad("it says something else".to_owned())),
            Err(end @ End::Lost(_)) => return Err(gone(end.to_string())),
            Err(end) => return Err(bad(end.to_string())),
        }
        let decompressor = Decompressor::new().map_err(|error| bad(error.to_string()))?;
        Ok(Fetching {
            peer,
            read,
            decompressor,
            decoder: DataDecoder::default(),
            // What came in one piece with the answer belongs to the records.
            compressed: Bytes::copy_from_slice(control.rest()),
            pending: true,
            wanted,
            room: self.node.journal.usage().budget,
            is_own: stream.origin == self.node.journal.own(),
        })
    }

    /// Answers whoever asks, one after the other.
    pub(super) async fn answer_fetches(self: &Arc<Self>) -> Result<std::convert::Infallible, End> {
        loop {
            let (write, mut read) = self.connection.accept_bi().await?;
            let mut decoder = ControlDecoder::default();
            match next_control(&mut read, &mut decoder).await? {
                Control::Fetch(wanted) => match self.answer(write, wanted).await {
                    Err(end @ End::Lost(_)) => return Err(end),
                    // Whoever asked may have enough before the end.
                    Err(end) => {
                        tracing::debug!(peer = self.link.peer.name, reason = %end, "answer ended")
                    }
                    Ok(()) => {}
                },
                _ => return Err(Violation("asks something that is no question".into()).into()),
            }
        }
    }

    async fn answer(&self, mut write: SendStream, wanted: Excerpt) -> Result<(), End> {
        let mut bytes = Vec::new();
        let Some(mut excerpt) = self.find(&wanted) else {
            let detail = "they are not held there, or not for this node".to_owned();
            let stop = Stop { stream: wanted.stream, code: LACKING.to_owned(), detail };
            Control::Stop(stop).encode(&mut bytes)?;
            write_all(&mut write, &bytes).await?;
            let _ = write.finish();
            return Ok(());
        };
        Control::Fetch(wanted).encode(&mut bytes)?;
        write_all(&mut write, &bytes).await?;
        let mut compressor = Compressor::new().map_err(End::Wire)?;
        // What cannot be read here ends the answer early, which says so.
        while let Ok(Some(part)) = blocking(|| excerpt.next_part()) {
            let (mut header, mut wire) = (Vec::new(), Vec::new());
            let index = if part.withheld { WITHHELD } else { HELD };
            data_header(index, part.first, &part.records, &mut header);
            compressor.push(&header, &mut wire).map_err(End::Wire)?;
            compressor.push(part.records.bytes(), &mut wire).map_err(End::Wire)?;
            compressor.flush(&mut wire).map_err(End::Wire)?;
            self.write_slowly(&mut write, &mut wire).await?;
        }
        let _ = write.finish();
        Ok(())
    }

    /// The records, if they are here and the peer may have them. Who may not is not told whether they are.
    fn find(&self, wanted: &Excerpt) -> Option<excerpt::Excerpt> {
        if self.link.is_paused() || self.peer_pauses.load(Relaxed) {
            return None;
        }
        let (peer, id) = (&self.link.peer, wanted.stream);
        let may = id.origin == peer.origin() || peer.ships(self.node.journal.own(), id);
        let stream = self.node.journal.stream(id).filter(|_| may)?;
        let ends = Ends { node: self.node.journal.own(), peer: peer.origin() };
        match blocking(|| excerpt::Excerpt::open(&stream, wanted, ends)) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(peer = peer.name, stream = %id, %error, "cannot give lost records back");
                None
            }
        }
    }
}

/// Records as they are held.
const HELD: u32 = 0;
/// Skipped runs in the place of what the peer never had.
const WITHHELD: u32 = 1;

const LACKING: &str = "lacking";
const READ_BYTES: usize = 32 << 10;
