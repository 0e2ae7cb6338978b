//! The loop around a measurement: it looks, disturbs the link as planned, counts, and knows when it
//! is over.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::contender::Contender;
use crate::contender::bed::{Bed, DATABASE};
use crate::emulator::wire::Stats;
use crate::progress::{Look, Progress};
use crate::report::{Outcome, Point};
use crate::run::probe::Probe;
use crate::run::scenario::{BETWEEN_OUTAGES, CUT, Disturbance};
use crate::stop::Stop;

/// What is watched, and how long it may take.
pub(crate) struct Watch<'a> {
    pub(crate) bed: &'a mut Bed,
    pub(crate) contender: &'a mut dyn Contender,
    pub(crate) disturbance: Disturbance,
    pub(crate) patience: Duration,
    pub(crate) stop: &'a Stop,
    pub(crate) progress: &'a Progress,
    pub(crate) from: Mark,
}

/// A moment from which is counted.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    since: Instant,
    stats: Stats,
}

impl Mark {
    pub(crate) fn now(bed: &Bed) -> Mark {
        Mark { since: Instant::now(), stats: bed.emulator.wire().stats() }
    }
}

/// When a planned outage was over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// Since counting began.
    pub(crate) after: Duration,
    /// In milliseconds since 1970.
    pub(crate) at_ms: f64,
}

/// When it is over.
pub(crate) enum Until<'a> {
    /// When the target's answer to a query is this number.
    Answer(&'a str, u64),
    /// When the source's is.
    Source(&'a str, u64),
    /// When a time has passed.
    Time(Duration),
}

impl Watch<'_> {
    /// Watches until it is over, and says when each outage was.
    pub(crate) fn until(mut self, until: &Until<'_>) -> Result<(Outcome, Vec<Ended>)> {
        let asked = match until {
            Until::Source(..) => &self.bed.source,
            Until::Answer(..) | Until::Time(_) => &self.bed.target,
        };
        let mut probe = Probe::open(asked, DATABASE)?;
        let mut count = Count::start(self.from);
        let mut weather = Weather::new(self.disturbance);
        let (mut ended, patience) = (Vec::new(), self.patience + self.disturbance.length());
        let first = self.done(&mut probe, until, Duration::ZERO)?;
        loop {
            self.stop.check()?;
            if let Err(error) = self.contender.check() {
                bail!("{error:#}\n{}", self.contender.log(self.bed));
            }
            let elapsed = count.since.elapsed();
            while let Some(event) = weather.due(elapsed) {
                event.happen(&mut self)?;
                if event == Event::End {
                    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3;
                    ended.push(Ended { after: count.since.elapsed(), at_ms });
                }
            }
            let done = self.done(&mut probe, until, elapsed)?;
            let cost = count.since.elapsed() - elapsed;
            let wire = self.bed.emulator.wire();
            count.look(wire.stats(), wire.rate_bps(), done, done > first);
            let goal = until.goal();
            let bytes = count.outcome.bytes();
            self.progress.show(&Look { elapsed, done, goal, bytes, up: wire.is_up() });
            let over = done == goal;
            if over || elapsed > patience {
                wire.restore();
                return Ok((Outcome { finished: over, goal, ..count.finish() }, ended));
            }
            thread::sleep(LOOK_EVERY.max(cost * LOOK_SHARE));
        }
    }

    fn done(&self, probe: &mut Probe, until: &Until<'_>, elapsed: Duration) -> Result<u64> {
        match until {
            Until::Answer(query, _) | Until::Source(query, _) => probe.ask(query),
            Until::Time(time) => Ok(elapsed.min(*time).as_secs()),
        }
    }
}

impl Until<'_> {
    fn goal(&self) -> u64 {
        match self {
            Until::Answer(_, goal) | Until::Source(_, goal) => *goal,
            Until::Time(time) => time.as_secs(),
        }
    }
}

/// Counts from a moment on.
struct Count {
    since: Instant,
    before: Stats,
    looked: Duration,
    capacity_bits: f64,
    last: Point,
    outcome: Outcome,
}

impl Count {
    fn start(from: Mark) -> Count {
        Count {
            since: from.since,
            before: from.stats,
            looked: Duration::ZERO,
            capacity_bits: 0.0,
            last: Point::default(),
            outcome: Outcome::default(),
        }
    }

    fn look(&mut self, stats: Stats, rate_bps: u64, done: u64, begun: bool) {
        let now = self.since.elapsed();
        self.capacity_bits += (now - self.looked).as_secs_f64() * rate_bps as f64;
        self.looked = now;
        let outcome = &mut self.outcome;
        outcome.seconds = now.as_secs_f64();
        outcome.up_bytes = stats.up.carried_bytes() - self.before.up.carried_bytes();
        outcome.up_packets = stats.up.carried_packets() - self.before.up.carried_packets();
        outcome.down_bytes = stats.down.carried_bytes() - self.before.down.carried_bytes();
        if begun && outcome.first_seconds.is_none() {
            outcome.first_seconds = Some(outcome.seconds);
        }
        self.last =
            Point { seconds: outcome.seconds, done, bytes: outcome.bytes(), up: rate_bps > 0 };
        let is_due = outcome.points.last().is_none_or(|last| {
            last.up != self.last.up || self.last.seconds >= last.seconds + POINT_SECONDS
        });
        if is_due {
            outcome.points.push(self.last);
        }
    }

