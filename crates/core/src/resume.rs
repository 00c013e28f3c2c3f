//! Environments in a checkpoint: exactly where they can save their state, else only what wrappers learnt.

use crate::{Array, Error, History, Result, Snapshot, VecEnv};

/// Writes the environments' state, where they can save it, with the current observations; and what wrappers learnt.
///
/// # Errors
/// Where an environment fails.
pub fn save_environments(env: &mut dyn VecEnv, history: &History, snapshot: &mut Snapshot) -> Result<()> {
    snapshot.put("env.statistics", &env.save_statistics());
    if let Some(state) = env.save_state()? {
        snapshot.put("env.state", &state);
        snapshot.arrays.insert("observations".into(), Array::from_obs(history.observations()));
    }
    Ok(())
}

/// Puts the environments where `snapshot` left them and returns true. Where they could not be saved, only what wrappers
/// learnt comes back and the answer is false: the caller starts new episodes, and the running ones are cut.
///
/// # Errors
/// [`Error::Checkpoint`] or [`Error::Env`] where the snapshot is of other environments.
pub fn restore_environments(env: &mut dyn VecEnv, history: &mut History, snapshot: &Snapshot) -> Result<bool> {
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
