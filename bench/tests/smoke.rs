//! A small run on each emulator, with everything real: servers, sidecars, packets.

use std::time::Duration;

use thinwire_bench::emulator::Kind;
use thinwire_bench::progress::Progress;
use thinwire_bench::report::{self, Run};
use thinwire_bench::run::{Spec, run};
use thinwire_bench::stop::Stop;
use thinwire_bench::{link::ladder, node, run::scenario, workload};

fn backlog(emulator: Kind, native: bool) -> Option<Run> {
    if let Err(error) = node::binary() {
        eprintln!("skipped: {error:#}");
        return None;
    }
    let spec = Spec {
        link: ladder::GEO,
        workload: workload::find("state").unwrap(),
        scenario: scenario::BACKLOG,
        size: 150,
        rate: 1.0,
        seconds: Duration::ZERO,
        cut_every: None,
        native,
        beside: None,
        emulator,
        seed: 1,
        patience: Duration::from_secs(120),
        trace: None,
    };
    Some(run(&spec, &Stop::default(), &Progress::new(true)).unwrap())
}

#[test]
fn a_backlog_drains_through_the_proxy_for_anybody() {
    let Some(run) = backlog(Kind::Udp, false) else { return };
    let [thinwire] = run.outcomes.as_slice() else { panic!("{run:?}") };
    assert_eq!((thinwire.finished, thinwire.equal, run.size), (true, Some(true), 150), "{run:?}");
    // A packet each way at least, and the least that the link takes for them.
    assert!(thinwire.up_bytes > 1_000 && thinwire.down_bytes > 28, "{run:?}");
    assert!(thinwire.seconds > 0.62, "{run:?}");
}

#[test]
fn both_drain_the_same_backlog_through_the_tunnel() {
    if Kind::best() != Kind::Tun {
        eprintln!("skipped: only root can make network namespaces and TUN devices");
        return;
    }
    let Some(run) = backlog(Kind::Tun, true) else { return };
    let [thinwire, native] = run.outcomes.as_slice() else { panic!("{run:?}") };
    assert!(thinwire.finished && native.finished, "{run:?}");
    assert_eq!((thinwire.equal, native.equal), (Some(true), Some(true)), "{run:?}");
    let floor = run.floor.unwrap();
    assert!(floor.compressed_bytes < floor.stream_bytes, "{floor:?}");
    assert!(floor.compressed_bytes < native.up_bytes, "{run:?}");
    assert!(thinwire.up_bytes < native.up_bytes, "{run:?}");
    let folder = tempfile::tempdir().unwrap();
    report::write(folder.path(), &[run]).unwrap();
    for name in ["results.json", "results.csv", "report.html"] {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.contains("native") && text.contains("thinwire-bench run"), "{name}");
    }
}
