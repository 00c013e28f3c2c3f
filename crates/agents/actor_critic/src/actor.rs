use crate::{Losses, Objective, Targets, index_tensor};
use playfield_core::graph::{Graph, Value};
use playfield_core::group::{self, Group, SingleProcess};
use playfield_core::rng::Rng;
use playfield_core::rollout::Decisions;
use playfield_core::{
    Actions, EnvSpec, Error, FrameStack, Mode, Obs, ObsRef, Outputs, Policy, Result, Rollout, RolloutPolicy, Snapshot,
    rng,
};
use playfield_nn::observations::{Indexed, upload};
use playfield_nn::optim::{Combine, Norm, Optimizer};
use playfield_nn::params::to_vec;
use playfield_nn::{
    ActorCritic, DeviceRollout, Distribution, EvaluatedActions, NetworkConfig, Observations, Pass, RecurrentState,
};
use rand::SeedableRng;
use std::sync::Arc;
use tch::{Device, Tensor};

/// An actor-critic network with the recurrent state of `n` environments and a random stream.
#[derive(Debug)]
pub struct Actor {
    /// The network.
    pub net: ActorCritic,
    /// The recurrent state after the last observation that was acted on.
    state: RecurrentState,
    /// The recurrent state at the start of the current rollout.
    start: RecurrentState,
    /// The observations of the current rollout, where the network's device is not the CPU.
    device_rollout: Option<DeviceRollout>,
    /// The observations of the next actions, on the device.
    next_observations: Option<Tensor>,
    rng: Rng,
    group: Arc<dyn Group>,
}

impl Actor {
    /// An actor for `n` environments, each at the start of an episode.
    pub fn new(net: ActorCritic, n: usize, rng: Rng) -> Self {
        let (state, start) = (net.initial_state(n), net.initial_state(n));
        let (device_rollout, next_observations, group) = (None, None, SingleProcess::shared());
        Self { net, state, start, device_rollout, next_observations, rng, group }
    }

    /// Keeps frames of rollouts of `steps` steps in `n` environments of `spec` on the network's device, where that is not the CPU.
    ///
    /// # Errors
    /// [`Error::Config`] where the device has too little memory.
    pub fn with_rollout(mut self, spec: &EnvSpec, n: usize, steps: usize) -> Result<Self> {
        let device = self.net.params.master().device();
        if device != Device::Cpu {
            self.device_rollout = DeviceRollout::new(spec, n, steps, device)?;
        }
        Ok(self)
    }

    /// The rollout on the device, where its observations are there.
    fn full_device_rollout(&self) -> Option<&DeviceRollout> {
        self.device_rollout.as_ref().filter(|rollout| rollout.is_full())
    }

    /// Makes this the actor of one rank of `group`: it takes the parameters of rank 0, and `optimizer` steps by the mean of the
    /// gradients of all ranks from now on, which they exchange as `exchange` says. Call it after loading.
    ///
    /// # Errors
    /// [`Error::Group`]. [`Error::Config`]: see [`Optimizer::set_group`].
    pub fn join(&mut self, optimizer: &mut Optimizer, group: &Arc<dyn Group>, exchange: group::Config) -> Result<()> {
        self.net.params.broadcast(&**group)?;
        optimizer.set_group(group.clone(), Combine::Mean, exchange, &self.net.params)?;
        self.group = group.clone();
        Ok(())
    }

    /// The processes that train this policy.
    pub fn group(&self) -> &dyn Group {
        &*self.group
    }

    /// A copy of the policy with parameters and a random stream of its own, for evaluation.
    pub fn evaluation_policy(&self) -> Self {
        Self::new(self.net.deep_clone(), 1, self.rng.clone())
    }

    /// The value of the last observations of a full rollout, `[envs]`. The recurrent state does not advance.
    pub fn bootstrap(&mut self, rollout: &Rollout) -> Tensor {
        let on_device = self.full_device_rollout().map(DeviceRollout::last_observations);
        let obs = on_device_or_host(on_device.as_ref(), rollout.last_observations());
        self.net.forward_from(&self.state, &[], obs, rollout.envs(), Pass::Infer).1
    }

