//! Atari and every other Gymnasium environment: the only crate of playfield that depends on Python.
//!
//! | id | source | one environment | a batch |
//! |---|---|---|---|
//! | `ALE/Pong-v5`, … | [`AtariSource`] | [`AleRaw`], one emulator frame per step | [`AtariVec`], ALE's C++ threads |
//! | `CartPole-v1`, `module:Id`, `file.py:Class` | [`GymSource`] | [`GymEnv`] | [`GymVec`], in this process or one process each |
//!
//! The Python interpreter is embedded. It is started at the first call that needs it, with the packages of the repository's
//! `.venv`. A Python exception becomes a one-line error ([`Error::Env`](playfield_core::Error::Env)) with its traceback as
//! detail. Ctrl-C belongs to the program: signal handlers are installed only for crashes, and print where Python was.
//!
//! When not to use it: Python's GIL lets only one of these environments step at a time, except Atari batches and environments
//! in processes of their own. A pool of environments in Rust has no such limit.

mod array;
pub mod atari;
mod doctor;
pub mod gym;
mod python;
mod venv;

pub use atari::{AleRaw, AtariSource, AtariVec, games};
pub use doctor::doctor;
pub use gym::{GymEnv, GymSource, GymVec, registered};
pub use python::python_seed;

use playfield_core::{EnvSource, Result};
use std::path::Path;
use std::sync::Arc;

/// The source of environments of `id`, or `None` where neither ALE nor Gymnasium has registered it.
///
/// Without Python, and for `module:Id` and `file.py:Class`, which are imported when an environment is created, there is a
/// source, and creating an environment reports the error.
pub fn lookup(id: &str) -> Option<Arc<dyn EnvSource>> {
    if id.starts_with("ALE/") {
        let known = games().map_or(true, |games| games.iter().any(|game| game == id));
        return known.then(|| Arc::new(AtariSource::new(id)) as Arc<dyn EnvSource>);
    }
    gym::is_registered(id).unwrap_or(true).then(|| Arc::new(GymSource::new(id)) as Arc<dyn EnvSource>)
}

/// `id`; where it names a class in a Python file (`path/to/file.py:Class`), with an absolute path, relative to `folder`.
pub fn absolute(id: &str, folder: &Path) -> String {
    let is_file = id.contains(".py:") || id.ends_with(".py");
    if is_file { folder.join(id).to_string_lossy().into_owned() } else { id.into() }
}

/// Every id that [`lookup`] finds by name: Atari's games, then Gymnasium's registry.
///
/// # Errors
/// [`Error::Env`](playfield_core::Error::Env) where Python or a package is missing.
pub fn ids() -> Result<Vec<String>> {
    Ok([games()?, registered()?].concat())
}
