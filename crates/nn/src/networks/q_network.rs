//! Action values on observations: the network of DQN and its variants.
//!
//! ```text
//! torso (convolutions, hidden) ─ out                   Q, or its distribution, per action
//! torso ┬ value hidden ─ out ─────┐                    dueling: Q = V + A − mean A (Wang et al. 2016, equation 9)
//!       └ advantage hidden ─ out ─┘
//! ```

use super::config::{Activation, NetworkConfig};
use super::dispatch::Dispatch;
use super::feature_extractor::{FeatureExtractor, backward};
use super::input::Input;
use super::summary::{Summary, summary};
use super::torso::Torso;
use crate::device;
use crate::export::Exporter;
use crate::init::{RECTIFIER_GAIN, hidden_init};
use crate::layers::linear::Linear;
use crate::layers::noisy::{Noise, NoisyLinear};
use crate::layers::norm::Norm;
use crate::observations::Observations;
use crate::params::{Builder, Params, Weights};
use crate::pass::Pass;
use playfield_core::graph::{Graph, Op, Reduction, Value};
use playfield_core::rng::Rng;
use playfield_core::{ActionSpace, Array, EnvSpec, Error, ObsRef, Result};
use tch::{Kind, Tensor};

/// The settings of a Q-network beyond its torso.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QConfig {
    /// Separate streams for value and advantages.
    pub dueling: bool,
    /// σ₀ of noisy layers after the torso; 0: linear layers.
    pub noisy_sigma: f64,
    /// Outputs per action: 1 for a value, more for a distribution.
    pub atoms: i64,
}

/// The network.
#[derive(Debug)]
pub struct QNetwork {
    /// Its parameters.
    pub params: Params,
    torso: FeatureExtractor,
    layers: Layers,
    /// Of the noisy layers, in their order; empty: they use their means.
    noise: Vec<Noise>,
}

/// The layers after the torso.
#[derive(Clone, Debug)]
struct Layers {
    /// Of all actions, or of the value.
    first: Stream,
    advantage: Option<Stream>,
    actions: i64,
    atoms: i64,
}

#[derive(Clone, Debug)]
struct Stream {
    hidden: Option<(Dense, Norm)>,
    out: Dense,
    activation: Activation,
}

#[derive(Clone, Copy, Debug)]
enum Dense {
    Plain(Linear),
    Noisy(NoisyLinear),
}

impl QNetwork {
    /// Builds the network for `spec` on the device called `device`, with initial values sampled from `rng`.
    ///
    /// # Errors
    /// [`Error::Config`] where torso and observation, or device and machine, don't fit, or actions are not [`Discrete`](ActionSpace::Discrete).
    pub fn new(config: &NetworkConfig, q: QConfig, spec: &EnvSpec, device: &str, rng: &mut Rng) -> Result<Self> {
        config.check()?;
        let ActionSpace::Discrete { n } = &spec.actions else {
            let kind = match spec.actions {
                ActionSpace::Box { .. } => "continuous actions",
                _ => "actions of several components (MultiDiscrete, MultiBinary)",
            };
            return Err(Error::config(format!(
                "{} has {kind}, and Q-learning (dqn, the Q methods of a3c) needs discrete ones: use ppo, paac or a3c",
                spec.id
            )));
        };
        if config.lstm_width() > 0 {
            return Err(Error::config(
                "[network]: Q-networks have no LSTM (`lstm`, or torso = \"lstm\"): use an agent with a policy (ppo, paac, a3c)",
            ));
        }
        let (device, actions) = (device::parse(device)?, *n as i64);
        let mut b = Builder::new(rng);
        let (mut torso, mut width) = b.scope("torso", |b| Torso::without_last_layer(b, config, spec))?;
        // A single linear hidden layer is part of the torso.
        if let Some(width) = width.take_if(|_| !q.dueling && q.noisy_sigma == 0.0) {
            b.scope("q", |b| torso.push(b, "hidden", width, config.init));
        }
        let streams = match q.dueling {
            false => vec![("q", actions * q.atoms)],
            true => vec![("value", q.atoms), ("advantage", actions * q.atoms)],
        };
        let hidden = streams.iter().map(|(name, _)| {
            let sigma = q.noisy_sigma;
            b.scope(name, |b| width.map(|width| hidden(b, &torso, width, sigma, config)))
        });
        let hidden: Vec<_> = hidden.collect();
        // Values are compared and subtracted: the last layers compute in f32.
        b.full_precision();
        let (inputs, activation) = (width.unwrap_or(torso.width()), torso.activation());
        let outs = streams.iter().zip(hidden).map(|(&(name, outputs), hidden)| {
            let out = b.scope(name, |b| Dense::new(b, "out", (inputs, outputs), 1.0, q.noisy_sigma, config));
            Stream { hidden, out, activation }
        });
        let mut outs: Vec<_> = outs.collect();
        let advantage = if q.dueling { outs.pop() } else { None };
        let first = outs.pop().expect("one stream at least");
        let kind = config.kind(device, torso.is_convolutional() && spec.parts.is_empty());
        let input = Input::new(config, spec, torso.is_convolutional(), device, kind)?;
        b.check_memory()?;
        let params = b.finish(device, kind);
        let torso = FeatureExtractor::new(torso, input, &params, Dispatch::new(config.kernels));
        let layers = Layers { first, advantage, actions, atoms: q.atoms };
        Ok(Self { params, torso, layers, noise: Vec::new() })
    }

