//! Steps against a model of the target: whatever differs, they make it what is told; told again, there are none.

use std::collections::BTreeSet;

use thinwire_engine::model::{
    Body, Constraint, Dropped, Generated, Index, Kind, Object, Partition, ReplicaIdentity,
    Sequence, Table, TableColumn,
};

use super::*;

fn column(number: i16, name: String) -> TableColumn {
    TableColumn {
        number,
        name,
        data_type: "integer".to_owned(),
        collation: None,
        not_null: false,
        default: None,
        missing: None,
        generated: None,
        comment: None,
    }
}

fn object(id: u32, name: &str, body: Body) -> Object {
    let (schema, name, owner) = ("public".to_owned(), name.to_owned(), "o".to_owned());
    Object { id, schema, name, owner, comment: None, body }
}

fn table(columns: Vec<TableColumn>) -> Table {
    Table { columns, ..Table::default() }
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// A table whose columns have any of ten numbers and any of few or many names.
fn any_table(random: &mut Random, parts: bool) -> Table {
    let mut names: Vec<_> =
        (0..10 + random.below(3) * 100).map(|name| format!("c{name}")).collect();
    let mut columns = Vec::new();
    for number in 1..=10 {
        let name = names.remove(random.below(names.len()));
        if random.below(3) == 0 {
            continue;
        }
        let mut column = column(number, name);
        column.data_type = random.pick(&["integer", "text", "public.mood"]).to_owned();
        column.not_null = random.below(2) == 0;
        column.default = random.pick(&[None, Some("1".to_owned()), Some("f()".to_owned())]);
        column.missing = column.default.clone().filter(|_| random.below(2) == 0);
        column.comment = random.pick(&[None, Some("said".to_owned())]);
        // What is generated from others cannot become so later.
        if number > 8 {
            column.generated = random.pick(&[
                None,
                Some(Generated::IdentityAlways),
                Some(Generated::IdentityByDefault),
            ]);
        }
        if column.generated.is_some() {
            (column.default, column.missing) = (None, None);
        }
        columns.push(column);
    }
    let mut table = table(columns);
    // What a partition had of its own is the root's then; that is its own test.
    for name in ["k0", "k1", "k2", "k3"].into_iter().filter(|_| !parts) {
        if random.below(2) == 0 {
            let definition = random.pick(&["CHECK (a)", "CHECK (b)", "UNIQUE (c)"]).to_owned();
            let foreign = false;
            table.constraints.push(Constraint { name: name.to_owned(), definition, foreign });
        }
        if random.below(2) == 0 {
            let method = random.pick(&["btree (a)", "hash (a)", "btree (b)"]);
            let definition = format!("CREATE INDEX i{name} ON public.t USING {method}");
            table.indexes.push(Index { name: format!("i{name}"), definition });
        }
    }
    table.identity = random.pick(&[ReplicaIdentity::Default, ReplicaIdentity::Full]);
    table.inherits = random.pick(&[vec![], vec![("public".to_owned(), "p".to_owned())]]);
    let bound = random.pick(&[None, Some("FOR VALUES IN (1)"), Some("DEFAULT")]);
    table.partition_of = bound.filter(|_| parts).map(|bound| {
        let (schema, name) = ("public".to_owned(), format!("root of {}", bound.len()));
        Partition { schema, name, bound: bound.to_owned() }
    });
    table
}

/// Does to a model what PostgreSQL would do, and refuses what it would refuse.
fn run(model: &mut Table, steps: &[Step<'_>]) {
    for step in steps {
        let Step::Alter { alter, .. } = step else { continue };
        let at = |model: &Table, name: &str| {
            let found = model.columns.iter().position(|column| column.name == name);
            found.unwrap_or_else(|| panic!("{alter:?}: no such column"))
        };
        match alter {
            Alter::AddColumn { column, .. } => {
                assert!(model.columns.iter().all(|held| held.name != column.name), "{alter:?}");
                let default = column.missing.clone().or(column.default.clone());
                let (missing, comment) = (None, None);
                let new = TableColumn { default, missing, comment, ..(*column).clone() };
                model.columns.push(new);
            }
            Alter::DropColumn(name) => drop(model.columns.remove(at(model, name))),
            Alter::RenameColumn { from, to } => {
                assert!(model.columns.iter().all(|held| held.name != **to), "{alter:?}");
                let at = at(model, from);
                model.columns[at].name = to.clone().into_owned();
            }
            Alter::Type(new) => {
                let at = at(model, &new.name);
                assert!(model.columns[at].default.is_none(), "{alter:?}: the default may not fit");
                model.columns[at].data_type.clone_from(&new.data_type);
            }
            Alter::Default(new) => {
                let at = at(model, &new.name);
                assert!(model.columns[at].generated.is_none(), "{alter:?}");
                model.columns[at].default.clone_from(&new.default);
            }
            Alter::NoDefault(name) => {
                let at = at(model, name);
                model.columns[at].default = None;
            }
            Alter::NotNull(new) => {
                let at = at(model, &new.name);
                model.columns[at].not_null = new.not_null;
            }
            Alter::Nullable(name) => {
                let at = at(model, name);
                model.columns[at].not_null = false;
            }
            Alter::AddIdentity { column, .. } => {
                let at = at(model, &column.name);
                let held = &mut model.columns[at];
                assert!(held.generated.is_none() && held.default.is_none(), "{alter:?}");
                held.generated = column.generated;
            }
            Alter::SetIdentity(new) => {
                let at = at(model, &new.name);
                model.columns[at].generated = new.generated;
            }
            Alter::NoIdentity(name) => {
                let at = at(model, name);
                model.columns[at].generated = None;
            }
            Alter::ColumnComment(new) => {
                let at = at(model, &new.name);
                model.columns[at].comment.clone_from(&new.comment);
            }
            other => run_table(model, other),
        }
    }
}

fn run_table(model: &mut Table, alter: &Alter<'_>) {
    match alter {
        Alter::AddConstraint(new) => {
            assert!(model.constraints.iter().all(|held| held.name != new.name), "{alter:?}");
            model.constraints.push((*new).clone());
        }
        Alter::DropConstraint(name) => model.constraints.retain(|held| held.name != *name),
        Alter::RenameConstraint { from, to } => {
            assert!(model.constraints.iter().all(|held| held.name != *to), "{alter:?}");
            let held = model.constraints.iter_mut().find(|held| held.name == *from).unwrap();
            held.name = (*to).to_owned();
        }
        Alter::AddIndex(new) => {
            assert!(model.indexes.iter().all(|held| held.name != new.name), "{alter:?}");
            model.indexes.push((*new).clone());
        }
        Alter::DropIndex(name) => model.indexes.retain(|held| held.name != *name),
        Alter::RenameIndex { from, to } => {
            assert!(model.indexes.iter().all(|held| held.name != *to), "{alter:?}");
            let held = model.indexes.iter_mut().find(|held| held.name == *from).unwrap();
            held.definition = held.definition.replace(*from, to);
            held.name = (*to).to_owned();
        }
        Alter::Identity(new) => {
            model.identity = new.identity;
            model.identity_index.clone_from(&new.identity_index);
        }
        Alter::Attach(of) => {
            assert!(model.partition_of.replace((*of).clone()).is_none(), "{alter:?}");
        }
        Alter::Detach(of) => assert_eq!(model.partition_of.take().as_ref(), Some(*of)),
        Alter::Inherit(parent) => model.inherits.push((*parent).clone()),
        Alter::NoInherit(parent) => model.inherits.retain(|held| held != *parent),
        other => panic!("{other:?} is not in this test"),
    }
}

/// A table without what has no meaning here: the source's numbers, order, and values of old rows.
fn plain(table: &Table) -> Table {
    let mut table = table.clone();
    for column in &mut table.columns {
        (column.number, column.missing) = (0, None);
    }
    table.columns.sort_by(|a, b| a.name.cmp(&b.name));
    table.constraints.sort_by(|a, b| a.name.cmp(&b.name));
    table.indexes.sort_by(|a, b| a.name.cmp(&b.name));
    table
}

/// Brings a model from what was known to what is told; returns how many steps that took.
fn bring(model: &mut Table, known: &Object, told: &Object) -> usize {
    let here = Here::Table(Box::new(model.clone()));
    let mut all = freed(known, told);
    all.extend(shaped(Occasion::Change, Some(known), told, &here, &[]).unwrap());
    run(model, &all);
    let rest = completed(Some(known), told, model);
    run(model, &rest);
    all.len() + rest.len()
}

#[test]
fn any_table_becomes_any_other_and_told_again_nothing_happens() {
    let mut by_hand = 0;
    for seed in 0..10_000 {
        let mut random = Random(seed);
        let parts = random.below(2) == 0;
        let (before, now) = (any_table(&mut random, parts), any_table(&mut random, parts));
        let known = object(1, "t", Body::Table(before.clone()));
        let told = object(1, "t", Body::Table(now.clone()));
        let mut model = before.clone();
        bring(&mut model, &known, &told);
        assert_eq!(plain(&model), plain(&now), "seed {seed}");
        assert_eq!(bring(&mut model, &told, &told), 0, "seed {seed}");
        // Done by hand, it is not done again: where a name means one column only.
        let means_one = |new: &TableColumn| {
            let old = before.columns.iter().find(|old| old.name == new.name);
            old.is_none_or(|old| old.number == new.number)
        };
        if now.columns.iter().all(means_one) {
            by_hand += 1;
            assert_eq!(bring(&mut model, &known, &told), 0, "seed {seed}: done by hand");
        }
    }
    assert!(by_hand > 20, "{by_hand}");
}

#[test]
fn names_may_go_round() {
    let columns = |names: [&str; 3]| {
        let columns =
            names.iter().zip(1..).map(|(name, number)| column(number, (*name).to_owned()));
        object(1, "t", Body::Table(table(columns.collect())))
    };
    let (known, told) = (columns(["a", "b", "c"]), columns(["b", "c", "a"]));
    let Body::Table(mut model) = known.body.clone() else { panic!() };
    assert_eq!(bring(&mut model, &known, &told), 4);
    let names: Vec<_> = model.columns.iter().map(|column| &*column.name).collect();
    assert_eq!(names, ["b", "c", "a"]);
}

#[test]
fn what_a_partition_had_of_its_own_is_not_dropped_when_it_becomes_one() {
    let mut alone = table(vec![column(1, "a".to_owned())]);
    let (name, definition) = ("t_pkey".to_owned(), "PRIMARY KEY (a)".to_owned());
    alone.constraints.push(Constraint { name, definition, foreign: false });
    let mut part = alone.clone();
    part.constraints.clear();
    let (schema, name, bound) = ("public".to_owned(), "root".to_owned(), "DEFAULT".to_owned());
    part.partition_of = Some(Partition { schema, name, bound });
    let (known, told) =
        (object(1, "t", Body::Table(alone.clone())), object(1, "t", Body::Table(part)));
    let mut model = alone;
    assert_eq!(bring(&mut model, &known, &told), 1);
    assert_eq!(model.constraints.len(), 1);
}

#[test]
fn an_adopted_table_gets_what_it_lacks_unless_that_may_be_there_under_another_name() {
    let told = object(
        1,
        "t",
        Body::Table(table(vec![column(1, "a".to_owned()), column(2, "b".to_owned())])),
    );
    let here = |names: &[&str]| {
        let columns = names.iter().map(|name| column(1, (*name).to_owned())).collect();
        Here::Table(Box::new(table(columns)))
    };
    let steps = |occasion, here: &Here| shaped(occasion, None, &told, here, &[]).map(|it| it.len());
    assert_eq!(steps(Occasion::Change, &here(&["a"])), Ok(1));
    assert_eq!(steps(Occasion::Change, &here(&["c", "b", "a"])), Ok(0));
    assert!(steps(Occasion::Change, &here(&["a", "c"])).is_err());
    assert_eq!(steps(Occasion::Copy, &here(&["a", "c"])), Ok(0));
    assert!(steps(Occasion::Change, &Here::Something).is_err());
    // Gone though it was known: only a copy can bring it back with its rows.
    let mut known = told.clone();
    known.comment = Some("before".to_owned());
    let lost = |occasion, known| shaped(occasion, Some(known), &told, &Here::Nothing, &[]);
    assert!(lost(Occasion::Change, &known).is_err());
    assert_eq!(lost(Occasion::Change, &told).unwrap(), []);
    assert!(!lost(Occasion::Copy, &known).unwrap().is_empty());
}

#[test]
fn labels_are_added_in_their_place_and_renamed_where_only_names_differ() {
    let of = |labels: &[&str]| {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        object(1, "mood", Body::Enum { labels })
    };
    let steps = |known: Option<&Object>, told: &Object, held: &[&str]| {
        let held = Here::Enum(held.iter().map(|label| (*label).to_owned()).collect());
        let steps = shaped(Occasion::Change, known, told, &held, &[]).unwrap();
        let shown = steps.iter().map(|step| match step {
            Step::AddLabel { label, behind: Some(behind), .. } => {
                format!("{label} behind {behind}")
            }
            Step::AddLabel { label, ahead: Some(ahead), .. } => format!("{label} before {ahead}"),
            Step::RenameLabel { from, to, .. } => format!("{from} is {to}"),
            other => panic!("{other:?}"),
        });
        shown.collect::<Vec<_>>()
    };
    let (known, told) = (of(&["b", "d"]), of(&["a", "aa", "b", "c", "d"]));
    let expected = ["a before b", "aa behind a", "c behind b"];
    assert_eq!(steps(Some(&known), &told, &["b", "d"]), expected);
    assert_eq!(steps(None, &told, &["b", "d"]), expected);
    assert_eq!(steps(Some(&known), &told, &["a", "aa", "b", "c", "d"]), [] as [&str; 0]);
    assert_eq!(steps(Some(&known), &of(&["b", "e"]), &["b", "d"]), ["d is e"]);
    assert_eq!(steps(Some(&known), &of(&["b", "e"]), &["b", "e"]), [] as [&str; 0]);
}

#[test]
fn what_is_dropped_together_goes_in_one_statement_and_dependants_first() {
    let mut known = Known::default();
    let mut gone = Vec::new();
    let view = |materialized| Body::View {
        materialized,
        query: String::new(),
        columns: Vec::new(),
        options: Vec::new(),
    };
    let bodies = [
        Body::Enum { labels: Vec::new() },
        Body::Table(table(Vec::new())),
        view(false),
        Body::Table(table(Vec::new())),
        view(true),
    ];
    for (body, id) in bodies.into_iter().zip(1..) {
        let object = object(id, &format!("o{id}"), body);
        let (schema, name) = (object.schema.clone(), object.name.clone());
        gone.push(Dropped { id, kind: object.body.kind(), schema, name });
        known.insert(object);
    }
    gone.push(Dropped { id: 9, kind: Kind::Table, schema: "public".into(), name: "never".into() });
    let steps = drops(&known, &gone);
    let shown: Vec<_> = steps
        .iter()
        .map(|step| match step {
            Step::Drop(named) => named.iter().map(|it| it.name).collect::<Vec<_>>().join(" "),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shown, ["o5", "o3", "o2 o4", "o1"]);
}

#[test]
fn a_sequence_is_moved_on_within_its_bounds_only() {
    let sequence = |value| {
        let sequence = Sequence {
            data_type: "bigint".to_owned(),
            start: 1,
            increment: 1,
            min: 1,
            max: 10,
            cache: 1,
            cycle: false,
            owned_by: None,
            identity: false,
            value,
        };
        object(1, "s", Body::Sequence(sequence))
    };
    assert_eq!(late(None, &sequence(Some(10)), None).len(), 1);
    assert_eq!(late(None, &sequence(Some(11)), None).len(), 0);
    assert_eq!(late(None, &sequence(None), None).len(), 0);
    let ids: BTreeSet<_> =
        ids(&Definitions { objects: vec![sequence(None), sequence(None)], dropped: Vec::new() })
            .into_iter()
            .collect();
    assert_eq!(ids.len(), 1);
}
