//! What the target's answers mean: weather, a conflict, or a record that it cannot take; and what is declared to be done
//! about conflicts.
//!
//! Nothing that a user stored may get into a log or a status: of what PostgreSQL says, DETAIL is never used, and of
//! messages that quote values only the part that does not.

use std::sync::atomic::{AtomicU64, Ordering};

use thinwire_engine::model::Halt;
use tokio_postgres::error::{DbError, SqlState};

use crate::SinkError;

/// What to do when a row is not what a change expects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// Halt the stream.
    #[default]
    Stop,
    /// The change wins: a row that exists is overwritten, a missing one is added if all of it was sent.
    ApplyRemote,
    /// The row at the target wins: the change has no effect.
    KeepLocal,
    /// The change that was committed last wins. Not available yet: streams halt at once with a sentence that says so.
    LastUpdateWins,
}

/// What to do when somebody else than the stream's origin changed a row last. Only a target that keeps commit timestamps knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginDiffers {
    /// The change is made.
    #[default]
    Apply,
    /// The row stays as it is.
    Skip,
    /// Halt the stream.
    Stop,
    /// The change is made if it was committed later, by the clocks of those who did.
    LastUpdateWins,
}

/// What to do with rows that a table has before a copy of it is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Halt the stream.
    #[default]
    Stop,
    /// Keep them; those with the key of a copied row become like it.
    Merge,
    /// Remove them.
    Replace,
}

/// How often each kind of conflict was met: one that a policy resolved counts once it is committed, one that halts the
/// stream when the halt is declared.
#[derive(Debug, Default)]
pub struct ConflictCounts([AtomicU64; Conflict::ALL.len()]);

impl Clone for ConflictCounts {
    fn clone(&self) -> Self {
        Self(std::array::from_fn(|at| AtomicU64::new(self.0[at].load(Ordering::Relaxed))))
    }
}

impl ConflictCounts {
    /// Every kind by its name, with how often it was met.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Conflict::ALL.into_iter().map(|conflict| (conflict.code(), self.of(conflict)))
    }

    /// A row to be added was there already. With `apply_remote` such rows are overwritten without being counted.
    pub fn insert_exists(&self) -> u64 {
        self.of(Conflict::InsertExists)
    }

    /// A row to be changed was not there.
    pub fn update_missing(&self) -> u64 {
        self.of(Conflict::UpdateMissing)
    }

    /// A row to be removed was not there.
    pub fn delete_missing(&self) -> u64 {
        self.of(Conflict::DeleteMissing)
    }

    /// Counts here what was counted there, and nothing there any more.
    pub(crate) fn take_over(&self, other: &Self) {
        for (to, from) in self.0.iter().zip(&other.0) {
            to.fetch_add(from.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self, conflict: Conflict, times: u64) {
        self.0[conflict as usize].fetch_add(times, Ordering::Relaxed);
    }

    fn of(&self, conflict: Conflict) -> u64 {
        self.0[conflict as usize].load(Ordering::Relaxed)
    }
}

/// How a row is not what a change expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    InsertExists,
    UpdateExists,
    MultipleUnique,
    UpdateMissing,
    UpdateOriginDiffers,
    DeleteMissing,
    DeleteOriginDiffers,
}

impl Conflict {
    /// Every kind, in the order of their numbers.
    pub(crate) const ALL: [Self; 7] = [
        Self::InsertExists,
        Self::UpdateExists,
        Self::MultipleUnique,
        Self::UpdateMissing,
        Self::UpdateOriginDiffers,
        Self::DeleteMissing,
        Self::DeleteOriginDiffers,
    ];

    /// Its name in a halt, in the log and in counts.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::InsertExists => "insert_exists",
            Self::UpdateExists => "update_exists",
            Self::MultipleUnique => "multiple_unique_conflicts",
            Self::UpdateMissing => "update_missing",
            Self::UpdateOriginDiffers => "update_origin_differs",
            Self::DeleteMissing => "delete_missing",
            Self::DeleteOriginDiffers => "delete_origin_differs",
        }
    }

    /// The kind that a halt has in its code.
    pub(crate) fn of(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|conflict| conflict.code() == code)
    }
}

/// What a failed call on the database means.
pub(crate) fn classify(error: &tokio_postgres::Error) -> SinkError {
    match error.as_db_error() {
        Some(answer) => classify_answer(answer),
        // Without an answer of the server, it is the connection that failed.
        None => SinkError::Weather(sentence(error)),
    }
}

/// What the failure to connect means: also where a password is wrong.
pub(crate) fn sentence(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn classify_answer(answer: &DbError) -> SinkError {
    let state = answer.code();
    if is_weather(state) && !is_timed_out(answer) {
        return SinkError::Weather(format!("{} ({})", answer.message(), state.code()));
    }
    let table = answer.table().map(|table| match answer.schema() {
        Some(schema) => format!("{schema}.{table}"),
        None => table.to_owned(),
    });
    SinkError::Refused(Box::new(Halt { table, ..Halt::new(code(state), detail(answer)) }))
}

/// What goes away by itself: the connection, locks, shutdown, failover, a full disk. Not a transaction that was ended for being
/// idle: none of ours can be, unless a trigger sets that.
fn is_weather(state: &SqlState) -> bool {
    let passing = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::QUERY_CANCELED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::OBJECT_IN_USE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IN_FAILED_SQL_TRANSACTION,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::IO_ERROR,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::DISK_FULL,
        SqlState::OUT_OF_MEMORY,
    ];
    // 57P05 is a session that was ended for being idle.
    passing.contains(state) || state.code().starts_with("08") || state.code() == "57P05"
}

