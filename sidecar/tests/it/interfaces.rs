//! Interfaces that vanish and come back, with another address: the node waits and goes on.

use std::{
    net::SocketAddr,
    process::{self, Command},
    thread::sleep,
    time::Duration,
};

use crate::site::{APPLY, CAPTURE, Pair, Site, lively};

/// Two network namespaces, joined by a pair of interfaces while there is one.
struct Network {
    left: String,
    right: String,
}

/// Reserved for benchmarks (RFC 2544), so never an address of the machine's own.
const RIGHT: &str = "198.18.77.2";

impl Network {
    /// `None` where this process may not make namespaces.
    fn new() -> Option<Self> {
        let id = process::id();
        let network = Self { left: format!("twl{id}"), right: format!("twr{id}") };
        let made = [&network.left, &network.right].iter().all(|name| {
            ip(&["netns", "add", name]) && ip(&["-n", name, "link", "set", "lo", "up"])
        });
        made.then_some(network)
    }

    /// Joins them; the left end has this address.
    fn join(&self, left: &str) {
        let Self { left: left_ns, right: right_ns } = self;
        assert!(ip(&[
            "link", "add", "tw0", "netns", left_ns, "type", "veth", "peer", "name", "tw0", "netns",
            right_ns
        ]));
        for (ns, address) in [(left_ns, left), (right_ns, RIGHT)] {
            assert!(ip(&["-n", ns, "address", "add", &format!("{address}/24"), "dev", "tw0"]));
            assert!(ip(&["-n", ns, "link", "set", "tw0", "up"]));
        }
    }

    fn part(&self) {
        assert!(ip(&["-n", &self.left, "link", "delete", "tw0"]));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.left]);
        ip(&["netns", "delete", &self.right]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

#[test]
fn an_interface_that_vanishes_and_comes_back_with_another_address_is_weather() {
    let Some(network) = Network::new() else {
        return crate::skip("interfaces", "making network namespaces needs root and `ip`");
    };
    let schema = "create table t (id bigint primary key)";
    let mut source = Site::new("edge", CAPTURE, schema);
    let mut target = Site::new("hq", APPLY, schema);
    source.node.run_within(&["ip", "netns", "exec", &network.left]);
    target.node.run_within(&["ip", "netns", "exec", &network.right]);
    source.init();
    target.init();
    let address: SocketAddr = format!("{RIGHT}:7420").parse().unwrap();
    target.listen = address;
    let (source_key, target_key) = (source.key.clone(), target.key.clone());
    source.peer("hq", &target_key, Some(address), "");
    target.peer("edge", &source_key, None, "");
    // The address to listen on is not there yet, nor is any way to the peer.
    let mut pair = Pair::of_initialised(source, target, lively());
    pair.start();
    pair.source.sql("insert into t values (1)");
    sleep(Duration::from_secs(3));
    assert!(!pair.source.status().peers[0].connected);
    for (round, left) in ["198.18.77.1", "198.18.77.9", "198.18.77.5"].iter().enumerate() {
        network.join(left);
        pair.wait_equal(Duration::from_secs(45));
        pair.source.sql(&format!("insert into t values ({})", round * 10 + 10));
        pair.wait_equal(Duration::from_secs(15));
        network.part();
        pair.source.sql(&format!("insert into t values ({})", round * 10 + 11));
        sleep(Duration::from_secs(3));
    }
    network.join("198.18.77.1");
    pair.wait_equal(Duration::from_secs(45));
}
