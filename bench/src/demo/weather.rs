//! What happens to the link and to the sidecars, and when.

use std::time::Duration;

use anyhow::Result;

use super::view::View;
use crate::demo::stage::Stage;

/// A plan that is being carried out.
#[derive(Debug)]
pub(super) struct Weather {
    to_come: std::slice::Iter<'static, (u64, Event)>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Cut,
    Restore,
    KillTarget,
    StartTarget,
    KillSource,
    StartSource,
}

impl Weather {
    pub(super) fn new() -> Weather {
        Weather { to_come: PLAN.iter() }
    }

    pub(super) fn is_over(&self) -> bool {
        self.to_come.len() == 0
    }

    /// Does what is due.
    pub(super) fn pass(&mut self, elapsed: Duration, stage: &mut Stage, view: &View) -> Result<()> {
        while let Some(&(second, event)) = self.to_come.as_slice().first() {
            if elapsed < Duration::from_secs(second) {
                break;
            }
            self.to_come.next();
            view.event(&format!("{second:>3} s  {}", event.words()));
            event.happen(stage)?;
        }
        Ok(())
    }
}

impl Event {
    fn happen(self, stage: &mut Stage) -> Result<()> {
        match self {
            Event::Cut => stage.proxy.cut(),
            Event::Restore => stage.proxy.restore(),
            Event::KillTarget => stage.hq().kill9()?,
            Event::StartTarget => stage.hq().start()?,
            Event::KillSource => stage.shop().kill9()?,
            Event::StartSource => stage.shop().start()?,
        }
        Ok(())
    }

    fn words(self) -> &'static str {
        match self {
            Event::Cut => "the link is cut",
            Event::Restore => "the link is back",
            Event::KillTarget => "kill -9 of the target's sidecar",
            Event::StartTarget => "the target's sidecar starts again",
            Event::KillSource => "kill -9 of the source's sidecar",
            Event::StartSource => "the source's sidecar starts again",
        }
    }
}

/// Seconds since the sidecars were started. The first cut falls into the first copy.
const PLAN: [(u64, Event); 10] = [
    (4, Event::Cut),
    (9, Event::Restore),
    (18, Event::KillTarget),
    (21, Event::StartTarget),
    (28, Event::Cut),
    (38, Event::Restore),
    (43, Event::KillSource),
    (45, Event::StartSource),
    (49, Event::Cut),
    (53, Event::Restore),
];
