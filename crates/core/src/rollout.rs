//! The memory of one rollout: a few steps of n environments, time first.
//!
//! ```text
//! observations   s₀   s₁   s₂  …  s_T       one more than steps: what the last return bootstraps from
//! actions           a₀   a₁  …
//! rewards           r₁   r₂  …              with the discount of what follows: γ, or 0 where nothing does
//! resets         no   …                     whether an observation is the first of its episode
//! ```

use crate::{Actions, EnvSpec, FrameStack, Obs, ObsRef, StepBatch};

/// `steps × envs` transitions, time first, and the observations after them.
#[derive(Debug)]
pub struct Rollout {
    obs: Obs,
    actions: Actions,
    r_t: Vec<f32>,
    discount_t: Vec<f32>,
    /// One per observation.
    resets: Vec<bool>,
    /// One per transition.
    forced: Vec<bool>,
    envs: usize,
    obs_len: usize,
    gamma: f32,
    t: usize,
}

impl Rollout {
    /// For `steps` steps of `envs` environments of `spec`, rewards discounted by `gamma` per step.
    pub fn new(spec: &EnvSpec, envs: usize, steps: usize, gamma: f64) -> Self {
        let transitions = envs * steps;
        Self {
            obs: Obs::zeros(spec.dtype, (transitions + envs) * spec.obs_len()),
            actions: Actions::zeros(&spec.actions, transitions),
            r_t: vec![0.0; transitions],
            discount_t: vec![0.0; transitions],
            resets: vec![false; transitions + envs],
            forced: vec![false; transitions],
            envs,
            obs_len: spec.obs_len(),
            gamma: gamma as f32,
            t: 0,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.t = 0;
        self.resets.fill(false);
        self.forced.fill(false);
    }

    /// Whether all steps are there.
    pub fn is_full(&self) -> bool {
        self.t * self.envs == self.r_t.len()
    }

    /// How many environments.
    pub fn envs(&self) -> usize {
        self.envs
    }

    /// How many transitions a full rollout holds.
    pub fn capacity(&self) -> usize {
        self.r_t.len()
    }

    /// Remembers the observations that the next actions answer; in a full rollout, those after the last step.
    pub fn observe(&mut self, history: &FrameStack) {
        let len = self.envs * self.obs_len;
        self.obs.slice_mut(self.t * len, len).copy_from(history.observations().as_ref());
    }

    /// Remembers what came of `actions`. `final_value(i)` is asked for the value of the last observation of an episode
    /// that was truncated in environment `i`: its return ends with γ times that, and what followed belongs to another.
    ///
    /// # Panics
    /// If the actions are of another space, or the rollout is full: bugs of the caller.
    pub fn outcome(&mut self, actions: &Actions, batch: &StepBatch, mut final_value: impl FnMut(usize) -> f32) {
        let (n, first) = (self.envs, self.t * self.envs);
        match (&mut self.actions, actions) {
            (Actions::Discrete(kept), Actions::Discrete(new)) => {
                for (i, (kept, new)) in kept[first..first + n].iter_mut().zip(new).enumerate() {
                    *kept = batch.forced[i].unwrap_or(*new);
                }
            }
            (Actions::Continuous { values: kept, dim }, Actions::Continuous { values: new, .. }) => {
                kept[first * *dim..(first + n) * *dim].copy_from_slice(new);
            }
            _ => panic!("actions of another space"),
        }
        for i in 0..n {
            let ends = batch.terminated[i] || batch.life_lost[i];
            (self.r_t[first + i], self.discount_t[first + i]) = match batch.truncated[i] && !batch.terminated[i] {
                true => (batch.reward[i] + self.gamma * final_value(i), 0.0),
                false => (batch.reward[i], if ends { 0.0 } else { self.gamma }),
            };
            self.resets[first + n + i] = batch.done(i);
            self.forced[first + i] = batch.forced[i].is_some();
        }
        self.t += 1;
    }

    /// All observations that were acted on: `steps · envs` of them.
    pub fn s_tm1(&self) -> ObsRef<'_> {
        self.obs.slice(0, self.capacity() * self.obs_len)
    }

