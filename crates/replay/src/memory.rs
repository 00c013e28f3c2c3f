//! The memory available on this machine, which is checked before a replay buffer is allocated.
//!
//! Linux overcommits: an allocation that is too large succeeds, and the process is killed when its pages are written, hours into
//! a run.

use std::fs;

/// The memory that this process can still allocate, in bytes: that of the system or of the control group, whichever is less.
/// `None` where neither is known.
pub fn available() -> Option<u64> {
    let read = |name: &str| fs::read_to_string(name).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let system = read("/proc/meminfo").and_then(|text| available_of(&text));
    let group = number("/sys/fs/cgroup/memory.max")
        .and_then(|max| Some(max.saturating_sub(number("/sys/fs/cgroup/memory.current")?)));
    [system, group].into_iter().flatten().min()
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn available_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_meminfo() {
        assert_eq!(available_of("MemTotal:  99 kB\nMemAvailable:   18220 kB\n"), Some(18_657_280));
        assert_eq!(available_of("MemTotal:  99 kB\n"), None);
        assert!(available().is_none_or(|bytes| bytes > 1_000_000));
    }
}
