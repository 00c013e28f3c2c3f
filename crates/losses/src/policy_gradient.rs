//! The losses of an actor and a critic.

use tch::{Kind, Reduction, Tensor};

/// The policy gradient's loss, mean(−log π(a)·A) (Williams 1992; Mnih et al. 2016, section 4). The advantage is a
/// constant here. Both `[n]`; returns a scalar.
pub fn policy_loss(log_prob: &Tensor, advantage: &Tensor) -> Tensor {
    -(log_prob * advantage.detach()).mean(Kind::Float)
}

/// The critic's loss, mean((G − V)²). Both `[n]`; returns a scalar.
pub fn value_loss(value: &Tensor, returns: &Tensor) -> Tensor {
    value.mse_loss(&returns.detach(), Reduction::Mean)
}

/// The clipped objective of PPO as a loss, −mean(min(r·A, clip(r, 1 − ε, 1 + ε)·A)) with the probability ratio r = exp(`log_ratio`) of
/// the new policy and the one that acted (Schulman et al. 2017, equation 7). Both `[n]`; `clip_range`: ε. Returns a scalar.
pub fn clipped_policy_loss(log_ratio: &Tensor, advantage: &Tensor, clip_range: f64) -> Tensor {
    let (ratio, advantage) = (log_ratio.exp(), advantage.detach());
    let clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range);
    -(ratio * &advantage).min_other(&(clipped * &advantage)).mean(Kind::Float)
}

/// The critic's loss where a value may move by at most `clip_range` from `old_value`, its value when the action was selected:
/// mean(max((G − V)², (G − V_clipped)²)) (ppo2 of OpenAI's Baselines; not in the paper). All `[n]`; returns a scalar.
pub fn clipped_value_loss(value: &Tensor, old_value: &Tensor, returns: &Tensor, clip_range: f64) -> Tensor {
    let clipped = old_value + (value - old_value).clamp(-clip_range, clip_range);
    let error = |value: &Tensor| (returns.detach() - value).square();
    error(value).max_other(&error(&clipped)).mean(Kind::Float)
}

/// An estimate of KL(old ‖ new) from samples of the old policy, mean((r − 1) − log r), unbiased and never negative (Schulman 2020,
/// *Approximating KL Divergence*). `log_ratio`: `[n]`. Returns a scalar.
pub fn approximate_kl(log_ratio: &Tensor) -> Tensor {
    let log_ratio = log_ratio.detach();
    (log_ratio.expm1() - log_ratio).mean(Kind::Float)
}

/// The fraction of the ratios exp(`log_ratio`) that lie outside 1 ± `clip_range`. `log_ratio`: `[n]`. Returns a scalar.
pub fn clip_fraction(log_ratio: &Tensor, clip_range: f64) -> Tensor {
    log_ratio.detach().expm1().abs().gt(clip_range).to_kind(Kind::Float).mean(Kind::Float)
}

/// `advantage` `[n]` with mean 0 and standard deviation 1; zeros where all are equal.
pub fn normalize(advantage: &Tensor) -> Tensor {
    (advantage - advantage.mean(Kind::Float)) / (advantage.std(false) + 1e-8)
}

