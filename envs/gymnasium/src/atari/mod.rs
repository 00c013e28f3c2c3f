//! Atari games through the Arcade Learning Environment.
//!
//! Two ways to play them, which agree frame for frame: [`AtariVec`], ALE's own batch of C++ threads, which skips,
//! max-pools and warps by itself; and [`AleRaw`], one game frame by frame, for playfield's wrappers.

mod raw;
mod vec;

pub use raw::AleRaw;
pub use vec::AtariVec;

use crate::python::{self, Failure, said};
use playfield_core::{Env, EnvConfig, EnvSource, Error, Result, VecEnv};
use pyo3::prelude::*;
use std::collections::BTreeMap;

/// An Atari game as a source of environments: `ALE/<Game>-v5`.
///
/// The id names the ROM and nothing else: sticky actions, frame skip and the set of actions are settings of `[env]`,
/// whatever Gymnasium registers under the id. Of `kwargs` it takes `mode` and `difficulty` (numbers that the game
/// has), which only single games ([`AleRaw`]) can be given.
#[derive(Clone, Debug)]
pub struct AtariSource {
    id: String,
}

impl AtariSource {
    /// The game of `id`. That it exists is found out when an environment is made.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into() }
    }
}

impl EnvSource for AtariSource {
    fn defaults(&self) -> toml::Table {
        let mut table = toml::Table::new();
        table.insert("frame_stack".into(), 4.into());
        table.insert("frame_skip".into(), 4.into());
        table.insert("max_pool".into(), true.into());
        table.insert("resize".into(), vec![84, 84].into());
        table.insert("noop_max".into(), 30.into());
        table.insert("fire_reset".into(), true.into());
        table.insert("max_episode_steps".into(), 27_000.into());
        table
    }

    fn env(&self, config: &EnvConfig) -> Result<Box<dyn Env>> {
        Ok(Box::new(AleRaw::new(&self.id, config)?))
    }

    fn batch(&self, config: &EnvConfig, seeds: &[u64]) -> Result<Option<Box<dyn VecEnv>>> {
        if config.resize.is_empty() || !config.kwargs.is_empty() {
            return Ok(None);
        }
        Ok(Some(Box::new(AtariVec::new(&self.id, config, seeds)?)))
    }
}

/// The ids of the Atari games that the installed `ale_py` brings, sorted.
///
/// # Errors
/// [`Error::Env`] where Python or `ale_py` is missing.
pub fn games() -> Result<Vec<String>> {
    python::with("ALE", |py| Ok(roms(py)?.into_keys().collect()))
}

/// Ids and the names of their ROMs.
fn roms(py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
    python::helper(py)?.call_method0("games")?.extract()
}

/// The ROM file of game `id`.
fn rom<'py>(py: Python<'py>, id: &str) -> std::result::Result<Bound<'py, PyAny>, Failure> {
    let unknown = || said(Error::env(id, "there is no such Atari game: `playfield envs` lists them"));
    let game = roms(py)?.remove(id).ok_or_else(unknown)?;
    let missing = |e: PyErr| match python::explain(py, id, &e) {
        Error::Env { detail, .. } => {
            let message =
                format!("the ROM `{game}` is missing or damaged in the Python package `ale_py`: run `make setup`");
            said(Error::Env { id: id.into(), message, detail })
        }
        other => said(other),
    };
    python::helper(py)?.call_method1("rom_path", (&game,)).map_err(missing)
}

/// The names of a list of `ale_py.Action`.
fn names(actions: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    actions.try_iter()?.map(|action| action?.getattr("name")?.extract()).collect()
}

/// Whether a life was lost and the game goes on. A count of 0 is the game's last frames, not a life to go on with.
fn life_lost(before: u32, now: u32) -> bool {
    0 < now && now < before
}
