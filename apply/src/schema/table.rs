//! Tables: columns by their number, constraints and indexes by their name.

use std::{borrow::Cow, collections::BTreeSet};

use thinwire_engine::model::{
    Body, Constraint, Generated, Index, Object, ReplicaIdentity, Table, TableColumn,
};

use super::{Alter, Misfit, Named, Step};

/// The columns of a table that is here, and of what it is part.
pub(super) fn shaped<'a>(
    known: Option<&'a Object>,
    told: &'a Object,
    here: &Table,
    identities: &[(i16, &'a Object)],
) -> Result<Vec<Step<'a>>, Misfit> {
    let Some(now) = table(told) else { return Ok(Vec::new()) };
    let alters = match known.and_then(table) {
        None => adopted(now, here, identities)?,
        Some(before) => changed(before, now, here, identities),
    };
    Ok(steps(Named::of(told), alters))
}

/// The references of a table that are gone. They go first: what they refer to may go as well.
pub(crate) fn freed<'a>(known: &'a Object, told: &'a Object) -> Vec<Step<'a>> {
    let (Some(before), Some(now)) = (table(known), table(told)) else { return Vec::new() };
    let renames = renames(before, now);
    let gone = before.constraints.iter().filter(|old| {
        let stays = by_name(&now.constraints, &old.name).is_some();
        old.foreign && !stays && renames.iter().all(|(from, _)| from.name != old.name)
    });
    let alters = gone.map(|old| Alter::DropConstraint(&old.name)).collect();
    steps(Named::of(known), alters)
}

/// Constraints, indexes and the replica identity of a table whose columns are as they are told to be, but for the defaults of
/// one that was made without.
pub(crate) fn completed<'a>(
    known: Option<&'a Object>,
    told: &'a Object,
    here: &Table,
) -> Vec<Step<'a>> {
    let Some(now) = table(told) else { return Vec::new() };
    let before = known.and_then(table);
    let mut alters = Vec::new();
    if before.is_none() {
        let lacks = |new: &&TableColumn| {
            let default = column(here, &new.name).and_then(|held| held.default.as_ref());
            new.generated.is_none() && new.default.is_some() && new.default.as_ref() != default
        };
        alters.extend(now.columns.iter().filter(lacks).map(Alter::Default));
    }
    alters.extend(constraints(before, now, here));
    alters.extend(indexes(before, now, here));
    let chosen = |table: &'a Table| (table.identity, &table.identity_index);
    let was = before.map_or((ReplicaIdentity::Default, &None), chosen);
    if was != chosen(now) && chosen(now) != (here.identity, &here.identity_index) {
        alters.push(Alter::Identity(now));
    }
    if before.is_none() {
        let commented = now.columns.iter().filter(|column| column.comment.is_some());
        alters.extend(commented.map(Alter::ColumnComment));
    }
    steps(Named::of(told), alters)
}

fn steps<'a>(table: Named<'a>, alters: Vec<Alter<'a>>) -> Vec<Step<'a>> {
    let step = |alter| Step::Alter { table: table.clone(), alter };
    alters.into_iter().map(step).collect()
}

fn adopted<'a>(
    now: &'a Table,
    here: &Table,
    identities: &[(i16, &'a Object)],
) -> Result<Vec<Alter<'a>>, Misfit> {
    let missing: Vec<_> =
        now.columns.iter().filter(|it| column(here, &it.name).is_none()).collect();
    let extra = here.columns.iter().find(|it| column(now, &it.name).is_none());
    match (missing.first(), extra) {
        (Some(missing), Some(extra)) => Err(Misfit(format!(
            "the table lacks the column {} and has {}, which the source has not; whether one is the other is not known: \
             rename or add it here",
            missing.name, extra.name
        ))),
        _ => Ok(missing.into_iter().flat_map(|column| added(column, identities)).collect()),
    }
}