/// Whether a statement took longer than a trigger allows it: no session of ours limits that, so it would be so each time.
fn is_timed_out(answer: &DbError) -> bool {
    *answer.code() == SqlState::QUERY_CANCELED && answer.message().ends_with("statement timeout")
}

/// Whether a session's prepared statements are gone, which only code that runs in it can bring about.
pub(crate) fn is_robbed(error: &SinkError) -> bool {
    matches!(error, SinkError::Refused(halt) if halt.code == STATEMENTS_GONE)
}

const STATEMENTS_GONE: &str = "statements_gone";

fn code(state: &SqlState) -> &'static str {
    match state.code() {
        "42P01" | "3F000" => "missing_table",
        "42703" => "missing_column",
        "26000" => STATEMENTS_GONE,
        "42501" | "28000" | "28P01" => "permission_denied",
        text if text.starts_with("23") => "constraint",
        text if text.starts_with("22") => "bad_value",
        _ => "other",
    }
}

/// What PostgreSQL said, without what it may have quoted of a row.
fn detail(answer: &DbError) -> String {
    let state = answer.code().code();
    let said = match state.get(..2) {
        // The bytes that it names are of a value.
        _ if state == UNTRANSLATABLE => {
            let encoding = answer.message().rsplit('"').nth(1).unwrap_or("of the database");
            format!("a value has a character that the encoding {encoding} lacks")
        }
        // These name objects of the schema only.
        Some("23" | "28" | "2F" | "3F" | "42" | "53" | "54" | "55" | "57") => {
            answer.message().to_owned()
        }
        // A message that a trigger or function composed may hold anything.
        Some("P0") => "a trigger or function raised an error".to_owned(),
        _ => unquoted(answer.message()),
    };
    let cure =
        if *answer.code() == SqlState::UNSAFE_NEW_ENUM_VALUE_USAGE { LABEL_CURE } else { "" };
    let constraint = answer.constraint().filter(|name| !said.contains(name));
    let constraint = constraint.map(|name| format!(", constraint {name}")).unwrap_or_default();
    let column = answer.column().filter(|name| !said.contains(name));
    let column = column.map(|name| format!(", column {name}")).unwrap_or_default();
    format!("{said}{constraint}{column} ({state}){cure}")
}

/// PostgreSQL lets a label be used only when the transaction that added it is over.
const LABEL_CURE: &str =
    "; add the label here by hand (ALTER TYPE … ADD VALUE), then run `thinwire retry`";

/// A character that one encoding has and another has not.
const UNTRANSLATABLE: &str = "22P05";

/// A message without what it quotes.
fn unquoted(message: &str) -> String {
    let mut parts = message.split('"');
    let mut out = parts.next().unwrap_or_default().to_owned();
    // From the first quote to the last: a value may hold quotes itself.
    if let Some(last) = parts.next_back() {
        out.push('…');
        out.push_str(last);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_quotes_is_left_out() {
        assert_eq!(
            unquoted("invalid input syntax for type integer: \"secret\""),
            "invalid input syntax for type integer: …"
        );
        assert_eq!(unquoted("value \"a\"b\" is out of range"), "value … is out of range");
        assert_eq!(unquoted("integer out of range"), "integer out of range");
    }

    #[test]
    fn every_kind_of_conflict_has_its_own_name_and_count() {
        let counts = ConflictCounts::default();
        for (times, conflict) in (1..).zip(Conflict::ALL) {
            counts.count(conflict, times);
            assert_eq!(Conflict::of(conflict.code()), Some(conflict));
        }
        assert!(counts.all().map(|(_, count)| count).eq(1..=Conflict::ALL.len() as u64));
        assert_eq!(Conflict::of("bad_value"), None);
    }

    #[test]
    fn what_passes_is_weather_and_the_rest_has_a_code() {
        for state in ["40P01", "08006", "57P01", "53100", "53300", "55006", "25006", "57P05"] {
            assert!(is_weather(&SqlState::from_code(state)), "{state}");
        }
        for (state, expected) in [
            ("23505", "constraint"),
            ("42P01", "missing_table"),
            ("42703", "missing_column"),
            ("42501", "permission_denied"),
            ("22P02", "bad_value"),
            ("XX000", "other"),
            ("53400", "other"),
            // A session of ours can be ended for being idle in a transaction only by what a trigger has set.
            ("25P03", "other"),
        ] {
            let state = SqlState::from_code(state);
            assert!(!is_weather(&state));
            assert_eq!(code(&state), expected);
        }
    }
}
