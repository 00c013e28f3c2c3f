//! An actor with a critic: what the policy gradient algorithms (A3C, PAAC, PPO) share.
//!
//! All sample actions from a policy, store a [`Rollout`], and follow the gradient of a loss on it. [`Actor`] is the policy with its
//! recurrent state and random stream; [`Targets`] are advantages and returns; [`Objective`] is the loss of A3C and PAAC. How
//! environments, threads and parameters are arranged is each algorithm's own.

use playfield_core::graph::{Graph, Value};
use playfield_core::group::{self, Group, Reduce, SingleProcess};
use playfield_core::rng::Rng;
use playfield_core::rollout::Decisions;
use playfield_core::{
    Actions, EnvSpec, Error, FrameStack, Mode, Obs, ObsRef, Outputs, Policy, Result, Rollout, RolloutPolicy, Snapshot,
    rng,
};
use playfield_losses::{policy_gradient as pg, returns};
use playfield_nn::observations::upload;
use playfield_nn::optim::{Combine, Norm, Optimizer};
use playfield_nn::params::to_vec;
use playfield_nn::{ActorCritic, DeviceRollout, Distribution, NetworkConfig, Observations, Pass, RecurrentState};
use rand::SeedableRng;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// How the parts of the loss are computed and weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// λ of generalized advantage estimation; 1: n-step returns.
    pub gae_lambda: f64,
    /// Weight of the policy's entropy.
    pub entropy_coefficient: f64,
    /// Weight of the squared error of the value.
    pub value_coefficient: f64,
    /// Whether the loss sums over a rollout's steps (and averages over environments) or averages over both.
    pub sum_over_time: bool,
    /// Whether advantages are normalized to mean 0 and standard deviation 1 over a batch.
    pub normalize_advantage: bool,
}

/// What a policy and a value function are fitted to, `[steps, envs]` each.
#[derive(Debug)]
pub struct Targets {
    /// Advantages of the actions taken.
    pub advantages: Tensor,
    /// Returns: advantages plus values.
    pub returns: Tensor,
}

/// The parts of one update's loss, before weighting: tensors, read only when they are reported.
#[derive(Debug)]
pub struct Losses {
    /// The weighted sum.
    pub loss: Tensor,
    /// mean(−log π·A).
    pub policy_loss: Tensor,
    /// mean((G − V)²).
    pub value_loss: Tensor,
    /// The mean entropy of the policy, in nats.
    pub entropy: Tensor,
    values: Tensor,
    returns: Tensor,
}

impl Losses {
    /// As metrics; the names are those of Stable-Baselines3, whose entropy loss is −entropy.
    pub fn report(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("train/loss", self.loss.double_value(&[])),
            ("train/policy_loss", self.policy_loss.double_value(&[])),
            ("train/value_loss", self.value_loss.double_value(&[])),
            ("train/entropy_loss", -self.entropy.double_value(&[])),
            ("train/explained_variance", pg::explained_variance(&self.values, &self.returns)),
        ]
    }
}

impl Targets {
    /// Advantages and returns of `rollout`: generalized advantage estimation with `gae_lambda` (1: n-step returns), from `values`
    /// `[steps, envs]` and the value of the last observations, `bootstrap` `[envs]`.
    pub fn new(rollout: &Rollout, values: &Tensor, bootstrap: &Tensor, gae_lambda: f64) -> Self {
        let by_time = |v: &[f32]| upload(&Tensor::from_slice(v), values.device()).view([-1, rollout.envs() as i64]);
        let (rewards, discounts) = (by_time(&rollout.bootstrapped_rewards()), by_time(rollout.discounts()));
        let advantages = match gae_lambda {
            1.0 => returns::n_step(&rewards, &discounts, bootstrap) - values,
            lambda => returns::gae(&rewards, &discounts, values, bootstrap, lambda),
        };
        Self { returns: &advantages + values, advantages }
    }
}

/// 1 for each action that was sampled from the policy, 0 where a wrapper executed another in its place, which must not
/// contribute to the policy gradient, `[steps · envs]`.
pub fn sampled(rollout: &Rollout) -> Vec<f32> {
    rollout.forced().iter().map(|&forced| if forced { 0.0 } else { 1.0 }).collect()
}

