//! Storage for on-policy experience: a few steps of n environments, time first.
//!
//! ```text
//! observations    s₀   s₁   s₂  …  s_T     one more than steps: s_T bootstraps the returns
//! actions            a₀   a₁  …            with their log-probabilities, and the values of s₀, s₁ …
//! rewards            r₁   r₂  …            with the discount of the next value: γ, or 0 at the end of an episode
//! episode starts  no   …                   whether an observation is the first of its episode
//! ```

use crate::rng::Rng;
use crate::text::thousands;
use crate::{ActionSpace, Actions, Dtype, EnvSpec, FrameStack, Obs, ObsRef, Result, StepBatch, memory};
use rand::seq::SliceRandom as _;

/// `steps × envs` transitions, time first, and the observations after them.
#[derive(Debug)]
pub struct Rollout {
    obs: Obs,
    actions: Actions,
    log_probs: Vec<f32>,
    values: Vec<f32>,
    rewards: Vec<f32>,
    discounts: Vec<f32>,
    final_values: Vec<f32>,
    /// One per observation.
    episode_starts: Vec<bool>,
    /// One per transition.
    forced: Vec<bool>,
    /// One per stored step: see [`StepBatch::ignored`].
    ignored: Vec<bool>,
    /// One row per observation; empty where every action is valid.
    action_masks: Vec<bool>,
    mask_len: usize,
    envs: usize,
    obs_len: usize,
    gamma: f32,
    /// How many steps of each environment are stored.
    stored: Vec<usize>,
}

/// Storage for the log-probabilities and values of the next actions of a [`Rollout`], written by the policy.
pub struct Decisions<'a> {
    /// The log-probability of each action, `[envs]`.
    pub log_probs: &'a mut [f32],
    /// The estimated value of each observation, `[envs]`.
    pub values: &'a mut [f32],
}

impl Rollout {
    /// An empty rollout for `steps` steps of `envs` environments of `spec`, with discount `gamma` per step.
    pub fn new(spec: &EnvSpec, envs: usize, steps: usize, gamma: f64) -> Self {
        let transitions = envs * steps;
        let zeros = || vec![0.0; transitions];
        Self {
            obs: Obs::zeros(spec.dtype, (transitions + envs) * spec.obs_len()),
            actions: Actions::zeros(&spec.actions, transitions),
            log_probs: zeros(),
            values: zeros(),
            rewards: zeros(),
            discounts: zeros(),
            final_values: zeros(),
            episode_starts: vec![false; transitions + envs],
            forced: vec![false; transitions],
            ignored: vec![false; transitions],
            action_masks: vec![true; (transitions + envs) * spec.mask_len()],
            mask_len: spec.mask_len(),
            envs,
            obs_len: spec.obs_len(),
            gamma: gamma as f32,
            stored: vec![0; envs],
        }
    }

    /// Checks that the machine has the memory of such a rollout.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the keys to lower.
    pub fn check_memory(spec: &EnvSpec, envs: usize, steps: usize) -> Result<()> {
        let element = match spec.dtype {
            Dtype::U8 => 1,
            Dtype::F32 => 4,
        };
        // Beside the observation: action, log-probability, two values, reward, discount, three flags, mask.
        let action = match &spec.actions {
            ActionSpace::Box { low, .. } => 4 * low.len(),
            discrete => 8 * discrete.sizes().len(),
        };
        let transition = element * spec.obs_len() + action + 23 + spec.mask_len();
        let bytes = (transition as u64).saturating_mul(envs as u64).saturating_mul(steps as u64 + 1);
        let what = format!("a rollout of {} steps of {envs} environments", thousands(steps as u64));
        memory::require(&what, bytes, "lower `rollout_steps` or `env.num_envs`")
    }

    /// Removes all transitions.
    pub fn clear(&mut self) {
        self.stored.fill(0);
        self.episode_starts.fill(false);
    }

    /// Whether all steps are stored.
    pub fn is_full(&self) -> bool {
        self.stored.iter().all(|&steps| steps == self.steps())
    }

    /// The number of environments.
    pub fn envs(&self) -> usize {
        self.envs
    }

    /// The number of steps of each environment.
    pub fn steps(&self) -> usize {
        self.len() / self.envs
    }

    /// The number of transitions of a full rollout.
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether it holds no transition.
    pub fn is_empty(&self) -> bool {
        self.stored.iter().all(|&steps| steps == 0)
    }

