//! A replication session: its start, and the commands that are answered with rows.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{
    backend::{DataRowBody, ErrorFields, Header, Message},
    frontend,
};
use thinwire_engine::{limits::RECORD_BYTES_MAX, model::Lsn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_postgres::config::TargetSessionAttrs;

use super::{
    Incoming, Outgoing,
    authenticate::authenticate,
    dial::{self, Dialled, Io},
};
use crate::{
    error::{Error, Result, ServerError},
    source::{APPLICATION_NAME, Source},
    sql,
};

/// A session that takes replication commands.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    input: BytesMut,
    output: BytesMut,
    backend_pid: i32,
}

/// Which cluster it is, and how far its log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct System {
    /// The cluster's identifier.
    pub(crate) id: u64,
    /// Its timeline.
    pub(crate) timeline: u32,
    /// The end of what is written and flushed.
    pub(crate) flushed: Lsn,
}

/// A row of text values.
type Row = Vec<Option<String>>;

impl Connection {
    /// Opens a session to the first host that takes us.
    ///
    /// # Errors
    /// The last host's reason, if none does.
    pub(crate) async fn open(source: &Source) -> Result<Self> {
        let mut last = Error::Refused("the connection settings name no host".to_owned());
        for place in dial::places(source) {
            let opened = async {
                let dialled = place.dial(source).await?;
                Self::start_up(dialled, source).await
            };
            let limit = source.connect_timeout() * 2;
            last = match timeout(limit, opened).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => Error::Unreachable {
                    host: place.name(),
                    source: std::io::ErrorKind::TimedOut.into(),
                },
            };
        }
        Err(last)
    }

    async fn start_up(dialled: Dialled, source: &Source) -> Result<Self> {
        let Dialled { io, is_encrypted, server_end_point } = dialled;
        let mut connection =
            Self { io, input: BytesMut::new(), output: BytesMut::new(), backend_pid: 0 };
        let config = &source.config;
        let user = config
            .get_user()
            .ok_or_else(|| Error::Refused("the connection settings name no user".to_owned()))?;
        let options = source.startup_options();
        let parameters = [
            ("user", user),
            ("database", config.get_dbname().unwrap_or(user)),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", APPLICATION_NAME),
            ("options", &options),
        ];
        frontend::startup_message(parameters, &mut connection.output).map_err(unsendable)?;
        connection.flush().await?;
        authenticate(&mut connection, config, server_end_point).await?;
        loop {
            match connection.read().await? {
                Message::BackendKeyData(body) => connection.backend_pid = body.process_id(),
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        connection.check_session(config.get_target_session_attrs()).await?;
        connection.command(sql::LIMIT_SENDER_TIMEOUT).await?;
        tracing::debug!(encrypted = is_encrypted, "a replication session is open");
        Ok(connection)
    }

    async fn check_session(&mut self, wanted: TargetSessionAttrs) -> Result<()> {
        let read_only = match wanted {
            TargetSessionAttrs::ReadWrite => "on",
            TargetSessionAttrs::ReadOnly => "off",
            _ => return Ok(()),
        };
        let rows = self.command(sql::SHOW_READ_ONLY).await?;
        match rows.first().and_then(|row| row.first()) {
            Some(Some(value)) if value == read_only => Err(Error::Refused(format!(
                "the host is not what target_session_attrs asks for (read-only is {value})"
            ))),
            _ => Ok(()),
        }
    }

    /// The server process that serves us.
    pub(crate) fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Asks which cluster this is.
    pub(crate) async fn identify_system(&mut self) -> Result<System> {
        let rows = self.command(sql::replication::IDENTIFY_SYSTEM).await?;
        let row = rows.first().map(Vec::as_slice);
        let Some([Some(id), Some(timeline), Some(flushed), ..]) = row else {
            return Err(odd("IDENTIFY_SYSTEM"));
        };
        match (id.parse(), timeline.parse(), flushed.parse()) {
            (Ok(id), Ok(timeline), Ok(flushed)) => Ok(System { id, timeline, flushed }),
            _ => Err(odd("IDENTIFY_SYSTEM")),
        }
    }

    /// Where each earlier timeline of the current one was left.
    pub(crate) async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<(u32, Lsn)>> {
        let rows = self.command(&sql::replication::timeline_history(timeline)).await?;
        let Some([_, Some(content)]) = rows.first().map(Vec::as_slice) else {
            return Err(odd("TIMELINE_HISTORY"));
        };
        Ok(parse_history(content))
    }

    /// Creates a slot that lives as long as this connection, and exports the snapshot at its position. Waits for
    /// the transactions that are running.
    pub(crate) async fn create_temporary_slot(&mut self, slot: &str) -> Result<(Lsn, String)> {
        let rows = self.command(&sql::replication::create_temporary_slot(slot)).await?;
        let Some([_, Some(lsn), Some(snapshot), ..]) = rows.first().map(Vec::as_slice) else {
            return Err(odd("CREATE_REPLICATION_SLOT"));
        };
        let lsn = lsn.parse().map_err(|_| odd("CREATE_REPLICATION_SLOT"))?;
        Ok((lsn, snapshot.clone()))
    }

    /// Starts to stream a slot's changes.
    pub(crate) async fn start(
        mut self,
        slot: &str,
        from: Lsn,
        publication: &str,
    ) -> Result<(Incoming, Outgoing)> {
        let command = sql::replication::start(slot, from, publication);
        frontend::query(&command, &mut self.output).map_err(unsendable)?;
        self.flush().await?;
        // The answer is a kind of message that the library does not parse.
        while self.peek().await? != COPY_BOTH_RESPONSE {
            self.read().await?;
        }
        let frame = self.frame_len().unwrap_or(0);
        let _ = self.input.split_to(frame);
        let (reader, writer) = tokio::io::split(self.io);
        Ok((Incoming::new(reader, self.input), Outgoing::new(writer)))
    }

    /// Says goodbye, so that what belongs to the session goes at once.
    pub(crate) async fn close(mut self) {
        frontend::terminate(&mut self.output);
        // The end of the socket says the same.
        let _ = self.flush().await;
    }

    /// Sends a command and gathers the rows of its answer.
    pub(crate) async fn command(&mut self, command: &str) -> Result<Vec<Row>> {
        frontend::query(command, &mut self.output).map_err(unsendable)?;
        self.flush().await?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            match self.read_raw().await? {
                Message::DataRow(body) => rows.push(values(&body)?),
                Message::ErrorResponse(body) => failed = Some(server_error(body.fields())),
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(rows),
        }
    }

    /// The next message; an error that the server reports is one.
    pub(super) async fn read(&mut self) -> Result<Message> {
        match self.read_raw().await? {
            Message::ErrorResponse(body) => Err(server_error(body.fields()).into()),
            message => Ok(message),
        }
    }

    async fn read_raw(&mut self) -> Result<Message> {
        loop {
            self.peek().await?;
            let parsed = Message::parse(&mut self.input);
            match parsed.map_err(|error| Error::Handshake(error.to_string()))? {
                None | Some(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                Some(message) => return Ok(message),
            }
        }
    }

    /// Waits until a whole message is there, and tells its kind.
    async fn peek(&mut self) -> Result<u8> {
        loop {
            let header = Header::parse(&self.input);
            let header = header.map_err(|error| Error::Handshake(error.to_string()))?;
            if let Some(header) = header {
                let length = usize::try_from(header.len()).unwrap_or(usize::MAX);
                if length > ANSWER_BYTES_MAX {
                    return Err(Error::Handshake("the server's answer is too long".to_owned()));
                }
                if self.input.len() > length {
                    return Ok(header.tag());
                }
                self.input.reserve(length + 1 - self.input.len());
            }
            let read = self.io.read_buf(&mut self.input).await;
            if read.map_err(|error| Error::Lost(error.to_string()))? == 0 {
                return Err(Error::Lost("the server closed it".to_owned()));
            }
        }
    }

    fn frame_len(&self) -> Option<usize> {
        let header = Header::parse(&self.input).ok()??;
        usize::try_from(header.len()).ok().map(|length| length + 1)
    }

    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        let output = self.output.split();
        let sent = async {
            self.io.write_all(&output).await?;
            self.io.flush().await
        };
        sent.await.map_err(|error| Error::Lost(error.to_string()))
    }
}

/// What an error message of the server says.
pub(super) fn server_error(mut fields: ErrorFields<'_>) -> ServerError {
    let mut error =
        ServerError { code: String::new(), message: String::new(), detail: None, hint: None };
    while let Ok(Some(field)) = fields.next() {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => error.code = text,
            b'M' => error.message = text,
            b'D' => error.detail = Some(text),
            b'H' => error.hint = Some(text),
            _ => {}
        }
    }
    error
}

