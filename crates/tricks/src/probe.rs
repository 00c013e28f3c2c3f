//! A linear probe: logistic regression on fixed features (Alain and Bengio 2017).
//!
//! ```text
//! P(class | x) = softmax(W (x − mean)/deviation + b),    loss = cross-entropy + l2/2 · ‖W‖²
//! ```
//!
//! The accuracy of so simple a model measures the information in the features. Features are standardized by the
//! training set's mean and deviation. The problem is convex and starts at 0, so a fit is deterministic.
//!
//! If the network can be fine-tuned, train it end to end instead.

use playfield_core::rng::stream;
use playfield_core::{Error, Result};
use playfield_nn::init::Init;
use playfield_nn::linear::Linear;
use playfield_nn::optim::{Adam, Optimizer};
use playfield_nn::params::{Builder, Params};
use tch::{Device, Kind, Tensor, no_grad};

/// A fitted probe.
#[derive(Debug)]
pub struct Probe {
    params: Params,
    linear: Linear,
    mean: Tensor,
    deviation: Tensor,
}

impl Probe {
    /// Fits `features` `[n, width]` to their classes, each less than `classes`, by `updates` steps of Adam on all of them.
    ///
    /// # Errors
    /// [`Error::Config`] if the numbers of labels and feature vectors differ, a label is not a class, or `l2` is negative.
    pub fn fit(features: &Tensor, labels: &[i64], classes: i64, l2: f64, updates: usize) -> Result<Self> {
        let (n, width) = features.size2().map_err(|_| {
            Error::config(format!("features of shape {:?} where [n, width] is needed", features.size()))
        })?;
        if n != labels.len() as i64 || n == 0 {
            return Err(Error::config(format!("{n} features and {} labels: need as many, at least 1", labels.len())));
        }
        if let Some(label) = labels.iter().find(|l| !(0..classes).contains(*l)) {
            return Err(Error::config(format!("label {label} must be at least 0 and less than {classes}")));
        }
        if !(l2 >= 0.0 && l2.is_finite()) {
            return Err(Error::config(format!("`l2` = {l2} must be at least 0")));
        }
        let zero = Init::Constant(0.0);
        let mut rng = stream(0, "probe"); // unused: all parameters start at 0
        let mut b = Builder::new(&mut rng);
        let linear = Linear::new(&mut b, "probe", width, classes, zero, zero);
        let mut params = b.finish(Device::Cpu, Kind::Float);
        let mean = features.mean_dim([0_i64].as_slice(), false, Kind::Float);
        // Constant features become 0/1 instead of 0/0.
        let deviation =
            (features - &mean).square().mean_dim([0_i64].as_slice(), false, Kind::Float).sqrt().clamp_min(1e-6);
        let x = (features - &mean) / &deviation;
        let labels = Tensor::from_slice(labels);
        let mut optimizer = Optimizer::new(Adam::default(), &params);
        for update in 0..updates {
            let logits = linear.forward(params.weights(), &x);
            let penalty = linear.weight(params.weights()).square().sum(Kind::Float) * (l2 / 2.0);
            params.zero_gradient();
            (logits.cross_entropy_for_logits(&labels) + penalty).backward();
            // Annealing the step size to 0 makes Adam converge.
            optimizer.step(&mut params, 0.05 * (1.0 - update as f64 / updates as f64), 0.0);
        }
        Ok(Self { params, linear, mean, deviation })
    }

    /// The most probable class of each of `features` `[n, width]`.
    pub fn predict(&self, features: &Tensor) -> Vec<i64> {
        no_grad(|| {
            let x = (features - &self.mean) / &self.deviation;
            let classes = self.linear.forward(self.params.weights(), &x).argmax(-1, false);
            Vec::try_from(classes).expect("one class each")
        })
    }

    /// The fraction of `features` classified as `labels`.
    pub fn accuracy(&self, features: &Tensor, labels: &[i64]) -> f64 {
        let right = self.predict(features).iter().zip(labels).filter(|(a, b)| a == b).count();
        right as f64 / labels.len() as f64
    }
}
