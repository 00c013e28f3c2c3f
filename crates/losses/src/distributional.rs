//! Distributional Q-learning: the distribution of the return rather than its mean.

use tch::{Device, Kind, Tensor};

/// The atoms z₁ … z_N of a categorical distribution, evenly spaced from `low` to `high`. → `[atoms]`.
pub fn support(low: f64, high: f64, atoms: i64, device: Device) -> Tensor {
    Tensor::linspace(low, high, atoms, (Kind::Float, device))
}

/// Projects the distribution of r + γZ back onto the atoms: mass between two atoms is split between them by distance, mass beyond
/// the ends goes to the ends (Bellemare, Dabney and Munos 2017, algorithm 1). `r_t`, `discount_t` `[n]`, `p_t` `[n, atoms]`,
/// `support` `[atoms]` → `[n, atoms]`, a constant. Nothing is read from a device.
pub fn project(r_t: &Tensor, discount_t: &Tensor, p_t: &Tensor, support: &Tensor) -> Tensor {
    let atoms = support.size()[0];
    let (low, high) = (support.get(0), support.get(-1));
    let spacing = (&high - &low) / (atoms - 1) as f64;
    let moved = (r_t.unsqueeze(1) + discount_t.unsqueeze(1) * support).clamp_tensor(Some(&low), Some(&high));
    // Atom i takes the fraction max(0, 1 − |z − zᵢ|/Δ) of the mass at z: linear between its neighbors, exact at an atom.
    // [n, to, from]
    let distance = (moved.unsqueeze(1) - support.view([1, -1, 1])).abs() / spacing;
    let fraction = (distance.neg() + 1.0).clamp_min(0.0);
    (fraction * p_t.unsqueeze(1)).sum_dim_intlist(2, false, Kind::Float).detach()
}

/// The cross-entropy −Σ target·log p of each transition. `logits` `[n, atoms]`, `target` `[n, atoms]` → `[n]`.
pub fn cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    -(target.detach() * logits.log_softmax(-1, Kind::Float)).sum_dim_intlist(-1, false, Kind::Float)
}

/// The quantile Huber loss (Dabney et al. 2018, equation 10): quantile i converges to the value with a fraction
/// τ̂ᵢ = (2i − 1)/2N of the target's mass below it; errors are ½u² within `kappa`, linear beyond, divided by κ. Summed over
/// quantiles, averaged over the target's samples. `quantiles` `[n, N]`, `target` `[n, M]` → `[n]`.
pub fn quantile_huber(quantiles: &Tensor, target: &Tensor, kappa: f64) -> Tensor {
    let n = quantiles.size()[1];
    let tau = (Tensor::arange(n, (Kind::Float, quantiles.device())) + 0.5) / n as f64;
    // u[b, i, j] = target j − quantile i
    let u = target.detach().unsqueeze(1) - quantiles.unsqueeze(2);
    let below = u.lt(0.0).to_kind(Kind::Float);
    let weight = (tau.view([1, -1, 1]) - below).abs();
    let loss = crate::q_learning::huber(&u, kappa) / kappa;
    (weight * loss).mean_dim(2, false, Kind::Float).sum_dim_intlist(1, false, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(actual: &Tensor, expected: &[f64]) {
        let difference = (actual.flatten(0, -1) - Tensor::from_slice(expected)).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{actual:?}: off by {difference}");
    }

    /// Algorithm 1 of the paper, atom by atom.
    fn oracle(r: f64, discount: f64, p: &[f64], low: f64, high: f64) -> Vec<f64> {
        let spacing = (high - low) / (p.len() - 1) as f64;
        let mut m = vec![0.0; p.len()];
        for (j, mass) in p.iter().enumerate() {
            let z = (r + discount * (low + j as f64 * spacing)).clamp(low, high);
            let b = (z - low) / spacing;
            let (l, u) = (b.floor(), b.ceil());
            if l == u {
                m[l as usize] += mass;
            } else {
                m[l as usize] += mass * (u - b);
                m[u as usize] += mass * (b - l);
            }
        }
        m
    }

    #[test]
    fn the_projection_equals_the_papers_algorithm() {
        let (low, high, atoms) = (-2.0, 2.0, 9);
        let z = support(low, high, atoms, Device::Cpu);
        let cases = [(0.0, 1.0), (0.3, 0.9), (-5.0, 0.9), (5.0, 0.0), (0.5, 0.5), (1.0, 0.0), (-0.123, 0.99)];
        let logits =
            Tensor::arange(atoms * cases.len() as i64, (Kind::Float, Device::Cpu)).sin().view([-1, atoms]) * 3.0;
        let p = logits.softmax(-1, Kind::Float);
        let column = |f: fn(&(f64, f64)) -> f64| {
            Tensor::from_slice(&cases.iter().map(f).collect::<Vec<_>>()).to_kind(Kind::Float)
        };
        let projected = project(&column(|c| c.0), &column(|c| c.1), &p, &z);
        for (row, (r, discount)) in cases.iter().enumerate() {
            let mass = Vec::<f64>::try_from(p.get(row as i64).to_kind(Kind::Double)).unwrap();
            assert_close(&projected.get(row as i64), &oracle(*r, *discount, &mass, low, high));
        }
        assert_close(&projected.sum_dim_intlist(1, false, Kind::Float), &[1.0; 7]);
    }

    /// −(¼·log ¼ + ¾·log ¾) for a uniform target ½, ½ against p = (¼, ¾): −½(log ¼ + log ¾) = .836988.
    #[test]
    fn cross_entropy_by_hand() {
        let logits = Tensor::from_slice2(&[[0.0_f32, 3.0_f32.ln()]]);
        assert_close(&cross_entropy(&logits, &Tensor::from_slice2(&[[0.5_f32, 0.5]])), &[0.836_988_216]);
    }

    /// Two quantiles (τ̂ = ¼, ¾) at 0 and 1, one target 3, κ = 1: u = 3 and 2, Huber 2.5 and 1.5 → ¼·2.5 + ¾·1.5 = 1.75.
    /// Target −1: u = −1 and −2, Huber .5 and 1.5, weights ¾ and ¼ → .375 + .375 = .75.
    #[test]
    fn the_quantile_loss_by_hand() {
        let quantiles = Tensor::from_slice2(&[[0.0_f32, 1.0], [0.0, 1.0], [0.0, 1.0]]);
        let target = Tensor::from_slice2(&[[3.0_f32, 3.0], [-1.0, -1.0], [3.0, -1.0]]);
        assert_close(&quantile_huber(&quantiles, &target, 1.0), &[1.75, 0.75, 1.25]);
    }

    /// Gradient descent on the loss converges to the quantiles of a sample, here of 0 … 99 at τ̂ = .1, .3, .5, .7, .9.
    #[test]
    fn minimizing_the_quantile_loss_finds_the_quantiles() {
        let mut q = Tensor::zeros([1, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let sample = Tensor::arange(100, (Kind::Float, Device::Cpu)).view([1, 100]);
        for _ in 0..3000 {
            let loss = quantile_huber(&q, &sample, 0.1).sum(Kind::Float);
            q.zero_grad();
            loss.backward();
            let grad = q.grad();
            tch::no_grad(|| _ = q.f_sub_(&(grad * 2.0)).expect("a step"));
        }
        let found = Vec::<f32>::try_from(q.flatten(0, -1)).unwrap();
        for (found, expected) in found.iter().zip([9.5, 29.5, 49.5, 69.5, 89.5]) {
            assert!((found - expected).abs() < 1.5, "{found} is not {expected}");
        }
    }
}
