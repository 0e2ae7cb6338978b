//! Each peer its own choice: for each a node at the same database, with a publication, a slot and a stream of its own.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;
use thinwire_bench::node::Node;
use thinwire_cluster::Warden;

use crate::{
    exact::narrows,
    site::{APPLY, DB, Site, free_port, wait_for},
};

const SCHEMA: &str = "create table orders (id int primary key, site int, note text);
    create table log (day int primary key, v text) partition by range (day);
    create table log_1 partition of log for values from (0) to (10)";

/// What the second node captures.
const SOME: &str = r#"operations = ["insert"]
[capture.columns]
"public.orders" = ["id", "site"]
[capture.rows]
"public.orders" = "site = 7"
"#;

/// And of a table that is made later.
const MADE: &str = "\"public.made\" = \"site = 7\"\n";

/// A second node at the database of a site, and where it sends.
struct Branch {
    node: Node,
    database: String,
    head: String,
    peer: String,
    // Dropped last: it removes what is left if the test dies.
    _folder: TempDir,
}

impl Branch {
    /// One that sends what `capture` says to a site that applies it.
    fn new(source: &Site, capture: &str, target: &mut Site) -> Self {
        let folder = tempfile::Builder::new().prefix("tw").tempdir().unwrap();
        let warden = Arc::new(Warden::start(folder.path()).unwrap());
        let node = Node::new(folder.path(), "branch", warden).unwrap();
        let head = format!("[node]\nname = \"branch\"\nlisten = \"{}\"\n", free_port());
        let database = format!("[database]\nurl = \"\"\"{}\"\"\"\n", source.cluster.url(DB));
        let (key, listen) = (&target.key, target.listen);
        let peer = format!("[[peer]]\nname = \"some\"\nkey = \"{key}\"\naddress = \"{listen}\"\n");
        let branch = Self { node, database, head, peer, _folder: folder };
        branch.configure(capture);
        branch.node.init().unwrap();
        target.peer("branch", &branch.node.key().unwrap(), None, "");
        branch
    }

    fn configure(&self, capture: &str) {
        let Self { database, head, peer, .. } = self;
        self.node.configure(&format!("{head}{database}{capture}{peer}")).unwrap();
    }
}

/// One source with two nodes, and the targets: of everything, and of some.
struct Two {
    source: Site,
    branch: Branch,
    all: Site,
    some: Site,
}

fn capture(ddl: &str, more: &str) -> String {
    format!("[capture]\ntables = [\"public.*\"]\nddl = \"{ddl}\"\n{more}")
}

impl Two {
    /// Starts all of them, where a choice can be made.
    fn start(ddl: &str, some_of: &str, schema_there: &str) -> Option<Self> {
        let mut source = Site::new("whole", &capture(ddl, ""), SCHEMA);
        if !narrows(&source) {
            return None;
        }
        let mut all = Site::new("all", APPLY, schema_there);
        let mut some = Site::new("some", APPLY, schema_there);
        source.sql(
            "insert into orders values (1, 7, 'a'), (2, 8, 'b'); insert into log values (1, 'x')",
        );
        source.init();
        all.init();
        some.init();
        source.peer("all", &all.key, Some(all.listen), "");
        all.peer("whole", &source.key, None, "");
        let branch = Branch::new(&source, &capture(ddl, some_of), &mut some);
        let mut two = Self { source, branch, all, some };
        for node in
            [&mut two.all.node, &mut two.some.node, &mut two.source.node, &mut two.branch.node]
        {
            node.start().unwrap();
        }
        Some(two)
    }

    /// Waits until a query gives this at both targets.
    fn become_at(&self, query: &str, all: &str, some: &str) {
        for (site, expected) in [(&self.all, all), (&self.some, some)] {
            wait_for(&format!("{query} at {}", site.node.name()), PATIENCE, || {
                if let Some((stream, halted)) = site.status().halted() {
                    panic!("{query}: {} halted: {halted:?}", stream.name);
                }
                // The table may not be there yet.
                let found = site.cluster.psql(DB, query).ok()?;
                (found == expected).then_some(())
            });
        }
    }

