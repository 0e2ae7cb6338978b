//! Which tables have missed changes, journaled: another life of the node has to know it too.

use std::collections::BTreeSet;

use thinwire_engine::model::{Definitions, Record, RelationId, Schema};

use super::{Runner, Trouble, check_writable};

impl Runner {
    /// Has these tables copied again, between two sessions.
    pub(super) async fn leave(&mut self, tables: &BTreeSet<RelationId>) -> Result<(), Trouble> {
        let stream = self.options.stream.clone();
        let copied = stream.tail().copied;
        if copied.is_disjoint(tables) {
            return Ok(());
        }
        check_writable(&stream)?;
        let mut appender = self.appender().await?;
        if stream.tail().open.is_some() {
            // The source sends it again from its beginning.
            appender.push(&Record::Abort);
        }
        appender.push(&missed(&copied, tables));
        appender.flush().await?;
        Ok(())
    }
}

/// What says that those of the copied tables do not count as copied any more.
pub(super) fn missed(copied: &BTreeSet<RelationId>, tables: &BTreeSet<RelationId>) -> Record {
    let stale = copied.intersection(tables).copied().collect();
    let definitions = Definitions::default().encode();
    Record::Schema(Schema { born: vec![], stale, definitions })
}