fn values(body: &DataRowBody) -> Result<Row> {
    let text = |range: std::ops::Range<usize>| {
        let bytes = body.buffer().get(range).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let ranges = body.ranges().map(|range| Ok(range.map(text))).collect();
    ranges.map_err(|_| odd("a command"))
}

/// Lines of `timeline \t position \t reason`; a comment begins with `#`.
fn parse_history(content: &str) -> Vec<(u32, Lsn)> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    content.lines().filter_map(line).collect()
}

fn odd(command: &str) -> Error {
    Error::Handshake(format!("the server's answer to {command} is not understood"))
}

fn unsendable(error: std::io::Error) -> Error {
    Error::Refused(format!("the connection settings cannot be sent: {error}"))
}

const COPY_BOTH_RESPONSE: u8 = b'W';

/// No answer to a command is near as long; a server that claims more is none.
const ANSWER_BYTES_MAX: usize = 16 << 20;

const _: () = assert!(ANSWER_BYTES_MAX < RECORD_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeline_history_is_read_line_by_line() {
        let text = "1\t0/3000148\tno recovery target specified\n# a comment\n\n2\t1/A0\tx y\nodd\n";
        let expected = vec![(1, Lsn::new(0x300_0148)), (2, Lsn::new(0x1_0000_00A0))];
        assert_eq!(parse_history(text), expected);
    }
}
