//! Calls of environments that are in progress, in all threads of the process: where one hangs, the thread that would report it waits
//! for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Start times; keys ascend.
static CALLS: Mutex<BTreeMap<u64, Instant>> = Mutex::new(BTreeMap::new());

/// A call in progress, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Call(u64);

fn calls() -> MutexGuard<'static, BTreeMap<u64, Instant>> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a call.
pub fn begin() -> Call {
    let mut calls = calls();
    let key = calls.last_key_value().map_or(0, |(key, _)| key + 1);
    calls.insert(key, Instant::now());
    Call(key)
}

impl Drop for Call {
    fn drop(&mut self) {
        calls().remove(&self.0);
    }
}

/// The duration so far of the longest call in progress.
pub fn longest() -> Option<Duration> {
    calls().values().min().map(Instant::elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_call_in_progress_is_found() {
        assert_eq!(longest(), None);
        let first = begin();
        std::thread::sleep(Duration::from_millis(20));
        let second = begin();
        assert!(longest().unwrap() >= Duration::from_millis(20));
        drop(first);
        assert!(longest().unwrap() < Duration::from_millis(20));
        drop(second);
        assert_eq!(longest(), None);
    }
}
