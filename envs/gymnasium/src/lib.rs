//! Atari and every other Gymnasium environment: the only crate of playfield that knows Python.
//!
//! | id | source | one | a batch |
//! |---|---|---|---|
//! | `ALE/Pong-v5`, … | [`AtariSource`] | [`AleRaw`], an emulator frame a step | [`AtariVec`], ALE's C++ threads |
//! | `CartPole-v1`, `module:Id`, … | [`GymSource`] | [`GymEnv`] | [`GymVec`], in this process or one process each |
//!
//! The interpreter is embedded and started at the first call that needs it, with the packages of the repository's
//! `.venv`; a Python exception comes out as one sentence ([`Error::Env`](playfield_core::Error::Env)) with its traceback
//! as detail. Nothing here handles signals: Ctrl-C stays the program's.
//!
//! For a batch of environments in pure Rust use `playfield-classic` and the pool of `playfield-wrappers`: Python's lock
//! lets only one of these environments step at a time, unless they are Atari's or have processes of their own.

mod array;
pub mod atari;
mod base64;
mod doctor;
pub mod gym;
mod python;
mod venv;

pub use atari::{AleRaw, AtariSource, AtariVec, games};
pub use doctor::doctor;
pub use gym::{GymEnv, GymSource, GymVec, registered};
pub use python::python_seed;

use playfield_core::{EnvSource, Result};
use std::sync::Arc;

/// Where environments of `id` come from, or `None` where neither ALE nor Gymnasium knows it.
///
/// Where Python cannot be asked, and for `module:Id`, which has to be imported first, there is a source, and making an
/// environment says what is wrong.
pub fn lookup(id: &str) -> Option<Arc<dyn EnvSource>> {
    if id.starts_with("ALE/") {
        let known = games().map_or(true, |games| games.iter().any(|game| game == id));
        return known.then(|| Arc::new(AtariSource::new(id)) as Arc<dyn EnvSource>);
    }
    gym::knows(id).unwrap_or(true).then(|| Arc::new(GymSource::new(id)) as Arc<dyn EnvSource>)
}

/// Every id that [`lookup`] finds by name: Atari's games, then Gymnasium's registry.
///
/// # Errors
/// [`Error::Env`](playfield_core::Error::Env) where Python or a package is missing.
pub fn ids() -> Result<Vec<String>> {
    Ok([games()?, registered()?].concat())
}
