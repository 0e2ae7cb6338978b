//! The report as one page that needs nothing else: no network, no script.

use std::fmt::Write as _;

use super::chart::{self, escape};
use super::terminal::{each, floored, flush, remarks, verdict};
use super::{Run, share};

/// The whole page.
pub(super) fn page(runs: &[Run]) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Thinwire on simulated links</title>\
         <style>{STYLE}</style><main><h1>Thinwire on simulated links</h1><p>{INTRODUCTION}</p>"
    );
    for run in runs {
        html += &section(run);
    }
    html + "</main></html>\n"
}

fn section(run: &Run) -> String {
    let Run { link, workload, scenario, size, unit, .. } = run;
    let mut html = format!(
        "<section><h2>{}: {workload}, {size} {unit}, on {}</h2>",
        escape(scenario),
        escape(link)
    );
    html += &chart::progress(run);
    html += "<div class=\"bars\">";
    html += &chart::bars(&format!("bytes on the wire for each of the {unit}"), &costs(run));
    html += &chart::bars("share of the link in use towards the target", &shares(run));
    html += "</div>";
    html += &table(run);
    let _ = write!(html, "<p>Again: <code>{}</code></p></section>", escape(&run.command));
    html
}

fn costs(run: &Run) -> Vec<(String, f64, String)> {
    let outcomes = run.outcomes.iter().map(|outcome| (&*outcome.contender, each(run, outcome)));
    let floor = run.floor.map(|floor| ("zstd -19", share(floor.compressed_bytes, run.size)));
    outcomes
        .chain(floor)
        .map(|(name, bytes)| (name.to_owned(), bytes, format!("{bytes:.1} B")))
        .collect()
}

fn shares(run: &Run) -> Vec<(String, f64, String)> {
    let share = |outcome: &super::Outcome| {
        let share = outcome.utilisation();
        (outcome.contender.clone(), share, format!("{:.0} %", share * 100.0))
    };
    run.outcomes.iter().map(share).collect()
}

fn table(run: &Run) -> String {
    let mut html = "<table><tr><th></th><th>seconds</th><th>bytes to the target</th>\
        <th>bytes back</th><th></th></tr>"
        .to_owned();
    for outcome in &run.outcomes {
        let more = if outcome.finished { "" } else { "&gt; " };
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{more}{:.1}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&outcome.contender),
            outcome.seconds,
            outcome.up_bytes,
            outcome.down_bytes,
            escape(&remarks(run, outcome))
        );
    }
    if let Some(floor) = run.floor {
        let _ = write!(
            html,
            "<tr><td>zstd -19 --long</td><td></td><td>{}</td><td></td><td>of {} bytes of {}, \
             as one file</td></tr>",
            floor.compressed_bytes,
            floor.stream_bytes,
            floored(run)
        );
    }
    html += "</table>";
    for line in flush(run).into_iter().chain(verdict(run)) {
        let _ = write!(html, "<p>{}</p>", escape(&line));
    }
    html
}

const INTRODUCTION: &str = "Each contender ran alone on databases of its own, on the same emulated \
    link with the same data and the same seed of losses. Bytes are whole IP packets, lost ones \
    included. Grey bands are times without link. The floor is the whole stream of changes, \
    or of a copy all rows, compressed as one file that no link ever sees.";
pub(super) const STYLE: &str = "
:root { --ink: #1c2430; --dim: #66707d; --paper: #fff; --band: #e8ebef; --c0: #0b6e99;
  --c1: #c2561a; --c2: #7a8794; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --dim: #98a2ae; --paper: #15191f;
  --band: #2a313a; --c0: #4fb3dc; --c1: #ee8f55; --c2: #8f9aa6; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
main { max-width: 800px; margin: 2rem auto; padding: 0 1rem; }
section { margin: 3rem 0; } h2 { font-size: 1.1rem; } figure { margin: 0; flex: 1 1 320px; }
figcaption { color: var(--dim); font-size: 0.85rem; } .bars { display: flex; flex-wrap: wrap;
  gap: 1rem; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--dim); }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
.axis { stroke: var(--dim); } .down { fill: var(--band); }
.l0, .l1, .l2 { fill: none; stroke-width: 2; }
.l0 { stroke: var(--c0); } .l1 { stroke: var(--c1); } .l2 { stroke: var(--c2); }
svg .n0 { fill: var(--c0); } svg .n1 { fill: var(--c1); } svg .n2 { fill: var(--c2); }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
td, th { text-align: right; padding: 0.2rem 0.5rem; border-bottom: 1px solid var(--band); }
td:first-child, td:last-child { text-align: left; }
code { font-size: 0.85rem; overflow-wrap: anywhere; }
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::{native, pglogical, recvlogical, thinwire};
    use crate::report::{Floor, Latency, Outcome};

    #[test]
    fn every_run_is_on_the_page_with_what_does_it_again() {
        let outcome = Outcome { contender: "thinwire".into(), up_bytes: 900, ..Outcome::default() };
        let run = Run {
            link: "my<link>".into(),
            command: "thinwire-bench run --seed 7".into(),
            size: 10,
            flush: Latency::of(vec![0.75]),
            floor: Some(Floor { stream_bytes: 5_000, compressed_bytes: 400 }),
            outcomes: vec![outcome],
            ..Run::default()
        };
        let html = page(&[run.clone(), run]);
        assert_eq!(html.matches("<code>thinwire-bench run --seed 7</code>").count(), 2);
        assert!(html.contains("90.0 B") && html.contains("40.0 B"), "{html}");
        assert!(html.contains("fdatasync p50 0.75 ms"), "{html}");
        assert!(!html.contains("<link>") && !html.contains("http"), "{html}");
    }

    /// What SVG is not told to leave empty, or to colour, it fills with black.
    #[test]
    fn whoever_is_drawn_has_a_line_without_an_area_and_a_name_of_its_colour() {
        let hollow = STYLE.lines().find(|line| line.contains("fill: none")).unwrap();
        let hollow = hollow.split_once('{').unwrap().0;
        for name in [thinwire::NAME, native::NAME, pglogical::NAME, recvlogical::NAME, "zstd -19"] {
            let tone = chart::tone(name);
            assert!(hollow.split(',').any(|it| it.trim() == format!(".l{tone}")), "{name}");
            assert!(STYLE.contains(&format!(".l{tone} {{ stroke: var(--c{tone}); }}")), "{name}");
            for part in ["svg .n", ".f"] {
                let rule = format!("{part}{tone} {{ fill: var(--c{tone}); }}");
                assert!(STYLE.contains(&rule), "{name}: {rule}");
            }
        }
    }
}
