//! The saved state of a wrapper, beside the state of what it wraps: `{"own": …, "inner": …}`.

use playfield_core::{Error, Result, State};
use serde_json::json;

/// Combines both states; `None` where the inner one cannot be saved.
pub(crate) fn pack(own: State, inner: Option<State>) -> Option<State> {
    Some(json!({ "own": own, "inner": inner? }))
}

/// Splits what [`pack`] combined into the wrapper's own state and the inner state.
///
/// # Errors
/// [`Error::Env`] where it is something else.
pub(crate) fn unpack<'a>(id: &str, wrapper: &str, state: &'a State) -> Result<(&'a State, &'a State)> {
    state.get("own").zip(state.get("inner")).ok_or_else(|| foreign(id, wrapper))
}

/// The error for a saved state of something else.
pub(crate) fn foreign(id: &str, wrapper: &str) -> Error {
    Error::env(id, format!("the saved state is not one of {wrapper}: it belongs to other settings of [env]"))
}
