//! What the tests share: Python with `tests/python` importable, and actions from a fixed stream.
#![allow(dead_code, reason = "each test program uses a part")]

use playfield_core::{ActionSpace, Actions, EnvConfig, EnvSource, EnvSpec, rng};
use pyo3::prelude::*;
use rand::Rng as _;

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

/// `n` random actions; continuous ones reach a little beyond ±2.
pub fn draw(spec: &EnvSpec, n: usize, random: &mut rng::Rng) -> Actions {
    match &spec.actions {
        ActionSpace::Discrete { n: k } => {
            Actions::Discrete((0..n).map(|_| (random.next_u64() % *k as u64) as i64).collect())
        }
        ActionSpace::Box { low, .. } => Actions::Continuous {
            values: (0..n * low.len()).map(|_| random.next_u32() as f32 / u32::MAX as f32 * 5.0 - 2.5).collect(),
            dim: low.len(),
        },
    }
}
