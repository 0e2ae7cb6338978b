//! The two halves of a replication stream: frames in, positions out.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::{backend::Message, frontend};
use thinwire_engine::{limits::RECORD_BYTES_MAX, model::Lsn};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{connection::server_error, dial::Io};
use crate::error::{Error, Result, sqlstate};

/// What the server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A message of the output plugin.
    Data(Bytes),
    /// All changes before a position were sent.
    Keepalive {
        /// That position; only meaningful between transactions.
        wal_end: Lsn,
        /// Whether the server wants to know our position at once.
        is_urgent: bool,
    },
    /// The server ends the stream, because it shuts down.
    End,
}

/// The half that is read.
pub(crate) struct Incoming {
    io: ReadHalf<Box<dyn Io>>,
    buffer: BytesMut,
}

impl Incoming {
    pub(super) fn new(io: ReadHalf<Box<dyn Io>>, buffer: BytesMut) -> Self {
        Self { io, buffer }
    }

    /// The next frame, if all of it was read already.
    pub(crate) fn buffered(&mut self) -> Result<Option<Frame>> {
        loop {
            let Some(&[tag, a, b, c, d]) = self.buffer.first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            // Counts itself, but not the tag.
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if !(4..=FRAME_BYTES_MAX).contains(&length) {
                return Err(Error::Handshake("a frame of impossible length".to_owned()));
            }
            if self.buffer.len() <= length {
                self.buffer.reserve(length + 1 - self.buffer.len());
                return Ok(None);
            }
            let mut frame = self.take(length + 1);
            match tag {
                b'd' => {
                    frame.advance(HEADER_BYTES);
                    if let Some(frame) = copy_data(frame)? {
                        return Ok(Some(frame));
                    }
                }
                b'c' | b'C' => return Ok(Some(Frame::End)),
                b'E' => return Err(error_response(&frame)),
                b'N' => check_notice(&frame)?,
                b'S' => {}
                _ => return Err(Error::Handshake("an unexpected frame in the stream".to_owned())),
            }
        }
    }

    /// Reads more. May be dropped and called again.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
            self.buffer.reserve(READ_BYTES);
        }
        match self.io.read_buf(&mut self.buffer).await {
            Ok(0) => Err(Error::Lost("the server closed it".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Lost(error.to_string())),
        }
    }

    fn take(&mut self, length: usize) -> Bytes {
        let frame = self.buffer.split_to(length).freeze();
        if length > READ_BYTES {
            // A huge frame has a huge buffer, which must not outlive it.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        frame
    }
}

/// The content of a CopyData frame; `None` for a kind that is of no interest.
fn copy_data(mut frame: Bytes) -> Result<Option<Frame>> {
    let short = || Error::Handshake("a frame that is too short".to_owned());
    match frame.try_get_u8().map_err(|_| short())? {
        b'w' => {
            if frame.len() < XLOG_DATA_HEADER_BYTES {
                return Err(short());
            }
            frame.advance(XLOG_DATA_HEADER_BYTES);
            Ok(Some(Frame::Data(frame)))
        }
        b'k' => {
            let wal_end = Lsn::new(frame.try_get_u64().map_err(|_| short())?);
            frame.try_get_u64().map_err(|_| short())?;
            let is_urgent = frame.try_get_u8().map_err(|_| short())? == 1;
            Ok(Some(Frame::Keepalive { wal_end, is_urgent }))
        }
        _ => Ok(None),
    }
}

fn error_response(frame: &[u8]) -> Error {
    match Message::parse(&mut BytesMut::from(frame)) {
        Ok(Some(Message::ErrorResponse(body))) => match server_error(body.fields()) {
            // The publication is the only object that is named in this conversation.
            error if error.code == sqlstate::UNDEFINED_OBJECT => Error::Unpublished(error),
            error => error.into(),
        },
        _ => Error::Lost("the server reported an error that cannot be read".to_owned()),
    }
}

/// From PostgreSQL 18 on, changes without a publication are no error: they are left out with a warning.
fn check_notice(frame: &[u8]) -> Result<()> {
    let Ok(Some(Message::NoticeResponse(body))) = Message::parse(&mut BytesMut::from(frame)) else {
        return Ok(());
    };
    match server_error(body.fields()) {
        said if said.code == sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE => {
            Err(Error::Unpublished(said))
        }
        _ => Ok(()),
    }
}

/// The half that is written.
pub(crate) struct Outgoing {
    io: WriteHalf<Box<dyn Io>>,
}

impl Outgoing {
    pub(super) fn new(io: WriteHalf<Box<dyn Io>>) -> Self {
        Self { io }
    }

