//! Any bytes are a record that encodes to the same bytes, or an error.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use thinwire_engine::codec::{decode, encode};

fuzz_target!(|input: &[u8]| {
    if let Ok(record) = decode(&Bytes::copy_from_slice(input)) {
        let mut again = Vec::new();
        encode(&record, &mut again);
        assert_eq!(again, input);
    }
});
