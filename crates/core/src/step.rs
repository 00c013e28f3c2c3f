//! The results of one step of an environment ([`Step`]) and of a batch of environments ([`StepBatch`]).

use crate::{EnvSpec, Obs, ObsMut, ObsRef};

/// The result of one step of one environment, apart from the observation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// The raw reward.
    pub reward: f32,
    /// The task ended: the value of the final observation is 0.
    pub terminated: bool,
    /// The episode was cut off (a time limit): the value bootstraps from the final observation.
    pub truncated: bool,
    /// A life was lost and the episode continues.
    pub life_lost: bool,
}

impl Step {
    /// Whether the episode terminated or was truncated.
    pub fn done(&self) -> bool {
        self.terminated || self.truncated
    }

    /// The same step with at most one of its flags set, so that it is clear whether a learner bootstraps: a termination takes
    /// precedence over a truncation, and the end of an episode over a lost life.
    #[must_use]
    pub fn with_exclusive_flags(self) -> Self {
        let truncated = self.truncated && !self.terminated;
        Self { truncated, life_lost: self.life_lost && !self.done(), ..self }
    }
}

/// Return and length of a finished episode, on raw rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EpisodeEnd {
    /// The sum of raw rewards. It may be infinite. Checkpoints of format 1 call it `reward`.
    #[serde(with = "crate::json::float", alias = "reward")]
    pub episode_return: f64,
    /// The number of agent steps.
    pub length: u64,
}

/// The results of one step of `n` environments. The caller owns the buffers, and environments write into them.
///
/// Autoreset is *same-step*: where an episode ended, [`obs`](Self::obs) holds the first observation of the next episode and
/// [`final_obs`](Self::final_obs) the last observation of the ended one. No transition spans two episodes.
///
/// A vector environment with *next-step* autoreset (Gymnasium's default) starts the next episode only in its next step, which ignores
/// the action. That step is marked in [`ignored`](Self::ignored): it is no transition.
///
/// ```text
///                 same-step             next-step
/// step            t        t + 1        t        t + 1      t + 2
/// `terminated`    yes      no           yes      no         no
/// `obs`           s₀       s₁           s_T      s₀         s₁
/// `final_obs`     s_T      -            s_T      -          -
/// `ignored`       no       no           no       yes        no
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StepBatch {
    /// The newest frame or vector of each environment, before frame stacking: `[n, shape…]`.
    pub obs: Obs,
    /// The reward: raw, unless a wrapper clipped or normalized it.
    pub reward: Vec<f32>,
    /// The episode terminated.
    pub terminated: Vec<bool>,
    /// The episode was truncated. Never set where it terminated.
    pub truncated: Vec<bool>,
    /// A life was lost, and a life is an episode for the learner: the discount is 0 here and the game continues. Never set
    /// where the episode ended.
    pub life_lost: Vec<bool>,
    /// Return and length of the episode that ended in this step.
    pub episode: Vec<Option<EpisodeEnd>>,
    /// The last observation of an ended episode: `[n, shape…]`, valid only in rows whose episode ended.
    pub final_obs: Obs,
    /// The discrete action that a wrapper executed instead of the agent's (FIRE after a lost life).
    pub forced: Vec<Option<i64>>,
    /// The environment ignored the action and started an episode (next-step autoreset): the step is no transition, is not counted, and
    /// must not be learned from. Its reward is 0 and no other flag is set.
    pub ignored: Vec<bool>,
    /// Whether each action is valid at [`obs`](Self::obs), `[n, choices]` with the choices of all components of an action one after
    /// the other; empty where the environments state none ([`EnvSpec::action_mask`]).
    pub action_mask: Vec<bool>,
    /// The same at [`final_obs`](Self::final_obs), valid only in rows whose episode ended.
    pub final_action_mask: Vec<bool>,
    frame_len: usize,
    mask_len: usize,
}

