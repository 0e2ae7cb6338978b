//! Tables as the catalogs describe them, in the very form in which the output plugin would.

use std::collections::BTreeMap;

use thinwire_engine::model::{Column, Relation, RelationId, ReplicaIdentity};
use tokio_postgres::Client;

use crate::{
    error::{Error, Result},
    slot::{Entry, entries},
    sql,
};

/// What there is to know about a table before it is copied.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) relation: Relation,
    pub(crate) is_partitioned: bool,
    /// How it is published: its rows and columns are those that are streamed.
    pub(crate) entry: Entry,
    /// The table and its partitions, each with the file that holds its rows. A rewritten table has another.
    pub(crate) files: String,
    /// What it takes on disk, partitions included.
    pub(crate) bytes: u64,
}

impl Description {
    /// Whether nothing that matters to a copy differs.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.relation == other.relation && self.files == other.files && self.entry == other.entry
    }

    /// Its name for people.
    pub(crate) fn label(&self) -> String {
        format!("{}.{}", self.relation.schema, self.relation.name)
    }

    /// Its name in SQL.
    pub(crate) fn sql(&self) -> String {
        sql::qualified(&self.relation.schema, &self.relation.name)
    }

    /// How its rows are read: a partitioned table with its partitions, any other alone.
    pub(crate) fn reading(&self) -> sql::Reading<'_> {
        sql::Reading {
            table: self.sql(),
            columns: self.relation.columns.iter().map(|it| it.name.as_str()).collect(),
            is_alone: !self.is_partitioned,
            rows: self.entry.narrowing.rows.as_deref(),
        }
    }
}

/// Describes tables, as they are published, in the session's snapshot. Those that are not there are left out.
pub(crate) async fn describe(
    client: &Client,
    publication: &str,
    tables: &[RelationId],
) -> Result<BTreeMap<RelationId, Description>> {
    let ids: Vec<u32> = tables.iter().map(|id| id.0).collect();
    let published = entries(client, publication).await?;
    let mut published: BTreeMap<u32, Entry> =
        published.into_iter().map(|it| (it.table, it)).collect();
    let mut found = BTreeMap::new();
    for row in client.query(sql::COPY_TABLES, &[&ids]).await? {
        let id = RelationId(row.try_get(0)?);
        let (kind, identity): (String, String) = (row.try_get(3)?, row.try_get(4)?);
        let bytes: i64 = row.try_get(6)?;
        let relation = Relation {
            id,
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            identity: self::identity(&identity)?,
            columns: Vec::new(),
        };
        found.insert(
            id,
            Description {
                relation,
                is_partitioned: kind == "p",
                entry: published.remove(&id.0).unwrap_or_else(|| Entry::whole(id.0)),
                files: row.try_get(5)?,
                bytes: u64::try_from(bytes).unwrap_or(0),
            },
        );
    }
    for row in client.query(sql::COPY_COLUMNS, &[&ids]).await? {
        let column = Column {
            name: row.try_get(1)?,
            type_oid: row.try_get(2)?,
            type_modifier: row.try_get(3)?,
            key: row.try_get(4)?,
        };
        if let Some(table) = found.get_mut(&RelationId(row.try_get(0)?)) {
            let list = table.entry.narrowing.columns.as_ref();
            if list.is_none_or(|names| names.contains(&column.name)) {
                table.relation.columns.push(column);
            }
        }
    }
    Ok(found)
}

fn identity(letter: &str) -> Result<ReplicaIdentity> {
    match letter {
        "d" => Ok(ReplicaIdentity::Default),
        "n" => Ok(ReplicaIdentity::Nothing),
        "f" => Ok(ReplicaIdentity::Full),
        "i" => Ok(ReplicaIdentity::Index),
        _ => Err(Error::Handshake("an unknown replica identity in the catalogs".to_owned())),
    }
}
