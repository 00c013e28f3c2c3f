//! Optimizers on a flat buffer, with state that can be saved: libtorch's cannot, through `tch`, and exact resume needs it.
//!
//! On the processor a step is one pass over memory (`fused`); elsewhere the same in tensor operations.

use crate::fused::{self, Buffers};
use crate::params::{Params, slice, to_vec};
use playfield_core::algorithm::{check_shares, check_sizes};
use playfield_core::{Result, Snapshot};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// Which rule turns gradients into steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// RMSProp (Hinton, *Neural Networks for Machine Learning*, lecture 6).
    #[default]
    RmsProp,
    /// Adam with bias correction (Kingma and Ba 2015, algorithm 1).
    Adam,
    /// Stochastic gradient descent with momentum β₁: m ← β₁ m + g, p ← p − η m (Polyak 1964, as PyTorch writes it).
    Sgd,
}

/// The settings of an [`Optimizer`], as they appear inside an algorithm's section.
///
/// There is no default: each algorithm has its own, and each rule its published ones ([`of`](Self::of)). A section that names
/// some of the keys is laid over those by [`over`](Self::over).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule.
    pub rule: Rule,
    /// Decay of the mean square: RMSProp's α, Adam's β₂.
    pub decay: f64,
    /// Adam's β₁, SGD's momentum.
    pub beta1: f64,
    /// Whether RMSProp divides by the gradient's standard deviation rather than its root mean square (Graves 2013,
    /// equations 38 to 40): what Nature's DQN calls momentum is the decay of this mean.
    pub centered: bool,
    /// The ε that keeps a step finite.
    pub eps: f64,
    /// Whether RMSProp's ε stands inside the root, g/√(s + ε) (TensorFlow, DeepMind), or outside, g/(√s + ε) (PyTorch).
    /// At ε = .1 that is .316 against .1 where gradients are small.
    pub eps_inside_root: bool,
    /// λ of the penalty ½λ‖p‖² on the loss (L2 regularization; 0: none): λp is added to the gradient after it is clipped, and
    /// goes through the rule as the gradient does. That is PyTorch's `weight_decay` of `SGD`, `RMSprop` and `Adam`; it is *not*
    /// the decoupled decay of AdamW. Biases and norms' γ and β are decayed, too.
    pub weight_decay: f64,
    /// What RMSProp's mean square starts at: 1 in TensorFlow, 0 in PyTorch.
    pub initial_square: f64,
}

pub use crate::fused::Step;

impl OptimizerConfig {
    /// The published settings of `rule`: of RMSProp those of PyTorch, of Adam the paper's, of SGD a momentum of .9.
    pub fn of(rule: Rule) -> Self {
        Self {
            rule,
            decay: if rule == Rule::Adam { 0.999 } else { 0.99 },
            beta1: 0.9,
            centered: false,
            eps: 1e-8,
            eps_inside_root: false,
            weight_decay: 0.0,
            initial_square: 0.0,
        }
    }

    /// RMSProp as TensorFlow has it (ε inside the root, mean squares from 1), with A3C's α = .99 and ε = .1.
    pub fn tensorflow() -> Self {
        Self { eps: 0.1, eps_inside_root: true, initial_square: 1.0, ..Self::of(Rule::RmsProp) }
    }

    /// The defaults of an algorithm, `self`, for a configuration that chooses the rule of `chosen`: another rule has its published
    /// settings.
    #[must_use]
    pub fn with_rule(self, chosen: &Self) -> Self {
        if chosen.rule == self.rule { self } else { Self::of(chosen.rule) }
    }

    /// Refuses values that cannot work, in the section called `section`.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) naming the key and its bounds.
    pub fn check(&self, section: &str) -> Result<()> {
        let below_one = [("optimizer.decay", self.decay), ("optimizer.beta1", self.beta1)];
        check_shares(section, &below_one)?;
        let sizes = [
            ("optimizer.eps", self.eps),
            ("optimizer.weight_decay", self.weight_decay),
            ("optimizer.initial_square", self.initial_square),
        ];
        check_sizes(section, &sizes)
    }

