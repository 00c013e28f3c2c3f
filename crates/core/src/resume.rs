//! Environments in a checkpoint: exactly where they can save their state, else only what wrappers learned.

use crate::{Array, Error, FrameStack, Result, Snapshot, VecEnv, rng};

/// The seeds of `n` environments of a run with seed `seed`. A resumed run's environments, where their state could not be
/// saved, get new random streams, derived from the step as well: they do not repeat those that the run began with.
pub fn environment_seeds(seed: u64, n: usize, resumed: Option<&Snapshot>) -> Vec<u64> {
    let seed = resumed.map_or(seed, |snapshot| rng::derive(seed, "resumed", snapshot.step));
    rng::seeds(seed, "env", n)
}

/// Writes the environments' state, where they can save it, with the current observations; and what wrappers learned. An
/// environment that has failed has no state: what was learned is worth saving without it.
pub fn save_environments(env: &mut dyn VecEnv, history: &FrameStack, snapshot: &mut Snapshot) {
    snapshot.put("env.statistics", &env.save_statistics());
    if let Ok(Some(state)) = env.save_state() {
        snapshot.put("env.state", &state);
        snapshot.arrays.insert("observations".into(), Array::from_obs(history.observations()));
    }
}

/// Puts the environments where `snapshot` left them and returns true. Where they could not be saved, only what wrappers
/// learned comes back and the answer is false: the caller starts new episodes, and the running ones are cut.
///
/// # Errors
/// [`Error::Checkpoint`] or [`Error::Env`] where the snapshot is of other environments.
pub fn restore_environments(env: &mut dyn VecEnv, history: &mut FrameStack, snapshot: &Snapshot) -> Result<bool> {
    let Some(state) = snapshot.state.get("env.state") else {
        env.load_statistics(&snapshot.get("env.statistics")?, false)?;
        return Ok(false);
    };
    env.load_state(state)?;
    let observations = snapshot.array("observations")?.to_obs(history.dtype(), history.observations().len());
    let observations = observations.ok_or_else(|| Error::checkpoint("observations", "of another shape"))?;
    history.restore(observations.as_ref());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seeds of a fresh run are its seed's; of a resumed one they are others, another set for each step, the same again for
    /// the same step.
    #[test]
    fn a_resumed_run_draws_new_random_streams() {
        let at = |step| environment_seeds(7, 3, Some(&Snapshot { step, ..Snapshot::default() }));
        let fresh = environment_seeds(7, 3, None);
        assert_eq!(fresh, rng::seeds(7, "env", 3));
        assert_eq!(at(100), at(100));
        for (a, b) in [(&fresh, at(100)), (&at(100), at(200))] {
            assert!(a.iter().all(|seed| !b.contains(seed)));
        }
    }
}