impl StepBatch {
    /// An empty batch for `n` environments of `spec`.
    pub fn new(spec: &EnvSpec, n: usize) -> Self {
        let (frame_len, mask_len) = (spec.frame_len(), spec.mask_len());
        Self {
            obs: Obs::zeros(spec.dtype, n * frame_len),
            reward: vec![0.0; n],
            terminated: vec![false; n],
            truncated: vec![false; n],
            life_lost: vec![false; n],
            episode: vec![None; n],
            final_obs: Obs::zeros(spec.dtype, n * frame_len),
            forced: vec![None; n],
            ignored: vec![false; n],
            action_mask: vec![true; n * mask_len],
            final_action_mask: vec![true; n * mask_len],
            frame_len,
            mask_len,
        }
    }

    /// The number of environments.
    pub fn num_envs(&self) -> usize {
        self.reward.len()
    }

    /// Whether the episode of environment `i` ended in this step.
    pub fn done(&self, i: usize) -> bool {
        self.terminated[i] || self.truncated[i]
    }

    /// [`done`](Self::done) of every environment.
    pub fn ended(&self) -> Vec<bool> {
        (0..self.num_envs()).map(|i| self.done(i)).collect()
    }

    /// Whether each environment's [`obs`](Self::obs) begins an observation sequence: after the end of an episode, and after an ignored
    /// step. Frame stacks and recurrent states are reset there.
    pub fn starts(&self) -> Vec<bool> {
        (0..self.num_envs()).map(|i| self.done(i) || self.ignored[i]).collect()
    }

    /// The number of transitions: of environments that did not ignore their action.
    pub fn transitions(&self) -> usize {
        self.ignored.iter().filter(|ignored| !**ignored).count()
    }

