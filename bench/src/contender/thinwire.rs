//! Thinwire as a contender: two sidecars, the nearer one dials.

use std::sync::Arc;

use anyhow::Result;

use crate::contender::bed::{Bed, DATABASE};
use crate::contender::{Contender, Part};
use crate::node::{self, Node};

#[derive(Debug)]
pub(crate) struct Thinwire {
    near: Node,
    far: Node,
}

impl Thinwire {
    /// Both have their identity, know each other, and have prepared their databases. What else they are to say of each
    /// other is given as lines of TOML.
    pub(crate) fn new(bed: &Bed, peer: &str) -> Result<Thinwire> {
        let node = |name| Node::new(bed.folder.path(), name, Arc::clone(&bed.warden));
        let (near, far) = (node("near")?, node("far")?);
        let (source, target) = (bed.source.url(DATABASE), bed.target.url(DATABASE));
        let (listen, dial) = (bed.emulator.listen(), bed.emulator.dial());
        node::introduce((&near, &source), (&far, &target), listen, dial, peer)?;
        Ok(Thinwire { near, far })
    }
}

impl Thinwire {
    /// Tells the node that does this part with the source's stream to pause or resume it.
    fn tell(&self, verb: &str, part: Part) -> Result<()> {
        let node = if part == Part::Capture { &self.near } else { &self.far };
        node.run(&[verb, "--stream", self.near.name()]).map(drop)
    }
}

impl Contender for Thinwire {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&mut self, bed: &Bed) -> Result<()> {
        bed.emulator.far(|| self.far.start())?;
        bed.emulator.near(|| self.near.start())
    }

    fn has_shipped(&self, _bed: &Bed) -> Result<bool> {
        let status = self.near.status()?;
        Ok(status.is_some_and(|status| status.pending_records() == 0))
    }

    fn hold(&mut self, _bed: &Bed, part: Part) -> Result<()> {
        self.tell("pause", part)
    }

    fn release(&mut self, _bed: &Bed, part: Part) -> Result<()> {
        self.tell("resume", part)
    }

    /// For a middlebox, its connection is an address.
    fn disconnect(&mut self, bed: &mut Bed) -> Result<()> {
        bed.emulator.readdress()
    }

    fn check(&mut self) -> Result<()> {
        self.near.check()?;
        self.far.check()
    }

    fn log(&self, _bed: &Bed) -> String {
        [&self.near, &self.far].map(|node| format!("{}:\n{}", node.name(), node.log())).join("\n")
    }
}

pub(crate) const NAME: &str = "thinwire";
