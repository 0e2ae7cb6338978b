//! Exactly once on a sink that fails before, after, and without telling; halts that name their record.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use thinwire_apply::{Applier, State};
use thinwire_engine::{
    journal::Stream,
    model::{Offset, Origin, Record, Running},
};

use crate::{
    database::{applied, applied_to, halted, idle, in_state},
    feed::{Feed, NODE, Table, copy_records},
    memory::{Fault, Memory, Target},
};

/// A small generator of our own, so that a seed names a run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn table() -> Table {
    Table::new(1, "public.t", &["id*"])
}

/// A stream of everything there is, and what a sink has to be given of it.
fn varied(feed: &Feed, random: &mut Random, units: usize) -> Vec<(Offset, Record)> {
    let t = table();
    let (mut records, mut wanted) = (vec![t.relation()], Vec::new());
    let mut next = 0;
    let mut rows = |count: u64| -> Vec<Record> {
        (0..count)
            .map(|_| {
                next += 1;
                t.insert(&next.to_string())
            })
            .collect()
    };
    for _ in 0..units {
        let (unit, effective) = match random.below(10) {
            0 => (vec![t.relation()], false),
            1 => (vec![Record::Skip { count: 1, running: Running::new(1) }], false),
            2 => {
                let mut unit = vec![feed.begin()];
                unit.extend(rows(random.below(4)));
                unit.push(Record::Abort);
                (unit, false)
            }
            3 => {
                // Too large to be held back, so it is given and then undone or kept.
                let mut unit = feed.wrapped(&rows(1_010));
                let aborted = random.below(2) == 0;
                if aborted {
                    unit.pop();
                    unit.push(Record::Abort);
                }
                (unit, !aborted)
            }
            4 => {
                let ours = random.below(2) == 0;
                let audience = if ours { vec![NODE] } else { vec![Origin::from_bytes([9; 16])] };
                let values: Vec<_> = (0..random.below(5)).map(|value| value.to_string()).collect();
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                let mut unit = copy_records(&t, &values, audience);
                let aborted = random.below(3) == 0;
                if aborted {
                    unit.pop();
                    unit.push(Record::CopyAbort);
                }
                (unit, ours && !aborted)
            }
            _ => (feed.wrapped(&rows(random.below(5))), true),
        };
        for record in unit {
            records.push(record.clone());
            if effective {
                wanted.push((Offset::new(records.len() as u64), record));
            }
        }
    }
    feed.append(&records);
    assert_eq!(feed.last(), Offset::new(records.len() as u64));
    wanted
}

fn start(sink: Memory, stream: &Arc<Stream>) -> Applier {
    Applier::with_sink(sink, stream.clone(), NODE)
}

#[tokio::test(start_paused = true)]
async fn every_change_has_its_effect_once_whatever_fails() {
    let mut faults = 0;
    for seed in 0..50 {
        let mut random = Random(seed);
        let feed = Feed::of(thinwire_engine::model::StreamId {
            origin: Origin::from_bytes([0xF0; 16]),
            epoch: thinwire_engine::model::Epoch::from_bytes([1; 16]),
        });
        let wanted = varied(&feed, &mut random, 25);
        let target = Arc::<Mutex<Target>>::default();
        let (mut random, often) = (Random(seed ^ 0xABCD), 3 + seed % 40);
        let mut left = 40;
        let sink = Memory::new(&target, move |call| {
            // A call of many is rarely hit, a commit often.
            let odds = if call == "take" { often * 50 } else { often };
            if left == 0 || random.below(odds) > 0 {
                return None;
            }
            left -= 1;
            Some(if random.below(2) == 0 { Fault::Before } else { Fault::After })
        });
        let applier = start(sink, &feed.stream);
        let mut marks = feed.stream.watch();
        let all = marks.wait_for(|marks| marks.applied == marks.appended);
        tokio::time::timeout(Duration::from_secs(3600), all).await.unwrap().unwrap();
        applier.shutdown().await;
        let target = target.lock().unwrap();
        assert!(target.log == wanted, "seed {seed}");
        assert_eq!(target.progress.offset, feed.last(), "seed {seed}");
        faults += target.faults;
    }
    assert!(faults > 400, "only {faults} faults");
}

