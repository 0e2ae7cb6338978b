//! What moves bytes between a connection and the two halves of its session, until one of them ends.

use std::{collections::BTreeSet, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use quinn::{FrameStats, RecvStream, SendStream};
use thinwire_engine::{codec::Records, journal::Stream, model::Offset};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Conversation, End, Streams, next_control, read_failed, write_all};
use crate::{
    endpoint::{
        blocking, settings,
        vigil::{Signs, Vigil},
    },
    frame::{Control, ControlDecoder, DataFrame, data_header, put_opening},
    session::{
        Violation,
        cursor::Run,
        receiver::{Admission, Taken},
        sender::Outgoing,
    },
    wire::{Inlet, Outlet, pace::Pace},
};

type Never = std::convert::Infallible;

impl Conversation {
    /// Runs until the connection is over, and says why.
    pub(super) async fn pump(self: &Arc<Self>, streams: Streams) -> End {
        let Streams { write, read, decoder, .. } = streams;
        let end = tokio::select! {
            biased;
            // Those that may be busy for long come last, so that they keep none waiting.
            end = self.write_control(write) => end,
            end = self.read_control(read, decoder) => end,
            end = self.watch_streams() => end,
            end = self.watch_room() => end,
            end = self.tell_of_copies() => end,
            end = self.keep_vigil() => end,
            end = self.answer_though_full() => end,
            end = self.answer_fetches() => end,
            end = self.read_data() => end,
            end = self.write_data() => end,
            error = self.connection.closed() => Err(error.into()),
        };
        match end {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    /// Sends what is said about streams: acknowledgements at once after a pause, else a part of a round trip apart.
    async fn write_control(&self, mut write: SendStream) -> Result<Never, End> {
        let (mut due, mut free_at) = (false, Instant::now());
        loop {
            let mut bytes = Vec::new();
            tokio::select! {
                biased;
                () = self.node.stopped() => return Err(self.say_goodbye(write).await),
                frame = self.control.next() => frame.encode(&mut bytes)?,
                () = self.ack.notified(), if !due => {
                    due = true;
                    continue;
                }
                () = sleep_until(free_at), if due => {
                    due = false;
                    self.encode_acks(&mut bytes)?;
                    free_at = Instant::now() + (self.rtt() / 4).min(ACK_SPACING_MAX);
                }
            }
            write_all(&mut write, &bytes).await?;
        }
    }

    fn encode_acks(&self, bytes: &mut Vec<u8>) -> Result<(), End> {
        let acks = self.receiver().acks();
        for part in acks.chunks(crate::frame::STREAMS_PER_FRAME_MAX) {
            Control::Acks(part.to_vec()).encode(bytes)?;
        }
        Ok(())
    }

    /// The last acknowledgements, so that they need not be found out at the next connection.
    async fn say_goodbye(&self, mut write: SendStream) -> End {
        let mut bytes = Vec::new();
        if self.encode_acks(&mut bytes).is_ok() && write_all(&mut write, &bytes).await.is_ok() {
            let _ = write.finish();
            let _ = timeout(GOODBYE, write.stopped()).await;
        }
        End::Stopping
    }

    async fn read_control(
        &self,
        mut read: RecvStream,
        mut decoder: ControlDecoder,
    ) -> Result<Never, End> {
        loop {
            self.control.room().await;
            let frame = next_control(&mut read, &mut decoder).await?;
            self.heard.notify_one();
            match frame {
                Control::Hello(_) => return Err(Violation("says hello twice".into()).into()),
                Control::Holds(holdings) => {
                    self.sender().holds(holdings)?;
                    self.ship.notify_one();
                }
                Control::Acks(acks) => {
                    let effects = {
                        let mut sender = self.sender();
                        for ack in &acks {
                            blocking(|| sender.acked(ack))?;
                        }
                        sender.effects()
                    };
                    self.attend(effects);
                    self.link.touch();
                }
                Control::Stop(stop) => {
                    let (peer, stream) = (&self.link.peer.name, stop.stream);
                    tracing::warn!(peer, %stream, code = stop.code, detail = stop.detail, "the peer stops a stream");
                    self.sender().stopped(stop.stream);
                    self.receiver().stopped(&stop);
                    self.link.set_error(format!("{peer}: {}", stop.detail));
                }
                Control::Copy(request) => self.copy_requested(request)?,
                Control::Prove(prefix) => {
                    let running = blocking(|| self.receiver().prove(&prefix))?;
                    self.control.push(Control::Proof(prefix, running));
                }
                Control::Proof(prefix, running) => {
                    let effects = {
                        let mut sender = self.sender();
                        blocking(|| sender.proven(prefix, running));
                        sender.effects()
                    };
                    self.attend(effects);
                }
                Control::Fetch(_) => {
                    return Err(Violation("asks for records on the wrong stream".into()).into());
                }
                Control::Pause(paused) => {
                    self.peer_pauses.store(paused, Relaxed);
                    self.sender().pause(paused || self.link.is_paused());
                    self.ship.notify_one();
                }
            }
        }
    }

    /// Ships: gathers what there is up to the size of a frame, and flushes it, so that nothing waits.
    async fn write_data(&self) -> Result<Never, End> {
        let mut write = self.connection.open_uni().await?;
        let outlet = Outlet::new(self.link.peer.rules.compression);
        let (mut outlet, mut pace) = (outlet, Pace::default());
        let mut wire = Vec::with_capacity(2 * WRITE_BYTES);
        let mut begun = false;
        loop {
            let (batch, effects) = {
                let mut sender = self.sender();
                let batch = blocking(|| sender.next_batch());
                (batch, sender.effects())
            };
            self.attend(effects);
            if batch.is_empty() {
                self.ship.notified().await;
                continue;
            }
            if !std::mem::replace(&mut begun, true) {
                blocking(|| self.prime(&mut outlet, &mut wire));
            }
            let size = batch.iter().map(Outgoing::size).sum();
            let (packs, began) = (pace.packs(size), Instant::now());
            let (mut written, mut waiting) = (0, Duration::ZERO);
            for outgoing in batch {
                if packs
                    && let Outgoing::Run(index, Run { first, records, .. }) = &outgoing
                    && outlet.fits(records)
                {
                    let pack = || outlet.pack(*index, *first, records, &mut wire);
                    blocking(pack).map_err(End::Wire)?;
                    continue;
                }
                let (header, records) = encode(outgoing);
                outlet.stream(&header, &mut wire).map_err(End::Wire)?;
                for part in records.chunks(WRITE_BYTES) {
                    blocking(|| outlet.stream(part, &mut wire)).map_err(End::Wire)?;
                    if wire.len() >= WRITE_BYTES {
                        written += wire.len();
                        waiting += self.write_slowly(&mut write, &mut wire).await?;
                    }
                }
            }
            outlet.flush(&mut wire).map_err(End::Wire)?;
            written += wire.len();
            waiting += self.write_slowly(&mut write, &mut wire).await?;
            pace.sent(size, written, began.elapsed().saturating_sub(waiting), waiting);
        }
    }

    /// Writes only as fast as the connection sends; says how long that took.
    pub(super) async fn write_slowly(
        &self,
        write: &mut SendStream,
        wire: &mut Vec<u8>,
    ) -> Result<Duration, End> {
        let began = Instant::now();
        for part in wire.chunks(SLOW_BYTES) {
            self.in_flight.drained().await;
            write_all(write, part).await?;
            self.in_flight.wrote(part.len());
        }
        wire.clear();
        Ok(began.elapsed())
    }

    /// Takes what is shipped. Not reading is what holds the peer back when the journal is full.
    async fn read_data(&self) -> Result<Never, End> {
        let mut read = self.connection.accept_uni().await?;
        let mut inlet = Inlet::default();
        loop {
            match read.read_chunk(WRITE_BYTES, true).await {
                Ok(Some(chunk)) => inlet.push(&chunk.bytes),
                Ok(None) => return Err(Violation("ends its data stream".into()).into()),
                Err(error) => return Err(read_failed(error)),
            }
            self.heard.notify_one();
            blocking(|| self.be_primed(&mut inlet))?;
            loop {
                match (blocking(|| inlet.next_frame())?, inlet.announced()) {
                    (Some(frame), _) => self.take(frame).await?,
                    (None, Some(announced)) => self.decide(&mut inlet, announced)?,
                    (None, None) => break,
                }
                // What arrived may take long to unpack, and others have something to say meanwhile.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Says whether to gather the long records that are about to come.
    fn decide(&self, inlet: &mut Inlet, (index, bytes): (u32, usize)) -> Result<(), End> {
        let admission = self.receiver().admits(index, bytes)?;
        match admission {
            Admission::Welcome => inlet.admit(),
            Admission::Dropped => inlet.discard(),
            Admission::Stopped(stop) => {
                inlet.discard();
                self.refuse(stop);
            }
        }
        Ok(())
    }

    async fn take(&self, frame: DataFrame) -> Result<(), End> {
        // What is refused is told.
        self.control.room().await;
        match frame {
            DataFrame::Open(opening) => {
                let refused = blocking(|| self.receiver().open(&opening))?;
                if let Some(stop) = refused {
                    self.refuse(stop);
                }
                self.ack.notify_one();
                Ok(())
            }
            DataFrame::Records { index, first, records } => {
                let unreadable = self.receiver().inspect(index, &records)?;
                match unreadable {
                    Some(stop) => self.refuse(stop),
                    None => self.append(index, first, records).await?,
                }
                Ok(())
            }
        }
    }

    /// Appends records. Where there is no room for them it waits, unless other streams would wait behind it.
    async fn append(&self, index: u32, first: Offset, records: Records) -> Result<(), End> {
        let began = Instant::now();
        loop {
            let taken = self.receiver().take(index, first, &records)?;
            match taken {
                Taken::Done => return Ok(()),
                Taken::Stopped(stop) => {
                    self.refuse(stop);
                    return Ok(());
                }
                Taken::Later(stream) => {
                    let alone = !self.receiver().takes_others(index);
                    let patience = match alone || stream.is_congested() {
                        true => FULL_PATIENCE,
                        false => Duration::ZERO,
                    };
                    if began.elapsed() >= patience {
                        self.set_aside(index, &records);
                        return Ok(());
                    }
                    // What trims another stream makes room too, and does not show here.
                    let _ = timeout(FULL_RETRY, stream.watch().changed()).await;
                }
            }
        }
    }

    /// Has the peer ship the other streams only, as long as there is no room for this one.
    fn set_aside(&self, index: u32, records: &Records) {
        let aside = self.receiver().set_aside(index, records);
        if let Some(holding) = aside {
            let (peer, stream) = (&self.link.peer.name, holding.stream);
            tracing::info!(peer, %stream, "no room for more of a stream; the others go on");
            self.control.push(Control::Holds(vec![holding]));
            self.full.notify_one();
        }
    }

    /// Tells the peer of streams for which there is room again.
    async fn watch_room(&self) -> Result<Never, End> {
        let mut looks = 0_u32;
        loop {
            if !self.receiver().awaits_room() {
                looks = 0;
                self.full.notified().await;
            }
            sleep(FULL_RETRY).await;
            looks = looks.wrapping_add(1);
            // With nothing else to take, nobody waits behind what has little room.
            let alone = !self.receiver().takes_others(u32::MAX);
            let little = alone || looks.is_multiple_of(LOOKS_FOR_LITTLE);
            let holdings = self.receiver().with_room(little);
            for part in holdings.chunks(crate::frame::STREAMS_PER_FRAME_MAX) {
                self.control.push(Control::Holds(part.to_vec()));
            }
        }
    }

    /// Notices streams that are new here, and those that have moved.
    async fn watch_streams(self: &Arc<Self>) -> Result<Never, End> {
        let mut journal = self.node.journal.watch();
        let (mut watched, mut watchers) = (BTreeSet::new(), JoinSet::new());
        loop {
            journal.mark_unchanged();
            for stream in self.node.journal.streams() {
                if watched.insert(stream.id()) {
                    watchers.spawn(self.clone().watch(stream));
                }
            }
            self.sender().look_for_streams();
            self.ship.notify_one();
            let holdings = self.receiver().holdings();
            for part in holdings.chunks(crate::frame::STREAMS_PER_FRAME_MAX) {
                self.control.push(Control::Holds(part.to_vec()));
            }
            self.full.notify_one();
            if journal.changed().await.is_err() {
                return Err(End::Stopping);
            }
        }
    }

    async fn watch(self: Arc<Self>, stream: Arc<Stream>) {
        let (mut watch, mut damage) = (stream.watch(), stream.damage());
        let mut seen = (Offset::ZERO, Offset::ZERO);
        loop {
            let marks = *watch.borrow_and_update();
            if (marks.synced, marks.applied) != seen {
                seen = (marks.synced, marks.applied);
                self.sender().moved(stream.id());
                self.ship.notify_one();
                self.ack.notify_one();
            }
            tokio::select! {
                biased;
                changed = watch.changed() => if changed.is_err() { return },
                changed = damage.changed() => {
                    // Whatever came or went: what cannot be read yet is found out again.
                    if changed.is_ok() {
                        blocking(|| self.sender().mended(stream.id()));
                        self.ship.notify_one();
                    }
                }
            }
        }
    }

    /// Probes a silent connection, lets it be dialled beside, and fits what waits in it to the link.
    async fn keep_vigil(self: &Arc<Self>) -> Result<Never, End> {
        let (mut vigil, mut routes) = (Vigil::new(Instant::now()), self.link.routes());
        let (mut window, mut heard) = (0, 0);
        loop {
            let (began, signs) = (Instant::now(), self.signs());
            let (waits, pause) = (vigil.waits(signs), vigil.pause(began, signs));
            let rerouted = timeout(pause, routes.changed()).await.is_ok();
            if rerouted {
                vigil.doubt();
            }
            self.link.passed(began.elapsed(), waits);
            let signs = self.signs();
            let mut advice = vigil.observe(Instant::now(), signs);
            // The peer learns the new way from what comes over it.
            advice.probe |= rerouted;
            if let Some(suspect) = advice.suspect {
                tracing::info!(peer = self.link.peer.name, suspect, "silence");
                self.link.suspect(self, suspect);
            }
            // Who only listens stays quiet while the link is down, unless it is the one who has to dial. Once it hears
            // something the link is up, and what it has said and was lost would else be said again minutes later.
            let hears = signs.heard != heard;
            if advice.probe {
                heard = signs.heard;
            }
            if advice.probe && (hears || self.facts.dialled || self.sender().awaits_acks()) {
                self.in_flight.grant_probe();
                let _ = self.connection.send_datagram(Bytes::from_static(PROBE));
            }
            let fitting = settings::send_window(self.in_flight.rate(), signs.rtt);
            if fitting != window {
                window = fitting;
                self.connection.set_send_window(window);
            }
        }
    }

    /// Sees to it that acknowledgements leave though the window is full. Two ends that both have much to send would else
    /// wait for each other until something times out.
    async fn answer_though_full(&self) -> Result<Never, End> {
        let (mut left, mut answered, mut pause) = (0, 0, ANSWER_EVERY);
        loop {
            self.in_flight.filled().await;
            let packets = self.in_flight.packets();
            let asked = asking(&self.connection.stats().frame_rx);
            let quiet = (packets, asked) == (left, answered);
            if packets == left && !quiet && self.in_flight.is_full() {
                self.in_flight.grant_answer();
                settings::nudge(&self.connection);
            }
            // What left took the acknowledgements along.
            (left, answered) = (packets, asked);
            pause = if quiet { (pause * 2).min(ANSWER_SELDOM) } else { ANSWER_EVERY };
            let _ = timeout(pause, self.heard.notified()).await;
        }
    }

    fn signs(&self) -> Signs {
        let stats = self.connection.stats();
        Signs {
            left: self.in_flight.left(),
            acks: self.in_flight.acks(),
            asking: asking(&stats.frame_tx),
            heard: stats.udp_rx.datagrams,
            rtt: self.rtt(),
        }
    }
}

/// Frames that ask for an acknowledgement.
fn asking(sent: &FrameStats) -> u64 {
    [
        sent.crypto,
        sent.ping,
        sent.stream,
        sent.datagram,
        sent.max_data,
        sent.max_stream_data,
        sent.max_streams_uni,
        sent.data_blocked,
        sent.stream_data_blocked,
        sent.new_connection_id,
        sent.retire_connection_id,
        sent.path_challenge,
        sent.path_response,
        sent.reset_stream,
        sent.stop_sending,
        sent.ack_frequency,
        sent.immediate_ack,
        u64::from(sent.handshake_done),
    ]
    .iter()
    .sum()
}

/// What stands before the records, and the records.
fn encode(outgoing: Outgoing) -> (Vec<u8>, Bytes) {
    let mut header = Vec::with_capacity(64);
    match outgoing {
        Outgoing::Open(opening) => {
            put_opening(&opening, &mut header);
            (header, Bytes::new())
        }
        Outgoing::Run(index, run) => {
            data_header(index, run.first, &run.records, &mut header);
            (header, run.records.bytes().clone())
        }
    }
}

/// Eight bytes say nothing; that they leave is the point.
const PROBE: &[u8] = b"thinwire";

/// Bytes that are compressed, written and read at a time.
const WRITE_BYTES: usize = 32 << 10;

/// Bytes that are written before it is asked again how much waits to be sent.
const SLOW_BYTES: usize = 2 << 10;

/// Acknowledgements cost 80 bytes each on the way back.
const ACK_SPACING_MAX: Duration = Duration::from_millis(200);

/// How often a full journal is asked again.
const FULL_RETRY: Duration = Duration::from_millis(250);

/// How long a stream may keep waiting for room what is not known yet to wait behind it: others, not opened so far.
const FULL_PATIENCE: Duration = Duration::from_secs(5);

/// How often a stream is taken up again though there is room for little of it: each half minute.
const LOOKS_FOR_LITTLE: u32 = 120;

/// How often it is looked whether an acknowledgement is kept back: less than a packet takes on a thin link.
const ANSWER_EVERY: Duration = Duration::from_millis(10);

/// The same where nothing has come for a while. What comes in order is noticed at once all the same.
const ANSWER_SELDOM: Duration = Duration::from_secs(1);

const GOODBYE: Duration = Duration::from_secs(1);
