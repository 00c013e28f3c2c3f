//! Observations and rewards on one scale, by statistics that grow with the data: see [`Normalizer`] for the arithmetic.
//!
//! The statistics of observations are updated by a batch before it is normalized; those of rewards by `R ← γ·R + r`, a
//! discounted return that runs forwards, starting at 0 with each episode (Gymnasium's `NormalizeObservation` and
//! `NormalizeReward`).
//!
//! When not to use it: on frames, which the network itself scales (that is refused); on rewards that are already small,
//! where it only adds noise at the beginning.

use crate::Rule;
use playfield_core::normalize::Moments;
use playfield_core::{Dtype, EnvSpec, Error, Normalizer, Obs, Result, State, StepBatch};
use serde::Deserialize;
use serde_json::json;

/// Scales observations, rewards or both by running statistics.
#[derive(Clone, Debug)]
pub struct Normalize {
    normalizer: Normalizer,
    gamma: f64,
    /// The discounted return of each environment; 0 at an episode's start.
    running: Vec<f64>,
    /// Whether the statistics stay as they are.
    frozen: bool,
    /// Whether batches stay as they are: the statistics are tracked, and somebody else normalizes.
    passive: bool,
}

impl Normalize {
    /// For `n` environments of `spec`; `gamma` is the discount of the returns by whose variance rewards are divided.
    ///
    /// # Errors
    /// [`Error::Config`] for observations that are frames.
    pub fn new(spec: &EnvSpec, n: usize, obs: bool, reward: bool, gamma: f64) -> Result<Self> {
        if obs && spec.dtype == Dtype::U8 {
            let message = "`normalize_obs` is for vectors of numbers: the network scales frames itself";
            return Err(Error::config(format!("[env]: {message} ({} observes frames)", spec.id)));
        }
        let observations = obs.then(|| Moments::new(spec.frame_len()));
        let normalizer = Normalizer { observations, returns: reward.then(|| Moments::new(1)) };
        Ok(Self { normalizer, gamma, running: vec![0.0; n], frozen: false, passive: false })
    }

    /// Tracks the statistics and leaves batches as they are.
    pub fn passive(self) -> Self {
        Self { passive: true, ..self }
    }

    fn observe(&mut self, batch: &mut StepBatch) {
        let (Some(moments), Obs::F32(obs)) = (&mut self.normalizer.observations, &mut batch.obs) else { return };
        if !self.frozen {
            moments.update(obs);
        }
        if self.passive {
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

impl Rule for Normalize {
    const NAME: &'static str = "normalization";

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.running.fill(0.0);
        self.observe(batch);
        Ok(())
    }

    fn outcome(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.observe(batch);
        let Some(moments) = &mut self.normalizer.returns else { return Ok(()) };
        for (running, reward) in self.running.iter_mut().zip(&batch.reward) {
            *running = *running * self.gamma + f64::from(*reward);
        }
        if !self.frozen {
            moments.update(&self.running);
        }
        for (i, running) in self.running.iter_mut().enumerate() {
            if !self.passive {
                batch.reward[i] = self.normalizer.reward(batch.reward[i]);
            }
            if batch.done(i) {
                *running = 0.0;
            }
        }
        Ok(())
    }

    fn normalizer(&self) -> Option<&Normalizer> {
        Some(&self.normalizer)
    }

    fn save(&self) -> State {
        json!({ "learned": self.statistics(), "running": self.normalizer.returns.is_some().then_some(&self.running) })
    }

    fn load(&mut self, state: &State) -> Option<()> {
        let running = Option::<Vec<f64>>::deserialize(state.get("running")?).ok()?;
        let expected = self.normalizer.returns.is_some().then_some(self.running.len());
        if running.as_ref().map(Vec::len) != expected {
            return None;
        }
        self.set_statistics(state.get("learned")?, self.frozen)?;
        if let Some(running) = running {
            self.running = running;
        }
        Some(())
    }

    fn statistics(&self) -> Option<State> {
        let Normalizer { observations, returns } = &self.normalizer;
        Some(json!({ "observations": observations, "returns": returns }))
    }

    fn set_statistics(&mut self, statistics: &State, frozen: bool) -> Option<()> {
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