    /// Whether values depend on the whole batch in training, by batch norm.
    pub fn uses_batch_statistics(&self) -> bool {
        self.torso.torso().uses_batch_statistics()
    }

    /// Folds batch norm into the layers before it: see [`ActorCritic::fold`](crate::ActorCritic::fold). After a noisy layer
    /// it stays, because it scales the noise, too.
    pub fn fold(&mut self) {
        let Self { params, torso, layers, .. } = self;
        torso.fold(params);
        for stream in [Some(&mut layers.first), layers.advantage.as_mut()].into_iter().flatten() {
            if let Some((Dense::Plain(layer), norm)) = &mut stream.hidden {
                norm.fold(params, layer.slots());
            }
        }
    }

    /// A copy with parameters of its own, without noise: a target network.
    pub fn deep_clone(&self) -> Self {
        self.over(self.params.deep_clone())
    }

    /// A network over the same parameters with its own gradient and buffers: see [`Params::shallow_clone`].
    pub fn shallow_clone(&self) -> Self {
        self.over(self.params.shallow_clone())
    }

    fn over(&self, params: Params) -> Self {
        Self { torso: self.torso.over(&params), params, layers: self.layers.clone(), noise: Vec::new() }
    }

    /// Describes the network, which was built from `config` for `spec`.
    pub fn summary(&self, config: &NetworkConfig, spec: &EnvSpec) -> Summary {
        summary(config, spec, &self.params, &self.torso)
    }

    /// Chooses the code that computes its torso: saved with a run, so that a resumed one computes the same.
    pub fn dispatch(&self) -> &Dispatch {
        self.torso.dispatch()
    }

    /// The number of actions.
    pub fn actions(&self) -> usize {
        self.layers.actions as usize
    }

    /// Copies the weights of `other`, of the same layout: see [`Params::copy_from`]. For an actor's network, which is neither trained
    /// nor saved.
    pub fn copy_from(&mut self, other: &Self) {
        self.params.copy_from(&other.params);
    }

    /// Samples noise for the noisy layers, in their order (value before advantage, hidden before last); empty for a
    /// network without them.
    pub fn sample_noise(&self, rng: &mut Rng) -> Vec<Noise> {
        self.layers.noisy().map(|layer| layer.sample(self.params.weights(), rng)).collect()
    }

    /// Uses `noise`, a sample for these layers, from now on.
    pub fn set_noise(&mut self, noise: Vec<Noise>) {
        self.noise = noise;
    }

