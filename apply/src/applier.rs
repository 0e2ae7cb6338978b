//! The applier of one received stream: what the program holds and talks to.

mod batch;
mod runner;
mod skip;
mod source;
mod unit;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use thinwire_engine::{
    journal::Stream,
    model::{Offset, Origin},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{
    Conflicts, Existing, OriginDiffers, Postgres, Seal, Sink, Skipped, Tables, Target,
    conflict::ConflictCounts, postgres::Tally,
};
use runner::Runner;
pub use skip::Outcome;
use skip::Standing;

/// What a stream is applied to, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database.
    pub target: Target,
    /// The same database with the login that changes its schema, if that is another.
    pub owner: Option<Target>,
    /// The tables that it may write to.
    pub tables: Tables,
    /// The received stream.
    pub stream: Arc<Stream>,
    /// Who we are: copies name whom they are for.
    pub node: Origin,
    /// What tells how far it was applied by us from what others write there.
    pub seal: Seal,
    /// What to do when a row is not what a change expects.
    pub conflicts: Conflicts,
    /// What to do when somebody else changed a row last that is to be changed.
    pub update_origin_differs: OriginDiffers,
    /// The same of a row that is to be removed.
    pub delete_origin_differs: OriginDiffers,
    /// What to do with rows that a copied table has already.
    pub existing: Existing,
    /// Whether others than received streams write to the tables, as where the node captures as well: then a
    /// copy that comes again removes rows only if `existing` says so.
    pub is_shared: bool,
}

/// Applies a stream, in a task of its own, until it is shut down. Dropping it shuts it down without waiting.
#[derive(Debug)]
pub struct Applier {
    shared: Arc<Shared>,
    control: watch::Sender<Control>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What an applier is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// It is reaching the target and asking how far it is.
    #[default]
    Connecting,
    /// It applies.
    Applying,
    /// All that is complete in the journal is applied.
    Idle,
    /// The target is away or busy; it tries again by itself.
    Waiting,
    /// A record cannot be taken, see [`Stream::halted`]; it tries again by itself, ever less often.
    Halted,
    /// It was told to pause.
    Paused,
    /// It was shut down.
    Stopped,
}

/// How an applier is doing.
#[derive(Clone, Debug, Default)]
pub struct ApplierStatus {
    /// What it is doing.
    pub state: State,
    /// The last thing that went wrong, as a sentence; none once records were applied after it.
    pub last_error: Option<String>,
    /// Source transactions and copies applied since it was started.
    pub transactions: u64,
    /// Row changes applied since it was started.
    pub rows: u64,
    /// How often a change was refused since it was started, each try counted, but for weather.
    pub apply_errors: u64,
    /// The same of copies.
    pub copy_errors: u64,
    /// Conflicts since it was started.
    pub conflicts: ConflictCounts,
    /// What was left out on somebody's decision, ever; none before the target was asked.
    pub skipped: Option<Skipped>,
}

/// What the task is told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Control {
    pub(crate) paused: bool,
    pub(crate) stop: bool,
    /// Whether the target is left to others while there is nothing to do.
    pub(crate) yields: bool,
    pub(crate) retries: u64,
}

/// What the task tells.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<(State, Option<String>)>,
    transactions: AtomicU64,
    rows: AtomicU64,
    apply_errors: AtomicU64,
    copy_errors: AtomicU64,
    tally: Arc<Tally>,
    standing: Mutex<Standing>,
}

impl Applier {
    /// Starts to apply a stream to a database.
    pub fn start(options: Options) -> Self {
        let shared = Arc::new(Shared::default());
        let (stream, node) = (options.stream.clone(), options.node);
        // A row has the time of its target transaction: where times are compared, that is one source transaction's.
        let compares = [options.update_origin_differs, options.delete_origin_differs]
            .contains(&OriginDiffers::LastUpdateWins);
        let sink = Postgres::new(options, shared.tally.clone());
        Self::spawn(Runner::new(sink, stream, node, shared.clone()).one_by_one(compares), shared)
    }

    /// Starts to apply a stream to a sink of your own.
    pub fn with_sink(sink: impl Sink, stream: Arc<Stream>, node: Origin) -> Self {
        let shared = Arc::<Shared>::default();
        Self::spawn(Runner::new(sink, stream, node, shared.clone()), shared)
    }

    fn spawn(runner: Runner<impl Sink>, shared: Arc<Shared>) -> Self {
        let (control, told) = watch::channel(Control::default());
        let task = tokio::spawn(runner.run(told));
        Self { shared, control, task: Mutex::new(Some(task)) }
    }

    /// How it is doing.
    pub fn status(&self) -> ApplierStatus {
        let (state, last_error) = self.shared.lock().clone();
        ApplierStatus {
            state,
            last_error,
            transactions: self.shared.transactions.load(Ordering::Relaxed),
            rows: self.shared.rows.load(Ordering::Relaxed),
            apply_errors: self.shared.apply_errors.load(Ordering::Relaxed),
            copy_errors: self.shared.copy_errors.load(Ordering::Relaxed),
            conflicts: self.shared.tally.conflicts.clone(),
            skipped: self.shared.tally.skipped.get(),
        }
    }

    /// Tries again at once, if it is halted or waiting.
    pub fn retry(&self) {
        self.control.send_modify(|control| control.retries += 1);
    }

    /// Leaves out the transaction or copy that has halted the stream at `offset`, as `by` has decided. Nothing else is ever
    /// left out, and this only once.
    ///
    /// # Errors
    /// A sentence, if the stream is not halted there.
    pub fn skip(&self, offset: Offset, by: String) -> Result<Outcome, String> {
        let outcome = self.shared.standing().ask(offset, by)?;
        self.retry();
        Ok(outcome)
    }

    /// Leaves the target to another stream of the same origin whenever there is nothing to do: only one of them can have it
    /// at a time.
    pub fn share_target(&self) {
        self.control.send_modify(|control| control.yields = true);
    }

    /// Applies nothing more, once the open target transaction is over, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.control.send_modify(|control| control.paused = true);
    }

    /// Goes on.
    pub fn resume(&self) {
        self.control.send_modify(|control| control.paused = false);
    }

    /// Commits or undoes the open target transaction and ends. A target that does not answer is left within two seconds;
    /// what became of a commit then is found out at the next start.
    pub async fn shutdown(&self) {
        self.control.send_modify(|control| control.stop = true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && timeout(SHUTDOWN, &mut task).await.is_err()
        {
            task.abort();
            let _ = task.await;
        }
        self.shared.lock().0 = State::Stopped;
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, (State, Option<String>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, state: State) {
        self.lock().0 = state;
    }

    fn failed(&self, state: State, error: String) {
        *self.lock() = (state, Some(error));
    }

    fn refused(&self, copy: bool) {
        let errors = if copy { &self.copy_errors } else { &self.apply_errors };
        errors.fetch_add(1, Ordering::Relaxed);
    }

    fn applied(&self, transactions: u64, rows: u64) {
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.lock().1 = None;
    }
}

/// Within the five seconds that the whole program has to end.
const SHUTDOWN: Duration = Duration::from_secs(2);