    /// Stores the observations of the next actions, and which of these are valid; in a full rollout, those after the last step.
    /// `frames` are of the environments from `env`.
    pub fn store_observations(&mut self, env: usize, frames: &FrameStack) {
        let (first, obs, mask) = (self.row(env), frames.observations(), frames.action_mask());
        self.obs.slice_mut(first * self.obs_len, obs.len()).copy_from(obs.as_ref());
        self.action_masks[first * self.mask_len..][..mask.len()].copy_from_slice(mask);
    }

    /// The storage for log-probabilities and values of the next actions of `n` environments from `env`.
    pub fn decisions(&mut self, env: usize, n: usize) -> Decisions<'_> {
        let first = self.row(env);
        Decisions { log_probs: &mut self.log_probs[first..][..n], values: &mut self.values[first..][..n] }
    }

    /// Stores `actions` and the step that followed them, of the environments from `env`. `final_value(i)` estimates the value of the
    /// final observation of an episode that was truncated in row `i` of `batch`.
    ///
    /// # Panics
    /// If the actions are from another space or the rollout is full.
    pub fn record(
        &mut self,
        env: usize,
        actions: &Actions,
        batch: &StepBatch,
        mut final_value: impl FnMut(usize) -> f32,
    ) {
        let (n, first) = (batch.num_envs(), self.row(env));
        self.actions.copy_rows(first, actions, 0..n);
        if let Actions::Discrete(stored) = &mut self.actions {
            for (stored, forced) in stored[first..first + n].iter_mut().zip(&batch.forced) {
                *stored = forced.unwrap_or(*stored);
            }
        }
        for i in 0..n {
            let truncated = batch.truncated[i] && !batch.terminated[i];
            let ends = batch.terminated[i] || batch.life_lost[i] || truncated || batch.ignored[i];
            self.rewards[first + i] = batch.reward[i];
            self.discounts[first + i] = if ends { 0.0 } else { self.gamma };
            self.final_values[first + i] = if truncated { final_value(i) } else { 0.0 };
            self.episode_starts[first + self.envs + i] = batch.done(i) || batch.ignored[i];
            self.forced[first + i] = batch.forced[i].is_some();
            self.ignored[first + i] = batch.ignored[i];
        }
        self.stored[env..env + n].iter_mut().for_each(|steps| *steps += 1);
    }

    /// Where the next step of environment `env` is stored.
    fn row(&self, env: usize) -> usize {
        self.stored[env] * self.envs + env
    }

    /// Elements of an observation.
    pub fn obs_len(&self) -> usize {
        self.obs_len
    }

    /// The observations that actions were selected for, `[steps · envs]`.
    pub fn observations(&self) -> ObsRef<'_> {
        self.obs.slice(0, self.len() * self.obs_len)
    }

    /// The observations that followed them, `[steps · envs]`; at the end of an episode, the first of the next one.
    pub fn next_observations(&self) -> ObsRef<'_> {
        self.obs.slice(self.envs * self.obs_len, self.len() * self.obs_len)
    }

    /// The observations after the last step, `[envs]`.
    pub fn last_observations(&self) -> ObsRef<'_> {
        self.obs.slice(self.len() * self.obs_len, self.envs * self.obs_len)
    }

    /// Whether each action was valid at these observations, `[steps · envs, choices]`; empty where every action is.
    pub fn action_masks(&self) -> &[bool] {
        &self.action_masks[..self.len() * self.mask_len]
    }

    /// The same at the [next observations](Self::next_observations), `[steps · envs, choices]`.
    pub fn next_action_masks(&self) -> &[bool] {
        &self.action_masks[self.envs * self.mask_len..]
    }

    /// The same at the [last observations](Self::last_observations), `[envs, choices]`.
    pub fn last_action_masks(&self) -> &[bool] {
        &self.action_masks[self.len() * self.mask_len..]
    }

    /// The actions that were executed, `[steps · envs]`.
    pub fn actions(&self) -> &Actions {
        &self.actions
    }

    /// The log-probability that the policy gave each action when it was sampled, `[steps · envs]`.
    pub fn log_probs(&self) -> &[f32] {
        &self.log_probs
    }

    /// The value that the policy estimated for each observation when it acted, `[steps · envs]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Rewards, `[steps · envs]`.
    pub fn rewards(&self) -> &[f32] {
        &self.rewards
    }

    /// The estimated value of the final observation of each truncated episode, 0 elsewhere, `[steps · envs]`.
    pub fn final_values(&self) -> &[f32] {
        &self.final_values
    }

    /// Rewards for computing returns, `[steps · envs]`: at a truncation γ times the value of the final observation is added (Pardo
    /// et al. 2018, *Time Limits in Reinforcement Learning*, equation 4).
    pub fn bootstrapped_rewards(&self) -> Vec<f32> {
        self.rewards.iter().zip(&self.final_values).map(|(r, v)| r + self.gamma * v).collect()
    }

    /// The factor of the next observation's value, `[steps · envs]`: γ, or 0 at the end of an episode.
    pub fn discounts(&self) -> &[f32] {
        &self.discounts
    }

    /// Whether a wrapper replaced the policy's action, `[steps · envs]`. Such an action was not sampled from the policy, so the
    /// policy gradient must exclude it; its reward and value are used normally.
    pub fn forced(&self) -> &[bool] {
        &self.forced
    }

    /// The indices of the transitions, in order, where some environment ignored its action ([`StepBatch::ignored`]): losses are computed
    /// on these alone. `None` where every stored step is a transition.
    pub fn transitions(&self) -> Option<Vec<usize>> {
        self.ignored.contains(&true).then(|| (0..self.len()).filter(|&i| !self.ignored[i]).collect())
    }

    /// Whether the stored step `i` is a transition: see [`transitions`](Self::transitions).
    pub fn is_transition(&self, i: usize) -> bool {
        !self.ignored[i]
    }

    /// Whether each of [`observations`](Self::observations) is the first after an episode that ended *inside* this rollout. The
    /// policy provides the recurrent state at the start of the rollout.
    pub fn episode_starts(&self) -> &[bool] {
        &self.episode_starts[..self.len()]
    }

    /// A random partition of the transitions into minibatches of `size`; the last is smaller where `size` does not divide
    /// their number. The indices of transitions in each are sorted by environment and step: neighboring frames have more windows in common, so that
    /// kernels compute less.
    pub fn minibatches(&self, size: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
        let mut order = shuffled(self.len(), rng);
        order.retain(|&i| self.is_transition(i));
        let sorted = |minibatch: &mut [usize]| {
            minibatch.sort_unstable_by_key(|i| (i % self.envs, i / self.envs));
            minibatch.to_vec()
        };
        order.chunks_mut(size).map(sorted).collect()
    }

    /// A random partition of the *environments* into minibatches of about `size` transitions. A minibatch contains all steps of its
    /// environments, time first, so that a recurrent network can process sequences; it has at least one environment. It may contain
    /// steps that are no [transitions](Self::is_transition).
    pub fn sequence_minibatches(&self, size: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
        let envs_per_minibatch = (size / self.steps()).max(1);
        let envs = shuffled(self.envs, rng);
        let indices =
            |envs: &[usize]| (0..self.steps()).flat_map(|t| envs.iter().map(move |i| t * self.envs + i)).collect();
        envs.chunks(envs_per_minibatch).map(indices).collect()
    }

    /// The actions of the steps `indices`.
    pub fn gather_actions(&self, indices: &[usize]) -> Actions {
        self.actions.select(indices)
    }

    /// The action masks of the steps `indices`, `[indices, choices]`; empty where every action is valid.
    pub fn gather_action_masks(&self, indices: &[usize]) -> Vec<bool> {
        let row = |&i: &usize| &self.action_masks[i * self.mask_len..(i + 1) * self.mask_len];
        indices.iter().flat_map(row).copied().collect()
    }
}

