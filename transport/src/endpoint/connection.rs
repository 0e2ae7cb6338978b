//! One connection from handshake to end: greeting, deciding whether it counts, and what others may ask of it.

mod copies;
mod fetch;
mod outbox;
mod priming;
mod pumps;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use thinwire_engine::model::{Offset, StreamId};
use tokio::{sync::Notify, time::Instant};

pub use fetch::{FetchError, Fetching};

use outbox::Outbox;

use super::{
    bar::Bar,
    link::{Facts, Link, Over, Traffic},
    node::Node,
    vigil::hello_timeout,
};
use crate::{
    congestion::InFlight,
    frame::{
        Control, ControlDecoder, CopyRequest, FrameError, Hello, Holding, STREAMS_PER_FRAME_MAX,
        Stop,
    },
    session::{
        Violation,
        receiver::Receiver,
        sender::{Effect, PeerMarks, Sender},
    },
    wire::WireError,
};

/// A connection whose two sides have greeted each other.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) facts: Facts,
    connection: Connection,
    node: Arc<Node>,
    link: Arc<Link>,
    in_flight: Arc<InFlight>,
    sender: Mutex<Sender>,
    receiver: Mutex<Receiver>,
    /// There may be something to ship.
    ship: Notify,
    /// There may be something to acknowledge.
    ack: Notify,
    /// There may be a stream without room.
    full: Notify,
    /// Something came that asks for an acknowledgement.
    heard: Notify,
    /// There may be a copy to tell of.
    copies: Notify,
    /// Streams of which the peer needs a copy, until that is told.
    needs: Mutex<BTreeSet<StreamId>>,
    control: Outbox,
    peer_pauses: AtomicBool,
}

/// A connection as it comes out of the handshake.
pub(crate) struct Fresh {
    pub(crate) connection: Connection,
    pub(crate) in_flight: Arc<InFlight>,
    /// Whether this node dialled it.
    pub(crate) dialled: bool,
    /// Whether this node has given up on all earlier ones.
    pub(crate) replaces: bool,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("{}", describe(.0))]
    Lost(#[from] ConnectionError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("the peer's data cannot be decompressed: {0}")]
    Wire(std::io::Error),
    #[error("{0}")]
    Unreadable(#[from] WireError),
    #[error("no hello came from the peer after the handshake")]
    NoHello,
    #[error("another connection to the same node took over")]
    Superseded,
    #[error("the two ends do not hold the same history; the next connection begins without")]
    Unprimed,
    #[error("the node stops")]
    Stopping,
    #[error("{0}")]
    Barred(Bar),
    #[error("{}", match .0 {
        Over::Changed => "the link is configured otherwise",
        Over::Removed => "the key was taken out of the configuration",
    })]
    Over(Over),
}

impl End {
    /// What the peer is told.
    fn code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Barred(bar) => return bar.code(),
            Self::Stopping | Self::Lost(_) | Self::Over(Over::Changed) => CLOSE_BYE,
            Self::Over(Over::Removed) => CLOSE_REMOVED,
            Self::Superseded => CLOSE_SUPERSEDED,
            Self::Unprimed => CLOSE_UNPRIMED,
            Self::NoHello => CLOSE_NO_HELLO,
            Self::Frame(FrameError::Version { .. }) => CLOSE_VERSION,
            Self::Frame(_) | Self::Violation(_) | Self::Wire(_) | Self::Unreadable(_) => {
                CLOSE_MISBEHAVED
            }
        })
    }

    /// Whether the peer did not hold what it was primed with.
    pub(crate) fn says_unprimed(&self) -> bool {
        let Self::Lost(ConnectionError::ApplicationClosed(close)) = self else { return false };
        close.error_code == VarInt::from_u32(CLOSE_UNPRIMED)
    }

    /// Whether it belongs to the ordinary course of things.
    fn is_quiet(&self) -> bool {
        match self {
            Self::Superseded
            | Self::Unprimed
            | Self::Stopping
            | Self::Barred(_)
            | Self::Over(_)
            | Self::Lost(ConnectionError::LocallyClosed) => true,
            Self::Lost(ConnectionError::ApplicationClosed(close)) => {
                [CLOSE_BYE, CLOSE_SUPERSEDED, CLOSE_UNPRIMED]
                    .map(VarInt::from_u32)
                    .contains(&close.error_code)
            }
            _ => false,
        }
    }
}

