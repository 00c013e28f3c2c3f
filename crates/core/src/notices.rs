//! Messages for the user from code that has no [`Run`](crate::Run) to report to, such as environments: the run shows them with its
//! next progress.

use std::sync::{Mutex, PoisonError};

static NOTICES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Adds a message.
pub fn push(message: String) {
    NOTICES.lock().unwrap_or_else(PoisonError::into_inner).push(message);
}

/// Removes and returns all messages.
pub fn take() -> Vec<String> {
    std::mem::take(&mut *NOTICES.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once() {
        push("first".into());
        push("second".into());
        assert_eq!(take(), ["first", "second"]);
        assert!(take().is_empty());
    }
}
