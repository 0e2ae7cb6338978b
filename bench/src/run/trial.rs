//! One contender, one scenario: from an empty bed to an outcome.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use thinwire_cluster::Cluster;

use crate::contender::bed::{Bed, DATABASE};
use crate::contender::native::{self, Native};
use crate::contender::recvlogical::{self, Recvlogical};
use crate::contender::thinwire::Thinwire;
use crate::contender::{Contender, Part};
use crate::link::course::Course;
use crate::link::ladder::LAN;
use crate::progress::Progress;
use crate::report::floor::{self, Floor};
use crate::report::{Latency, Outcome};
use crate::run::Spec;
use crate::run::scenario::{BETWEEN_OUTAGES, Disturbance, OUTAGES, WEEK, Work};
use crate::run::watch::{Until, Watch};
use crate::stop::Stop;
use crate::workload::Workload;
use crate::workload::load::Load;

/// A contender on its bed.
pub(crate) struct Trial<'a> {
    spec: &'a Spec,
    stop: &'a Stop,
    progress: &'a Progress,
    workload: Box<dyn Workload>,
    bed: Bed,
    contender: Box<dyn Contender>,
}

impl<'a> Trial<'a> {
    /// Both databases are there, and the contender is prepared.
    pub(crate) fn prepare(
        spec: &'a Spec,
        contender: &str,
        stop: &'a Stop,
        progress: &'a Progress,
    ) -> Result<Trial<'a>> {
        progress.begin(&format!("{}: preparing", spec.title(contender)));
        let mut workload = spec.workload.begin(spec.seed);
        let bed = Bed::make(spec.emulator, spec.link.link, spec.seed, workload.as_mut(), stop)?;
        let contender: Box<dyn Contender> = match contender {
            native::NAME => Box::new(Native::new(&bed)?),
            recvlogical::NAME => Box::new(Recvlogical::new(&bed)?),
            _ => Box::new(Thinwire::new(&bed)?),
        };
        Ok(Trial { spec, stop, progress, workload, bed, contender })
    }

    /// Plays the scenario. The floor is taken only if asked for.
    pub(crate) fn play(mut self, with_floor: bool) -> Result<(Outcome, Option<Floor>)> {
        let work = self.spec.scenario.work;
        if work == Work::Copy {
            return Ok((self.copy()?, None));
        }
        let with_floor = with_floor && !matches!(work, Work::Idle | Work::Capture);
        if self.contender.name() != recvlogical::NAME {
            self.become_equal()?;
        }
        if work == Work::Capture {
            return Ok((self.capture()?, None));
        }
        if with_floor {
            floor::open(&self.bed.source, DATABASE)?;
        }
        let mut outcome = match work {
            Work::Copy | Work::Backlog | Work::Capture => self.backlog()?,
            Work::Apply => self.apply()?,
            Work::Outages => self.outages()?,
            Work::Week => self.week()?,
            Work::Trickle => self.trickle()?,
            Work::Idle => self.idle()?,
        };
        self.judge(&mut outcome)?;
        let floor = with_floor.then(|| floor::take(&self.bed.source, DATABASE)).transpose()?;
        Ok((outcome, floor))
    }

    /// The first copy, on the link as it is.
    fn copy(&mut self) -> Result<Outcome> {
        let rows = self.bed.rows_query()?;
        let goal = self.bed.ask_source(&rows)?;
        self.say("first copy");
        self.begin_link();
        self.contender.start(&self.bed)?;
        let mut outcome = self.watch(&Until::Answer(&rows, goal))?;
        self.judge(&mut outcome)?;
        Ok(outcome)
    }

    /// The first copy before another scenario begins: on the link without its outages, so that
    /// Thinwire knows the link; over a fast one for those that would take very long and learn
    /// nothing from it.
    fn become_equal(&mut self) -> Result<()> {
        self.say("becoming equal");
        let is_native = self.contender.name() == native::NAME;
        let link = if is_native { LAN } else { self.spec.link }.link;
        self.bed.emulator.wire().begin(link.with_course(Course::Steady), self.spec.seed);
        self.contender.start(&self.bed)?;
        let rows = self.bed.rows_query()?;
        let goal = self.bed.ask_source(&rows)?;
        let quiet = Disturbance::default();
        let outcome = self.watch_with(quiet, &Until::Answer(&rows, goal))?;
        ensure!(outcome.finished, "no first copy in {:?}\n{}", self.spec.patience, self.log());
        let deadline = Instant::now() + self.spec.patience;
        while !self.contender.has_copied(&self.bed)? {
            self.stop.check()?;
            ensure!(Instant::now() < deadline, "the first copy does not end\n{}", self.log());
            thread::sleep(Duration::from_millis(100));
        }
        self.pause(SETTLE)
    }

    fn backlog(&mut self) -> Result<Outcome> {
        self.say("collecting a backlog");
        self.contender.part(&self.bed)?;
        self.pause(SETTLE)?;
        self.bed.emulator.wire().cut();
        self.collect()?;
        // What was on the wire when it was cut is over, and all is captured that is captured early.
        self.pause(SETTLE)?;
        self.drain(true)
    }

    /// Commits the backlog. Nobody waits for the disk until its end, when all of it is durable.
    fn collect(&mut self) -> Result<()> {
        let sql = self.workload.backlog(self.spec.size);
        let sql = format!(
            "set synchronous_commit = off;\n{sql}set synchronous_commit = on;\n\
             select from pg_current_xact_id();\n"
        );
        self.bed.source.psql(DATABASE, &sql)?;
        Ok(())
    }

    /// From the moment that it may apply what has arrived until it has.
    fn apply(&mut self) -> Result<Outcome> {
        self.say("collecting a backlog");
        self.contender.hold(&self.bed, Part::Apply)?;
        self.collect()?;
        self.pause(SETTLE)?;
        let deadline = Instant::now() + self.spec.patience;
        while !self.contender.has_shipped(&self.bed)? {
            self.pause(Duration::from_millis(100))?;
            ensure!(Instant::now() < deadline, "the backlog does not arrive\n{}", self.log());
        }
        let query = self.workload.progress();
        let goal = self.bed.ask_source(&query)?;
        self.say("apply");
        self.contender.release(&self.bed, Part::Apply)?;
        self.watch(&Until::Answer(&query, goal))
    }

    /// From the moment that it may read the log until the source may forget what was in it.
    fn capture(&mut self) -> Result<Outcome> {
        self.say("collecting a backlog");
        self.bed.emulator.wire().cut();
        self.contender.hold(&self.bed, Part::Capture)?;
        self.collect()?;
        let end = self.bed.source.psql(DATABASE, "select pg_current_wal_flush_lsn()")?;
        let query = format!(
            "select count(*) from pg_replication_slots where confirmed_flush_lsn >= '{end}'"
        );
        self.say("capture");
        self.contender.release(&self.bed, Part::Capture)?;
        let outcome = self.watch(&Until::Source(&query, 1))?;
        Ok(Outcome { goal: self.spec.size, ..outcome })
    }

    fn week(&mut self) -> Result<Outcome> {
        self.say("a week without link");
        self.bed.emulator.wire().cut();
        let until = Instant::now() + WEEK;
        let lines: Vec<String> =
            self.workload.backlog(self.spec.size).lines().map(str::to_owned).collect();
        let pause = WEEK / u32::try_from(lines.len()).unwrap_or(u32::MAX).max(1) * 9 / 10;
        let mut load = Load::start(&self.bed.source, DATABASE, lines, pause)?;
        while !load.finished()? || Instant::now() < until {
            self.pause(Duration::from_millis(50))?;
        }
        let retained = self.bed.ask_source(RETAINED)?;
        let outcome = self.drain(false)?;
        Ok(Outcome { retained_wal_bytes: Some(retained), ..outcome })
    }

    /// From the moment the link is back until the last of it has arrived.
    fn drain(&mut self, in_order: bool) -> Result<Outcome> {
        let query = self.workload.progress();
        let goal = self.bed.ask_source(&query)?;
        self.say(self.spec.scenario.name);
        self.begin_link();
        self.bed.emulator.wire().restore();
        if in_order {
            self.contender.meet(&self.bed)?;
        }
        self.watch(&Until::Answer(&query, goal))
    }

    fn trickle(&mut self) -> Result<Outcome> {
        self.begin_link();
        let (mut load, count) = self.load(self.spec.seconds)?;
        self.say("trickle");
        let outcome = self.watch(&Until::Answer(BEACONS, count))?;
        // The last of it may be here before its writer has taken leave.
        while outcome.finished && !load.finished()? {
            self.pause(Duration::from_millis(50))?;
        }
        let latency = self.latency()?;
        Ok(Outcome { latency, ..outcome })
    }

    /// Through one outage after the other, with transactions all the time.
    fn outages(&mut self) -> Result<Outcome> {
        self.begin_link();
        let time = OUTAGES.iter().map(|outage| *outage + BETWEEN_OUTAGES).sum();
        let (mut load, count) = self.load(time)?;
        let mut ends = Vec::new();
        for outage in OUTAGES {
            self.say(&format!("calm, and then an outage of {outage:?}"));
            self.pause(BETWEEN_OUTAGES)?;
            self.bed.emulator.wire().cut();
            self.pause(outage)?;
            self.bed.emulator.wire().restore();
            ends.push(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1_000.0);
        }
        self.say("outages");
        let outcome = self.watch(&Until::Answer(BEACONS, count))?;
        while outcome.finished && !load.finished()? {
            self.pause(Duration::from_millis(50))?;
        }
        let arrived = times(&self.bed.target, ARRIVED)?;
        let first_after = |end: &f64| {
            let after = arrived.iter().filter(|at| *at >= end);
            after.copied().reduce(f64::min).map(|at| at - end)
        };
        let stalls_ms = ends.iter().filter_map(first_after).collect();
        Ok(Outcome { stalls_ms, ..outcome })
    }

    /// Begins to write transactions at the spec's rate for a while; also says how many.
    fn load(&mut self, time: Duration) -> Result<(Load, u64)> {
        let count = (self.spec.rate * time.as_secs_f64()).round();
        let count: u64 = format!("{count:.0}").parse().context("counting transactions")?;
        let lines = (1..=count)
            .map(|id| {
                let change = self.workload.change();
                format!("begin; {change} insert into beacon values ({id}); commit;")
            })
            .collect();
        self.bed.target.psql(DATABASE, NOTE_ARRIVALS)?;
        let pause = Duration::from_secs_f64(1.0 / self.spec.rate);
        Ok((Load::start(&self.bed.source, DATABASE, lines, pause)?, count))
    }

    fn idle(&mut self) -> Result<Outcome> {
        self.begin_link();
        self.pause(SETTLE)?;
        self.say("idle");
        self.watch(&Until::Time(self.spec.seconds))
    }

    /// Both servers have the same clock here.
    fn latency(&self) -> Result<Option<Latency>> {
        let committed = times(&self.bed.source, COMMITTED)?;
        let arrived = times(&self.bed.target, ARRIVED)?;
        Ok(Latency::of(committed.iter().zip(arrived).map(|(from, to)| to - from).collect()))
    }

    fn watch(&mut self, until: &Until<'_>) -> Result<Outcome> {
        let planned = self.spec.scenario.disturbance;
        let own = Disturbance { cut_every: None, readdress_every: self.spec.link.readdress };
        self.watch_with(
            Disturbance {
                cut_every: self.spec.cut_every.or(planned.cut_every),
                readdress_every: planned.readdress_every.or(own.readdress_every),
            },
            until,
        )
    }

    fn watch_with(&mut self, disturbance: Disturbance, until: &Until<'_>) -> Result<Outcome> {
        let watch = Watch {
            bed: &mut self.bed,
            contender: self.contender.as_mut(),
            disturbance,
            patience: self.spec.patience,
            stop: self.stop,
            progress: self.progress,
        };
        let outcome = watch.until(until)?;
        Ok(Outcome { contender: self.contender.name().into(), ..outcome })
    }

    fn begin_link(&self) {
        self.bed.emulator.wire().begin(self.spec.link.link, self.spec.seed);
    }

    fn judge(&self, outcome: &mut Outcome) -> Result<()> {
        if outcome.finished {
            let equal = self.bed.equal()?;
            outcome.equal = Some(equal);
            ensure!(equal, "{}: the databases differ\n{}", self.contender.name(), self.log());
        }
        Ok(())
    }

    fn say(&self, what: &str) {
        self.progress.begin(&format!("{}: {what}", self.spec.title(self.contender.name())));
    }

    fn log(&self) -> String {
        self.contender.log(&self.bed)
    }

    fn pause(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.stop.check()?;
            thread::sleep(Duration::from_millis(50).min(time));
        }
        Ok(())
    }
}

/// The times that a query gives, in milliseconds.
fn times(cluster: &Cluster, query: &str) -> Result<Vec<f64>> {
    let text = cluster.psql(DATABASE, query)?;
    let time = |line: &str| line.parse().with_context(|| format!("no time: {line}"));
    text.lines().map(time).collect()
}

/// For what is under way to come to its end.
const SETTLE: Duration = Duration::from_secs(3);
const RETAINED: &str = "select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)\
    ::bigint from pg_replication_slots where slot_name <> 'floor'";
const BEACONS: &str = "select count(*) from beacon";
const COMMITTED: &str =
    "select extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000 from beacon order by id";
/// A replicated transaction has the commit time of its origin, so the target's own has to be noted:
/// by a deferred trigger, which fires when the commit begins.
const NOTE_ARRIVALS: &str = "
create table arrival (id bigint, at timestamptz);
create function arrived() returns trigger language plpgsql as $$
    begin insert into public.arrival values (new.id, clock_timestamp()); return null; end $$;
create constraint trigger arrived after insert on beacon deferrable initially deferred
    for each row execute function arrived();
alter table beacon enable always trigger arrived;
";
const ARRIVED: &str = "select extract(epoch from at) * 1000 from arrival order by id";
