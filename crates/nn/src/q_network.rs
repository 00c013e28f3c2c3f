//! Action values on observations: the network of DQN and its family.
//!
//! ```text
//! trunk (convolutions, hidden) ─ out                   Q, or its distribution, per action
//! trunk ┬ value hidden ─ out ─────┐                    dueling: Q = V + A − mean A (Wang et al. 2016, equation 9)
//!       └ advantage hidden ─ out ─┘
//! ```

use crate::config::{Activation, NetworkConfig};
use crate::device;
use crate::encoder::Encoder;
use crate::input::Input;
use crate::linear::Linear;
use crate::noisy_linear::{Noise, NoisyLinear};
use crate::norm::Norm;
use crate::params::{Builder, Params, Weights};
use crate::torso::{Torso, hidden_init};
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
        let mut stream =
            |name: &str, outputs: i64| b.scope(name, |b| Stream::new(b, &trunk, width, outputs, q.noisy_sigma, config));
        let (first, advantage) = match q.dueling {
            false => (stream("q", actions * q.atoms), None),
            true => (stream("value", q.atoms), Some(stream("advantage", actions * q.atoms))),
        };
        let kind = config.kind(device, trunk.convolves());
        let input = Input::new(config, spec, trunk.convolves(), device, kind)?;
        let params = b.finish(device, kind);
        let trunk = Encoder::new(trunk, input, &params);
        let layers = Layers { first, advantage, actions, atoms: q.atoms };
        Ok(Self { params, trunk, layers, noise: Vec::new() })
    }

    /// Whether rows of a batch change each other's values where it learns.
    pub fn mixes_rows(&self) -> bool {
        self.trunk.torso().mixes_rows()
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
    pub fn duplicate(&self) -> Self {
        self.over(self.params.duplicate())
    }

    /// A network over the same parameters with a gradient and buffers of its own: see [`Params::share`].
    pub fn share(&self) -> Self {
        self.over(self.params.share())
    }

    fn over(&self, params: Params) -> Self {
        Self { trunk: self.trunk.over(&params), params, layers: self.layers.clone(), noise: Vec::new() }
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

    /// Draws new noise for the noisy layers; of a network without any, nothing happens.
    pub fn draw_noise(&mut self, rng: &mut Rng) {
        let flat = self.params.weights().flat();
        let (device, kind) = (flat.device(), flat.kind());
        self.noise = self.layers.noisy().map(|layer| layer.draw(rng, device, kind)).collect();
    }

    /// Leaves the noise away.
    pub fn quiet(&mut self) {
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
            return self.first.forward(w, features, &mut noise).to_kind(Kind::Float).view(shape);
        };
        // Two streams push the trunk where one would: their gradients are scaled by 1/√2 (Wang et al. 2016, section 4.2).
        let scale = std::f64::consts::FRAC_1_SQRT_2;
        let features = features.detach() * (1.0 - scale) + features * scale;
        let value = self.first.forward(w, &features, &mut noise).to_kind(Kind::Float).view([-1, 1, self.atoms]);
        let advantage = advantage.forward(w, &features, &mut noise).to_kind(Kind::Float).view(shape);
        value + &advantage - advantage.mean_dim([1_i64].as_slice(), true, Kind::Float)
    }
}

impl Stream {
    fn new(
        b: &mut Builder<'_>,
        trunk: &Torso,
        width: Option<i64>,
        outputs: i64,
        sigma: f64,
        config: &NetworkConfig,
    ) -> Self {
        let dense = |b: &mut Builder<'_>, name: &str, inputs: i64, outputs: i64, gain: f64| match sigma > 0.0 {
            true => Dense::Noisy(NoisyLinear::new(b, name, inputs, outputs, sigma)),
            false => {
                let (weight, bias) = hidden_init(config.init, inputs, gain);
                Dense::Plain(Linear::new(b, name, inputs, outputs, weight, bias))
            }
        };
        let hidden = width.map(|width| {
            let layer = dense(b, "hidden", trunk.width(), width, std::f64::consts::SQRT_2);
            (layer, Norm::new(b, "hidden_norm", config.norm, width))
        });
        let out = dense(b, "out", width.unwrap_or(trunk.width()), outputs, 1.0);
        Self { hidden, out, activation: trunk.activation() }
    }

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
    fn forward<'a>(&self, w: &Weights, x: &Tensor, noise: &mut impl Iterator<Item = &'a Noise>) -> Tensor {
        match self {
            Self::Plain(layer) => layer.forward(w, x),
            Self::Noisy(layer) => layer.forward(w, x, noise.next()),
        }
    }
}