    /// Removes the noise: the layers use their means.
    pub fn disable_noise(&mut self) {
        self.noise.clear();
    }

    /// `[n, actions, atoms]` in `f32` at `n` observations.
    pub fn forward<'a>(&mut self, obs: impl Into<Observations<'a>>, n: usize, pass: Pass) -> Tensor {
        let Self { params, torso, layers, noise } = self;
        if let Some(head) = layers.linear_head() {
            let values = torso.forward_heads(&[head], params, obs.into(), n, pass).remove(0);
            return pass.run(|| values.view([-1, layers.actions, layers.atoms]));
        }
        let features = torso.forward(params, obs.into(), n, pass);
        pass.run(|| layers.forward(params.weights(), &features, noise, pass))
    }

    /// Adds the network without noise to `graph`, from observations to `q_values` `[n, actions]` and `value` `[n]`, their maximum.
    /// `support`: the values of the atoms of a categorical distribution; without it a value is the mean of its atoms.
    ///
    /// # Errors
    /// [`Error::Config`] for observations with several parts.
    pub fn export(&self, graph: &mut Graph, obs: Value, support: Option<&[f32]>) -> Result<()> {
        let e = &mut Exporter::new(graph, &self.params);
        let features = self.torso.export(e, obs)?;
        let mut q = self.layers.export(e, features);
        if let Some(support) = support {
            let support = e.graph.constant("support", || Array::new(&[support.len()], support));
            let probabilities = e.graph.op(Op::Softmax, &[q]);
            q = e.graph.op(Op::Mul, &[probabilities, support]);
        }
        if self.layers.atoms > 1 {
            let by = if support.is_some() { Reduction::Sum } else { Reduction::Mean };
            q = e.graph.op(Op::Reduce { by, axes: vec![2], keep: false }, &[q]);
        }
        e.graph.output("q_values", q, &[self.actions()]);
        let value = e.graph.op(Op::Reduce { by: Reduction::Max, axes: vec![1], keep: false }, &[q]);
        e.graph.output("value", value, &[]);
        Ok(())
    }

    /// Sets the gradient to that of `loss` (a scalar), which depends on the last training pass.
    pub fn backward(&mut self, loss: &Tensor) {
        backward([&mut self.torso], &mut self.params, loss);
    }

    /// The output of the last hidden layer (of a dueling network, the value's) at `n` observations, `[n, width]`, in inference and
    /// without noise.
    pub fn features(&mut self, obs: ObsRef<'_>, n: usize) -> Tensor {
        let features = self.torso.forward(&self.params, obs.into(), n, Pass::Infer);
        let (w, none) = (self.params.weights(), &mut [].iter());
        let hidden = Pass::Infer.run(|| self.layers.first.hidden(w, &features, none, Pass::Infer));
        hidden.unwrap_or(features)
    }
}

impl Layers {
    /// The last layer, where nothing else follows the torso and it has no noise.
    fn linear_head(&self) -> Option<Linear> {
        match self {
            Self { first: Stream { hidden: None, out: Dense::Plain(head), .. }, advantage: None, .. } => Some(*head),
            _ => None,
        }
    }

    fn noisy(&self) -> impl Iterator<Item = &NoisyLinear> {
        let streams = [Some(&self.first), self.advantage.as_ref()].into_iter().flatten();
        streams.flat_map(|s| s.hidden.iter().map(|(layer, _)| layer).chain([&s.out])).filter_map(|d| match d {
            Dense::Plain(_) => None,
            Dense::Noisy(layer) => Some(layer),
        })
    }

