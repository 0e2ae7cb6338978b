//! A forecast as people read it.

use std::time::Duration;

use indicatif::{DecimalBytes, HumanDuration};

use super::Forecast;
use crate::link::ladder::Rung;

/// The heading of a table of forecasts, in Markdown.
pub const HEADING: &str = "| link | will it keep up? | share of the link | first copy | \
    a day's changes | bytes a month |\n| --- | --- | --- | --- | --- | --- |";

/// A forecast as a line of that table.
pub fn row(rung: &Rung, forecast: &Forecast) -> String {
    let answer = if forecast.keeps_up() { "yes" } else { "NO" };
    let month = Duration::from_secs_f64((forecast.month_bytes / 1e6).min(1e12));
    let month = DecimalBytes(u64::try_from(month.as_micros()).unwrap_or(u64::MAX));
    let (name, load) = (rung.name, forecast.load * 100.0);
    let (copy, day) = (time(forecast.copy), time(forecast.day));
    format!("| {name} | {answer} | {load:.1} % | {copy} | {day} | {month} |")
}

fn time(time: Option<Duration>) -> String {
    match time {
        Some(time) if time < MINUTES => format!("{:.0} s", time.as_secs_f64().ceil()),
        Some(time) => HumanDuration(time).to_string(),
        None => "never".into(),
    }
}

/// Up to here seconds say more than minutes.
const MINUTES: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::ladder::SAT;

    #[test]
    fn a_forecast_is_one_line_with_a_plain_answer() {
        let copy = Some(Duration::from_millis(8_200));
        let forecast = Forecast { load: 0.125, copy, month_bytes: 3e8, day: None };
        let line = "| sat | yes | 12.5 % | 9 s | never | 300.00 MB |";
        assert_eq!(row(&SAT, &forecast), line);
        let columns = HEADING.lines().next().unwrap().matches('|').count();
        assert_eq!(line.matches('|').count(), columns);
    }
}
