//! What each command does to a node that is well.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use thinwire_cluster::Options;

use crate::site::{APPLY, CAPTURE, DB, Pair, Site, free_port, lively, wait_for};

const SCHEMA: &str =
    "create table t (id bigint primary key, v text); create table keyless (v text)";

fn objects(site: &Site) -> String {
    site.sql(
        "select slot_name from pg_replication_slots;
         select pubname, tablename from pg_publication_tables order by 1, 2;
         select nspname from pg_namespace where nspname = 'thinwire';
         select relname, relreplident from pg_class where relname in ('t', 'keyless') order by 1",
    )
}

#[test]
fn init_is_safe_to_repeat_and_print_sql_changes_nothing() {
    let both = format!("{CAPTURE}{APPLY}");
    let site = Site::new("n", &both, SCHEMA);
    let before = objects(&site);
    let sql = site.node.run(&["init", "--print-sql"]).unwrap();
    assert_eq!(objects(&site), before);
    for expected in ["CREATE PUBLICATION", "REPLICA IDENTITY FULL", "thinwire.applied"] {
        assert!(sql.contains(expected), "{expected} is not in:\n{sql}");
    }
    let key = site.node.run(&["init"]).unwrap();
    let made = objects(&site);
    assert_ne!(made, before);
    assert_eq!(site.node.run(&["init"]).unwrap(), key);
    assert_eq!(objects(&site), made);
    // What was printed does the same as what was run.
    let other = Site::new("n", &both, SCHEMA);
    other.sql(&sql);
    assert_eq!(objects(&other), made);
    assert_eq!(other.node.run(&["init", "--print-sql"]).unwrap(), "");
}

#[test]
fn doctor_finds_nothing_on_a_node_that_is_ready() {
    let mut pair = Pair::new(lively(), SCHEMA);
    for site in [&pair.source, &pair.target] {
        let findings = site.node.run(&["doctor"]).unwrap();
        assert!(!findings.contains("FAIL"), "{findings}");
        assert!(findings.lines().count() > 5, "{findings}");
    }
    pair.start();
    pair.source.status();
    pair.source.node.run(&["doctor"]).unwrap();
}

#[test]
fn a_login_without_superuser_captures_and_another_applies() {
    let both = |site: &str| {
        Site::with(site, if site == "edge" { CAPTURE } else { APPLY }, SCHEMA, Options::default())
    };
    let (mut source, mut target) = (both("edge"), both("hq"));
    source.sql("create role capturer login replication");
    target.sql("create role applier login; grant select, insert, update, delete, truncate on all tables in schema public to applier");
    for (site, login) in [(&mut source, "capturer"), (&mut target, "applier")] {
        let admin = site.cluster.url(DB);
        site.login(login);
        site.node.run(&["init", "--admin-url", &admin]).unwrap();
        site.key = site.node.key().unwrap();
    }
    let mut pair = Pair::joined(source, target, lively());
    for site in [&pair.source, &pair.target] {
        site.node.run(&["doctor"]).unwrap();
    }
    pair.source.sql("insert into t select i, 'v' from generate_series(1, 100) i; insert into keyless values ('a'), ('a')");
    pair.start();
    pair.wait_equal(Duration::from_secs(30));
    pair.source.sql("update t set v = 'w' where id < 50; delete from keyless where ctid = '(0,1)'");
    pair.wait_equal(Duration::from_secs(30));
}

#[test]
fn a_paused_peer_gets_nothing_until_resume_and_a_stopped_node_ends_in_time() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t values (1, 'a')");
    pair.wait_equal(Duration::from_secs(30));
    pair.source.node.run(&["pause", "--peer", "hq"]).unwrap();
    pair.source.sql("insert into t values (2, 'b')");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(pair.target.sql("select count(*) from t").trim(), "1");
    let says = |site: &Site, text: &str| site.node.run(&["status"]).unwrap().contains(text);
    assert!(says(&pair.source, "PAUSED"));
    pair.source.node.run(&["resume", "--peer", "hq"]).unwrap();
    pair.wait_equal(Duration::from_secs(15));

    assert!(!says(&pair.source, "PAUSED"));
    pair.target.node.run(&["pause", "--stream", "edge"]).unwrap();
    pair.source.sql("insert into t values (3, 'c')");
    wait_for("the record to be durable at the target", Duration::from_secs(15), || {
        let at = pair.source.status().peers[0].streams[0].clone();
        (at.acked > at.applied).then_some(())
    });
    assert_eq!(pair.target.sql("select count(*) from t").trim(), "2");
    // It pauses once what it is at is durable.
    wait_for("the pause to be told", Duration::from_secs(15), || {
        says(&pair.target, "PAUSED").then_some(())
    });
    pair.target.node.run(&["resume"]).unwrap();
    pair.wait_equal(Duration::from_secs(15));
    assert!(pair.source.node.run(&["pause", "--peer", "nobody"]).is_err());
    assert!(pair.source.node.run(&["retry", "--stream", "nobody"]).is_err());
    pair.source.node.stop().unwrap();
    pair.target.node.stop().unwrap();
}

#[test]
fn the_status_is_shown_over_http() {
    let site = Site::new("n", "", "select 1");
    let address = free_port();
    site.node.configure(&format!("[node]\nname = \"n\"\nstatus = \"{address}\"\n")).unwrap();
    let mut site = site;
    site.node.init().unwrap();
    site.node.start().unwrap();
    site.status();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/status.json").contains("\"node\":\"n\""));
    assert!(get("/").starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics");
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("\nthinwire_journal_pressure{step=\"none\"} 1\n"), "{metrics}");
    assert!(get("/secret").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_status_page_whose_address_is_absent_is_waited_for_and_one_that_is_taken_is_not() {
    let mut site = Site::new("n", "", "select 1");
    let with_page = |address: &str| format!("[node]\nname = \"n\"\nstatus = \"{address}\"\n");
    // Reserved for benchmarks (RFC 2544), so never an address of the machine's own.
    site.node.configure(&with_page("198.18.77.77:7421")).unwrap();
    site.node.init().unwrap();
    site.node.start().unwrap();
    site.status();
    site.node.check().unwrap();
    assert!(site.node.log().contains("cannot show the status page yet"), "{}", site.node.log());
    site.node.stop().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    site.node.configure(&with_page(&taken.local_addr().unwrap().to_string())).unwrap();
    let refused = site.node.run(&["run"]).unwrap_err().to_string();
    assert!(refused.contains("cannot open the status page at 127.0.0.1"), "{refused}");
}

#[test]
fn what_users_stored_is_in_no_log() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql(
        "insert into t values (1, 'canary value'); insert into keyless values ('canary value')",
    );
    pair.wait_equal(Duration::from_secs(30));
    pair.target.sql("alter table t add check (v <> 'canary refused')");
    pair.source.sql("insert into t values (2, 'canary refused')");
    let halted = wait_for("the halt", Duration::from_secs(30), || {
        pair.target.status().halted().map(|(_, halted)| halted.clone())
    });
    assert_eq!(halted.code, "constraint", "{halted:?}");
    assert_eq!(halted.key.as_deref(), Some("id=2"), "{halted:?}");
    assert!(!format!("{halted:?}").contains("canary"), "{halted:?}");
    for site in [&pair.source, &pair.target] {
        assert!(!site.node.log().contains("canary"), "{}", site.node.log());
    }
    pair.target.sql("alter table t drop constraint t_v_check");
    pair.wait_equal(Duration::from_secs(60));
    pair.target.goes_on();
}
