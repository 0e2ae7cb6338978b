//! One stream without room at its receiver: the others flow, and it goes on once there is room.

use std::time::Duration;

use thinwire_engine::model::Offset;

use crate::{
    sim::{SATELLITE, Sim},
    site::{Site, simulate, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_stream_without_room_does_not_hold_up_the_others_of_its_peer() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 1);
        let (mut a, mut b) = (Site::new(1), Site::new(3));
        let (mut hub, mut end) = (Site::new(2), Site::new(4));
        end.budget = 4 << 20;
        hub.start(&sim, vec![a.as_peer(), b.as_peer(), end.as_peer()]);
        a.start(&sim, vec![hub.as_dialled()]);
        b.start(&sim, vec![hub.as_dialled()]);
        end.start(&sim, vec![hub.as_dialled()]);
        b.append(&transaction(1, 1, 10));
        until_equal(&b, &end, b.own_id(), LONG).await;
        let mut alone = Duration::ZERO;
        for xid in 2..26 {
            b.append(&transaction(xid, 10, 100));
            alone += until_equal(&b, &end, b.own_id(), LONG).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        // Nobody applies the first one's changes at the end, where there is room for less than half of them.
        for xid in 1..=60 {
            a.append(&transaction(xid, 100, 1_000));
        }
        until_equal(&a, &hub, a.own_id(), LONG).await;
        let halted = end.journal().stream(a.own_id()).unwrap();
        until("it is full", LONG, || halted.allowance().room() < 64 << 10).await;
        tokio::time::sleep(Duration::from_secs(30)).await;

        let (spent, mut waited) = (sim.sent_bytes(), Duration::ZERO);
        for xid in 26..74 {
            b.append(&transaction(xid, 10, 100));
            waited += until_equal(&b, &end, b.own_id(), LONG).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        // Twice as many, and losses fall where they fall.
        assert!(waited < alone * 3, "{waited:?} for 48 transactions, {alone:?} for 24 before");
        let spent = sim.sent_bytes() - spent;
        assert!(spent < 500_000, "{spent} bytes for 60 kB of records: what has no room is sent");
        let held = end.held(a.own_id()).0;
        assert!(held < a.held(a.own_id()).0);

        // What is not to be taken is not shipped to a new life either.
        end.kill().await;
        end.start(&sim, vec![hub.as_dialled()]);
        let spent = sim.sent_bytes();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let spent = sim.sent_bytes() - spent;
        assert!(spent < 40_000, "{spent} bytes after a restart");

        // It is applied at last, and what was applied goes.
        let halted = end.journal().stream(a.own_id()).unwrap();
        let all = a.held(a.own_id()).0;
        let spent = sim.sent_bytes();
        until("all of it", LONG, || {
            let synced = halted.watermarks().synced;
            halted.set_applied(synced);
            halted.trim(synced, true).unwrap();
            synced == all
        })
        .await;
        assert_eq!(end.held(a.own_id()), a.held(a.own_id()));
        let applied = || hub.status(&end).streams.iter().any(|stream| stream.applied == all);
        until("told", LONG, applied).await;
        let left = (all.get() - held.get()) * 1_000;
        let spent = sim.sent_bytes() - spent;
        assert!(spent < left * 5 / 4, "{spent} bytes for {left} bytes of records");
        assert!(all > Offset::FIRST);
    });
}

#[test]
fn a_record_that_finds_little_room_is_taken_in_the_end() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 2);
        let (mut a, mut b) = (Site::new(1), Site::new(2));
        b.budget = 3 << 20;
        b.start(&sim, vec![a.as_peer()]);
        a.start(&sim, vec![b.as_dialled()]);
        a.append(&transaction(1, 3_400, 1_000));
        let id = a.own_id();
        until("opened", LONG, || b.journal().stream(id).is_some()).await;
        let stream = b.journal().stream(id).unwrap();
        until("it is full", LONG, || stream.allowance().room() < 64 << 10).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        // What is let go of is less than a good stretch, and more does not go before the rest has come.
        let before = stream.watermarks();
        stream.trim(before.first.forward(250), true).unwrap();
        let room = stream.allowance().room();
        assert!((32 << 10..360 << 10).contains(&room), "{room}");
        until("more", LONG, || stream.watermarks().synced > before.synced).await;
    });
}
