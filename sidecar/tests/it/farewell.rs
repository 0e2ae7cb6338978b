//! What a node has made in a database can be taken away at once, by its names, and then the database is as it was.

use std::{
    fs,
    time::{Duration, Instant},
};

use thinwire_cluster::{Options, digest};

use crate::site::{APPLY, CAPTURE, DB, Pair, Site, lively, wait_for};

const SCHEMA: &str =
    "create table t (id int primary key, v text); create table u (id int primary key)";
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a server waits for a client that says nothing, by default.
const SILENCE: Duration = Duration::from_secs(60);

/// Nothing that is asked for here may wait.
const AT_ONCE: &str = "set statement_timeout = '10s'; set lock_timeout = '5s';";

/// All in a database, and in the cluster for it, that is not rows of the users' tables.
const OBJECTS: &str = "
    select 'slot ' || slot_name from pg_replication_slots where not temporary
    union all select 'publication ' || pubname from pg_publication
    union all select 'origin ' || roname from pg_replication_origin
    union all select 'progress ' || external_id from pg_replication_origin_status
    union all select 'event trigger ' || evtname from pg_event_trigger
    union all select 'trigger ' || tgname from pg_trigger
    union all select 'schema ' || nspname from pg_namespace where nspname !~ '^pg_(toast_)?temp_'
    union all select 'relation ' || oid::regclass || ' ' || relreplident::text from pg_class
        where relnamespace not in ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace)
    union all select 'routine ' || oid::regprocedure from pg_proc where oid >= 16384
    union all select 'setting ' || setrole::regrole || setconfig::text from pg_db_role_setting
    union all select 'prepared ' || gid from pg_prepared_xacts
    order by 1";

/// The server learns a moment later than the node that a session has ended.
fn nobody_is_there(site: &Site) {
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
        and backend_type in ('client backend', 'walsender')";
    wait_for("all sessions to end", PATIENCE, || (site.sql(others) == "0").then_some(()));
}

/// Takes away what a node has made that captures.
fn remove_capture(site: &Site) {
    nobody_is_there(site);
    let printed = site.node.run(&["drop", "--print-sql"]).unwrap();
    let told = site.node.run(&["drop"]).unwrap();
    let name = format!("thinwire_{}", site.node.name());
    let expected = format!(
        "dropped the event triggers, and what they run and know in the schema thinwire\n\
         dropped the replication slot {name}\ndropped the publication {name}"
    );
    assert_eq!(told.trim_end(), expected);
    assert_eq!(printed.lines().filter(|line| line.starts_with("-- the ")).count(), 3, "{printed}");
    let again = site.node.run(&["drop"]).unwrap();
    assert_eq!(again.trim_end(), "there is nothing of this node at the source");
}

/// Takes away what a node has made that applies.
fn remove_apply(site: &Site) {
    nobody_is_there(site);
    site.sql(&format!(
        "{AT_ONCE} begin; drop schema thinwire cascade;
         select pg_replication_origin_drop(roname) from pg_replication_origin where roname like 'thinwire\\_%'; commit"
    ));
}

/// Neither the process nor anything that it has counted.
fn is_silent(site: &Site) {
    assert!(site.node.status().unwrap().is_none());
    let answer = site.node.run(&["status"]).unwrap_err().to_string();
    assert!(answer.contains("exit status: 3"), "{answer}");
}

fn same(sites: &[&Site]) {
    let of = |site: &Site| digest::digests(&site.cluster, DB, &["public.t", "public.u"]).unwrap();
    wait_for("the same rows", PATIENCE, || {
        sites.iter().all(|site| of(site) == of(sites[0])).then_some(())
    });
}

