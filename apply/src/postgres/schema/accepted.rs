//! Which tables a record may touch. A partition is what it is part of, here if it is here, else as it is told; what a table
//! was called before, and what it becomes part of, are touched with it.

use thinwire_engine::model::{Body, Definitions, Dropped, Kind, Object, Table};
use tracing::warn;

use super::{super::lookup::root, Work};
use crate::{SinkError, schema::Known};

impl Work {
    /// Refuses a record that tells of tables that streams may not write to.
    pub(super) async fn accept(
        &self,
        definitions: &Definitions,
        known: &Known,
    ) -> Result<(), SinkError> {
        for (told, table) in tables(definitions) {
            let inherited = table.inherits.iter().map(|(schema, name)| [&**schema, &**name]);
            for other in inherited.chain([told_root(told, table, definitions)]) {
                let found = root(&self.client, other).await?;
                let found = found.as_ref().map_or(other, |found| found.each_ref().map(|it| &**it));
                self.accept_as(told, found)?;
            }
            let was = known.get(Kind::Table, told.id);
            for object in was.into_iter().chain([told]) {
                if let Some(found) = root(&self.client, name(object)).await? {
                    self.accept_as(object, found.each_ref().map(|it| &**it))?;
                }
            }
        }
        Ok(())
    }

    /// What of that which is gone at the source may go here: not the tables that streams may not write to, nor their sequences.
    pub(super) async fn droppable(
        &self,
        known: &Known,
        definitions: &Definitions,
    ) -> Result<Vec<Dropped>, SinkError> {
        let (mut dropped, mut left) = (definitions.dropped.clone(), Vec::new());
        for gone in definitions.dropped.iter().filter(|gone| gone.kind == Kind::Table) {
            let Some(table) = known.get(Kind::Table, gone.id) else { continue };
            let found = root(&self.client, name(table)).await?;
            if found.is_some_and(|[schema, name]| !self.accepted.has(&schema, &name)) {
                warn!(
                    stream = %self.stream, schema = table.schema, name = table.name,
                    "a table is gone at the source that streams may not write to here; it is left alone"
                );
                left.push(gone.id);
            }
        }
        dropped.retain(|gone| {
            let table = match (gone.kind, known.get(gone.kind, gone.id).map(|it| &it.body)) {
                (Kind::Table, _) => Some(gone.id),
                (_, Some(Body::Sequence(sequence))) => sequence.owned_by.map(|(table, _)| table),
                _ => None,
            };
            table.is_none_or(|table| !left.contains(&table))
        });
        Ok(dropped)
    }

    fn accept_as(&self, object: &Object, root: [&str; 2]) -> Result<(), SinkError> {
        self.accepted.accept(name(object), root, self.offset)
    }
}

fn tables(definitions: &Definitions) -> impl Iterator<Item = (&Object, &Table)> {
    definitions.objects.iter().filter_map(|object| match &object.body {
        Body::Table(table) => Some((object, table)),
        _ => None,
    })
}

fn name(object: &Object) -> [&str; 2] {
    [&object.schema, &object.name]
}

/// Of what a table is part, as far as that is told.
fn told_root<'a>(told: &'a Object, table: &'a Table, definitions: &'a Definitions) -> [&'a str; 2] {
    let (mut at, mut body) = (name(told), Some(table));
    // What is part of itself ends as well.
    for _ in 0..=definitions.objects.len() {
        let Some(of) = body.and_then(|table| table.partition_of.as_ref()) else { break };
        at = [&of.schema, &of.name];
        body = tables(definitions).find(|(object, _)| name(object) == at).map(|(_, table)| table);
    }
    at
}