    /// Reports how far we are: `durable` is what the server may forget. With `wants_answer` the server says at once
    /// how far it is.
    pub(crate) async fn status(&mut self, durable: Lsn, wants_answer: bool) -> Result<()> {
        let mut frame = Vec::with_capacity(64);
        frame.put_u8(b'd');
        frame.put_u32(4 + STATUS_BYTES);
        frame.put_u8(b'r');
        // Written, flushed, applied: what is not durable here does not count as any of them.
        (0..3).for_each(|_| frame.put_u64(durable.get()));
        frame.put_i64(now());
        frame.put_u8(u8::from(wants_answer));
        self.send(&frame).await
    }

    /// Says goodbye, so that the slot is free at once.
    pub(crate) async fn close(&mut self) {
        let mut frame = BytesMut::new();
        frontend::terminate(&mut frame);
        let _ = self.send(&frame).await;
    }

    async fn send(&mut self, frame: &[u8]) -> Result<()> {
        let sent = async {
            self.io.write_all(frame).await?;
            self.io.flush().await
        };
        sent.await.map_err(|error| Error::Lost(error.to_string()))
    }
}

/// Microseconds since 2000. The server only shows it to people.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX).saturating_sub(EPOCH_MICROS)
}

/// Tag and length.
const HEADER_BYTES: usize = 5;

/// Start and end position and time.
const XLOG_DATA_HEADER_BYTES: usize = 24;

/// Kind, three positions, time, whether an answer is wanted.
const STATUS_BYTES: u32 = 1 + 3 * 8 + 8 + 1;

/// From 1970 to 2000.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// How much is read at once: a socket's buffer and some.
const READ_BYTES: usize = 256 << 10;
const READ_BYTES_MIN: usize = 16 << 10;

/// The longest record, and what wraps it.
const FRAME_BYTES_MAX: usize = RECORD_BYTES_MAX + (1 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    /// An incoming half that has read `bytes` and will read no more.
    fn incoming(bytes: &[u8]) -> Incoming {
        let io: Box<dyn Io> = Box::new(tokio::io::duplex(1).0);
        Incoming::new(tokio::io::split(io).0, BytesMut::from(bytes))
    }

    fn frame(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], content].concat()
    }

    fn data(content: &[u8]) -> Vec<u8> {
        frame(b'd', &[b"w", &[0; XLOG_DATA_HEADER_BYTES][..], content].concat())
    }

    #[test]
    fn frames_are_taken_one_by_one_and_only_whole() {
        let keepalive = [&b"k"[..], &7_u64.to_be_bytes(), &0_u64.to_be_bytes(), &[1]].concat();
        let all = [
            data(b"one"),
            frame(b'S', b"a\0b\0"),
            data(b""),
            frame(b'd', &keepalive),
            frame(b'c', b""),
        ]
        .concat();
        let expected = [
            Frame::Data(Bytes::from_static(b"one")),
            Frame::Data(Bytes::new()),
            Frame::Keepalive { wal_end: Lsn::new(7), is_urgent: true },
            Frame::End,
        ];
        for cut in 0..=all.len() {
            let mut incoming = incoming(&all[..cut]);
            let mut taken = Vec::new();
            while let Some(frame) = incoming.buffered().unwrap() {
                taken.push(frame);
            }
            incoming.buffer.extend_from_slice(&all[cut..]);
            while let Some(frame) = incoming.buffered().unwrap() {
                taken.push(frame);
            }
            assert_eq!(taken, expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_left_out_for_want_of_a_publication_is_an_error_even_if_it_is_said_as_a_warning() {
        let said = |tag, code: &str| {
            let text = format!("SWARNING\0C{code}\0Mskipped loading publication \"p\"\0\0");
            incoming(&frame(tag, text.as_bytes())).buffered()
        };
        for (tag, code) in [(b'E', "42704"), (b'N', "55000")] {
            let error = said(tag, code).unwrap_err();
            assert!(matches!(&error, Error::Unpublished(_)), "{error}");
            assert!(error.to_string().contains("skipped loading publication \"p\""), "{error}");
        }
        assert!(matches!(said(b'N', "01000"), Ok(None)));
        assert!(matches!(said(b'E', "55000"), Err(Error::Server(_))));
    }

    #[test]
    fn impossible_frames_are_errors() {
        for bytes in [
            &b"d\0\0\0\x03"[..],
            b"d\xFF\xFF\xFF\xFF",
            &frame(b'd', b""),
            &frame(b'd', b"w123"),
            &frame(b'd', b"k123"),
            &frame(b'X', b""),
            &frame(b'E', b"garbage"),
        ] {
            assert!(incoming(bytes).buffered().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_error_in_the_stream_says_what_the_server_said() {
        let bytes = frame(b'E', b"SFATAL\0C57P01\0Mterminating connection\0\0");
        let Err(Error::Server(error)) = incoming(&bytes).buffered() else { panic!() };
        assert_eq!(error.code, "57P01");
        assert_eq!(error.message, "terminating connection");
    }
}