    /// Evaluates all actions of a full rollout, recorded for the backward pass. A recurrent network starts from its state at the beginning of the
    /// rollout.
    pub fn evaluate_rollout(&mut self, rollout: &Rollout) -> EvaluatedActions {
        let on_device = self.full_device_rollout().map(DeviceRollout::observations);
        let obs = on_device_or_host(on_device.as_ref(), rollout.observations());
        self.net.evaluate_actions(&self.start, rollout.episode_starts(), obs, rollout.actions(), rollout.action_masks())
    }

    /// The same at the transitions `indices` of a full rollout, with these. For a recurrent network they are all steps of some environments,
    /// time first ([`Rollout::sequence_minibatches`]), of which those that are no transitions are left out afterwards.
    pub fn evaluate_minibatch(&mut self, rollout: &Rollout, indices: Vec<usize>) -> (EvaluatedActions, Vec<usize>) {
        let on_device = self.full_device_rollout().map(DeviceRollout::observations);
        let on_device = on_device.map(|all| all.index_select(0, &index_tensor(&indices, all.device())));
        let indexed = Indexed { buffer: rollout.observations(), obs_len: rollout.obs_len(), indices: &indices };
        let obs = on_device.as_ref().map_or(Observations::Indexed(indexed), Observations::Device);
        let (actions, mask) = (rollout.gather_actions(&indices), rollout.gather_action_masks(&indices));
        if !self.net.is_recurrent() {
            let start = self.net.initial_state(indices.len());
            let evaluated = self.net.evaluate_actions(&start, &[], obs, &actions, &mask);
            return transitions_of(rollout, evaluated, indices);
        }
        let envs: Vec<i64> = indices[..indices.len() / rollout.steps()].iter().map(|&i| i as i64).collect();
        let start = self.start.rows(&upload(&Tensor::from_slice(&envs), self.start.h().device()));
        let starts: Vec<bool> = indices.iter().map(|&i| rollout.episode_starts()[i]).collect();
        let evaluated = self.net.evaluate_actions(&start, &starts, obs, &actions, &mask);
        transitions_of(rollout, evaluated, indices)
    }

    /// Ends the updates from a rollout: the next one begins with the current recurrent state.
    pub fn next_rollout(&mut self) {
        self.start = self.state.shallow_clone();
        self.device_rollout.iter_mut().for_each(DeviceRollout::clear);
    }

