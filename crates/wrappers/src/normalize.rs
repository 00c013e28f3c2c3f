//! Normalization of observations and rewards by running statistics: see [`Normalizer`] for the arithmetic.
//!
//! A batch updates the statistics of observations before it is normalized. The statistics of rewards are those of the discounted
//! return `R ← γ·R + r`, accumulated forwards from 0 in each episode (Gymnasium's `NormalizeObservation` and
//! `NormalizeReward`).
//!
//! When not to use it: on frames, which the network scales (an error); on rewards that are already small, where it only adds
//! noise at the beginning.

use crate::VecEnvWrapper;
use playfield_core::normalize::Moments;
use playfield_core::{Dtype, EnvSpec, Error, Normalizer, Obs, Result, State, StepBatch};
use serde::Deserialize;
use serde_json::json;

/// Normalizes observations, rewards or both by running statistics.
#[derive(Clone, Debug)]
pub struct Normalize {
    normalizer: Normalizer,
    gamma: f64,
    /// The discounted return of each environment; 0 at the start of an episode.
    returns: Vec<f64>,
    /// Whether the statistics are no longer updated.
    frozen: bool,
    /// Whether the statistics are tracked and not applied: the caller normalizes.
    track_only: bool,
}

impl Normalize {
    /// For `n` environments of `spec`. `gamma` is the discount of the return whose standard deviation rewards are divided by.
    ///
    /// # Errors
    /// [`Error::Config`] for normalization of frames.
    pub fn new(spec: &EnvSpec, n: usize, obs: bool, reward: bool, gamma: f64) -> Result<Self> {
        if obs && spec.dtype == Dtype::U8 {
            let message = match spec.parts.is_empty() {
                true => "`normalize_obs` is for vectors: the network scales frames itself",
                false => {
                    "`normalize_obs` is not available for an image with other parts: scale those in the environment"
                }
            };
            let (id, observation) = (&spec.id, spec.observation_text());
            return Err(Error::config(format!("[env]: {message} ({id} observes {observation})")));
        }
        let observations = obs.then(|| Moments::new(spec.frame_len()));
        let normalizer = Normalizer { observations, returns: reward.then(|| Moments::new(1)) };
        Ok(Self { normalizer, gamma, returns: vec![0.0; n], frozen: false, track_only: false })
    }

    /// Tracks the statistics and leaves batches unchanged.
    #[must_use]
    pub fn track_only(self) -> Self {
        Self { track_only: true, ..self }
    }

    fn normalize_observations(&mut self, batch: &mut StepBatch) {
        let (Some(moments), Obs::F32(obs)) = (&mut self.normalizer.observations, &mut batch.obs) else { return };
        if !self.frozen {
            moments.update(obs);
        }
        if self.track_only {
            return;
        }
        let len = moments.len();
        self.normalizer.observations(obs, 1);
        let Obs::F32(last) = &mut batch.final_obs else { return };
        for (i, row) in last.chunks_exact_mut(len).enumerate() {
            if batch.terminated[i] || batch.truncated[i] {
                self.normalizer.observations(row, 1);
            }
        }
    }
}

impl VecEnvWrapper for Normalize {
    const NAME: &'static str = "normalization";

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.returns.fill(0.0);
        self.normalize_observations(batch);
        Ok(())
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.normalize_observations(batch);
        let Some(moments) = &mut self.normalizer.returns else { return Ok(()) };
        for (sum, reward) in self.returns.iter_mut().zip(&batch.reward) {
            *sum = *sum * self.gamma + f64::from(*reward);
        }
        if !self.frozen {
            let returns = self.returns.iter().zip(&batch.ignored).filter(|(_, ignored)| !**ignored);
            moments.update(&returns.map(|(sum, _)| *sum).collect::<Vec<_>>());
        }
        for (i, sum) in self.returns.iter_mut().enumerate() {
            if !self.track_only {
                batch.reward[i] = self.normalizer.reward(batch.reward[i]);
            }
            if batch.done(i) {
                *sum = 0.0;
            }
        }
        Ok(())
    }

    fn normalizer(&self) -> Option<&Normalizer> {
        Some(&self.normalizer)
    }

    fn set_normalizer(&mut self, normalizer: &Normalizer) {
        self.normalizer = normalizer.clone();
    }

    fn save(&self) -> State {
        json!({ "learned": self.save_statistics(), "running": self.normalizer.returns.is_some().then_some(&self.returns) })
    }

    fn load(&mut self, state: &State) -> Option<()> {
        let returns = Option::<Vec<f64>>::deserialize(state.get("running")?).ok()?;
        let expected = self.normalizer.returns.is_some().then_some(self.returns.len());
        if returns.as_ref().map(Vec::len) != expected {
            return None;
        }
        self.load_statistics(state.get("learned")?, self.frozen)?;
        if let Some(returns) = returns {
            self.returns = returns;
        }
        Some(())
    }

    fn save_statistics(&self) -> Option<State> {
        let Normalizer { observations, returns } = &self.normalizer;
        Some(json!({ "observations": observations, "returns": returns }))
    }

    fn load_statistics(&mut self, statistics: &State, frozen: bool) -> Option<()> {
        let part = |key: &str, ours: &Option<Moments>| -> Option<Option<Moments>> {
            let theirs = Option::<Moments>::deserialize(statistics.get(key)?).ok()?;
            let alike = match (ours, &theirs) {
                (Some(ours), Some(theirs)) => ours.is_like(theirs),
                (ours, theirs) => ours.is_none() && theirs.is_none(),
            };
            alike.then_some(theirs)
        };
        let Normalizer { observations, returns } = &self.normalizer;
        self.normalizer =
            Normalizer { observations: part("observations", observations)?, returns: part("returns", returns)? };
        self.frozen = frozen;
        Some(())
    }
}
