//! Network namespaces that live as long as somebody is in them, or holds them.
//!
//! A namespace has a name only while it is made: what keeps it is a file descriptor of ours, and
//! the processes that were started in it. When those are gone, however they went, so are the
//! namespace and its devices.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace of its own, whose loopback interface is up.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes one; needs to be root, and the `ip` program.
    pub(crate) fn new() -> Result<Namespace> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("thinwire-{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let file = File::open(format!("/run/netns/{name}"));
        ip(&["netns", "delete", &name])?;
        let namespace = Namespace { file: file.context("opening a network namespace")? };
        namespace.enter(|| ip(&["link", "set", "lo", "up"]))??;
        // What one connection learns about a path is not to help or harm the next.
        namespace.set("ipv4/tcp_no_metrics_save", "1")?;
        Ok(namespace)
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(name);
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("setting {} to {value}", path.display()))
    }

    /// Does something in it, in a thread of its own. Processes that are started there stay there,
    /// and so do sockets and devices that are opened.
    pub(crate) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.file.as_fd(), kind)?;
                Ok(act())
            });
            inside.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }
}

/// Runs the `ip` program in the namespace of the calling thread.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no program `ip` (package iproute2), which network namespaces need")
        }
        Err(error) => return Err(error).context("starting ip"),
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), complaint.trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_of_the_namespace_and_not_of_the_machine() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can make network namespaces");
            return;
        }
        let path = "/proc/sys/net/ipv4/tcp_no_metrics_save";
        let before = fs::read_to_string(path).unwrap();
        let namespace = Namespace::new().unwrap();
        let inside = namespace.enter(|| fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!((inside.trim(), fs::read_to_string(path).unwrap()), ("1", before));
    }
}