/// Runs a connection until it is over.
pub(crate) async fn converse(node: Arc<Node>, link: Arc<Link>, fresh: Fresh) {
    let connection = fresh.connection.clone();
    let (congestion, ration) = (link.peer.rules.congestion, link.ration.clone());
    let in_flight = fresh.in_flight.clone();
    in_flight.govern(Instant::now().into_std(), congestion, ration);
    let name = link.peer.name.clone();
    let passing = Passing { link: link.clone(), connection: Some(connection.clone()) };
    let end = tokio::select! {
        biased;
        end = Box::pin(run(node, link.clone(), fresh, passing)) => end,
        never = link.keep_to_ration(&connection) => match never {},
        end = link.closed() => end,
    };
    if end.is_quiet() {
        tracing::debug!(peer = name, reason = %end, "connection over");
    } else {
        tracing::warn!(peer = name, reason = %end, "connection over");
        link.set_error(end.to_string());
    }
    in_flight.part();
    connection.close(end.code(), end.to_string().as_bytes());
}

async fn run(node: Arc<Node>, link: Arc<Link>, fresh: Fresh, mut passing: Passing) -> End {
    let connection = fresh.connection.clone();
    let patience = hello_timeout(connection.rtt());
    let greeted = tokio::select! {
        biased;
        greeted = greet(&node, &link, fresh) => greeted,
        () = tokio::time::sleep(patience) => Err(End::NoHello),
        () = node.stopped() => Err(End::Stopping),
    };
    let (conversation, streams) = match greeted {
        Ok(greeted) => greeted,
        Err(end) => {
            link.heed(&end, None, node.random());
            return end;
        }
    };
    let conversation = Arc::new(conversation);
    match link.register(&conversation) {
        Err(_) => return End::Superseded,
        Ok(None) => {}
        Ok(Some(old)) => old.close(&End::Superseded),
    }
    passing.connection = None;
    let registered = Registered(conversation);
    let conversation = &registered.0;
    let Facts { dialled, instance, .. } = conversation.facts;
    tracing::info!(peer = link.peer.name, address = %connection.remote_address(), dialled, "connected");
    conversation.begin(&streams.hello);
    let end = conversation.pump(streams).await;
    // Before the dialler learns that there is no connection any more.
    link.heed(&end, Some(instance), conversation.node.random());
    end
}

/// A connection, until it is its peer's: what it took counts, however it ends, a bar among others.
struct Passing {
    link: Arc<Link>,
    connection: Option<Connection>,
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            self.link.add_traffic(traffic(connection));
        }
    }
}

/// Takes a connection out of its peer's status, however it ends.
struct Registered(Arc<Conversation>);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.link.unregister(&self.0);
    }
}

/// The control streams after the greeting.
struct Streams {
    hello: Hello,
    write: SendStream,
    read: RecvStream,
    decoder: ControlDecoder,
}

