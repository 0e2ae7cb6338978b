//! Whatever a peer says, a node holds what it took and acknowledges what is durable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinwire_fuzz::session;

fuzz_target!(|input: &[u8]| session::converse(input));
