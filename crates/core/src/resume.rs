//! Environments in checkpoints: their complete state if they can save it, else only the statistics of the wrappers.

use crate::{Array, Error, FrameStack, Group, Result, Snapshot, VecEnv, rng};
use rand::SeedableRng as _;

/// The seeds of `n` environments in a run with seed `seed`. In a resumed run whose environments could not be saved, the seeds also
/// depend on the step, so the environments do not repeat their initial random streams.
pub fn environment_seeds(seed: u64, n: usize, resumed: Option<&Snapshot>) -> Vec<u64> {
    let seed = resumed.map_or(seed, |snapshot| rng::derive(seed, "resumed", snapshot.step));
    rng::seeds(seed, "env", n)
}

/// Saves the statistics of the wrappers and, if the environments support it, their state with the current observations. If an
/// environment has failed, only the statistics are saved. All names begin with `scope`.
pub fn save_environments(scope: &str, env: &mut dyn VecEnv, history: &FrameStack, snapshot: &mut Snapshot) {
    let name = |name| format!("{scope}{name}");
    snapshot.put(&name("env.statistics"), &env.save_statistics());
    if let Ok(Some(state)) = env.save_state() {
        snapshot.put(&name("env.state"), &state);
        snapshot.arrays.insert(name("observations"), Array::from_obs(history.observations()));
        if !history.action_mask().is_empty() {
            snapshot.put(&name("env.action_mask"), &history.action_mask());
        }
    }
}

/// Restores the environments from `snapshot` and returns true. If their state was not saved, restores only the statistics of the
/// wrappers and returns false: the caller starts new episodes, and the unfinished ones are lost.
///
/// # Errors
/// [`Error::Checkpoint`] or [`Error::Env`] if the snapshot is from other environments.
pub fn restore_environments(
    scope: &str,
    env: &mut dyn VecEnv,
    history: &mut FrameStack,
    snapshot: &Snapshot,
) -> Result<bool> {
    let name = |name| format!("{scope}{name}");
    let Some(state) = snapshot.state.get(&name("env.state")) else {
        env.load_statistics(&snapshot.get(&name("env.statistics"))?, false)?;
        return Ok(false);
    };
    env.load_state(state)?;
    let observations = snapshot.array(&name("observations"))?.to_obs(history.dtype(), history.observations().len());
    let observations = observations.ok_or_else(|| Error::checkpoint("observations", "of another shape"))?;
    let action_mask: Vec<bool> = match history.action_mask() {
        [] => Vec::new(),
        current => {
            let saved: Vec<bool> = snapshot.get(&name("env.action_mask"))?;
            // Every environment has a valid action.
            let rows = |saved: &[bool]| saved.chunks(current.len() / env.num_envs()).all(|row| row.contains(&true));
            Some(saved)
                .filter(|saved| saved.len() == current.len() && rows(saved))
                .ok_or_else(|| Error::checkpoint("env.action_mask", "of another action space"))?
        }
    };
    history.restore(observations.as_ref(), &action_mask);
    Ok(true)
}

/// The snapshot from which a rank of `group` resumes: that of rank 0, `snapshot`, with the rank's own part.
///
/// Where the run was saved with another number of ranks, the result is not exact: the environments start new episodes, random streams
/// get new seeds, and a replay buffer is empty. What the policy has learned, the steps and the running statistics continue.
pub fn snapshot_of_rank(snapshot: Snapshot, parts: &[Snapshot], group: &dyn Group, seed: u64) -> Snapshot {
    if parts.len() + 1 == group.world_size() {
        return match group.rank() {
            0 => snapshot,
            rank => snapshot.with_part(&parts[rank - 1]),
        };
    }
    let mut snapshot = snapshot;
    let of_environments =
        |name: &str| ["env.state", "env.action_mask", "observations"].iter().any(|suffix| name.ends_with(suffix));
    let of_replay = |name: &str| name.starts_with("replay.") || name.starts_with("priorities.");
    snapshot.state.retain(|name, _| !of_environments(name) && !of_replay(name));
    snapshot.arrays.retain(|name, _| !of_environments(name) && !of_replay(name));
    let streams: Vec<String> = snapshot.state.keys().filter(|name| name.ends_with("rng")).cloned().collect();
    for name in streams {
        let stream = rng::Rng::seed_from_u64(rng::derive(group.seed(seed), &name, snapshot.step));
        snapshot.put(&name, &stream);
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seeds of a new run depend only on its seed; those of a resumed run differ and depend on the step.
    #[test]
    fn a_resumed_run_has_new_random_streams() {
        let at = |step| environment_seeds(7, 3, Some(&Snapshot { step, ..Snapshot::default() }));
        let fresh = environment_seeds(7, 3, None);
        assert_eq!(fresh, rng::seeds(7, "env", 3));
        assert_eq!(at(100), at(100));
        for (a, b) in [(&fresh, at(100)), (&at(100), at(200))] {
            assert!(a.iter().all(|seed| !b.contains(seed)));
        }
    }
}
