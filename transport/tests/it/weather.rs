//! Two nodes under any weather and any crashes: what must hold at every moment, and that it clears up.
//!
//! `THINWIRE_LINK_SEEDS` sets how many lives there are.

use std::{sync::Arc, time::Duration};

use thinwire_engine::model::{Offset, StreamId};
use tokio::time::{Instant, sleep};

use crate::{
    seeds::{Random, count, each_seed},
    sim::{Faults, Kind, Sim},
    site::{Site, simulate, transaction},
};

/// One of so many lives is lived twice, and has to be the same.
const REPLAYED: u64 = 100;

const EDGE: usize = 0;
const HUB: usize = 1;

#[test]
fn in_any_weather_both_ends_hold_the_same_in_the_end() {
    let seeds = count("THINWIRE_LINK_SEEDS", 300);
    each_seed("in_any_weather", seeds, |seed| {
        let trace = simulate(life(seed));
        if seed.is_multiple_of(REPLAYED) {
            assert_eq!(simulate(life(seed)), trace, "a seed is to replay exactly");
        }
    });
}

/// What happens at some moment.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Faults(Faults),
    Down,
    Up,
    Readdress,
    Append(usize, u64),
    /// The power goes, or only the process; it starts again after a while.
    Crash(usize, bool, Duration),
}

/// Lives through a number of turns; says what was on the wire and when.
async fn life(seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut world = World::new(kind(&mut random), seed);
    world.append(EDGE, 2 + random.below(12) as u64);
    world.append(HUB, 1 + random.below(4) as u64);
    for _ in 0..random.below(8) {
        world.wait(Duration::from_secs_f64(random.between(0.05, 12.0))).await;
        let turn = turn(&mut random);
        world.turn(turn, &mut random).await;
    }
    world.clear_up().await;
    world.sim.trace()
}

/// From a satellite modem that crawls to a wire.
fn kind(random: &mut Random) -> Kind {
    Kind {
        bits_per_second: random.between(2_400.0, 10_000_000.0),
        delay: Duration::from_secs_f64(random.between(0.0025, 1.5)),
        loss: 0.0,
    }
}

fn turn(random: &mut Random) -> Turn {
    let node = random.below(2);
    match random.below(10) {
        0 => Turn::Down,
        1 | 2 => Turn::Up,
        3 => Turn::Readdress,
        4 => Turn::Crash(node, random.one_in(2), Duration::from_secs(random.below(8) as u64)),
        5 | 6 => Turn::Append(node, 1 + random.below(10) as u64),
        _ => {
            // Each is off in half of all cases, so that all combinations come.
            let mut some = |most: f64| random.share() * most * random.below(2) as f64;
            let (loss, duplicate, late, corrupt) = (some(0.3), some(0.5), some(0.5), some(0.1));
            let size_max = random.one_in(6).then(|| 100 + random.below(1_100));
            let deaf = random.one_in(6).then(|| [1, 2][random.below(2)]);
            Turn::Faults(Faults { loss, duplicate, late, corrupt, size_max, deaf })
        }
    }
}

struct World {
    sim: Arc<Sim>,
    kind: Kind,
    sites: [Site; 2],
    starts: [Vec<Instant>; 2],
    xids: [u32; 2],
    seen: [Seen; 2],
}

/// The furthest that was ever seen of a node's stream.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Durable at the other.
    durable: Offset,
    /// Acknowledged to the node, and applied, in its present life.
    acked: Offset,
    applied: Offset,
}

impl World {
    fn new(kind: Kind, seed: u64) -> Self {
        let sim = Sim::new(kind, seed);
        let sites = [Site::new(1), Site::new(2)];
        let mut world = Self {
            sim,
            kind,
            sites,
            starts: Default::default(),
            xids: [0; 2],
            seen: Default::default(),
        };
        world.start(HUB);
        world.start(EDGE);
        world
    }

    fn start(&mut self, node: usize) {
        let peer = match node {
            EDGE => self.sites[HUB].as_dialled(),
            _ => self.sites[EDGE].as_peer(),
        };
        self.starts[node].push(Instant::now());
        self.sites[node].start(&self.sim, vec![peer]);
        self.apply(node);
    }

    /// Applies all that a node holds durably of the other's stream; says how far that is.
    fn apply(&self, node: usize) -> Offset {
        let stream = self.sites[node].journal().stream(self.sites[1 - node].own_id());
        stream.map_or(Offset::ZERO, |stream| {
            let synced = stream.watermarks().synced;
            stream.set_applied(synced);
            synced
        })
    }

    /// Appends a transaction, which may not be durable yet when the power goes.
    fn append(&mut self, node: usize, rows: u64) {
        self.xids[node] += 1;
        self.sites[node].stage(&transaction(self.xids[node], rows, 100));
    }

