//! The memory of one rollout: t_max steps of n environments, time first.

use crate::Config;
use playfield_core::{Actions, EnvSpec, History, Obs, ObsRef, StepBatch};
use playfield_losses::returns::fold_truncation;
use tch::Tensor;

/// What an update learns from: `steps × envs` transitions, time first.
#[derive(Debug)]
pub struct Rollout {
    /// Observations *before* each step, with their history.
    pub(crate) s_tm1: Obs,
    actions: Actions,
    r_t: Vec<f32>,
    discount_t: Vec<f32>,
    envs: usize,
    obs_len: usize,
    gamma: f32,
    t: usize,
}

impl Rollout {
    /// For `envs` environments of `spec`.
    pub fn new(spec: &EnvSpec, envs: usize, config: &Config) -> Self {
        let transitions = envs * config.t_max;
        Self {
            s_tm1: Obs::zeros(spec.dtype, transitions * spec.obs_len()),
            actions: Actions::zeros(&spec.actions, transitions),
            r_t: vec![0.0; transitions],
            discount_t: vec![0.0; transitions],
            envs,
            obs_len: spec.obs_len(),
            gamma: config.gamma as f32,
            t: 0,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.t = 0;
    }

    /// Whether t_max steps are there.
    pub fn is_full(&self) -> bool {
        self.t * self.envs == self.r_t.len()
    }

    /// How many transitions a full rollout holds.
    pub fn capacity(&self) -> usize {
        self.r_t.len()
    }

    /// Remembers the observations that the next actions answer.
    pub fn observe(&mut self, history: &History) {
        let len = self.envs * self.obs_len;
        self.s_tm1.slice_mut(self.t * len, len).copy_from(history.observations().as_ref());
    }

    /// Remembers what came of `actions`. `final_value(i)` is asked for the value of the last observation of an episode
    /// that was truncated in environment `i`.
    pub fn outcome(&mut self, actions: &Actions, batch: &StepBatch, mut final_value: impl FnMut(usize) -> f32) {
        let first = self.t * self.envs;
        match (&mut self.actions, actions) {
            (Actions::Discrete(kept), Actions::Discrete(new)) => {
                for (i, (kept, new)) in kept[first..first + self.envs].iter_mut().zip(new).enumerate() {
                    *kept = batch.forced[i].unwrap_or(*new);
                }
            }
            (Actions::Continuous { values: kept, dim }, Actions::Continuous { values: new, .. }) => {
                kept[first * *dim..(first + self.envs) * *dim].copy_from_slice(new);
            }
            _ => panic!("actions of another space"),
        }
        for i in 0..self.envs {
            let (reward, discount) = (&mut self.r_t[first + i], &mut self.discount_t[first + i]);
            *reward = batch.reward[i];
            *discount = if batch.terminated[i] || batch.life_lost[i] { 0.0 } else { self.gamma };
            if batch.truncated[i] && !batch.terminated[i] {
                fold_truncation(reward, discount, self.gamma, final_value(i));
            }
        }
        self.t += 1;
    }

    /// All observations, `steps · envs` of them.
    pub fn observations(&self) -> ObsRef<'_> {
        self.s_tm1.as_ref()
    }

    /// All actions: `[steps · envs]` (`i64`) or `[steps · envs, dim]`.
    pub fn actions(&self) -> Tensor {
        match &self.actions {
            Actions::Discrete(a) => Tensor::from_slice(a),
            Actions::Continuous { values, dim } => Tensor::from_slice(values).view([-1, *dim as i64]),
        }
    }

    /// Rewards and discounts, both `[steps, envs]`.
    pub fn rewards(&self) -> (Tensor, Tensor) {
        let shape = [-1, self.envs as i64];
        (Tensor::from_slice(&self.r_t).view(shape), Tensor::from_slice(&self.discount_t).view(shape))
    }
}
