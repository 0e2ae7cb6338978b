//! Sealing what is idle: a word behind the last batches that all of them are durable, which nothing else says, so that
//! damage to them is told from a torn end.

use super::{super::group::Staged, Stream, Writer};
use crate::Error;

impl Stream {
    /// Whether the last segment says itself that all that it holds is durable.
    pub fn is_sealed(&self) -> bool {
        self.state().is_sealed
    }

    /// Has the last segment say that all that it holds is durable, if it does not yet; with one small write and one
    /// fdatasync. Does nothing while anything else waits for the disk. It takes no offset, is not shipped, and wakes
    /// nobody who [watches](Self::watch). Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`] leaves the stream as it was. Any other failure poisons it, as that of a [sync](Self::sync).
    pub fn seal(&self) -> Result<(), Error> {
        let Ok(mut writer) = self.writer.try_lock() else {
            return Ok(());
        };
        let sealed = self.write_seal(&mut writer);
        self.let_go(writer);
        sealed
    }

    fn write_seal(&self, writer: &mut Writer) -> Result<(), Error> {
        let seal = {
            let state = self.state();
            self.check(&state)?;
            if state.is_sealed || !state.staged.is_empty() {
                return Ok(());
            }
            Staged::sealing(state.start(), state.tail.mark_again())
        };
        let grown = self.write(writer, &seal).inspect_err(|error| {
            if !matches!(error, Error::NoSpace { .. }) {
                self.poison();
            }
        })?;
        self.budget.force(self.id, grown);
        let mut state = self.state();
        state.is_sealed = true;
        if let Some((_, bytes)) = state.segments.last_mut() {
            *bytes += grown;
        }
        self.marks.send_if_modified(|marks| {
            marks.bytes += grown;
            false
        });
        Ok(())
    }
}
