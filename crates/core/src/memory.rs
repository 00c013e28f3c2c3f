//! The memory available on this machine, which is checked before a rollout, a replay buffer or a network is allocated.
//!
//! Linux overcommits: an allocation that is too large succeeds, and the process is killed when its pages are written, hours into
//! a run.

use crate::{Error, Result};
use std::fs;

/// Checks that `needed` bytes are available for `what`.
///
/// # Errors
/// [`Error::Config`] with both sizes and `advice`, which says what to lower.
pub fn require(what: &str, needed: u64, advice: &str) -> Result<()> {
    match available().filter(|&available| available < needed) {
        None => Ok(()),
        Some(available) => {
            let gigabytes = |bytes: u64| bytes as f64 / 1e9;
            Err(Error::config(format!(
                "{what} takes {:.2} GB and this machine has {:.2} GB available: {advice}",
                gigabytes(needed),
                gigabytes(available)
            )))
        }
    }
}

/// The memory that this process can still allocate, in bytes: that of the system, of the control group, or of its address space
/// (`ulimit -v`), whichever is least. `None` where none is known.
pub fn available() -> Option<u64> {
    let read = |name: &str| fs::read_to_string(name).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let system = read("/proc/meminfo").and_then(|text| available_of(&text));
    let group = number("/sys/fs/cgroup/memory.max")
        .and_then(|max| Some(max.saturating_sub(number("/sys/fs/cgroup/memory.current")?)));
    let limits = read("/proc/self/limits");
    let left = limits.and_then(|limits| address_space_left(&limits, &read("/proc/self/statm").unwrap_or_default()));
    [system, group, left].into_iter().flatten().min()
}

/// What the limit of the address space leaves, in bytes; `None` where there is none. `limits` and `statm` are those of /proc/self.
fn address_space_left(limits: &str, statm: &str) -> Option<u64> {
    let pages = statm.split(' ').next().and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    Some(address_space_of(limits)?.saturating_sub(4096 * pages))
}

/// The soft limit of the address space in /proc/self/limits, in bytes; `None` where there is none.
fn address_space_of(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
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
    fn more_memory_than_there_is_is_refused() {
        assert!(require("a thing", 1, "lower `x`").is_ok());
        let message = require("a thing", 1 << 60, "lower `x`").unwrap_err().to_string();
        assert!(
            message.contains("a thing takes 1152921504.61 GB") && message.ends_with("available: lower `x`"),
            "{message}"
        );
    }

    #[test]
    fn reads_meminfo() {
        assert_eq!(available_of("MemTotal:  99 kB\nMemAvailable:   18220 kB\n"), Some(18_657_280));
        assert_eq!(available_of("MemTotal:  99 kB\n"), None);
        let limits =
            |soft: &str| format!("Limit  Soft  Hard  Units\nMax address space     {soft}   unlimited   bytes\n");
        assert_eq!(address_space_of(&limits("16384000000")), Some(16_384_000_000));
        assert_eq!(address_space_of(&limits("unlimited")), None);
        assert_eq!(address_space_left(&limits("16384000000"), "1000 20 3"), Some(16_379_904_000));
        assert_eq!(address_space_left(&limits("4096"), "1000 20 3"), Some(0));
        assert_eq!(address_space_left(&limits("4096"), ""), Some(4096));
        assert_eq!(address_space_left(&limits("unlimited"), "1000 20 3"), None);
        assert!(available().is_none_or(|bytes| bytes > 1_000_000));
    }
}
