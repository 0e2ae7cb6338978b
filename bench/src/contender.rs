//! What a replicator must let us do to it, so that each is measured in the same way.

use anyhow::Result;

pub(crate) mod bed;
pub(crate) mod native;
pub(crate) mod pglogical;
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
    fn has_copied(&self, _bed: &Bed) -> Result<bool> {
        Ok(true)
    }

    /// Whether all that was committed is where it will be applied, as far as it has such a place.
    fn has_shipped(&self, _bed: &Bed) -> Result<bool> {
        Ok(true)
    }

    /// Makes it capture nothing more, or apply nothing more: all of it, where its parts are one.
    fn hold(&mut self, bed: &Bed, _part: Part) -> Result<()> {
        self.part(bed)
    }

    /// Ends that.
    fn release(&mut self, bed: &Bed, _part: Part) -> Result<()> {
        self.meet(bed)
    }

    /// Gives it the chance to part in order before an outage that is only there to collect a
    /// backlog.
    fn part(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    /// Tells it that this outage is over.
    fn meet(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    /// What happens to it when a middlebox forgets its connections.
    fn disconnect(&mut self, bed: &mut Bed) -> Result<()>;

    /// The nearer end has another address.
    fn readdressed(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    /// Fails if it has ended by itself before its work was done. Who lives in the servers does not.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    /// What it said last, for whoever asks why it failed.
    fn log(&self, bed: &Bed) -> String {
        format!("source:\n{}\ntarget:\n{}", bed.source.log_tail(), bed.target.log_tail())
    }
}
