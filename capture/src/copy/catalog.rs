//! Tables as the catalogs describe them, in the very form in which the output plugin would.

use std::collections::BTreeMap;

use thinwire_engine::model::{Column, Relation, RelationId, ReplicaIdentity};
use tokio_postgres::Client;

use crate::{
    error::{Error, Result},
    sql,
};

/// What there is to know about a table before it is copied.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) relation: Relation,
    pub(crate) is_partitioned: bool,
    /// The table and its partitions, each with the file that holds its rows. A rewritten table has another.
    pub(crate) files: String,
    /// What it takes on disk, partitions included.
    pub(crate) bytes: u64,
}

impl Description {
    /// Whether nothing that matters to a copy differs.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.relation == other.relation && self.files == other.files
    }

    /// Its name for people.
    pub(crate) fn label(&self) -> String {
        format!("{}.{}", self.relation.schema, self.relation.name)
    }

    /// Its name in SQL.
    pub(crate) fn sql(&self) -> String {
        sql::qualified(&self.relation.schema, &self.relation.name)
    }

    /// The command that reads its rows. A partitioned table is read with its partitions, any other alone.
    pub(crate) fn read(&self) -> String {
        let names: Vec<&str> = self.relation.columns.iter().map(|it| it.name.as_str()).collect();
        sql::copy_out(&self.sql(), &names, !self.is_partitioned)
    }
}

/// Describes tables in the session's snapshot. Those that are not there are left out.
pub(crate) async fn describe(
    client: &Client,
    tables: &[RelationId],
) -> Result<BTreeMap<RelationId, Description>> {
    let ids: Vec<u32> = tables.iter().map(|id| id.0).collect();
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
            table.relation.columns.push(column);
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
