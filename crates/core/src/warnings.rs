//! Warnings of environments, which have no [`Run`](crate::Run) to report to: the run reports them with its next progress.

use std::mem::take as take_all;
use std::sync::{Mutex, PoisonError};

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Adds a warning.
pub fn push(message: String) {
    WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).push(message);
}

/// Removes and returns all warnings.
pub fn take() -> Vec<String> {
    take_all(&mut *WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}
