//! What the figures were measured on.

use std::{fs, path::Path, thread};

/// A sentence that says so.
pub(crate) fn describe(place: &Path) -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (device, kind) = file_system(place).unwrap_or_default();
    format!(
        "{cores} cores of {model}, Linux {}, {kind} on `{device}`; throughputs are those of the median \
         turn, less what it waited for a processor that other programs had.",
        kernel.trim()
    )
}

/// The device and the kind of the file system that holds `place`.
fn file_system(place: &Path) -> Option<(String, String)> {
    let place = place.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?, words.next()?))
    });
    mounts
        .filter(|(_, at, _)| place.starts_with(at))
        .max_by_key(|(_, at, _)| at.len())
        .map(|(device, _, kind)| (device.to_owned(), kind.to_owned()))
}

/// The most memory that this process held since [`forget_peak`], in bytes.
pub(crate) fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes: u64 =
        peak.and_then(|it| it.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
    kibibytes << 10
}

/// Begins to look for the most memory anew.
pub(crate) fn forget_peak() {
    // The kernel's own code for "reset the peak resident set size".
    let _ = fs::write("/proc/self/clear_refs", "5");
}
