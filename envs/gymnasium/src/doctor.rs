//! The Python checks of `playfield doctor`: each part separately, so that the first missing one is named.

use crate::{AleRaw, python};
use playfield_core::{Env, EnvConfig, Error, Obs, Result};
use pyo3::types::PyAnyMethods;

/// The version and path of each Python part, or its error with the command that fixes it: the interpreter, numpy, gymnasium,
/// ale_py, and an Atari game that starts.
pub fn doctor() -> Vec<(String, Result<String>)> {
    type Part = (String, Option<String>, String);
    let parts =
        python::with("Python", |py| Ok(python::helper(py)?.call_method0("versions")?.extract::<Vec<Part>>()?));
    let parts = match parts {
        Ok(parts) => parts,
        Err(error) => return vec![("Python".into(), Err(error))],
    };
    let broken = |name: &str, problem| Error::env(name, format!("cannot be loaded ({problem}): run `make setup`"));
    let mut report: Vec<_> = parts
        .into_iter()
        .map(|(name, version, problem)| (name.clone(), version.ok_or_else(|| broken(&name, problem))))
        .collect();
    report.push(("Atari".into(), atari()));
    report
}

fn atari() -> Result<String> {
    let id = "ALE/Pong-v5";
    let mut game = AleRaw::new(id, &EnvConfig::default())?;
    let mut screen = Obs::zeros(game.spec().dtype, game.spec().frame_len());
    game.reset(Some(0), screen.as_mut())?;
    Ok(format!("{} games, {id} starts", crate::games()?.len()))
}
