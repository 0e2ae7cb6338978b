//! What a cluster may be asked to be, with defaults that suit tests.

use std::path::PathBuf;

/// How to make a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of `initdb` and `postgres`; found by itself when `None` (`THINWIRE_PG_BIN`,
    /// then the newest version below `/usr/lib/postgresql`, then `PATH`).
    pub bin: Option<PathBuf>,
    /// Settings for `postgresql.conf`, after and therefore over the defaults of this crate.
    pub settings: Vec<(String, String)>,
    /// The encoding of its databases. The locale is always `C`.
    pub encoding: String,
    /// The superuser's password. With one, every connection must authenticate by SCRAM; without,
    /// all are trusted.
    pub password: Option<String>,
    /// The whole of `pg_hba.conf`, instead of what `initdb` writes.
    pub hba: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bin: None,
            settings: Vec::new(),
            encoding: "UTF8".into(),
            password: None,
            hba: None,
        }
    }
}

impl Options {
    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Options {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Makes every connection authenticate by SCRAM; the superuser's password is this one.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Options {
        self.password = Some(password.into());
        self
    }

    /// Uses the server programs in this directory.
    #[must_use]
    pub fn with_bin(mut self, bin: impl Into<PathBuf>) -> Options {
        self.bin = Some(bin.into());
        self
    }

    /// The lines to append to the `postgresql.conf` of a major version. Where slots and origins are counted apart, there is
    /// room for as many of the one as of the other.
    pub(crate) fn configuration(&self, major: u32) -> String {
        let own = DEFAULTS.iter().map(|&(name, value)| (name, value));
        let asked = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let origins = |(name, value)| {
            (name == SLOTS && major >= COUNTS_ORIGINS)
                .then_some(("max_active_replication_origins", value))
        };
        own.chain(asked)
            .flat_map(|setting| [Some(setting), origins(setting)])
            .flatten()
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect()
    }
}

/// Small memory, room for slots, the safety settings of production. `dynamic_shared_memory_type`
/// keeps shared memory in the data directory, where it is removed with it even after a SIGKILL.
const DEFAULTS: [(&str, &str); 14] = [
    ("wal_level", "logical"),
    ("max_wal_senders", "20"),
    (SLOTS, "20"),
    ("max_connections", "60"),
    ("shared_buffers", "16MB"),
    ("min_wal_size", "32MB"),
    ("dynamic_shared_memory_type", "mmap"),
    ("huge_pages", "off"),
    ("jit", "off"),
    ("fsync", "on"),
    ("listen_addresses", "127.0.0.1"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];

const SLOTS: &str = "max_replication_slots";
/// The first version that counts replication origins apart from slots.
const COUNTS_ORIGINS: u32 = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_settings_come_last_and_quotes_are_doubled() {
        let text =
            Options::default().with("wal_level", "replica").with("a", "it's").configuration(15);
        assert!(text.ends_with("wal_level = 'replica'\na = 'it''s'\n"));
    }

    #[test]
    fn there_is_room_for_as_many_origins_as_slots_where_they_are_counted_apart() {
        let options = Options::default().with("max_replication_slots", "1000");
        assert!(options.configuration(18).ends_with("max_active_replication_origins = '1000'\n"));
        assert!(!options.configuration(17).contains("origins"));
    }
}