#[tokio::test(start_paused = true)]
async fn every_prefix_may_be_applied_twice() {
    let feed = Feed::new();
    let (target, t) = (Arc::<Mutex<Target>>::default(), table());
    feed.append(&[t.relation()]);
    for number in 0..30 {
        feed.transaction(&[t.insert(&number.to_string())]);
        for _ in 0..2 {
            let applier = start(Memory::reliable(&target), &feed.stream);
            applied(&applier, &feed.stream).await;
            applier.shutdown().await;
        }
    }
    let target = target.lock().unwrap();
    let inserts = target.log.iter().filter(|(_, record)| matches!(record, Record::Insert { .. }));
    assert_eq!(inserts.count(), 30);
    assert_eq!(target.commits, 30);
}

#[tokio::test(start_paused = true)]
async fn small_transactions_share_a_target_transaction() {
    let (feed, t) = (Feed::new(), table());
    feed.append(&[t.relation()]);
    for number in 0..500 {
        feed.append_unsynced(&feed.wrapped(&[t.insert(&number.to_string())]));
    }
    feed.stream.sync().unwrap();
    let target = Arc::<Mutex<Target>>::default();
    let applier = start(Memory::reliable(&target), &feed.stream);
    applied(&applier, &feed.stream).await;
    let status = applier.status();
    assert_eq!((status.transactions, status.rows), (500, 500));
    assert!(target.lock().unwrap().commits < 5);
    applier.shutdown().await;
}

#[tokio::test]
async fn a_refused_record_is_named_and_what_is_before_it_is_committed() {
    let (feed, t) = (Feed::new(), table());
    feed.append_unsynced(&[t.relation()]);
    for number in 0..100 {
        let rows = [t.insert(&number.to_string()), t.insert(&(1000 + number).to_string())];
        feed.append_unsynced(&feed.wrapped(&rows));
    }
    feed.stream.sync().unwrap();
    let target = Arc::<Mutex<Target>>::default();
    // The second row of the fiftieth transaction.
    let refused = Offset::new(1 + 49 * 4 + 3);
    target.lock().unwrap().refused.insert(refused);
    let applier = start(Memory::reliable(&target), &feed.stream);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((halt.offset, &*halt.code), (Some(refused), "constraint"));
    in_state(&applier, State::Halted).await;
    assert_eq!(feed.stream.watermarks().applied, Offset::new(1 + 49 * 4));
    target.lock().unwrap().refused.clear();
    applier.retry();
    applied(&applier, &feed.stream).await;
    idle(&applier).await;
    assert_eq!(*feed.stream.halted().borrow(), None);
    assert_eq!(applier.status().last_error, None);
    applier.shutdown().await;
    let log = &target.lock().unwrap().log;
    assert_eq!(log.len(), 400);
}

#[tokio::test]
async fn a_halted_stream_goes_on_by_itself() {
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1")]);
    let target = Arc::<Mutex<Target>>::default();
    target.lock().unwrap().refused.insert(Offset::new(3));
    let applier = start(Memory::reliable(&target), &feed.stream);
    assert_eq!(halted(&applier, &feed.stream).await.offset, Some(Offset::new(3)));
    target.lock().unwrap().refused.clear();
    applied(&applier, &feed.stream).await;
    idle(&applier).await;
    assert_eq!(*feed.stream.halted().borrow(), None);
    applier.shutdown().await;
}

