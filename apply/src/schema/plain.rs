//! Types, sequences, views and routines: what differs between what was told of them and what is told.

use thinwire_engine::model::{Body, Constraint, Object, Sequence};

use super::{
    Step,
    step::{AlterDomain, AlterType},
};

/// What makes an object that is neither a table nor an enumerated type what it is told to be.
pub(super) fn changed<'a>(known: Option<&'a Object>, told: &'a Object) -> Vec<Step<'a>> {
    let before = known.map(|known| &known.body);
    match (before, &told.body) {
        (None, Body::View { .. } | Body::Routine { .. }) => vec![Step::Adopt(told)],
        (Some(before), Body::View { .. } | Body::Routine { .. }) if *before != told.body => {
            vec![Step::Replace(told)]
        }
        (Some(Body::Sequence(before)), Body::Sequence(sequence)) if differs(before, sequence) => {
            vec![Step::AlterSequence(told)]
        }
        (Some(before @ Body::Composite { .. }), now) => composite(before, now, told),
        (Some(before @ Body::Domain { .. }), now) => domain(before, now, told),
        _ => Vec::new(),
    }
}

/// Labels that are renamed or missing. A label cannot go.
pub(super) fn labels<'a>(
    known: Option<&'a Object>,
    told: &'a Object,
    labels: &'a [String],
    held: &[String],
) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    let (mut held, mut renamed) = (held.to_vec(), Vec::new());
    if let Some(Body::Enum { labels: before }) = known.map(|known| &known.body)
        && before.len() == labels.len()
    {
        renamed = before.iter().zip(labels).filter(|(from, to)| from != to).collect();
    }
    for (from, to) in renamed {
        if let Some(at) = held.iter().position(|label| label == from)
            && !held.contains(to)
        {
            held[at].clone_from(to);
            steps.push(Step::RenameLabel { object: told, from, to });
        }
    }
    let ahead = labels.iter().find(|label| held.contains(label)).map(|label| &**label);
    let mut behind = None;
    for label in labels {
        if !held.contains(label) {
            let ahead = ahead.filter(|_| behind.is_none());
            steps.push(Step::AddLabel { object: told, label, behind, ahead });
        }
        behind = Some(&**label);
    }
    steps
}

fn differs(before: &Sequence, now: &Sequence) -> bool {
    let options = |sequence: &Sequence| Sequence {
        owned_by: None,
        identity: false,
        value: None,
        ..sequence.clone()
    };
    options(before) != options(now)
}

fn composite<'a>(before: &'a Body, now: &'a Body, object: &'a Object) -> Vec<Step<'a>> {
    let (Body::Composite { attributes: before }, Body::Composite { attributes: now }) =
        (before, now)
    else {
        return Vec::new();
    };
    let mut alters = Vec::new();
    for gone in before.iter().filter(|it| now.iter().all(|now| now.number != it.number)) {
        alters.push(AlterType::Drop(&gone.name));
    }
    for attribute in now {
        let Some(old) = before.iter().find(|it| it.number == attribute.number) else {
            alters.push(AlterType::Add(attribute));
            continue;
        };
        if old.name != attribute.name {
            alters.push(AlterType::Rename { from: &old.name, to: &attribute.name });
        }
        if (&old.data_type, &old.collation) != (&attribute.data_type, &attribute.collation) {
            alters.push(AlterType::Type(attribute));
        }
    }
    alters.into_iter().map(|alter| Step::AlterType { object, alter }).collect()
}

fn domain<'a>(before: &'a Body, now: &'a Body, object: &'a Object) -> Vec<Step<'a>> {
    let (
        Body::Domain { not_null: was_not_null, default: old, constraints: before, .. },
        Body::Domain { not_null, default, constraints, .. },
    ) = (before, now)
    else {
        return Vec::new();
    };
    let mut alters = Vec::new();
    let lacks = |all: &[Constraint], it: &Constraint| !all.contains(it);
    for gone in before.iter().filter(|it| lacks(constraints, it)) {
        alters.push(AlterDomain::Drop(&gone.name));
    }
    if old != default {
        alters.push(AlterDomain::Default(default.as_deref()));
    }
    if was_not_null != not_null {
        alters.push(AlterDomain::NotNull(*not_null));
    }
    for new in constraints.iter().filter(|it| lacks(before, it)) {
        alters.push(AlterDomain::Add(new));
    }
    alters.into_iter().map(|alter| Step::AlterDomain { object, alter }).collect()
}
