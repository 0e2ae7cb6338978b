//! PostgreSQL is killed, its connections are cut, its answers are lost: what it holds is always a prefix, once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use thinwire_apply::State;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{
    database::{Database, applied, in_state, new_cluster},
    feed::{Feed, Table},
};

const TABLES: &str = "create table ledger (n int, total int);
    create table counter (id int primary key, n int); insert into counter values (1, 0)";

/// Transactions that each add to a ledger without a key, and count.
fn transactions(feed: &Feed, from: usize, to: usize) {
    let ledger = Table::new(1, "public.ledger", &["n", "total"]).full();
    let counter = Table::new(2, "public.counter", &["id*", "n"]);
    if from == 1 {
        feed.append(&[ledger.relation(), counter.relation()]);
    }
    for n in from..=to {
        let rows = [ledger.insert(&format!("{n}|{n}")), counter.update(&format!("1|{n}"))];
        feed.append_unsynced(&feed.wrapped(&rows));
    }
    feed.stream.sync().unwrap();
}

/// The ledger and the counter are those after some transaction.
fn check_prefix(database: &Database) -> Option<usize> {
    let text = "select (select count(*) from ledger), (select count(distinct n) from ledger), \
                (select coalesce(max(n), 0) from ledger), n from counter";
    let answer = database.cluster.psql(&database.name, text).ok()?;
    let numbers: Vec<usize> = answer.split('|').map(|number| number.parse().unwrap()).collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{answer}");
    Some(numbers[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_holds_a_prefix_and_nothing_twice() {
    let database = Database::on(Arc::new(new_cluster()), TABLES).await;
    let feed = Feed::new();
    let applier = database.apply(&feed);
    let mut last = 0;
    for round in 1..=5 {
        transactions(&feed, last + 1, last + 3000);
        last += 3000;
        tokio::time::sleep(Duration::from_millis(30 * round)).await;
        tokio::task::block_in_place(|| {
            database.cluster.kill9().unwrap();
            if round == 2 {
                std::thread::sleep(Duration::from_millis(500));
            }
            database.cluster.start_again().unwrap();
            check_prefix(&database).unwrap();
        });
    }
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(check_prefix(&database), Some(last));
}

/// A database on a server that writes its log only when somebody waits for it.
async fn lazy() -> Database {
    let database = Database::on(Arc::new(new_cluster()), TABLES).await;
    database.cluster.set("synchronous_commit", "off").unwrap();
    database.cluster.set("wal_writer_delay", "10s").unwrap();
    database
}

/// The server dies at once, and comes back with what it has written.
fn die(database: &Database) {
    tokio::task::block_in_place(|| {
        database.cluster.kill9().unwrap();
        database.cluster.start_again().unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_applied_survives_the_server() {
    let database = lazy().await;
    let feed = Feed::new();
    let applier = database.apply(&feed);
    for last in 1..=5 {
        transactions(&feed, last, last);
        applied(&applier, &feed.stream).await;
        die(&database);
        assert_eq!(check_prefix(&database), Some(last));
        assert_eq!(database.offset(&feed), feed.last().to_string());
    }
    applier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_to_be_applied_survives_the_server_too() {
    let database = lazy().await;
    let feed = Feed::new();
    let applier = database.apply(&feed);
    transactions(&feed, 1, 1);
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    // As if the answer to a commit had been lost on its way.
    transactions(&feed, 2, 2);
    let last = feed.last().to_string();
    database.sql(&format!(
        "insert into ledger values (2, 2); update counter set n = 2; update thinwire.applied set \"offset\" = {last}"
    ));
    database.seal(&feed).await;
    let applier = database.apply(&feed);
    applied(&applier, &feed.stream).await;
    die(&database);
    assert_eq!(check_prefix(&database), Some(2));
    applier.shutdown().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for() {
    let database = Database::on(Arc::new(new_cluster()), TABLES).await;
    let feed = Feed::new();
    transactions(&feed, 1, 10);
    database.cluster.stop().unwrap();
    let applier = database.apply(&feed);
    in_state(&applier, State::Waiting).await;
    assert!(applier.status().last_error.is_some());
    assert_eq!(*feed.stream.halted().borrow(), None);
    tokio::time::sleep(Duration::from_millis(500)).await;
    database.cluster.start_again().unwrap();
    applied(&applier, &feed.stream).await;
    // A restart with nothing to do goes unnoticed, as it should.
    database.cluster.restart().unwrap();
    transactions(&feed, 11, 20);
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(check_prefix(&database), Some(20));
}

#[tokio::test]
async fn locks_that_pass_are_waited_for_and_deadlocks_are_run_again() {
    let database = Database::new(TABLES).await;
    database.sql(&format!("alter database {} set deadlock_timeout = '50ms'", database.name));
    let feed = Feed::new();
    let ledger = Table::new(1, "public.ledger", &["n", "total"]).full();
    let counter = Table::new(2, "public.counter", &["id*", "n"]);
    transactions(&feed, 1, 1);
    let applier = database.apply(&feed);
    applied(&applier, &feed.stream).await;
    let (cluster, name) = (database.cluster.clone(), database.name.clone());
    let other = std::thread::spawn(move || {
        // The victim may be either.
        cluster.psql(
            &name,
            "begin; lock table ledger in share mode; select pg_sleep(0.5);
             update counter set n = n where id = 1; commit",
        )
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    feed.transaction(&[counter.update("1|2"), ledger.insert("2|2")]);
    applied(&applier, &feed.stream).await;
    let _ = other.join().unwrap();
    assert_eq!(*feed.stream.halted().borrow(), None);
    applier.shutdown().await;
    assert_eq!(check_prefix(&database), Some(2));
}

/// Passes bytes between the applier and PostgreSQL, and cuts the connection after a number of them.
pub struct Cutter {
    pub port: u16,
    /// How many bytes from the server still pass; the connection is cut at the first that does not.
    pub left: Arc<AtomicU64>,
    pub cuts: Arc<AtomicU64>,
    off: Arc<AtomicBool>,
}

impl Cutter {
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cutter = Self {
            port,
            left: Arc::new(AtomicU64::new(u64::MAX)),
            cuts: Arc::default(),
            off: Arc::default(),
        };
        let (left, cuts, off) = (cutter.left.clone(), cutter.cuts.clone(), cutter.off.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                tokio::spawn(pass(client, server, left.clone(), cuts.clone(), off.clone()));
            }
        });
        cutter
    }

    /// Waits until there were more cuts than so many, or all of a stream is applied.
    pub async fn has_cut(&self, cuts: u64, feed: &Feed) {
        let deadline = Instant::now() + Duration::from_secs(240);
        while self.cuts.load(Ordering::SeqCst) == cuts
            && feed.stream.watermarks().applied < feed.last()
        {
            assert!(Instant::now() < deadline, "neither cut nor applied");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    left: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
    off: Arc<AtomicBool>,
) {
    let (mut to, mut from) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            read = client.read(&mut to) => match read {
                Ok(count @ 1..) => if server.write_all(&to[..count]).await.is_err() { return },
                _ => return,
            },
            read = server.read(&mut from) => {
                let Ok(count @ 1..) = read else { return };
                let passes = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(count as u64)
                });
                if passes.is_err() && !off.load(Ordering::SeqCst) {
                    // What the server has done, it has done; only we do not hear of it.
                    cuts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if client.write_all(&from[..count]).await.is_err() { return }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_anywhere_is_asked_for_and_never_guessed() {
    let database = Database::new(TABLES).await;
    let cutter = Cutter::start(database.cluster.port()).await;
    let mut options_url = database.cluster.tcp_url(&database.name);
    options_url = options_url
        .replace(&format!("port={}", database.cluster.port()), &format!("port={}", cutter.port));
    let feed = Feed::new();
    let mut options = database.options(&feed);
    options.target.config = options_url.parse().unwrap();
    options.target.config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let applier = thinwire_apply::Applier::start(options);
    let mut last = 0;
    // A target transaction is answered with some hundred bytes; the cut wanders over them.
    for step in 0..30 {
        let cuts = cutter.cuts.load(Ordering::SeqCst);
        cutter.left.store(step * 17 % 240, Ordering::SeqCst);
        transactions(&feed, last + 1, last + 3);
        last += 3;
        cutter.has_cut(cuts, &feed).await;
        cutter.left.store(u64::MAX, Ordering::SeqCst);
        applied(&applier, &feed.stream).await;
    }
    assert!(cutter.cuts.load(Ordering::SeqCst) > 15);
    cutter.off.store(true, Ordering::SeqCst);
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(check_prefix(&database), Some(last));
}
