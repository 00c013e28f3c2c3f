//! Action values on observations: the network of DQN and its family.
//!
//! ```text
//! trunk (convolutions, hidden) ─ out                   Q, or its distribution, per action
//! trunk ┬ value hidden ─ out ─────┐                    dueling: Q = V + A − mean A (Wang et al. 2016, equation 9)
//!       └ advantage hidden ─ out ─┘
//! ```

use crate::config::{Activation, NetworkConfig};
use crate::device;
use crate::dispatch::Dispatch;
use crate::encoder::Encoder;
use crate::input::Input;
use crate::linear::Linear;
use crate::noisy_linear::{Noise, NoisyLinear};
use crate::norm::Norm;
use crate::params::{Builder, Params, Weights};
use crate::torso::{GAIN, Torso, hidden_init};
use playfield_core::rng::Rng;
use playfield_core::{ActionSpace, EnvSpec, Error, ObsRef, Result};
use tch::{Kind, Tensor};

/// What a Q-network has beyond its torso.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QConfig {
    /// Two streams, value and advantage, rather than one.
    pub dueling: bool,
    /// Noisy layers after the trunk, with this σ₀; 0: plain ones.
    pub noisy_sigma: f64,
    /// Numbers per action: 1 for a value, more for a distribution.
    pub atoms: i64,
}

/// The network.
#[derive(Debug)]
pub struct QNetwork {
    /// Its parameters.
    pub params: Params,
    trunk: Encoder,
    layers: Layers,
    /// Of the noisy layers, in their order; none: they go by their means.
    noise: Vec<Noise>,
}

/// What follows the trunk.
#[derive(Clone, Debug)]
struct Layers {
    /// Of all actions, or the value's.
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
    /// Builds the network for `spec` on the device called `device`, with initial values drawn from `rng`.
    ///
    /// # Errors
    /// [`Error::Config`] where torso and observation, or device and machine, don't fit, or actions are continuous.
    pub fn new(config: &NetworkConfig, q: QConfig, spec: &EnvSpec, device: &str, rng: &mut Rng) -> Result<Self> {
        config.check()?;
        let ActionSpace::Discrete { n } = &spec.actions else {
            return Err(Error::config(format!("{} has continuous actions: Q-learning needs discrete ones", spec.id)));
        };
        if config.lstm_width() > 0 {
            return Err(Error::config(
                "[network]: an LSTM (`lstm`, or torso = \"lstm\") is for agents that act by a policy (paac, a3c): Q-networks have none",
            ));
        }
        let (device, actions) = (device::parse(device)?, *n as i64);
        let mut b = Builder::new(rng);
        let (mut trunk, mut width) = b.scope("torso", |b| Torso::trunk(b, config, spec))?;
        // The only hidden layer, if it is like any other, is computed with those before it.
        if let Some(width) = width.take_if(|_| !q.dueling && q.noisy_sigma == 0.0) {
            b.scope("q", |b| trunk.push(b, "hidden", width, config.init));
        }
        let streams = match q.dueling {
            false => vec![("q", actions * q.atoms)],
            true => vec![("value", q.atoms), ("advantage", actions * q.atoms)],
        };
        let hidden = streams.iter().map(|(name, _)| {
            let sigma = q.noisy_sigma;
            b.scope(name, |b| width.map(|width| hidden(b, &trunk, width, sigma, config)))
        });
        let hidden: Vec<_> = hidden.collect();
        // Values are compared and subtracted: the last layers compute in f32.
        b.full_precision();
        let (inputs, activation) = (width.unwrap_or(trunk.width()), trunk.activation());
        let outs = streams.iter().zip(hidden).map(|(&(name, outputs), hidden)| {
            let out = b.scope(name, |b| Dense::new(b, "out", (inputs, outputs), 1.0, q.noisy_sigma, config));
            Stream { hidden, out, activation }
        });
        let mut outs: Vec<_> = outs.collect();
        let advantage = if q.dueling { outs.pop() } else { None };
        let first = outs.pop().expect("one stream at least");
        let kind = config.kind(device, trunk.convolves());
        let input = Input::new(config, spec, trunk.convolves(), device, kind)?;
        let params = b.finish(device, kind);
        let trunk = Encoder::new(trunk, input, &params, Dispatch::new(config.kernels));
        let layers = Layers { first, advantage, actions, atoms: q.atoms };
        Ok(Self { params, trunk, layers, noise: Vec::new() })
    }

    /// Whether rows of a batch change each other's values where it learns.
    pub fn uses_batch_statistics(&self) -> bool {
        self.trunk.torso().uses_batch_statistics()
    }

    /// Folds batch norm into the layers before it: see [`ActorCritic::fold`](crate::ActorCritic::fold). Behind a noisy layer
    /// it stays: it scales the noise, too.
    pub fn fold(&mut self) {
        let Self { params, trunk, layers, .. } = self;
        trunk.fold(params);
        for stream in [Some(&mut layers.first), layers.advantage.as_mut()].into_iter().flatten() {
            if let Some((Dense::Plain(layer), norm)) = &mut stream.hidden {
                norm.fold(params, layer.slots());
            }
        }
    }

    /// A network with the same values and parameters of its own: a target.
    pub fn deep_clone(&self) -> Self {
        self.over(self.params.deep_clone())
    }

