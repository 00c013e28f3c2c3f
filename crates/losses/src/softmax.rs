//! Softmax, its logarithm and cross-entropy, each in one operation.
//!
//! `log softmax(z)_i = z_i − m − log Σ_j exp(z_j − m)`, with m = max z: no exponential overflows, and the sum is at least 1. In two
//! steps, the softmax of a far smaller logit rounds to 0, its logarithm is −∞, and, through 0 · ∞, every gradient is NaN. An ε inside
//! the logarithm ([`log_plus`]) keeps such a loss finite but bounded by −log ε, with a gradient of 0 where it should be largest: use it
//! only for probabilities without logits.

use tch::{Kind, Tensor};

/// Log-probabilities of `logits` `[…, classes]`, in `f32` at least.
pub fn log_softmax(logits: &Tensor) -> Tensor {
    logits.log_softmax(-1, if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float })
}

/// −log π(label) of each row. `logits` `[n, classes]`, `labels` `[n]` in `i64`; returns `[n]`.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    -log_softmax(logits).gather(1, &labels.unsqueeze(1), false).squeeze_dim(1)
}

/// log(p + ε), for probabilities that may be 0.
pub fn log_plus(p: &Tensor, eps: f64) -> Tensor {
    (p + eps).log()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.to_kind(Kind::Double).contiguous().view([-1])).unwrap()
    }

    fn naive(logits: &Tensor, labels: &Tensor) -> Tensor {
        -logits
            .exp()
            .divide(&logits.exp().sum_dim_intlist([-1_i64].as_slice(), true, None::<Kind>))
            .log()
            .gather(1, &labels.unsqueeze(1), false)
            .squeeze_dim(1)
    }

    /// By hand: softmax(0, ln 3) = (¼, ¾), and a gradient of π − onehot.
    #[test]
    fn by_hand() {
        let logits = Tensor::from_slice2(&[[0.0, 3.0_f64.ln()]]).set_requires_grad(true);
        let loss = cross_entropy(&logits, &Tensor::from_slice(&[0_i64]));
        assert!((values(&loss)[0] - 4.0_f64.ln()).abs() < 1e-15);
        loss.sum(Kind::Double).backward();
        for (g, expected) in values(&logits.grad()).iter().zip([-0.75, 0.75]) {
            assert!((g - expected).abs() < 1e-15);
        }
    }

    /// The last of three dimensions are the classes: ln(¼), ln(¾) whatever the others are.
    #[test]
    fn the_classes_are_the_last_dimension() {
        let logits = Tensor::from_slice(&[0.0, 3.0_f64.ln()]).expand([2, 3, 2], false);
        for pair in values(&log_softmax(&logits)).chunks(2) {
            assert!((pair[0] - 0.25_f64.ln()).abs() < 1e-15 && (pair[1] - 0.75_f64.ln()).abs() < 1e-15, "{pair:?}");
        }
    }

    /// Logits of ±1e4: the loss is the difference of logits and the gradient π − onehot, where the naive form overflows.
    #[test]
    fn large_logits_stay_finite() {
        let row = [1e4_f32, -1e4, 0.0];
        let labels = Tensor::from_slice(&[0_i64, 1, 2]);
        let logits = || Tensor::from_slice2(&[row, row, row]).set_requires_grad(true);
        let fused = logits();
        let loss = cross_entropy(&fused, &labels);
        assert_eq!(values(&loss), [0.0, 2e4, 1e4]);
        loss.sum(Kind::Float).backward();
        assert_eq!(values(&fused.grad()), [0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 1.0, 0.0, -1.0]);

        let two_steps = logits();
        let loss = naive(&two_steps, &labels);
        assert!(values(&loss).iter().any(|l| !l.is_finite()), "{loss}");
        loss.sum(Kind::Float).backward();
        assert!(values(&two_steps.grad()).iter().any(|g| g.is_nan()));
        // Where nothing overflows or vanishes, they agree.
        let small = Tensor::from_slice2(&[[1.0, -2.0, 0.5], [0.0, 0.1, 0.2], [3.0, 3.0, 3.0]]);
        for (a, b) in values(&cross_entropy(&small, &labels)).iter().zip(values(&naive(&small, &labels))) {
            assert!((a - b).abs() < 1e-14);
        }
    }

    /// ε inside the logarithm: finite at 0, and negligible elsewhere.
    #[test]
    fn epsilon_inside_the_logarithm() {
        let logs = values(&log_plus(&Tensor::from_slice(&[0.0, 0.5, 1.0]), 1e-6));
        for (log, expected) in logs.iter().zip([1e-6_f64.ln(), 0.500_001_f64.ln(), 1.000_001_f64.ln()]) {
            assert!((log - expected).abs() < 1e-12);
        }
    }
}
