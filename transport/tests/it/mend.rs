//! Records that a node lost are given back by whoever holds them.

use std::{sync::Arc, time::Duration};

use thinwire_engine::{
    codec::put_varint,
    journal::Stream,
    model::{Copy, CopyTable, Lsn, Offset, Record, RelationId},
};
use thinwire_transport::{FetchError, Streams, wire::Compressor};
use tokio::time::timeout;

use crate::{
    misbehaviour::connect,
    sim::{SATELLITE, Sim},
    site::{Site, simulate, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(600);

fn fill(site: &Site) {
    for xid in 1..40 {
        site.append(&transaction(xid, 20, 1_000));
    }
}

/// Mends what readers of a stream have met, with what the peer gives.
async fn mend(site: &Site, peer: &Site, stream: &Arc<Stream>) -> Result<u64, FetchError> {
    let offset = *stream.damage().borrow().first().unwrap();
    let mut mending = stream.mend(offset).unwrap();
    while let Some(wanted) = mending.wanted() {
        let mut records = site.transport().fetch(&peer.name, stream.id(), wanted).await?;
        while let Some(records) = records.next().await? {
            mending.give(&records).unwrap();
        }
    }
    Ok(mending.finish().unwrap().fetched)
}

#[test]
fn an_origin_gets_its_own_records_back_and_ships_on_over_the_same_connection() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 1);
        let (mut hub, mut early, mut late) = (Site::new(1), Site::new(2), Site::new(3));
        hub.start(&sim, vec![early.as_peer(), late.as_peer()]);
        early.start(&sim, vec![hub.as_dialled()]);
        fill(&hub);
        until_equal(&hub, &early, hub.own_id(), LONG).await;
        hub.ruin(hub.own_id(), 1);
        late.start(&sim, vec![hub.as_dialled()]);
        let own = hub.own();
        until("the damage is met", LONG, || !own.damage().borrow().is_empty()).await;
        until("it is said", LONG, || own.halted().borrow().is_some()).await;
        let halt = own.halted().borrow().clone().unwrap();
        assert_eq!(halt.code, "journal_corrupt", "{halt:?}");

        assert!(mend(&hub, &early, &own).await.unwrap() > 0);
        until_equal(&hub, &late, hub.own_id(), LONG).await;
        assert_eq!(*own.halted().borrow(), None);
    });
}

#[test]
fn a_holder_gets_a_received_stream_back_but_not_what_it_was_never_to_have() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 2);
        let (mut origin, mut holder, late) = (Site::new(1), Site::new(2), Site::new(3));
        origin.start(&sim, vec![holder.as_peer()]);
        holder.start(&sim, vec![origin.as_dialled(), late.as_peer()]);
        let id = origin.own_id();
        fill(&origin);
        // A copy for somebody else, which the holder has as a skipped run.
        let copy = Copy {
            lsn: Lsn::new(4_000),
            audience: vec![late.key().origin()],
            carriers: vec![],
            tables: vec![CopyTable { relation: RelationId(7), rows_estimate: 1 }],
        };
        let row = transaction(1, 1, 100).swap_remove(1);
        origin.append(&[Record::CopyBegin(copy), row, Record::CopyEnd { rows: 1 }]);
        fill(&origin);
        until_equal(&origin, &holder, id, LONG).await;
        let held = holder.journal().stream(id).unwrap();
        let before = records(&held);
        assert!(before.iter().any(|(_, record)| matches!(record, Record::Skip { .. })));
        for number in 1..3 {
            holder.ruin(id, number);
        }
        let mut reader = None;
        while reader.is_none() {
            match whole(&held) {
                Ok(all) => reader = Some(all),
                Err(_) => assert!(mend(&holder, &origin, &held).await.unwrap() > 0),
            }
        }
        assert_eq!(reader.unwrap(), before);
    });
}

