//! One contender, one scenario: from an empty bed to an outcome.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use thinwire_cluster::Cluster;

use crate::contender::bed::{self, Bed, DATABASE};
use crate::contender::native::{self, Native};
use crate::contender::pglogical::{self, Pglogical};
use crate::contender::recvlogical::{self, Recvlogical};
use crate::contender::thinwire::Thinwire;
use crate::contender::{Contender, Part};
use crate::link::course::Course;
use crate::link::ladder::LAN;
use crate::progress::Progress;
use crate::report::floor::{self, Floor};
use crate::report::{Latency, Outcome};
use crate::run::Spec;
use crate::run::scenario::{Disturbance, WEEK, Work};
use crate::run::watch::{Ended, Mark, Until, Watch};
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
    /// When each of the planned outages was over.
    ended: Vec<Ended>,
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
        let preload = (contender == pglogical::NAME).then_some(pglogical::LIBRARY);
        let servers = bed::options(spec.emulator, preload);
        let (kind, link) = (spec.emulator, spec.link.link);
        let bed = Bed::make(kind, &servers, link, spec.seed, workload.as_mut(), stop)?;
        let contender: Box<dyn Contender> = match contender {
            native::NAME => Box::new(Native::new(&bed)?),
            pglogical::NAME => Box::new(Pglogical::new(&bed)?),
            recvlogical::NAME => Box::new(Recvlogical::new(&bed)?),
            _ => Box::new(Thinwire::new(&bed, spec.peer())?),
        };
        Ok(Trial { spec, stop, progress, workload, bed, contender, ended: Vec::new() })
    }

    /// Plays the scenario. The floor is taken only if asked for.
    pub(crate) fn play(mut self, with_floor: bool) -> Result<(Outcome, Option<Floor>)> {
        let work = self.spec.scenario.work;
        if work == Work::Copy {
            let outcome = self.copy()?;
            let floor =
                with_floor.then(|| floor::of_rows(&self.bed.source, DATABASE)).transpose()?;
            return Ok((outcome, floor));
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
        // What it takes to begin, over the link, is a part of it.
        let from = Mark::now(&self.bed);
        self.contender.start(&self.bed)?;
        let mut outcome = self.watch(from, &Until::Answer(&rows, goal))?;
        self.judge(&mut outcome)?;
        Ok(outcome)
    }

    /// The first copy before another scenario begins: on the link without its outages, so that
    /// Thinwire knows the link; over a fast one for those that would take very long and learn
    /// nothing from it.
    fn become_equal(&mut self) -> Result<()> {
        self.say("becoming equal");
        let is_native = [native::NAME, pglogical::NAME].contains(&self.contender.name());
        let link = if is_native { LAN } else { self.spec.link }.link;
        self.bed.emulator.wire().begin(link.with_course(Course::Steady), self.spec.seed);
        self.contender.start(&self.bed)?;
        let rows = self.bed.rows_query()?;
        let goal = self.bed.ask_source(&rows)?;
        let (from, until) = (Mark::now(&self.bed), Until::Answer(&rows, goal));
        let outcome = self.watch_with(Disturbance::NONE, from, &until)?;
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

    /// Commits the backlog. Nobody waits for the disk until its end, when all of it is durable. Returns a position in the
    /// source's log that nobody has reached who has not read all of it: within its last transaction, which has a change,
    /// because one without is neither waited for by the server nor sent to anybody.
    fn collect(&mut self) -> Result<String> {
        let sql = self.workload.backlog(self.spec.size);
        let sql = format!(
            "set synchronous_commit = off;\n{sql}set synchronous_commit = on;\n{LAST_OF_BACKLOG};\n"
        );
        let answers = self.bed.source.psql(DATABASE, &sql)?;
        answers.lines().last().map(str::to_owned).context("the backlog has no end")
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
        self.watch(Mark::now(&self.bed), &Until::Answer(&query, goal))
    }

    /// From the moment before anybody reads the log, and its client starts, until the source may forget the backlog.
    fn capture(&mut self) -> Result<Outcome> {
        self.say("collecting a backlog");
        self.bed.emulator.wire().cut();
        self.contender.hold(&self.bed, Part::Capture)?;
        let end = self.collect()?;
        let query = format!(
            "select count(*) from pg_replication_slots where confirmed_flush_lsn >= '{end}'"
        );
        self.say("capture");
        let from = Mark::now(&self.bed);
        self.contender.release(&self.bed, Part::Capture)?;
        let outcome = self.watch(from, &Until::Source(&query, 1))?;
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
        self.watch(Mark::now(&self.bed), &Until::Answer(&query, goal))
    }

    fn trickle(&mut self) -> Result<Outcome> {
        self.begin_link();
        let (mut load, count, from) = self.load(self.spec.seconds)?;
        self.say("trickle");
        let outcome = self.watch(from, &Until::Answer(BEACONS, count))?;
        self.finish(&mut load, &outcome)?;
        let latency = self.latency()?;
        Ok(Outcome { latency, ..outcome })
    }

    /// Through one outage after the other, with transactions all the time.
    fn outages(&mut self) -> Result<Outcome> {
        self.begin_link();
        let time = match self.spec.scenario.disturbance.length() {
            Duration::ZERO => self.spec.seconds,
            length => length,
        };
        let (mut load, count, from) = self.load(time)?;
        self.say("outages");
        let outcome = self.watch(from, &Until::Answer(BEACONS, count))?;
        self.finish(&mut load, &outcome)?;
        let arrived = times(&self.bed.target, ARRIVED)?;
        let first_after = |end: &Ended| {
            let after = arrived.iter().filter(|at| **at >= end.at_ms);
            after.copied().reduce(f64::min).map(|at| at - end.at_ms)
        };
        let stalls_ms = self.ended.iter().filter_map(first_after).collect();
        let last = self.ended.last().filter(|_| outcome.finished);
        let settled_ms = last.map(|end| (outcome.seconds - end.after.as_secs_f64()) * 1e3);
        Ok(Outcome { stalls_ms, settled_ms, ..outcome })
    }

    /// The last of it may be here before its writer has taken leave.
    fn finish(&self, load: &mut Load, outcome: &Outcome) -> Result<()> {
        while outcome.finished && !load.finished()? {
            self.pause(Duration::from_millis(50))?;
        }
        Ok(())
    }

    /// Begins to write transactions at the spec's rate for a while; also says how many, and when.
    fn load(&mut self, time: Duration) -> Result<(Load, u64, Mark)> {
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
        let from = Mark::now(&self.bed);
        Ok((Load::start(&self.bed.source, DATABASE, lines, pause)?, count, from))
    }

    fn idle(&mut self) -> Result<Outcome> {
        self.begin_link();
        self.pause(SETTLE)?;
        self.say("idle");
        self.watch(Mark::now(&self.bed), &Until::Time(self.spec.seconds))
    }

    /// Both servers have the same clock here.
    fn latency(&self) -> Result<Option<Latency>> {
        let committed = times(&self.bed.source, COMMITTED)?;
        let arrived = times(&self.bed.target, ARRIVED)?;
        Ok(Latency::of(committed.iter().zip(arrived).map(|(from, to)| to - from).collect()))
    }

    fn watch(&mut self, from: Mark, until: &Until<'_>) -> Result<Outcome> {
        let planned = self.spec.scenario.disturbance;
        let disturbance = Disturbance {
            cut_every: self.spec.cut_every.or(planned.cut_every),
            readdress_every: planned.readdress_every.or(self.spec.link.readdress),
            ..planned
        };
        self.watch_with(disturbance, from, until)
    }

    fn watch_with(
        &mut self,
        disturbance: Disturbance,
        from: Mark,
        until: &Until<'_>,
    ) -> Result<Outcome> {
        let watch = Watch {
            bed: &mut self.bed,
            contender: self.contender.as_mut(),
            disturbance,
            patience: self.spec.patience,
            stop: self.stop,
            progress: self.progress,
            from,
        };
        let (outcome, ended) = watch.until(until)?;
        self.ended = ended;
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
const LAST_OF_BACKLOG: &str = "insert into beacon values (0) returning pg_current_wal_insert_lsn()";
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
