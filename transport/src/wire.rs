//! Few bytes on the wire: two ways to send records, and each connection and direction has its own state of both.
//!
//! [`packet`] makes the fewest bytes: it knows what rows are, and what each column held before. It takes time, about
//! a microsecond a value. [`stream`] is zstd over records as they are, several times faster and larger.

mod column;
mod memory;
mod model;
mod odds;
pub mod packet;
mod range;
mod shape;
pub mod stream;
mod text;

pub use stream::{Compressor, Decompressor};