    /// What followed each of them: `steps · envs` observations. Where an episode ended, the next one's first.
    pub fn s_t(&self) -> ObsRef<'_> {
        self.obs.slice(self.envs * self.obs_len, self.capacity() * self.obs_len)
    }

    /// The observations after the last step: `envs` of them.
    pub fn last(&self) -> ObsRef<'_> {
        self.obs.slice(self.capacity() * self.obs_len, self.envs * self.obs_len)
    }

    /// The actions that were executed, `steps · envs` of them.
    pub fn actions(&self) -> &Actions {
        &self.actions
    }

    /// Rewards, `steps · envs`; where an episode was cut, with the discounted value of its last observation.
    pub fn r_t(&self) -> &[f32] {
        &self.r_t
    }

    /// What the value of the next observation is multiplied with, `steps · envs`: γ, or 0 at an episode's end.
    pub fn discount_t(&self) -> &[f32] {
        &self.discount_t
    }

    /// Whether a wrapper replaced the policy's action, `steps · envs`: such an action was not sampled from the policy, so it
    /// has no place in a policy gradient. Its reward and value are as good as any other's.
    pub fn forced(&self) -> &[bool] {
        &self.forced
    }

    /// Whether each of [`s_tm1`](Self::s_tm1) follows the end of an episode *inside* this rollout. What a recurrent
    /// network remembers when the rollout starts is the caller's.
    pub fn resets(&self) -> &[bool] {
        &self.resets[..self.capacity()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActionSpace, Dtype, Step};

    const ENVS: usize = 3;

    fn spec() -> EnvSpec {
        let actions = ActionSpace::Discrete { n: 3 };
        EnvSpec::new("test", &[1], Dtype::F32, actions)
    }

    /// γ = .9 and V(final) = 5. Environment 0 goes on, then terminates; 1 goes on, then is truncated: r + γV = 2 + 4.5; 2
    /// loses a life, then terminates at the very step at which its time is up: nothing is bootstrapped.
    #[test]
    fn only_a_truncation_bootstraps_from_the_final_observation() {
        let (spec, actions) = (spec(), Actions::Discrete(vec![0; ENVS]));
        let (mut rollout, mut batch) = (Rollout::new(&spec, ENVS, 2, 0.9), StepBatch::new(&spec, ENVS));
        let (mut history, mut asked) = (FrameStack::new(&spec, ENVS), Vec::new());
        for t in 0..2 {
            batch.clear();
            batch.obs = Obs::F32((0..3).map(|i| (10 * t + i) as f32).collect());
            batch.reward.fill(1.0 + t as f32);
            batch.life_lost[2] = t == 0;
            batch.terminated = vec![t == 1, false, t == 1];
            batch.truncated = vec![false, t == 1, t == 1];
            history.push(&batch);
            rollout.observe(&history);
            rollout.outcome(&actions, &batch, |i| {
                asked.push(i);
                5.0
            });
        }
        batch.obs = Obs::F32(vec![20.0, 21.0, 22.0]);
        history.push(&batch);
        rollout.observe(&history);
        assert_eq!(rollout.r_t(), [1.0, 1.0, 1.0, 2.0, 6.5, 2.0]);
        assert_eq!(rollout.discount_t(), [0.9, 0.9, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(asked, [1]);
        assert!(rollout.is_full());
        assert_eq!(rollout.s_tm1(), ObsRef::F32(&[0.0, 1.0, 2.0, 10.0, 11.0, 12.0]));
        assert_eq!(rollout.s_t(), ObsRef::F32(&[10.0, 11.0, 12.0, 20.0, 21.0, 22.0]));
        assert_eq!(rollout.last(), ObsRef::F32(&[20.0, 21.0, 22.0]));
    }

    /// A life lost in the step that cuts the episode: the batch says truncated, so the return bootstraps.
    #[test]
    fn a_truncation_with_a_lost_life_bootstraps() {
        let (spec, actions) = (spec(), Actions::Discrete(vec![0; ENVS]));
        let (mut rollout, mut batch) = (Rollout::new(&spec, ENVS, 1, 0.5), StepBatch::new(&spec, ENVS));
        let step = Step { reward: 1.0, truncated: true, life_lost: true, terminated: false };
        batch.set(0, step);
        batch.set(1, Step { terminated: true, ..step });
        batch.set(2, Step { truncated: false, ..step });
        rollout.outcome(&actions, &batch, |_| 8.0);
        assert_eq!((rollout.r_t(), rollout.discount_t()), ([5.0, 1.0, 1.0].as_slice(), [0.0; 3].as_slice()));
    }

    /// What follows an episode's end, and not what follows a lost life, starts with an empty memory.
    #[test]
    fn an_observation_after_an_end_is_a_reset() {
        let (spec, actions) = (spec(), Actions::Discrete(vec![0; ENVS]));
        let (mut rollout, mut batch) = (Rollout::new(&spec, ENVS, 2, 0.9), StepBatch::new(&spec, ENVS));
        batch.terminated[0] = true;
        batch.life_lost[1] = true;
        batch.truncated[2] = true;
        rollout.outcome(&actions, &batch, |_| 0.0);
        assert_eq!(rollout.resets(), [false, false, false, true, false, true]);
        rollout.clear();
        assert_eq!(rollout.resets(), [false; 6]);
    }

    /// A wrapper that pressed FIRE in the agent's place is remembered as FIRE: the agent must not learn that its own
    /// action did it.
    #[test]
    fn a_replaced_action_is_recorded_as_replaced() {
        let spec = spec();
        let (mut rollout, mut batch) = (Rollout::new(&spec, ENVS, 1, 0.99), StepBatch::new(&spec, ENVS));
        batch.forced[1] = Some(2);
        rollout.outcome(&Actions::Discrete(vec![0, 0, 1]), &batch, |_| unreachable!("nothing was truncated"));
        assert_eq!(rollout.actions(), &Actions::Discrete(vec![0, 2, 1]));
        assert_eq!(rollout.forced(), [false, true, false]);
        rollout.clear();
        assert_eq!(rollout.forced(), [false; 3]);
    }
}