    /// Sets the network's gradient to that of `objective` on a full rollout, after which the next rollout begins.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub fn compute_gradients(&mut self, rollout: &Rollout, objective: &Objective) -> Result<Losses> {
        let bootstrap = self.bootstrap(rollout);
        let evaluated = self.evaluate_rollout(rollout);
        let old_values = evaluated.values.detach().view([-1, rollout.envs() as i64]);
        let targets = Targets::new(rollout, &old_values, &bootstrap, objective.gae_lambda);
        let losses = objective.loss(rollout, evaluated, &targets, &*self.group)?;
        self.net.backward(&losses.loss);
        self.next_rollout();
        Ok(losses)
    }

    /// Steps `optimizer` by the network's gradient, and returns the gradient's global norm before it was clipped to
    /// `gradient_clip` (0: not clipped). On a device other than the CPU it is not read here, but by
    /// [`check_norms`].
    ///
    /// # Errors
    /// [`Error::Diverged`] where the norm is known and not finite; the parameters stay as they were. [`Error::Group`].
    pub fn step(&mut self, optimizer: &mut Optimizer, learning_rate: f64, gradient_clip: f64) -> Result<Norm> {
        let norm = self.net.step(optimizer, learning_rate, gradient_clip)?;
        check_known(norm, optimizer)
    }

    /// Applies the gradient whose exchange has overlapped with the rollout, if there is one: see [`Optimizer::step_pending`]. Call it before
    /// [`compute_gradients`](Self::compute_gradients).
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_pending(
        &mut self,
        optimizer: &mut Optimizer,
        learning_rate: f64,
        gradient_clip: f64,
    ) -> Result<Option<Norm>> {
        let norm = self.net.step_pending(optimizer, learning_rate, gradient_clip)?;
        norm.map(|norm| check_known(norm, optimizer)).transpose()
    }

    /// Loads the policy of a checkpoint, for evaluation: of any algorithm whose network is an actor-critic with the settings
    /// `config`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the checkpoint is of another network, [`Error::Config`] where the device is missing.
    pub fn for_evaluation(config: &NetworkConfig, spec: &EnvSpec, device: &str, snapshot: &Snapshot) -> Result<Self> {
        let mut net = ActorCritic::new(config, spec, device, &mut rng::stream(0, "init"))?;
        net.params.load(snapshot)?;
        net.fold();
        Ok(Self::new(net, 1, rng::stream(0, "actions")))
    }

    /// Writes everything that an exact resume needs, between two rollouts: parameters, `optimizer` and the
    /// [acting state](Self::save_acting_state).
    ///
    /// # Errors
    /// [`Error::Group`], from the exchange of gradients that was started last.
    pub fn save_training_state(&self, optimizer: &mut Optimizer, snapshot: &mut Snapshot) -> Result<()> {
        optimizer.finish_exchange()?;
        self.net.params.save(snapshot);
        optimizer.save(&self.net.params, snapshot);
        self.save_acting_state(snapshot);
        Ok(())
    }

    /// Restores what [`save_training_state`](Self::save_training_state) wrote. `with_state`: see
    /// [`load_acting_state`](Self::load_acting_state).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or of another network.
    pub fn load_training_state(
        &mut self,
        optimizer: &mut Optimizer,
        snapshot: &Snapshot,
        with_state: bool,
    ) -> Result<()> {
        self.net.params.load(snapshot)?;
        optimizer.load(&self.net.params, snapshot)?;
        self.load_acting_state(snapshot, with_state)
    }

    /// Writes the state of acting that is not a parameter, between two rollouts: recurrent state, random stream, choice of kernels.
    pub fn save_acting_state(&self, snapshot: &mut Snapshot) {
        self.state.save(snapshot);
        self.net.dispatch().save(snapshot);
        snapshot.put("actor.rng", &self.rng);
    }

    /// Restores what [`save_acting_state`](Self::save_acting_state) wrote. Where the environments could not be restored, their episodes start anew and so
    /// does the recurrent state: `with_state` is false then.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or of another network.
    pub fn load_acting_state(&mut self, snapshot: &Snapshot, with_state: bool) -> Result<()> {
        self.rng = snapshot.get("actor.rng")?;
        self.net.dispatch().load(snapshot)?;
        if with_state {
            self.state.load(snapshot)?;
            self.start = self.state.shallow_clone();
        }
        Ok(())
    }

    /// A recurrent state belongs to one environment: those of another number are an error. Without recurrence there is none.
    fn check_states(&mut self, n: usize) -> Result<()> {
        match self.state.sequences() {
            states if states == n => Ok(()),
            _ if !self.net.is_recurrent() => {
                self.begin(n);
                Ok(())
            }
            states => Err(Error::other(format!(
                "a recurrent policy with the states of {states} environments acts in {n}: call `begin({n})` first"
            ))),
        }
    }

    /// Policy and values at the observations that follow the last ones, in the memory of the host; the recurrent state advances.
    fn forward(&mut self, obs: Observations<'_>, action_mask: &[bool], n: usize) -> Result<(Distribution, Tensor)> {
        self.check_states(n)?;
        let (policy, values, state) = self.net.forward_from(&self.state, &[], obs, n, Pass::Infer);
        self.state = state;
        let (policy, values) = if values.device() == Device::Cpu { (policy, values) } else { policy.to_host(&values) };
        Ok((policy.masked(action_mask), values))
    }
}

/// `on_device` if there, else `on_host`.
fn on_device_or_host<'a>(on_device: Option<&'a Tensor>, on_host: ObsRef<'a>) -> Observations<'a> {
    on_device.map_or(Observations::Host(on_host), Observations::Device)
}

