//! Control frames: the hello, what is held, acknowledgements, refusals.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thinwire_engine::{
    limits::{AUDIENCE_MAX, DEPTH_MAX},
    model::{Offset, Origin, Running, StreamId, View},
};

use super::{FrameError, ids};
use crate::peer::Streams;

/// What the two sides of a connection tell each other beside records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The first frame of each side.
    Hello(Hello),
    /// More streams that the side holds, or newly holds, or for which the room has run out or is there again.
    Holds(Vec<Holding>),
    /// How far received streams are durable and applied.
    Acks(Vec<Ack>),
    /// A stream does not go on over this connection.
    Stop(Stop),
    /// Whether the other side should ship nothing for now.
    Pause(bool),
    /// Records that the side has lost are asked for, or will follow. Only on a stream of its own.
    Fetch(Excerpt),
    /// Nodes behind the side lack records that were trimmed on the way to them.
    Copy(CopyRequest),
    /// The other side says that it holds more of the side's own stream than there is; it is asked to prove that what
    /// there is is the same.
    Prove(Prefix),
    /// The answer: the running checksum there, or none where the side cannot tell.
    Proof(Prefix, Option<Running>),
}

/// Who a side is, what it holds and what it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the node calls itself. A label.
    pub name: String,
    /// A random number of this life of its process.
    pub instance: u64,
    /// Whether its sender has given up on all earlier connections to us.
    pub replaces: bool,
    /// Whether its sender wants nothing shipped for now.
    pub paused: bool,
    /// Which streams it takes from us.
    pub wants: Streams,
    /// What it holds of those already. If it is [`STREAMS_PER_FRAME_MAX`] streams, more follow at once in
    /// [`Control::Holds`], up to a frame that has fewer.
    pub holds: Vec<Holding>,
}

/// What a node holds of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Which.
    #[serde(with = "ids")]
    pub stream: StreamId,
    /// What of it.
    pub view: View,
    /// The first record that is held.
    pub first: Offset,
    /// The last one in memory: shipping goes on behind it.
    pub last: Offset,
    /// The running checksum behind it, which proves that both hold the same.
    pub running: Running,
    /// Whether it lies inside a copy that is held. Tells a sender that starts inside a copy
    /// whether the copy was meant for this node.
    pub in_copy: bool,
    /// The last durable one.
    pub durable: Offset,
    /// The last one in the node's database.
    pub applied: Offset,
    /// Whether there is room for more of it. Where there is none, nothing of it is to be shipped until the node
    /// names the stream again, with room.
    pub room: bool,
}

/// How far a received stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The number that the sender gave the stream when it opened it.
    pub index: u32,
    /// The last durable record.
    pub durable: Offset,
    /// The last one in the node's database.
    pub applied: Offset,
    /// The running checksum behind the durable one, where it is at hand.
    pub running: Option<Running>,
}

/// Why a stream does not go on over this connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Which.
    #[serde(with = "ids")]
    pub stream: StreamId,
    /// A stable word for the cause.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
}

/// Who needs a copy of a stream's tables, and who passes it on to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// The stream.
    #[serde(with = "ids")]
    pub stream: StreamId,
    /// Who loads the copy.
    pub audience: Vec<Origin>,
    /// Who stands between them and the stream's origin.
    pub carriers: Vec<Origin>,
}

/// All of a stream up to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// Which stream.
    #[serde(with = "ids")]
    pub stream: StreamId,
    /// Its last record.
    pub at: Offset,
}

/// Consecutive records of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// Which stream.
    #[serde(with = "ids")]
    pub stream: StreamId,
    /// The first of them.
    pub from: Offset,
    /// The one behind the last.
    pub until: Offset,
}

