//! The configuration: a file as it was typed, made into a value that cannot be invalid.

mod error;
mod file;
mod link;
mod size;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use error::ConfigError;
use file::{Document, File};
use thinwire_apply::{Conflicts, Existing, OriginDiffers, Tables};
use thinwire_capture::{Choice, Ddl, OnFull, Operations, Patterns};
use thinwire_engine::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use thinwire_transport::{Peer, PublicKey, Streams};
use toml::Spanned;

use crate::{access::Terms, database::Database};

/// What a node is to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that says so.
    pub file: PathBuf,
    /// The node's name, a label.
    pub name: String,
    /// Its folder: identity, journal, state, control socket.
    pub dir: PathBuf,
    /// Where it accepts peers; none if it only dials.
    pub listen: Option<SocketAddr>,
    /// Where it shows its status over HTTP.
    pub status: Option<SocketAddr>,
    /// Its database; none if it only relays.
    pub database: Option<Database>,
    /// What it captures.
    pub capture: Option<Capture>,
    /// How it applies.
    pub apply: Option<Apply>,
    /// How it keeps its journal.
    pub journal: Journal,
    /// With whom it exchanges streams. Peers whose key is not known yet are left out.
    pub peers: Vec<Peer>,
    /// When each of these peers is talked to, and how much, by name.
    pub terms: BTreeMap<String, Terms>,
    /// The names of peers whose key is not known yet.
    pub keyless_peers: Vec<String>,
}

/// What is captured.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The tables.
    pub tables: Patterns,
    /// What of them.
    pub choice: Choice,
    /// What to do about schema changes.
    pub ddl: Ddl,
}

/// How streams are applied.
#[derive(Debug, Clone)]
pub struct Apply {
    /// What to do when a row is not what a change expects.
    pub conflicts: Conflicts,
    /// What to do when somebody else changed a row last that is to be changed.
    pub update_origin_differs: OriginDiffers,
    /// The same of a row that is to be removed.
    pub delete_origin_differs: OriginDiffers,
    /// What to do with rows that a copy finds in its target.
    pub existing: Existing,
    /// The database with the login that changes its schema, if that is another.
    pub owner: Option<Database>,
    /// The tables that streams may write to.
    pub tables: Tables,
}

impl Apply {
    /// Whether what is declared needs a target that knows who changed a row last.
    pub fn needs_commit_timestamps(&self) -> bool {
        let declared = [self.update_origin_differs, self.delete_origin_differs];
        declared.iter().any(|it| *it != OriginDiffers::Apply)
    }
}

/// How the journal is kept.
#[derive(Debug, Clone)]
pub struct Journal {
    /// Bytes on disk, of all streams.
    pub budget: u64,
    /// How long what everybody has is kept.
    pub retention: Duration,
    /// How long it takes to read all of it in the background, which is done again and again; zero for never.
    pub scrub: Duration,
    /// Bytes of a segment.
    pub segment: u64,
    /// What capture does when there is no room.
    pub on_full: OnFull,
}

/// Damage is found while peers, which keep what they have for their own reasons, are likely to have it still.
const SCRUB_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
/// A sidecar beside a small database should not need more than a small part of its disk.
const BUDGET_DEFAULT: u64 = 10 << 30;
/// Below this a budget cannot hold the segments that make trimming possible.
const BUDGET_MIN: u64 = 4 << 20;
/// Long enough for a person to look at what was just sent.
const RETENTION_DEFAULT: Duration = Duration::from_secs(3_600);
/// Large enough that creating one is rare, small enough that opening the journal takes a moment.
const SEGMENT_DEFAULT: u64 = 64 << 20;