    /// The newest observation of environment `i`.
    pub fn obs_row(&self, i: usize) -> ObsRef<'_> {
        self.obs.slice(i * self.frame_len, self.frame_len)
    }

    /// The buffer for the newest observation of environment `i`.
    pub fn obs_row_mut(&mut self, i: usize) -> ObsMut<'_> {
        self.obs.slice_mut(i * self.frame_len, self.frame_len)
    }

    /// The last observation of the episode that ended in environment `i`.
    pub fn final_obs_row(&self, i: usize) -> ObsRef<'_> {
        self.final_obs.slice(i * self.frame_len, self.frame_len)
    }

    /// The buffer for the last observation of an ended episode of environment `i`.
    pub fn final_obs_row_mut(&mut self, i: usize) -> ObsMut<'_> {
        self.final_obs.slice_mut(i * self.frame_len, self.frame_len)
    }

    /// The action mask of environment `i`: empty where every action is valid.
    pub fn mask_row(&self, i: usize) -> &[bool] {
        &self.action_mask[i * self.mask_len..(i + 1) * self.mask_len]
    }

    /// The buffer for the action mask of environment `i`.
    pub fn mask_row_mut(&mut self, i: usize) -> &mut [bool] {
        &mut self.action_mask[i * self.mask_len..(i + 1) * self.mask_len]
    }

    /// The action mask at the last observation of the episode that ended in environment `i`.
    pub fn final_mask_row(&self, i: usize) -> &[bool] {
        &self.final_action_mask[i * self.mask_len..(i + 1) * self.mask_len]
    }

    /// The buffer for that mask.
    pub fn final_mask_row_mut(&mut self, i: usize) -> &mut [bool] {
        &mut self.final_action_mask[i * self.mask_len..(i + 1) * self.mask_len]
    }

    /// Writes `step`, [with exclusive flags](Step::with_exclusive_flags), into row `i`, without episode and forced action.
    pub fn set(&mut self, i: usize, step: Step) {
        let step = step.with_exclusive_flags();
        self.reward[i] = step.reward;
        self.terminated[i] = step.terminated;
        self.truncated[i] = step.truncated;
        self.life_lost[i] = step.life_lost;
        self.episode[i] = None;
        self.forced[i] = None;
        self.ignored[i] = false;
    }

    /// Marks the step of environment `i` as [`ignored`](Self::ignored).
    pub fn set_ignored(&mut self, i: usize) {
        self.set(i, Step::default());
        self.ignored[i] = true;
    }

    /// Clears every flag and reward, as after a reset: only `obs` is valid.
    pub fn clear(&mut self) {
        for i in 0..self.num_envs() {
            self.set(i, Step::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActionSpace, Dtype};

    /// Every combination of flags: a batch holds at most one of them.
    #[test]
    fn at_most_one_flag_is_set() {
        let spec = EnvSpec::new("t", &[1], Dtype::U8, ActionSpace::Discrete { n: 2 });
        let mut batch = StepBatch::new(&spec, 1);
        for (given, expected) in [
            ([false, false, false], [false, false, false]),
            ([false, false, true], [false, false, true]),
            ([false, true, false], [false, true, false]),
            ([false, true, true], [false, true, false]),
            ([true, false, false], [true, false, false]),
            ([true, false, true], [true, false, false]),
            ([true, true, false], [true, false, false]),
            ([true, true, true], [true, false, false]),
        ] {
            let [terminated, truncated, life_lost] = given;
            batch.set(0, Step { reward: 1.0, terminated, truncated, life_lost });
            assert_eq!([batch.terminated[0], batch.truncated[0], batch.life_lost[0]], expected, "{given:?}");
        }
    }

    /// Three environments with frames of two elements and masks of three.
    #[test]
    fn each_environment_has_its_rows() {
        let spec = EnvSpec::new("t", &[2], Dtype::U8, crate::ActionSpace::Discrete { n: 3 }).with_action_mask();
        let mut batch = StepBatch::new(&spec, 3);
        for i in 0..3 {
            let value = 10 * (i as u8 + 1);
            batch.obs_row_mut(i).u8().copy_from_slice(&[value, value + 1]);
            batch.final_obs_row_mut(i).u8().copy_from_slice(&[value + 5, value + 6]);
            batch.mask_row_mut(i)[i] = false;
            batch.final_mask_row_mut(i)[2 - i] = false;
        }
        assert_eq!(batch.obs, Obs::U8(vec![10, 11, 20, 21, 30, 31]));
        assert_eq!(batch.final_obs, Obs::U8(vec![15, 16, 25, 26, 35, 36]));
        assert_eq!((batch.obs_row(1).u8(), batch.final_obs_row(2).u8()), (&[20, 21][..], &[35, 36][..]));
        assert_eq!(batch.final_obs_row(1).u8(), [25, 26]);
        let masks = |row: fn(&StepBatch, usize) -> &[bool]| [0, 1, 2].map(|i| row(&batch, i).to_vec());
        let without = |i: usize| (0..3).map(|a| a != i).collect::<Vec<_>>();
        assert_eq!(masks(StepBatch::mask_row), [0, 1, 2].map(without));
        assert_eq!(masks(StepBatch::final_mask_row), [2, 1, 0].map(without));
        let plain = StepBatch::new(&EnvSpec { action_mask: false, ..spec }, 2);
        assert!(plain.mask_row(1).is_empty() && plain.final_mask_row(1).is_empty());
    }

    /// Terminated, truncated, ignored, and neither.
    #[test]
    fn an_episode_starts_after_an_end_and_after_an_ignored_step() {
        let spec = EnvSpec::new("t", &[1], Dtype::U8, crate::ActionSpace::Discrete { n: 3 });
        let mut batch = StepBatch::new(&spec, 4);
        (batch.terminated[0], batch.truncated[1], batch.ignored[2]) = (true, true, true);
        assert_eq!(batch.ended(), [true, true, false, false]);
        assert_eq!(batch.starts(), [true, true, true, false]);
        assert_eq!((batch.transitions(), batch.num_envs()), (3, 4));
    }
}
