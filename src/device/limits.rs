//! How much memory and disk this process may still take: the machine's, its cgroup's, its rlimit's, whichever is least.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::process::{Resource, getrlimit};

use crate::error::{Error, Result};

/// Processes of a job among which this machine's memory is shared out.
static SHARING: AtomicU64 = AtomicU64::new(1);

/// From now on this process may take an equal part of what is free of the machine's memory, with so many of a job.
pub fn share_memory(processes: usize) {
    SHARING.store(processes.max(1) as u64, Ordering::Relaxed);
}

/// Bytes this process may still allocate. Page cache counts as free: the system gives it up when asked.
pub fn memory_available() -> u64 {
    let machine = meminfo("MemAvailable").unwrap_or(u64::MAX);
    let shared = machine.min(cgroup_available());
    (shared / SHARING.load(Ordering::Relaxed)).min(addresses_available())
}

/// Bytes of address space that `ulimit -v` leaves this process. A mapped file takes them too, though hardly any memory.
pub fn addresses_available() -> u64 {
    getrlimit(Resource::As).current.map_or(u64::MAX, |limit| limit.saturating_sub(address_space_used()))
}

/// Bytes of memory of the machine.
pub fn memory_total() -> Option<u64> {
    meminfo("MemTotal")
}

/// Fails (exit 5) when `need` bytes for `what` are more than the `free` ones. `what` begins the message: "training with
/// …".
pub fn check_memory(need: u64, free: u64, what: &str) -> Result<()> {
    if need <= free {
        return Ok(());
    }
    Err(Error::resources(format!(
        "not enough memory: {what} needs {}, {} is free",
        format_bytes(need),
        format_bytes(free)
    )))
}

/// Bytes free for this user on the file system that holds `dir` (or its nearest existing parent).
pub fn disk_available(dir: &Path) -> Option<u64> {
    let absolute = std::path::absolute(dir).ok()?;
    let existing = absolute.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Fails (exit 5) when the file system of `dir` has fewer than `need` bytes free.
pub fn check_disk(dir: &Path, need: u64) -> Result<()> {
    match disk_available(dir) {
        Some(free) if free < need => {
            let message = format!(
                "{}: No space left on device: {} needed, {} free",
                dir.display(),
                format_bytes(need),
                format_bytes(free)
            );
            Err(Error::resources(message).hint("free some space, or choose another place"))
        }
        _ => Ok(()),
    }
}

/// Bytes as a person reads them: `512 B`, `3.4 MB`, `7.9 GB` (powers of 1,000, as disks have them).
pub fn format_bytes(bytes: u64) -> String {
    let scale = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match scale.iter().find(|(unit, _)| bytes as f64 >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit),
        None => format!("{bytes} B"),
    }
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes of memory that this process holds now.
pub fn memory_held() -> u64 {
    pages_used(1)
}

/// Bytes of address space in use, as `RLIMIT_AS` counts them.
fn address_space_used() -> u64 {
    pages_used(0)
}

/// A field of `/proc/self/statm`, in bytes.
fn pages_used(field: usize) -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(field).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// What is left of the tightest memory limit among this process's cgroup and its parents (v2 and v1).
fn cgroup_available() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/cgroup") else { return u64::MAX };
    text.lines().filter_map(limits_of).flatten().min().unwrap_or(u64::MAX)
}

/// Free bytes at each level of one line of `/proc/self/cgroup` (`id:controllers:path`).
fn limits_of(line: &str) -> Option<Vec<u64>> {
    let mut parts = line.splitn(3, ':');
    let _ = parts.next()?;
    let controllers = parts.next()?;
    let path = parts.next()?;
    let (root, limit, usage, cache) = if controllers.is_empty() {
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ")
    } else if controllers.split(',').any(|name| name == "memory") {
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
    } else {
        return None;
    };
    let mut dir = PathBuf::from(root);
    // Inside a container the path may be the host's, which does not exist here; the root is then our own group.
    let mut dirs = vec![dir.clone()];
    for name in Path::new(path.trim_start_matches('/')) {
        dir.push(name);
        dirs.push(dir.clone());
    }
    Some(dirs.iter().filter_map(|dir| group_available(dir, limit, usage, cache)).collect())
}

fn group_available(dir: &Path, limit: &str, usage: &str, cache: &str) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number(limit)?;
    let stat = std::fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(limit.saturating_sub(number(usage)?.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_disk() {
        assert!(memory_available() > 1 << 20);
        assert!(memory_total().unwrap() >= memory_available());
        assert!(disk_available(Path::new("not/there/yet")).unwrap() > 0);
    }

    #[test]
    fn too_much_is_refused_naming_what_and_how_much() {
        let error = check_memory(1 << 60, memory_available(), "a model of 1,000 layers").unwrap_err();
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("a model of 1,000 layers needs 1152921.5 TB"), "{error}");
        let error = check_disk(Path::new("."), u64::MAX).unwrap_err();
        // Each command has a flag of its own for the place.
        assert_eq!((error.exit_code(), error.hint_text()), (5, Some("free some space, or choose another place")));
        check_memory(1, memory_available(), "a byte").unwrap();
        check_disk(Path::new("."), 1).unwrap();
    }

    #[test]
    fn bytes_are_shown_in_powers_of_a_thousand() {
        assert_eq!(
            [format_bytes(0), format_bytes(999), format_bytes(1000), format_bytes(7_920_000_000)],
            ["0 B", "999 B", "1.0 kB", "7.9 GB"]
        );
    }
}