    async fn turn(&mut self, turn: Turn, random: &mut Random) {
        match turn {
            Turn::Faults(faults) => self.sim.set_faults(faults),
            Turn::Down => self.sim.set_up(false),
            Turn::Up => self.sim.set_up(true),
            Turn::Readdress => self.sim.readdress(self.sites[EDGE].number),
            Turn::Append(node, rows) => self.append(node, rows),
            Turn::Crash(node, power, away) => {
                self.observe();
                if power {
                    let mut choose = |end| random.below(end);
                    self.sites[node].cut_power(&mut choose).await;
                } else {
                    self.sites[node].kill().await;
                }
                sleep(away).await;
                self.seen[node] = Seen { durable: self.seen[node].durable, ..Seen::default() };
                self.start(node);
                self.recovered(node);
            }
        }
    }

    /// Nothing that was acknowledged is lost by a crash.
    fn recovered(&self, node: usize) {
        let other = 1 - node;
        let id = self.sites[other].own_id();
        let held = self.sites[node].held(id).0;
        assert!(held >= self.seen[other].durable, "{held} left of {:?}", self.seen[other]);
        let own = self.sites[node].held(self.sites[node].own_id()).0;
        assert!(own >= self.seen[node].durable, "{own} left, and shipped {:?}", self.seen[node]);
    }

    /// Lets time pass, and looks on.
    async fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep((end - Instant::now()).min(LOOK_EVERY)).await;
            self.observe();
        }
    }

    fn observe(&mut self) {
        for node in [EDGE, HUB] {
            let (from, to) = (&self.sites[node], &self.sites[1 - node]);
            let id = from.own_id();
            let durable = self.apply(1 - node);
            let seen = &mut self.seen[node];
            assert!(durable >= seen.durable, "durable records are gone: {durable}, {seen:?}");
            assert!(durable <= from.held(id).0, "{durable} is durable, and not at its origin");
            seen.durable = durable;
            let status = from.status(to).streams;
            let Some(at) = status.iter().find(|at| at.id == id) else { continue };
            assert!(at.shipped >= at.acked && at.acked >= at.applied, "{at:?}");
            assert!(at.acked <= durable, "{at:?}, and {durable} is durable");
            assert!(at.acked >= seen.acked && at.applied >= seen.applied, "{at:?}, {seen:?}");
            (seen.acked, seen.applied) = (at.acked, at.applied);
        }
    }

    /// The faults stop: all must arrive, and be known to have arrived, in time.
    async fn clear_up(&mut self) {
        self.sim.set_faults(Faults::default());
        self.sim.set_up(true);
        let (backlog, start) = (self.backlog(), Instant::now());
        let carrying = backlog * 8.0 / self.kind.bits_per_second;
        let limit = Duration::from_secs_f64(carrying * 1.5) + self.connecting();
        while !self.is_even() {
            let took = start.elapsed();
            assert!(
                took < limit,
                "not even after {took:?}, {} left: {:?}",
                self.backlog(),
                self.kind
            );
            self.wait(LOOK_EVERY).await;
        }
        for node in [EDGE, HUB] {
            let (from, to) = (&self.sites[node], &self.sites[1 - node]);
            assert_eq!(from.records(from.own_id()), to.records(from.own_id()));
            assert!(from.own().halted().borrow().is_none());
        }
        self.no_storm();
    }

    /// How long a connection may take to be there again.
    fn connecting(&self) -> Duration {
        // The queue of a crawling link is full of what earlier dials have sent, and is the first to be carried.
        Duration::from_secs(if self.kind.bits_per_second < CRAWL { 300 } else { 60 })
    }

    fn is_even(&self) -> bool {
        [EDGE, HUB].into_iter().all(|node| {
            let (from, to) = (&self.sites[node], &self.sites[1 - node]);
            let (id, all) = (from.own_id(), from.held(from.own_id()));
            let told = |status: &thinwire_transport::PeerStatus| {
                status.streams.iter().any(|at| at.id == id && at.applied == all.0)
            };
            to.held(id) == all && told(&from.status(to))
        })
    }

    /// Bytes that the link has yet to carry: records, and what a new connection costs.
    fn backlog(&self) -> f64 {
        let lacking = [EDGE, HUB].map(|node| {
            let (from, to) = (&self.sites[node], &self.sites[1 - node]);
            let id: StreamId = from.own_id();
            from.held(id).0.since(to.held(id).0) as f64 * 120.0
        });
        lacking.iter().sum::<f64>() + HANDSHAKE
    }

    /// Nobody dials more than once a second, but for those who have just been started.
    fn no_storm(&self) {
        for node in [EDGE, HUB] {
            let dials = self.sim.dials(self.sites[node].number);
            for pair in dials.windows(2) {
                let apart = pair[1] - pair[0];
                let restarted = self.starts[node].iter().any(|at| (pair[0]..=pair[1]).contains(at));
                assert!(restarted || apart >= Duration::from_millis(999), "dials {apart:?} apart");
            }
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a handshake and a hello take in both directions.
const HANDSHAKE: f64 = 6_000.0;

/// The rate below which a packet of a handshake takes longer than a second.
const CRAWL: f64 = 10_000.0;