/// Exchanges hellos. What each side holds is complete before anything is shipped.
async fn greet(
    node: &Arc<Node>,
    link: &Arc<Link>,
    fresh: Fresh,
) -> Result<(Conversation, Streams), End> {
    let Fresh { connection, in_flight, dialled, replaces } = fresh;
    let mut receiver = Receiver::new(node.journal.clone(), link.peer.clone());
    let mut write = connection.open_uni().await?;
    // What is said about streams goes before what is in them.
    let _ = write.set_priority(1);
    write_all(&mut write, &hello(node, link, replaces, receiver.holdings())?).await?;

    let mut read = connection.accept_uni().await?;
    let mut decoder = ControlDecoder::default();
    let Control::Hello(mut hello) = next_control(&mut read, &mut decoder).await? else {
        return Err(Violation("does not begin with a hello".into()).into());
    };
    let mut sender = Sender::new(node.journal.clone(), link.peer.clone(), link.served_from());
    let mut holds = std::mem::take(&mut hello.holds);
    while holds.len() == STREAMS_PER_FRAME_MAX {
        sender.holds(holds)?;
        let Control::Holds(more) = next_control(&mut read, &mut decoder).await? else {
            return Err(Violation("does not say all that it holds".into()).into());
        };
        holds = more;
    }
    sender.holds(holds)?;

    let replaces = if dialled { replaces } else { hello.replaces };
    let conversation = Conversation {
        facts: Facts { dialled, instance: hello.instance, replaces },
        connection,
        node: node.clone(),
        link: link.clone(),
        in_flight,
        sender: Mutex::new(sender),
        receiver: Mutex::new(receiver),
        ship: Notify::new(),
        ack: Notify::new(),
        full: Notify::new(),
        heard: Notify::new(),
        copies: Notify::new(),
        needs: Mutex::default(),
        control: Outbox::default(),
        peer_pauses: AtomicBool::new(hello.paused),
    };
    Ok((conversation, Streams { hello, write, read, decoder }))
}

/// The hello, and the frames behind it if the node holds many streams.
fn hello(
    node: &Node,
    link: &Link,
    replaces: bool,
    holds: Vec<Holding>,
) -> Result<Vec<u8>, FrameError> {
    let mut parts = holds.chunks(STREAMS_PER_FRAME_MAX);
    let mut part = parts.next().unwrap_or_default();
    let mut bytes = Vec::new();
    Control::Hello(Hello {
        name: node.name.clone(),
        instance: node.instance,
        replaces,
        paused: link.is_paused(),
        wants: link.peer.receive.clone(),
        holds: part.to_vec(),
    })
    .encode(&mut bytes)?;
    while part.len() == STREAMS_PER_FRAME_MAX {
        part = parts.next().unwrap_or_default();
        Control::Holds(part.to_vec()).encode(&mut bytes)?;
    }
    Ok(bytes)
}

impl Conversation {
    /// The peer has said what it wants; shipping begins.
    fn begin(&self, hello: &Hello) {
        let known = self.link.known();
        let effects = {
            let mut sender = self.sender();
            sender.pause(hello.paused || self.link.is_paused());
            sender.wants(hello.wants.clone());
            self.link.set_wants(hello.wants.clone());
            sender.compare(known);
            sender.effects()
        };
        self.attend(effects);
    }

    /// Tells others what the sending half has found.
    fn attend(&self, effects: Vec<Effect>) {
        let peer = &self.link.peer;
        for effect in effects {
            match effect {
                Effect::Delivered(bytes) => self.link.delivered(bytes),
                Effect::CopyNeeded(stream) => self.copy_needed(stream),
                Effect::Stop(stop) => self.refuse(stop),
                Effect::Prove(prefix) => {
                    let (name, stream, ours) = (&peer.name, prefix.stream, prefix.at);
                    tracing::warn!(peer = name, %stream, %ours, "the peer says that it holds more of our stream than there is");
                    self.link.set_error(format!(
                        "{name} says that it holds more of {stream} than up to {ours}, where it ends here: asked for proof"
                    ));
                    self.control.push(Control::Prove(prefix));
                }
                Effect::WentBack(stream, before, now) => {
                    let name = &peer.name;
                    let sentence = format!(
                        "{name} held {stream} up to {before} and now only up to {now}: its disk was rolled back"
                    );
                    tracing::warn!(peer = name, %stream, %before, %now, "the peer lost durable records");
                    self.link.set_error(sentence);
                }
            }
        }
    }

    /// Tells the peer, and people, that a stream does not go on.
    fn refuse(&self, stop: Stop) {
        let (peer, stream) = (&self.link.peer.name, stop.stream);
        tracing::error!(peer, %stream, code = stop.code, detail = stop.detail, "stream stopped");
        self.link.set_error(stop.detail.clone());
        self.control.push(Control::Stop(stop));
    }

