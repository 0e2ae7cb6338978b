//! Definitions to steps: what has to be done here so that an object is what its source says of it. Pure.
//!
//! Three things are compared: what this stream told of an object before, what it tells now, and what the object is here.
//! A step is taken for what differs between the first two, unless it is so here already: so what somebody has done by
//! hand is not done again, what is different here on purpose stays so, and telling the same twice changes nothing.
//!
//! An object that is here and was never told of is *adopted*: it keeps what it has. Of a table whose change is told, columns
//! that are missing are added, unless it also has columns that the source has not: one may be the other under a new name,
//! and nobody but its owner knows.

mod plain;
pub(crate) mod step;
mod table;

use std::collections::BTreeMap;

use thinwire_engine::model::{Body, Definitions, Dropped, Kind, Object, Sequence, Table};

use crate::tables::is_reserved as is_reserved_schema;
pub(crate) use step::{Alter, Named, Step};
pub(crate) use table::{completed, freed};

/// When something is told of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// They have changed.
    Change,
    /// Their rows are copied.
    Copy,
}

/// What an object is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    /// It is not here.
    Nothing,
    /// It is.
    Something,
    /// An enumerated type with these labels.
    Enum(Vec<String>),
    /// A table. Its columns are numbered as they are here.
    Table(Box<Table>),
}

/// Why an object cannot be made what it should be, as a sentence with its cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit(pub(crate) String);

/// Objects as a stream told of them, by what keeps their name's changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(BTreeMap<(Kind, u32), Object>);

impl Known {
    pub(crate) fn insert(&mut self, object: Object) {
        self.0.insert((object.body.kind(), object.id), object);
    }

    pub(crate) fn remove(&mut self, kind: Kind, id: u32) -> Option<Object> {
        self.0.remove(&(kind, id))
    }

    pub(crate) fn get(&self, kind: Kind, id: u32) -> Option<&Object> {
        self.0.get(&(kind, id))
    }

    /// What an object that is gone was told to be: a type that is gone is only known to have been a type.
    pub(crate) fn kind_of(&self, gone: &Dropped) -> Option<Kind> {
        let kinds: &[Kind] = match &gone.kind {
            Kind::Composite => &[Kind::Composite, Kind::Enum, Kind::Range],
            kind => std::slice::from_ref(kind),
        };
        kinds.iter().copied().find(|kind| self.get(*kind, gone.id).is_some())
    }

    /// The sequences of a table's identity columns, with their columns' numbers.
    pub(crate) fn identities(&self, table: u32) -> Vec<(i16, &Object)> {
        let all = self.0.values().filter_map(|object| identity_of(object).map(|it| (it, object)));
        all.filter(|((id, _), _)| *id == table)
            .map(|((_, number), object)| (number, object))
            .collect()
    }
}

/// The ids of the objects that a message is about, and of those to which they belong.
pub(crate) fn ids(definitions: &Definitions) -> Vec<u32> {
    let told = definitions.objects.iter().flat_map(|object| {
        let table = match &object.body {
            Body::Sequence(sequence) => sequence.owned_by.map(|(table, _)| table),
            _ => None,
        };
        [Some(object.id), table].into_iter().flatten()
    });
    let mut ids: Vec<_> = told.chain(definitions.dropped.iter().map(|gone| gone.id)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Whether an object is one of PostgreSQL's or ours: no stream may tell what those are.
pub(crate) fn is_reserved(object: &Object) -> bool {
    let name = if object.body.kind() == Kind::Schema { &object.name } else { &object.schema };
    is_reserved_schema(name)
}

/// Brings an object under the name that it has at the source.
pub(crate) fn renamed<'a>(known: &'a Object, told: &'a Object) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    if known.schema != told.schema {
        steps.push(Step::Move { object: Named::of(known), to: &told.schema });
    }
    if known.name != told.name {
        let object = Named { schema: &told.schema, ..Named::of(known) };
        steps.push(Step::Rename { object, to: &told.name });
    }
    steps
}

/// What makes an object what it is told to be, but for what [`completed`] and [`late`] do. It has the name that it is told
/// to have, if it is here.
pub(crate) fn shaped<'a>(
    occasion: Occasion,
    known: Option<&'a Object>,
    told: &'a Object,
    here: &Here,
    identities: &[(i16, &'a Object)],
) -> Result<Vec<Step<'a>>, Misfit> {
    if *here == Here::Nothing {
        let lost = matches!(told.body, Body::Table(_)) && known.is_some();
        return match (lost, occasion) {
            (true, Occasion::Change) if known == Some(told) => Ok(Vec::new()),
            (true, Occasion::Change) => Err(Misfit("the table is not here any more".to_owned())),
            _ => Ok(created(told, identities)),
        };
    }
    if occasion == Occasion::Copy && known.is_none() {
        return Ok(Vec::new());
    }
    let mut steps = match (&told.body, here) {
        (Body::Table(_), Here::Table(table)) => table::shaped(known, told, table, identities)?,
        (Body::Table(_), _) => {
            return Err(Misfit("what has this name here is not a table".to_owned()));
        }
        (Body::Enum { labels }, Here::Enum(held)) => plain::labels(known, told, labels, held),
        _ => plain::changed(known, told),
    };
    steps.extend(attributes(known, told));
    if matches!(told.body, Body::Routine { .. }) && !steps.is_empty() {
        steps.push(Step::Disarm(told));
    }
    Ok(steps)
}

