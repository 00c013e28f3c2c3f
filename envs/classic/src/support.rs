//! Functions shared by the environments of this crate.

use playfield_core::rng::{self, Rng};
use playfield_core::{Action, EnvSpec, Error, Result, State};
use rand::RngExt;
use serde::de::DeserializeOwned;

/// Reseeds `rng`, if there is a seed.
pub(crate) fn reseed(rng: &mut Rng, seed: Option<u64>) {
    if let Some(seed) = seed {
        *rng = rng::stream(seed, "game");
    }
}

/// A sample of the uniform distribution on [low, high).
pub(crate) fn uniform(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// The index of a discrete action, checked against the action space.
pub(crate) fn discrete(spec: &EnvSpec, action: Action<'_>) -> Result<usize> {
    match (action, action.check(&spec.actions)) {
        (Action::Discrete(a), Ok(())) => Ok(a),
        _ => Err(wrong(spec, action)),
    }
}

/// The index of each component of a discrete or multi-discrete action, checked against the action space.
pub(crate) fn indices(spec: &EnvSpec, action: Action<'_>) -> Result<Vec<i64>> {
    match (action, action.check(&spec.actions)) {
        (Action::Discrete(a), Ok(())) => Ok(vec![a as i64]),
        (Action::MultiDiscrete(indices), Ok(())) => Ok(indices.to_vec()),
        _ => Err(wrong(spec, action)),
    }
}

/// A continuous action of one dimension, checked against the action space.
pub(crate) fn continuous(spec: &EnvSpec, action: Action<'_>) -> Result<f32> {
    match (action, action.check(&spec.actions)) {
        (Action::Continuous(&[a]), Ok(())) => Ok(a),
        _ => Err(wrong(spec, action)),
    }
}

fn wrong(spec: &EnvSpec, action: Action<'_>) -> Error {
    Error::env(&spec.id, format!("{action:?} is not in the action space {:?}", spec.actions))
}

/// Deserializes a state saved by `save_state`.
pub(crate) fn restore<T: DeserializeOwned>(spec: &EnvSpec, state: &State) -> Result<T> {
    T::deserialize(state)
        .map_err(|e| Error::env(&spec.id, format!("the saved state is not one of this environment: {e}")))
}
