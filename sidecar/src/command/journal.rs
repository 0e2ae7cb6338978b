//! `thinwire journal`: looking into a journal, in use or copied. Never writes, never takes its lock.

mod dump;

use std::{
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;
use thinwire_engine::{
    Error,
    journal::inspect::{self, Damage, SegmentReport},
    storage::disk::RealDisk,
};

use super::print_line;
use crate::cli::Journal;

/// An end that looks torn is being written, unless it stands still for all of these.
const LOOKS: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1_000),
];

pub(super) fn run(command: &Journal) -> Result<u8> {
    match command {
        Journal::Ls { dir, json } => list(dir, *json),
        Journal::Verify { dir } => verify(dir),
        Journal::Dump { dir, from, limit, stream, values } => {
            let wanted = dump::Wanted { from: *from, limit: *limit, values: *values };
            dump::run(&streams(dir)?, stream.as_deref(), &wanted)
        }
    }
}

fn streams(dir: &Path) -> Result<Vec<PathBuf>> {
    inspect::stream_dirs(&RealDisk, dir)?
        .with_context(|| format!("{} is neither a journal nor a stream of one", dir.display()))
}

/// A journal as it is listed: the names are a contract.
#[derive(Serialize)]
struct Listing {
    streams: Vec<Stream>,
    segments: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct Stream {
    dir: PathBuf,
    stream: Option<String>,
    first: Option<u64>,
    last: Option<u64>,
    bytes: u64,
    segments: Vec<Segment>,
}

#[derive(Serialize)]
struct Segment {
    file: String,
    first: u64,
    last: u64,
    bytes: u64,
    state: &'static str,
    detail: Option<String>,
}

fn list(dir: &Path, json: bool) -> Result<u8> {
    let streams = streams(dir)?.into_iter().map(stream).collect::<Result<Vec<_>>>()?;
    let listing = Listing {
        segments: streams.iter().map(|stream| stream.segments.len()).sum(),
        bytes: streams.iter().map(|stream| stream.bytes).sum(),
        streams,
    };
    let is_damaged =
        listing.streams.iter().flat_map(|it| &it.segments).any(|it| it.detail.is_some());
    if json {
        print_line(&serde_json::to_string(&listing)?)?;
        return Ok(u8::from(is_damaged));
    }
    for stream in &listing.streams {
        print_line(&format!(
            "stream {}  {}  {} bytes",
            stream.dir.display(),
            range(stream.first.unwrap_or(1), stream.last.unwrap_or(0)),
            stream.bytes
        ))?;
        for Segment { file, first, last, bytes, state, detail } in &stream.segments {
            let detail = detail.as_ref().map(|detail| format!(" {detail}")).unwrap_or_default();
            let range = range(*first, *last);
            print_line(&format!("  {file}  {range}  {bytes} bytes  {state}{detail}"))?;
        }
    }
    let Listing { segments, bytes, .. } = listing;
    print_line(&format!("{} streams, {segments} segments, {bytes} bytes", listing.streams.len()))?;
    Ok(u8::from(is_damaged))
}

fn stream(dir: PathBuf) -> Result<Stream> {
    let reports = inspect::list(&RealDisk, &dir)?.into_iter();
    let reports: Vec<_> = reports.map(|report| settled(&dir, report)).collect::<Result<_, _>>()?;
    Ok(Stream {
        stream: reports.iter().find_map(|report| report.stream).map(|id| id.to_string()),
        first: reports.first().map(|report| report.base.get()),
        last: reports.last().map(|report| report.last.get()),
        bytes: reports.iter().map(|report| report.bytes).sum(),
        segments: reports.iter().map(segment).collect(),
        dir,
    })
}

fn segment(report: &SegmentReport) -> Segment {
    let state = match &report.damage {
        None if report.is_last => "being written",
        None => "complete",
        Some(damage) if damage.torn => "torn tail",
        Some(damage) if damage.at == 0 => "damaged head",
        Some(_) => "damaged",
    };
    Segment {
        file: file_name(&report.path),
        first: report.base.get(),
        last: report.last.get(),
        bytes: report.bytes,
        state,
        detail: report.damage.as_ref().map(place),
    }
}

fn verify(dir: &Path) -> Result<u8> {
    let streams = streams(dir)?;
    let (mut segments, mut bytes, mut damaged) = (0, 0, 0);
    let mut tell = |line: String| {
        damaged += 1;
        print_line(&line)
    };
    for stray in inspect::strays(&RealDisk, dir, &streams)? {
        tell(format!("STRAY  {}  {}", stray.path.display(), stray.what))?;
    }
    for stream in &streams {
        let reports = match inspect::verify(&RealDisk, stream) {
            Ok(reports) => reports,
            Err(error) => {
                tell(format!("DAMAGED  {error}"))?;
                continue;
            }
        };
        if reports.is_empty() {
            tell(format!("EMPTY  {}  a stream without a segment", stream.display()))?;
        }
        for report in reports {
            let report = settled(stream, report)?;
            (segments, bytes) = (segments + 1, bytes + report.bytes);
            if let Some(damage) = &report.damage {
                let kind = if damage.torn { "TORN" } else { "DAMAGED" };
                tell(format!("{kind}  {}  {}", report.path.display(), place(damage)))?;
            }
        }
    }
    print_line(&format!("{segments} segments, {bytes} bytes, {damaged} damaged"))?;
    Ok(u8::from(damaged > 0))
}

/// The segment, looked at until its end is whole or certainly torn.
fn settled(stream: &Path, mut report: SegmentReport) -> Result<SegmentReport, Error> {
    for pause in LOOKS {
        if !report.damage.as_ref().is_some_and(|damage| damage.torn) {
            break;
        }
        sleep(pause);
        match inspect::verify_last(&RealDisk, stream, &report)? {
            Some(again) => report = again,
            // Who trims it has found it whole.
            None => report.damage = None,
        }
    }
    Ok(report)
}

/// Where the damage is, what it is, and what becomes of it.
fn place(damage: &Damage) -> String {
    let Damage { at, offset, reason, torn } = damage;
    let fate = match torn {
        true => "; it was never durable, and `run` cuts it off",
        false => "",
    };
    format!("at byte {at} (record {offset}): {reason}{fate}")
}

fn range(first: u64, last: u64) -> String {
    match last < first {
        true => format!("no records from {first} on"),
        false => format!("records {first} to {last}"),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