/// `advantages` `[n]` with mean 0 and standard deviation 1 over the batches of all ranks of `group`.
///
/// # Errors
/// [`Error::Group`].
pub fn normalize(advantages: &Tensor, group: &dyn Group) -> Result<Tensor> {
    if !group.is_distributed() {
        return Ok(pg::normalize(advantages));
    }
    let values = advantages.to_kind(Kind::Double);
    let sum = |t: &Tensor| t.sum(Kind::Double).double_value(&[]);
    let mut sums = [values.numel() as f64, sum(&values), sum(&values.square())];
    group.all_reduce(&mut sums, Reduce::Sum)?;
    let [n, first, second] = sums;
    let (mean, variance) = (first / n, second / n - (first / n).powi(2));
    Ok((advantages - mean) / (variance.max(0.0).sqrt() + 1e-8))
}

/// `indices` as a tensor on `device`.
pub fn index_tensor(indices: &[usize], device: Device) -> Tensor {
    let indices: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
    upload(&Tensor::from_slice(&indices), device)
}

impl Objective {
    /// The loss of `policy` and `values` (`[steps · envs]`) on the [transitions](Rollout::transitions) of `rollout`, this rank's part
    /// of the batch of `group`.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub fn loss(
        &self,
        rollout: &Rollout,
        policy: &Distribution,
        values: &Tensor,
        targets: &Targets,
        group: &dyn Group,
    ) -> Result<Losses> {
        let device = values.device();
        let rows = rollout.transitions().map(|indices| index_tensor(&indices, device));
        let select = |t: Tensor| rows.as_ref().map_or_else(|| t.shallow_clone(), |rows| t.index_select(0, rows));
        let (values, returns) = (select(values.shallow_clone()), select(targets.returns.flatten(0, 1)));
        let mut advantages = select(targets.advantages.flatten(0, 1));
        if self.normalize_advantage {
            advantages = normalize(&advantages, group)?;
        }
        if rollout.forced().contains(&true) {
            advantages *= select(upload(&Tensor::from_slice(&sampled(rollout)), device));
        }
        let entropy = rows.as_ref().map_or_else(|| policy.entropy(), |rows| policy.rows(rows).entropy());
        let policy_loss = pg::policy_loss(&select(policy.log_prob(rollout.actions())), &advantages);
        let value_loss = pg::value_loss(&values, &returns);
        let scale = if self.sum_over_time { rollout.steps() as f64 } else { 1.0 };
        let loss = (&policy_loss - &entropy * self.entropy_coefficient + &value_loss * self.value_coefficient) * scale;
        Ok(Losses { loss, policy_loss, value_loss, entropy, values: values.detach(), returns })
    }
}

/// An actor-critic network with the recurrent state of `n` environments and a random stream.
#[derive(Debug)]
pub struct Actor {
    /// The network.
    pub net: ActorCritic,
    /// The recurrent state after the last observation that was acted on.
    state: RecurrentState,
    /// The recurrent state at the start of the current rollout.
    start: RecurrentState,
    /// The observations of the last minibatch.
    minibatch: Obs,
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
        let (state, start, minibatch) = (net.initial_state(n), net.initial_state(n), Obs::F32(Vec::new()));
        let (device_rollout, next_observations, group) = (None, None, SingleProcess::shared());
        Self { net, state, start, minibatch, device_rollout, next_observations, rng, group }
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

    /// The policy and the values at all observations of a full rollout, recorded for the backward pass. A recurrent network
    /// starts from its state at the beginning of the rollout.
    pub fn evaluate(&mut self, rollout: &Rollout) -> (Distribution, Tensor) {
        let on_device = self.full_device_rollout().map(DeviceRollout::observations);
        let obs = on_device_or_host(on_device.as_ref(), rollout.observations());
        let starts = rollout.episode_starts();
        let (policy, values, _) = self.net.forward_from(&self.start, starts, obs, rollout.len(), Pass::Train);
        (policy.masked(rollout.action_masks()), values)
    }

