//! Prepared statements of a session, by table and shape; those used longest ago are forgotten.

use std::{collections::HashMap, sync::Arc};

use thinwire_engine::model::RelationId;
use tokio_postgres::{Client, Statement};

use super::about::About;
use crate::{
    SinkError,
    plan::{Shape, Table},
    sql,
};

/// The prepared statements.
#[derive(Default)]
pub(super) struct Statements {
    known: HashMap<(RelationId, Shape), Known>,
    fixed: HashMap<&'static str, Statement>,
    clock: u64,
}

struct Known {
    statement: Statement,
    used: u64,
}

impl Statements {
    /// A statement that was prepared before.
    pub(super) fn known(&mut self, table: &Table, shape: &Shape) -> Option<Statement> {
        self.clock += 1;
        let known = self.known.get_mut(&(table.relation.id, shape.clone()))?;
        known.used = self.clock;
        Some(known.statement.clone())
    }

    /// Prepares a statement. No other may be under way: their answers would have to be taken meanwhile.
    pub(super) async fn prepare(
        &mut self,
        client: &Client,
        table: &Arc<Table>,
        shape: Shape,
        about: &About,
    ) -> Result<Statement, SinkError> {
        let text = sql::statement(table, &shape);
        let statement = client.prepare(&text).await.map_err(|error| about.failed(&error))?;
        if self.known.len() >= STATEMENTS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.known.remove(&key);
            }
        }
        let known = Known { statement: statement.clone(), used: self.clock };
        self.known.insert((table.relation.id, shape), known);
        Ok(statement)
    }

    /// A statement of ours, if it is prepared.
    pub(super) fn fixed(&self, text: &'static str) -> Option<Statement> {
        self.fixed.get(text).cloned()
    }

    /// Prepares a statement of ours. No other may be under way.
    pub(super) async fn prepare_fixed(
        &mut self,
        client: &Client,
        text: &'static str,
    ) -> Result<(), SinkError> {
        let prepared = client.prepare(text).await;
        let statement = prepared.map_err(|error| About::default().failed(&error))?;
        self.fixed.insert(text, statement);
        Ok(())
    }

    /// Forgets the statements on one table.
    pub(super) fn forget(&mut self, relation: RelationId) {
        self.known.retain(|(id, _), _| *id != relation);
    }

    /// Forgets all statements on tables.
    pub(super) fn forget_all(&mut self) {
        self.known.clear();
    }
}

/// Prepared statements that a session keeps: each holds a plan in the server's memory.
const STATEMENTS_MAX: usize = 256;
