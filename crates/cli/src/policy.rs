//! The trained policy of a run, for a user's program.

use crate::commands::agent::Agent;
use crate::{Registry, paths};
use playfield_core::frame_stack::stack;
use playfield_core::{
    Action, Actions, EnvFactory as _, EnvSpec, Error, Mode, Normalizer, Obs, ObsRef, Policy, Result, rng,
};
use std::collections::VecDeque;
use std::path::Path;

/// A trained policy that acts in one environment. It normalizes and stacks observations as in training, and maps continuous actions to
/// their bounds. See [`Registry::load_policy`].
pub struct TrainedPolicy {
    policy: Box<dyn Policy>,
    spec: EnvSpec,
    step: u64,
    normalizer: Option<Normalizer>,
    /// The last frames of the episode, oldest first.
    frames: VecDeque<Obs>,
    obs: Obs,
    actions: Actions,
    mode: Mode,
}

impl TrainedPolicy {
    pub(crate) fn load(registry: &Registry, run: &Path, best: bool) -> Result<Self> {
        paths::store_start()?;
        let agent = Agent::open(registry, &paths::absolute(run), None, best)?;
        let spec = agent.factory.spec().clone();
        let mut policy = agent.policy(0, "actions")?;
        policy.begin(1);
        Ok(Self {
            policy,
            step: agent.snapshot.step,
            normalizer: agent.normalizer()?,
            frames: VecDeque::new(),
            obs: Obs::zeros(spec.dtype, spec.obs_len()),
            actions: Actions::zeros(&spec.actions, 1),
            mode: Mode::Greedy,
            spec,
        })
    }

    /// Samples actions as in training (ε-greedily for Q-networks), with random numbers from `seed`. Without this call actions are greedy.
    #[must_use]
    pub fn sampling(mut self, seed: u64) -> Self {
        self.policy.seed(rng::derive(seed, "actions", 0));
        Self { mode: Mode::Sample, ..self }
    }

    /// The spaces of the environment that it was trained in.
    pub fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    /// The agent steps that it was trained for.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Begins an episode: discards stacked frames and resets the recurrent state.
    pub fn begin_episode(&mut self) {
        self.frames.clear();
        self.policy.begin(1);
    }

    /// The action for `obs`, the newest frame or vector of the environment, with the preprocessing inside an environment
    /// (frame skip, gray, size) and without that of a batch (stacking, normalization). Continuous actions are within the bounds.
    ///
    /// # Errors
    /// [`Error::Config`] for an observation of another type or size than [`spec`](Self::spec) says; where the network fails.
    pub fn act(&mut self, obs: ObsRef<'_>) -> Result<Action<'_>> {
        self.act_masked(obs, &[])
    }

    /// The same among the actions that `action_mask` states as valid
    /// ([`StepBatch::action_mask`](playfield_core::StepBatch::action_mask)); empty: all.
    ///
    /// # Errors
    /// As [`act`](Self::act).
    pub fn act_masked(&mut self, obs: ObsRef<'_>, action_mask: &[bool]) -> Result<Action<'_>> {
        let mut frame = obs.to_obs();
        if (frame.dtype(), frame.len()) != (self.spec.dtype, self.spec.frame_len()) {
            let Self { spec: EnvSpec { id, shape, dtype, .. }, .. } = self;
            return Err(Error::config(format!(
                "an observation of {} elements of {:?}, and {id} observes {shape:?} of {dtype:?}",
                frame.len(),
                frame.dtype()
            )));
        }
        if let (Some(normalizer), Obs::F32(values)) = (&self.normalizer, &mut frame) {
            normalizer.observations(values, 1);
        }
        self.frames.push_back(frame);
        if self.frames.len() > self.spec.frame_stack {
            self.frames.pop_front();
        }
        let frames: Vec<_> = self.frames.iter().map(Obs::as_ref).collect();
        stack(&frames, self.spec.frame_stack, self.obs.as_mut());
        self.policy.act(&self.obs, action_mask, self.mode, &mut self.actions)?;
        if let Actions::Continuous { values, .. } = &mut self.actions {
            self.spec.actions.to_bounds(values);
        }
        Ok(self.actions.row(0))
    }
}