#[test]
fn nobody_gets_a_stream_that_is_not_shipped_to_it() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 3);
        let (mut hub, mut edge, mut other) = (Site::new(1), Site::new(2), Site::new(3));
        let mut shy = edge.as_peer();
        shy.send = Streams::Own;
        hub.start(&sim, vec![shy, other.as_peer()]);
        other.start(&sim, vec![hub.as_dialled()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        fill(&other);
        until_equal(&other, &hub, other.own_id(), LONG).await;
        until("connected", LONG, || edge.status(&hub).connected).await;
        let range = Offset::new(2)..Offset::new(5);
        let asked = edge.transport().fetch(&hub.name, other.own_id(), range.clone()).await;
        let Err(FetchError::Refused { reason: forbidden, .. }) = asked else { panic!("{asked:?}") };
        let mut unknown = other.own_id();
        unknown.epoch = thinwire_engine::model::Epoch::from_bytes([99; 16]);
        let asked = edge.transport().fetch(&hub.name, unknown, range.clone()).await;
        let Err(FetchError::Refused { reason: absent, .. }) = asked else { panic!("{asked:?}") };
        assert_eq!(forbidden, absent, "it is not told whether there is such a stream");
        let asked = edge.transport().fetch("nobody", other.own_id(), range).await;
        assert!(matches!(asked, Err(FetchError::NotConnected { .. })));
        // What is asked beyond the end, or backwards, is refused too.
        for (from, until) in [(1, u64::MAX), (5, 2), (0, 3)] {
            let range = Offset::new(from)..Offset::new(until);
            let asked = other.transport().fetch(&hub.name, other.own_id(), range).await;
            assert!(matches!(asked, Err(FetchError::Refused { .. })), "{from}..{until}");
        }
    });
}

fn whole(stream: &Arc<Stream>) -> Result<Vec<(Offset, Record)>, thinwire_engine::Error> {
    let (mut reader, mut all) = (stream.read(Offset::FIRST)?, Vec::new());
    while let Some(block) = reader.next_block()? {
        all.extend(block.records.decode(block.first).map(Result::unwrap));
    }
    Ok(all)
}

fn records(stream: &Arc<Stream>) -> Vec<(Offset, Record)> {
    whole(stream).unwrap()
}

#[test]
fn a_record_that_has_no_room_is_refused_before_it_is_gathered() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 5);
        let (edge, mut hub) = (Site::new(1), Site::new(2));
        hub.budget = 64 << 20;
        hub.start(&sim, vec![edge.as_peer()]);
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        until("connected", LONG, || hub.status(&edge).connected).await;
        // As a record and in the place of what is withheld, and one that may come.
        for (index, bytes, refused) in
            [(0, 256 << 20, true), (1, 2 << 20, true), (0, 2 << 20, false)]
        {
            let wanted = Offset::new(1)..Offset::new(5);
            let asking = hub.transport().fetch(&edge.name, hub.own_id(), wanted);
            let answering = async {
                let (mut write, mut read) = raw.connection.accept_bi().await.unwrap();
                let question = read.read_to_end(1_000).await.unwrap();
                write.write_all(&question).await.unwrap();
                write.write_all(&beginning(index, bytes)).await.unwrap();
                write
            };
            let (fetching, _unfinished) = tokio::join!(asking, answering);
            match timeout(LONG, fetching.unwrap().next()).await {
                Ok(Err(FetchError::Misbehaved { reason, .. })) => {
                    assert!(refused && reason.contains("there is room for"), "{reason}");
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => assert!(!refused, "{bytes} bytes are gathered"),
            }
        }
    });
}

/// The beginning of a frame of one long record, and some zeros of it.
fn beginning(index: u8, bytes: usize) -> Vec<u8> {
    let mut frame = vec![2];
    put_varint(bytes as u64, &mut frame);
    frame.extend_from_slice(&[index, 1, 1]);
    frame.extend_from_slice(&[0; 1_000]);
    let (mut compressor, mut wire) = (Compressor::new().unwrap(), Vec::new());
    compressor.push(&frame, &mut wire).unwrap();
    compressor.flush(&mut wire).unwrap();
    wire
}