impl Config {
    /// Reads the file at `path` and the environment.
    ///
    /// # Errors
    /// One sentence that names the file, the line and the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::unread(path, &error))?;
        Self::parse(path, &text)
    }

    /// The same, of text that was read from `path`.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let document = Document::new(path, text);
        let file: File = document.read()?;
        let node = &file.node;
        check_name(&document, "node.name", &node.name)?;
        let beside = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = match &node.dir {
            Some(dir) => dir.get_ref().clone(),
            None => beside.unwrap_or(Path::new(".")).join(node.name.get_ref()),
        };
        let listen =
            node.listen.as_ref().map(|text| address(&document, "node.listen", text)).transpose()?;
        let status =
            node.status.as_ref().map(|text| address(&document, "node.status", text)).transpose()?;
        let database = database(&document, &file)?;
        for (table, present) in
            [("capture", file.capture.is_some()), ("apply", file.apply.is_some())]
        {
            if present && database.is_none() {
                return Err(document.error(table, 0..0, "needs a [database]"));
            }
        }
        let Peers { peers, terms, keyless } = peers(&document, &file)?;
        Ok(Self {
            file: path.to_owned(),
            name: node.name.get_ref().clone(),
            dir,
            listen,
            status,
            database,
            capture: file.capture.as_ref().map(|table| capture(&document, table)).transpose()?,
            apply: file.apply.as_ref().map(|table| apply(&document, table)).transpose()?,
            journal: journal(&document, file.journal.as_ref())?,
            peers,
            terms,
            keyless_peers: keyless,
        })
    }

    /// The peers whose changes this node both applies and would send on as part of a copy of its own tables: a copy has all rows,
    /// whoever wrote them.
    pub fn copied_with(&self) -> Vec<&str> {
        if self.capture.is_none() || self.apply.is_none() {
            return Vec::new();
        }
        let received =
            |peer: &&Peer| !matches!(&peer.receive, Streams::Listed(list) if list.is_empty());
        self.peers.iter().filter(received).map(|peer| &*peer.name).collect()
    }

    /// What there is to say about that.
    pub fn copy_warning(&self) -> Option<String> {
        let peers = self.copied_with();
        (!peers.is_empty()).then(|| {
            format!(
                "a copy of this node's tables also holds the rows that are applied here from {}; where these peers' own \
                 streams bring them too, set existing = \"merge\" under [apply]",
                peers.join(", ")
            )
        })
    }

    /// Where the identity key is.
    pub fn key_path(&self) -> PathBuf {
        self.dir.join("identity.key")
    }

    /// Where the journal is.
    pub fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Where rebuildable state is.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Where commands reach the running node.
    pub fn control_path(&self) -> PathBuf {
        self.dir.join("control.sock")
    }
}

fn check_name(
    document: &Document<'_>,
    key: &str,
    name: &Spanned<String>,
) -> Result<(), ConfigError> {
    let text = name.get_ref();
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || text.len() > 40 || !text.chars().all(valid) {
        let why = "a name is 1 to 40 letters, digits, '-' and '_'";
        return Err(document.error(key, name.span(), why));
    }
    Ok(())
}

fn address(
    document: &Document<'_>,
    key: &str,
    text: &Spanned<String>,
) -> Result<SocketAddr, ConfigError> {
    match text.get_ref().parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(address),
        Ok(_) => Err(document.error(key, text.span(), "a port is a number from 1 to 65535")),
        Err(_) => {
            let why = "not an address and port, such as 0.0.0.0:7420";
            Err(document.error(key, text.span(), why))
        }
    }
}

fn database(document: &Document<'_>, file: &File) -> Result<Option<Database>, ConfigError> {
    let Some(table) = &file.database else { return Ok(None) };
    Database::parse(table.url.get_ref())
        .map(Some)
        .map_err(|error| document.error("database.url", table.url.span(), error.to_string()))
}

fn capture(document: &Document<'_>, table: &file::Capture) -> Result<Capture, ConfigError> {
    if let Some(mode) = &table.mode
        && mode.get_ref() != "slot"
    {
        return Err(document.error("capture.mode", mode.span(), "only \"slot\" is known"));
    }
    let ddl = match table.ddl.as_ref().map(|word| (word.get_ref().as_str(), word.span())) {
        None | Some(("stop", _)) => Ddl::Stop,
        Some(("replicate", _)) => Ddl::Replicate,
        Some((_, span)) => {
            return Err(document.error("capture.ddl", span, "\"stop\" or \"replicate\""));
        }
    };
    let tables = patterns(document, "capture.tables", &table.tables)?;
    Ok(Capture { tables, choice: choice(document, table)?, ddl })
}

/// Which tables are meant: at least one pattern.
fn patterns(
    document: &Document<'_>,
    key: &str,
    texts: &[Spanned<String>],
) -> Result<Patterns, ConfigError> {
    if texts.is_empty() {
        let why = "name at least one table, such as \"public.*\"";
        return Err(document.error(key, 0..0, why));
    }
    for text in texts {
        Patterns::parse(&[text.get_ref()])
            .map_err(|error| document.error(key, text.span(), error.to_string()))?;
    }
    let texts: Vec<_> = texts.iter().map(Spanned::get_ref).collect();
    Patterns::parse(&texts).map_err(|error| document.error(key, 0..0, error.to_string()))
}

