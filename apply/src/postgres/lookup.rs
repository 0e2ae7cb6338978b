//! What a described table is at the target.

use std::sync::Arc;

use thinwire_engine::model::{Halt, Offset, Relation};
use tokio_postgres::{Client, Row};

use super::{about::About, param::Param};
use crate::{
    SinkError, Tables,
    plan::{Column, Equality, Many, Table, Unique},
    sql::catalog,
};

/// A table that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) table: Arc<Table>,
    /// Its object id, as text.
    pub(super) oid: String,
}

/// Looks a table up. Refuses one that streams may not write to, is not there, is no table, or lacks columns.
pub(super) async fn table(
    client: &Client,
    relation: &Arc<Relation>,
    accepted: &Tables,
    offset: Offset,
) -> Result<Found, SinkError> {
    let refuse = |code: &str, detail: String| {
        let table = Some(format!("{}.{}", relation.schema, relation.name));
        let halt = Halt { offset: Some(offset), table, ..Halt::new(code, detail) };
        SinkError::Refused(Box::new(halt))
    };
    client.batch_execute(catalog::EMPTY_PATH).await.map_err(failed)?;
    let name = [&*relation.schema, &*relation.name];
    let rows = query(client, catalog::TABLE, name.map(str::to_owned).into()).await?;
    let root = rows.first().map(root_of).transpose()?;
    let root = root.as_ref().map_or(name, |root| root.each_ref().map(|it| &**it));
    accepted.accept(name, root, offset)?;
    let Some(row) = rows.first() else {
        let detail = "the table does not exist in the database; create it".to_owned();
        return Err(refuse("missing_table", detail));
    };
    let (oid, kind): (String, String) = (text(row, 0)?, text(row, 1)?);
    if kind != "r" && kind != "p" {
        let detail = "what has this name in the database is not a table".to_owned();
        return Err(refuse("missing_table", detail));
    }
    let here = columns(client, &oid).await?;
    let unique = unique(client, &oid).await?;
    let find = |name: &str| here.iter().find(|column| column.name == name);
    let missing: Vec<_> = relation
        .columns
        .iter()
        .filter(|column| find(&column.name).is_none())
        .map(|column| column.name.clone())
        .collect();
    if !missing.is_empty() {
        let detail = format!("the table lacks the columns {}; add them", missing.join(", "));
        return Err(refuse("missing_column", detail));
    }
    let matched = relation.columns.iter().filter_map(|column| find(&column.name));
    if let Some(generated) = matched.clone().find(|column| column.generated) {
        let name = &generated.name;
        let detail = format!("the column {name} is sent with values, but is generated here");
        return Err(refuse("other", detail));
    }
    let sent = |name: &str| relation.columns.iter().any(|column| column.name == name);
    let table = Table {
        columns: matched.map(|column| column.column.clone()).collect(),
        extra: here
            .iter()
            .filter(|column| !column.generated && !sent(&column.name))
            .map(|column| column.name.clone())
            .collect(),
        partitioned: kind == "p",
        is_independent: row.try_get(2).map_err(failed)?,
        exclusions: row.try_get::<_, i64>(3).map_err(failed)?.unsigned_abs(),
        unique,
        relation: relation.clone(),
    };
    Ok(Found { table: Arc::new(table), oid })
}

/// The schema and name of what a table is part of, which is itself unless it is a partition; none if it is not there. No
/// other statement may be under way, and the search path is empty.
pub(super) async fn root(
    client: &Client,
    [schema, name]: [&str; 2],
) -> Result<Option<[String; 2]>, SinkError> {
    let names = vec![schema.to_owned(), name.to_owned()];
    query(client, catalog::TABLE, names).await?.first().map(root_of).transpose()
}

fn root_of(row: &Row) -> Result<[String; 2], SinkError> {
    Ok([text(row, 4)?, text(row, 5)?])
}

struct Here {
    name: String,
    generated: bool,
    column: Column,
}

async fn columns(client: &Client, oid: &str) -> Result<Vec<Here>, SinkError> {
    let rows = query(client, catalog::COLUMNS, vec![oid.to_owned()]).await?;
    rows.iter()
        .map(|row| {
            let schema: Option<String> = row.try_get(3).map_err(failed)?;
            let is_identity = row.try_get(4).map_err(failed)?;
            let equality = match schema {
                Some(schema) => Equality::Operator { schema, is_identity },
                None => Equality::Text,
            };
            let identity_always = row.try_get(2).map_err(failed)?;
            let is_array: bool = row.try_get(5).map_err(failed)?;
            let many = if is_array { Many::Array } else { Many::Texts };
            let many = many(text(row, 6)?, text(row, 7)?);
            let type_oid = row.try_get(8).map_err(failed)?;
            Ok(Here {
                name: text(row, 0)?,
                generated: row.try_get(1).map_err(failed)?,
                column: Column { equality, identity_always, many, type_oid },
            })
        })
        .collect()
}

async fn unique(client: &Client, oid: &str) -> Result<Vec<Unique>, SinkError> {
    let mut found: Vec<Unique> = Vec::new();
    for row in query(client, catalog::UNIQUE, vec![oid.to_owned()]).await? {
        let (name, column) = (text(&row, 0)?, text(&row, 2)?);
        match found.last_mut().filter(|last| last.name == name) {
            Some(last) => last.columns.push(column),
            None => {
                let primary = row.try_get(1).map_err(failed)?;
                found.push(Unique { name, primary, columns: vec![column] });
            }
        }
    }
    Ok(found)
}

/// Runs a query of ours with text parameters. No other statement may be under way.
pub(crate) async fn query(
    client: &Client,
    sql: &str,
    params: Vec<String>,
) -> Result<Vec<Row>, SinkError> {
    use futures_util::TryStreamExt;
    let params: Vec<_> = params.into_iter().map(Param::of).collect();
    let rows = client.query_raw(sql, params).await.map_err(failed)?;
    rows.try_collect().await.map_err(failed)
}

/// Runs a query of ours that answers with one boolean.
pub(crate) async fn ask(
    client: &Client,
    sql: &str,
    params: Vec<String>,
) -> Result<bool, SinkError> {
    let rows = query(client, sql, params).await?;
    let row = rows.first().ok_or_else(|| SinkError::refused("other", "an empty answer"))?;
    row.try_get(0).map_err(failed)
}

pub(crate) fn text(row: &Row, column: usize) -> Result<String, SinkError> {
    row.try_get(column).map_err(failed)
}

pub(crate) fn failed(error: tokio_postgres::Error) -> SinkError {
    About::default().failed(&error)
}
