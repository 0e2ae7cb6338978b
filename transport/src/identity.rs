//! Who we are and whom we trust: ed25519 identities, pinned like WireGuard's.
//!
//! A node is its key. There is no certificate authority, no expiry and no clock in it; what a user copies
//! from one configuration to the other is the public key's text form, which carries a checksum so that a
//! typing mistake is told from a stranger.

pub(crate) mod tls;

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use thinwire_engine::model::Origin;

/// A node's secret key. Its owner stores the bytes; nothing here touches a file.
#[derive(Clone)]
pub struct Identity {
    pkcs8: Vec<u8>,
    public: PublicKey,
}

/// A node's public key. Written `tw1` and 58 characters of base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// Why an identity cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The system gave no random bytes.
    #[error("the system's source of randomness failed")]
    Random,
    /// The stored bytes are not an ed25519 key pair.
    #[error("the stored identity is not an ed25519 key (PKCS#8)")]
    Malformed,
}

/// Why a text is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// It does not begin as keys do.
    #[error("a key begins with `tw1`")]
    Prefix,
    /// Characters are missing, or there are too many.
    #[error("a key has {KEY_TEXT_LEN} characters, and this has {0}")]
    Length(usize),
    /// A character that no key has.
    #[error("a key has only the characters a-z and 2-7 behind `tw1`")]
    Alphabet,
    /// It looks like a key, but a character is wrong.
    #[error("the key has a typing mistake: its checksum does not fit")]
    Checksum,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// [`IdentityError::Random`].
    pub fn generate() -> Result<Self, IdentityError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| IdentityError::Random)?;
        Self::from_bytes(document.as_ref())
    }

    /// The one that was stored as these bytes.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(|_| IdentityError::Malformed)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| IdentityError::Malformed)?;
        Ok(Self { pkcs8: bytes.to_owned(), public: PublicKey(public) })
    }

    /// The bytes to store (PKCS#8, DER), readable by their owner only.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pkcs8.clone()
    }

    /// What others configure to trust this node.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Bytes that only this identity can compute, the same in each life of the process.
    pub(crate) fn derive(&self, purpose: &[u8]) -> ring::hmac::Key {
        let base = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.pkcs8);
        ring::hmac::Key::new(ring::hmac::HMAC_SHA256, ring::hmac::sign(&base, purpose).as_ref())
    }
}

/// Never shows the secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.public).finish()
    }
}

impl PublicKey {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The name that the streams of this node bear: the first half of the key's SHA-256.
    pub fn origin(&self) -> Origin {
        let hash = digest(&SHA256, &self.0);
        let mut first = [0; 16];
        first.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        Origin::from_bytes(first)
    }

    fn checksum(&self) -> [u8; CHECKSUM_LEN] {
        let mut hash = ring::digest::Context::new(&SHA256);
        hash.update(KEY_PREFIX.as_bytes());
        hash.update(&self.0);
        let mut sum = [0; CHECKSUM_LEN];
        sum.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
        sum
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.0.as_slice(), &self.checksum()].concat();
        write!(f, "{KEY_PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let digits = text.strip_prefix(KEY_PREFIX).ok_or(ParseKeyError::Prefix)?;
        let count = text.chars().count();
        if count != KEY_TEXT_LEN {
            return Err(ParseKeyError::Length(count));
        }
        let bytes = BASE32_NOPAD.decode(digits.to_ascii_uppercase().as_bytes()).map_err(
            |error| match error.kind {
                // The last character has bits to spare, which must be zero.
                data_encoding::DecodeKind::Trailing => ParseKeyError::Checksum,
                _ => ParseKeyError::Alphabet,
            },
        )?;
        let (key, sum) = bytes.split_first_chunk::<32>().ok_or(ParseKeyError::Length(count))?;
        let key = Self(*key);
        if sum != key.checksum() {
            return Err(ParseKeyError::Checksum);
        }
        Ok(key)
    }
}

const KEY_PREFIX: &str = "tw1";

/// Detects all but one in four billion typing mistakes.
const CHECKSUM_LEN: usize = 4;

/// The prefix, and 36 bytes at five bits a character.
const KEY_TEXT_LEN: usize = 61;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_being_stored() {
        let identity = Identity::generate().unwrap();
        let again = Identity::from_bytes(&identity.to_bytes()).unwrap();
        assert_eq!(identity.public(), again.public());
        assert_ne!(identity.public(), Identity::generate().unwrap().public());
        assert_eq!(Identity::from_bytes(b"nonsense").unwrap_err(), IdentityError::Malformed);
    }

    #[test]
    fn key_reads_what_it_writes() {
        let key = PublicKey([0xA7; 32]);
        let text = key.to_string();
        assert_eq!(text.len(), KEY_TEXT_LEN);
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(text, text.to_ascii_lowercase());
    }

    #[test]
    fn each_wrong_character_is_a_typing_mistake() {
        let text = PublicKey([3; 32]).to_string();
        for at in KEY_PREFIX.len()..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(wrong.parse::<PublicKey>(), Err(ParseKeyError::Checksum), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_key_is_told_why() {
        let text = PublicKey([3; 32]).to_string();
        assert_eq!("wg1abc".parse::<PublicKey>(), Err(ParseKeyError::Prefix));
        assert_eq!(text[..60].parse::<PublicKey>(), Err(ParseKeyError::Length(60)));
        assert_eq!(
            text.replace(&text[9..10], "1").parse::<PublicKey>(),
            Err(ParseKeyError::Alphabet)
        );
        assert_eq!("tw1é".parse::<PublicKey>(), Err(ParseKeyError::Length(4)));
    }

    #[test]
    fn origin_is_half_a_fingerprint() {
        assert_eq!(PublicKey([0; 32]).origin().to_string(), "66687aadf862bd776c8fc18b8e9f8e20");
    }
}
