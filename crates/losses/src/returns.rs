//! Returns and advantages over a rollout.

use tch::Tensor;

/// n-step returns: `G_t = r_t + discount_t · G_{t+1}`, with `G_T = bootstrap` (Mnih et al. 2016, algorithm S3).
///
/// Every step of the rollout gets the longest return that fits. Where an episode is truncated inside the rollout, the reward of that
/// step includes `γ·V(final observation)`, and its discount is 0.
///
/// `r_t`, `discount_t`: `[T, n]`; `bootstrap`: `[n]`, the value after the last step. Returns `[T, n]`.
pub fn n_step(r_t: &Tensor, discount_t: &Tensor, bootstrap: &Tensor) -> Tensor {
    discounted_sums(r_t, discount_t, bootstrap.shallow_clone())
}

/// Generalized advantages: `A_t = δ_t + discount_t · λ · A_{t+1}`, `δ_t = r_t + discount_t · V_{t+1} − V_t` (Schulman et
/// al. 2016, equation 16). With λ = 1, `A + V` is [`n_step`].
///
/// `r_t`, `discount_t`, `v_tm1` (the values *before* each step): `[T, n]`; `bootstrap`: `[n]`. Returns `[T, n]`.
pub fn gae(r_t: &Tensor, discount_t: &Tensor, v_tm1: &Tensor, bootstrap: &Tensor, lambda: f64) -> Tensor {
    let v_t = Tensor::cat(&[&v_tm1.narrow(0, 1, v_tm1.size()[0] - 1), &bootstrap.unsqueeze(0)], 0);
    let delta_t = r_t + discount_t * v_t - v_tm1;
    discounted_sums(&delta_t, &(discount_t * lambda), bootstrap.zeros_like())
}

/// `S_t = x_t + discount_t · S_{t+1}` from `S_T = last`: `[T, n]`.
fn discounted_sums(x_t: &Tensor, discount_t: &Tensor, last: Tensor) -> Tensor {
    let steps = x_t.unbind(0).into_iter().zip(discount_t.unbind(0)).rev();
    let mut sums: Vec<_> = steps
        .scan(last, |sum, (x, discount)| {
            *sum = x.addcmul(&discount, sum);
            Some(sum.shallow_clone())
        })
        .collect();
    sums.reverse();
    Tensor::stack(&sums, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(actual: &Tensor, expected: &[f64]) {
        let expected = Tensor::from_slice(expected);
        let difference = (actual.flatten(0, -1) - expected).abs().max().double_value(&[]);
        assert!(difference < 1e-12, "{actual:?} differs by {difference}");
    }

    /// By hand, γ = .5, V after the end 8: an episode that continues, one that terminates at the second step, and one that
    /// is truncated there with V(final) = 6.
    #[test]
    fn n_step_bootstraps_through_truncation_and_not_through_termination() {
        let (r, d) = ([1.0, 2.0 + 0.5 * 6.0, 3.0], [0.5, 0.0, 0.5]);
        let columns = |a: [f64; 3], b: [f64; 3], c: [f64; 3]| {
            Tensor::from_slice2(&[[a[0], b[0], c[0]], [a[1], b[1], c[1]], [a[2], b[2], c[2]]])
        };
        let r_t = columns([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], r);
        let discount_t = columns([0.5; 3], [0.5, 0.0, 0.5], d);
        let g = n_step(&r_t, &discount_t, &Tensor::from_slice(&[8.0, 8.0, 8.0]));
        // 3 + .5·8 = 7; 2 + .5·7 = 5.5; 1 + .5·5.5 = 3.75  |  7; 2; 2  |  7; 2 + .5·6 = 5; 1 + .5·5 = 3.5
        assert_close(&g, &[3.75, 2.0, 3.5, 5.5, 2.0, 5.0, 7.0, 7.0, 7.0]);
    }

    /// By hand, γ = .5, λ = .5, V = (1, 2), V after the end 4: δ = (1 + 1 − 1, 2 + 2 − 2) = (1, 2).
    #[test]
    fn gae_by_hand_and_at_its_two_ends() {
        let r_t = Tensor::from_slice(&[1.0, 2.0]).view([2, 1]);
        let discount_t = Tensor::from_slice(&[0.5, 0.5]).view([2, 1]);
        let v = Tensor::from_slice(&[1.0, 2.0]).view([2, 1]);
        let bootstrap = Tensor::from_slice(&[4.0]);
        assert_close(&gae(&r_t, &discount_t, &v, &bootstrap, 0.5), &[1.5, 2.0]);
        assert_close(&gae(&r_t, &discount_t, &v, &bootstrap, 0.0), &[1.0, 2.0]);
        let n_step = n_step(&r_t, &discount_t, &bootstrap);
        assert_close(&(gae(&r_t, &discount_t, &v, &bootstrap, 1.0) + v - n_step), &[0.0, 0.0]);
    }

    /// A rollout of one step: r + γ V, and δ.
    #[test]
    fn one_step() {
        let [r_t, discount_t, v] =
            [[1.0, 2.0], [0.5, 0.0], [3.0, 4.0]].map(|row| Tensor::from_slice(&row).view([1, 2]));
        let bootstrap = Tensor::from_slice(&[8.0, 8.0]);
        assert_close(&n_step(&r_t, &discount_t, &bootstrap), &[5.0, 2.0]);
        assert_close(&gae(&r_t, &discount_t, &v, &bootstrap, 0.9), &[2.0, -2.0]);
    }
}
