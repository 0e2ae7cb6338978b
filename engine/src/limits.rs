//! Every upper bound in the system, and compile-time checks of how they relate.

/// Longest record, in canonical bytes. PostgreSQL refuses to build a message of more than 1 GiB,
/// so nothing that it can send is refused here.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

/// Target size of a batch before compression. A batch ends with the records that reach it, so that a reader holds
/// little more than this; only records that were appended together make a larger one. LZ4 looks back 64 KiB, and its
/// tables are smallest below that.
pub const BATCH_BYTES: usize = 60 << 10;

/// Longest batch payload that is believed, before and after compression.
pub const BATCH_BYTES_MAX: usize = RECORD_BYTES_MAX + BATCH_BYTES + (64 << 20);

/// Bytes that may wait in memory for the disk before a writer is asked to wait.
pub const STAGED_BYTES_MAX: usize = 1 << 20;

/// Most columns in a row. PostgreSQL allows 1,600.
pub const COLUMNS_MAX: usize = 1_664;

/// Most relations named by one record (a copy or a truncate).
pub const RELATIONS_MAX: usize = 1 << 20;

/// Most nodes named as the audience of a copy.
pub const AUDIENCE_MAX: usize = 1_024;

/// Longest name of a schema, table or column that is believed. PostgreSQL's limit is 63.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest state block at the head of a segment: the relations in force and the open transaction.
pub const PREAMBLE_BYTES_MAX: usize = 256 << 20;

/// Most that the state behind a stream's records may take; what would make it more is refused when it is appended,
/// so that every segment can begin with it. At twenty columns a table that is more than a hundred thousand tables.
pub const STATE_BYTES_MAX: usize = PREAMBLE_BYTES_MAX / 2;

/// Smallest and largest segment size that may be configured. The smallest is a page of the file system: too small
/// to be quick, and right for trying every outcome of a power cut.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// See [`SEGMENT_BYTES_MIN`].
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// What is kept of a stream behind its last acknowledged record, to prime compression with.
pub const PRIMING_BYTES: u64 = 8 << 20;

/// Deepest nesting that is followed in a MessagePack value.
pub const DEPTH_MAX: usize = 32;

const _: () = assert!(BATCH_BYTES < STAGED_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX > RECORD_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < u32::MAX as usize);
const _: () = assert!((BATCH_BYTES as u64) * 2 < SEGMENT_BYTES_MAX);