    /// The same at the transitions `indices` of a full rollout, with these. For a recurrent network they are all steps of some environments,
    /// time first ([`Rollout::sequence_minibatches`]), of which those that are no transitions are left out afterwards.
    pub fn evaluate_minibatch(&mut self, rollout: &Rollout, indices: Vec<usize>) -> (Distribution, Tensor, Vec<usize>) {
        let on_device = self.full_device_rollout().map(DeviceRollout::observations);
        let on_device = on_device.map(|all| all.index_select(0, &index_tensor(&indices, all.device())));
        if on_device.is_none() {
            rollout.gather_observations(&indices, &mut self.minibatch);
        }
        let obs = on_device_or_host(on_device.as_ref(), self.minibatch.as_ref());
        let mask = rollout.gather_action_masks(&indices);
        if !self.net.is_recurrent() {
            let start = self.net.initial_state(indices.len());
            let (policy, values, _) = self.net.forward_from(&start, &[], obs, indices.len(), Pass::Train);
            return transitions_of(rollout, policy.masked(&mask), values, indices);
        }
        let envs: Vec<i64> = indices[..indices.len() / rollout.steps()].iter().map(|&i| i as i64).collect();
        let start = self.start.rows(&upload(&Tensor::from_slice(&envs), self.start.h().device()));
        let starts: Vec<bool> = indices.iter().map(|&i| rollout.episode_starts()[i]).collect();
        let (policy, values, _) = self.net.forward_from(&start, &starts, obs, indices.len(), Pass::Train);
        transitions_of(rollout, policy.masked(&mask), values, indices)
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
        let (policy, values) = self.evaluate(rollout);
        let old_values = values.detach().view([-1, rollout.envs() as i64]);
        let targets = Targets::new(rollout, &old_values, &bootstrap, objective.gae_lambda);
        let losses = objective.loss(rollout, &policy, &values, &targets, &*self.group)?;
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
        let (policy, value, _, features) =
            self.net.forward_with_features(&self.state, &[], obs.as_ref().into(), n, Pass::Infer);
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

/// The outputs of the network and the indices of a minibatch without the steps that are no transitions.
fn transitions_of(
    rollout: &Rollout,
    policy: Distribution,
    values: Tensor,
    indices: Vec<usize>,
) -> (Distribution, Tensor, Vec<usize>) {
    let rows: Vec<usize> = (0..indices.len()).filter(|&k| rollout.is_transition(indices[k])).collect();
    if rows.len() == indices.len() {
        return (policy, values, indices);
    }
    let selected = index_tensor(&rows, values.device());
    let indices = rows.into_iter().map(|k| indices[k]).collect();
    (policy.rows(&selected), values.index_select(0, &selected), indices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::{ActionSpace, Dtype, StepBatch};
    use playfield_nn::config::{Precision, TorsoKind};
    use playfield_nn::optim::Sgd;

    /// One of two ranks; the other one has the advantages 5 and 8.
    #[derive(Debug)]
    struct Rank;

    impl Group for Rank {
        fn rank(&self) -> usize {
            0
        }
        fn world_size(&self) -> usize {
            2
        }
        fn all_reduce(&self, values: &mut [f64], reduce: Reduce) -> Result<()> {
            assert_eq!(reduce, Reduce::Sum);
            values.iter_mut().zip([2.0, 13.0, 89.0]).for_each(|(x, other)| *x += other);
            Ok(())
        }
        fn sum(&self, _: &mut [f32], _: group::GradientPrecision) -> Result<()> {
            unreachable!()
        }
        fn broadcast(&self, _: &mut Vec<u8>) -> Result<()> {
            unreachable!()
        }
        fn gather(&self, _: Vec<u8>) -> Result<Vec<Vec<u8>>> {
            unreachable!()
        }
    }

    /// Of 1, 2, 5 and 8 the mean is 4 and the variance 7.5; of 1 and 2 alone they are 1.5 and .25.
    #[test]
    fn advantages_are_normalized_over_all_ranks() {
        let normalized = |group: &dyn Group| {
            let values = normalize(&Tensor::from_slice(&[1.0_f32, 2.0]), group).unwrap();
            Vec::<f32>::try_from(values).unwrap()
        };
        let deviation = 7.5_f32.sqrt();
        for (value, expected) in normalized(&Rank).into_iter().zip([-3.0 / deviation, -2.0 / deviation]) {
            assert!((value - expected).abs() < 1e-6, "{value}, {expected}");
        }
        for (value, expected) in normalized(&*SingleProcess::shared()).into_iter().zip([-1.0, 1.0]) {
            assert!((value - expected).abs() < 1e-6, "{value}, {expected}");
        }
    }

    /// Step `t` of environments of 2 × 3 pixels with two colors: every byte is different. In each rollout of five steps environment 1 ends an
    /// episode at step 2 and ignores the action of step 4; environment 2 ends one at step 5.
    fn push(t: usize, first: usize, frames: &mut FrameStack, batch: &mut StepBatch) {
        batch.clear();
        for i in 0..batch.num_envs() {
            let byte = |p: usize| (100 * (first + i) + 7 * t + p) as u8;
            batch.obs_row_mut(i).u8().iter_mut().enumerate().for_each(|(p, to)| *to = byte(p));
            batch.terminated[i] = matches!((first + i, t % 5), (1, 2)) || first + i == 2 && t == 5;
            batch.ignored[i] = first + i == 1 && t % 5 == 4;
        }
        if t == 0 { frames.reset(batch) } else { frames.push(batch) }
    }

    fn spec(frame_stack: usize) -> EnvSpec {
        EnvSpec::new("t", &[2, 3, 2], Dtype::U8, ActionSpace::Discrete { n: 3 }).with_frame_stack(frame_stack)
    }

    /// Frames that are stacked on a device are the host's, over two rollouts in two batches of environments. Sampled actions, values,
    /// minibatches and gradients are the same although only the host's policy can see the host's observations.
    #[test]
    fn a_rollout_on_a_device_is_that_of_the_host() {
        for (depth, standardize, lstm) in [(1, false, 0), (2, false, 0), (4, false, 0), (4, true, 0), (2, false, 5)] {
            let spec = spec(depth);
            let network = NetworkConfig {
                torso: TorsoKind::Mlp,
                precision: Precision::Fp32,
                standardize,
                lstm,
                hidden: vec![8],
                ..NetworkConfig::default()
            };
            let actor = || {
                let net = ActorCritic::new(&network, &spec, "cpu", &mut rng::stream(1, "init")).unwrap();
                Actor::new(net, 3, rng::stream(1, "actions"))
            };
            let (mut host, mut device) = (actor(), actor());
            device.device_rollout = DeviceRollout::new(&spec, 3, 5, Device::Cpu).unwrap();
            // A recurrent policy needs all environments in one batch.
            let batches = if lstm > 0 { vec![(0, 3)] } else { vec![(0, 2), (2, 1)] };
            let mut splits: Vec<_> = batches
                .into_iter()
                .map(|(first, n)| (first, FrameStack::new(&spec, n), StepBatch::new(&spec, n)))
                .collect();
            for start in [0, 5] {
                // The second has the same steps, and zeros as observations.
                let (mut rollout, mut blank) = (Rollout::new(&spec, 3, 5, 0.9), Rollout::new(&spec, 3, 5, 0.9));
                for t in 0..=5 {
                    for (first, frames, batch) in &mut splits {
                        let n = batch.num_envs();
                        if t > 0 || start == 0 {
                            push(start + t, *first, frames, batch);
                            [&mut host, &mut device].into_iter().for_each(|actor| actor.reset_states(&batch.starts()));
                        }
                        rollout.store_observations(*first, frames);
                        blank.store_observations(*first, &FrameStack::new(&spec, n));
                        device.store_observations(t, *first, frames, &batch.obs);
                        let stored = device.device_rollout.as_ref().unwrap().at(t, *first, n).to_kind(Kind::Float);
                        let bytes = frames.observations().as_ref().u8();
                        assert!(
                            bytes.iter().map(|&p| f32::from(p)).eq(to_vec(&stored)),
                            "depth {depth}, step {}",
                            start + t
                        );
                        if t == 5 {
                            continue;
                        }
                        let expected = sample(&mut host, frames.observations(), n);
                        let zeros = Obs::zeros(Dtype::U8, bytes.len());
                        assert_close(&expected, &sample(&mut device, &zeros, n));
                        for rollout in [&mut rollout, &mut blank] {
                            rollout.record(*first, &expected.0, batch, |_| 0.0);
                        }
                    }
                }
                close(&host.bootstrap(&rollout), &device.bootstrap(&blank));
                close(&host.evaluate(&rollout).1, &device.evaluate(&blank).1);
                let minibatch: Vec<usize> =
                    if lstm > 0 { (0..5).flat_map(|t| [3 * t + 2, 3 * t]).collect() } else { vec![14, 0, 7] };
                let [expected, computed] = [(&mut host, &rollout), (&mut device, &blank)].map(|(actor, rollout)| {
                    let (policy, values, _) = actor.evaluate_minibatch(rollout, minibatch.clone());
                    actor.net.backward(&(values.sum(Kind::Float) + policy.logits().unwrap().square().sum(Kind::Float)));
                    let gradient = actor.net.params.gradient();
                    actor.next_rollout();
                    (values, gradient)
                });
                close(&expected.0, &computed.0);
                close(&expected.1, &computed.1);
            }
        }
    }

    /// An update from a rollout whose observations were not stored on the device reads those of the host.
    #[test]
    fn a_device_rollout_that_is_not_full_is_not_used() {
        let spec = spec(2);
        let network = NetworkConfig { torso: TorsoKind::Mlp, precision: Precision::Fp32, ..NetworkConfig::default() };
        let net = ActorCritic::new(&network, &spec, "cpu", &mut rng::stream(1, "init")).unwrap();
        let mut actor = Actor::new(net, 3, rng::stream(1, "actions"));
        let (mut frames, mut batch) = (FrameStack::new(&spec, 3), StepBatch::new(&spec, 3));
        let mut rollout = Rollout::new(&spec, 3, 1, 0.9);
        for t in 0..2 {
            push(t, 0, &mut frames, &mut batch);
            rollout.store_observations(0, &frames);
            if t == 0 {
                rollout.record(0, &Actions::Discrete(vec![0; 3]), &batch, |_| 0.0);
            }
        }
        let expected = [actor.bootstrap(&rollout), actor.evaluate(&rollout).1];
        actor.device_rollout = DeviceRollout::new(&spec, 3, 1, Device::Cpu).unwrap();
        for (a, b) in expected.iter().zip([actor.bootstrap(&rollout), actor.evaluate(&rollout).1]) {
            close(a, &b);
        }
        // Full, with other observations; and the next rollout again without.
        (0..2).for_each(|t| actor.store_observations(t, 0, &FrameStack::new(&spec, 3), &Obs::zeros(Dtype::U8, 36)));
        assert!((to_vec(&actor.bootstrap(&rollout))[1] - to_vec(&expected[0])[1]).abs() > 1e-3);
        actor.next_rollout();
        close(&expected[0], &actor.bootstrap(&rollout));
        let vectors = EnvSpec::new("t", &[2], Dtype::F32, ActionSpace::Discrete { n: 3 });
        assert!(DeviceRollout::new(&vectors, 1, 1, Device::Cpu).unwrap().is_none());
    }

    fn sample(actor: &mut Actor, obs: &Obs, n: usize) -> Sample {
        let (mut actions, mut log_probs, mut values) = (Actions::Discrete(vec![0; n]), vec![0.0; n], vec![0.0; n]);
        let decisions = Decisions { log_probs: &mut log_probs, values: &mut values };
        actor.sample(obs, &[], &mut actions, decisions).unwrap();
        (actions, log_probs, values)
    }

    fn close(a: &Tensor, b: &Tensor) {
        let (a, b) = (to_vec(a), to_vec(b));
        assert!(!a.is_empty() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}, {b:?}");
    }

    type Sample = (Actions, Vec<f32>, Vec<f32>);

    fn assert_close(a: &Sample, b: &Sample) {
        let floats = |s: &Sample| [&s.1[..], &s.2].concat();
        assert_eq!(a.0, b.0);
        assert!(floats(a).iter().zip(floats(b)).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}, {b:?}");
    }

    /// A transfer of policy and values changes neither.
    #[test]
    fn policy_and_values_are_read_at_once() {
        let (values, logits) =
            (Tensor::from_slice(&[7.0_f32, 8.0]), Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]));
        let logits = logits.view([2, 3]);
        let categorical = Distribution::Categorical { logits: logits.shallow_clone(), sizes: vec![1, 2] };
        let gaussian =
            Distribution::Gaussian { mean: logits.shallow_clone(), log_std: Tensor::from_slice(&[0.5_f32; 3]) };
        for policy in [categorical, gaussian] {
            let (read, read_values) = policy.to_host(&values);
            assert_eq!(to_vec(&read_values), [7.0, 8.0]);
            match &read {
                Distribution::Categorical { logits: l, sizes } => assert_eq!((l, &sizes[..]), (&logits, &[1, 2][..])),
                Distribution::Gaussian { mean, log_std } => {
                    assert_eq!((mean, to_vec(log_std)), (&logits, vec![0.5; 3]));
                }
            }
        }
    }

    /// The norm of the second of three gradients is not finite.
    #[test]
    fn the_first_norm_that_is_not_finite_is_an_error() {
        let mut params = {
            let mut rng = rng::stream(1, "init");
            let mut b = playfield_nn::Builder::new(&mut rng);
            b.param("p", &[2], playfield_nn::init::Init::Constant(0.0));
            b.finish(Device::Cpu, Kind::Float)
        };
        let mut optimizer = Optimizer::new(Sgd::default(), &params);
        (0..3).for_each(|_| _ = optimizer.step(&mut params, 0.1, 0.0));
        let scalar = |value: f32| Norm::OnDevice(Tensor::from(value));
        let norms = [Norm::Known(1.0), scalar(f32::NAN), scalar(2.0)];
        let message = check_norms(&norms, &optimizer).unwrap_err().to_string();
        assert!(message.contains("NaN at update 2"), "{message}");
        assert_eq!(check_norms(&[scalar(3.0), Norm::Known(4.0), scalar(5.0)], &optimizer).unwrap(), [3.0, 4.0, 5.0]);
        assert!(check_norms(&[], &optimizer).unwrap().is_empty());
    }

    /// Of two environments and two steps, environment 1 ignored its action at step 0: row 1 is no transition.
    #[test]
    fn steps_without_an_action_are_left_out() {
        let spec = EnvSpec::new("t", &[1], Dtype::F32, ActionSpace::Discrete { n: 2 });
        let mut rollout = Rollout::new(&spec, 2, 2, 0.9);
        for ignored in [true, false] {
            let mut batch = StepBatch::new(&spec, 2);
            batch.ignored[1] = ignored;
            rollout.record(0, &Actions::Discrete(vec![0, 1]), &batch, |_| 0.0);
        }
        let outputs = |rows: &[i64]| {
            let rows = Tensor::from_slice(rows).to_kind(Kind::Float);
            (Distribution::Categorical { logits: Tensor::stack(&[&rows, &rows], 1), sizes: vec![2] }, rows)
        };
        for (minibatch, expected) in [(vec![0, 1, 2, 3], vec![0, 2, 3]), (vec![3, 0], vec![3, 0]), (vec![1], vec![])] {
            let (policy, values) = outputs(&minibatch.iter().map(|&i| i as i64).collect::<Vec<_>>());
            let (policy, values, indices) = transitions_of(&rollout, policy, values, minibatch);
            let floats: Vec<f32> = expected.iter().map(|&i: &usize| i as f32).collect();
            assert_eq!((&indices, Vec::<f32>::try_from(values).unwrap()), (&expected, floats));
            assert_eq!(policy.logits().unwrap().size(), [expected.len() as i64, 2]);
        }
    }
}
