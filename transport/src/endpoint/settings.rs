//! How QUIC is set up for thin links. Only this file knows quinn's settings.

use std::{sync::Arc, time::Duration};

use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, ConnectionIdGenerator, EndpointConfig,
    ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::digest::{SHA256, digest};

use crate::{
    congestion::{ACK_DELAY, Factory, InFlight, whole},
    identity::{Identity, PublicKey},
};

/// The endpoint's own settings.
pub(crate) fn endpoint(identity: &Identity, seed: Option<[u8; 32]>) -> EndpointConfig {
    // The same key in each life: a peer that still talks to our last one is told at once that it is gone.
    let mut config = EndpointConfig::new(Arc::new(identity.derive(b"thinwire stateless reset")));
    config.rng_seed(seed).grease_quic_bit(false);
    // So that our own are told from noise in each life, which such an answer is not given to.
    let key = ids_key(identity.public());
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    config
}

/// The first packet of no connection that a node with this key answers, by saying that it knows of none.
pub(crate) fn knock(key: PublicKey) -> [u8; KNOCK_BYTES] {
    let mut packet = [0; KNOCK_BYTES];
    packet[0] = SHORT_HEADER;
    let id = HashedConnectionIdGenerator::from_key(ids_key(key)).generate_cid();
    packet.iter_mut().skip(1).zip(id.iter()).for_each(|(to, from)| *to = *from);
    packet
}

/// By which a node's connection ids are known from others.
fn ids_key(key: PublicKey) -> u64 {
    let hash = digest(&SHA256, &[b"thinwire connection ids", key.as_bytes().as_slice()].concat());
    let mut first = [0; 8];
    first.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(first)
}

/// What is answered must be longer than the shortest answer, which has 21 bytes.
const KNOCK_BYTES: usize = 24;

/// The first byte of a packet of a connection (RFC 9000, section 17.3).
const SHORT_HEADER: u8 = 0x40;

/// For connections that are accepted. [`accepting`] makes the settings of each.
pub(crate) fn server(crypto: Arc<QuicServerConfig>) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(crypto);
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    config
        .validation_token_config(tokens)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    config
}

/// For one connection that is accepted.
pub(crate) fn accepting(base: &ServerConfig, shared: Arc<InFlight>) -> Arc<ServerConfig> {
    let mut config = base.clone();
    config.transport_config(Arc::new(transport(shared)));
    Arc::new(config)
}

/// For one connection that is dialled, over a link that is expected to have this round trip.
pub(crate) fn dialling(
    crypto: Arc<QuicClientConfig>,
    shared: Arc<InFlight>,
    rtt: Duration,
    keep_alive: Option<Duration>,
) -> ClientConfig {
    let mut transport = transport(shared);
    transport.initial_rtt(rtt);
    // Who dials may sit behind address translation, which forgets a silent flow after half a minute.
    transport.keep_alive_interval(Some(keep_alive.unwrap_or(KEEP_ALIVE)));
    let mut config = ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport));
    config
}

fn transport(shared: Arc<InFlight>) -> TransportConfig {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(4))
        .reordering_threshold(VarInt::from_u32(OVERTAKEN - 1))
        .max_ack_delay(Some(ACK_DELAY));
    let mut config = TransportConfig::default();
    config
        // Connections live through outages; the program decides when one is dead.
        .max_idle_timeout(None)
        // Discovery costs 6 kB each way and gains nothing measurable.
        .mtu_discovery_config(None)
        .initial_mtu(1_200)
        .initial_rtt(INITIAL_RTT)
        .packet_threshold(OVERTAKEN)
        .time_threshold(LATE)
        .send_window(SEND_WINDOW_INITIAL)
        .stream_receive_window(VarInt::from_u32(1 << 20))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(4))
        .max_concurrent_uni_streams(VarInt::from_u32(4))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES)
        .enable_segmentation_offload(false)
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(Factory(shared)));
    config
}

/// Lets a connection look again whether it may send. Whatever is set wakes it, and this is what it has already.
pub(crate) fn nudge(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW));
}

/// What may wait inside a connection to be sent, given the rate at which the link delivers: enough to keep it
/// busy, and not so much that nothing can be said any more.
pub(crate) fn send_window(rate: u64, rtt: Duration) -> u64 {
    let pipe = whole(rate as f64 * rtt.as_secs_f64());
    match rate {
        0 => SEND_WINDOW_INITIAL,
        _ => (pipe * 6).clamp(SEND_WINDOW_MIN, SEND_WINDOW_MAX),
    }
}

/// By how many packets another may be overtaken before it counts as lost. On a radio channel with a few megabits a second
/// and 40 ms of jitter it is twenty, and with the usual three half of what is sent there is sent twice. A slow link hardly
/// reorders, and notices a loss by the time alone; only where an outage was taken for a round trip the count decides.
const OVERTAKEN: u32 = 16;

/// After how many round trips. A packet and its acknowledgement may both be late, so that the eighth that RFC 9002 waits
/// longer, and the quarter of RFC 8985, are too little; much more keeps a short contact waiting for what it lost.
const LATE: f32 = 1.5;

/// For who accepts; who dials says by itself. Repeated too soon, what is answered to a dial takes seconds of a slow link.
const INITIAL_RTT: Duration = Duration::from_millis(900);
const KEEP_ALIVE: Duration = Duration::from_secs(25);
const INCOMING_MAX: usize = 64;
const INCOMING_BYTES: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL: u64 = 1 << 20;

/// Datagrams carry probes only.
const DATAGRAM_BYTES: usize = 4 << 10;

const RECEIVE_WINDOW: u32 = 4 << 20;

const SEND_WINDOW_INITIAL: u64 = 256 << 10;
const SEND_WINDOW_MIN: u64 = 128 << 10;
const SEND_WINDOW_MAX: u64 = 4 << 20;
