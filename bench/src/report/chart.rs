//! Charts as inline SVG: progress over time against outages, and bars.

use std::fmt::Write as _;

use super::{Outcome, Point, Run};
use crate::contender::{native, thinwire};

/// What the target had of the work over time, a line for each contender, over bands of outage.
pub(super) fn progress(run: &Run) -> String {
    let points = || run.outcomes.iter().flat_map(|outcome| &outcome.points);
    let seconds = points().map(|point| point.seconds).fold(1.0, f64::max);
    let most = points().map(|point| point.done).max().unwrap_or_default().max(run.size).max(1);
    let plot = Plot { seconds, most: most as f64 };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"progress over time\">"
    );
    let longest = run.outcomes.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds));
    if let Some(longest) = longest {
        svg += &plot.outages(&longest.points);
    }
    svg += &plot.axes(most, &run.unit);
    for outcome in &run.outcomes {
        svg += &plot.line(outcome);
    }
    svg + "</svg>"
}

/// Horizontal bars with their values behind them, the longest as wide as the chart.
pub(super) fn bars(title: &str, bars: &[(String, f64, String)]) -> String {
    let most = bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
    let height = 26 * bars.len();
    let mut svg = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 420 {height}\" role=\"img\" \
         aria-label=\"{}\">",
        escape(title),
        escape(title)
    );
    for (number, (name, value, words)) in bars.iter().enumerate() {
        let (y, width) = (number * 26, (value / most * 220.0).max(1.0));
        let _ = write!(
            svg,
            "<text x=\"88\" y=\"{}\" class=\"end\">{}</text>\
             <rect x=\"94\" y=\"{}\" width=\"{width:.1}\" height=\"16\" rx=\"2\" class=\"f{}\">\
             <title>{}: {}</title></rect><text x=\"{:.1}\" y=\"{}\">{}</text>",
            y + 17,
            escape(name),
            y + 5,
            tone(name),
            escape(name),
            escape(words),
            100.0 + width,
            y + 17,
            escape(words)
        );
    }
    svg + "</svg></figure>"
}

/// Text as it may stand in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Whose colour it is: the same in every chart.
pub(super) fn tone(name: &str) -> u8 {
    match name {
        thinwire::NAME => 0,
        native::NAME => 1,
        _ => 2,
    }
}

/// From seconds and work to places in the picture.
struct Plot {
    seconds: f64,
    most: f64,
}

impl Plot {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * seconds / self.seconds
    }

    fn y(&self, done: u64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * done as f64 / self.most
    }

    fn outages(&self, points: &[Point]) -> String {
        let mut svg = String::new();
        let mut since = None;
        for point in points {
            match (point.up, since) {
                (false, None) => since = Some(point.seconds),
                (true, Some(from)) => {
                    svg += &self.outage(from, point.seconds);
                    since = None;
                }
                _ => {}
            }
        }
        since.map_or(svg.clone(), |from| svg + &self.outage(from, self.seconds))
    }

    fn outage(&self, from: f64, to: f64) -> String {
        let (x, width) = (self.x(from), self.x(to) - self.x(from));
        format!(
            "<rect x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{}\" class=\"down\">\
             <title>link down from {from:.1} s to {to:.1} s</title></rect>",
            BOTTOM - TOP
        )
    }

    fn axes(&self, most: u64, unit: &str) -> String {
        let mut svg = format!(
            "<path d=\"M{LEFT} {BOTTOM}H{RIGHT}\" class=\"axis\"/>\
             <text x=\"{LEFT}\" y=\"12\">{}</text>\
             <text x=\"{}\" y=\"{}\" class=\"end\">{most}</text>",
            escape(unit),
            LEFT - 6.0,
            TOP + 4.0
        );
        for tick in 0..=4 {
            let seconds = self.seconds * f64::from(tick) / 4.0;
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" class=\"middle\">{seconds:.0} s</text>",
                self.x(seconds),
                BOTTOM + 16.0
            );
        }
        svg
    }

    fn line(&self, outcome: &Outcome) -> String {
        let step = outcome.points.len().div_ceil(POINTS_MAX).max(1);
        let last = outcome.points.last();
        let shown = outcome.points.iter().step_by(step).chain(last);
        let path: String = shown
            .enumerate()
            .map(|(at, point)| {
                let letter = if at == 0 { 'M' } else { 'L' };
                format!("{letter}{:.1} {:.1}", self.x(point.seconds), self.y(point.done))
            })
            .collect();
        let end = last.copied().unwrap_or_default();
        let ended = if outcome.finished { "" } else { ", not finished" };
        format!(
            "<path d=\"{path}\" class=\"l{tone}\"><title>{name}: {:.1} s{ended}</title></path>\
             <text x=\"{:.1}\" y=\"{:.1}\" class=\"n{tone} end\">{name}</text>",
            outcome.seconds,
            (self.x(end.seconds) - 6.0).max(LEFT + 60.0),
            (self.y(end.done) + 34.0).min(BOTTOM - 6.0),
            tone = tone(&outcome.contender),
            name = escape(&outcome.contender)
        )
    }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 744.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 222.0;
/// More points than pixels show nothing more.
const POINTS_MAX: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_the_work_ended_and_outages_are_bands() {
        let point = |seconds, done, up| Point { seconds, done, bytes: 0, up };
        let points = vec![point(0.0, 0, true), point(5.0, 5, false), point(10.0, 10, true)];
        let outcome =
            Outcome { contender: "a<b".into(), finished: true, points, ..Outcome::default() };
        let run = Run { outcomes: vec![outcome], ..Run::default() };
        let svg = progress(&run);
        assert!(svg.contains("M64.0 222.0L404.0 122.0L744.0 22.0"), "{svg}");
        assert!(svg.contains("link down from 5.0 s to 10.0 s"), "{svg}");
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"), "{svg}");
    }

    #[test]
    fn nothing_measured_is_still_a_picture() {
        assert!(progress(&Run::default()).ends_with("</svg>"));
        assert!(bars("none", &[]).ends_with("</figure>"));
    }
}
