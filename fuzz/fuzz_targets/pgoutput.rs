//! Any bytes are a message or an error.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use thinwire_engine::pgoutput::decode;

fuzz_target!(|input: &[u8]| {
    let _ = decode(&Bytes::copy_from_slice(input));
});
