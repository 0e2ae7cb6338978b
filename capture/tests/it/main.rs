//! Capture against real PostgreSQL servers.

mod basics;
mod choice;
mod copies;
mod disks;
mod halts;
mod hostile;
mod model;
mod partitions;
mod published;
mod restarts;
mod rig;
mod schema;
mod settings;
mod slots;
mod tls;