    /// Adam's bias corrections 1 − β₁ᵗ and 1 − β₂ᵗ after `updates` updates.
    pub(crate) fn bias_corrections(&self, updates: u64) -> [f64; 2] {
        // t as a float: an integer power would overflow after 2³¹ updates.
        [self.beta1, self.decay].map(|beta| 1.0 - beta.powf(updates as f64))
    }

    /// What each mean square starts at and, where the rule has means, each mean.
    pub fn initial_statistics(&self) -> (f32, Option<f32>) {
        match self.rule {
            Rule::RmsProp => (self.initial_square as f32, self.centered.then_some(0.0)),
            Rule::Adam | Rule::Sgd => (0.0, Some(0.0)),
        }
    }
}

/// An optimizer of one network.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    square: Tensor,
    mean: Option<Tensor>,
    updates: u64,
}

impl Optimizer {
    /// An optimizer for `params`.
    pub fn new(config: OptimizerConfig, params: &Params) -> Self {
        let (square, mean) = config.initial_statistics();
        let all = |x: f32| params.master().full_like(f64::from(x));
        let (square, mean) = (all(square), mean.map(all));
        Self { config, square, mean, updates: 0 }
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Steps `params` by their gradient, after scaling it to a *global* norm of at most `max_norm` (0: never). Returns
    /// the norm before scaling. A gradient whose norm is not finite changes nothing: neither parameters nor statistics.
    pub fn step(&mut self, params: &mut Params, learning_rate: f64, max_norm: f64) -> f64 {
        self.step_with(params, &[], learning_rate, max_norm)
    }

    /// [`step`](Self::step) by the sum of their gradient and those of `more`, which [share](Params::share) the parameters.
    pub fn step_with(&mut self, params: &mut Params, more: &[&Params], learning_rate: f64, max_norm: f64) -> f64 {
        self.updates += 1;
        if let Some(buffers) = fused::buffers(params, more, &self.square, self.mean.as_ref()) {
            let norm = fused::norm_of(&buffers);
            if !norm.is_finite() {
                return norm;
            }
            let step = Step { config: &self.config, learning_rate, scale: clip(norm, max_norm), updates: self.updates };
            buffers.into_iter().for_each(|part| part.step(step));
            params.changed();
            return norm;
        }
        let norm = no_grad(|| {
            let grad = more.iter().fold(params.gradient(), |sum, other| sum + other.gradient());
            let norm = grad.norm().double_value(&[]);
            if !norm.is_finite() {
                return norm;
            }
            let scale = clip(norm, max_norm);
            let grad = if scale == 1.0 { grad } else { grad * scale };
            self.apply(&mut params.master().shallow_clone(), &grad, learning_rate);
            norm
        });
        params.mark_updated();
        norm
    }

    fn apply(&mut self, master: &mut Tensor, grad: &Tensor, learning_rate: f64) {
        let c = &self.config;
        let decayed = (c.weight_decay > 0.0).then(|| grad + &*master * c.weight_decay);
        let grad = decayed.as_ref().unwrap_or(grad);
        let _ = self.square.lerp_(&grad.square(), 1.0 - c.decay);
        match (c.rule, &mut self.mean) {
            (Rule::RmsProp, mean) => {
                let spread = match mean {
                    None => self.square.shallow_clone(),
                    Some(mean) => {
                        let _ = mean.lerp_(grad, 1.0 - c.decay);
                        // Rounding may leave a variance a trace below 0.
                        (&self.square - mean.square()).clamp_min_(0.0)
                    }
                };
                let root = match c.eps_inside_root {
                    true => (spread + c.eps).sqrt_(),
                    false => spread.sqrt() + c.eps,
                };
                let _ = master.addcdiv_(&(grad * -learning_rate), &root);
            }
            (Rule::Adam, mean) => {
                let mean = mean.as_mut().expect("Adam keeps a mean");
                let _ = mean.lerp_(grad, 1.0 - c.beta1);
                let [first, second] = c.bias_corrections(self.updates);
                let root = self.square.sqrt() / second.sqrt() + c.eps;
                let _ = master.addcdiv_(&(&*mean * (-learning_rate / first)), &root);
            }
            (Rule::Sgd, mean) => {
                let mean = mean.as_mut().expect("SGD keeps a momentum");
                *mean *= c.beta1;
                *mean += grad;
                *master -= &*mean * learning_rate;
            }
        }
    }

    /// Its statistics, and updates so far: mean squares, and means (empty where the rule has none).
    pub fn statistics(&self) -> (u64, [Vec<f32>; 2]) {
        (self.updates, [to_vec(&self.square), self.mean.as_ref().map(to_vec).unwrap_or_default()])
    }

    /// Takes statistics that were kept elsewhere.
    ///
    /// # Panics
    /// If they are of another network: a bug of the caller.
    pub fn set_statistics(&mut self, updates: u64, [square, mean]: [&[f32]; 2]) {
        self.updates = updates;
        no_grad(|| {
            self.square.copy_(&Tensor::from_slice(square));
            if let Some(to) = &mut self.mean {
                to.copy_(&Tensor::from_slice(mean));
            }
        });
    }

    /// Writes the statistics into `snapshot`.
    pub fn save(&self, params: &Params, snapshot: &mut Snapshot) {
        snapshot.put("optimizer.updates", &self.updates);
        for (name, flat) in [("square", Some(&self.square)), ("mean", self.mean.as_ref())] {
            let named = flat.map(|f| params.named(f)).unwrap_or_default();
            snapshot.arrays.extend(named.into_iter().map(|(k, v)| (format!("optimizer.{name}.{k}"), v)));
        }
    }

    /// Takes the statistics of `snapshot`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where they are missing or of another network.
    pub fn load(&mut self, params: &Params, snapshot: &Snapshot) -> Result<()> {
        self.updates = snapshot.get("optimizer.updates")?;
        for (name, flat) in [("square", Some(&self.square)), ("mean", self.mean.as_ref())] {
            let prefix = format!("optimizer.{name}.");
            let arrays = snapshot.arrays.iter();
            let named = arrays.filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?.to_string(), v.clone()))).collect();
            if let Some(flat) = flat {
                params.load_named(&named, flat)?;
            }
        }
        Ok(())
    }
}

