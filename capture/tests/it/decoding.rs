//! What a consumer of logical decoding can lose or tell wrongly when sessions interleave, by the behaviours that PostgreSQL
//! tests in `contrib/test_decoding`: each line is a session's next statement, in the order in which they are run.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::rig::Rig;

const TABLES: &[&str] = &["public.a", "public.b"];
const SCHEMA: &str = "
create table a (id int primary key, v text); create table b (id int primary key, v text);
alter table a alter v set storage external;
insert into a values (0, repeat('old', 3000)); insert into b values (0, 'old')";

/// Plays lines of the form `session: statement` one after the other, and compares what was captured with what is there:
/// once while a node streams, and once with one that is killed in the middle of each schedule.
async fn plays(schedules: &[&str]) {
    for is_killed in [false, true] {
        let rig = Rig::new(SCHEMA);
        let mut node = rig.ready().await;
        for schedule in schedules {
            let mut cast = Cast { rig: &rig, sessions: BTreeMap::new() };
            let lines: Vec<&str> = schedule.lines().map(str::trim).collect();
            let (before, after) = lines.split_at(lines.len() / 2);
            cast.play(before).await;
            if is_killed {
                node.caught_up(&rig.source()).await;
                node.kill().await;
                rig.slot_is_free().await;
                cast.play(after).await;
                node = rig.node();
            } else {
                cast.play(after).await;
            }
            // Whatever a table's shape is now is told with its rows.
            rig.sql("update a set v = v; update b set v = v");
            let model = rig.check(&node, TABLES).await;
            assert_eq!((model.copies, node.halted()), (1, None), "{schedule}");
        }
    }
}

/// The sessions of a schedule.
struct Cast<'a> {
    rig: &'a Rig,
    sessions: BTreeMap<&'a str, Client>,
}

impl<'a> Cast<'a> {
    async fn play(&mut self, lines: &[&'a str]) {
        for line in lines {
            let (name, statement) = line.split_once(": ").unwrap();
            if !self.sessions.contains_key(name) {
                let client = self.rig.source().connect().await.unwrap();
                client.batch_execute("set search_path = public").await.unwrap();
                self.sessions.insert(name, client);
            }
            let done = self.sessions[name].batch_execute(statement).await;
            done.unwrap_or_else(|error| panic!("{line}: {error:?}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_has_the_shape_that_its_table_had_then_whatever_others_alter_meanwhile() {
    // concurrent_ddl_dml
    plays(&[
        "1: begin; insert into a values (1, 'x')
         2: alter table b add w int
         1: insert into b (id, v, w) values (1, 'x', 1); commit",
        "1: begin; insert into a values (2, 'x')
         2: alter table b alter w type text
         2: insert into b (id, w) values (2, 'later')
         1: insert into b (id, w) values (3, 'text'); commit",
        "1: begin; insert into a values (4, 'x')
         2: begin; alter table b drop column w
         2: insert into b values (4, 'in between'); commit
         1: insert into b values (5, 'x'); update b set v = 'y' where id = 4; commit",
        "1: begin; insert into a values (6, 'x'); savepoint s
         1: alter table b add z int
         1: insert into b (id, z) values (6, 6); rollback to s
         2: alter table b add y text
         1: insert into b (id, y) values (7, 'x'); commit
         2: alter table b drop y",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_alters_for_itself_is_known_to_it_alone_until_it_ends() {
    // catalog_change_snapshot, snapshot_transfer, oldest_xmin
    plays(&[
        "1: begin; savepoint s; truncate b; release s
         2: checkpoint
         1: insert into b values (10, 'x'); commit
         2: insert into b values (11, 'x')",
        "1: begin; alter table a add w text; insert into a values (10, 'x', 'y')
         2: checkpoint
         2: insert into b values (12, 'x')
         1: savepoint s; alter table a drop w; insert into a values (11, 'x'); rollback to s
         1: insert into a values (12, 'x', 'y'); commit
         2: insert into a values (13, 'x', 'y'); alter table a drop w",
        "1: begin; select pg_catalog.pg_current_xact_id()
         2: alter table b add w int
         3: begin; insert into b values (13, 'x', 1)
         2: vacuum full pg_catalog.pg_attribute
         2: checkpoint
         1: insert into b values (14, 'x', 1); commit
         3: commit
         2: alter table b drop w",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_at_any_depth_is_not_told_and_the_rest_is() {
    // subxact_without_top, spill, xact
    plays(&[
        "1: begin; savepoint s; insert into b values (20, 'kept')
         2: checkpoint
         1: release s; savepoint t; insert into b select i, 'gone' from pg_catalog.generate_series(1000, 9000) i; rollback to t
         2: insert into a values (20, 'x')
         1: savepoint u; savepoint v; insert into b select i, 'kept' from pg_catalog.generate_series(1000, 9000) i; release v; release u
         1: savepoint w; update b set v = 'gone'; rollback to w; delete from b where id between 2000 and 2999; commit",
        "1: begin; insert into b values (21, 'x')
         1: savepoint s; insert into b select i, 'gone' from pg_catalog.generate_series(20000, 30000) i
         1: savepoint t; delete from b; rollback to s; prepare transaction 'p'
         2: insert into a values (21, 'x'); checkpoint
         3: commit prepared 'p'",
        "1: begin; insert into b select i, 'gone' from pg_catalog.generate_series(20000, 30000) i; prepare transaction 'q'
         2: insert into b values (22, 'x')
         3: rollback prepared 'q'",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_that_stay_are_kept_whatever_rewrites_their_table() {
    // toast, rewrite, mxact
    plays(&[
        "1: insert into a values (30, pg_catalog.repeat('1', 9000)), (31, pg_catalog.repeat('2', 9000))
         1: begin; update a set id = 32 where id = 30; savepoint s; update a set v = 'short' where id = 31; rollback to s
         2: insert into b values (30, 'x')
         1: update a set id = 33 where id = 31; commit",
        "1: alter table a add w int default 1; alter table a alter w type bigint
         1: update a set w = 2
         2: cluster a using a_pkey
         2: vacuum full a
         1: update a set w = 3 where id > 30; update a set v = v || 'x' where id = 32; alter table a drop w",
        "1: begin; select from a where id = 32 for share
         2: begin; select from a where id = 32 for key share
         1: commit
         2: update a set v = pg_catalog.upper(v) where id = 32; commit
         1: begin; select from a where id = 32 for key share
         2: update a set v = 'y' where id = 33; delete from a where id = 0
         1: savepoint s; update a set id = 34 where id = 33; release s; commit",
    ])
    .await;
}
