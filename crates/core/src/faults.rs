//! Faults on request, for tests: the process ends, or the disk is full, at the n-th operation on a file.
//!
//! Only debug builds read `PLAYFIELD_FAULT`; in a release build every operation succeeds or fails by itself.
//!
//! ```text
//! PLAYFIELD_FAULT=kill:12     the process aborts at operation 12
//! PLAYFIELD_FAULT=full:12     operation 12 and all later ones that need space fail with ENOSPC
//! ```
//!
//! An operation is a call of a function of [`files`](crate::files) that changes the file system: create, write, flush, rename, remove. A
//! write that is hit has written half of its bytes.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The code of `ENOSPC` on Linux and macOS.
const NO_SPACE: i32 = 28;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Kill(u64),
    Full(u64),
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It is carried out.
    Proceed,
    /// The process ends.
    Kill,
    /// It fails for want of space.
    Full,
}

impl Outcome {
    /// Ends the process or returns the error.
    pub(crate) fn apply(self) -> io::Result<()> {
        match self {
            Self::Proceed => Ok(()),
            Self::Kill => std::process::abort(),
            Self::Full => Err(io::Error::from_raw_os_error(NO_SPACE)),
        }
    }
}

/// Counts an operation, and returns what happens to it. One that frees space (`frees`) never fails for want of it.
pub(crate) fn next(frees: bool) -> Outcome {
    static REQUESTED: OnceLock<Option<Fault>> = OnceLock::new();
    static OPERATIONS: AtomicU64 = AtomicU64::new(0);
    if !cfg!(debug_assertions) {
        return Outcome::Proceed;
    }
    match REQUESTED.get_or_init(|| parse(&std::env::var("PLAYFIELD_FAULT").ok()?)) {
        None => Outcome::Proceed,
        Some(fault) => fault.at(OPERATIONS.fetch_add(1, Relaxed) + 1, frees),
    }
}

impl Fault {
    fn at(self, operation: u64, frees: bool) -> Outcome {
        match self {
            Self::Kill(n) if operation == n => Outcome::Kill,
            Self::Full(n) if operation >= n && !frees => Outcome::Full,
            _ => Outcome::Proceed,
        }
    }
}

fn parse(text: &str) -> Option<Fault> {
    let (kind, n) = text.split_once(':')?;
    let n = n.parse().ok()?;
    match kind {
        "kill" => Some(Fault::Kill(n)),
        "full" => Some(Fault::Full(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_hits_one_operation_and_a_full_disk_all_that_follow() {
        let outcomes = |fault: &str, frees| [1, 2, 3].map(|n| parse(fault).unwrap().at(n, frees));
        assert_eq!(outcomes("kill:2", true), [Outcome::Proceed, Outcome::Kill, Outcome::Proceed]);
        assert_eq!(outcomes("full:2", false), [Outcome::Proceed, Outcome::Full, Outcome::Full]);
        assert_eq!(outcomes("full:2", true), [Outcome::Proceed; 3]);
        assert_eq!([parse("kill"), parse("kill:x"), parse("melt:1")], [None; 3]);
        assert_eq!(Outcome::Full.apply().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