#[tokio::test]
async fn a_pause_lasts_until_it_is_over() {
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1")]);
    let target = Arc::<Mutex<Target>>::default();
    let applier = start(Memory::reliable(&target), &feed.stream);
    applied(&applier, &feed.stream).await;
    applier.pause();
    in_state(&applier, State::Paused).await;
    let before = feed.stream.watermarks().applied;
    feed.transaction(&[t.insert("2")]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(feed.stream.watermarks().applied, before);
    applier.resume();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(applier.status().state, State::Stopped);
}

#[tokio::test]
async fn a_silent_target_does_not_hold_up_the_end() {
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1")]);
    let target = Arc::<Mutex<Target>>::default();
    let sink = Memory::new(&target, |call| (call == "commit").then_some(Fault::Silence));
    let applier = start(sink, &feed.stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = std::time::Instant::now();
    applier.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_target_that_went_back_is_brought_forward_again_or_halts() {
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1")]);
    let target = Arc::<Mutex<Target>>::default();
    let fail = Arc::new(Mutex::new(false));
    let failing = fail.clone();
    let fault = move |call: &'static str| {
        let fails = call == "begin" && std::mem::take(&mut *failing.lock().unwrap());
        fails.then_some(Fault::Before)
    };
    let applier = start(Memory::new(&target, fault), &feed.stream);
    applied(&applier, &feed.stream).await;
    feed.transaction(&[t.insert("2")]);
    applied(&applier, &feed.stream).await;
    // Restored to where it was after the first transaction, which we learn at the next failure.
    let first = target.lock().unwrap().log[..3].to_vec();
    {
        let mut target = target.lock().unwrap();
        target.progress.offset = Offset::new(4);
        target.log.truncate(first.len());
        *fail.lock().unwrap() = true;
    }
    feed.transaction(&[t.insert("3")]);
    applied(&applier, &feed.stream).await;
    assert_eq!(target.lock().unwrap().log.len(), 3 + 3 + 3);
    // The journal does not reach back to the very beginning any more.
    for number in 0..3_000 {
        feed.transaction(&[t.insert(&number.to_string())]);
    }
    applied(&applier, &feed.stream).await;
    feed.stream.trim(feed.last(), true).unwrap();
    target.lock().unwrap().progress.offset = Offset::ZERO;
    *fail.lock().unwrap() = true;
    feed.transaction(&[t.insert("4")]);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!(halt.code, "target_behind");
    applier.shutdown().await;
}

#[tokio::test]
async fn a_target_that_is_ahead_of_the_journal_halts_until_the_journal_has_caught_up() {
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1")]);
    let target = Arc::<Mutex<Target>>::default();
    target.lock().unwrap().progress.offset = Offset::new(7);
    let applier = start(Memory::reliable(&target), &feed.stream);
    assert_eq!(halted(&applier, &feed.stream).await.code, "target_ahead");
    assert_eq!(applier.status().apply_errors, 0);
    feed.transaction(&[t.insert("2")]);
    feed.transaction(&[t.insert("3")]);
    applier.retry();
    applied_to(&applier, &feed.stream, Offset::new(10)).await;
    idle(&applier).await;
    assert_eq!(*feed.stream.halted().borrow(), None);
    applier.shutdown().await;
    assert_eq!(target.lock().unwrap().log.len(), 3);
}

#[tokio::test]
async fn a_row_that_no_source_would_send_halts() {
    let t = table();
    let unknown = Table::new(9, "public.unknown", &["id*"]);
    let begin = Feed::new().begin();
    for (rows, name) in [
        (vec![begin.clone(), unknown.insert("1")], "a table that was never described"),
        (vec![begin.clone(), t.insert("1|2")], "a wrong number of columns"),
        (vec![t.insert("1")], "a row outside of any transaction"),
    ] {
        let feed = Feed::new();
        feed.append(&[t.relation()]);
        feed.append(&rows);
        if rows.len() > 1 {
            feed.append(&[Record::Commit { end: thinwire_engine::model::Lsn::ZERO }]);
        }
        let target = Arc::<Mutex<Target>>::default();
        let applier = start(Memory::reliable(&target), &feed.stream);
        let halt = halted(&applier, &feed.stream).await;
        assert_eq!(halt.code, "journal_corrupt", "{name}");
        assert_eq!(halt.offset, Some(Offset::new(1 + rows.len() as u64)), "{name}");
        applier.shutdown().await;
        assert_eq!(target.lock().unwrap().log, vec![]);
    }
}

#[tokio::test(start_paused = true)]
async fn care_costs_one_batch_in_vain_whatever_is_in_it_and_ends_behind_it() {
    const TRANSACTIONS: u64 = 10;
    let (feed, t) = (Feed::new(), table());
    feed.append_unsynced(&[t.relation()]);
    for id in 0..TRANSACTIONS {
        feed.append_unsynced(&feed.wrapped(&[t.insert(&id.to_string())]));
    }
    feed.stream.sync().unwrap();
    let target = Arc::<Mutex<Target>>::default();
    // The row of the last transaction.
    target.lock().unwrap().cautious.insert(Offset::new(3 * TRANSACTIONS));
    let begun = Arc::new(Mutex::new(0));
    let count = begun.clone();
    let sink = Memory::new(&target, move |call| {
        *count.lock().unwrap() += u64::from(call == "begin");
        None
    });
    let applier = start(sink, &feed.stream);
    applied(&applier, &feed.stream).await;
    idle(&applier).await;
    let commits = target.lock().unwrap().commits;
    assert!(commits >= TRANSACTIONS, "{commits}");
    assert_eq!(*begun.lock().unwrap(), commits + 1);
    for id in 0..TRANSACTIONS {
        feed.append_unsynced(&feed.wrapped(&[t.insert(&id.to_string())]));
    }
    feed.stream.sync().unwrap();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(target.lock().unwrap().commits, commits + 1);
    assert_eq!(feed.stream.halted().borrow().clone(), None);
}
