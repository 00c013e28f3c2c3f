//! What one step of an environment, or of a batch of them, yields.

use crate::{EnvSpec, Obs, ObsMut, ObsRef};

/// The outcome of one step of one environment, beside the observation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// The raw reward.
    pub reward: f32,
    /// The task ended: nothing follows, so nothing is bootstrapped.
    pub terminated: bool,
    /// The episode was cut (a time limit): values bootstrap from the final observation.
    pub truncated: bool,
    /// A life was lost and the episode continues.
    pub life_lost: bool,
}

impl Step {
    /// Whether the episode ended, in either way.
    pub fn done(&self) -> bool {
        self.terminated || self.truncated
    }

    /// The step with at most one of its flags: a termination takes precedence over a truncation, and the end of an episode
    /// over a lost life. Otherwise a learner could not tell whether to bootstrap.
    pub fn exclusive(self) -> Self {
        let truncated = self.truncated && !self.terminated;
        Self { truncated, life_lost: self.life_lost && !self.done(), ..self }
    }
}

/// A finished episode, as the player sees it: raw rewards, before any clipping.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EpisodeEnd {
    /// The sum of raw rewards. An environment may pay infinity.
    #[serde(with = "crate::json::float")]
    pub reward: f64,
    /// How many agent steps it lasted.
    pub length: u64,
}

/// The outcome of one step of `n` environments. The caller owns it; environments write into it.
///
/// Autoreset is always *same-step*: where an episode ended, [`obs`](Self::obs) already holds the next episode's first
/// observation, and [`final_obs`](Self::final_obs) the ended one's last. No transition spans two episodes.
#[derive(Clone, Debug, PartialEq)]
pub struct StepBatch {
    /// The newest observation of each environment (without history), row by row.
    pub obs: Obs,
    /// The reward, raw unless a wrapper clipped or scaled it.
    pub reward: Vec<f32>,
    /// The episode ended by the task's own rule.
    pub terminated: Vec<bool>,
    /// The episode was cut. Never set where it terminated.
    pub truncated: Vec<bool>,
    /// A life was lost and lives count as episodes for the learner: the discount is 0 here, the game goes on. Never set
    /// where the episode ended.
    pub life_lost: Vec<bool>,
    /// The episode that ended here, on raw rewards.
    pub episode: Vec<Option<EpisodeEnd>>,
    /// The last observation of an ended episode. Only rows whose episode ended mean anything.
    pub final_obs: Obs,
    /// The discrete action that a wrapper executed in place of the one sent (FIRE after a lost life).
    pub forced: Vec<Option<i64>>,
    frame_len: usize,
}

impl StepBatch {
    /// An empty batch for `n` environments of `spec`.
    pub fn new(spec: &EnvSpec, n: usize) -> Self {
        let frame_len = spec.frame_len();
        Self {
            obs: Obs::zeros(spec.dtype, n * frame_len),
            reward: vec![0.0; n],
            terminated: vec![false; n],
            truncated: vec![false; n],
            life_lost: vec![false; n],
            episode: vec![None; n],
            final_obs: Obs::zeros(spec.dtype, n * frame_len),
            forced: vec![None; n],
            frame_len,
        }
    }

    /// How many environments.
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

    /// Environment `i`'s newest observation.
    pub fn obs_row(&self, i: usize) -> ObsRef<'_> {
        self.obs.slice(i * self.frame_len, self.frame_len)
    }

    /// Where environment `i` writes its newest observation.
    pub fn obs_row_mut(&mut self, i: usize) -> ObsMut<'_> {
        self.obs.slice_mut(i * self.frame_len, self.frame_len)
    }

    /// The last observation of the episode that ended in environment `i`.
    pub fn final_obs_row(&self, i: usize) -> ObsRef<'_> {
        self.final_obs.slice(i * self.frame_len, self.frame_len)
    }

    /// Where the last observation of an ended episode of environment `i` is written.
    pub fn final_obs_row_mut(&mut self, i: usize) -> ObsMut<'_> {
        self.final_obs.slice_mut(i * self.frame_len, self.frame_len)
    }

    /// Writes what [`Step`] says, [exclusive](Step::exclusive), into row `i`, with no episode and no forced action.
    pub fn set(&mut self, i: usize, step: Step) {
        let step = step.exclusive();
        self.reward[i] = step.reward;
        self.terminated[i] = step.terminated;
        self.truncated[i] = step.truncated;
        self.life_lost[i] = step.life_lost;
        self.episode[i] = None;
        self.forced[i] = None;
    }

    /// Clears every flag and reward, as after a reset: only `obs` means anything.
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

    /// Every combination of flags: whoever reads a batch finds at most one of them.
    #[test]
    fn termination_precedes_truncation_and_the_end_of_an_episode_a_lost_life() {
        let (shape, actions) = (vec![1], ActionSpace::Discrete { n: 2 });
        let spec = EnvSpec { id: "t".into(), shape, dtype: Dtype::U8, frame_stack: 1, actions, action_names: vec![] };
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
}
