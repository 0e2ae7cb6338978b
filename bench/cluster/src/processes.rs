//! Signals and the process table, through `/proc`, which every user may read.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills a process and its children at one instant, as a power cut would: the parent is stopped
/// first, so that it can neither start another child nor see one die. Returns when all are gone.
///
/// The process group is no help here: PostgreSQL makes each of its children the leader of a session
/// of its own.
pub(crate) fn kill_family(parent: &mut Child) {
    signal(parent.id(), Signal::STOP);
    // It may be making a child at this moment, and stands still only when that is there.
    wait_until(|| stands_still(parent.id()));
    let children = children_of(parent.id());
    for &child in &children {
        signal(child, Signal::KILL);
    }
    signal(parent.id(), Signal::KILL);
    let _ = parent.wait();
    wait_until(|| !children.iter().any(|&child| runs(child)));
}

fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + KERNEL_TIMEOUT;
    while !is_so() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
}

/// The processes whose parent this one is.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| state_and_parent(pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

/// Whether a process exists and still executes; a zombie that nobody has collected does not.
pub(crate) fn runs(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Whether a process executes nothing until it is continued, or ever.
fn stands_still(pid: u32) -> bool {
    state_and_parent(pid).is_none_or(|(state, _)| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    parse(&stat)
}

/// The program's name stands in parentheses and may hold anything, so the fields are counted from
/// the last one.
fn parse(stat: &str) -> Option<(char, u32)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some((state, parent))
}

/// SIGSTOP and SIGKILL are not refused; this bounds the wait for a process stuck in the kernel.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_parentheses_and_blanks_is_skipped() {
        assert_eq!(parse("12 (a) b (c) S 7 12 12 0"), Some(('S', 7)));
        assert_eq!(parse("rubbish"), None);
    }

    #[test]
    fn a_family_is_killed_at_once() {
        let mut parent = Command::new("sh").args(["-c", "sleep 100 & sleep 100"]).spawn().unwrap();
        let mut children = children_of(parent.id());
        while children.len() < 2 {
            thread::sleep(Duration::from_millis(5));
            children = children_of(parent.id());
        }
        kill_family(&mut parent);
        assert!(!children.iter().any(|&child| runs(child)));
    }

    #[test]
    fn a_child_that_is_being_made_is_killed_with_the_rest() {
        for round in 0..8 {
            // Whoever is made has this on its command line.
            let mark = format!("100.{}{round:03}", std::process::id());
            let script = format!("for i in $(seq 400); do sleep {mark} & done; wait");
            let mut parent = Command::new("sh").args(["-c", &script]).spawn().unwrap();
            while children_of(parent.id()).len() < 20 {
                thread::sleep(Duration::from_millis(1));
            }
            kill_family(&mut parent);
            let marked = |pid: &u32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                runs(*pid) && String::from_utf8_lossy(&line).contains(&mark)
            };
            let all = fs::read_dir("/proc").unwrap().flatten();
            let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            let left: Vec<u32> = all.filter(marked).collect();
            left.iter().for_each(|&pid| signal(pid, Signal::KILL));
            assert!(left.is_empty(), "{left:?} are left in round {round}");
        }
    }
}
