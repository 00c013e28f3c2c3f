//! Observations and rewards on one scale, by statistics that grow with the data.
//!
//! As Stable-Baselines3's `VecNormalize` (and Gymnasium's `NormalizeObservation` and `NormalizeReward`) do it:
//!
//! - an observation is `(o − mean) / sqrt(variance + 1e-8)`, cut to ±10, each number of it by its own statistics, which
//!   are updated first, over the batch;
//! - a reward is `r / sqrt(variance + 1e-8)`, cut to ±10, by the variance of `R ← γ·R + r`, a discounted return that runs
//!   forwards. Its mean is not subtracted: that would change what is good and bad.
//!
//! When not to use it: on frames, which the network itself scales (that is refused); on rewards that are already small,
//! where it only adds noise at the beginning.

use crate::Rule;
use playfield_core::{Dtype, EnvSpec, Error, Obs, Result, State, StepBatch};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Added to a variance before its root.
const EPSILON: f64 = 1e-8;
/// Where normalised numbers are cut.
const LIMIT: f64 = 10.0;

/// Scales observations, rewards or both by running statistics.
#[derive(Clone, Debug)]
pub struct Normalise {
    obs: Option<Moments>,
    reward: Option<Returns>,
    frozen: bool,
}

/// The statistics of rewards, and the running returns that they are of.
#[derive(Clone, Debug)]
struct Returns {
    gamma: f64,
    moments: Moments,
    /// Of each environment; 0 at an episode's start.
    running: Vec<f64>,
}

impl Normalise {
    /// For `n` environments of `spec`; `gamma` is the discount of the returns by whose variance rewards are divided.
    ///
    /// # Errors
    /// [`Error::Config`] for observations that are frames.
    pub fn new(spec: &EnvSpec, n: usize, obs: bool, reward: bool, gamma: f64) -> Result<Self> {
        if obs && spec.dtype == Dtype::U8 {
            let message = "`normalise_obs` is for vectors of numbers: the network scales frames itself";
            return Err(Error::config(format!("[env]: {message} ({} observes frames)", spec.id)));
        }
        Ok(Self {
            obs: obs.then(|| Moments::new(spec.frame_len())),
            reward: reward.then(|| Returns { gamma, moments: Moments::new(1), running: vec![0.0; n] }),
            frozen: false,
        })
    }

    fn observe(&mut self, batch: &mut StepBatch) {
        let (Some(moments), Obs::F32(obs)) = (&mut self.obs, &mut batch.obs) else { return };
        if !self.frozen {
            moments.update(obs);
        }
        moments.normalise(obs);
        let Obs::F32(last) = &mut batch.final_obs else { return };
        for (i, row) in last.chunks_exact_mut(moments.mean.len()).enumerate() {
            if batch.terminated[i] || batch.truncated[i] {
                moments.normalise(row);
            }
        }
    }
}

impl Rule for Normalise {
    const NAME: &'static str = "normalisation";

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        if let Some(reward) = &mut self.reward {
            reward.running.fill(0.0);
        }
        self.observe(batch);
        Ok(())
    }

    fn outcome(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.observe(batch);
        let Some(Returns { gamma, moments, running }) = &mut self.reward else { return Ok(()) };
        for (running, reward) in running.iter_mut().zip(&batch.reward) {
            *running = *running * *gamma + f64::from(*reward);
        }
        if !self.frozen {
            moments.update(running);
        }
        let scale = moments.scale(0);
        for (i, running) in running.iter_mut().enumerate() {
            batch.reward[i] = (f64::from(batch.reward[i]) / scale).clamp(-LIMIT, LIMIT) as f32;
            if batch.done(i) {
                *running = 0.0;
            }
        }
        Ok(())
    }

    fn save(&self) -> State {
        json!({ "learnt": self.statistics(), "running": self.reward.as_ref().map(|r| &r.running) })
    }

    fn load(&mut self, state: &State) -> Option<()> {
        let running = Option::<Vec<f64>>::deserialize(state.get("running")?).ok()?;
        if running.as_ref().map(Vec::len) != self.reward.as_ref().map(|r| r.running.len()) {
            return None;
        }
        self.set_statistics(state.get("learnt")?, self.frozen)?;
        if let (Some(reward), Some(running)) = (&mut self.reward, running) {
            reward.running = running;
        }
        Some(())
    }

    fn statistics(&self) -> Option<State> {
        Some(json!({ "observations": self.obs, "returns": self.reward.as_ref().map(|r| &r.moments) }))
    }

    fn set_statistics(&mut self, statistics: &State, frozen: bool) -> Option<()> {
        let part = |key: &str, ours: Option<&Moments>| -> Option<Option<Moments>> {
            let theirs = Option::<Moments>::deserialize(statistics.get(key)?).ok()?;
            let len = |m: &Moments| (m.mean.len(), m.variance.len());
            (theirs.as_ref().map(len) == ours.map(len)).then_some(theirs)
        };
        let obs = part("observations", self.obs.as_ref())?;
        let returns = part("returns", self.reward.as_ref().map(|r| &r.moments))?;
        self.obs = obs;
        if let (Some(ours), Some(theirs)) = (&mut self.reward, returns) {
            ours.moments = theirs;
        }
        self.frozen = frozen;
        Some(())
    }
}

/// Mean and variance of everything seen, for each number of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
    /// How many rows they are of.
    count: f64,
}

impl Moments {
    /// Mean 0 and variance 1, believed in as much as a ten-thousandth of a row.
    fn new(len: usize) -> Self {
        Self { mean: vec![0.0; len], variance: vec![1.0; len], count: 1e-4 }
    }

    /// Takes in rows that lie one after the other: the variance of two sets joined (Chan, Golub & LeVeque 1979).
    fn update<T: Copy + Into<f64>>(&mut self, rows: &[T]) {
        let len = self.mean.len();
        let n = (rows.len() / len) as f64;
        let total = self.count + n;
        for (j, (mean, variance)) in self.mean.iter_mut().zip(&mut self.variance).enumerate() {
            let column = || rows[j..].iter().step_by(len).map(|&x| x.into());
            let new_mean = column().sum::<f64>() / n;
            let new_variance = column().map(|x| (x - new_mean).powi(2)).sum::<f64>() / n;
            let delta = new_mean - *mean;
            *mean += delta * n / total;
            *variance = (*variance * self.count + new_variance * n + delta * delta * self.count * n / total) / total;
        }
        self.count = total;
    }

    /// The standard deviation of number `j`.
    fn scale(&self, j: usize) -> f64 {
        (self.variance[j] + EPSILON).sqrt()
    }

    /// Brings rows to mean 0 and variance 1.
    fn normalise(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for (j, x) in row.iter_mut().enumerate() {
                *x = ((f64::from(*x) - self.mean[j]) / self.scale(j)).clamp(-LIMIT, LIMIT) as f32;
            }
        }
    }
}
