//! What the environments of this crate share.

use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, EnvSpec, Error, Result, State};
use rand::RngExt;
use serde::de::DeserializeOwned;

/// The spec of an environment of this crate, without history.
pub(crate) fn spec(id: &str, shape: &[usize], dtype: Dtype, actions: ActionSpace, names: &[&str]) -> EnvSpec {
    let action_names = names.iter().map(ToString::to_string).collect();
    EnvSpec { id: id.into(), shape: shape.to_vec(), dtype, frame_stack: 1, actions, action_names }
}

/// A new generator from `seed`; without a seed the old one goes on.
pub(crate) fn reseed(rng: &mut Rng, seed: Option<u64>) {
    if let Some(seed) = seed {
        *rng = rng::stream(seed, "game");
    }
}

/// A number from `low` (included) to `high` (excluded), all equally likely.
pub(crate) fn uniform(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// A discrete action of `spec`.
pub(crate) fn discrete(spec: &EnvSpec, action: Action<'_>) -> Result<usize> {
    match (action, action.check(&spec.actions)) {
        (Action::Discrete(a), Ok(())) => Ok(a),
        _ => Err(wrong(spec, action)),
    }
}

/// A continuous action of one number, inside the bounds of `spec`.
pub(crate) fn continuous(spec: &EnvSpec, action: Action<'_>) -> Result<f32> {
    match (action, action.check(&spec.actions)) {
        (Action::Continuous(&[a]), Ok(())) => Ok(a),
        _ => Err(wrong(spec, action)),
    }
}

fn wrong(spec: &EnvSpec, action: Action<'_>) -> Error {
    Error::env(&spec.id, format!("{action:?} is no action of {:?}", spec.actions))
}

/// What `save_state` made of a `T`.
pub(crate) fn restore<T: DeserializeOwned>(spec: &EnvSpec, state: &State) -> Result<T> {
    T::deserialize(state).map_err(|e| Error::env(&spec.id, format!("the saved state is not one of this game: {e}")))
}