    fn rows(&self, table: &str, columns: &str, all: &str, some: &str) {
        let query = format!(
            "select coalesce(string_agg(format('%s', ({columns})), ' ' order by t.*), '') from {table} as t"
        );
        self.become_at(&query, all, some);
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn two_nodes_at_one_database_serve_two_choices() {
    let Some(mut two) = Two::start("stop", SOME, SCHEMA) else { return };
    two.rows("orders", "id, site, note", "(1,7,a) (2,8,b)", "(1,7,)");
    two.source.sql(
        "insert into orders values (3, 7, 'c'), (4, 8, 'd'); update orders set note = 'e' where id = 3;
         delete from orders where id = 1; insert into log values (2, 'y'); update log set v = 'z' where day = 1",
    );
    two.rows("orders", "id, site, note", "(2,8,b) (3,7,e) (4,8,d)", "(1,7,) (3,7,)");
    two.rows("log", "day, v", "(1,z) (2,y)", "(1,x) (2,y)");
    // What one of them chooses anew is no affair of the other.
    two.branch.node.stop().unwrap();
    let wider = SOME.replace("\"public.orders\" = \"site = 7\"", "\"public.orders\" = \"id > 2\"");
    two.branch.configure(&capture("stop", &wider));
    two.branch.node.init().unwrap();
    two.branch.node.start().unwrap();
    two.source.node.init().unwrap();
    two.source.sql("insert into orders values (5, 9, 'f'); update orders set note = 'g'");
    two.rows("orders", "id, site, note", "(2,8,g) (3,7,g) (4,8,g) (5,9,g)", "(3,7,) (4,8,) (5,9,)");
    // One that a copy was read by goes with its session, a moment later.
    let slots = "select string_agg(slot_name, ' ' order by slot_name) from pg_replication_slots where not temporary";
    assert_eq!(two.source.sql(slots), "thinwire_branch thinwire_whole");
}

#[test]
fn two_nodes_at_one_database_each_follow_its_schema() {
    let Some(mut two) = Two::start("replicate", &format!("{SOME}{MADE}"), "") else { return };
    two.rows("orders", "id", "1 2", "1");
    two.source.sql(
        "create table made (id int primary key, site int); insert into made values (1, 7), (2, 8);
         create table apart (day int primary key, v text); insert into apart values (11, 'b');
         alter table log attach partition apart for values from (10) to (20);
         alter table orders add late int default 5; insert into orders values (3, 7, 'c', 6), (4, 8, 'd', 6)",
    );
    two.rows("made", "id, site", "(1,7) (2,8)", "(1,7)");
    two.rows("log", "day, v", "(1,x) (11,b)", "(1,x) (11,b)");
    let parts = "select string_agg(inhrelid::regclass::text, ' ' order by inhrelid::regclass::text)
        from pg_inherits where inhparent = 'log'::regclass";
    two.become_at(parts, "apart log_1", "apart log_1");
    let columns = "select string_agg(attname, ' ' order by attnum) from pg_attribute
        where attrelid = 'orders'::regclass and attnum > 0 and not attisdropped";
    two.become_at(columns, "id site note late", "id site");
    two.rows("orders", "id", "1 2 3 4", "1 3");
    // A part that goes is told to both, whether it is dropped or detached.
    two.source.sql("drop table log_1; alter table log detach partition apart; insert into apart values (12, 'c')");
    two.become_at("select count(*) from pg_inherits where inhparent = 'log'::regclass", "0", "0");
    two.rows("apart", "day", "11 12", "11 12");
    assert_eq!(two.source.status().halted().map(|(_, it)| it.code.clone()), None);
    // Each may be initialised again, and leave.
    two.branch.node.stop().unwrap();
    two.branch.configure(&capture("replicate", "operations = [\"insert\"]\n"));
    two.branch.node.init().unwrap();
    two.branch.node.start().unwrap();
    two.source.sql("create table later (id int primary key); insert into later values (1)");
    two.rows("later", "id", "1", "1");
    two.source.node.stop().unwrap();
    two.source.sections(&capture("stop", ""));
    two.source.node.init().unwrap();
    two.source.node.start().unwrap();
    two.source.sql("create table last (id int primary key); insert into last values (1)");
    wait_for("what is made after that", PATIENCE, || {
        (two.some.cluster.psql(DB, "select id from last").ok()? == "1").then_some(())
    });
}
