//! Any bytes are a batch whose header says what it holds, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinwire_engine::journal::fuzzing;

fuzz_target!(|input: &[u8]| fuzzing::batch(input));
