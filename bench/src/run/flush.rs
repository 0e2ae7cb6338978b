//! What the disk takes to make a little durable: what a latency is compared with that has such waits in it.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use anyhow::Result;

use crate::report::Latency;

/// Times some fdatasyncs of a file that grows, in the folder where beds are made.
pub(crate) fn measure() -> Result<Option<Latency>> {
    let mut file: File = tempfile::tempfile()?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        file.write_all(&[1; BYTES])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(Latency::of(times))
}

/// Enough for a 99th percentile.
const TIMES: usize = 500;
/// About what a small transaction takes in a journal.
const BYTES: usize = 512;
