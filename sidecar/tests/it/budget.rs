//! The budget runs out in its declared order, in sight of whoever looks, and what can never fit is refused by name.

use std::{thread::sleep, time::Duration};

use thinwire_sidecar::status::{Journal, Pressure, Status};

use crate::site::{APPLY, CAPTURE, Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id bigint primary key, pad text)";

fn journal_of(site: &Site) -> Journal {
    let text = site.node.run(&["status", "--json"]).unwrap();
    serde_json::from_str::<Status>(&text).unwrap().journal
}

/// The steps that were seen while work was done, in the order in which they first were.
#[derive(Default)]
struct Seen {
    steps: Vec<Pressure>,
    last: Option<Pressure>,
    forecasts: Vec<f64>,
}

impl Seen {
    fn look(&mut self, site: &Site) {
        let journal = journal_of(site);
        // What is given up makes room, so a step may go and come again.
        if !self.steps.contains(&journal.pressure) {
            self.steps.push(journal.pressure);
        }
        self.last = Some(journal.pressure);
        if journal.pressure < Pressure::Receiving {
            self.forecasts.extend(journal.hours_left);
        }
    }
}

#[test]
fn a_budget_runs_out_step_by_step_in_sight_and_comes_back_by_itself() {
    let journal = "[journal]\nbudget = \"8MiB\"\nretention = \"1h\"\nsegment = \"64KiB\"\n";
    let source = Site::new("edge", &format!("{CAPTURE}{journal}"), SCHEMA);
    let target = Site::new("hq", &format!("{APPLY}{journal}"), SCHEMA);
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    pair.source.sql("insert into t values (-1, '')");
    pair.wait_equal(Duration::from_secs(30));
    assert_eq!(journal_of(&pair.source).pressure, Pressure::None);
    // What arrives is not applied, so first the target runs out of room, then the source.
    pair.target.node.run(&["pause"]).unwrap();
    pair.target.node.run(&["resume", "--peer", "edge"]).unwrap();
    let (mut source, mut target) = (Seen::default(), Seen::default());
    for round in 0..1_200_u64 {
        pair.source.sql(&format!(
            "insert into t select i, md5(random()::text) || md5(random()::text) || md5(random()::text)
             || md5(random()::text) from generate_series({}, {}) i",
            round * 500,
            round * 500 + 499
        ));
        target.look(&pair.target);
        source.look(&pair.source);
        // What the target has is trimmed at the source, until the target takes no more.
        let full = (Some(Pressure::HoldWal), Some(Pressure::Receiving));
        if (source.last, target.last) == full {
            break;
        }
        sleep(Duration::from_millis(150));
    }
    // A look may come too late for a step, but none comes as the first that is felt.
    for seen in [&source, &target] {
        assert!(seen.steps.len() > 2 && seen.steps[0] == Pressure::None, "{:?}", seen.steps);
        assert!(seen.steps[1] < Pressure::Receiving, "{:?}", seen.steps);
        assert!(seen.forecasts.iter().any(|hours| *hours < 1.0), "{:?}", seen.forecasts);
    }
    assert_eq!((source.last, target.last), (Some(Pressure::HoldWal), Some(Pressure::Receiving)));
    // What the target has taken at last may make room for a moment.
    wait_for("the source to say so", Duration::from_secs(30), || {
        let shown = pair.source.node.run(&["status"]).unwrap();
        shown.contains("FULL: capture waits").then_some(())
    });
    pair.target.node.run(&["resume"]).unwrap();
    pair.wait_equal(Duration::from_secs(120));
    for site in [&pair.source, &pair.target] {
        wait_for("the pressure to go", Duration::from_secs(30), || {
            (journal_of(site).pressure == Pressure::None).then_some(())
        });
    }
}

#[test]
fn a_record_that_can_never_fit_halts_by_name_and_stays_so() {
    let journal = "[journal]\nbudget = \"4MiB\"\nsegment = \"64KiB\"\n";
    let mut site = Site::new("edge", &format!("{CAPTURE}{journal}"), SCHEMA);
    site.init();
    site.node.start().unwrap();
    site.sql("insert into t values (1, 'small')");
    wait_for("the copy", Duration::from_secs(30), || {
        (site.status().streams.first()?.synced > Some(2)).then_some(())
    });
    site.sql("insert into t values (2, repeat('large', 1000000))");
    let halted = wait_for("the halt", Duration::from_secs(30), || {
        site.status().halted().map(|(_, halted)| halted.clone())
    });
    assert_eq!(halted.code, "record_too_large", "{halted:?}");
    assert!(halted.detail.contains("5000"), "its size is told: {halted:?}");
    for _ in 0..40 {
        sleep(Duration::from_millis(100));
        assert!(site.status().halted().is_some(), "it is tried again in silence");
    }
}

#[test]
fn a_copy_that_can_never_fit_is_refused_with_the_sizes_and_keeps_the_slot() {
    let journal = "[journal]\nbudget = \"4MiB\"\nsegment = \"64KiB\"\non_full = \"resync\"\n";
    let mut site = Site::new("edge", &format!("{CAPTURE}{journal}"), SCHEMA);
    site.sql("insert into t select i, md5(random()::text) || md5(random()::text) from generate_series(1, 80000) i");
    site.init();
    site.node.start().unwrap();
    let halted = wait_for("the halt", Duration::from_secs(30), || {
        site.status().halted().map(|(_, halted)| halted.clone())
    });
    assert_eq!(halted.code, "copy_too_large", "{halted:?}");
    assert!(halted.detail.contains("bytes"), "{halted:?}");
    let slots = site.sql("select count(*) from pg_replication_slots where not temporary");
    assert_eq!(slots.trim(), "1");
}
