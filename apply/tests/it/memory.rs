//! A sink in memory that keeps its promises, checks that it is used as promised, and fails as it is told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
};

use thinwire_apply::{Change, Progress, Sink, SinkError, Skip};
use thinwire_engine::model::{Halt, Offset, Record, StreamId};

/// What survives the sink's sessions.
#[derive(Default)]
pub struct Target {
    /// Everything that was committed.
    pub log: Vec<(Offset, Record)>,
    pub progress: Progress,
    pub commits: u64,
    /// How many calls failed as they were told.
    pub faults: u64,
    /// What was left out, whether or not that was committed.
    pub skipped: Vec<Skip>,
    /// Records that are refused; with others around them, only when they are committed.
    pub refused: BTreeSet<Offset>,
    /// Records that are taken only alone, and nobody says which they are.
    pub cautious: BTreeSet<Offset>,
}

/// When a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Before it has done anything.
    Before,
    /// When it has done all, but cannot say so.
    After,
    /// Never, and it does not succeed either.
    Silence,
}

/// A session of it.
pub struct Memory {
    target: Arc<Mutex<Target>>,
    fault: Box<dyn FnMut(&'static str) -> Option<Fault> + Send>,
    open: Option<Vec<(Offset, Record)>>,
    asked: bool,
}

impl Memory {
    pub fn new(
        target: &Arc<Mutex<Target>>,
        fault: impl FnMut(&'static str) -> Option<Fault> + Send + 'static,
    ) -> Self {
        Self { target: target.clone(), fault: Box::new(fault), open: None, asked: false }
    }

    pub fn reliable(target: &Arc<Mutex<Target>>) -> Self {
        Self::new(target, |_| None)
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap()
    }

    async fn fails(
        &mut self,
        call: &'static str,
        work: impl FnOnce(&mut Self) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let fault = (self.fault)(call);
        if fault == Some(Fault::Silence) {
            std::future::pending::<()>().await;
        }
        if fault == Some(Fault::Before) {
            self.target().faults += 1;
            self.asked = false;
            return Err(SinkError::Weather("failed before".into()));
        }
        let done = work(self);
        if done.is_err() {
            self.asked = false;
        }
        if fault == Some(Fault::After) {
            self.target().faults += 1;
            self.asked = false;
            return Err(SinkError::Weather("failed after".into()));
        }
        done
    }

    fn refusal(&self, (offset, _): &(Offset, Record)) -> Option<SinkError> {
        let refused = self.target().refused.contains(offset);
        let halt = || Halt { offset: Some(*offset), ..Halt::new("constraint", "refused") };
        refused.then(|| SinkError::Refused(Box::new(halt())))
    }
}

impl Sink for Memory {
    async fn applied(&mut self, _: StreamId) -> Result<Progress, SinkError> {
        self.open = None;
        self.fails("applied", |_| Ok(())).await?;
        self.asked = true;
        Ok(self.target().progress)
    }

    async fn begin(&mut self) -> Result<(), SinkError> {
        assert!(self.asked, "began without asking how far we are");
        self.fails("begin", |sink| {
            assert!(sink.open.is_none());
            sink.open = Some(Vec::new());
            Ok(())
        })
        .await
    }

    async fn take(&mut self, change: Change<'_>) -> Result<(), SinkError> {
        assert!(self.asked, "went on after a failure");
        let (taken, alone) = ((change.offset, change.record), change.alone);
        self.fails("take", |sink| {
            let applied = sink.target().progress.offset;
            let open = sink.open.as_mut().expect("began");
            let last = open.last().map_or(applied, |(offset, _)| *offset);
            assert!(taken.0 > last, "{} after {last}", taken.0);
            open.push(taken.clone());
            if !alone && sink.target().cautious.contains(&taken.0) {
                return Err(SinkError::Refused(Box::new(Halt::new("constraint", "together"))));
            }
            match sink.refusal(&taken).filter(|_| alone) {
                Some(refusal) => Err(refusal),
                None => Ok(()),
            }
        })
        .await
    }

    async fn skip(&mut self, skip: &Skip) -> Result<(), SinkError> {
        self.fails("skip", |sink| {
            assert!(sink.open.is_some());
            sink.target().skipped.push(skip.clone());
            Ok(())
        })
        .await
    }

    async fn commit(&mut self, progress: Progress) -> Result<(), SinkError> {
        assert!(self.asked, "went on after a failure");
        self.fails("commit", |sink| {
            let open = sink.open.take().expect("began");
            if let Some(refusal) = open.iter().find_map(|taken| sink.refusal(taken)) {
                return Err(refusal);
            }
            let mut target = sink.target();
            assert!(progress.offset > target.progress.offset);
            assert!(open.iter().all(|(offset, _)| *offset <= progress.offset));
            target.log.extend(open);
            target.progress = progress;
            target.commits += 1;
            Ok(())
        })
        .await
    }

    async fn rollback(&mut self) -> Result<(), SinkError> {
        self.fails("rollback", |sink| {
            sink.open = None;
            Ok(())
        })
        .await
    }
}