fn shuffled(n: usize, rng: &mut Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Step, rng};

    const ENVS: usize = 3;

    fn spec() -> EnvSpec {
        let actions = ActionSpace::Discrete { n: 3 };
        EnvSpec::new("test", &[1], Dtype::F32, actions)
    }

    /// γ = .9 and V(final) = 5. Environment 0 terminates at step 1. Environment 1 is truncated at step 1: r + γV = 2 + 4.5.
    /// Environment 2 loses a life at step 0, and at step 1 terminates and is truncated: no bootstrap.
    #[test]
    fn only_a_truncation_bootstraps_from_the_final_observation() {
        let (spec, actions) = (spec(), Actions::Discrete(vec![0; ENVS]));
        let (mut rollout, mut batch) = (Rollout::new(&spec, ENVS, 2, 0.9), StepBatch::new(&spec, ENVS));
        let (mut frames, mut bootstrapped) = (FrameStack::new(&spec, ENVS), Vec::new());
        for t in 0..2 {
            batch.clear();
            batch.obs = Obs::F32((0..3).map(|i| (10 * t + i) as f32).collect());
            batch.reward.fill(1.0 + t as f32);
            batch.life_lost[2] = t == 0;
            batch.terminated = vec![t == 1, false, t == 1];
            batch.truncated = vec![false, t == 1, t == 1];
            frames.push(&batch);
            rollout.store_observations(0, &frames);
            rollout.record(0, &actions, &batch, |i| {
                bootstrapped.push(i);
                5.0
            });
        }
        batch.obs = Obs::F32(vec![20.0, 21.0, 22.0]);
        frames.push(&batch);
        rollout.store_observations(0, &frames);
        assert_eq!(rollout.bootstrapped_rewards(), [1.0, 1.0, 1.0, 2.0, 6.5, 2.0]);
        assert_eq!(rollout.discounts(), [0.9, 0.9, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(rollout.rewards(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(rollout.final_values(), [0.0, 0.0, 0.0, 0.0, 5.0, 0.0]);
        assert_eq!(bootstrapped, [1]);
        assert!(rollout.is_full());
        assert_eq!(rollout.observations(), ObsRef::F32(&[0.0, 1.0, 2.0, 10.0, 11.0, 12.0]));
        assert_eq!(rollout.next_observations(), ObsRef::F32(&[10.0, 11.0, 12.0, 20.0, 21.0, 22.0]));
        assert_eq!(rollout.last_observations(), ObsRef::F32(&[20.0, 21.0, 22.0]));
    }

    /// A life is lost in the same step as the truncation: the return bootstraps.
    #[test]
    fn a_truncation_with_a_lost_life_bootstraps() {
        let (spec, actions) = (spec(), Actions::Discrete(vec![0; ENVS]));
        let (mut rollout, mut batch) = (Rollout::new(&spec, ENVS, 1, 0.5), StepBatch::new(&spec, ENVS));
        let step = Step { reward: 1.0, truncated: true, life_lost: true, terminated: false };
        batch.set(0, step);
        batch.set(1, Step { terminated: true, ..step });
        batch.set(2, Step { truncated: false, ..step });
        rollout.record(0, &actions, &batch, |_| 8.0);
        assert_eq!((rollout.bootstrapped_rewards(), rollout.discounts()), (vec![5.0, 1.0, 1.0], [0.0; 3].as_slice()));
    }

    /// The end of an episode resets the recurrent state; a lost life does not.
    #[test]
    fn an_observation_after_an_end_is_an_episode_start() {
        let (spec, actions) = (spec(), Actions::Discrete(vec![0; ENVS]));
        let (mut rollout, mut batch) = (Rollout::new(&spec, ENVS, 2, 0.9), StepBatch::new(&spec, ENVS));
        batch.terminated[0] = true;
        batch.life_lost[1] = true;
        batch.truncated[2] = true;
        rollout.record(0, &actions, &batch, |_| 0.0);
        assert_eq!(rollout.episode_starts(), [false, false, false, true, false, true]);
        rollout.clear();
        assert_eq!(rollout.episode_starts(), [false; 6]);
    }

    /// Next-step autoreset: environment 1 terminates in step 0 and ignores its action in step 1. That step is no transition, the value
    /// of the observation before it is not used, and the one after it starts an episode.
    #[test]
    fn an_ignored_step_is_no_transition() {
        let (spec, actions) = (spec(), Actions::Discrete(vec![0; ENVS]));
        let (mut rollout, mut batch) = (Rollout::new(&spec, ENVS, 3, 0.9), StepBatch::new(&spec, ENVS));
        for t in 0..3 {
            batch.clear();
            batch.reward.fill(1.0);
            batch.terminated[1] = t == 0;
            if t == 1 {
                batch.set_ignored(1);
            }
            rollout.record(0, &actions, &batch, |_| unreachable!("nothing was truncated"));
        }
        let transitions = vec![0, 1, 2, 3, 5, 6, 7, 8];
        assert_eq!(rollout.transitions(), Some(transitions.clone()));
        assert_eq!(rollout.discounts(), [0.9, 0.0, 0.9, 0.9, 0.0, 0.9, 0.9, 0.9, 0.9]);
        assert_eq!((rollout.rewards()[4], batch.transitions()), (0.0, 3));
        assert_eq!(rollout.episode_starts(), [false, false, false, false, true, false, false, true, false]);
        let mut all = rollout.minibatches(3, &mut rng::stream(1, "minibatches")).concat();
        all.sort_unstable();
        assert_eq!(all, transitions);
    }

    /// If a wrapper presses FIRE instead of the policy's action, the rollout stores FIRE and marks the action as replaced.
    #[test]
    fn a_replaced_action_is_recorded_as_replaced() {
        let spec = spec();
        let (mut rollout, mut batch) = (Rollout::new(&spec, ENVS, 1, 0.99), StepBatch::new(&spec, ENVS));
        batch.forced[1] = Some(2);
        rollout.record(0, &Actions::Discrete(vec![0, 0, 1]), &batch, |_| unreachable!("nothing was truncated"));
        assert_eq!(rollout.actions(), &Actions::Discrete(vec![0, 2, 1]));
        assert_eq!(rollout.forced(), [false, true, false]);
    }

    /// Every transition is in exactly one minibatch, for every size, by environment and step; the partition is random and determined by the random
    /// stream.
    #[test]
    fn minibatches_partition_the_rollout() {
        let rollout = Rollout::new(&spec(), ENVS, 5, 0.99);
        for size in [1, 4, 5, 15, 20] {
            let minibatches = rollout.minibatches(size, &mut rng::stream(1, "minibatches"));
            assert!(minibatches.iter().rev().skip(1).all(|m| m.len() == size));
            let by_env: Vec<usize> = (0..ENVS).flat_map(|env| (0..5).map(move |t| t * ENVS + env)).collect();
            let place = |i: &usize| by_env.iter().position(|j| i == j);
            assert!(minibatches.iter().all(|m| m.is_sorted_by_key(place)));
            let mut all = minibatches.concat();
            assert!((size >= 15) == (all == by_env));
            all.sort_by_key(place);
            assert_eq!(all, by_env);
            assert_eq!(minibatches, rollout.minibatches(size, &mut rng::stream(1, "minibatches")));
        }
    }

    /// Five steps of three environments: each minibatch has all steps of its environments, in order.
    #[test]
    fn sequence_minibatches_hold_whole_sequences() {
        let rollout = Rollout::new(&spec(), ENVS, 5, 0.99);
        for (size, envs) in [(3, 1), (5, 1), (10, 2), (15, 3), (100, 3)] {
            let minibatches = rollout.sequence_minibatches(size, &mut rng::stream(1, "minibatches"));
            let mut seen = Vec::new();
            for minibatch in minibatches {
                let n = minibatch.len() / 5;
                assert!(n <= envs && minibatch.len() == 5 * n);
                seen.extend_from_slice(&minibatch[..n]);
                for (t, row) in minibatch.chunks(n).enumerate() {
                    let expected: Vec<usize> = minibatch[..n].iter().map(|i| t * ENVS + i).collect();
                    assert_eq!(row, expected);
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2]);
        }
    }

    #[test]
    fn gather_returns_the_transitions_of_the_indices() {
        let mut rollout = Rollout::new(&spec(), ENVS, 2, 0.99);
        rollout.obs = Obs::F32((0..9).map(|i| i as f32).collect());
        rollout.actions = Actions::Discrete(vec![0, 1, 2, 0, 1, 2]);
        let mut obs = Obs::zeros(Dtype::F32, 0);
        for (indices, expected) in
            [(&[4, 0, 5][..], vec![4.0, 0.0, 5.0]), (&[1, 1, 2], vec![1.0, 1.0, 2.0]), (&[3], vec![3.0])]
        {
            obs.gather(rollout.observations(), rollout.obs_len(), indices);
            assert_eq!(obs, Obs::F32(expected));
        }
        assert_eq!(rollout.gather_actions(&[4, 0, 5]), Actions::Discrete(vec![1, 0, 2]));
        rollout.actions = Actions::Continuous { values: (0..12).map(|i| i as f32).collect(), dim: 2 };
        let expected = Actions::Continuous { values: vec![8.0, 9.0, 0.0, 1.0], dim: 2 };
        assert_eq!(rollout.gather_actions(&[4, 0]), expected);
    }

    /// Two environments, recorded one at a time, two steps: every value is 100 · step + 10 · environment plus a digit for its kind.
    #[test]
    fn each_environment_has_its_rows() {
        let spec = EnvSpec::new("t", &[2], Dtype::F32, ActionSpace::Discrete { n: 3 }).with_action_mask();
        let mut rollout = Rollout::new(&spec, 2, 2, 0.5);
        assert_eq!((rollout.envs(), rollout.steps(), rollout.len()), (2, 2, 4));
        let mut frames = [0, 1].map(|_| FrameStack::new(&spec, 1));
        let mask = |t: usize, env: usize| [true, t == 1, env == 1];
        let value = |t: usize, env: usize, kind: usize| (100 * t + 10 * env + kind) as f32;
        for t in 0..3 {
            assert_eq!((rollout.is_empty(), rollout.is_full()), (t == 0, t == 2));
            for (env, frames) in frames.iter_mut().enumerate() {
                let mut batch = StepBatch::new(&spec, 1);
                batch.obs = Obs::F32(vec![value(t, env, 0), value(t, env, 1)]);
                batch.action_mask = mask(t, env).to_vec();
                frames.push(&batch);
                rollout.store_observations(env, frames);
                if t < 2 {
                    let decisions = rollout.decisions(env, 1);
                    decisions.log_probs.fill(value(t, env, 2));
                    decisions.values.fill(value(t, env, 3));
                    batch.reward[0] = value(t, env, 4);
                    rollout.record(env, &Actions::Discrete(vec![(t + env) as i64]), &batch, |_| unreachable!());
                }
            }
        }
        let rows = |kind: usize, from: usize, to: usize| -> Vec<f32> {
            (from..to).flat_map(|t| [value(t, 0, kind), value(t, 1, kind)]).collect()
        };
        let observations = |from: usize, to: usize| -> Vec<f32> {
            let row = |(t, env)| [value(t, env, 0), value(t, env, 1)];
            (from..to).flat_map(|t| [(t, 0), (t, 1)]).flat_map(row).collect()
        };
        let masks = |from: usize, to: usize| -> Vec<bool> {
            (from..to).flat_map(|t| [mask(t, 0), mask(t, 1)]).flatten().collect()
        };
        assert_eq!(rollout.observations().f32(), observations(0, 2));
        assert_eq!(rollout.next_observations().f32(), observations(1, 3));
        assert_eq!(rollout.last_observations().f32(), observations(2, 3));
        assert_eq!(rollout.action_masks(), masks(0, 2));
        assert_eq!(rollout.next_action_masks(), masks(1, 3));
        assert_eq!(rollout.last_action_masks(), masks(2, 3));
        assert_eq!(rollout.gather_action_masks(&[3, 0]), [mask(1, 1), mask(0, 0)].concat());
        for mut gathered in [Obs::F32(vec![9.0; 4]), Obs::F32(Vec::new()), Obs::U8(vec![0; 4])] {
            gathered.gather(rollout.observations(), rollout.obs_len(), &[3, 0]);
            assert_eq!(gathered, Obs::F32(vec![value(1, 1, 0), value(1, 1, 1), value(0, 0, 0), value(0, 0, 1)]));
        }
        assert_eq!((rollout.log_probs(), rollout.values()), (&rows(2, 0, 2)[..], &rows(3, 0, 2)[..]));
        assert_eq!((rollout.rewards(), rollout.actions()), (&rows(4, 0, 2)[..], &Actions::Discrete(vec![0, 1, 1, 2])));
        assert_eq!((rollout.discounts(), rollout.forced()), ([0.5; 4].as_slice(), [false; 4].as_slice()));
        assert!((0..4).all(|i| rollout.is_transition(i)) && rollout.transitions().is_none());
        rollout.clear();
        assert!(rollout.is_empty() && !rollout.is_full());
    }

    /// 10⁶ environments and 10⁹ observations of each: bytes per transition are petabytes.
    #[test]
    fn the_memory_of_a_rollout_by_hand() {
        let discrete = || ActionSpace::Discrete { n: 3 };
        let continuous = ActionSpace::Box { low: vec![-1.0; 2], high: vec![1.0; 2] };
        for (spec, bytes) in [
            (EnvSpec::new("t", &[3], Dtype::U8, discrete()), 3 + 8 + 23),
            (EnvSpec::new("t", &[3], Dtype::F32, discrete()), 12 + 8 + 23),
            (EnvSpec::new("t", &[3], Dtype::U8, discrete()).with_frame_stack(4).with_action_mask(), 12 + 8 + 23 + 3),
            (EnvSpec::new("t", &[1], Dtype::U8, continuous), 1 + 8 + 23),
            (EnvSpec::new("t", &[1], Dtype::U8, ActionSpace::MultiDiscrete { sizes: vec![2; 3] }), 1 + 24 + 23),
        ] {
            let message = Rollout::check_memory(&spec, 1_000_000, 999_999_999).unwrap_err().to_string();
            assert!(message.contains(&format!("takes {bytes}000000.00 GB")), "{bytes}: {message}");
            assert!(message.contains("lower `rollout_steps`") && Rollout::check_memory(&spec, 1, 1).is_ok());
        }
    }
}
