//! A fully connected layer with learned, factorized Gaussian noise on its weights, for exploration (Fortunato et al. 2018,
//! *Noisy Networks for Exploration*, equations 9 to 11).
//!
//! `y = (μ + σ ⊙ ε_out ε_inᵀ) x + μ_b + σ_b ⊙ ε_out`, computed as two products without materializing the noisy weight. A greedy
//! evaluation omits the noise.

use crate::export::Exporter;
use crate::init::Init;
use crate::layers::linear::Linear;
use crate::observations::upload;
use crate::params::{Builder, Slot, Weights};
use playfield_core::graph::Value;
use playfield_core::rng::Rng;
use rand::RngExt as _;
use rand_distr::StandardNormal;
use tch::Tensor;

/// `[n, inputs] → [n, outputs]`.
#[derive(Clone, Copy, Debug)]
pub struct NoisyLinear {
    mean: Linear,
    weight_sigma: Slot,
    bias_sigma: Slot,
    inputs: i64,
    outputs: i64,
}

/// One sample of a layer's noise, f(ε) with f(x) = sign(x)·√|x|.
#[derive(Debug)]
pub struct Noise {
    /// f(ε_in), `[inputs]`.
    pub input: Tensor,
    /// f(ε_out), `[outputs]`.
    pub output: Tensor,
}

impl Clone for Noise {
    /// A second handle to the same sample.
    fn clone(&self) -> Self {
        Self { input: self.input.shallow_clone(), output: self.output.shallow_clone() }
    }
}

impl NoisyLinear {
    /// A layer called `name`: `weight`, `bias` as a linear layer's, `weight_sigma`, `bias_sigma` initially σ₀/√inputs.
    pub fn new(b: &mut Builder<'_>, name: &str, inputs: i64, outputs: i64, sigma: f64) -> Self {
        let init = Init::Uniform { fan_in: inputs };
        let mean = Linear::new(b, name, inputs, outputs, init, init);
        let spread = Init::Constant((sigma / (inputs as f64).sqrt()) as f32);
        b.scope(name, |b| Self {
            mean,
            weight_sigma: b.param("weight_sigma", &[outputs, inputs], spread),
            bias_sigma: b.param("bias_sigma", &[outputs], spread),
            inputs,
            outputs,
        })
    }

    /// Samples noise for this layer, in its weights' precision.
    pub fn sample(&self, w: &Weights, rng: &mut Rng) -> Noise {
        let (device, kind) = (w[self.weight_sigma].device(), w[self.weight_sigma].kind());
        let mut sample = |n: i64| {
            let values: Vec<f32> =
                (0..n).map(|_| rng.sample::<f32, _>(StandardNormal)).map(|x| x.abs().sqrt().copysign(x)).collect();
            upload(&Tensor::from_slice(&values), device).to_kind(kind)
        };
        Noise { input: sample(self.inputs), output: sample(self.outputs) }
    }

    /// Applies the layer to `x` `[n, inputs]`, in the precision of its weights; without `noise` by its means.
    pub fn forward(&self, w: &Weights, x: &Tensor, noise: Option<&Noise>) -> Tensor {
        let x = &x.to_kind(w[self.weight_sigma].kind());
        let y = self.mean.forward(w, x);
        match noise {
            None => y,
            Some(Noise { input, output }) => {
                y + ((x * input).linear(&w[self.weight_sigma], None::<Tensor>) + &w[self.bias_sigma]) * output
            }
        }
    }

    /// Adds the layer without noise to a graph.
    pub fn export(&self, e: &mut Exporter<'_>, x: Value) -> Value {
        self.mean.export(e, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use tch::{Device, Kind, no_grad};

    /// The layer against the equations with a materialized noisy weight.
    #[test]
    fn equals_the_papers_equations() {
        let mut rng = Rng::seed_from_u64(1);
        let mut b = Builder::new(&mut rng);
        let layer = NoisyLinear::new(&mut b, "noisy", 3, 2, 0.5);
        let params = b.finish(Device::Cpu, Kind::Float);
        let w = params.weights();
        let noise = layer.sample(w, &mut Rng::seed_from_u64(2));
        let x = Tensor::from_slice2(&[[1.0_f32, -2.0, 0.5], [0.0, 3.0, 1.0]]);
        let named = params.named(params.master());
        let tensor = |name: &str| {
            let array = &named[&format!("noisy.{name}")];
            let shape: Vec<i64> = array.shape.iter().map(|&d| d as i64).collect();
            Tensor::from_slice(&array.values::<f32>().unwrap()).view(&shape[..])
        };
        assert!((tensor("weight_sigma") - 0.5 / 3_f64.sqrt()).abs().max().double_value(&[]) < 1e-7);
        let weight = tensor("weight") + tensor("weight_sigma") * noise.output.outer(&noise.input);
        let bias = tensor("bias") + tensor("bias_sigma") * &noise.output;
        let expected = x.matmul(&weight.tr()) + bias;
        let actual = no_grad(|| layer.forward(w, &x, Some(&noise)));
        assert!((actual - expected).abs().max().double_value(&[]) < 1e-6);
        let means = no_grad(|| layer.forward(w, &x, None));
        assert!((means - (x.matmul(&tensor("weight").tr()) + tensor("bias"))).abs().max().double_value(&[]) < 1e-6);
    }

    /// f(ε) = sign(ε)√|ε| of a standard normal has mean 0 and variance E|ε| = √(2/π).
    #[test]
    fn the_noise_has_the_stated_variance() {
        let mut rng = Rng::seed_from_u64(3);
        let mut b = Builder::new(&mut rng);
        let layer = NoisyLinear::new(&mut b, "noisy", 200_000, 1, 0.5);
        let params = b.finish(Device::Cpu, Kind::Float);
        let noise = layer.sample(params.weights(), &mut Rng::seed_from_u64(4)).input;
        assert!(noise.mean(Kind::Float).double_value(&[]).abs() < 0.01);
        let variance = noise.square().mean(Kind::Float).double_value(&[]);
        assert!((variance - (2.0 / std::f64::consts::PI).sqrt()).abs() < 0.01, "{variance}");
    }
}
