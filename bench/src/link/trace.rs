//! A user's own link: a recorded trace, read from CSV into the moments of a course.
//!
//! ```text
//! time,rate,delay,loss,state
//! 0,256,300,2,up
//! 30,,,,down
//! 45,64,350,5,up
//! ```
//!
//! Seconds since the start, kbit/s, milliseconds one way, per cent, `up` or `down`. An empty field
//! keeps the value of the line before; the columns after `rate` may be missing altogether. A first
//! line that does not begin with a number is a heading, and `#` begins a comment. The last line holds as long as the one
//! before it; then the recording begins again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::link::Link;
use crate::link::course::{Course, Moment};
use crate::link::ladder::Rung;

/// Reads a trace file into a link that is the same in both directions.
pub fn read(path: &Path) -> Result<Rung> {
    let size = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    ensure!(size <= TRACE_BYTES_MAX, "{} is larger than a trace may be", path.display());
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let moments = parse(&text).with_context(|| format!("in {}", path.display()))?;
    let first = moments[0];
    let link = Link::new(first.rate_bps, first.delay).with_loss(first.loss);
    // Links are constants, and copied like them; so is a recorded one, for the rest of the run.
    let course = Course::Recorded(moments.leak());
    Ok(Rung::new("trace", "a link of your own, as it was recorded", link.with_course(course)))
}

/// At least one moment, in the order of time.
fn parse(text: &str) -> Result<Vec<Moment>> {
    let mut moments: Vec<Moment> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        let is_heading = moments.is_empty() && !line.starts_with(|it: char| it.is_ascii_digit());
        if line.is_empty() || is_heading {
            continue;
        }
        let moment = moment(line, moments.last()).with_context(|| format!("line {number}"))?;
        if moments.last().is_some_and(|last| last.at >= moment.at) {
            bail!("line {number}: its time is not after the line before");
        }
        moments.push(moment);
    }
    ensure!(!moments.is_empty(), "there is no line with a time in it");
    Ok(moments)
}

fn moment(line: &str, last: Option<&Moment>) -> Result<Moment> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    ensure!(fields.len() <= COLUMNS.len(), "there are more columns than {}", COLUMNS.join(","));
    let number = |column: usize, most: f64| -> Result<Option<f64>> {
        let Some(text) = fields.get(column).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let name = COLUMNS[column];
        let value: f64 = text.parse().with_context(|| format!("{name} is not a number: {text}"))?;
        ensure!((0.0..=most).contains(&value), "{name} must be from 0 to {most}, not {text}");
        Ok(Some(value))
    };
    let at = number(0, SECONDS_MAX)?.context("there is no time")?;
    let rate = number(1, KBPS_MAX)?.map(|kbps| (kbps * 1_000.0).round());
    let rate_bps = match (rate, last) {
        (Some(bps), _) => format!("{bps:.0}").parse()?,
        (None, Some(last)) => last.rate_bps,
        (None, None) => bail!("the first line has no rate"),
    };
    let delay = number(2, DELAY_MS_MAX)?.map(|millis| Duration::from_secs_f64(millis / 1_000.0));
    let loss = number(3, 100.0)?.map(|percent| percent / 100.0);
    let up = match fields.get(4).copied().unwrap_or_default() {
        "" => last.is_none_or(|last| last.up),
        "up" => true,
        "down" => false,
        other => bail!("state is up or down, not {other}"),
    };
    Ok(Moment {
        at: Duration::from_secs_f64(at),
        rate_bps,
        delay: delay.or(last.map(|last| last.delay)).unwrap_or_default(),
        loss: loss.or(last.map(|last| last.loss)).unwrap_or_default(),
        up,
    })
}

const COLUMNS: [&str; 5] = ["time", "rate", "delay", "loss", "state"];
/// A year.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;
/// 100 Gbit/s.
const KBPS_MAX: f64 = 1e8;
/// A minute, one way: there are no slower links on this planet.
const DELAY_MS_MAX: f64 = 60_000.0;
/// A line each second for two weeks.
const TRACE_BYTES_MAX: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_line_by_line_and_empty_fields_keep_their_value() {
        let text = "time,rate,delay,loss,state\n\n0,256,300,2,up # in port\n30,,,,down\n45.5,64\n";
        let moments = parse(text).unwrap();
        let expected = [(0.0, 256_000, true), (30.0, 256_000, false), (45.5, 64_000, false)];
        for (moment, (at, rate_bps, up)) in moments.iter().zip(expected) {
            let delay = Duration::from_millis(300);
            let at = Duration::from_secs_f64(at);
            assert_eq!(*moment, Moment { at, rate_bps, delay, loss: 0.02, up });
        }
        assert_eq!(moments.len(), 3);
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        for (text, complaint) in [
            ("", "there is no line"),
            ("0,,10", "line 1: the first line has no rate"),
            ("0,1\n0,1", "line 2: its time is not after"),
            ("0,1,2,3,up,5", "line 1: there are more columns"),
            ("0,1,2,101", "line 1: loss must be from 0 to 100"),
            ("0,-1", "line 1: rate must be from 0"),
            ("0,NaN", "line 1: rate must be from 0"),
            ("0,1,2,3,sideways", "line 1: state is up or down"),
            ("0,much", "line 1: rate is not a number: much"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(complaint), "{text:?}: {error}");
        }
    }
}