    fn forward(&self, w: &Weights, features: &Tensor, noise: &[Noise], pass: Pass) -> Tensor {
        let mut noise = noise.iter();
        let shape = [-1, self.actions, self.atoms];
        let Some(advantage) = &self.advantage else {
            return self.first.forward(w, features, &mut noise, pass).view(shape);
        };
        // The torso's gradient from two streams is scaled by 1/√2 (Wang et al. 2016, section 4.2). The difference added to the
        // constant is 0, so that the features keep their values.
        let constant = features.detach();
        let features = &constant + (features - &constant) * std::f64::consts::FRAC_1_SQRT_2;
        let value = self.first.forward(w, &features, &mut noise, pass).view([-1, 1, self.atoms]);
        let advantage = advantage.forward(w, &features, &mut noise, pass).view(shape);
        value + &advantage - advantage.mean_dim([1_i64].as_slice(), true, Kind::Float)
    }

    /// Adds the layers to a graph: `[n, actions, atoms]`; for one atom `[n, actions]`.
    fn export(&self, e: &mut Exporter<'_>, features: Value) -> Value {
        let mut stream = |stream: &Stream, outputs: i64| {
            let z = stream.export(e, features);
            if self.atoms == 1 { z } else { e.graph.reshape(z, &[outputs as usize, self.atoms as usize]) }
        };
        let Some(advantage) = &self.advantage else { return stream(&self.first, self.actions) };
        let (value, advantage) = (stream(&self.first, 1), stream(advantage, self.actions));
        let mean = e.graph.reduce(Reduction::Mean, advantage, &[1]);
        let advantage = e.graph.op(Op::Sub, &[advantage, mean]);
        e.graph.op(Op::Add, &[value, advantage])
    }
}

/// A stream's hidden layer and its normalization.
fn hidden(b: &mut Builder<'_>, torso: &Torso, width: i64, sigma: f64, config: &NetworkConfig) -> (Dense, Norm) {
    let layer = Dense::new(b, "hidden", (torso.width(), width), RECTIFIER_GAIN, sigma, config);
    (layer, Norm::new(b, "hidden_norm", config.norm, width))
}

impl Stream {
    fn hidden<'a>(
        &self,
        w: &Weights,
        x: &Tensor,
        noise: &mut impl Iterator<Item = &'a Noise>,
        pass: Pass,
    ) -> Option<Tensor> {
        let (layer, norm) = self.hidden.as_ref()?;
        Some(self.activation.apply(norm.forward(w, layer.forward(w, x, noise), pass)))
    }

    fn forward<'a>(&self, w: &Weights, x: &Tensor, noise: &mut impl Iterator<Item = &'a Noise>, pass: Pass) -> Tensor {
        let hidden = self.hidden(w, x, noise, pass);
        self.out.forward(w, hidden.as_ref().unwrap_or(x), noise)
    }

    fn export(&self, e: &mut Exporter<'_>, mut x: Value) -> Value {
        if let Some((layer, norm)) = &self.hidden {
            let y = layer.export(e, x);
            let y = norm.export(e, y, false);
            x = self.activation.export(e, y);
        }
        self.out.export(e, x)
    }
}

impl Dense {
    fn new(
        b: &mut Builder<'_>,
        name: &str,
        (inputs, outputs): (i64, i64),
        gain: f64,
        sigma: f64,
        config: &NetworkConfig,
    ) -> Self {
        if sigma > 0.0 {
            return Self::Noisy(NoisyLinear::new(b, name, inputs, outputs, sigma));
        }
        let (weight, bias) = hidden_init(config.init, inputs, gain);
        Self::Plain(Linear::new(b, name, inputs, outputs, weight, bias))
    }

    /// Applies the layer to `x`, in the precision of its weights.
    fn forward<'a>(&self, w: &Weights, x: &Tensor, noise: &mut impl Iterator<Item = &'a Noise>) -> Tensor {
        match self {
            Self::Plain(layer) => layer.forward(w, x),
            Self::Noisy(layer) => layer.forward(w, x, noise.next()),
        }
    }

    fn export(&self, e: &mut Exporter<'_>, x: Value) -> Value {
        match self {
            Self::Plain(layer) => layer.export(e, x),
            Self::Noisy(layer) => layer.export(e, x),
        }
    }
}