/// A step on parameters that do not lie in a network, but where threads share them: `[parameters, mean squares, means]` from
/// `start` on, by the gradient of `params`. What its layers compute with takes the new values; a bf16 network's master does
/// so only where that is what they compute with.
///
/// # Panics
/// If `params` is not on the processor: a bug of the caller.
pub fn step_elsewhere(params: &mut Params, step: Step<'_>, start: usize, [shared, square, mean]: [&mut [f32]; 3]) {
    for part in params.parts() {
        let range = part.range.start.max(start)..part.range.end.min(start + shared.len());
        if range.is_empty() {
            continue;
        }
        let (there, own) =
            (range.start - start..range.end - start, range.start - part.range.start..range.end - part.range.start);
        let elements = [&mut *shared, &mut *square, &mut *mean].map(|v| v.get_mut(there.clone()).unwrap_or_default());
        Buffers::elsewhere(part, own.clone(), elements).expect("a network on the processor").step_alone(step);
        if part.weights.kind() == Kind::Float {
            // SAFETY: contiguous and on the processor, as `elsewhere` checked; nothing else uses the weights meanwhile.
            unsafe { slice::<f32>(&part.weights)[own].copy_from_slice(&shared[there]) };
        }
    }
    params.changed();
}

/// The global norm of the gradient of `params`.
///
/// # Panics
/// If `params` is not on the processor: a bug of the caller.
pub fn gradient_norm(params: &Params) -> f64 {
    fused::gradient_norm(params).expect("a network on the processor")
}

