//! Normalization of observations and rewards by running statistics, as in Stable-Baselines3's `VecNormalize`.
//!
//! - an observation becomes `(o − mean) / sqrt(variance + 1e-8)`, clipped at ±10, each element by its own statistics;
//! - a reward becomes `r / sqrt(variance + 1e-8)`, clipped at ±10, with the variance of the discounted return. The mean is not
//!   subtracted: that would change the sign of rewards.
//!
//! The statistics change during training. Data that is stored for long (transitions in a replay buffer) is stored raw, and
//! normalized when it is used.

use serde::{Deserialize, Serialize};

/// Added to a variance before its square root.
const EPSILON: f64 = 1e-8;
/// The bound to which normalized values are clipped.
pub const LIMIT: f64 = 10.0;

/// The running statistics of observations, rewards or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalizer {
    /// Of each element of an observation, before frame stacking.
    pub observations: Option<Moments>,
    /// Of discounted returns: one element.
    pub returns: Option<Moments>,
}

impl Normalizer {
    /// Normalizes stacked observations, `[n, elements, frame_stack]` (see [`FrameStack`](crate::FrameStack)).
    pub fn observations(&self, values: &mut [f32], frame_stack: usize) {
        let Some(moments) = &self.observations else { return };
        for observation in values.chunks_exact_mut(moments.len() * frame_stack) {
            for (j, elements) in observation.chunks_exact_mut(frame_stack).enumerate() {
                elements.iter_mut().for_each(|x| *x = moments.normalized(j, *x));
            }
        }
    }

    /// Normalizes a reward.
    pub fn reward(&self, reward: f32) -> f32 {
        match &self.returns {
            Some(moments) => (f64::from(reward) / moments.scale(0)).clamp(-LIMIT, LIMIT) as f32,
            None => reward,
        }
    }
}

/// Running mean and variance of each element of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
    /// The number of rows so far.
    count: f64,
}

impl Moments {
    /// Mean 0 and variance 1, with the weight of 10⁻⁴ rows.
    pub fn new(len: usize) -> Self {
        Self { mean: vec![0.0; len], variance: vec![1.0; len], count: 1e-4 }
    }

    /// The number of elements of a row.
    pub fn len(&self) -> usize {
        self.mean.len()
    }

    /// The mean of each element.
    pub fn means(&self) -> &[f64] {
        &self.mean
    }

    /// The standard deviation that each element is divided by.
    pub fn deviations(&self) -> Vec<f64> {
        (0..self.len()).map(|j| self.scale(j)).collect()
    }

    /// Whether rows have no elements.
    pub fn is_empty(&self) -> bool {
        self.mean.is_empty()
    }

    /// Whether both have the same number of means and of variances: a loaded state may have any.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.mean.len(), self.variance.len()) == (other.mean.len(), other.variance.len())
    }

    /// Updates the statistics with consecutive rows: the combined variance of two sets (Chan, Golub & LeVeque 1979).
    pub fn update<T: Copy + Into<f64>>(&mut self, rows: &[T]) {
        if rows.is_empty() {
            return;
        }
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

    /// The standard deviation of element `j`.
    fn scale(&self, j: usize) -> f64 {
        (self.variance[j] + EPSILON).sqrt()
    }

    fn normalized(&self, j: usize, x: f32) -> f32 {
        ((f64::from(x) - self.mean[j]) / self.scale(j)).clamp(-LIMIT, LIMIT) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows (0, 10), (2, 30), (4, 50): means 2 and 30, variances 8/3 and 800/3.
    fn moments() -> Moments {
        let mut moments = Moments { mean: vec![0.0; 2], variance: vec![1.0; 2], count: 0.0 };
        moments.update(&[0.0_f32, 10.0]);
        moments.update(&[2.0_f32, 30.0, 4.0, 50.0]);
        moments
    }

    #[test]
    fn moments_by_hand() {
        let m = moments();
        assert_eq!(m.mean, [2.0, 30.0]);
        assert!((m.variance[0] - 8.0 / 3.0).abs() < 1e-12 && (m.variance[1] - 800.0 / 3.0).abs() < 1e-9);
    }

    /// Two elements with two stacked frames each: (2, 4) of the first and (30, 10) of the second.
    #[test]
    fn each_element_is_normalized_by_its_own_statistics() {
        let normalizer = Normalizer { observations: Some(moments()), returns: None };
        let mut values = [2.0, 4.0, 30.0, 10.0];
        normalizer.observations(&mut values, 2);
        let (a, b) = ((8.0_f32 / 3.0).sqrt(), (800.0_f32 / 3.0).sqrt());
        for (value, expected) in values.iter().zip([0.0, 2.0 / a, 0.0, -20.0 / b]) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
        let mut far = [1e6, 30.0];
        normalizer.observations(&mut far, 1);
        assert_eq!(far, [10.0, 0.0]);
        assert_eq!(normalizer.reward(7.0), 7.0);
    }

    #[test]
    fn a_reward_is_divided_and_not_shifted() {
        let mut returns = Moments { mean: vec![0.0], variance: vec![1.0], count: 0.0 };
        returns.update(&[1.0_f64, 5.0]); // mean 3, variance 4
        let normalizer = Normalizer { observations: None, returns: Some(returns) };
        assert!((normalizer.reward(3.0) - 1.5).abs() < 1e-6);
        assert_eq!(normalizer.reward(-1e9), -10.0);
    }
}
