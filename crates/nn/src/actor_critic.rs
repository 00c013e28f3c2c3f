//! A policy and a value function on observations: the network of A3C and PAAC.

use crate::config::NetworkConfig;
use crate::device;
use crate::dispatch::Dispatch;
use crate::distribution::Distribution;
use crate::encoder::Encoder;
use crate::heads::PolicyHead;
use crate::input::Input;
use crate::linear::Linear;
use crate::lstm::{Lstm, RecurrentState};
use crate::optim::Optimizer;
use crate::params::{Builder, Params};
use crate::shards::Shards;
use crate::torso::{Torso, hidden_init};
use playfield_core::rng::Rng;
use playfield_core::{EnvSpec, Error, ObsRef, Result};
use tch::{Device, Tensor};

/// The network: one torso (or one for each of the two), an LSTM where the configuration wants one, a policy head and a
/// value head.
#[derive(Debug)]
pub struct ActorCritic {
    /// Its parameters.
    pub params: Params,
    torso: Encoder,
    value_torso: Option<Encoder>,
    layers: Layers,
    shards: Option<Shards>,
}

/// What follows the torso.
#[derive(Clone, Copy, Debug)]
struct Layers {
    lstm: Option<Lstm>,
    policy: PolicyHead,
    value: Linear,
}

impl ActorCritic {
    /// Builds the network of `config` for `spec` on the device called `device`, with initial values drawn from `rng`.
    ///
    /// # Errors
    /// [`Error::Config`] where torso and observation, or device and machine, don't fit.
    pub fn new(config: &NetworkConfig, spec: &EnvSpec, device: &str, rng: &mut Rng) -> Result<Self> {
        config.check()?;
        let device = device::parse(device)?;
        let mut b = Builder::new(rng);
        let torso = b.scope("torso", |b| Torso::new(b, config, spec))?;
        let value_torso = match config.shared {
            true => None,
            false if config.lstm_width() > 0 => {
                return Err(Error::config("[network]: an `lstm` serves policy and value together: set shared = true"));
            }
            false => Some(b.scope("value_torso", |b| Torso::new(b, config, spec))?),
        };
        let lstm = Some(config.lstm_width()).filter(|&width| width > 0);
        let lstm = lstm.map(|width| Lstm::new(&mut b, "lstm", torso.width(), width, config.init));
        let width = lstm.map_or(torso.width(), |lstm| lstm.width());
        // Logits and values are compared and subtracted: the last layers compute in f32.
        b.full_precision();
        let policy = PolicyHead::new(&mut b, &spec.actions, width, config.init);
        let (weight, bias) = hidden_init(config.init, width, 1.0);
        let value = Linear::new(&mut b, "value", width, 1, weight, bias);
        let kind = config.kind(device, torso.convolves());
        let input = Input::new(config, spec, torso.convolves(), device, kind)?;
        let params = b.finish(device, kind);
        let dispatch = Dispatch::new(config.kernels);
        let value_torso = value_torso.map(|torso| Encoder::new(torso, input.deep_clone(), &params, dispatch.clone()));
        let torso = Encoder::new(torso, input, &params, dispatch);
        Ok(Self { params, torso, value_torso, layers: Layers { lstm, policy, value }, shards: None })
    }

    /// Shares the rows of every batch out among `threads` threads from now on. Only what pays is shared: the torso that
    /// policy and value have in common, where it convolves, on the processor. Batch norm is of the whole batch: rows that are
    /// normalized by it stay together.
    pub fn set_num_threads(&mut self, threads: usize) {
        let separable = self.torso.torso().convolves() && !self.torso.torso().uses_batch_statistics();
        let pays = separable && self.value_torso.is_none() && self.params.master().device() == Device::Cpu;
        self.shards = if pays { Shards::new(threads, &self.params, &self.torso) } else { None };
    }

    /// Folds batch norm into the layers before it ([`norm::fold`](crate::norm::fold)): for a network that acts from now on, and
    /// neither learns nor is saved.
    pub fn fold(&mut self) {
        let Self { params, torso, value_torso, .. } = self;
        [Some(torso), value_torso.as_mut()].into_iter().flatten().for_each(|torso| torso.fold(params));
    }

    /// A network with the same values and parameters of its own.
    pub fn deep_clone(&self) -> Self {
        let params = self.params.deep_clone();
        let value_torso = self.value_torso.as_ref().map(|torso| torso.over(&params));
        Self { torso: self.torso.over(&params), value_torso, params, layers: self.layers, shards: None }
    }

    /// What it remembers of `n` sequences that start now.
    pub fn initial_state(&self, n: usize) -> RecurrentState {
        RecurrentState::new(n, self.layers.lstm.map_or(0, |lstm| lstm.width()), self.params.master().device())
    }

    /// Policies and values (`[n]`, `f32`) at `n` observations, each the first of its episode. Autograd records unless inside
    /// [`tch::no_grad`].
    pub fn forward(&mut self, obs: ObsRef<'_>, n: usize) -> (Distribution, Tensor) {
        let memory = self.initial_state(n);
        let (policy, value, _) = self.forward_from(&memory, &[], obs, n);
        (policy, value)
    }

    /// The same at `n` observations that continue the sequences of `memory`, time first: with its two memories, six
    /// observations are three steps. `resets`: see [`Lstm::forward`]. Returns the memory after the last step, too.
    pub fn forward_from(
        &mut self,
        memory: &RecurrentState,
        resets: &[bool],
        obs: ObsRef<'_>,
        n: usize,
    ) -> (Distribution, Tensor, RecurrentState) {
        let (policy, value, memory, _) = self.forward_with_features(memory, resets, obs, n);
        (policy, value, memory)
    }

    /// The same, and the features that the policy's last layer sees, `[n, width]`.
    pub fn forward_with_features(
        &mut self,
        memory: &RecurrentState,
        resets: &[bool],
        obs: ObsRef<'_>,
        n: usize,
    ) -> (Distribution, Tensor, RecurrentState, Tensor) {
        let Self { params, torso, value_torso, layers, shards } = self;
        let features = match shards {
            Some(shards) => shards.forward(torso, params, obs, n),
            None => torso.forward(params, obs, n),
        };
        let again = value_torso.as_mut().map(|torso| torso.forward(params, obs, n));
        let w = params.weights();
        let (features, memory) = match &layers.lstm {
            Some(lstm) => lstm.forward(w, &features, memory, resets),
            None => (features, memory.shallow_clone()),
        };
        let policy = layers.policy.forward(w, &features);
        let value = layers.value.forward(w, again.as_ref().unwrap_or(&features)).squeeze_dim(1);
        (policy, value, memory, features)
    }

    /// Sets the gradient to that of `loss` (a scalar).
    pub fn backward(&mut self, loss: &Tensor) {
        let Self { params, torso, value_torso, shards, .. } = self;
        params.backward(loss);
        match shards {
            Some(shards) => shards.backward(torso, params),
            None => torso.backward(params),
        }
        value_torso.iter_mut().for_each(|torso| torso.backward(params));
    }

    /// What says which code computes its torso: saved with a run, so that a resumed one computes the same.
    pub fn dispatch(&self) -> &Dispatch {
        self.torso.dispatch()
    }

    /// Makes `optimizer` step by the gradient: see [`Optimizer::step`].
    pub fn step(&mut self, optimizer: &mut Optimizer, learning_rate: f64, max_norm: f64) -> f64 {
        let others = self.shards.as_ref().map(Shards::params).unwrap_or_default();
        optimizer.step_with(&mut self.params, &others, learning_rate, max_norm)
    }
}