/// What a gradient of this norm is multiplied with, so that it has `max_norm` (0: any) at most.
pub fn clip(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 && norm > max_norm { max_norm / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 − .9, 1 − .999; after 3 updates 1 − .729, 1 − .997002999; after more than 2³¹, 1.
    #[test]
    fn bias_corrections_by_hand() {
        let c = OptimizerConfig::of(Rule::Adam);
        for (updates, expected) in [(1, [0.1, 0.001]), (3, [0.271, 0.002_997_001]), (1 << 33, [1.0, 1.0])] {
            for (actual, expected) in c.bias_corrections(updates).into_iter().zip(expected) {
                assert!((actual - expected).abs() < 1e-12, "{updates}: {actual}");
            }
        }
    }

    /// Another rule brings its own settings; keys of the same rule leave the others as the algorithm has them.
    #[test]
    fn a_rule_has_its_published_settings_and_an_algorithm_its_own() {
        let own = OptimizerConfig { centered: true, decay: 0.95, eps: 0.01, ..OptimizerConfig::tensorflow() };
        let with = |rule| own.clone().with_rule(&OptimizerConfig { weight_decay: 1e-5, ..OptimizerConfig::of(rule) });
        assert_eq!(with(Rule::RmsProp), own);
        let adam = with(Rule::Adam);
        assert_eq!((adam.beta1, adam.decay, adam.eps), (0.9, 0.999, 1e-8));
        assert_eq!(with(Rule::Sgd).beta1, 0.9);
    }
    use crate::init::Init;
    use crate::params::Builder;
    use playfield_core::rng::stream;
    use tch::Device;

    /// The pass over memory equals the tensor operations: every rule, clipped or not, over a few steps and more than a
    /// chunk, in both precisions, down to the bf16 weights.
    #[test]
    fn one_pass_equals_tensor_operations() {
        let rules = [
            (Rule::RmsProp, false, true),
            (Rule::RmsProp, false, false),
            (Rule::RmsProp, true, true),
            (Rule::RmsProp, true, false),
            (Rule::Adam, false, false),
            (Rule::Sgd, false, false),
        ];
        for ((rule, centered, eps_inside_root), kind) in
            rules.iter().flat_map(|&r| [(r, Kind::Float), (r, Kind::BFloat16)])
        {
            let weight_decay = if centered { 0.0 } else { 0.1 };
            let config = OptimizerConfig {
                rule,
                centered,
                eps_inside_root,
                eps: 1e-3,
                weight_decay,
                ..OptimizerConfig::tensorflow()
            };
            let params = || {
                let mut rng = stream(1, "start");
                let mut b = Builder::new(&mut rng);
                b.param("p", &[2_777], Init::Uniform { fan_in: 3 });
                b.finish(Device::Cpu, kind)
            };
            let (mut one, mut other) = (params(), params());
            let [mut fused, mut plain] = [&one, &other].map(|p| Optimizer::new(config.clone(), p));
            for t in 0..5 {
                let gradient = |i: usize| ((i * 31 + t * 17) % 101) as f32 / 50.0 - 1.0;
                let gradient = Tensor::from_slice(&(0..one.master().numel()).map(gradient).collect::<Vec<_>>());
                [&mut one, &mut other].into_iter().for_each(|p| p.set_gradient(&gradient));
                let norm = fused.step(&mut one, 0.01, 7.0);
                plain.updates += 1;
                let grad = other.gradient();
                let expected = grad.norm().double_value(&[]);
                assert!((norm / expected - 1.0).abs() < 1e-6, "{norm}, {expected}");
                no_grad(|| plain.apply(&mut other.master().shallow_clone(), &(grad * clip(expected, 7.0)), 0.01));
                other.mark_updated();
                for (a, b) in to_vec(one.master()).iter().zip(to_vec(other.master())) {
                    assert!((a - b).abs() < 2e-6, "{config:?}: {a}, {b}");
                }
                let rounded = one.master().to_kind(kind);
                assert_eq!(to_vec(one.flat()), to_vec(&rounded), "what layers compute with");
            }
        }
    }
}
