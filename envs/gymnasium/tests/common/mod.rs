//! Shared by the tests: Python with `tests/python` importable, and actions from a fixed random stream.
#![allow(dead_code, reason = "each test program uses a part")]

use playfield_core::{ActionSpace, Actions, EnvConfig, EnvFactory, EnvSource, EnvSpec, VecEnv, rng};
use playfield_gymnasium::GymSource;
use playfield_wrappers::Factory;
use pyo3::prelude::*;
use rand::Rng as _;
use std::sync::Arc;

/// The ways in which a Gymnasium environment steps: in this process, in its own, and inside playfield's wrappers in both.
/// (Sticky actions with a probability near 0 change nothing.)
pub const WAYS: [&str; 4] = [
    "",
    "vectorization = 'async'",
    "repeat_action_probability = 1e-300\nnum_threads = 2",
    "repeat_action_probability = 1e-300\nnum_threads = 2\nvectorization = 'async'",
];

/// `n` environments with all wrappers.
pub fn wrapped(id: &str, settings: &str, n: usize) -> Box<dyn VecEnv> {
    try_wrapped(id, settings, n).unwrap_or_else(|e| panic!("{settings}: {e}"))
}

/// The same, or the error.
pub fn try_wrapped(id: &str, settings: &str, n: usize) -> playfield_core::Result<Box<dyn VecEnv>> {
    python();
    let source = Arc::new(GymSource::new(id));
    let config = config(&*source, id, settings);
    Factory::new(source, config)?.vec(&rng::seeds(1, "env", n))
}

/// Starts Python and makes `tests/python` importable.
pub fn python() {
    playfield_gymnasium::registered().expect("Python and gymnasium: run `make setup`");
    Python::attach(|py| {
        let path = py.import("sys").unwrap().getattr("path").unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");
        if !path.contains(folder).unwrap() {
            path.call_method1("append", (folder,)).unwrap();
        }
    });
}

/// `[env]` of `source` with `settings` (TOML) over its defaults.
pub fn config(source: &dyn EnvSource, id: &str, settings: &str) -> EnvConfig {
    let mut table: toml::Table = settings.parse().unwrap();
    table.insert("id".into(), id.into());
    EnvConfig::resolve(&table, source.defaults()).unwrap()
}

/// `n` random actions; continuous ones are within ±2, as Pendulum's.
pub fn sample_actions(spec: &EnvSpec, n: usize, random: &mut rng::Rng) -> Actions {
    match &spec.actions {
        ActionSpace::Discrete { n: k } => {
            Actions::Discrete((0..n).map(|_| (random.next_u64() % *k as u64) as i64).collect())
        }
        ActionSpace::MultiDiscrete { sizes } => Actions::MultiDiscrete {
            indices: (0..n).flat_map(|_| sizes).map(|&k| (random.next_u64() % k as u64) as i64).collect(),
            dim: sizes.len(),
        },
        ActionSpace::Box { low, .. } => Actions::Continuous {
            values: (0..n * low.len()).map(|_| random.next_u32() as f32 / u32::MAX as f32 * 4.0 - 2.0).collect(),
            dim: low.len(),
        },
    }
}