fn changed<'a>(
    before: &'a Table,
    now: &'a Table,
    here: &Table,
    identities: &[(i16, &'a Object)],
) -> Vec<Alter<'a>> {
    let mut alters = left(before, now, here);
    alters.extend(dropped_constraints(before, now, here));
    let mut names: BTreeSet<&str> = here.columns.iter().map(|column| &*column.name).collect();
    let gone = before.columns.iter().filter(|old| by_number(now, old.number).is_none());
    for old in gone.filter(|old| column(here, &old.name).is_some()) {
        names.remove(&*old.name);
        alters.push(Alter::DropColumn(&old.name));
    }
    let kept = now.columns.iter().filter_map(|new| Some((by_number(before, new.number)?, new)));
    let kept: Vec<_> = kept.collect();
    let mut renames = Vec::new();
    for (old, new) in kept.iter().filter(|(old, new)| old.name != new.name) {
        // Done by hand already.
        if !names.contains(&*old.name) && names.contains(&*new.name) {
            continue;
        }
        renames.push((Cow::from(&*old.name), &*new.name));
    }
    for (from, _) in &renames {
        names.remove(&**from);
    }
    names.extend(renames.iter().map(|(_, to)| *to));
    alters.extend(in_turn(renames));
    for (old, new) in kept {
        let held = column(here, &old.name).or_else(|| column(here, &new.name));
        if let Some(held) = held {
            let is_whole = now.partition_key.is_some();
            alters.extend(recast(old, new, held, identities, is_whole));
        }
    }
    let new = now.columns.iter().filter(|new| by_number(before, new.number).is_none());
    for column in new.filter(|new| !names.contains(&*new.name)) {
        alters.extend(added(column, identities));
    }
    alters.extend(joined(before, now, here));
    alters
}

/// A column that is added: first with the value that the rows have which were there before it.
fn added<'a>(column: &'a TableColumn, identities: &[(i16, &'a Object)]) -> Vec<Alter<'a>> {
    let mut alters = vec![Alter::AddColumn { column, identity: identity(column, identities) }];
    if column.missing.is_some() && column.generated.is_none() {
        alters.push(Alter::Default(column));
    }
    if column.comment.is_some() {
        alters.push(Alter::ColumnComment(column));
    }
    alters
}

/// What differs in a column that stays, of a table that is partitioned or not.
fn recast<'a>(
    old: &TableColumn,
    new: &'a TableColumn,
    held: &TableColumn,
    identities: &[(i16, &'a Object)],
    is_whole: bool,
) -> Vec<Alter<'a>> {
    let mut alters = Vec::new();
    let form = |it: &TableColumn| (it.data_type.clone(), it.collation.clone());
    let mut default = held.default.clone().filter(|_| held.generated.is_none());
    if form(old) != form(new) && form(held) != form(new) {
        // A default of the old type may not fit.
        if default.take().is_some() {
            alters.push(Alter::NoDefault(&new.name));
        }
        alters.push(Alter::Type(new));
    }
    if old.not_null != new.not_null && held.not_null != new.not_null {
        alters.push(match new.not_null || is_whole {
            true => Alter::NotNull(new),
            false => Alter::Nullable(&new.name),
        });
    }
    let had_default = default.is_some();
    alters.extend(regenerated(old, new, held, had_default, identities));
    let plain = new.generated.is_none();
    let lost = held.default.is_some() && held.generated.is_none() && default.is_none();
    if plain
        && new.default != default
        && (new.default != old.default || lost || old.generated.is_some())
    {
        alters.push(Alter::Default(new));
    }
    if old.comment != new.comment && held.comment != new.comment {
        alters.push(Alter::ColumnComment(new));
    }
    alters
}

/// Who makes a column's values.
fn regenerated<'a>(
    old: &TableColumn,
    new: &'a TableColumn,
    held: &TableColumn,
    has_default: bool,
    identities: &[(i16, &'a Object)],
) -> Vec<Alter<'a>> {
    use Generated::{IdentityAlways, IdentityByDefault, Stored, Virtual};
    // A server that knows no virtual columns stores their values.
    let by_whom = |it: &TableColumn| it.generated.map(|it| if it == Virtual { Stored } else { it });
    let same = |one: &TableColumn| by_whom(one) == by_whom(new) && one.default == new.default;
    if same(old) || same(held) {
        return Vec::new();
    }
    match (held.generated, new.generated) {
        (Some(Stored | Virtual), Some(Stored | Virtual)) => vec![Alter::Expression(new)],
        (Some(Stored | Virtual), None) => vec![Alter::NoExpression(&new.name)],
        (Some(IdentityAlways | IdentityByDefault), None) => vec![Alter::NoIdentity(&new.name)],
        (None, Some(IdentityAlways | IdentityByDefault)) => {
            let mut alters = Vec::new();
            if has_default {
                alters.push(Alter::NoDefault(&new.name));
            }
            alters.push(Alter::AddIdentity { column: new, identity: identity(new, identities) });
            alters
        }
        (Some(was), Some(IdentityAlways | IdentityByDefault)) if Some(was) != new.generated => {
            vec![Alter::SetIdentity(new)]
        }
        _ => Vec::new(),
    }
}

/// Renames in an order in which no name is there twice.
fn in_turn<'a>(mut renames: Vec<(Cow<'a, str>, &'a str)>) -> Vec<Alter<'a>> {
    let mut alters = Vec::new();
    while !renames.is_empty() {
        let free = renames.iter().position(|(_, to)| renames.iter().all(|(from, _)| from != to));
        match free {
            Some(at) => {
                let (from, to) = renames.remove(at);
                alters.push(Alter::RenameColumn { from, to: to.into() });
            }
            // All in a circle: one of them steps aside.
            None => {
                let aside = Cow::from(format!("thinwire {}", alters.len()));
                let from = std::mem::replace(&mut renames[0].0, aside.clone());
                alters.push(Alter::RenameColumn { from, to: aside });
            }
        }
    }
    alters
}

/// Of what the table is no part any more.
fn left<'a>(before: &'a Table, now: &Table, here: &Table) -> Vec<Alter<'a>> {
    let mut alters = Vec::new();
    if let Some(old) = &before.partition_of
        && parent(before) != parent(now)
        && parent(here) == parent(before)
    {
        alters.push(Alter::Detach(old));
    }
    let gone = before.inherits.iter().filter(|it| !now.inherits.contains(it));
    alters.extend(gone.filter(|it| here.inherits.contains(it)).map(Alter::NoInherit));
    alters
}

