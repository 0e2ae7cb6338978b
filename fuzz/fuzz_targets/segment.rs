//! Any bytes are the head of a segment, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinwire_engine::journal::fuzzing;

fuzz_target!(|input: &[u8]| fuzzing::segment(input));
