//! The model of a link, told the time.

use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// 1,000 B a second; a packet of 100 B takes 100 ms.
const SLOW: Link = Link::new(8_000, ms(300));

#[test]
fn packets_queue_for_the_wire_and_then_travel() {
    let mut transit = Transit::new(SLOW, 1);
    assert_eq!(transit.offer(ms(0), 100), Fate::Arrives(ms(400)));
    assert_eq!(transit.offer(ms(0), 100), Fate::Arrives(ms(500)));
    assert_eq!(transit.offer(ms(50), 200), Fate::Arrives(ms(700)));
    assert_eq!(transit.offer(ms(5_000), 100), Fate::Arrives(ms(5_400)));
    assert_eq!(transit.counters().offered, Traffic { packets: 4, bytes: 500 });
}

#[test]
fn a_full_queue_drops_the_tail_and_empties_with_time() {
    let queues = [Queue::Time(ms(300)), Queue::Bytes(300)];
    for queue in queues {
        let mut transit = Transit::new(SLOW.with_queue(queue), 1);
        let fates: Vec<Fate> = (0..4).map(|_| transit.offer(ms(0), 100)).collect();
        assert_eq!(fates[2..], [Fate::Arrives(ms(600)), Fate::Overflows]);
        assert_eq!(transit.offer(ms(99), 100), Fate::Overflows);
        assert_eq!(transit.offer(ms(100), 100), Fate::Arrives(ms(700)));
        assert_eq!(transit.counters().overflowed, Traffic { packets: 2, bytes: 200 });
    }
}

#[test]
fn a_packet_larger_than_the_queue_still_passes_an_idle_wire() {
    let mut transit = Transit::new(SLOW.with_queue(Queue::Bytes(50)), 1);
    assert_eq!(transit.offer(ms(0), 100), Fate::Arrives(ms(400)));
    assert_eq!(transit.offer(ms(1), 100), Fate::Overflows);
}

#[test]
fn a_cut_takes_what_enters_and_what_would_arrive() {
    let mut transit = Transit::new(SLOW, 1);
    assert_eq!(transit.offer(ms(0), 100), Fate::Arrives(ms(400)));
    transit.cut();
    assert_eq!(transit.offer(ms(10), 100), Fate::Cut);
    assert!(!transit.arrives(ms(400), 100));
    transit.restore();
    assert_eq!(transit.offer(ms(500), 100), Fate::Arrives(ms(900)));
    assert!(transit.arrives(ms(900), 100));
    let counters = transit.counters();
    assert_eq!((counters.cut.packets, counters.delivered.packets), (2, 1));
    assert_eq!(counters.carried_bytes(), 100);
}

#[test]
fn a_link_that_is_down_by_itself_cuts_like_a_cut() {
    let mut transit = Transit::new(SLOW.with_turns(ms(450), ms(500)), 1);
    assert_eq!(transit.offer(ms(0), 100), Fate::Arrives(ms(400)));
    assert!(transit.arrives(ms(400), 100));
    assert_eq!(transit.offer(ms(460), 100), Fate::Cut);
    assert!(!transit.arrives(ms(460), 100));
    assert_eq!(transit.offer(ms(950), 100), Fate::Arrives(ms(1_350)));
}

#[test]
fn losses_have_their_share_alone_and_in_bursts() {
    for (burst, runs_expected) in [(1.0, 0.95), (4.0, 0.25)] {
        let fast = Link::new(1_000_000_000, ms(0)).with_loss(0.05).with_burst(burst);
        let mut transit = Transit::new(fast, 3);
        let lost: Vec<bool> =
            (0..100_000).map(|at| transit.offer(ms(at), 100) == Fate::Lost).collect();
        let count = lost.iter().filter(|&&lost| lost).count() as f64;
        assert!((count / 100_000.0 - 0.05).abs() < 0.005, "{count} of 100,000 lost");
        let runs = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
        assert!((runs / count - runs_expected).abs() < 0.03, "{runs} runs of {count}");
    }
}

#[test]
fn jitter_stays_in_its_bounds_and_keeps_the_order_unless_told() {
    for reorders in [false, true] {
        let fast = Link::new(1_000_000_000, ms(100)).with_jitter(ms(50), reorders);
        let mut transit = Transit::new(fast, 5);
        let arrivals: Vec<Duration> = (0..1_000)
            .map(|at| match transit.offer(ms(at), 100) {
                Fate::Arrives(arrival) => arrival - ms(at),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(arrivals.iter().all(|delay| (ms(100)..=ms(151)).contains(delay)));
        let ordered = arrivals.windows(2).all(|pair| pair[0] <= pair[1] + ms(1));
        assert_eq!(ordered, !reorders);
    }
}

#[test]
fn a_seed_names_a_run() {
    let run = |seed| {
        let link = SLOW.with_loss(0.3).with_jitter(ms(10), false);
        let mut transit = Transit::new(link, seed);
        (0..100).map(|at| transit.offer(ms(at * 200), 100)).collect::<Vec<Fate>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_changed_link_holds_for_the_packets_to_come() {
    let mut transit = Transit::new(SLOW, 1);
    transit.offer(ms(0), 100);
    transit.set_link(Link { rate_bps: 16_000, ..transit.link() });
    assert_eq!(transit.offer(ms(0), 100), Fate::Arrives(ms(450)));
}