    fn finish(mut self) -> Outcome {
        self.outcome.points.push(self.last);
        let capacity = Duration::from_secs_f64(self.capacity_bits / 8e6);
        self.outcome.capacity_bytes = u64::try_from(capacity.as_micros()).unwrap_or(u64::MAX);
        self.outcome
    }
}

/// What is planned for the link.
struct Weather {
    plan: Disturbance,
    cuts: u32,
    addresses: u32,
    restore_at: Option<Duration>,
    /// The planned outages' beginnings and ends.
    outages: VecDeque<(Duration, Event)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Begin,
    End,
    Restore,
    Cut,
    Readdress,
}

impl Weather {
    fn new(plan: Disturbance) -> Weather {
        let (mut now, mut outages) = (Duration::ZERO, VecDeque::new());
        for outage in plan.outages {
            now += BETWEEN_OUTAGES;
            outages.push_back((now, Event::Begin));
            now += *outage;
            outages.push_back((now, Event::End));
        }
        Weather { plan, cuts: 1, addresses: 1, restore_at: None, outages }
    }

    /// The next thing that is due by now.
    fn due(&mut self, elapsed: Duration) -> Option<Event> {
        if self.outages.front().is_some_and(|(at, _)| elapsed >= *at) {
            return self.outages.pop_front().map(|(_, event)| event);
        }
        if self.restore_at.is_some_and(|at| elapsed >= at) {
            self.restore_at = None;
            return Some(Event::Restore);
        }
        if self.plan.cut_every.is_some_and(|every| elapsed >= every * self.cuts) {
            self.cuts += 1;
            self.restore_at = Some(elapsed + CUT);
            return Some(Event::Cut);
        }
        if self.plan.readdress_every.is_some_and(|every| elapsed >= every * self.addresses) {
            self.addresses += 1;
            return Some(Event::Readdress);
        }
        None
    }
}

impl Event {
    fn happen(self, watch: &mut Watch<'_>) -> Result<()> {
        let Watch { bed, contender, .. } = watch;
        match self {
            Event::Begin => bed.emulator.wire().cut(),
            Event::End | Event::Restore => bed.emulator.wire().restore(),
            Event::Cut => {
                contender.disconnect(bed)?;
                bed.emulator.wire().cut();
            }
            Event::Readdress => {
                bed.emulator.readdress()?;
                contender.readdressed(bed)?;
            }
        }
        Ok(())
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(40);
/// Counting rows takes the machine's time, which is not to be a tenth of it.
const LOOK_SHARE: u32 = 9;
/// How dense a run's history is.
const POINT_SECONDS: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_cut_and_back_and_moves_when_it_is_time() {
        let [cut, address] = [6, 4].map(|seconds| Some(Duration::from_secs(seconds)));
        let mut weather = Weather::new(Disturbance {
            cut_every: cut,
            readdress_every: address,
            ..Disturbance::NONE
        });
        let mut events = Vec::new();
        for second in 0..=13 {
            while let Some(event) = weather.due(Duration::from_secs(second)) {
                events.push((second, event));
            }
        }
        use Event::{Cut, Readdress, Restore};
        let first = [(4, Readdress), (6, Cut), (7, Restore), (8, Readdress)];
        assert_eq!(events, [&first[..], &[(12, Cut), (12, Readdress), (13, Restore)]].concat());
        assert_eq!(Weather::new(Disturbance::NONE).due(Duration::from_secs(99)), None);
    }

    #[test]
    fn outages_come_after_calm_and_last_as_long_as_is_planned() {
        const PLAN: Disturbance = Disturbance {
            outages: &[Duration::from_secs(1), Duration::from_secs(5)],
            ..Disturbance::NONE
        };
        let mut weather = Weather::new(PLAN);
        let mut events = Vec::new();
        for second in 0..=PLAN.length().as_secs() {
            while let Some(event) = weather.due(Duration::from_secs(second)) {
                events.push((second, event));
            }
        }
        let expected = [(10, Event::Begin), (11, Event::End), (21, Event::Begin), (26, Event::End)];
        assert_eq!(events, expected);
    }

    #[test]
    fn capacity_is_what_the_link_carried_while_it_was_up() {
        let since = Instant::now() - Duration::from_secs(10);
        let mut count = Count::start(Mark { since, stats: Stats::default() });
        count.look(Stats::default(), 80_000, 3, false);
        count.since -= Duration::from_secs(10);
        count.look(Stats::default(), 0, 7, true);
        let outcome = count.finish();
        assert!((100_000..150_000).contains(&outcome.capacity_bytes), "{outcome:?}");
        assert_eq!(outcome.points.last().map(|point| (point.done, point.up)), Some((7, false)));
        let first = outcome.first_seconds.unwrap();
        assert!((20.0..30.0).contains(&first), "{first}");
    }
}