    pub(crate) fn request_copy(&self, request: CopyRequest) {
        self.control.push(Control::Copy(request));
    }

    /// Whether the connection under it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    pub(crate) fn close(&self, end: &End) {
        self.in_flight.part();
        self.connection.close(end.code(), end.to_string().as_bytes());
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.control.push(Control::Pause(paused));
        self.sender().pause(paused || self.peer_pauses.load(Relaxed));
        self.ship.notify_one();
    }

    pub(crate) fn serve_from(&self, stream: StreamId, from: Offset) {
        self.sender().serve_from(stream, from);
        self.ship.notify_one();
    }

    pub(crate) fn traffic(&self) -> Traffic {
        traffic(&self.connection)
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.in_flight.rtt().unwrap_or_else(|| self.connection.rtt())
    }

    pub(crate) fn marks(&self) -> Vec<(StreamId, PeerMarks)> {
        self.sender().marks().collect()
    }

    fn sender(&self) -> MutexGuard<'_, Sender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn needs(&self) -> MutexGuard<'_, BTreeSet<StreamId>> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receiver(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn next_control(read: &mut RecvStream, decoder: &mut ControlDecoder) -> Result<Control, End> {
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(frame);
        }
        match read.read_chunk(CONTROL_CHUNK, true).await {
            Ok(Some(chunk)) => decoder.push(&chunk.bytes),
            Ok(None) => return Err(Violation("ends its control stream".into()).into()),
            Err(error) => return Err(read_failed(error)),
        }
    }
}

async fn write_all(write: &mut SendStream, bytes: &[u8]) -> Result<(), End> {
    write.write_all(bytes).await.map_err(|error| match error {
        quinn::WriteError::ConnectionLost(error) => error.into(),
        _ => Violation("does not read what it is sent".into()).into(),
    })
}

fn read_failed(error: quinn::ReadError) -> End {
    match error {
        quinn::ReadError::ConnectionLost(error) => error.into(),
        _ => Violation("takes back what it sent".into()).into(),
    }
}

/// Bytes of whole packets: what a metered link counts.
fn traffic(connection: &Connection) -> Traffic {
    let stats = connection.stats();
    Traffic {
        sent: stats.udp_tx.bytes + PACKET_HEADERS * stats.udp_tx.datagrams,
        received: stats.udp_rx.bytes + PACKET_HEADERS * stats.udp_rx.datagrams,
    }
}

/// What a lost connection means to people.
pub(crate) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            format!("the peer closed the connection: {}", String::from_utf8_lossy(&close.reason))
        }
        ConnectionError::ConnectionClosed(close)
            if (TLS_ALERTS..TLS_ALERTS + 256).contains(&u64::from(close.error_code)) =>
        {
            format!(
                "the peer refused the handshake: is this node's key in its configuration? ({close})"
            )
        }
        ConnectionError::TransportError(error) => format!("the handshake failed: {}", error.reason),
        ConnectionError::Reset => "the peer's process has been restarted".into(),
        other => other.to_string(),
    }
}

/// IPv4 and UDP headers of a packet.
pub(crate) const PACKET_HEADERS: u64 = 28;

/// Where TLS alerts begin among QUIC's error codes (RFC 9001).
const TLS_ALERTS: u64 = 0x100;

const CONTROL_CHUNK: usize = 16 << 10;

/// Nothing is wrong.
const CLOSE_BYE: u32 = 0;
/// There is a better connection.
const CLOSE_SUPERSEDED: u32 = 1;
/// The handshake was all that came.
const CLOSE_NO_HELLO: u32 = 2;
/// Another version of the protocol.
const CLOSE_VERSION: u32 = 3;
/// The peer does not hold what it was primed with.
const CLOSE_UNPRIMED: u32 = 6;
/// The peer is none any more.
const CLOSE_REMOVED: u32 = 7;
/// The peer did what no honest one does.
const CLOSE_MISBEHAVED: u32 = 4;
