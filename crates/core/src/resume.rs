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
/// get new seeds, a replay buffer is empty, and what a rank has kept of its gradients is dropped. What the policy has learned, the steps and
/// the running statistics continue.
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
    let of_rank = |name: &str| ["replay.", "priorities.", "exchange."].iter().any(|prefix| name.starts_with(prefix));
    snapshot.state.retain(|name, _| !of_environments(name) && !of_rank(name));
    snapshot.arrays.retain(|name, _| !of_environments(name) && !of_rank(name));
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
    use crate::group::tests::Rank;
    use crate::{Actions, EnvSpec, Obs, State, StepBatch};

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

    /// Environments with a state (or, with `None`, without one), which restore it and their statistics.
    struct Envs {
        spec: EnvSpec,
        state: Option<u64>,
        statistics: u64,
    }

    impl Envs {
        fn new(state: Option<u64>, statistics: u64) -> Self {
            let spec = EnvSpec::new("t", &[1], crate::Dtype::U8, crate::ActionSpace::Discrete { n: 2 });
            Self { spec: spec.with_action_mask(), state, statistics }
        }
    }

    impl VecEnv for Envs {
        fn spec(&self) -> &EnvSpec {
            &self.spec
        }
        fn num_envs(&self) -> usize {
            2
        }
        fn reset(&mut self, _: &mut StepBatch) -> Result<()> {
            Ok(())
        }
        fn send(&mut self, _: &Actions) -> Result<()> {
            Ok(())
        }
        fn recv(&mut self, _: &mut StepBatch) -> Result<()> {
            Ok(())
        }
        fn save_state(&mut self) -> Result<Option<State>> {
            Ok(self.state.map(State::from))
        }
        fn load_state(&mut self, state: &State) -> Result<()> {
            self.state = state.as_u64();
            Ok(())
        }
        fn save_statistics(&self) -> Option<State> {
            Some(self.statistics.into())
        }
        fn load_statistics(&mut self, statistics: &State, _: bool) -> Result<()> {
            self.statistics = statistics.as_u64().unwrap();
            Ok(())
        }
    }

    #[test]
    fn environments_are_restored_with_their_observations_and_masks() {
        let mut saved = Envs::new(Some(5), 6);
        let mut history = FrameStack::new(&saved.spec, 2);
        history.restore(Obs::U8(vec![3, 4]).as_ref(), &[true, false, false, true]);
        let mut snapshot = Snapshot::default();
        save_environments("a.", &mut saved, &history, &mut snapshot);

        let (mut envs, mut restored) = (Envs::new(Some(0), 0), FrameStack::new(&saved.spec, 2));
        assert!(restore_environments("a.", &mut envs, &mut restored, &snapshot).unwrap());
        assert_eq!((envs.state, restored.observations()), (Some(5), history.observations()));
        assert_eq!(restored.action_mask(), history.action_mask());
        assert!(restore_environments("b.", &mut envs, &mut restored, &snapshot).is_err(), "another scope");

        // Another length, and a row without a valid action.
        for mask in [vec![true; 3], vec![true, true, false, false]] {
            snapshot.put("a.env.action_mask", &mask);
            let message = restore_environments("a.", &mut envs, &mut restored, &snapshot).unwrap_err().to_string();
            assert!(message.contains("of another action space"), "{message}");
        }
        snapshot.arrays.insert("a.observations".into(), Array::new(&[1], &[1_u8]));
        let message = restore_environments("a.", &mut envs, &mut restored, &snapshot).unwrap_err().to_string();
        assert!(message.contains("of another shape"), "{message}");
    }

    #[test]
    fn environments_without_a_state_keep_their_statistics() {
        let (mut saved, mut snapshot) = (Envs::new(None, 6), Snapshot::default());
        let mut history = FrameStack::new(&saved.spec, 2);
        save_environments("", &mut saved, &history, &mut snapshot);
        let mut envs = Envs::new(Some(0), 0);
        assert!(!restore_environments("", &mut envs, &mut history, &snapshot).unwrap());
        assert_eq!((envs.state, envs.statistics), (Some(0), 6));
        assert_eq!(snapshot.state.keys().collect::<Vec<_>>(), ["env.statistics"]);
        // Without action masks none are saved.
        let plain = FrameStack::new(&EnvSpec { action_mask: false, ..saved.spec.clone() }, 2);
        save_environments("", &mut Envs::new(Some(1), 1), &plain, &mut snapshot);
        assert!(snapshot.state.contains_key("env.state") && !snapshot.state.contains_key("env.action_mask"));
    }

    /// With as many ranks as before each gets its part; with another number only what does not belong to environments.
    #[test]
    fn a_rank_resumes_from_its_own_part() {
        let snapshot_of = |name: &str| {
            let mut snapshot = Snapshot { step: 9, ..Snapshot::default() };
            for key in ["env.state", "env.action_mask", "replay.rings", "priorities.largest", "statistics"] {
                snapshot.put(key, &name);
            }
            snapshot.put("actor.rng", &rng::stream(1, name));
            for key in ["observations", "replay.flags", "priorities.items", "exchange.error.w", "optimizer.m"] {
                snapshot.arrays.insert(key.into(), Array::new(&[1], &[name.len() as u64]));
            }
            snapshot
        };
        let (zero, one) = (snapshot_of("rank 0"), snapshot_of("another").own_part());
        let parts = [one.clone()];
        assert_eq!(snapshot_of_rank(zero.clone(), &parts, &Rank(0, 2), 7), zero);
        let of_one = snapshot_of_rank(zero.clone(), &parts, &Rank(1, 2), 7);
        assert_eq!((&of_one.state, &of_one.arrays["optimizer.m"]), (&one.state, &zero.arrays["optimizer.m"]));

        for parts in [&[][..], &[one.clone(), one]] {
            let [first, second] = [0, 1].map(|rank| snapshot_of_rank(zero.clone(), parts, &Rank(rank, 2), 7));
            assert_eq!(first.state.keys().collect::<Vec<_>>(), ["actor.rng", "statistics"]);
            assert_eq!(first.arrays.keys().collect::<Vec<_>>(), ["optimizer.m"]);
            let streams = [&zero, &first, &second].map(|snapshot| snapshot.state["actor.rng"].clone());
            assert!(streams[0] != streams[1] && streams[0] != streams[2] && streams[1] != streams[2]);
        }
    }
}
