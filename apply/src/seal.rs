//! What tells an applied offset that this node wrote from one that somebody else did.
//!
//! Code of the owners of tables runs with the rights of the login that applies, and so may write to `thinwire.applied`: there
//! is nothing that the login may and it may not. But it does not know this node's key. Each row holds a keyed digest of
//! what it says, so an offset that was not reached is never believed: nothing is skipped. One that was reached earlier can be
//! put back with its digest, as a restored backup does, and then what follows is applied again.

use std::fmt::{self, Write};

use ring::hmac;
use thinwire_engine::model::Origin;

use crate::{
    SinkError,
    progress::{self, Stored},
};

/// What a node's rows are sealed with.
#[derive(Clone)]
pub struct Seal(hmac::Key);

impl Seal {
    /// The seal that follows from a secret that nobody else has and that stays the same.
    pub fn new(secret: &[u8]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, PURPOSE).as_ref()))
    }

    /// What is written beside what is known of an origin's stream.
    pub(crate) fn of(&self, origin: Origin, stored: &Stored) -> String {
        let (origin, offset) = (origin.to_string(), stored.progress.offset.to_string());
        let mut digest = hmac::Context::with_key(&self.0);
        let replaced = stored.superseded.iter().map(String::as_str);
        for text in [&*origin, &*stored.epoch, &*offset].into_iter().chain(replaced) {
            // With its length, so that no text passes for two.
            digest.update(&(text.len() as u64).to_le_bytes());
            digest.update(text.as_bytes());
        }
        digest.sign().as_ref().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Gives a row back that is sealed, and refuses any other. `known` is what we knew before, if that was anything.
    pub(crate) fn believe(
        &self,
        origin: Origin,
        stored: Stored,
        known: &Stored,
    ) -> Result<Stored, SinkError> {
        if self.is_on(origin, &stored) {
            return Ok(stored);
        }
        let said = stored.progress.offset;
        let known = match known.epoch.is_empty() {
            true => String::new(),
            false => format!(", which was at record {},", known.progress.offset),
        };
        let detail = format!(
            "thinwire.applied has record {said} as the last that is applied, and this node{known} did not write that: \
             somebody else has; correct it and run `thinwire init`, which takes over what is there then"
        );
        Err(progress::refused("progress_moved", detail))
    }

    /// Whether a row is as a holder of the secret has written it. One that is not there says nothing that could be wrong.
    pub(crate) fn is_on(&self, origin: Origin, stored: &Stored) -> bool {
        *stored == Stored::nothing() || stored.seal.as_ref() == Some(&self.of(origin, stored))
    }
}

/// Never shows the secret.
impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

/// The secret may be used for more than this.
const PURPOSE: &[u8] = b"thinwire.applied";

#[cfg(test)]
mod tests {
    use thinwire_engine::model::{Epoch, Offset};

    use super::*;
    use crate::Progress;

    fn stored(offset: u64, superseded: &[&str]) -> Stored {
        let mut stored = Stored::nothing();
        let progress = Progress { offset: Offset::new(offset), ..Progress::default() };
        stored.moved(Epoch::from_bytes([1; 16]), progress);
        stored.superseded = superseded.iter().map(|text| (*text).to_owned()).collect();
        stored
    }

    #[test]
    fn a_row_is_believed_as_it_was_written_and_in_no_other_way() {
        let (seal, origin) = (Seal::new(b"ours"), Origin::from_bytes([7; 16]));
        let sealed = |mut row: Stored| {
            row.seal = Some(seal.of(origin, &row));
            row
        };
        let row = sealed(stored(9, &["a", "b"]));
        assert!(seal.is_on(origin, &row) && seal.is_on(origin, &Stored::nothing()));
        assert!(Seal::new(b"ours").is_on(origin, &row) && !Seal::new(b"other").is_on(origin, &row));
        assert!(!seal.is_on(Origin::from_bytes([8; 16]), &row));
        let others = [
            Stored { progress: stored(10, &[]).progress, ..row.clone() },
            Stored { superseded: vec!["a".into()], ..row.clone() },
            Stored { superseded: vec!["ab".into()], ..row.clone() },
            Stored { superseded: vec!["a,b".into()], ..row.clone() },
            Stored { epoch: "x".into(), ..row.clone() },
            Stored { seal: None, ..row.clone() },
            Stored { seal: sealed(stored(8, &["a", "b"])).seal, ..row },
        ];
        for other in others {
            assert!(!seal.is_on(origin, &other), "{other:?}");
        }
    }
}