#[test]
fn nodes_in_a_row_are_removed_one_by_one_and_leave_nothing() {
    let site = |name: &str, sections: &str| {
        let options = Options::default().with("max_prepared_transactions", "5");
        Site::with(name, sections, SCHEMA, options)
    };
    let (mut left, mut hub, mut right) =
        (site("left", CAPTURE), site("hub", APPLY), site("right", APPLY));
    let before = [&left, &hub, &right].map(|site| site.sql(OBJECTS));
    for site in [&mut left, &mut hub, &mut right] {
        site.init();
    }
    left.peer("hub", &hub.key, Some(hub.listen), "");
    right.peer("hub", &hub.key, Some(hub.listen), "receive = \"*\"");
    hub.peer("left", &left.key, None, "");
    hub.peer("right", &right.key, None, "send = \"*\"");
    for site in [&hub, &right] {
        site.node.init().unwrap();
    }
    left.sql(
        "insert into t select i, 'v' from generate_series(1, 100) i; insert into u values (1)",
    );
    for site in [&mut hub, &mut left, &mut right] {
        site.node.start().unwrap();
    }
    left.sql("begin; insert into u values (2); prepare transaction 'p'; commit prepared 'p'; update t set v = 'w' where id < 50");
    same(&[&left, &hub, &right]);
    for (site, before) in [(&left, &before[0]), (&hub, &before[1]), (&right, &before[2])] {
        assert_ne!(&site.sql(OBJECTS), before);
    }

    // The last one goes, and the others go on.
    right.node.stop().unwrap();
    remove_apply(&right);
    // PostgreSQL: 022_twophase_cascade 34-37
    assert_eq!(right.sql(OBJECTS), before[2]);
    // PostgreSQL: 026_stats 10
    is_silent(&right);
    left.sql("insert into t values (1000, 'without the last')");
    same(&[&left, &hub]);
    assert_eq!(right.sql("select count(*) from t"), "100", "its rows stay");

    // A node that runs, or streams from elsewhere, is not taken away under its feet.
    let refused = left.node.run(&["drop"]).unwrap_err().to_string();
    assert!(refused.contains("this node is running: stop it first"), "{refused}");
    let there =
        left.sql("select count(*) from pg_replication_slots, pg_publication, pg_event_trigger");
    assert_eq!(there, "3");

    // What is only prepared is nobody's but the application's.
    left.sql("begin; insert into u values (3); prepare transaction 'kept'");
    for site in [&mut left, &mut hub] {
        site.node.stop().unwrap();
    }
    remove_capture(&left);
    remove_apply(&hub);
    assert_eq!(left.sql(OBJECTS), format!("prepared kept\n{}", before[0]));
    left.sql("commit prepared 'kept'; update t set v = 'x'; vacuum; checkpoint");
    // PostgreSQL: 001_rep_changes 31, 33, 35
    // PostgreSQL: 007_ddl 1
    // PostgreSQL: 021_twophase 30-33
    // PostgreSQL: 022_twophase_cascade 38-41
    // PostgreSQL: 023_twophase_stream 17-20
    // PostgreSQL: 100_bugs 18
    assert_eq!(left.sql(OBJECTS), before[0]);
    assert_eq!(hub.sql(OBJECTS), before[1]);
    for site in [&left, &hub] {
        is_silent(site);
    }

    // With the journal gone, a node knows nothing of a stream, and has counted nothing.
    fs::remove_dir_all(hub.node.config().with_extension("").join("journal")).unwrap();
    hub.node.init().unwrap();
    hub.node.start().unwrap();
    assert!(
        hub.status().streams.iter().all(|stream| stream.counts.is_none()),
        "{:?}",
        hub.status()
    );
    // And everything may begin anew.
    fs::remove_dir_all(left.node.config().with_extension("").join("journal")).unwrap();
    hub.node.stop().unwrap();
    hub.sections("[apply]\nexisting = \"replace\"\n");
    left.node.init().unwrap();
    hub.node.start().unwrap();
    left.node.start().unwrap();
    same(&[&left, &hub]);
    // PostgreSQL: 004_sync 4
    left.sql("delete from t where id > 50");
    same(&[&left, &hub]);
}

#[test]
fn a_node_whose_copy_is_refused_can_be_removed_while_it_is() {
    // PostgreSQL: 004_sync 8, 9
    let source = Site::new("edge", CAPTURE, SCHEMA);
    let target = Site::new("hq", APPLY, &format!("{SCHEMA}; alter table t add check (v <> 'bad')"));
    let before = [&source, &target].map(|site| site.sql(OBJECTS));
    let mut pair = Pair::of(source, target, lively());
    pair.target.node.init().unwrap();
    pair.source.sql("insert into t values (1, 'bad'); insert into u values (1)");
    pair.start();
    let halted = wait_for("the halt", PATIENCE, || {
        pair.target.status().halted().map(|(_, halted)| halted.clone())
    });
    assert_eq!(halted.code, "constraint");
    let begun = Instant::now();
    // Killed, even: what it held is free as soon as the server has noticed.
    for site in [&mut pair.source, &mut pair.target] {
        site.node.kill9().unwrap();
    }
    let held = "select count(*) from pg_stat_activity where application_name like 'thinwire%'";
    for site in [&pair.source, &pair.target] {
        wait_for("its sessions to end", PATIENCE, || (site.sql(held) == "0").then_some(()));
    }
    remove_capture(&pair.source);
    remove_apply(&pair.target);
    assert!(begun.elapsed() < SILENCE, "{:?}", begun.elapsed());
    assert_eq!([&pair.source, &pair.target].map(|site| site.sql(OBJECTS)), before);
    assert_eq!(pair.target.sql("select count(*) from t"), "0");
}

#[test]
fn of_two_nodes_at_the_same_databases_one_is_removed_and_the_other_goes_on() {
    // PostgreSQL: 004_sync 3
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t values (1, 'a')");
    pair.wait_equal(PATIENCE);
    let before = pair.source.sql(OBJECTS);
    // Another name is another node, with a slot of its own.
    let config = fs::read_to_string(pair.source.node.config()).unwrap();
    let other = pair.source.node.config().with_file_name("second.toml");
    let text = config.replace("name = \"edge\"", "name = \"second\"");
    let (own, _) = text.split_once("[[peer]]").unwrap();
    fs::write(&other, own).unwrap();
    let run = |command: &str| {
        let mut program = std::process::Command::new(thinwire_bench::node::binary().unwrap());
        let output = program.args([command, "--config"]).arg(&other).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run("init");
    let slots = "select string_agg(slot_name, ' ' order by 1) from pg_replication_slots";
    assert_eq!(pair.source.sql(slots), "thinwire_edge thinwire_second");
    pair.source.sql("insert into t values (2, 'b')");
    pair.wait_equal(PATIENCE);
    run("drop");
    assert_eq!(pair.source.sql(OBJECTS), before);
    pair.source.sql("insert into t values (3, 'c')");
    pair.wait_equal(PATIENCE);
}
