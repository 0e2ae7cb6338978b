//! Any bytes are a stored state, or refused: deep nesting and long lists among them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinwire_engine::journal::fuzzing;

fuzz_target!(|input: &[u8]| fuzzing::mark(input));
