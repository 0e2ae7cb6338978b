//! `thinwire journal` on a journal in use, and on copies to which things were done.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use thinwire_bench::node::binary;

use crate::site::{APPLY, CAPTURE, Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id bigint primary key, v text)";
const SMALL: &str = "[journal]\nbudget = \"8MiB\"\nsegment = \"64KiB\"\nretention = \"0s\"\n";

/// What a look into a journal ended with.
struct Look {
    code: i32,
    out: String,
    complaint: String,
}

impl Look {
    fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            complaint: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The last line that was printed.
    fn verdict(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }
}

fn command(program: &Path, dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("journal").args(arguments).arg(dir);
    command
}

fn look(dir: &Path, arguments: &[&str]) -> Look {
    Look::of(command(&binary().unwrap(), dir, arguments))
}

fn journal_of(site: &Site) -> PathBuf {
    site.node.config().with_extension("").join("journal")
}

/// The journal of a node that captured several segments and was stopped, and a copy of it.
fn stopped() -> (Site, TempDir) {
    let mut site = Site::new("edge", &format!("{CAPTURE}{SMALL}"), SCHEMA);
    site.init();
    site.node.start().unwrap();
    // The node sends to nobody, so it keeps everything.
    for round in 0..8 {
        site.sql(&format!(
            "insert into t select i, md5(i::text) || md5((-i)::text) from generate_series({}, {}) i",
            round * 1_000,
            round * 1_000 + 999
        ));
    }
    wait_for("the changes to be durable", Duration::from_secs(30), || {
        let stream = site.status().streams.first()?.clone();
        (stream.synced > Some(8_000)).then_some(())
    });
    site.node.stop().unwrap();
    let copy = tempfile::Builder::new().prefix("tw").tempdir().unwrap();
    copy_tree(&journal_of(&site), copy.path());
    (site, copy)
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn stream_in(journal: &Path) -> PathBuf {
    let mut entries = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.is_dir()).unwrap()
}

