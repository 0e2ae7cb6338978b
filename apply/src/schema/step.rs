//! What is to be done about an object: one step is one statement, or a few that belong together.

use std::borrow::Cow;

use thinwire_engine::model::{
    Attribute, Body, Constraint, Index, Kind, Object, Partition, Table, TableColumn,
};

/// An object by its name here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Whether it is a view whose rows are stored.
    pub(crate) materialized: bool,
    /// Its schema; empty for a schema.
    pub(crate) schema: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
    /// The types of a routine's arguments.
    pub(crate) arguments: Option<&'a str>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step<'a> {
    /// An object is made that is not here.
    Create {
        /// The object.
        object: &'a Object,
        /// The sequences of its identity columns, with their columns' numbers.
        identities: Vec<(i16, &'a Object)>,
    },
    /// A view or routine is made, or made anew in its place.
    Replace(&'a Object),
    /// The same of one that somebody else has made: it stays as it is if this server does not understand what is told.
    Adopt(&'a Object),
    /// Objects of one kind go.
    Drop(Vec<Named<'a>>),
    /// An object gets another name.
    Rename {
        /// The object.
        object: Named<'a>,
        /// Its new name.
        to: &'a str,
    },
    /// An object gets into another schema.
    Move {
        /// The object.
        object: Named<'a>,
        /// Its new schema.
        to: &'a str,
    },
    /// An object gets its owner, if that is possible here.
    Own(&'a Object),
    /// A routine that would run with the rights of another login than at its source gets its owner, or else runs with those of
    /// whoever calls it.
    Disarm(&'a Object),
    /// Whoever applies rows may use an object that somebody else has made.
    Grant(&'a Object),
    /// An object gets its comment.
    Comment(&'a Object),
    /// A table is changed.
    Alter {
        /// The table under the name that it has.
        table: Named<'a>,
        /// How.
        alter: Alter<'a>,
    },
    /// A composite type is changed.
    AlterType {
        /// The type.
        object: &'a Object,
        /// How.
        alter: AlterType<'a>,
    },
    /// A domain is changed.
    AlterDomain {
        /// The domain.
        object: &'a Object,
        /// How.
        alter: AlterDomain<'a>,
    },
    /// An enumerated type gets a label.
    AddLabel {
        /// The type.
        object: &'a Object,
        /// The label.
        label: &'a str,
        /// The label behind which it comes; none if it is the first.
        behind: Option<&'a str>,
        /// Then one before which it comes, if there is any.
        ahead: Option<&'a str>,
    },
    /// A label of an enumerated type gets another name.
    RenameLabel {
        /// The type.
        object: &'a Object,
        /// The label.
        from: &'a str,
        /// Its new name.
        to: &'a str,
    },
    /// A sequence gets its properties.
    AlterSequence(&'a Object),
    /// A sequence belongs to a column, or to none.
    Belongs {
        /// The sequence.
        sequence: &'a Object,
        /// The table and its column.
        to: Option<(&'a Object, &'a str)>,
    },
    /// A sequence gives out nothing any more that lies before a value.
    Value {
        /// The sequence.
        sequence: &'a Object,
        /// The value.
        value: i64,
        /// Whether its values get smaller.
        falls: bool,
    },
}

/// How a table is changed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Alter<'a> {
    AddColumn {
        column: &'a TableColumn,
        identity: Option<&'a Object>,
    },
    DropColumn(&'a str),
    RenameColumn {
        from: Cow<'a, str>,
        to: Cow<'a, str>,
    },
    /// Type and collation.
    Type(&'a TableColumn),
    /// The default as it is told.
    Default(&'a TableColumn),
    /// No default, whatever is told.
    NoDefault(&'a str),
    /// Whether it may have nulls, and in all that is part of the table or inherits from it.
    NotNull(&'a TableColumn),
    /// It may have nulls in this table. Heirs are told of by themselves: from PostgreSQL 18 on, they keep a NOT NULL of their own.
    Nullable(&'a str),
    Expression(&'a TableColumn),
    NoExpression(&'a str),
    AddIdentity {
        column: &'a TableColumn,
        identity: Option<&'a Object>,
    },
    SetIdentity(&'a TableColumn),
    NoIdentity(&'a str),
    ColumnComment(&'a TableColumn),
    AddConstraint(&'a Constraint),
    DropConstraint(&'a str),
    RenameConstraint {
        from: &'a str,
        to: &'a str,
    },
    AddIndex(&'a Index),
    DropIndex(&'a str),
    RenameIndex {
        from: &'a str,
        to: &'a str,
    },
    Identity(&'a Table),
    Attach(&'a Partition),
    Detach(&'a Partition),
    Inherit(&'a (String, String)),
    NoInherit(&'a (String, String)),
}

/// How a composite type is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AlterType<'a> {
    Add(&'a Attribute),
    Drop(&'a str),
    Rename { from: &'a str, to: &'a str },
    Type(&'a Attribute),
}

/// How a domain is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AlterDomain<'a> {
    Default(Option<&'a str>),
    NotNull(bool),
    Add(&'a Constraint),
    Drop(&'a str),
}

impl<'a> Named<'a> {
    /// An object under the name that it was told with.
    pub(crate) fn of(object: &'a Object) -> Self {
        let arguments = match &object.body {
            Body::Routine { arguments, .. } => Some(&**arguments),
            _ => None,
        };
        Self {
            kind: object.body.kind(),
            materialized: matches!(object.body, Body::View { materialized: true, .. }),
            schema: &object.schema,
            name: &object.name,
            arguments,
        }
    }
}

impl Alter<'_> {
    /// Whether the rows that are there may stand in its way.
    pub(crate) fn is_held_against_rows(&self) -> bool {
        match self {
            Self::NotNull(column) => column.not_null,
            Self::AddColumn { .. }
            | Self::Expression(_)
            | Self::AddConstraint(_)
            | Self::AddIndex(_)
            | Self::Attach(_) => true,
            _ => false,
        }
    }
}

impl Step<'_> {
    /// Whether it changes what an object is, and not only how far a sequence has come.
    pub(crate) fn needs_owner(&self) -> bool {
        !matches!(self, Self::Value { .. })
    }

    /// Whether it refers to other tables, so that they have to be there.
    pub(crate) fn is_reference(&self) -> bool {
        matches!(self, Self::Alter { alter: Alter::AddConstraint(constraint), .. } if constraint.foreign)
    }
}
