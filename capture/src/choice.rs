//! What of the tables that are meant is captured: which operations, rows and columns.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    pattern::Pattern,
};

/// What of the tables that are meant is captured. The default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    operations: Operations,
    tables: BTreeMap<Name, Narrowing>,
}

/// A table's schema and name, as the catalogs have them.
pub(crate) type Name = (String, String);

/// Which kinds of changes are captured. The default is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations {
    pub(crate) insert: bool,
    pub(crate) update: bool,
    pub(crate) delete: bool,
    pub(crate) truncate: bool,
}

/// What of one table is captured; whatever is not said, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Narrowing {
    /// The condition on its rows, an expression of PostgreSQL.
    pub(crate) rows: Option<String>,
    /// The names of its columns.
    pub(crate) columns: Option<BTreeSet<String>>,
}

impl Choice {
    /// Chooses the operations.
    pub fn operate(&mut self, operations: Operations) {
        self.operations = operations;
    }

    /// Chooses the rows of a table, named as a pattern names one, by an expression of PostgreSQL.
    ///
    /// # Errors
    /// A sentence about a name that is none, or names several, and about an expression that is empty.
    pub fn filter(&mut self, table: &str, rows: &str) -> Result<()> {
        let rows = rows.trim();
        if rows.is_empty() {
            return Err(Error::Refused("an expression, such as \"site = 7\"".to_owned()));
        }
        self.narrow(table)?.rows = Some(rows.to_owned());
        Ok(())
    }

    /// Chooses the columns of a table, named as a pattern names one.
    ///
    /// # Errors
    /// A sentence about a name that is none, or names several, and about a list that is empty or has a column twice.
    pub fn list<T: AsRef<str>>(&mut self, table: &str, columns: &[T]) -> Result<()> {
        let names: BTreeSet<String> = columns.iter().map(|it| it.as_ref().to_owned()).collect();
        if names.is_empty() || names.len() < columns.len() || names.contains("") {
            return Err(Error::Refused("a list of columns, each once".to_owned()));
        }
        self.narrow(table)?.columns = Some(names);
        Ok(())
    }

    fn narrow(&mut self, table: &str) -> Result<&mut Narrowing> {
        Ok(self.tables.entry(Pattern::literal(table)?).or_default())
    }

    pub(crate) fn operations(&self) -> Operations {
        self.operations
    }

    /// What of this table is captured.
    pub(crate) fn of(&self, schema: &str, table: &str) -> &Narrowing {
        let name = (schema.to_owned(), table.to_owned());
        self.tables.get(&name).unwrap_or(&Narrowing::NONE)
    }

    /// The tables of which not everything is captured.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&Name, &Narrowing)> {
        self.tables.iter()
    }

    /// The same for the source's own functions.
    pub(crate) fn to_json(&self) -> String {
        let tables = self.tables.iter().map(|((schema, name), it)| {
            json!({ "schema": schema, "name": name, "rows": it.rows, "columns": it.columns })
        });
        let tables: Vec<Value> = tables.collect();
        json!({ "identified": self.operations.need_identity(), "tables": tables }).to_string()
    }
}

impl Narrowing {
    pub(crate) const NONE: Self = Self { rows: None, columns: None };

    pub(crate) fn is_all(&self) -> bool {
        *self == Self::NONE
    }
}

impl Operations {
    /// Reads operations as the configuration has them.
    ///
    /// # Errors
    /// A sentence about a word that is none, or about none at all.
    pub fn parse<T: AsRef<str>>(words: &[T]) -> Result<Self> {
        let mut all = Self { insert: false, update: false, delete: false, truncate: false };
        for word in words {
            *match word.as_ref() {
                "insert" => &mut all.insert,
                "update" => &mut all.update,
                "delete" => &mut all.delete,
                "truncate" => &mut all.truncate,
                _ => return Err(Error::Refused(OPERATIONS.to_owned())),
            } = true;
        }
        match words.is_empty() {
            true => Err(Error::Refused(OPERATIONS.to_owned())),
            false => Ok(all),
        }
    }

    /// Whether old rows are told apart, so that every table needs what identifies them.
    pub(crate) fn need_identity(self) -> bool {
        self.update || self.delete
    }

    /// Whether one is among these that is not among `others`.
    pub(crate) fn exceed(self, others: Self) -> bool {
        let both = self.each().into_iter().zip(others.each());
        both.into_iter().any(|((_, here), (_, there))| here && !there)
    }

    /// As PostgreSQL writes them.
    pub(crate) fn list(self) -> String {
        let chosen: Vec<&str> =
            self.each().into_iter().filter_map(|(word, is)| is.then_some(word)).collect();
        chosen.join(", ")
    }

    fn each(self) -> [(&'static str, bool); 4] {
        [
            ("insert", self.insert),
            ("update", self.update),
            ("delete", self.delete),
            ("truncate", self.truncate),
        ]
    }
}

impl Default for Operations {
    fn default() -> Self {
        Self { insert: true, update: true, delete: true, truncate: true }
    }
}

const OPERATIONS: &str = "some of \"insert\", \"update\", \"delete\" and \"truncate\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_chosen_for_one_table_each() {
        let mut choice = Choice::default();
        choice.filter("shop.orders", " site = 7 ").unwrap();
        choice.list("shop.orders", &["id", "site"]).unwrap();
        choice.list(r#"shop."or*ders""#, &["a"]).unwrap();
        let orders = choice.of("shop", "orders");
        assert_eq!(orders.rows.as_deref(), Some("site = 7"));
        assert_eq!(orders.columns, Some(["id".to_owned(), "site".to_owned()].into()));
        assert!(choice.of("shop", "or*ders").rows.is_none());
        assert!(choice.of("shop", "others").is_all());
        for bad in ["orders", "shop.*", "!shop.orders", "shop.a.b", ""] {
            assert!(choice.filter(bad, "true").is_err(), "{bad}");
        }
        assert!(choice.filter("shop.orders", " \n").is_err());
        assert!(choice.list::<&str>("shop.orders", &[]).is_err());
        assert!(choice.list("shop.orders", &["a", "a"]).is_err());
    }

    #[test]
    fn operations_are_read_and_written() {
        let some = Operations::parse(&["delete", "insert"]).unwrap();
        assert_eq!(some.list(), "insert, delete");
        assert!(some.need_identity() && Operations::default().exceed(some));
        assert!(!some.exceed(Operations::default()));
        assert!(!Operations::parse(&["insert", "truncate"]).unwrap().need_identity());
        assert!(Operations::parse(&["upsert"]).is_err());
        assert!(Operations::parse::<&str>(&[]).is_err());
    }
}
