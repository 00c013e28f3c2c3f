//! A policy and a value function on observations: the network of A3C, PAAC and PPO.

use super::config::NetworkConfig;
use super::dispatch::Dispatch;
use super::distribution::Distribution;
use super::evaluated_actions::{CategoricalLeaf, EvaluatedActions};
use super::feature_extractor::{FeatureExtractor, Leaf, backward};
use super::heads::PolicyHead;
use super::input::Input;
use super::summary::{Summary, summary};
use super::torso::Torso;
use crate::device;
use crate::export::Exporter;
use crate::init::hidden_init;
use crate::layers::linear::Linear;
use crate::layers::recurrent::lstm::Lstm;
use crate::layers::recurrent::state::RecurrentState;
use crate::observations::Observations;
use crate::optim::{Norm, Optimizer};
use crate::params::{Builder, Params};
use crate::pass::Pass;
use playfield_core::graph::{Graph, Value};
use playfield_core::rng::Rng;
use playfield_core::{Actions, Dtype, EnvSpec, Error, ObsRef, Result};
use tch::{Kind, Tensor};

/// The network: one torso (or one each for policy and value), an LSTM if configured, a policy head and a value head.
#[derive(Debug)]
pub struct ActorCritic {
    /// Its parameters.
    pub params: Params,
    torso: FeatureExtractor,
    value_torso: Option<FeatureExtractor>,
    layers: Layers,
}

/// The layers after the torso.
#[derive(Clone, Debug)]
struct Layers {
    lstm: Option<Lstm>,
    policy: PolicyHead,
    value: Linear,
}