/// Of what it has become part.
fn joined<'a>(before: &Table, now: &'a Table, here: &Table) -> Vec<Alter<'a>> {
    let mut alters = Vec::new();
    if let Some(new) = &now.partition_of
        && parent(before) != parent(now)
        && parent(here) != parent(now)
    {
        alters.push(Alter::Attach(new));
    }
    let new = now.inherits.iter().filter(|it| !before.inherits.contains(it));
    alters.extend(new.filter(|it| !here.inherits.contains(it)).map(Alter::Inherit));
    alters
}

fn parent(table: &Table) -> Option<(&str, &str)> {
    table.partition_of.as_ref().map(|of| (&*of.schema, &*of.name))
}

/// Whether it has become a partition: what it had of its own is then the root's, and not told any more.
fn is_attached(before: &Table, now: &Table) -> bool {
    before.partition_of.is_none() && now.partition_of.is_some()
}

/// Constraints that are gone or have another name. References that are gone went before.
fn dropped_constraints<'a>(before: &'a Table, now: &'a Table, here: &Table) -> Vec<Alter<'a>> {
    let mut alters = Vec::new();
    let renames = renames(before, now);
    let gone =
        before.constraints.iter().filter(|old| by_name(&now.constraints, &old.name).is_none());
    for old in gone.filter(|old| by_name(&here.constraints, &old.name).is_some()) {
        let anew = renames.iter().find(|(from, _)| from.name == old.name).map(|(_, to)| to);
        match anew {
            Some(new) if by_name(&here.constraints, &new.name).is_none() => {
                alters.push(Alter::RenameConstraint { from: &old.name, to: &new.name });
            }
            _ if old.foreign || is_attached(before, now) => {}
            _ => alters.push(Alter::DropConstraint(&old.name)),
        }
    }
    alters
}