    /// A network over the same parameters with a gradient and buffers of its own: see [`Params::share`].
    pub fn share(&self) -> Self {
        self.over(self.params.share())
    }

    fn over(&self, params: Params) -> Self {
        Self { trunk: self.trunk.over(&params), params, layers: self.layers.clone(), noise: Vec::new() }
    }

    /// What says which code computes its torso: saved with a run, so that a resumed one computes the same.
    pub fn dispatch(&self) -> &Dispatch {
        self.trunk.dispatch()
    }

    /// How many actions it values.
    pub fn actions(&self) -> usize {
        self.layers.actions as usize
    }

    /// Takes the weights of another network of the same layout: those that layers compute with, not the master. For an
    /// actor, which neither learns nor saves.
    pub fn follow(&mut self, other: &Self) {
        self.params.follow(&other.params);
    }

    /// Samples noise for the noisy layers, in their order (value before advantage, hidden before last); of a network without
    /// any, nothing.
    pub fn sample_noise(&self, rng: &mut Rng) -> Vec<Noise> {
        self.layers.noisy().map(|layer| layer.sample(self.params.weights(), rng)).collect()
    }

    /// Uses a sample of this network's noise, or of one with the same layers, from now on.
    pub fn set_noise(&mut self, noise: Vec<Noise>) {
        self.noise = noise;
    }

    /// Leaves the noise away.
    pub fn disable_noise(&mut self) {
        self.noise.clear();
    }

    /// `[n, actions, atoms]` in `f32` at `n` observations. Autograd records unless inside [`tch::no_grad`].
    pub fn forward(&mut self, obs: ObsRef<'_>, n: usize) -> Tensor {
        let features = self.trunk.forward(&self.params, obs, n);
        self.layers.forward(self.params.weights(), &features, &self.noise)
    }

    /// Sets the gradient to that of `loss` (a scalar) of what was forwarded last.
    pub fn backward(&mut self, loss: &Tensor) {
        self.params.backward(loss);
        self.trunk.backward(&mut self.params);
    }

    /// What the last hidden layer (of a dueling network, that of the value) holds at `n` observations, `[n, width]`, without
    /// noise.
    pub fn features(&mut self, obs: ObsRef<'_>, n: usize) -> Tensor {
        let features = self.trunk.forward(&self.params, obs, n);
        let (w, none) = (self.params.weights(), &mut [].iter());
        self.layers.first.hidden(w, &features, none).unwrap_or(features)
    }
}

impl Layers {
    fn noisy(&self) -> impl Iterator<Item = &NoisyLinear> {
        let streams = [Some(&self.first), self.advantage.as_ref()].into_iter().flatten();
        streams.flat_map(|s| s.hidden.iter().map(|(layer, _)| layer).chain([&s.out])).filter_map(|d| match d {
            Dense::Plain(_) => None,
            Dense::Noisy(layer) => Some(layer),
        })
    }

    fn forward(&self, w: &Weights, features: &Tensor, noise: &[Noise]) -> Tensor {
        let mut noise = noise.iter();
        let shape = [-1, self.actions, self.atoms];
        let Some(advantage) = &self.advantage else {
            return self.first.forward(w, features, &mut noise).view(shape);
        };
        // Two streams push the trunk where one would: their gradients are scaled by 1/√2 (Wang et al. 2016, section 4.2).
        // The features themselves are unchanged: what is added is 0.
        let constant = features.detach();
        let features = &constant + (features - &constant) * std::f64::consts::FRAC_1_SQRT_2;
        let value = self.first.forward(w, &features, &mut noise).view([-1, 1, self.atoms]);
        let advantage = advantage.forward(w, &features, &mut noise).view(shape);
        value + &advantage - advantage.mean_dim([1_i64].as_slice(), true, Kind::Float)
    }
}

/// A stream's hidden layer, and what normalizes it.
fn hidden(b: &mut Builder<'_>, trunk: &Torso, width: i64, sigma: f64, config: &NetworkConfig) -> (Dense, Norm) {
    let layer = Dense::new(b, "hidden", (trunk.width(), width), GAIN, sigma, config);
    (layer, Norm::new(b, "hidden_norm", config.norm, width))
}

impl Stream {
    fn hidden<'a>(&self, w: &Weights, x: &Tensor, noise: &mut impl Iterator<Item = &'a Noise>) -> Option<Tensor> {
        let (layer, norm) = self.hidden.as_ref()?;
        Some(self.activation.apply(norm.forward(w, layer.forward(w, x, noise))))
    }

    fn forward<'a>(&self, w: &Weights, x: &Tensor, noise: &mut impl Iterator<Item = &'a Noise>) -> Tensor {
        let hidden = self.hidden(w, x, noise);
        self.out.forward(w, hidden.as_ref().unwrap_or(x), noise)
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

    /// Applies the layer to `x`, in the layer's own precision.
    fn forward<'a>(&self, w: &Weights, x: &Tensor, noise: &mut impl Iterator<Item = &'a Noise>) -> Tensor {
        match self {
            Self::Plain(layer) => layer.forward(w, x),
            Self::Noisy(layer) => layer.forward(w, x, noise.next()),
        }
    }
}