/// What of the tables is captured.
fn choice(document: &Document<'_>, table: &file::Capture) -> Result<Choice, ConfigError> {
    let mut choice = Choice::default();
    if let Some(words) = &table.operations {
        let operations = Operations::parse(words.get_ref()).map_err(|error| {
            document.error("capture.operations", words.span(), error.to_string())
        })?;
        choice.operate(operations);
    }
    for (name, rows) in &table.rows {
        choice
            .filter(name, rows.get_ref())
            .map_err(|error| document.error("capture.rows", rows.span(), error.to_string()))?;
    }
    for (name, columns) in &table.columns {
        choice.list(name, columns.get_ref()).map_err(|error| {
            document.error("capture.columns", columns.span(), error.to_string())
        })?;
    }
    Ok(choice)
}

fn apply(document: &Document<'_>, table: &file::Apply) -> Result<Apply, ConfigError> {
    let word = |word: &Option<Spanned<String>>| {
        word.as_ref().map(|word| (word.get_ref().clone(), word.span()))
    };
    let conflicts = match word(&table.conflicts).as_ref().map(|(word, span)| (word.as_str(), span))
    {
        None | Some(("stop", _)) => Conflicts::Stop,
        Some(("apply_remote", _)) => Conflicts::ApplyRemote,
        Some(("keep_local", _)) => Conflicts::KeepLocal,
        Some(("last_update_wins", span)) => {
            let why = "\"last_update_wins\" is not built into this version";
            return Err(document.error("apply.conflicts", span.clone(), why));
        }
        Some((_, span)) => {
            let why = "\"stop\", \"apply_remote\" or \"keep_local\"";
            return Err(document.error("apply.conflicts", span.clone(), why));
        }
    };
    let existing = match word(&table.existing).as_ref().map(|(word, span)| (word.as_str(), span)) {
        None | Some(("stop", _)) => Existing::Stop,
        Some(("merge", _)) => Existing::Merge,
        Some(("replace", _)) => Existing::Replace,
        Some((_, span)) => {
            let why = "\"stop\", \"merge\" or \"replace\"";
            return Err(document.error("apply.existing", span.clone(), why));
        }
    };
    let owner = table.ddl_url.as_ref().map(|url| {
        Database::parse(url.get_ref())
            .map_err(|error| document.error("apply.ddl_url", url.span(), error.to_string()))
    });
    Ok(Apply {
        conflicts,
        update_origin_differs: origin_differs(
            document,
            "apply.update_origin_differs",
            table.update_origin_differs.as_ref(),
        )?,
        delete_origin_differs: origin_differs(
            document,
            "apply.delete_origin_differs",
            table.delete_origin_differs.as_ref(),
        )?,
        existing,
        owner: owner.transpose()?,
        tables: match &table.tables {
            Some(texts) => {
                let patterns = patterns(document, "apply.tables", texts)?;
                Tables::only(move |schema, name| patterns.matches(schema, name))
            }
            None => Tables::default(),
        },
    })
}

fn origin_differs(
    document: &Document<'_>,
    key: &str,
    word: Option<&Spanned<String>>,
) -> Result<OriginDiffers, ConfigError> {
    match word.map(|word| (word.get_ref().as_str(), word.span())) {
        None | Some(("apply", _)) => Ok(OriginDiffers::Apply),
        Some(("skip", _)) => Ok(OriginDiffers::Skip),
        Some(("stop", _)) => Ok(OriginDiffers::Stop),
        Some(("last_update_wins", _)) => Ok(OriginDiffers::LastUpdateWins),
        Some((_, span)) => {
            let why = "\"apply\", \"skip\", \"stop\" or \"last_update_wins\"";
            Err(document.error(key, span, why))
        }
    }
}

