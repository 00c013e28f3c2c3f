//! Q-learning: targets, and losses of the temporal-difference error.
//!
//! A target is a constant: no gradient flows into it. Values and errors are per transition, so that importance weights multiply a
//! transition's *loss* (a weight of the error would be squared with it).

use tch::{Kind, Tensor};

/// The values of the actions taken. `q` `[n, k]`, `actions` `[n]` (`i64`) → `[n]`.
pub fn chosen(q: &Tensor, actions: &Tensor) -> Tensor {
    q.gather(1, &actions.unsqueeze(1), false).squeeze_dim(1)
}

/// r + γ·Q(s′, argmax Q̂(s′, ·)): one network selects the action, the other evaluates it. `q_t` is the target
/// network's. If it also selects (`q_t_selector` = `q_t`), this is r + γ·max Q(s′, ·) (Watkins 1989; Mnih et al. 2015,
/// equation 1); if the online network selects, it is double Q-learning (van Hasselt, Guez and Silver 2016, equation 4).
/// `r_t`, `discount_t` `[n]`, `q_t`, `q_t_selector` `[n, k]` → `[n]`.
pub fn q_target(r_t: &Tensor, discount_t: &Tensor, q_t: &Tensor, q_t_selector: &Tensor) -> Tensor {
    (r_t + discount_t * chosen(q_t, &q_t_selector.argmax(1, false))).detach()
}

/// `values` with −∞ for each invalid action of `mask`, so that neither a maximum nor an argmax is one; `values` where `mask` is empty.
/// `[n, actions]` → `[n, actions]`.
pub fn masked(values: &Tensor, mask: &[bool]) -> Tensor {
    if mask.is_empty() {
        return values.shallow_clone();
    }
    let invalid: Vec<bool> = mask.iter().map(|valid| !valid).collect();
    let invalid = Tensor::from_slice(&invalid).to_device(values.device()).view_as(values);
    values.masked_fill(&invalid, f64::NEG_INFINITY)
}

/// ½δ² up to |δ| = `bound` and linear beyond, so that the gradient is δ clipped to ±`bound` (Huber 1964; the clipped error
/// of Mnih et al. 2015). `[n]` → `[n]`.
pub fn huber(error: &Tensor, bound: f64) -> Tensor {
    let size = error.abs();
    let quadratic = size.clamp_max(bound);
    quadratic.square() * 0.5 + (size - quadratic) * bound
}

/// ½δ². `[n]` → `[n]`.
pub fn squared(error: &Tensor) -> Tensor {
    error.square() * 0.5
}

/// Σ w·loss of per-transition losses and importance weights, both `[n]` (Schaul et al. 2016, algorithm 1) → a scalar.
pub fn weighted_sum(losses: &Tensor, weights: &Tensor) -> Tensor {
    (losses * weights.detach()).sum(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(actual: &Tensor, expected: &[f64]) {
        let difference = (actual.flatten(0, -1) - Tensor::from_slice(expected)).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "{actual:?}: off by {difference}");
    }

    #[test]
    fn invalid_actions_have_the_value_minus_infinity() {
        let q = Tensor::from_slice2(&[[1.0_f32, 2.0], [3.0, 4.0]]);
        let masked = |mask: &[bool]| Vec::<f32>::try_from(masked(&q, mask).flatten(0, -1)).unwrap();
        assert_eq!(masked(&[true, false, false, true]), [1.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 4.0]);
        assert_eq!(masked(&[]), [1.0, 2.0, 3.0, 4.0], "no mask: every action is valid");
    }

    fn case() -> (Tensor, Tensor, Tensor, Tensor) {
        let r_t = Tensor::from_slice(&[1.0_f32, 2.0, 3.0]);
        let discount_t = Tensor::from_slice(&[0.5_f32, 0.0, 0.9]);
        let q_t = Tensor::from_slice2(&[[4.0_f32, 1.0], [9.0, 9.0], [-1.0, -2.0]]);
        let selector = Tensor::from_slice2(&[[0.0_f32, 1.0], [1.0, 0.0], [2.0, 1.0]]);
        (r_t, discount_t, q_t, selector)
    }

    /// 1 + .5·4; 2 (terminal); 3 − .9·1. Double: the selector takes action 1, then 0, 0: 1 + .5·1; 2; 3 − .9·1.
    #[test]
    fn targets_by_hand() {
        let (r, d, q, selector) = case();
        assert_close(&q_target(&r, &d, &q, &q), &[3.0, 2.0, 2.1]);
        assert_close(&q_target(&r, &d, &q, &selector), &[1.5, 2.0, 2.1]);
        assert_close(&chosen(&q, &Tensor::from_slice(&[1_i64, 0, 1])), &[1.0, 9.0, -2.0]);
    }

    #[test]
    fn no_gradient_flows_into_a_target() {
        let (r, d, q, selector) = case();
        let (q, selector) = (q.set_requires_grad(true), selector.set_requires_grad(true));
        assert!(!q_target(&r, &d, &q, &selector).requires_grad());
    }

    /// Huber with bound 1: 0; ½·.25; ½; 2 − ½; and the gradient is the error clipped to ±1. With bound 2: 2·3 − 2.
    #[test]
    fn losses_and_their_gradients_by_hand() {
        let error = Tensor::from_slice(&[0.0_f32, -0.5, 1.0, 2.0, -3.0]).set_requires_grad(true);
        assert_close(&huber(&error, 1.0), &[0.0, 0.125, 0.5, 1.5, 2.5]);
        assert_close(&huber(&error, 2.0), &[0.0, 0.125, 0.5, 2.0, 4.0]);
        assert_close(&squared(&error), &[0.0, 0.125, 0.5, 2.0, 4.5]);
        huber(&error, 1.0).sum(Kind::Float).backward();
        assert_close(&error.grad(), &[0.0, -0.5, 1.0, 1.0, -1.0]);
    }

    /// Weights multiply the loss: (1·½ + .5·1.5)/2, and so the *clipped* gradient: (1·1, .5·1)/2.
    #[test]
    fn weights_multiply_the_clipped_gradient() {
        let error = Tensor::from_slice(&[1.0_f32, 2.0]).set_requires_grad(true);
        let loss = weighted_sum(&huber(&error, 1.0), &Tensor::from_slice(&[1.0_f32, 0.5]));
        assert_close(&loss, &[1.25]);
        loss.backward();
        assert_close(&error.grad(), &[1.0, 0.5]);
    }
}