/// The values of `norms`, those of the gradients of the last steps of `optimizer`.
///
/// # Errors
/// [`Error::Diverged`] where one is not finite. That step changed nothing; where the network is on a device, later ones may have.
pub fn check_norms(norms: &[Norm], optimizer: &Optimizer) -> Result<Vec<f64>> {
    let values = Norm::values(norms);
    match values.iter().position(|norm| !norm.is_finite()) {
        None => Ok(values),
        Some(i) => {
            let update = optimizer.updates() - (values.len() - 1 - i) as u64;
            Err(Error::Diverged(format!("the gradient's norm is {} at update {update}", values[i])))
        }
    }
}

/// Returns `norm`, that of the gradient of `optimizer`'s last step.
///
/// # Errors
/// [`Error::Diverged`] where it is known and not finite.
fn check_known(norm: Norm, optimizer: &Optimizer) -> Result<Norm> {
    if let Norm::Known(_) = norm {
        check_norms(std::slice::from_ref(&norm), optimizer)?;
    }
    Ok(norm)
}

impl Policy for Actor {
    fn act(&mut self, obs: &Obs, action_mask: &[bool], mode: Mode, actions: &mut Actions) -> Result<()> {
        let (policy, _) = self.forward(obs.as_ref().into(), action_mask, actions.len())?;
        policy.select(mode, &mut self.rng, actions);
        Ok(())
    }

    fn begin(&mut self, n: usize) {
        self.state = self.net.initial_state(n);
        self.start = self.state.shallow_clone();
    }

    fn reset_states(&mut self, ended: &[bool]) {
        self.state.reset(ended);
    }

    fn outputs(&mut self, obs: &Obs, n: usize) -> Result<Outputs> {
        self.check_states(n)?;
        let (policy, value, features) = self.net.infer_with_features(&self.state, obs.as_ref(), n);
        let preferences = policy.logits().map(to_vec).unwrap_or_default();
        Ok(Outputs { preferences, are_values: false, values: to_vec(&value), features: to_vec(&features) })
    }

    fn export(&self, graph: &mut Graph, obs: Value) -> Result<()> {
        self.net.export(graph, obs)
    }

    fn seed(&mut self, seed: u64) {
        self.rng = Rng::seed_from_u64(seed);
    }
}

impl RolloutPolicy for Actor {
    fn store_observations(&mut self, t: usize, first: usize, frames: &FrameStack, newest: &Obs) {
        if let Some(rollout) = &mut self.device_rollout {
            rollout.store(t, first, frames, newest);
            let acts = t < rollout.steps();
            self.next_observations = acts.then(|| rollout.at(t, first, frames.starts().len()));
        }
    }

    fn sample(
        &mut self,
        obs: &Obs,
        action_mask: &[bool],
        actions: &mut Actions,
        decisions: Decisions<'_>,
    ) -> Result<()> {
        let on_device = self.next_observations.take();
        let obs = on_device_or_host(on_device.as_ref(), obs.as_ref());
        let (policy, value) = self.forward(obs, action_mask, actions.len())?;
        decisions.log_probs.copy_from_slice(&policy.select(Mode::Sample, &mut self.rng, actions));
        decisions.values.copy_from_slice(&to_vec(&value));
        Ok(())
    }

    fn final_value(&mut self, obs: ObsRef<'_>, _action_mask: &[bool], i: usize) -> f32 {
        let state = self.state.row(i);
        to_vec(&self.net.forward_from(&state, &[], obs.into(), 1, Pass::Infer).1)[0]
    }
}

/// The actions and the indices of a minibatch without the steps that are no transitions.
fn transitions_of(
    rollout: &Rollout,
    evaluated: EvaluatedActions,
    indices: Vec<usize>,
) -> (EvaluatedActions, Vec<usize>) {
    let rows: Vec<usize> = (0..indices.len()).filter(|&k| rollout.is_transition(indices[k])).collect();
    if rows.len() == indices.len() {
        return (evaluated, indices);
    }
    let selected = index_tensor(&rows, evaluated.values.device());
    let indices = rows.into_iter().map(|k| indices[k]).collect();
    (evaluated.select(&selected), indices)
}

#[cfg(test)]
mod tests;
