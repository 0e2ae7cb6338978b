//! Any bytes are a message or an error; a message is all of its bytes and no more.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use thinwire_engine::pgoutput::decode;

fuzz_target!(|input: &[u8]| {
    if decode(&Bytes::copy_from_slice(input)).is_ok() {
        assert!(decode(&Bytes::copy_from_slice(&input[..input.len() - 1])).is_err());
        assert!(decode(&Bytes::from([input, &[0]].concat())).is_err());
    }
});