/// Constraints that have got another name: the old and the new.
fn renames<'a>(before: &'a Table, now: &'a Table) -> Vec<(&'a Constraint, &'a Constraint)> {
    let lacks = |all: &[Constraint], it: &Constraint| by_name(all, &it.name).is_none();
    let mut new: Vec<_> =
        now.constraints.iter().filter(|new| lacks(&before.constraints, new)).collect();
    let gone = before.constraints.iter().filter(|old| lacks(&now.constraints, old));
    let pair = |old: &'a Constraint| {
        let at = new.iter().position(|new| new.definition == old.definition)?;
        Some((old, new.swap_remove(at)))
    };
    gone.filter_map(pair).collect()
}

fn constraints<'a>(before: Option<&Table>, now: &'a Table, here: &Table) -> Vec<Alter<'a>> {
    let mut alters = Vec::new();
    for new in &now.constraints {
        let old = before.and_then(|before| by_name(&before.constraints, &new.name));
        match by_name(&here.constraints, &new.name) {
            Some(held) if held.definition == new.definition => {}
            Some(_) if old.is_some_and(|old| old.definition != new.definition) => {
                alters.push(Alter::DropConstraint(&new.name));
                alters.push(Alter::AddConstraint(new));
            }
            None if old != Some(new) => alters.push(Alter::AddConstraint(new)),
            _ => {}
        }
    }
    alters
}

fn indexes<'a>(before: Option<&'a Table>, now: &'a Table, here: &Table) -> Vec<Alter<'a>> {
    let mut alters = Vec::new();
    let mut named_anew = BTreeSet::new();
    let find = |table: &'a Table, name: &str| table.indexes.iter().find(|index| index.name == name);
    let held = |name: &str| here.indexes.iter().find(|index| index.name == name);
    for old in before.iter().flat_map(|before| &before.indexes) {
        if find(now, &old.name).is_some() || held(&old.name).is_none() {
            continue;
        }
        let anew = now.indexes.iter().find(|new| {
            form(new) == form(old)
                && held(&new.name).is_none()
                && !named_anew.contains(&*new.name)
                && before.is_none_or(|before| find(before, &new.name).is_none())
        });
        match anew {
            Some(new) => {
                named_anew.insert(&*new.name);
                alters.push(Alter::RenameIndex { from: &old.name, to: &new.name });
            }
            None if before.is_some_and(|before| is_attached(before, now)) => {}
            None => alters.push(Alter::DropIndex(&old.name)),
        }
    }
    for new in now.indexes.iter().filter(|new| !named_anew.contains(&*new.name)) {
        let old = before.and_then(|before| find(before, &new.name));
        match held(&new.name) {
            Some(held) if form(held) == form(new) => {}
            Some(_) if old.is_some_and(|old| form(old) != form(new)) => {
                alters.push(Alter::DropIndex(&new.name));
                alters.push(Alter::AddIndex(new));
            }
            None if old.map(form) != Some(form(new)) => alters.push(Alter::AddIndex(new)),
            _ => {}
        }
    }
    alters
}

/// What an index is, whatever it and its table are called.
fn form(index: &Index) -> (bool, &str) {
    let definition = &*index.definition;
    let method = definition.split_once(" USING ").map_or(definition, |(_, method)| method);
    (definition.split(' ').nth(1) == Some("UNIQUE"), method)
}

fn identity<'a>(column: &TableColumn, identities: &[(i16, &'a Object)]) -> Option<&'a Object> {
    identities.iter().find(|(number, _)| *number == column.number).map(|(_, object)| *object)
}

fn table(object: &Object) -> Option<&Table> {
    match &object.body {
        Body::Table(table) => Some(table),
        _ => None,
    }
}

fn column<'a>(table: &'a Table, name: &str) -> Option<&'a TableColumn> {
    table.columns.iter().find(|column| column.name == name)
}

fn by_number(table: &Table, number: i16) -> Option<&TableColumn> {
    table.columns.iter().find(|column| column.number == number)
}

fn by_name<'a>(constraints: &'a [Constraint], name: &str) -> Option<&'a Constraint> {
    constraints.iter().find(|constraint| constraint.name == name)
}
