//! The losses of an actor and a critic.

use tch::{Kind, Tensor};

/// The policy gradient's loss, mean(−log π(a)·A) (Williams 1992; Mnih et al. 2016, section 4). The advantage is a
/// constant here. Both `[n]`; returns a scalar.
pub fn policy_loss(log_prob: &Tensor, advantage: &Tensor) -> Tensor {
    -(log_prob * advantage.detach()).mean(Kind::Float)
}

/// The critic's loss, mean((G − V)²). Both `[n]`; returns a scalar.
pub fn value_loss(value: &Tensor, returns: &Tensor) -> Tensor {
    (returns.detach() - value).square().mean(Kind::Float)
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
    }
}
