//! A policy and a value function on observations: the network of A3C and PAAC.

use crate::config::NetworkConfig;
use crate::device;
use crate::heads::{Distribution, PolicyHead};
use crate::input::Input;
use crate::linear::Linear;
use crate::params::{Builder, Params, Weights};
use crate::torso::{Torso, hidden_init};
use playfield_core::rng::Rng;
use playfield_core::{EnvSpec, ObsRef, Result};
use tch::{Kind, Tensor};

/// The network: one torso (or one for each of the two), a policy head and a value head.
#[derive(Debug)]
pub struct ActorCritic {
    /// Its parameters.
    pub params: Params,
    layers: Layers,
    input: Input,
}

#[derive(Debug)]
struct Layers {
    torso: Torso,
    value_torso: Option<Torso>,
    policy: PolicyHead,
    value: Linear,
}

impl ActorCritic {
    /// Builds the network of `config` for `spec` on the device called `device`, with initial values drawn from `rng`.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) where torso and observation, or device and machine, don't fit.
    pub fn new(config: &NetworkConfig, spec: &EnvSpec, device: &str, rng: &mut Rng) -> Result<Self> {
        config.check()?;
        let device = device::parse(device)?;
        let mut b = Builder::new(rng);
        let torso = b.scope("torso", |b| Torso::new(b, config, spec))?;
        let value_torso = match config.shared {
            true => None,
            false => Some(b.scope("value_torso", |b| Torso::new(b, config, spec))?),
        };
        let width = torso.width();
        let policy = PolicyHead::new(&mut b, &spec.actions, width, config.init);
        let (weight, bias) = hidden_init(config.init, width, 1.0);
        let value = Linear::new(&mut b, "value", width, 1, weight, bias);
        let kind = config.kind(device, torso.convolves());
        let input = Input::new(config, spec, torso.convolves(), device, kind)?;
        Ok(Self { params: b.finish(device, kind), layers: Layers { torso, value_torso, policy, value }, input })
    }

    /// Policies and values (`[n]`, `f32`) at `n` observations. Autograd records unless inside [`tch::no_grad`].
    pub fn forward(&mut self, obs: ObsRef<'_>, n: usize) -> (Distribution, Tensor) {
        let x = self.input.load(obs, n);
        self.layers.forward(self.params.weights(), &x)
    }
}

impl Layers {
    fn forward(&self, w: &Weights, x: &Tensor) -> (Distribution, Tensor) {
        let features = self.torso.forward(w, x);
        let policy = self.policy.forward(w, &features);
        let features = self.value_torso.as_ref().map_or(features, |torso| torso.forward(w, x));
        (policy, self.value.forward(w, &features).squeeze_dim(1).to_kind(Kind::Float))
    }
}
