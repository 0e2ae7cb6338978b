//! Thinwire as a contender: two sidecars, the nearer one dials.

use std::sync::Arc;

use anyhow::Result;

use crate::bed::{Bed, DATABASE};
use crate::contender::Contender;
use crate::node::Node;

#[derive(Debug)]
pub(crate) struct Thinwire {
    near: Node,
    far: Node,
}

impl Thinwire {
    /// Both have their identity, know each other, and have prepared their databases.
    pub(crate) fn new(bed: &Bed) -> Result<Thinwire> {
        let node = |name| Node::new(bed.folder.path(), name, Arc::clone(&bed.warden));
        let (near, far) = (node("near")?, node("far")?);
        let near_text = format!(
            "[node]\nname = \"near\"\n\n[database]\nurl = \"{}\"\n\n\
             [capture]\nmode = \"slot\"\ntables = [\"public.*\"]\n",
            bed.source.url(DATABASE)
        );
        let far_text = format!(
            "[node]\nname = \"far\"\nlisten = \"{}\"\n\n[database]\nurl = \"{}\"\n\n[apply]\n",
            bed.emulator.listen(),
            bed.target.url(DATABASE)
        );
        for (node, text) in [(&near, &near_text), (&far, &far_text)] {
            node.configure(text)?;
            node.init()?;
        }
        near.configure(&format!(
            "{near_text}\n[[peer]]\nname = \"far\"\nkey = \"{}\"\naddress = \"{}\"\n",
            far.key()?,
            bed.emulator.dial()
        ))?;
        let peer = format!("\n[[peer]]\nname = \"near\"\nkey = \"{}\"\n", near.key()?);
        far.configure(&(far_text + &peer))?;
        Ok(Thinwire { near, far })
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

    fn has_copied(&self, _bed: &Bed) -> Result<bool> {
        Ok(true)
    }

    fn part(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    fn meet(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
    }

    /// For a middlebox, its connection is an address.
    fn disconnect(&mut self, bed: &mut Bed) -> Result<()> {
        bed.emulator.readdress()
    }

    fn readdressed(&mut self, _bed: &Bed) -> Result<()> {
        Ok(())
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