impl ActorCritic {
    /// Builds the network of `config` for `spec` on the device called `device`, with initial values sampled from `rng`.
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
                return Err(Error::config("[network]: an `lstm` is shared by policy and value: set shared = true"));
            }
            false => Some(b.scope("value_torso", |b| Torso::new(b, config, spec))?),
        };
        let lstm = Some(config.lstm_width()).filter(|&width| width > 0);
        let lstm = lstm.map(|width| Lstm::new(&mut b, "lstm", torso.width(), width, config.init));
        let width = lstm.map_or(torso.width(), |lstm| lstm.width());
        // Logits and values are compared and subtracted: the last layers compute in f32.
        b.full_precision();
        let policy = PolicyHead::new(&mut b, &spec.actions, width, config);
        let (weight, bias) = hidden_init(config.init, width, 1.0);
        let value = Linear::new(&mut b, "value", width, 1, weight, bias);
        let kind = config.kind(device, torso.is_convolutional() && spec.parts.is_empty());
        let input = Input::new(config, spec, torso.is_convolutional(), device, kind)?;
        b.check_memory()?;
        let params = b.finish(device, kind);
        let dispatch = Dispatch::new(config.kernels);
        let value_torso =
            value_torso.map(|torso| FeatureExtractor::new(torso, input.deep_clone(), &params, dispatch.clone()));
        let torso = FeatureExtractor::new(torso, input, &params, dispatch);
        Ok(Self { params, torso, value_torso, layers: Layers { lstm, policy, value } })
    }

    /// Splits every batch among `threads` threads from now on, where that is faster: in a convolutional torso shared by policy and
    /// value, without batch norm, on the CPU.
    pub fn set_num_threads(&mut self, threads: usize) {
        let threads = if self.value_torso.is_none() { threads } else { 1 };
        self.torso.set_num_threads(&self.params, threads);
    }

    /// Folds batch norm into the layers before it ([`norm::fold`](crate::norm::fold())): for a network that is neither trained further
    /// nor saved.
    pub fn fold(&mut self) {
        let Self { params, torso, value_torso, .. } = self;
        [Some(torso), value_torso.as_mut()].into_iter().flatten().for_each(|torso| torso.fold(params));
    }

    /// A copy with parameters of its own, on one thread.
    pub fn deep_clone(&self) -> Self {
        let params = self.params.deep_clone();
        let value_torso = self.value_torso.as_ref().map(|torso| torso.over(&params));
        Self { torso: self.torso.over(&params), value_torso, params, layers: self.layers.clone() }
    }

    /// Whether the network has a recurrent state.
    pub fn is_recurrent(&self) -> bool {
        self.layers.lstm.is_some()
    }

    /// The initial recurrent state of `n` sequences: zeros.
    pub fn initial_state(&self, n: usize) -> RecurrentState {
        RecurrentState::new(n, self.layers.lstm.map_or(0, |lstm| lstm.width()), self.params.master().device())
    }

    /// Policies and values (`[n]`, `f32`) at `n` observations, from the initial recurrent state.
    pub fn forward(&mut self, obs: ObsRef<'_>, n: usize, pass: Pass) -> (Distribution, Tensor) {
        let state = self.initial_state(n);
        let (policy, value, _) = self.forward_from(&state, &[], obs.into(), n, pass);
        (policy, value)
    }

    /// The same at `n` observations that continue the sequences of `state`, time first: with two sequences, six
    /// observations are three steps. `resets`: see [`Lstm::forward`]. Also returns the state after the last step.
    pub fn forward_from(
        &mut self,
        state: &RecurrentState,
        resets: &[bool],
        obs: Observations<'_>,
        n: usize,
        pass: Pass,
    ) -> (Distribution, Tensor, RecurrentState) {
        let Self { params, torso, value_torso, layers } = self;
        if layers.lstm.is_none() && value_torso.is_none() {
            let heads = [layers.policy.linear(), layers.value];
            let outputs = torso.forward_heads(&heads, params, obs, n, pass);
            let [policy, value] = outputs.try_into().expect("an output of each head");
            let policy = pass.run(|| layers.policy.distribution(params.weights(), policy));
            return (policy, pass.run(|| value.squeeze_dim(1)), state.shallow_clone());
        }
        let features = torso.forward(params, obs, n, pass);
        let value_features = value_torso.as_mut().map(|torso| torso.forward(params, obs, n, pass));
        let w = params.weights();
        pass.run(|| {
            let (features, state) = match &layers.lstm {
                Some(lstm) => lstm.forward(w, &features, state, resets),
                None => (features, state.shallow_clone()),
            };
            let policy = layers.policy.distribution(w, layers.policy.linear().forward(w, &features));
            let value = layers.value.forward(w, value_features.as_ref().unwrap_or(&features)).squeeze_dim(1);
            (policy, value, state)
        })
    }

    /// Evaluates `actions` at observations that continue the sequences of `state`, recorded for the backward pass: see
    /// [`forward_from`](Self::forward_from). `action_mask`, `[n, choices]` or empty: the valid choices.
    ///
    /// # Panics
    /// If `actions` are of another space than the policy's, or not one for each observation.
    pub fn evaluate_actions(
        &mut self,
        state: &RecurrentState,
        resets: &[bool],
        obs: Observations<'_>,
        actions: &Actions,
        action_mask: &[bool],
    ) -> EvaluatedActions {
        let (policy, values, _) = self.forward_from(state, resets, obs, actions.len(), Pass::Train);
        if let (Distribution::Categorical { logits, sizes }, Some(leaf)) = (&policy, self.torso.output_leaf(0)) {
            let categorical = CategoricalLeaf::new(logits, sizes, actions, action_mask);
            let [log_probs, entropies] = [&categorical.log_probs, &categorical.entropies].map(Tensor::shallow_clone);
            *leaf = Leaf::Categorical(categorical);
            return EvaluatedActions { log_probs, entropies, values };
        }
        let policy = policy.masked(action_mask);
        EvaluatedActions { log_probs: policy.log_prob(actions), entropies: policy.entropy(), values }
    }

    /// The mean of a Gaussian policy's standard deviations, a scalar without gradient; `None` for a categorical one.
    pub fn mean_std(&self) -> Option<Tensor> {
        let log_std = self.layers.policy.log_std(self.params.weights())?;
        Some(log_std.detach().exp().mean(Kind::Float))
    }

    /// Policy, values and the input of the policy head, `[n, width]`, in inference for one step of the sequences of `state`.
    pub fn infer_with_features(
        &mut self,
        state: &RecurrentState,
        obs: ObsRef<'_>,
        n: usize,
    ) -> (Distribution, Tensor, Tensor) {
        let (policy, value, next) = self.forward_from(state, &[], obs.into(), n, Pass::Infer);
        let features = match self.is_recurrent() {
            true => next.h().shallow_clone(),
            false => self.torso.forward(&self.params, obs.into(), n, Pass::Infer),
        };
        (policy, value, features)
    }

    /// Adds the network to `graph`, from observations to the outputs of [`Policy::export`](playfield_core::Policy::export).
    ///
    /// # Errors
    /// [`Error::Config`] naming a layer that has no operators.
    pub fn export(&self, graph: &mut Graph, obs: Value) -> Result<()> {
        let e = &mut Exporter::new(graph, &self.params);
        let mut features = self.torso.export(e, obs)?;
        let value_features = self.value_torso.as_ref().map(|torso| torso.export(e, obs)).transpose()?;
        let mut state = None;
        if let Some(lstm) = &self.layers.lstm {
            let width = [lstm.width() as usize];
            let [h, c] = ["hidden", "cell"].map(|name| e.graph.input(name, Dtype::F32, &width));
            let (h, c) = lstm.export(e, features, (h, c))?;
            (features, state) = (h, Some([("next_hidden", h), ("next_cell", c)]));
        }
        self.layers.policy.export(e, features);
        let value = self.layers.value.export(e, value_features.unwrap_or(features));
        let value = e.graph.reshape(value, &[]);
        e.graph.output("value", value, &[]);
        let width = self.layers.lstm.map_or(0, |lstm| lstm.width() as usize);
        state.into_iter().flatten().for_each(|(name, value)| e.graph.output(name, value, &[width]));
        Ok(())
    }

    /// Sets the gradient to that of `loss` (a scalar), which depends on the last training pass.
    pub fn backward(&mut self, loss: &Tensor) {
        let Self { params, torso, value_torso, .. } = self;
        backward([torso].into_iter().chain(value_torso), params, loss);
    }

    /// Describes the network, which was built from `config` for `spec`.
    pub fn summary(&self, config: &NetworkConfig, spec: &EnvSpec) -> Summary {
        summary(config, spec, &self.params, &self.torso)
    }

    /// Chooses the code that computes its torso: saved with a run, so that a resumed one computes the same.
    pub fn dispatch(&self) -> &Dispatch {
        self.torso.dispatch()
    }

    /// Steps `optimizer` by the gradient: see [`Optimizer::step_sharded`].
    ///
    /// # Errors
    /// As that.
    pub fn step(&mut self, optimizer: &mut Optimizer, learning_rate: f64, max_norm: f64) -> Result<Norm> {
        let shards = self.torso.shards_with_gradient();
        optimizer.step_sharded(&mut self.params, &shards, learning_rate, max_norm)
    }

    /// Applies the pending gradient: see [`Optimizer::step_pending`].
    ///
    /// # Errors
    /// As that.
    pub fn step_pending(
        &mut self,
        optimizer: &mut Optimizer,
        learning_rate: f64,
        max_norm: f64,
    ) -> Result<Option<Norm>> {
        optimizer.step_pending(&mut self.params, learning_rate, max_norm)
    }
}
