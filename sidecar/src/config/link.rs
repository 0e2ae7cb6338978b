//! What is said about the link to a peer.

use std::time::Duration;

use thinwire_transport::{Compression, Congestion, Rules};
use toml::Spanned;

use crate::access::{Budget, Terms, Windows};

use super::{
    ConfigError,
    file::{self, Document, Peer},
    size,
};

/// How the link is used while it is used.
pub(super) fn rules(document: &Document<'_>, peer: &Peer) -> Result<Rules, ConfigError> {
    Ok(Rules {
        rate_limit: peer.rate_limit.as_ref().map(|text| rate(document, text)).transpose()?,
        congestion: congestion(document, peer.congestion.as_ref())?,
        compression: compression(document, peer.compression.as_ref())?,
        keep_alive: peer.keep_alive.as_ref().map(|text| keep_alive(document, text)).transpose()?,
        starts_barred: terms(document, peer)?.bind(),
    })
}

/// When the link is used, and how much.
pub(super) fn terms(document: &Document<'_>, peer: &Peer) -> Result<Terms, ConfigError> {
    let windows = match &peer.window {
        None => Windows::default(),
        Some(text) => windows(text.get_ref())
            .map_err(|why| document.error("peer.window", text.span(), why))?,
    };
    let budget = Budget {
        day: budget(document, "peer.day_budget", peer.day_budget.as_ref())?,
        month: budget(document, "peer.month_budget", peer.month_budget.as_ref())?,
    };
    Ok(Terms { windows, budget })
}

fn windows(said: &file::Windows) -> Result<Windows, String> {
    let texts = match said {
        file::Windows::One(text) => std::slice::from_ref(text),
        file::Windows::Several(texts) if texts.is_empty() => {
            return Err("without any window the peer is never talked to".to_owned());
        }
        file::Windows::Several(texts) if texts.len() > WINDOWS_MAX => {
            return Err(format!("more than {WINDOWS_MAX} windows"));
        }
        file::Windows::Several(texts) => texts,
    };
    Windows::parse(texts).map_err(|error| error.to_string())
}

fn budget(
    document: &Document<'_>,
    key: &str,
    text: Option<&Spanned<String>>,
) -> Result<Option<u64>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    match size::bytes(text.get_ref()) {
        None => Err(document.error(key, text.span(), "not a size, such as \"20MB\"")),
        Some(bytes) if bytes < BUDGET_MIN => {
            let why = "must be at least 50kB, or greeting the peer would take most of it";
            Err(document.error(key, text.span(), why))
        }
        bytes => Ok(bytes),
    }
}

fn rate(document: &Document<'_>, text: &Spanned<String>) -> Result<u64, ConfigError> {
    let wrong = |why: &str| document.error("peer.rate_limit", text.span(), why);
    match size::rate(text.get_ref()) {
        None => Err(wrong("not a rate, such as \"64kbit/s\" or \"2Mbit/s\"")),
        Some(bits) if !(RATE_MIN..=RATE_MAX).contains(&bits) => {
            Err(wrong("must be 4kbit/s to 100Gbit/s"))
        }
        Some(bits) => Ok(bits),
    }
}

fn congestion(
    document: &Document<'_>,
    word: Option<&Spanned<String>>,
) -> Result<Congestion, ConfigError> {
    match word.map(|word| (word.get_ref().as_str(), word.span())) {
        None | Some(("thin", _)) => Ok(Congestion::Thin),
        Some(("cubic", _)) => Ok(Congestion::Cubic),
        Some((_, span)) => Err(document.error("peer.congestion", span, "\"thin\" or \"cubic\"")),
    }
}

fn compression(
    document: &Document<'_>,
    word: Option<&Spanned<String>>,
) -> Result<Compression, ConfigError> {
    match word.map(|word| (word.get_ref().as_str(), word.span())) {
        None | Some(("packets", _)) => Ok(Compression::Packets),
        Some(("zstd", _)) => Ok(Compression::Zstd),
        Some(("lz4", _)) => Ok(Compression::Lz4),
        Some(("none", _)) => Ok(Compression::None),
        Some((_, span)) => {
            let why = "\"packets\", \"zstd\", \"lz4\" or \"none\"";
            Err(document.error("peer.compression", span, why))
        }
    }
}

