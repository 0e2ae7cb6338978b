//! A damaged journal gives what was written, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinwire_fuzz::damage;

fuzz_target!(|input: &[u8]| damage::harm_and_read(input));
