//! Which of the target's tables streams may write to.

use std::{fmt, sync::Arc};

use thinwire_engine::model::{Halt, Offset};

use crate::SinkError;

/// The tables of users that streams may write to, whatever their peers say: all of them, unless somebody has chosen. What
/// PostgreSQL and Thinwire keep for themselves is never among them.
#[derive(Clone, Default)]
pub struct Tables(Option<Arc<Choice>>);

/// Whether a table is chosen, by its schema and name.
type Choice = dyn Fn(&str, &str) -> bool + Send + Sync;

impl Tables {
    /// Those of which this is true, by schema and name.
    pub fn only(choice: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(choice)))
    }

    /// Whether a table is one of them. A partition is if that is of which it is part: it has no name of its own here.
    pub(crate) fn has(&self, schema: &str, name: &str) -> bool {
        !is_reserved(schema) && self.0.as_ref().is_none_or(|choice| choice(schema, name))
    }

    /// Refuses a table that is not one of them, by its own name and that of which it is part, which is itself unless it is
    /// a partition.
    pub(crate) fn accept(
        &self,
        [schema, name]: [&str; 2],
        root: [&str; 2],
        at: Offset,
    ) -> Result<(), SinkError> {
        if !is_reserved(schema) && self.has(root[0], root[1]) {
            return Ok(());
        }
        let table = Some(format!("{schema}.{name}"));
        let halt = Halt::new("table_not_accepted", NOT_ACCEPTED);
        Err(SinkError::Refused(Box::new(Halt { offset: Some(at), table, ..halt })))
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_none() { "all" } else { "chosen" })
    }
}

/// Whether a schema is PostgreSQL's or ours.
pub(crate) fn is_reserved(schema: &str) -> bool {
    schema.starts_with("pg_") || matches!(schema, "information_schema" | "thinwire" | "")
}

const NOT_ACCEPTED: &str = "streams may not write to this table here; add it to tables under [apply] and run `thinwire init`, \
                            or have it not captured; a partition is meant by the table of which it is part";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_kept_and_what_is_nobodys_is_never_chosen() {
        let chosen = Tables::only(|schema, name| schema == "shop" && name != "staff");
        assert!(chosen.has("shop", "orders"));
        assert!(!chosen.has("shop", "staff") && !chosen.has("public", "orders"));
        assert!(Tables::default().has("shop", "staff"));
        for reserved in ["thinwire", "pg_catalog", "pg_temp_3", "information_schema", ""] {
            assert!(!Tables::default().has(reserved, "t"), "{reserved}");
            assert!(!Tables::only(|_, _| true).has(reserved, "t"), "{reserved}");
        }
    }
}