impl Control {
    /// Appends the frame's bytes.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] for one that no receiver would take.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        match self {
            Self::Hello(hello) => {
                out.push(HELLO);
                out.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
                put(hello, out)?;
            }
            Self::Holds(holds) => {
                out.push(HOLDS);
                put(holds, out)?;
            }
            Self::Acks(acks) => {
                out.push(ACKS);
                put(acks, out)?;
            }
            Self::Stop(stop) => {
                out.push(STOP);
                put(stop, out)?;
            }
            Self::Pause(paused) => {
                out.push(PAUSE);
                put(paused, out)?;
            }
            Self::Copy(request) => {
                out.push(COPY);
                put(request, out)?;
            }
            Self::Fetch(excerpt) => {
                out.push(FETCH);
                put(excerpt, out)?;
            }
            Self::Prove(prefix) => {
                out.push(PROVE);
                put(prefix, out)?;
            }
            Self::Proof(prefix, running) => {
                out.push(PROOF);
                put(&(prefix, running), out)?;
            }
        }
        let length = out.len() - start - LENGTH_BYTES;
        let Ok(short) = u16::try_from(length) else {
            out.truncate(start);
            return Err(too_long(length));
        };
        out[start..start + LENGTH_BYTES].copy_from_slice(&short.to_le_bytes());
        Ok(())
    }

    fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        let (&kind, body) = frame.split_first().ok_or_else(|| malformed("an empty frame"))?;
        Ok(match kind {
            HELLO => Self::Hello(decode_hello(body)?),
            HOLDS => Self::Holds(bounded(take(body)?)?),
            ACKS => Self::Acks(bounded(take(body)?)?),
            STOP => Self::Stop(take(body)?),
            PAUSE => Self::Pause(take(body)?),
            COPY => Self::Copy(decode_copy(body)?),
            FETCH => Self::Fetch(take(body)?),
            PROVE => Self::Prove(take(body)?),
            PROOF => take(body).map(|(prefix, running)| Self::Proof(prefix, running))?,
            other => return Err(FrameError::Kind(other)),
        })
    }
}

/// The version stands before all that it may change.
fn decode_hello(body: &[u8]) -> Result<Hello, FrameError> {
    let (version, body) =
        body.split_first_chunk::<2>().ok_or_else(|| malformed("a hello without a version"))?;
    let theirs = u16::from_le_bytes(*version);
    if theirs != PROTOCOL_VERSION {
        return Err(FrameError::Version { theirs, ours: PROTOCOL_VERSION });
    }
    let mut hello: Hello = take(body)?;
    hello.holds = bounded(hello.holds)?;
    if let Streams::Listed(origins) = &hello.wants
        && origins.len() > STREAMS_PER_FRAME_MAX
    {
        return Err(too_many(origins.len()));
    }
    Ok(hello)
}

fn decode_copy(body: &[u8]) -> Result<CopyRequest, FrameError> {
    let request: CopyRequest = take(body)?;
    match request.audience.len() + request.carriers.len() {
        count if count > AUDIENCE_MAX => {
            Err(FrameError::Malformed(format!("a copy for {count} nodes")))
        }
        _ => Ok(request),
    }
}

/// Gathers bytes and gives out the control frames in them.
#[derive(Debug, Default)]
pub struct ControlDecoder {
    held: Vec<u8>,
    at: usize,
}

impl ControlDecoder {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.drain(..self.at);
        self.at = 0;
        self.held.extend_from_slice(bytes);
    }

    /// What came behind the frames that were given out.
    pub fn rest(&self) -> &[u8] {
        self.held.get(self.at..).unwrap_or_default()
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// Whatever is wrong with it; nothing behind it can be read.
    pub fn next_frame(&mut self) -> Result<Option<Control>, FrameError> {
        let rest = self.held.get(self.at..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_le_bytes(*length));
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let control = Control::decode(frame)?;
        self.at += LENGTH_BYTES + length;
        Ok(Some(control))
    }
}

fn put(value: &impl Serialize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    rmp_serde::encode::write(out, value).map_err(|error| FrameError::Malformed(error.to_string()))
}

fn take<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut deserializer).map_err(|error| FrameError::Malformed(error.to_string()))
}

fn bounded<T>(items: Vec<T>) -> Result<Vec<T>, FrameError> {
    match items.len() {
        count if count > STREAMS_PER_FRAME_MAX => Err(too_many(count)),
        _ => Ok(items),
    }
}

fn malformed(what: &str) -> FrameError {
    FrameError::Malformed(what.to_owned())
}

fn too_many(count: usize) -> FrameError {
    FrameError::Malformed(format!("{count} streams in a frame"))
}

fn too_long(length: usize) -> FrameError {
    FrameError::TooLong { length: length as u64, max: u64::from(u16::MAX) }
}

/// What this program speaks. It changes with every change of a frame.
pub const PROTOCOL_VERSION: u16 = 3;

/// Most streams in one frame. A holding takes at most 100 bytes, so that a full frame stays below 64 KiB.
pub const STREAMS_PER_FRAME_MAX: usize = 512;

const LENGTH_BYTES: usize = 2;
const HELLO: u8 = 1;
const HOLDS: u8 = 2;
const ACKS: u8 = 3;
const STOP: u8 = 4;
const PAUSE: u8 = 5;
const COPY: u8 = 6;
const FETCH: u8 = 7;
const PROVE: u8 = 8;
const PROOF: u8 = 9;

const _: () = assert!(STREAMS_PER_FRAME_MAX * 100 + 1_024 < u16::MAX as usize);
