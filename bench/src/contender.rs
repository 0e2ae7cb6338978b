//! What a replicator must let us do to it, so that each is measured in the same way.

use anyhow::Result;

pub(crate) mod bed;
pub(crate) mod native;
pub(crate) mod recvlogical;
pub(crate) mod thinwire;

use bed::Bed;

/// What can be held while the rest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Capture,
    Apply,
}

/// A replicator between the two databases of a bed.
pub(crate) trait Contender {
    /// What it is called in reports.
    fn name(&self) -> &'static str;

    /// Starts it; its first copy begins.
    fn start(&mut self, bed: &Bed) -> Result<()>;

    /// Whether, beyond the rows, its own books say that the first copy is over.
    fn has_copied(&self, bed: &Bed) -> Result<bool>;

    /// Whether all that was committed is where it will be applied, as far as it has such a place.
    fn has_shipped(&self, bed: &Bed) -> Result<bool>;

    /// Makes it capture nothing more, or apply nothing more.
    fn hold(&mut self, bed: &Bed, part: Part) -> Result<()>;

    /// Ends that.
    fn release(&mut self, bed: &Bed, part: Part) -> Result<()>;

    /// Gives it the chance to part in order before an outage that is only there to collect a
    /// backlog.
    fn part(&mut self, bed: &Bed) -> Result<()>;

    /// Tells it that this outage is over.
    fn meet(&mut self, bed: &Bed) -> Result<()>;

    /// What happens to it when a middlebox forgets its connections.
    fn disconnect(&mut self, bed: &mut Bed) -> Result<()>;

    /// The nearer end has another address.
    fn readdressed(&mut self, bed: &Bed) -> Result<()>;

    /// Fails if it has ended by itself.
    fn check(&mut self) -> Result<()>;

    /// What it said last, for whoever asks why it failed.
    fn log(&self, bed: &Bed) -> String;
}
