//! The wish of somebody outside that a run should end, and clean up behind itself.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

/// Set from outside to end a run early; everything is cleaned up then.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Asks for the end.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.asked() {
            bail!("interrupted");
        }
        Ok(())
    }
}