/// The fraction of the returns' variance that the values explain, 1 − Var(G − V)/Var(G); NaN where G is constant.
pub fn explained_variance(value: &Tensor, returns: &Tensor) -> f64 {
    1.0 - (returns - value).var(false).double_value(&[]) / returns.var(false).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(actual: &Tensor, expected: &[f64], tolerance: f64) {
        let difference = (actual.flatten(0, -1) - Tensor::from_slice(expected)).abs().max().double_value(&[]);
        assert!(difference < tolerance, "{actual:?}: off by {difference}");
    }

    /// ε = .2. Ratios 1, 1.5, 1.5, .5, .5 with advantages 2, 2, −2, 2, −2: the terms min(r·A, clip(r)·A) are 2, 2.4, −3, 1, −1.6. The
    /// gradient by log r is −r·A/5 where the unclipped term is the smaller, else 0.
    #[test]
    fn the_clipped_objective_by_hand() {
        let ratios = [1.0_f32, 1.5, 1.5, 0.5, 0.5];
        let log_ratio = Tensor::from_slice(&ratios.map(f32::ln)).set_requires_grad(true);
        let advantage = Tensor::from_slice(&[2.0_f32, 2.0, -2.0, 2.0, -2.0]);
        let loss = clipped_policy_loss(&log_ratio, &advantage, 0.2);
        assert_close(&loss, &[-(2.0 + 2.4 - 3.0 + 1.0 - 1.6) / 5.0], 1e-6);
        loss.backward();
        assert_close(&log_ratio.grad(), &[-0.4, 0.0, 0.6, -0.2, 0.0], 1e-6);
        assert_close(&clip_fraction(&log_ratio, 0.2), &[0.8], 1e-6);
        let kl = ratios.map(|r| f64::from(r) - 1.0 - f64::from(r).ln());
        assert_close(&approximate_kl(&log_ratio), &[kl.iter().sum::<f64>() / 5.0], 1e-6);
    }

    /// ε = .5. Value 3, old value 1 (clipped to 1.5) and return 4: max(1, 6.25), no gradient. Value 1.2, old value 1 (not clipped)
    /// and return 2: .64, gradient −1.6/5. Value 3, old value 1 and return 1: max(4, .25), gradient 4/5. Value and return 1.2, old
    /// value 1 (not clipped): 0. Value and return 0, old value 1 (clipped to .5): max(0, .25), no gradient.
    #[test]
    fn the_clipped_value_loss_by_hand() {
        let value = Tensor::from_slice(&[3.0_f32, 1.2, 3.0, 1.2, 0.0]).set_requires_grad(true);
        let (old, returns) = (Tensor::from_slice(&[1.0_f32; 5]), Tensor::from_slice(&[4.0_f32, 2.0, 1.0, 1.2, 0.0]));
        let loss = clipped_value_loss(&value, &old, &returns, 0.5);
        assert_close(&loss, &[(6.25 + 0.64 + 4.0 + 0.25) / 5.0], 1e-6);
        loss.backward();
        assert_close(&value.grad(), &[0.0, -1.6 / 5.0, 4.0 / 5.0, 0.0, 0.0], 1e-6);
    }

    #[test]
    fn normalized_advantages_have_mean_0_and_deviation_1() {
        assert_close(&normalize(&Tensor::from_slice(&[1.0_f32, 5.0])), &[-1.0, 1.0], 1e-6);
        assert_close(&normalize(&Tensor::from_slice(&[2.0_f32, 2.0])), &[0.0, 0.0], 1e-6);
    }

    /// The gradient of mean(−log π·A) for a softmax is (π − onehot)·A/n: nothing flows into A or the return.
    #[test]
    fn gradients_by_hand() {
        let logits = Tensor::from_slice2(&[[0.0_f32, 3.0_f32.ln()]]).set_requires_grad(true);
        let advantage = Tensor::from_slice(&[2.0_f32]).set_requires_grad(true);
        let log_prob = logits.log_softmax(-1, Kind::Float).get(0).narrow(0, 0, 1);
        policy_loss(&log_prob, &advantage).backward();
        assert_close(&logits.grad(), &[-1.5, 1.5], 1e-6);
        assert!(!advantage.grad().defined());
        let (value, returns) =
            (Tensor::from_slice(&[1.0_f32, 2.0]).set_requires_grad(true), Tensor::from_slice(&[3.0_f32, 2.0]));
        value_loss(&value, &returns).backward();
        assert_close(&value.grad(), &[-2.0, 0.0], 1e-6);
        assert!((explained_variance(&value.detach(), &returns) - (1.0 - 1.0 / 0.25)).abs() < 1e-6);
        // Errors 1, 2, 1 with variance 2/9; returns 2, 4, 5 with variance 14/9.
        let [value, returns] = [[1.0_f32, 2.0, 4.0], [2.0, 4.0, 5.0]].map(|v| Tensor::from_slice(&v));
        assert!((explained_variance(&value, &returns) - (1.0 - 2.0 / 14.0)).abs() < 1e-6);
    }
}
