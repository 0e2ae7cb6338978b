//! A journal on a disk that fails and loses keeps what it acknowledged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinwire_fuzz::life;

fuzz_target!(|input: &[u8]| life::live(input));
