//! Log-probabilities and entropies of policies, and the two losses of an actor and a critic.
//!
//! Softmax and logarithm are one operation: log(softmax(x) + ε) would lose what it is meant to save.

use std::f64::consts::PI;
use tch::{Kind, Tensor};

/// The log-probability of each action under a categorical policy. `logits` `[n, k]`, `actions` `[n]` (`i64`) → `[n]`.
pub fn categorical_log_prob(logits: &Tensor, actions: &Tensor) -> Tensor {
    logits.log_softmax(-1, Kind::Float).gather(1, &actions.unsqueeze(1), false).squeeze_dim(1)
}

/// The entropy −Σ π log π, in nats. `logits` `[n, k]` → `[n]`.
pub fn categorical_entropy(logits: &Tensor) -> Tensor {
    let log_pi = logits.log_softmax(-1, Kind::Float);
    // An impossible action (log π = −∞) adds nothing: 0 · −∞ would be NaN.
    -(log_pi.exp() * log_pi.clamp_min(f64::from(f32::MIN))).sum_dim_intlist(-1, false, Kind::Float)
}

/// The log-density of each action under a diagonal Gaussian. `mean`, `actions` `[n, dim]`, `log_std` `[dim]` → `[n]`.
pub fn gaussian_log_prob(mean: &Tensor, log_std: &Tensor, actions: &Tensor) -> Tensor {
    let z = (actions - mean) / log_std.exp();
    (z.square() * -0.5 - log_std - 0.5 * (2.0 * PI).ln()).sum_dim_intlist(-1, false, Kind::Float)
}

/// The differential entropy of a diagonal Gaussian, ½ log(2πe) + log σ summed over dimensions: a scalar.
pub fn gaussian_entropy(log_std: &Tensor) -> Tensor {
    (log_std + 0.5 * (1.0 + (2.0 * PI).ln())).sum(Kind::Float)
}

/// The policy gradient's loss, mean(−log π(a)·A) (Williams 1992; Mnih et al. 2016, section 4). The advantage is a
/// constant here. Both `[n]`; returns a scalar.
pub fn policy_loss(log_prob: &Tensor, advantage: &Tensor) -> Tensor {
    -(log_prob * advantage.detach()).mean(Kind::Float)
}

/// The critic's loss, mean((G − V)²). Both `[n]`; returns a scalar.
pub fn value_loss(value: &Tensor, returns: &Tensor) -> Tensor {
    (returns.detach() - value).square().mean(Kind::Float)
}

/// The share of the returns' variance that the values explain, 1 − Var(G − V)/Var(G); NaN where G is constant.
pub fn explained_variance(value: &Tensor, returns: &Tensor) -> f64 {
    1.0 - (returns - value).var(false).double_value(&[]) / returns.var(false).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::LN_2;

    fn assert_close(actual: &Tensor, expected: &[f64], tolerance: f64) {
        let difference = (actual.flatten(0, -1) - Tensor::from_slice(expected)).abs().max().double_value(&[]);
        assert!(difference < tolerance, "{actual:?}: off by {difference}");
    }

    /// π = (¼, ¾) has log-probabilities (−1.386294, −.287682) and entropy .562335; a uniform one over two has log 2.
    #[test]
    fn categorical_by_hand() {
        let logits = Tensor::from_slice2(&[[0.0_f32, 3.0_f32.ln()], [7.0, 7.0]]);
        let log_prob = categorical_log_prob(&logits, &Tensor::from_slice(&[0_i64, 1]));
        assert_close(&log_prob, &[-1.386_294_361, -LN_2], 1e-6);
        assert_close(&categorical_entropy(&logits), &[0.562_335_145, LN_2], 1e-6);
    }

    /// Where log(softmax + ε) breaks: logits of ±1e4.
    #[test]
    fn huge_logits_stay_finite() {
        let logits = Tensor::from_slice2(&[[1e4_f32, -1e4], [-1e4, 1e4]]);
        assert_close(&categorical_log_prob(&logits, &Tensor::from_slice(&[1_i64, 1])), &[-2e4, 0.0], 1e-6);
        assert_close(&categorical_entropy(&logits), &[0.0, 0.0], 1e-6);
        let naive = logits.softmax(-1, Kind::Float).log();
        assert!(naive.isinf().any().int64_value(&[]) == 1, "the naive form is expected to break here");
    }

    /// N(1, 2²) at 3 has log-density −½ − log 2 − ½ log 2π = −2.112086; its entropy is ½ log(2πe·4) = 2.112086. A second
    /// dimension N(0, 1) at 0 adds −.918939 and 1.418939.
    #[test]
    fn gaussian_by_hand() {
        let (mean, log_std) = (Tensor::from_slice2(&[[1.0_f32, 0.0]]), Tensor::from_slice(&[2.0_f32.ln(), 0.0]));
        let log_prob = gaussian_log_prob(&mean, &log_std, &Tensor::from_slice2(&[[3.0_f32, 0.0]]));
        assert_close(&log_prob, &[-3.031_024_247], 1e-5);
        assert_close(&gaussian_entropy(&log_std), &[3.531_024_247], 1e-5);
    }

    /// The gradient of mean(−log π·A) for a softmax is (π − onehot)·A/n: nothing flows into A or the return.
    #[test]
    fn gradients_by_hand() {
        let logits = Tensor::from_slice2(&[[0.0_f32, 3.0_f32.ln()]]).set_requires_grad(true);
        let advantage = Tensor::from_slice(&[2.0_f32]).set_requires_grad(true);
        policy_loss(&categorical_log_prob(&logits, &Tensor::from_slice(&[0_i64])), &advantage).backward();
        assert_close(&logits.grad(), &[-1.5, 1.5], 1e-6);
        assert!(!advantage.grad().defined());
        let (value, returns) =
            (Tensor::from_slice(&[1.0_f32, 2.0]).set_requires_grad(true), Tensor::from_slice(&[3.0_f32, 2.0]));
        value_loss(&value, &returns).backward();
        assert_close(&value.grad(), &[-2.0, 0.0], 1e-6);
        assert!((explained_variance(&value.detach(), &returns) - (1.0 - 1.0 / 0.25)).abs() < 1e-6);
    }
}