/// What can only be done when all objects of a message are there.
pub(crate) fn late<'a>(
    known: Option<&Object>,
    told: &'a Object,
    owner: Option<&'a Object>,
) -> Vec<Step<'a>> {
    let Body::Sequence(sequence) = &told.body else { return Vec::new() };
    let mut steps = Vec::new();
    let before = known.and_then(|known| match &known.body {
        Body::Sequence(sequence) => sequence.owned_by,
        _ => None,
    });
    if !sequence.identity && sequence.owned_by != before {
        let column = sequence.owned_by.and_then(|(_, number)| column(owner?, number));
        steps.push(Step::Belongs { sequence: told, to: owner.zip(column) });
    }
    if let Some(value) = sequence.value.filter(|at| (sequence.min..=sequence.max).contains(at)) {
        steps.push(Step::Value { sequence: told, value, falls: sequence.increment < 0 });
    }
    steps
}

/// The objects that are gone, in groups that can be dropped together, in an order in which they can be dropped.
pub(crate) fn drops<'a>(known: &'a Known, gone: &[Dropped]) -> Vec<Step<'a>> {
    let object = |gone: &Dropped| known.get(known.kind_of(gone)?, gone.id);
    let objects: Vec<_> = gone.iter().filter_map(object).collect();
    let materialized =
        |object: &Object| matches!(object.body, Body::View { materialized: true, .. });
    let mut steps = Vec::new();
    for (kind, stored) in DROP_ORDER {
        let these =
            objects.iter().filter(|it| it.body.kind() == kind && materialized(it) == stored);
        let named: Vec<_> = these.map(|object| Named::of(object)).collect();
        if !named.is_empty() {
            steps.push(Step::Drop(named));
        }
    }
    steps
}

/// Whether it is a sequence of a table that was not told of: it comes with that.
pub(crate) fn awaits_table(object: &Object, known: &Known, definitions: &Definitions) -> bool {
    let Body::Sequence(Sequence { owned_by: Some((table, _)), .. }) = object.body else {
        return false;
    };
    let told = |it: &Object| it.id == table && it.body.kind() == Kind::Table;
    known.get(Kind::Table, table).is_none() && !definitions.objects.iter().any(told)
}

/// Whether the column of a sequence makes it.
pub(crate) fn identity_of(object: &Object) -> Option<(u32, i16)> {
    match &object.body {
        Body::Sequence(sequence) if sequence.identity => sequence.owned_by,
        _ => None,
    }
}

fn created<'a>(told: &'a Object, identities: &[(i16, &'a Object)]) -> Vec<Step<'a>> {
    let mut steps = match &told.body {
        // Its column makes it.
        Body::Sequence(sequence) if sequence.identity => return Vec::new(),
        Body::View { .. } | Body::Routine { .. } => vec![Step::Replace(told)],
        _ => vec![Step::Create { object: told, identities: identities.to_vec() }],
    };
    steps.push(Step::Grant(told));
    steps.push(Step::Own(told));
    if matches!(told.body, Body::Routine { .. }) {
        steps.push(Step::Disarm(told));
    }
    if told.comment.is_some() {
        steps.push(Step::Comment(told));
    }
    steps
}

/// Owner and comment, which are not looked up: both are set again to what they may be.
fn attributes<'a>(known: Option<&Object>, told: &'a Object) -> Vec<Step<'a>> {
    let Some(known) = known else { return Vec::new() };
    let mut steps = Vec::new();
    if known.owner != told.owner && identity_of(told).is_none() {
        steps.push(Step::Own(told));
    }
    if known.comment != told.comment {
        steps.push(Step::Comment(told));
    }
    steps
}

fn column(table: &Object, number: i16) -> Option<&str> {
    let Body::Table(table) = &table.body else { return None };
    table.columns.iter().find(|column| column.number == number).map(|column| &*column.name)
}

/// What may depend on others comes first. With views, whether their rows are stored.
const DROP_ORDER: [(Kind, bool); 10] = [
    (Kind::View, true),
    (Kind::View, false),
    (Kind::Table, false),
    (Kind::Routine, false),
    (Kind::Sequence, false),
    (Kind::Composite, false),
    (Kind::Domain, false),
    (Kind::Range, false),
    (Kind::Enum, false),
    (Kind::Schema, false),
];

#[cfg(test)]
mod tests;
