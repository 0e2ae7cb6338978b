//! What the objects of the target are, in the words of definitions.

use thinwire_engine::model::{
    Constraint, Generated, Index, Kind, Partition, ReplicaIdentity, Table, TableColumn,
};
use tokio_postgres::{Client, Row};

use super::lookup::{ask, failed, query, text};
use crate::{
    SinkError,
    schema::{Here, Named},
    sql::objects as sql,
};

/// Looks an object up. No other statement may be under way, and the search path is empty.
pub(super) async fn here(client: &Client, object: &Named<'_>) -> Result<Here, SinkError> {
    let names = vec![object.schema.to_owned(), object.name.to_owned()];
    let is = |there| if there { Here::Something } else { Here::Nothing };
    match object.kind {
        Kind::Schema => Ok(is(ask(client, sql::HAS_SCHEMA, vec![object.name.to_owned()]).await?)),
        Kind::Routine => {
            let arguments = object.arguments.unwrap_or_default().to_owned();
            Ok(is(ask(client, sql::HAS_ROUTINE, [names, vec![arguments]].concat()).await?))
        }
        Kind::Enum | Kind::Composite | Kind::Domain | Kind::Range => {
            let rows = query(client, sql::TYPE, names).await?;
            let Some(row) = rows.first() else { return Ok(Here::Nothing) };
            if object.kind != Kind::Enum {
                return Ok(Here::Something);
            }
            let labels = query(client, sql::LABELS, vec![text(row, 0)?]).await?;
            let labels: Result<Vec<_>, _> = labels.iter().map(|row| text(row, 0)).collect();
            Ok(Here::Enum(labels?))
        }
        Kind::Sequence | Kind::View | Kind::Table => {
            let rows = query(client, sql::CLASS, names).await?;
            let Some(row) = rows.first() else { return Ok(Here::Nothing) };
            let (oid, kind) = (text(row, 0)?, text(row, 1)?);
            match object.kind == Kind::Table && (kind == "r" || kind == "p") {
                true => Ok(Here::Table(Box::new(table(client, &oid).await?))),
                false => Ok(Here::Something),
            }
        }
    }
}

async fn table(client: &Client, oid: &str) -> Result<Table, SinkError> {
    let of = |sql| query(client, sql, vec![oid.to_owned()]);
    let columns = of(sql::COLUMNS).await?.iter().map(column).collect::<Result<_, _>>()?;
    let constraints = of(sql::CONSTRAINTS).await?;
    let constraints = constraints.iter().map(|row| {
        let foreign = row.try_get(2).map_err(failed)?;
        Ok(Constraint { name: text(row, 0)?, definition: text(row, 1)?, foreign })
    });
    let indexes = of(sql::INDEXES).await?;
    let indexes =
        indexes.iter().map(|row| Ok(Index { name: text(row, 0)?, definition: text(row, 1)? }));
    let (constraints, indexes) = (
        constraints.collect::<Result<_, SinkError>>()?,
        indexes.collect::<Result<_, SinkError>>()?,
    );
    let identity = of(sql::IDENTITY).await?;
    let (identity, identity_index) = match identity.first() {
        Some(row) => (text(row, 0)?, row.try_get(1).map_err(failed)?),
        None => (String::new(), None),
    };
    let identity = match &*identity {
        "f" => ReplicaIdentity::Full,
        "n" => ReplicaIdentity::Nothing,
        "i" => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    };
    let (mut partition_of, mut inherits) = (None, Vec::new());
    for row in of(sql::PARENTS).await? {
        let (schema, name) = (text(&row, 0)?, text(&row, 1)?);
        match row.try_get::<_, Option<String>>(2).map_err(failed)? {
            Some(bound) => partition_of = Some(Partition { schema, name, bound }),
            None => inherits.push((schema, name)),
        }
    }
    let partition_key = None;
    Ok(Table {
        columns,
        constraints,
        indexes,
        identity,
        identity_index,
        partition_key,
        partition_of,
        inherits,
    })
}

fn column(row: &Row) -> Result<TableColumn, SinkError> {
    let (identity, generated) = (text(row, 6)?, text(row, 7)?);
    let generated = match (&*identity, &*generated) {
        ("a", _) => Some(Generated::IdentityAlways),
        ("d", _) => Some(Generated::IdentityByDefault),
        (_, "s") => Some(Generated::Stored),
        (_, "v") => Some(Generated::Virtual),
        _ => None,
    };
    Ok(TableColumn {
        number: row.try_get(0).map_err(failed)?,
        name: text(row, 1)?,
        data_type: text(row, 2)?,
        collation: row.try_get(3).map_err(failed)?,
        not_null: row.try_get(4).map_err(failed)?,
        default: row.try_get(5).map_err(failed)?,
        missing: None,
        generated,
        comment: row.try_get(8).map_err(failed)?,
    })
}
