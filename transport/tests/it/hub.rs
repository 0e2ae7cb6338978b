//! More than two: forwarding, copies for a newcomer.

use std::time::Duration;

use thinwire_engine::{
    codec::RecordsBuf,
    model::{Copy, CopyTable, Lsn, Offset, Record, RelationId},
};
use thinwire_transport::Event;

use crate::{
    sim::{SATELLITE, Sim},
    site::{Site, simulate, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(300);

#[test]
fn edges_reach_each_other_through_a_hub_without_an_echo() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 1);
        let (mut a, mut b, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![a.as_peer(), b.as_peer()]);
        a.start(&sim, vec![hub.as_dialled()]);
        b.start(&sim, vec![hub.as_dialled()]);
        for xid in 1..20 {
            a.append(&transaction(xid, 10, 100));
            b.append(&transaction(xid, 10, 100));
            hub.append(&transaction(xid, 10, 100));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        for (from, to) in [(&a, &b), (&b, &a), (&hub, &a), (&hub, &b), (&a, &hub), (&b, &hub)] {
            until_equal(from, to, from.own_id(), LONG).await;
            assert_eq!(to.held(from.own_id()).0, Offset::new(19 * 12));
        }
        // Nobody is shipped its own stream.
        let shipped = a.status(&hub).streams;
        assert_eq!(shipped.len(), 2, "{shipped:?}");
        assert!(hub.status(&a).streams.iter().all(|stream| stream.id != a.own_id()));
    });
}

#[test]
fn what_a_node_is_given_it_does_not_give_back() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 7);
        let (mut a, mut b, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![a.as_peer(), b.as_peer()]);
        a.start(&sim, vec![hub.as_dialled()]);
        b.start(&sim, vec![hub.as_dialled()]);
        for xid in 1..=20 {
            a.append(&transaction(xid, 100, 1_000));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        until_equal(&a, &b, a.own_id(), LONG).await;
        let status = b.status(&hub);
        let (sent, received) = (status.bytes_sent, status.bytes_received);
        assert!(received > 1_000_000 && sent < received / 5, "{sent} of {received} bytes");
    });
}

#[test]
fn a_ring_brings_everything_everywhere() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 2);
        let mut sites: Vec<Site> = (1..=3).map(Site::new).collect();
        for at in 0..3 {
            let next = sites[(at + 1) % 3].as_dialled();
            let before = sites[(at + 2) % 3].as_peer();
            sites[at].start(&sim, vec![next, before]);
        }
        for site in &sites {
            site.append(&transaction(1, 200, 100));
        }
        for from in &sites {
            for to in &sites {
                until_equal(from, to, from.own_id(), LONG).await;
            }
        }
        assert!(sites[0].journal().streams().len() == 3);
    });
}

#[test]
fn a_newcomer_whose_start_was_trimmed_gets_a_copy() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 3);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        for xid in 1..30 {
            hub.append(&transaction(xid, 30, 1_000));
        }
        let own = hub.own();
        own.trim(own.watermarks().synced, true).unwrap();
        assert!(own.watermarks().first > Offset::FIRST);

        edge.start(&sim, vec![hub.as_dialled()]);
        let mut event = None;
        until("asked", LONG, || {
            event = hub.next_event();
            event.is_some()
        })
        .await;
        let asked = Event::CopyNeeded {
            peer: edge.name.clone(),
            origin: edge.key().origin(),
            stream: hub.own_id(),
        };
        assert_eq!(event, Some(asked));

        let begins = own.watermarks().synced.next();
        let mut copy = RecordsBuf::new();
        copy.push(&Record::CopyBegin(Copy {
            lsn: Lsn::new(9),
            audience: vec![edge.key().origin()],
            carriers: vec![],
            tables: vec![CopyTable { relation: RelationId(7), rows_estimate: 0 }],
        }));
        copy.push(&Record::CopyEnd { rows: 0 });
        own.append(copy.take()).unwrap();
        own.sync().unwrap();
        assert!(hub.transport().serve_from(edge.key().origin(), hub.own_id(), begins));
        until_equal(&hub, &edge, hub.own_id(), LONG).await;
    });
}
