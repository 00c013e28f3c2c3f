//! How a wrapper's own state lies beside the state of what it wraps: `{"own": …, "inner": …}`.

use playfield_core::{Error, Result, State};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// `own` beside `inner`; `None` where what is inside cannot be saved.
pub(crate) fn pack(own: impl Serialize, inner: Option<State>) -> Option<State> {
    Some(json!({ "own": serde_json::to_value(own).ok()?, "inner": inner? }))
}

/// What [`pack`] put together: the wrapper's own part, and the part of what is inside.
///
/// # Errors
/// [`Error::Env`] where it is something else.
pub(crate) fn unpack<'a, T: DeserializeOwned>(id: &str, what: &str, state: &'a State) -> Result<(T, &'a State)> {
    match (state.get("own").and_then(|own| T::deserialize(own).ok()), state.get("inner")) {
        (Some(own), Some(inner)) => Ok((own, inner)),
        _ => Err(foreign(id, what)),
    }
}

/// The error for a saved state that belongs to something else.
pub(crate) fn foreign(id: &str, what: &str) -> Error {
    Error::env(id, format!("the saved state is not one of {what}: it belongs to other settings of [env]"))
}

/// Bytes as hexadecimal digits: half the size of a JSON list of numbers.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |d: u8| char::from(b"0123456789abcdef"[usize::from(d)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// The bytes of [`hex`] into `bytes`; `None` where they are not as many.
pub(crate) fn unhex(text: &str, bytes: &mut [u8]) -> Option<()> {
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
        let digit = |d: u8| char::from(d).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_as_text() {
        let all: Vec<u8> = (0..=255).collect();
        let mut back = vec![0; 256];
        unhex(&hex(&all), &mut back).unwrap();
        assert_eq!(back, all);
        assert_eq!(unhex("0", &mut [0]), None);
        assert_eq!(unhex("0g", &mut [0]), None);
    }
}