fn segments(stream: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(stream).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_change_to_a_copied_journal_is_found_with_its_place() {
    let (_site, copy) = stopped();
    let stream = stream_in(copy.path());
    let paths = segments(&stream);
    assert!(paths.len() > 2, "{paths:?}");
    for dir in [copy.path(), &stream] {
        let sound = look(dir, &["verify"]);
        assert_eq!((sound.code, sound.out.contains(" 0 damaged")), (0, true), "{}", sound.out);
    }
    let caught = |what: &str, path: &Path| {
        let look = look(copy.path(), &["verify"]);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(look.code, 1, "{what}: {}", look.out);
        assert!(look.out.contains(name), "{what} in {name}: {}", look.out);
        look.out
    };
    // What is seen to be damaged in a listing is the head of a segment, or the last one.
    let listed = |code: i32| {
        for arguments in [&["ls"][..], &["ls", "--json"]] {
            let look = look(copy.path(), arguments);
            let is_named = look.out.contains("damaged head") || look.out.contains("torn tail");
            assert_eq!((look.code, is_named), (code, code == 1), "{}", look.out);
        }
    };
    listed(0);
    for path in &paths {
        let whole = fs::read(path).unwrap();
        for part in 0..4 {
            let at = whole.len() * part / 4 + part;
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(path, &bytes).unwrap();
            caught(&format!("byte {at}"), path);
            if part == 0 {
                listed(1);
            }
        }
        fs::write(path, &whole[..whole.len() - 3]).unwrap();
        let found = caught("cut", path);
        assert_eq!(found.contains("`run` cuts"), path == paths.last().unwrap(), "{found}");
        if path == paths.last().unwrap() {
            listed(1);
        }
        fs::write(path, &whole).unwrap();
    }
    for stray in [copy.path().join("notes"), stream.join("1.seg"), stream.join("x.mend")] {
        fs::write(&stray, b"").unwrap();
        caught("a stray file", &stray);
        fs::remove_file(&stray).unwrap();
    }
    fs::remove_file(&paths[1]).unwrap();
    assert!(caught("a removed segment", &paths[2]).contains("are missing"));
    let dump = look(&stream, &["dump"]);
    assert_eq!(dump.code, 1);
    assert!(dump.complaint.contains("are missing"), "{}", dump.complaint);
    assert!(dump.out.lines().count() > 100, "what is before it is printed");
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(look(nothing.path(), &["verify"]).code, 1);
    assert_eq!(look(&nothing.path().join("nowhere"), &["ls"]).code, 1);
}

#[test]
fn a_journal_is_listed_and_dumped_by_another_user_who_cannot_write() {
    let (_site, copy) = stopped();
    // The built program may lie where only its owner may go.
    let program = copy.path().with_extension("bin");
    // A process that another test forks may hold a file that we have written ourselves, and nobody can run it meanwhile.
    let copied =
        Command::new("cp").arg("-p").arg(binary().unwrap()).arg(&program).status().unwrap();
    assert!(copied.success());
    let open_up = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let stream = stream_in(copy.path());
    segments(&stream).iter().for_each(|path| open_up(path, 0o444));
    for dir in [copy.path(), &stream] {
        open_up(dir, 0o555);
    }
    open_up(&copy.path().join("LOCK"), 0o444);
    let is_root = rustix::process::geteuid().is_root();
    let nobody = 65_534;
    let run = |dir: &Path, arguments: &[&str]| {
        let mut command = command(&program, dir, arguments);
        if is_root {
            command.uid(nobody).gid(nobody);
        }
        Look::of(command)
    };
    for arguments in [&["ls"][..], &["ls", "--json"], &["verify"], &["dump"]] {
        let look = run(copy.path(), arguments);
        assert_eq!(look.code, 0, "{arguments:?}: {}{}", look.out, look.complaint);
    }
    let dump = run(copy.path(), &["dump", "--from", "1000", "--limit", "3"]);
    let lines: Vec<_> = dump.out.lines().collect();
    assert_eq!(lines.len(), 4, "{}", dump.out);
    assert!(lines[1].starts_with("1000  insert public.t (2 columns)"), "{}", dump.out);
    let name = stream.file_name().unwrap().to_str().unwrap();
    let one = run(copy.path(), &["dump", "--stream", &name[..8], "--limit", "5", "--values"]);
    assert!(one.out.lines().count() == 6, "{}", one.out);
    assert_eq!(run(copy.path(), &["dump", "--stream", "none"]).code, 1);
    let listing = run(copy.path(), &["ls", "--json"]).out;
    assert!(listing.contains("\"state\":\"being written\""), "{listing}");
    fs::remove_file(program).unwrap();
    for dir in [copy.path(), &stream] {
        open_up(dir, 0o755);
    }
}

#[test]
fn a_journal_under_load_is_sound_whenever_it_is_looked_at() {
    let source = Site::new("edge", &format!("{CAPTURE}{SMALL}"), SCHEMA);
    let target = Site::new("hq", &format!("{APPLY}{SMALL}"), SCHEMA);
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    pair.source.sql("insert into t values (-1, 'a secret')");
    pair.wait_equal(Duration::from_secs(30));
    let dump = look(&journal_of(&pair.source), &["dump"]);
    assert!(dump.out.contains("insert public.t") && !dump.out.contains("secret"), "{}", dump.out);
    let values = look(&journal_of(&pair.source), &["dump", "--values"]);
    assert!(values.out.contains("insert public.t (id=\"-1\", v=\"a secret\")"), "{}", values.out);
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..200_u64 {
                if !running.load(Ordering::Relaxed) {
                    return;
                }
                pair.source.sql(&format!(
                    "insert into t select i, md5(i::text) || md5((-i)::text) from generate_series({}, {}) i",
                    round * 500,
                    round * 500 + 499
                ));
            }
        });
        for round in 0..12 {
            for site in [&pair.source, &pair.target] {
                for arguments in [&["verify"][..], &["ls"], &["dump", "--limit", "2000"]] {
                    let look = look(&journal_of(site), arguments);
                    assert_eq!(
                        look.code,
                        0,
                        "{round} {arguments:?}: {}{}",
                        look.verdict(),
                        look.complaint
                    );
                }
            }
        }
        running.store(false, Ordering::Relaxed);
    });
    pair.wait_equal(Duration::from_secs(60));
}
