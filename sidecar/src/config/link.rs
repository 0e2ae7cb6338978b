//! What is said about the link to a peer.

use thinwire_transport::{Congestion, Rules};
use toml::Spanned;

use super::{
    ConfigError,
    file::{Document, Peer},
    size,
};

/// How the link is used while it is used.
pub(super) fn rules(document: &Document<'_>, peer: &Peer) -> Result<Rules, ConfigError> {
    Ok(Rules {
        rate_limit: peer.rate_limit.as_ref().map(|text| rate(document, text)).transpose()?,
        congestion: congestion(document, peer.congestion.as_ref())?,
    })
}

fn rate(document: &Document<'_>, text: &Spanned<String>) -> Result<u64, ConfigError> {
    let wrong = |why: &str| document.error("peer.rate_limit", text.span(), why);
    match size::rate(text.get_ref()) {
        None => Err(wrong("not a rate, such as \"64kbit/s\" or \"2Mbit/s\"")),
        Some(bits) if !(RATE_MIN..=RATE_MAX).contains(&bits) => {
            Err(wrong("must be 1kbit/s to 100Gbit/s"))
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

/// Below it one packet takes ten seconds, and a handshake is given up before it is over.
const RATE_MIN: u64 = 1_000;

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
        let said = rules("rate_limit = \"64kbit/s\"\ncongestion = \"cubic\"");
        assert_eq!((said.rate_limit, said.congestion), (Some(64_000), Congestion::Cubic));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (line, sentence) in [
            ("rate_limit = \"fast\"", "n.toml, line 6, peer.rate_limit: not a rate"),
            ("rate_limit = \"1bit/s\"", "n.toml, line 6, peer.rate_limit: must be 1kbit/s to"),
            ("congestion = \"bbr\"", "n.toml, line 6, peer.congestion: \"thin\" or \"cubic\""),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
