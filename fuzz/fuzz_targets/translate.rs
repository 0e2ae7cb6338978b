//! Any session of pgoutput messages becomes well-formed records, the same wherever it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinwire_fuzz::translation;

fuzz_target!(|input: &[u8]| translation::translate(input));
