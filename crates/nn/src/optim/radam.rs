//! Rectified Adam (Liu et al. 2020, algorithm 2), as `torch.optim.RAdam` computes it.

use super::adam::{Adam, bias_corrections};
use super::rule::{State, UpdateRule};
use playfield_kernels::optimizer::Update;
use serde::{Deserialize, Serialize};

/// [`Adam`] whose steps are rectified by the variance of the adaptive learning rate. With ρ_∞ = 2/(1 − β₂) − 1 and
/// ρ_t = ρ_∞ − 2 t β₂ᵗ/(1 − β₂ᵗ):
///
/// * ρ_t ≤ 5 (the first updates): p ← p − η m̂;
/// * otherwise p ← p − η r_t m̂ √(1 − β₂ᵗ)/(√s + ε), r_t = √((ρ_t − 4)(ρ_t − 2)ρ_∞/((ρ_∞ − 4)(ρ_∞ − 2)ρ_t)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RAdam {
    /// β₁, the decay of the mean.
    pub beta1: f64,
    /// β₂, the decay of the mean square.
    pub beta2: f64,
    /// ε.
    pub eps: f64,
    /// λ of the penalty ½λ‖p‖² (L2 regularization; 0: none): λp is added to the gradient after clipping.
    pub weight_decay: f64,
}

impl Default for RAdam {
    /// PyTorch's.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl RAdam {
    fn adam(&self) -> Adam {
        Adam { beta1: self.beta1, beta2: self.beta2, eps: self.eps, weight_decay: self.weight_decay }
    }

    /// r_t; `None` where the variance is intractable.
    fn rectification(&self, t: u64) -> Option<f64> {
        let longest = 2.0 / (1.0 - self.beta2) - 1.0;
        let power = self.beta2.powf(t as f64);
        let length = longest - 2.0 * t as f64 * power / (1.0 - power);
        let ratio = (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length);
        (length > 5.0).then(|| ratio.sqrt())
    }
}

impl UpdateRule for RAdam {
    fn state(&self) -> [Option<State>; 2] {
        self.adam().state()
    }

    fn update(&self, learning_rate: f64, updates: u64) -> Update {
        let betas = [self.beta1, self.beta2];
        let [mean, square] = bias_corrections(betas, updates);
        let (factor, root) = match self.rectification(updates) {
            Some(r) => (r * square.sqrt(), 1.0),
            None => (1.0, 0.0),
        };
        Update::Adam {
            rates: betas.map(|beta| (1.0 - beta) as f32),
            step: (-learning_rate / mean * factor) as f32,
            root,
            eps: self.eps as f32,
            shrink: 1.0,
        }
    }

    fn l2(&self) -> f64 {
        self.weight_decay
    }

    fn shares(&self) -> Vec<(&'static str, f64)> {
        self.adam().shares()
    }

    fn sizes(&self) -> Vec<(&'static str, f64)> {
        self.adam().sizes()
    }
}
