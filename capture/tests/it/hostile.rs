//! Databases and servers that mean harm: rows are never left out silently, no code of others runs while a copy is read, and no
//! server makes us work without end.

use std::time::{Duration, Instant};

use thinwire_capture::{
    Source,
    slot::{self, InitOptions},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::rig::{Node, Rig, init_options};

/// A login that may capture and nothing else, and the source as it sees it.
async fn runner(rig: &Rig) -> Source {
    rig.sql("create role runner login replication");
    let options = InitOptions { run_as: Some("runner".into()), ..init_options(&["public.*"]) };
    slot::init(&rig.source(), &options).await.unwrap();
    Source::new(rig.cluster.url_as("runner", "shop").parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_policy_hides_are_asked_for_and_never_left_out() {
    let rig = Rig::new(
        "create table open (id int primary key); create table veiled (id int primary key);
         insert into open values (1); insert into veiled select generate_series(1, 9);
         alter table veiled enable row level security; create policy few on veiled using (id < 3)",
    );
    let source = runner(&rig).await;
    let checks = slot::check(&source, &init_options(&["public.*"])).await;
    assert!(checks.iter().any(|it| !it.ok && it.what.contains("public.veiled")), "{checks:?}");
    let node = Node::start(source.clone(), rig.dir.path(), &rig.cluster);
    node.until("it is said", |node| {
        let said = node.status().last_error.unwrap_or_default();
        said.contains("veiled") && said.contains("row-level security")
    })
    .await;
    assert!(!node.has_copied(), "a copy without all of its rows is none");
    // Whoever may see all of them is believed.
    rig.sql("alter role runner bypassrls");
    node.capture.retry();
    node.until("it is copied", Node::has_copied).await;
    // What is streamed is what was committed, whoever may see it.
    rig.sql("alter role runner nobypassrls; insert into veiled values (10); update veiled set id = 0 where id = 9");
    node.caught_up(&rig.source()).await;
    let rows = node.model().rows("public.veiled");
    assert_eq!(rows.len(), 10, "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_swapped_for_a_view_while_it_is_copied_runs_no_code() {
    let rig = Rig::new(
        "create table canary (hit text); create table a (id int primary key); create table b (id int primary key, v text);
         insert into a values (1); insert into b values (1, 'x');
         create function trap() returns text language plpgsql as
           $$ begin insert into public.canary values (current_user); return 'trapped'; end $$",
    );
    rig.init(&["public.a", "public.b"]).await;
    let swap = "begin; alter table b rename to hidden; create view b as select 1 as id, public.trap() as v; commit";
    let back = "begin; drop view b; alter table hidden rename to b; commit";
    let node = rig.node();
    // The copy waits for a table that somebody holds; meanwhile another one becomes a view.
    let (cluster, started) = (&rig.cluster, Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while started.elapsed() < Duration::from_secs(6) {
                let held = format!("begin; lock table a; select pg_sleep(0.05); commit; {swap}; select pg_sleep(0.02); {back}");
                cluster.psql("shop", &held).unwrap();
            }
        });
    });
    rig.sql(swap);
    rig.sql("insert into hidden values (2, 'y')");
    node.until("it is copied", Node::has_copied).await;
    node.caught_up(&rig.source()).await;
    assert_eq!(rig.sql("select count(*) from canary"), "0");
    rig.sql(back);
    rig.sql("insert into b values (3, 'z')");
    rig.check(&node, &["public.a"]).await;
    let records = format!("{:?}", node.records());
    assert!(!records.contains("trapped"), "{records}");
}

/// Answers a startup message with a SCRAM challenge that would take a processor for hours.
async fn challenge(mut client: TcpStream) {
    let mut message = vec![0; 4096];
    let _ = client.read(&mut message).await;
    let offered = b"SCRAM-SHA-256\0\0";
    let length = u32::try_from(8 + offered.len()).unwrap().to_be_bytes();
    let sasl = [&b"R"[..], &length, &10_u32.to_be_bytes(), offered].concat();
    client.write_all(&sasl).await.unwrap();
    let read = client.read(&mut message).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&message[..read]).into_owned();
    let nonce = text.split("r=").nth(1).unwrap_or_default().trim_end_matches('\0').to_owned();
    let first = format!("r={nonce}more,s=QSXCR+Q6sek8bf92,i=2147483647");
    let length = u32::try_from(8 + first.len()).unwrap().to_be_bytes();
    let next = [&b"R"[..], &length, &11_u32.to_be_bytes(), first.as_bytes()].concat();
    let _ = client.write_all(&next).await;
    let _ = client.read(&mut message).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_endless_work_is_refused_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(challenge(client));
        }
    });
    let url = format!("host=127.0.0.1 port={port} user=u password=p dbname=d sslmode=disable");
    let begun = Instant::now();
    let error = Source::new(url.parse().unwrap()).connect().await.unwrap_err().to_string();
    assert!(error.contains("iteration count"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
