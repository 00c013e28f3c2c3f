//! Atari games through the Arcade Learning Environment.
//!
//! There are two implementations with identical frames: [`AtariVec`], ALE's own batch of C++ threads, which skips frames,
//! max-pools and resizes; and [`AleRaw`], one game frame by frame, for playfield's wrappers.

mod raw;
mod vec;

pub use raw::AleRaw;
pub use vec::AtariVec;

use crate::python::{self, Failure, reported};
use playfield_core::{Env, EnvConfig, EnvSource, Error, Result, VecEnv};
use pyo3::prelude::*;
use std::collections::BTreeMap;

/// The source of an Atari game: `ALE/<Game>-v5`.
///
/// The id only selects the ROM. Sticky actions, frame skip and the action set are settings of `[env]`, independent of what
/// Gymnasium registers under the id. `[env.kwargs]` may have `mode` and `difficulty` (numbers that the game has), which only
/// single games ([`AleRaw`]) support.
#[derive(Clone, Debug)]
pub struct AtariSource {
    id: String,
}

impl AtariSource {
    /// The game of `id`. An unknown id is an error when an environment is created.
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

    fn renders(&self, _config: &EnvConfig) -> Result<bool> {
        Ok(true)
    }

    /// Emulator frames.
    fn render_fps(&self) -> f64 {
        60.0
    }

    fn env_settings(&self) -> &'static [&'static str] {
        &["full_action_space", "kwargs"]
    }

    fn batch_settings(&self) -> &'static [&'static str] {
        &[
            "frame_skip",
            "max_pool",
            "resize",
            "noop_max",
            "fire_reset",
            "repeat_action_probability",
            "full_action_space",
            "max_episode_steps",
        ]
    }

    /// `None` without `resize`: ALE's batch always resizes.
    fn batch(&self, config: &EnvConfig, seeds: &[u64]) -> Result<Option<Box<dyn VecEnv>>> {
        if config.resize.is_empty() {
            return Ok(None);
        }
        Ok(Some(Box::new(AtariVec::new(&self.id, config, seeds)?)))
    }
}

/// The ids of the Atari games in the installed `ale_py`, sorted.
///
/// # Errors
/// [`Error::Env`] where Python or `ale_py` is missing.
pub fn games() -> Result<Vec<String>> {
    python::with("ALE", |py| Ok(roms(py)?.into_keys().collect()))
}

/// ROM names by id.
fn roms(py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
    python::helper(py)?.call_method0("games")?.extract()
}

/// The ROM file of game `id`.
fn rom<'py>(py: Python<'py>, id: &str) -> std::result::Result<Bound<'py, PyAny>, Failure> {
    let unknown = || reported(Error::env(id, "there is no such Atari game: `playfield envs` lists them"));
    let game = roms(py)?.remove(id).ok_or_else(unknown)?;
    let missing = |e: PyErr| match python::explain(py, id, &e) {
        Error::Env { detail, .. } => {
            let message =
                format!("the ROM `{game}` is missing or damaged in the Python package `ale_py`: run `make setup`");
            reported(Error::Env { id: id.into(), message, detail })
        }
        other => reported(other),
    };
    python::helper(py)?.call_method1("rom_path", (&game,)).map_err(missing)
}

/// The names of `ale_py.Action`s.
fn names(actions: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    actions.try_iter()?.map(|action| action?.getattr("name")?.extract()).collect()
}

/// Whether a life was lost and the game continues. At 0 lives the game shows its last frames.
fn life_lost(before: u32, now: u32) -> bool {
    0 < now && now < before
}
