//! Any text is a key or the name of a stream that reads back as it was, or refused; any bytes are a stored identity
//! that is stored as the same bytes, or none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinwire_engine::model::{Lsn, StreamId};
use thinwire_transport::{Identity, PublicKey};

fuzz_target!(|input: &[u8]| {
    if let Ok(identity) = Identity::from_bytes(input) {
        assert_eq!(identity.to_bytes(), input);
    }
    if let Some(bytes) = input.first_chunk() {
        let key = PublicKey::from_bytes(*bytes);
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(stream) = text.parse::<StreamId>() {
        assert_eq!(stream.to_string(), text);
    }
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
});
