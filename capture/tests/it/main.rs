//! Capture against real PostgreSQL servers.

mod basics;
mod choice;
mod copies;
mod decoding;
mod disks;
mod halts;
mod hostile;
mod identities;
mod model;
mod partitions;
mod published;
mod restarts;
mod rig;
mod schema;
mod settings;
mod slots;
mod tls;
