//! Two and more ends over simulated and real links.
#![allow(unreachable_pub, reason = "modules of one test binary")]

mod away;
mod contact;
mod crawl;
mod cut;
mod exhaustion;
mod handshakes;
mod hostile;
mod hub;
mod ladder;
mod loopback;
mod mend;
mod misbehaviour;
mod peers;
mod priming;
mod raw;
mod resume;
mod room;
mod rules;
mod seeds;
mod shared;
mod sim;
mod site;
mod weather;
