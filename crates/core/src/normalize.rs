//! Normalization of observations and rewards by running statistics, as in Stable-Baselines3's `VecNormalize`.
//!
//! - an observation becomes `(o − mean) / sqrt(variance + 1e-8)`, clipped at ±10, each element by its own statistics;
//! - a reward becomes `r / sqrt(variance + 1e-8)`, clipped at ±10, with the variance of the discounted return. The mean is not
//!   subtracted: that would change the sign of rewards.
//!
//! The statistics change during training. Data that is stored for long (transitions in a replay buffer) is stored raw, and
//! normalized when it is used.

use crate::Result;
use crate::group::{Group, Reduce};
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

    /// The statistics of what every rank of `group` has observed since they were `base`, which is the same on every rank. All ranks get
    /// the same bits.
    ///
    /// # Errors
    /// [`Error::Group`](crate::Error::Group).
    pub fn merged(&self, base: &Self, group: &dyn Group) -> Result<Self> {
        let parts = || [(&self.observations, &base.observations), (&self.returns, &base.returns)];
        let mut sums: Vec<f64> = Vec::new();
        for (current, base) in parts() {
            if let (Some(current), Some(base)) = (current, base) {
                sums.extend(current.sums(&base.mean));
            }
        }
        group.all_reduce(&mut sums, Reduce::Sum)?;
        let (mut sums, ranks) = (sums.into_iter(), group.world_size() as f64);
        // Each rank's sums contain those of `base`: they count once.
        let mut merge = |base: &Moments| {
            let own = base.sums(&base.mean);
            let merged: Vec<f64> = own.iter().zip(&mut sums).map(|(own, sum)| sum - (ranks - 1.0) * own).collect();
            Moments::from_sums(&merged, &base.mean)
        };
        let [observations, returns] = parts().map(|(_, base)| base.as_ref().map(&mut merge));
        Ok(Self { observations, returns })
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

    /// Whether both have the same number of means and of variances, and `other` has no negative variance or number of rows: a loaded
    /// state may have any.
    pub fn is_like(&self, other: &Self) -> bool {
        let is_valid = other.count >= 0.0 && other.variance.iter().all(|variance| *variance >= 0.0);
        is_valid && (self.mean.len(), self.variance.len()) == (other.mean.len(), other.variance.len())
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

    /// The number of rows, then the sum of each element's deviations from `center`, then of their squares.
    fn sums(&self, center: &[f64]) -> Vec<f64> {
        let shifts: Vec<f64> = self.mean.iter().zip(center).map(|(mean, center)| mean - center).collect();
        let first = shifts.iter().map(|shift| self.count * shift);
        let second = shifts.iter().zip(&self.variance).map(|(shift, variance)| self.count * (variance + shift * shift));
        [self.count].into_iter().chain(first).chain(second).collect()
    }

    /// The statistics with these [`sums`](Self::sums).
    fn from_sums(sums: &[f64], center: &[f64]) -> Self {
        let (count, (first, second)) = (sums[0], sums[1..].split_at(center.len()));
        let mean = first.iter().zip(center).map(|(sum, center)| center + sum / count).collect();
        let variance = first.iter().zip(second).map(|(first, second)| second / count - (first / count).powi(2));
        Self { mean, variance: variance.map(|v| v.max(0.0)).collect(), count }
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
    use std::sync::Mutex;

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
        assert_eq!((m.means(), m.len()), (&[2.0, 30.0][..], 2));
        assert!((m.variance[0] - 8.0 / 3.0).abs() < 1e-12 && (m.variance[1] - 800.0 / 3.0).abs() < 1e-9);
    }

    /// An element that never changes is divided by √ε, and not by 0.
    #[test]
    fn a_constant_element_has_a_positive_scale() {
        let mut constant = Moments { mean: vec![0.0], variance: vec![1.0], count: 0.0 };
        constant.update(&[3.0_f32, 3.0]);
        assert_eq!(constant.deviations(), [EPSILON.sqrt()]);
        assert_eq!((constant.is_empty(), Moments::new(0).is_empty()), (false, true));
    }

    /// Statistics of another size, and damaged ones, are told apart.
    #[test]
    fn statistics_of_another_size_are_not_alike() {
        let moments = moments();
        assert!(moments.is_like(&Moments::new(2)));
        assert!(!moments.is_like(&Moments::new(3)));
        assert!(!moments.is_like(&Moments { variance: vec![1.0], ..Moments::new(2) }));
        assert!(!moments.is_like(&Moments { variance: vec![1.0, -1.0], ..Moments::new(2) }));
        assert!(!moments.is_like(&Moments { count: -1.0, ..Moments::new(2) }));
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

    /// One of two ranks: it keeps what it sends, and adds what the other has sent.
    #[derive(Debug, Default)]
    struct Rank {
        sent: Mutex<Vec<f64>>,
        other: Vec<f64>,
    }

    impl Group for Rank {
        fn rank(&self) -> usize {
            0
        }
        fn world_size(&self) -> usize {
            2
        }
        fn all_reduce(&self, values: &mut [f64], _: Reduce) -> Result<()> {
            *self.sent.lock().unwrap() = values.to_vec();
            values.iter_mut().zip(&self.other).for_each(|(value, other)| *value += other);
            Ok(())
        }
        fn sum(&self, _: &mut [f32], _: crate::group::GradientPrecision) -> Result<()> {
            unreachable!()
        }
        fn broadcast(&self, _: &mut Vec<u8>) -> Result<()> {
            unreachable!()
        }
        fn gather(&self, _: Vec<u8>) -> Result<Vec<Vec<u8>>> {
            unreachable!()
        }
    }

    /// Statistics of three rows, then of one on this rank and two on the other: those of all six, the common three counted once. The
    /// second element is far from 0.
    #[test]
    fn merged_statistics_are_those_of_all_rows() {
        let of = |rows: &[&[f32]]| {
            let mut observations = Moments::new(2);
            rows.iter().for_each(|rows| observations.update(rows));
            Normalizer { observations: Some(observations), returns: None }
        };
        let common: &[f32] = &[0.5, 1000.0, -2.0, 1001.0, 3.0, 1004.0];
        let (own, others): (&[f32], &[f32]) = (&[7.0, 1010.0], &[-1.0, 990.0, 4.0, 1003.0]);
        let (base, other) = (of(&[common]), Rank::default());
        of(&[common, others]).merged(&base, &other).unwrap();
        let rank = Rank { other: other.sent.into_inner().unwrap(), ..Rank::default() };
        let merged = of(&[common, own]).merged(&base, &rank).unwrap().observations.unwrap();
        let expected = of(&[common, own, others]).observations.unwrap();
        assert_eq!(merged.count, expected.count);
        for j in 0..2 {
            assert!((merged.mean[j] - expected.mean[j]).abs() < 1e-9, "{merged:?}, {expected:?}");
            assert!((merged.variance[j] / expected.variance[j] - 1.0).abs() < 1e-9, "{merged:?}, {expected:?}");
        }
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