fn journal(document: &Document<'_>, table: Option<&file::Journal>) -> Result<Journal, ConfigError> {
    let bytes = |key: &str, text: Option<&Spanned<String>>, default: u64, range: (u64, u64)| {
        let Some(text) = text else { return Ok(default) };
        let bytes = size::bytes(text.get_ref())
            .ok_or_else(|| document.error(key, text.span(), "not a size, such as \"64MiB\""))?;
        if bytes < range.0 || bytes > range.1 {
            let why = format!("must be {} to {} bytes", range.0, range.1);
            return Err(document.error(key, text.span(), why));
        }
        Ok(bytes)
    };
    let duration = |key: &str, text: Option<&Spanned<String>>, default: Duration| {
        let Some(text) = text else { return Ok(default) };
        let why = "not a time, such as \"90s\" or \"1h\"";
        size::duration(text.get_ref()).ok_or_else(|| document.error(key, text.span(), why))
    };
    let empty = file::Journal::default();
    let table = table.unwrap_or(&empty);
    let on_full = match table.on_full.as_ref().map(|word| (word.get_ref().as_str(), word.span())) {
        None | Some(("hold_wal", _)) => OnFull::HoldWal,
        Some(("resync", _)) => OnFull::Resync,
        Some((_, span)) => {
            return Err(document.error("journal.on_full", span, "\"hold_wal\" or \"resync\""));
        }
    };
    Ok(Journal {
        budget: bytes(
            "journal.budget",
            table.budget.as_ref(),
            BUDGET_DEFAULT,
            (BUDGET_MIN, u64::MAX),
        )?,
        retention: duration("journal.retention", table.retention.as_ref(), RETENTION_DEFAULT)?,
        scrub: duration("journal.scrub", table.scrub.as_ref(), SCRUB_DEFAULT)?,
        segment: bytes(
            "journal.segment",
            table.segment.as_ref(),
            SEGMENT_DEFAULT,
            (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
        )?,
        on_full,
    })
}

/// What is said about peers.
#[derive(Default)]
struct Peers {
    peers: Vec<Peer>,
    terms: BTreeMap<String, Terms>,
    keyless: Vec<String>,
}

fn peers(document: &Document<'_>, file: &File) -> Result<Peers, ConfigError> {
    let Peers { mut peers, mut terms, mut keyless } = Peers::default();
    for peer in &file.peer {
        check_name(document, "peer.name", &peer.name)?;
        let name = peer.name.get_ref().clone();
        if &name == file.node.name.get_ref() {
            let why = "this is the name of the node itself";
            return Err(document.error("peer.name", peer.name.span(), why));
        }
        if peers.iter().any(|known| known.name == name) || keyless.contains(&name) {
            return Err(document.error("peer.name", peer.name.span(), "two peers have this name"));
        }
        let Some(key) = peer.key.as_ref().filter(|key| !key.get_ref().is_empty()) else {
            keyless.push(name);
            continue;
        };
        let public: PublicKey = key
            .get_ref()
            .parse()
            .map_err(|error| document.error("peer.key", key.span(), format!("{error}")))?;
        if peers.iter().any(|known| known.key == public) {
            return Err(document.error("peer.key", key.span(), "two peers have this key"));
        }
        terms.insert(name.clone(), link::terms(document, peer)?);
        peers.push(Peer {
            name,
            key: public,
            address: peer.address.as_ref().map(|text| dial(document, text)).transpose()?,
            send: streams(document, "peer.send", peer.send.as_ref())?,
            receive: streams(document, "peer.receive", peer.receive.as_ref())?,
            rules: link::rules(document, peer)?,
        });
    }
    Ok(Peers { peers, terms, keyless })
}

/// A host and port to dial. The host is looked up when it is dialled.
fn dial(document: &Document<'_>, text: &Spanned<String>) -> Result<String, ConfigError> {
    let address = text.get_ref();
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(address.clone()),
        _ => {
            let why = "not a host and port, such as hq.example.com:7420";
            Err(document.error("peer.address", text.span(), why))
        }
    }
}

fn streams(
    document: &Document<'_>,
    key: &str,
    choice: Option<&Spanned<file::Streams>>,
) -> Result<Streams, ConfigError> {
    let Some(choice) = choice else { return Ok(Streams::Own) };
    let wrong = |why: &str| document.error(key, choice.span(), why);
    match choice.get_ref() {
        file::Streams::Word(word) => match word.as_str() {
            "self" => Ok(Streams::Own),
            "*" => Ok(Streams::All),
            _ => Err(wrong("\"self\", \"*\", or a list of origins' keys or fingerprints")),
        },
        file::Streams::List(origins) => origins
            .iter()
            .map(|text| match text.parse::<PublicKey>() {
                Ok(key) => Ok(key.origin()),
                Err(_) => text.parse().map_err(|_| {
                    wrong("an origin is named by its public key or its fingerprint of 32 hexadecimal digits")
                }),
            })
            .collect::<Result<_, _>>()
            .map(Streams::Listed),
    }
}

#[cfg(test)]
mod tests;
