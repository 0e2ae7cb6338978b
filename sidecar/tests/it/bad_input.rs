//! Bad input gets a clear sentence and the right exit code or halt code, and nothing is lost.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use thinwire_bench::node::binary;
use thinwire_cluster::Options;

use crate::site::{APPLY, CAPTURE, DB, Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id bigint primary key, v text)";

/// Runs the program to its end: exit code, results, complaint.
fn thinwire(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary().unwrap()).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn with_config(text: &str, arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    thinwire(&[arguments, &["--config", &path]].concat())
}

fn config_of(site: &Site) -> String {
    site.node.config().to_str().unwrap().to_owned()
}

fn journal_of(site: &Site) -> PathBuf {
    site.node.config().parent().unwrap().join(site.node.name()).join("journal")
}

/// The segments of the stream with the most of them, in order.
fn segments(journal: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<_> = fs::read_dir(journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .flat_map(|stream| fs::read_dir(stream).unwrap().map(|entry| entry.unwrap().path()))
        .collect();
    segments.sort();
    segments
}

#[test]
fn a_missing_configuration_is_named() {
    let (code, _, complaint) = thinwire(&["run", "--config", "/nowhere/node.toml"]);
    assert_eq!(code, 2);
    assert!(complaint.contains("/nowhere/node.toml"), "{complaint}");
    assert_eq!(thinwire(&["run"]).0, 2);
    assert_eq!(thinwire(&["explode"]).0, 2);
    assert_eq!(thinwire(&["--help"]).0, 0);
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_file_line_and_key() {
    let cases = [
        ("[node]\nname = \"a\"\nnmae = \"b\"\n", "line 3", "nmae"),
        ("[node]\nname = \"a b\"\n", "line 2", "node.name"),
        ("[node]\nname = \"a\"\nlisten = \"here\"\n", "line 3", "node.listen"),
        ("[node]\nname = 3\n", "line 2", "name"),
        ("[nod]\nname = \"a\"\n", "line 1", "nod"),
        ("[node]\nname = \"a\"\n[journal]\nbudget = \"lots\"\n", "line 4", "journal.budget"),
        ("[node]\nname = \"a\"\n[journal]\non_full = \"panic\"\n", "line 4", "journal.on_full"),
        ("[node]\nname = \"a\"\n[[peer]]\nname = \"b\"\nkey = \"tw1abc\"\n", "line 5", "peer.key"),
        ("[node]\nname = \"a\"\n[[peer]]\nname = \"b\"\naddress = \"hq\"\nkey = \"\"\n", "", ""),
        ("[node]\nname = \"a\"\n[capture]\ntables = [\"*\"]\n", "", "capture"),
        (
            "[node]\nname = \"a\"\n[database]\nurl = \"host=a colour=red\"\n",
            "line 4",
            "database.url",
        ),
    ];
    for (text, line, key) in cases {
        let (code, _, complaint) = with_config(text, &["run"]);
        assert_eq!(code, 2, "{text}{complaint}");
        assert!(complaint.contains(line) && complaint.contains(key), "{text}{complaint}");
        assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
    }
}

#[test]
fn a_node_that_does_not_run_is_exit_code_3() {
    for command in ["status", "pause", "resume", "retry"] {
        let (code, _, complaint) = with_config("[node]\nname = \"a\"\n", &[command]);
        assert_eq!(code, 3, "{command}: {complaint}");
    }
}

#[test]
fn an_identity_is_made_once_and_refused_when_others_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("n.toml");
    fs::write(&config, "[node]\nname = \"n\"\n").unwrap();
    let config = config.to_str().unwrap();
    let (code, _, complaint) = thinwire(&["run", "--config", config]);
    assert_eq!(code, 2);
    assert!(complaint.contains("thinwire init"), "{complaint}");
    let (code, key, _) = thinwire(&["init", "--config", config]);
    assert_eq!(code, 0);
    assert_eq!(thinwire(&["key", "--config", config]).1, key);
    assert_eq!(thinwire(&["init", "--config", config]).1, key);
    assert!(key.starts_with("tw1") && key.trim().lines().count() == 1);
    let path = dir.path().join("n/identity.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    for command in ["key", "init", "run"] {
        let (code, _, complaint) = thinwire(&[command, "--config", config]);
        assert_eq!(code, 2, "{command}");
        assert!(complaint.contains("identity.key") && complaint.contains("0600"), "{complaint}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_and_a_port_that_is_taken_are_named() {
    let (code, _, complaint) =
        with_config("[node]\nname = \"n\"\ndir = \"/proc/nowhere\"\n", &["init"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("/proc/nowhere"), "{complaint}");

    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("n.toml");
    let address = taken.local_addr().unwrap();
    fs::write(&config, format!("[node]\nname = \"n\"\nlisten = \"{address}\"\n")).unwrap();
    let config = config.to_str().unwrap();
    assert_eq!(thinwire(&["init", "--config", config]).0, 0);
    let (code, _, complaint) = thinwire(&["run", "--config", config]);
    assert_eq!(code, 1);
    assert!(complaint.contains(&address.to_string()), "{complaint}");
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.status();
    let (code, _, complaint) = thinwire(&["run", "--config", &config_of(&pair.source)]);
    assert_eq!(code, 1);
    assert!(complaint.contains("in use"), "{complaint}");
}

#[test]
fn init_names_what_the_database_lacks() {
    let options = Options::default().with("wal_level", "replica");
    let site = Site::with("n", CAPTURE, SCHEMA, options);
    let (code, _, complaint) = thinwire(&["init", "--config", &config_of(&site)]);
    assert_eq!(code, 1);
    assert!(complaint.contains("wal_level"), "{complaint}");
    let (code, findings, _) = thinwire(&["doctor", "--config", &config_of(&site)]);
    assert_eq!(code, 1);
    assert!(findings.contains("wal_level"), "{findings}");

    let literal = "[capture]\ntables = [\"public.t\", \"public.absent\"]\n";
    let site = Site::new("n", literal, SCHEMA);
    let (code, _, complaint) = thinwire(&["init", "--config", &config_of(&site)]);
    assert_eq!(code, 1);
    assert!(complaint.contains("public.absent"), "{complaint}");

    let site = Site::new("n", CAPTURE, SCHEMA);
    site.sql("create role plain login");
    let url = site.cluster.url_as("plain", DB);
    site.node
        .configure(&format!("[node]\nname = \"n\"\n[database]\nurl = \"\"\"{url}\"\"\"\n{CAPTURE}"))
        .unwrap();
    let (code, findings, _) = thinwire(&["doctor", "--config", &config_of(&site)]);
    assert_eq!(code, 1);
    assert!(findings.to_lowercase().contains("replication"), "{findings}");
}

#[test]
fn a_wrong_password_is_said_and_not_shown() {
    let site = Site::with("n", CAPTURE, SCHEMA, Options::default().with_password("correct"));
    let url = site.cluster.tcp_url(DB).replace("correct", "hunter2");
    let url = if url.contains("hunter2") { url } else { format!("{url} password=hunter2") };
    site.node
        .configure(&format!("[node]\nname = \"n\"\n[database]\nurl = \"\"\"{url}\"\"\"\n{CAPTURE}"))
        .unwrap();
    let (code, _, complaint) = thinwire(&["init", "--config", &config_of(&site)]);
    assert_eq!(code, 1);
    assert!(complaint.contains("password authentication failed"), "{complaint}");
    assert!(!complaint.contains("hunter2"), "{complaint}");
}

#[test]
fn a_missing_slot_halts_by_name_and_never_restarts_silently() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t values (1, 'a')");
    pair.wait_equal(Duration::from_secs(30));
    pair.source.node.stop().unwrap();
    pair.source.drop_slots();
    pair.source.sql("insert into t values (2, 'lost')");
    pair.source.node.start().unwrap();
    let halted = wait_for("the halt", Duration::from_secs(30), || {
        pair.source.status().halted().map(|(_, halted)| halted.clone())
    });
    assert_eq!(halted.code, "slot_missing", "{halted:?}");
}

#[test]
fn garbage_on_the_port_and_a_stranger_do_no_harm() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    for size in [0, 1, 20, 1_200, 1_400] {
        for fill in [0_u8, 0xC0, 0xFF] {
            noise.send_to(&vec![fill; size], pair.target.listen).unwrap();
        }
    }
    // A node with a key that the target does not know dials in under a known name.
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("edge.toml");
    let text = format!(
        "[node]\nname = \"edge\"\n[[peer]]\nname = \"hq\"\nkey = \"{}\"\naddress = \"{}\"\n",
        pair.target.key, pair.target.listen
    );
    fs::write(&config, text).unwrap();
    let path = config.to_str().unwrap();
    assert_eq!(thinwire(&["init", "--config", path]).0, 0);
    let mut stranger = Command::new(binary().unwrap())
        .args(["run", "--config", path])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    sleep(Duration::from_secs(2));
    pair.source.sql("insert into t values (1, 'a')");
    pair.wait_equal(Duration::from_secs(30));
    let status = wait_for("the stranger's status", Duration::from_secs(20), || {
        let (code, status, _) = thinwire(&["status", "--json", "--config", path]);
        (code == 0).then_some(status)
    });
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(status.contains("\"connected\":false"), "{status}");
    assert_eq!(pair.target.status().streams.len(), 1);
}

#[test]
fn a_peer_with_another_key_than_configured_is_not_talked_to() {
    let mut pair = Pair::new(lively(), SCHEMA);
    let other = Site::new("other", APPLY, SCHEMA);
    other.node.init().unwrap();
    let wrong = other.node.key().unwrap();
    let text = fs::read_to_string(pair.source.node.config()).unwrap();
    pair.source.node.configure(&text.replace(&pair.target.key, &wrong)).unwrap();
    pair.start();
    pair.source.sql("insert into t values (1, 'secret')");
    sleep(Duration::from_secs(3));
    let status = pair.source.status();
    assert!(!status.peers[0].connected);
    assert_eq!(pair.target.sql("select count(*) from t").trim(), "0");
    assert!(pair.target.status().streams.is_empty());
}

#[test]
fn damaged_segments_halt_their_stream_and_are_not_touched() {
    let sections = format!("{CAPTURE}[journal]\nsegment = \"64KiB\"\nbudget = \"64MiB\"\n");
    let source = Site::new("edge", &sections, SCHEMA);
    let target = Site::new("hq", APPLY, SCHEMA);
    let mut pair = Pair::of(source, target, lively());
    pair.source.node.start().unwrap();
    for round in 0..20 {
        pair.source.sql(&format!(
            "insert into t select i, md5(i::text) || md5((-i)::text) from generate_series({}, {}) i",
            round * 1_000,
            round * 1_000 + 999
        ));
    }
    let journal = journal_of(&pair.source);
    wait_for("several segments", Duration::from_secs(30), || {
        (segments(&journal).len() > 3).then_some(())
    });
    pair.source.node.stop().unwrap();
    let journal_text = journal.to_str().unwrap();
    assert_eq!(thinwire(&["journal", "verify", journal_text]).0, 0);
    let path = segments(&journal)[1].clone();
    let sound = fs::read(&path).unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 4;
    for damaged in [&flipped[..], &sound[..sound.len() - 1_000]] {
        fs::write(&path, damaged).unwrap();
        let (code, findings, _) = thinwire(&["journal", "verify", journal_text]);
        assert_eq!(code, 1);
        assert!(findings.contains(path.to_str().unwrap()), "{findings}");
        pair.start();
        let halted = wait_for("the halt", Duration::from_secs(30), || {
            pair.source.status().halted().map(|(_, halted)| halted.clone())
        });
        assert_eq!(halted.code, "journal_corrupt", "{halted:?}");
        pair.source.node.stop().unwrap();
        pair.target.node.stop().unwrap();
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
    fs::write(&path, sound).unwrap();
    pair.start();
    pair.wait_equal(Duration::from_secs(60));
}

#[test]
fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    let room = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs"])
        .arg(room.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return crate::skip("a full disk", "mounting a small file system needs root");
    }
    let _unmount = Unmount(room.path().to_owned());
    let mut pair = Pair::new(lively(), SCHEMA);
    let text = fs::read_to_string(pair.source.node.config()).unwrap();
    let dir = room.path().join("edge");
    let text = text.replacen("[node]", &format!("[node]\ndir = {:?}", dir.to_str().unwrap()), 1);
    pair.source.node.configure(&text).unwrap();
    let beside = pair.source.node.config().with_extension("");
    assert!(Command::new("cp").arg("-a").arg(beside).arg(&dir).status().unwrap().success());
    let ballast = room.path().join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    pair.source.node.start().unwrap();
    for round in 0..20_u64 {
        pair.source.sql(&format!(
            "insert into t select i, md5(i::text) || md5((-i)::text) from generate_series({}, {}) i",
            round * 5_000,
            round * 5_000 + 4_999
        ));
    }
    wait_for("the disk to be full", Duration::from_secs(60), || {
        pair.source.status().halted().filter(|(_, halted)| halted.code == "disk_full").map(drop)
    });
    pair.target.node.start().unwrap();
    fs::remove_file(&ballast).unwrap();
    let grown =
        Command::new("mount").args(["-o", "remount,size=64m"]).arg(room.path()).status().unwrap();
    assert!(grown.success());
    pair.wait_equal(Duration::from_secs(60));
    pair.source.node.stop().unwrap();
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