fn keep_alive(document: &Document<'_>, text: &Spanned<String>) -> Result<Duration, ConfigError> {
    let wrong = |why: &str| document.error("peer.keep_alive", text.span(), why);
    match size::duration(text.get_ref()) {
        None => Err(wrong("not a time, such as \"25s\" or \"2min\"")),
        Some(time) if !(KEEP_ALIVE_MIN..=KEEP_ALIVE_MAX).contains(&time) => {
            Err(wrong("must be 5s to 1h"))
        }
        Some(time) => Ok(time),
    }
}

/// More often would cost more than what it keeps alive.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);

/// So long a peer that has vanished without a word is taken to be there.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(3_600);

/// Below it a handshake is given up before what it costs is paid for.
const RATE_MIN: u64 = 4_000;

/// Ten greetings.
const BUDGET_MIN: u64 = 50_000;

/// An hour each of a week.
const WINDOWS_MAX: usize = 168;

/// Beyond it a cap means nothing to anybody.
const RATE_MAX: u64 = 100_000_000_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// The configuration of a peer with these lines.
    fn parse(lines: &str) -> Result<Config, String> {
        let key = thinwire_transport::Identity::generate().unwrap().public();
        let text =
            format!("[node]\nname = \"n\"\n[[peer]]\nname = \"p\"\nkey = \"{key}\"\n{lines}\n");
        Config::parse(Path::new("n.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_about_a_link_is_read() {
        let rules = |lines| parse(lines).unwrap().peers[0].rules;
        assert_eq!(rules(""), Rules::default());
        let said =
            rules("rate_limit = \"64kbit/s\"\ncongestion = \"cubic\"\ncompression = \"lz4\"");
        assert_eq!(said.compression, Compression::Lz4);
        assert_eq!((said.rate_limit, said.congestion), (Some(64_000), Congestion::Cubic));
    }

    #[test]
    fn windows_and_budgets_are_read_and_keep_the_peer_waiting_until_they_are_looked_at() {
        let config = parse("").unwrap();
        assert!(!config.terms["p"].bind() && !config.peers[0].rules.starts_barred);
        let lines = "window = [\"22:00-06:00\", \"sat 00:00-24:00\"]\nday_budget = \"20MB\"";
        let config = parse(lines).unwrap();
        assert_eq!(config.terms["p"].budget, Budget { day: Some(20_000_000), month: None });
        assert!(config.terms["p"].bind() && config.peers[0].rules.starts_barred);
        let one = parse("window = \"22:00-06:00\"\nmonth_budget = \"1GB\"").unwrap();
        assert_ne!(one.terms["p"].windows, Windows::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (line, sentence) in [
            ("rate_limit = \"fast\"", "n.toml, line 6, peer.rate_limit: not a rate"),
            ("rate_limit = \"1bit/s\"", "n.toml, line 6, peer.rate_limit: must be 4kbit/s to"),
            ("window = \"6-22\"", "n.toml, line 6, peer.window: not a window, such as"),
            ("window = []", "n.toml, line 6, peer.window: without any window"),
            ("window = 7", "n.toml, line 6, window: "),
            ("window = [\"00:00-01:00\", \"sa 00:00-01:00\"]", "peer.window: a weekday is mon"),
            ("day_budget = \"20 pages\"", "n.toml, line 6, peer.day_budget: not a size"),
            ("month_budget = \"1kB\"", "n.toml, line 6, peer.month_budget: must be at least 50kB"),
            ("compression = \"gzip\"", "n.toml, line 6, peer.compression: \"packets\", \"zstd\""),
            ("keep_alive = \"25\"", "n.toml, line 6, peer.keep_alive: not a time"),
            ("keep_alive = \"2h\"", "n.toml, line 6, peer.keep_alive: must be 5s to 1h"),
            ("congestion = \"bbr\"", "n.toml, line 6, peer.congestion: \"thin\" or \"cubic\""),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
