//! Asynchronous Q-learning, one-step (algorithm 1 of the paper) and n-step (algorithm S2), and one-step Sarsa.
//!
//! ```text
//! one-step Q      y_t = r_t + γ_t max_a Q(s_{t+1}, a; θ⁻)
//! one-step Sarsa  y_t = r_t + γ_t Q(s_{t+1}, a_{t+1}; θ⁻)
//! n-step Q        y_t = r_t + γ_t y_{t+1},   y_T = max_a Q(s_T, a; θ⁻)
//! dθ ← ∇ Σ ½ (y_t − Q(s_t, a_t; θ′))²
//! ```
//!
//! θ⁻ are the target parameters, which all threads share; the thread whose step makes an update of them due copies the shared
//! parameters there. Each thread explores with its own ε: that decorrelates their data, and no replay buffer is needed.

use crate::Config;
use crate::config::{Exploration, Method};
use crate::learner::{Learner, Report};
use playfield_core::graph::{Graph, Value};
use playfield_core::rng::Rng;
use playfield_core::rollout::Decisions;
use playfield_core::space::random_action;
use playfield_core::{
    Actions, EnvSpec, Error, Mode, Obs, ObsRef, Outputs, Policy, Result, Rollout, RolloutPolicy, Snapshot,
};
use playfield_losses::{q_learning as ql, returns};
use playfield_nn::params::to_vec;
use playfield_nn::{Params, Pass, QConfig, QNetwork, Summary};
use rand::{RngExt as _, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Kind, Tensor};

/// The target parameters that all threads share.
#[derive(Debug, Default)]
pub struct Target {
    /// The number of updates: a thread with an older version copies the new one before its next rollout.
    version: AtomicU64,
    /// The flat parameters, and after them the running statistics.
    state: Mutex<Vec<f32>>,
}

impl Target {
    /// Replaces them: flat parameters, then running statistics.
    pub fn update(&self, state: Vec<f32>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.version.fetch_add(1, Relaxed);
    }

    /// A copy of them.
    pub fn state(&self) -> Vec<f32> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asynchronous Q-learning or Sarsa in one thread.
#[derive(Debug)]
pub struct QLearner {
    method: Method,
    online: QNetwork,
    target: QNetwork,
    shared_target: Arc<Target>,
    /// The version of `target`.
    version: u64,
    explorer: Explorer,
    /// Sarsa's next actions, which the targets of the last update contain already.
    next: Option<Vec<i64>>,
    rng: Rng,
}

/// A thread's ε.
#[derive(Clone, Debug, PartialEq)]
pub struct Explorer {
    config: Exploration,
    /// The final ε, or the current one where it is resampled.
    sampled: f64,
    /// How many samples were due when it was sampled last.
    samples: u64,
    epsilon: f64,
}

impl Explorer {
    /// Samples an ε as `config` says.
    pub fn new(config: Exploration, rng: &mut Rng) -> Self {
        let sampled = config.sample(rng);
        Self { epsilon: if config.resampled() { sampled } else { 1.0 }, config, sampled, samples: 0 }
    }

    /// ε after `steps` agent steps of all threads.
    pub fn at(&mut self, steps: u64, rng: &mut Rng) -> f64 {
        if self.config.resampled() {
            let due = steps / self.config.resample_steps;
            if due != self.samples {
                (self.sampled, self.samples) = (self.config.sample(rng), due);
            }
            self.epsilon = self.sampled;
        } else {
            let horizon = self.config.anneal_steps;
            let share = if horizon == 0 { 1.0 } else { (steps as f64 / horizon as f64).min(1.0) };
            self.epsilon = 1.0 - share + self.sampled * share;
        }
        self.epsilon
    }
}

impl QLearner {
    /// A learner with initial parameters.
    ///
    /// # Errors
    /// [`Error::Config`] where network and environment don't fit, or actions are continuous.
    pub fn new(
        config: &Config,
        spec: &EnvSpec,
        init: &mut Rng,
        mut rng: Rng,
        shared_target: Arc<Target>,
    ) -> Result<Self> {
        let q = QConfig { dueling: false, noisy_sigma: 0.0, atoms: 1 };
        let online = QNetwork::new(&config.network, q, spec, "cpu", init)?;
        let (target, explorer) = (online.deep_clone(), Explorer::new(config.exploration.clone(), &mut rng));
        Ok(Self { method: config.method, online, target, shared_target, version: 0, explorer, next: None, rng })
    }

    /// The policy with the ε of evaluation.
    #[must_use]
    pub fn into_evaluation_policy(self) -> Self {
        let epsilon = self.explorer.config.evaluation;
        Self { explorer: Explorer { epsilon, ..self.explorer }, next: None, ..self }
    }

    /// ε-greedy valid actions.
    fn select(&mut self, obs: ObsRef<'_>, mask: &[bool], n: usize, epsilon: f64) -> Vec<i64> {
        let q = self.online.forward(obs, n, Pass::Infer).squeeze_dim(2);
        let best = ql::masked(&q, mask).argmax(1, false);
        let (best, k, rng) = (Vec::<i64>::try_from(best).expect("one a row"), self.online.actions(), &mut self.rng);
        let row = |i: usize| mask.get(i * k..(i + 1) * k).unwrap_or_default();
        let best = best.into_iter().enumerate();
        best.map(|(i, best)| if rng.random::<f64>() < epsilon { random_action(k, row(i), rng) as i64 } else { best })
            .collect()
    }

    /// max Q(s, ·; θ⁻) over the valid actions, or, in Sarsa, Q(s, `actions`; θ⁻). `[n]`.
    fn target_values(&mut self, obs: ObsRef<'_>, mask: &[bool], n: usize, actions: Option<&[i64]>) -> Tensor {
        let q = self.target.forward(obs, n, Pass::Infer).squeeze_dim(2);
        match actions {
            Some(actions) => ql::chosen(&q, &Tensor::from_slice(actions)),
            None => ql::masked(&q, mask).amax([1_i64].as_slice(), false),
        }
    }
}

impl Policy for QLearner {
    fn act(&mut self, obs: &Obs, action_mask: &[bool], mode: Mode, actions: &mut Actions) -> Result<()> {
        let Actions::Discrete(actions) = actions else { panic!("actions of another space than the network's") };
        let epsilon = if mode == Mode::Greedy { 0.0 } else { self.explorer.epsilon };
        let chosen = match self.next.take() {
            Some(next) if mode == Mode::Sample && next.len() == actions.len() => next,
            _ => self.select(obs.as_ref(), action_mask, actions.len(), epsilon),
        };
        actions.copy_from_slice(&chosen);
        Ok(())
    }

    fn outputs(&mut self, obs: &Obs, n: usize) -> Result<Outputs> {
        let q = self.online.forward(obs.as_ref(), n, Pass::Infer).squeeze_dim(2);
        let features = self.online.features(obs.as_ref(), n);
        Ok(Outputs::of_values(to_vec(&q), n, to_vec(&features)))
    }

    fn export(&self, graph: &mut Graph, obs: Value) -> Result<()> {
        self.online.export(graph, obs, None)
    }

    fn seed(&mut self, seed: u64) {
        self.rng = Rng::seed_from_u64(seed);
    }
}

impl RolloutPolicy for QLearner {
    fn sample(
        &mut self,
        obs: &Obs,
        action_mask: &[bool],
        actions: &mut Actions,
        _decisions: Decisions<'_>,
    ) -> Result<()> {
        self.act(obs, action_mask, Mode::Sample, actions)
    }

    fn final_value(&mut self, obs: ObsRef<'_>, action_mask: &[bool], _i: usize) -> f32 {
        let next =
            (self.method == Method::OneStepSarsa).then(|| self.select(obs, action_mask, 1, self.explorer.epsilon));
        to_vec(&self.target_values(obs, action_mask, 1, next.as_deref()))[0]
    }
}

impl Learner for QLearner {
    fn policy(&mut self) -> &mut dyn RolloutPolicy {
        self
    }

    fn begin_rollout(&mut self, steps: u64) {
        let version = self.shared_target.version.load(Relaxed);
        if version != self.version {
            let (state, target) = (self.shared_target.state(), &mut self.target.params);
            let (params, running_stats) = state.split_at(target.master().numel());
            target.set_master(0, params);
            target.set_running_stats(running_stats);
            target.mark_updated();
            self.version = version;
        }
        self.explorer.at(steps, &mut self.rng);
    }

    fn compute_gradients(&mut self, rollout: &Rollout, _step: u64) -> Result<Report> {
        let (n, all) = (rollout.envs(), rollout.len());
        let Actions::Discrete(actions) = rollout.actions() else { panic!("Q-learning has discrete actions") };
        let (rewards, discounts) = (rollout.bootstrapped_rewards(), rollout.discounts());
        let (rewards, discounts) = (Tensor::from_slice(&rewards), Tensor::from_slice(discounts));
        let target = match self.method {
            Method::NStepQ => {
                let bootstrap = self.target_values(rollout.last_observations(), rollout.last_action_masks(), n, None);
                let by_time = |t: &Tensor| t.view([-1, n as i64]);
                returns::n_step(&by_time(&rewards), &by_time(&discounts), &bootstrap).flatten(0, 1)
            }
            Method::OneStepSarsa => {
                let (last, mask) = (rollout.last_observations(), rollout.last_action_masks());
                let next = self.select(last, mask, n, self.explorer.epsilon);
                let following = [&actions[n..], &next[..]].concat();
                self.next = Some(next);
                rewards + discounts * self.target_values(rollout.next_observations(), &[], all, Some(&following))
            }
            _ => {
                let (next, masks) = (rollout.next_observations(), rollout.next_action_masks());
                rewards + discounts * self.target_values(next, masks, all, None)
            }
        };
        let q = self.online.forward(rollout.observations(), all, Pass::Train).squeeze_dim(2);
        let q = ql::chosen(&q, &Tensor::from_slice(actions));
        let (mut q, mut error) = (q.shallow_clone(), target.detach() - &q);
        if let Some(indices) = rollout.transitions() {
            let rows = playfield_actor_critic::index_tensor(&indices, q.device());
            (q, error) = (q.index_select(0, &rows), error.index_select(0, &rows));
        }
        let loss = ql::squared(&error).sum(Kind::Float) / n as f64;
        self.online.backward(&loss);
        let (q, error, epsilon) = (q.detach(), error.detach(), self.explorer.epsilon);
        Ok(Box::new(move || {
            vec![
                ("train/loss", loss.double_value(&[])),
                ("train/q_mean", q.mean(Kind::Float).double_value(&[])),
                ("train/td_error", error.abs().mean(Kind::Float).double_value(&[])),
                ("rollout/exploration_rate", epsilon),
            ]
        }))
    }

    fn epsilon(&self) -> Option<f64> {
        Some(self.explorer.epsilon)
    }

    fn summary(&self, config: &Config, spec: &EnvSpec) -> Summary {
        self.online.summary(&config.network, spec)
    }

    fn evaluation_policy(&self) -> Box<dyn Policy> {
        let Self { method, online, target, shared_target, version, explorer, rng, .. } = self;
        let copy = Self {
            method: *method,
            online: online.deep_clone(),
            target: target.deep_clone(),
            shared_target: shared_target.clone(),
            version: *version,
            explorer: explorer.clone(),
            next: None,
            rng: rng.clone(),
        };
        Box::new(copy.into_evaluation_policy())
    }

    fn params(&mut self) -> &mut Params {
        &mut self.online.params
    }

    fn save(&self, snapshot: &mut Snapshot) {
        snapshot.put("actor.rng", &self.rng);
        self.online.dispatch().save(snapshot);
        snapshot.put("exploration", &(self.explorer.sampled, self.explorer.samples));
        snapshot.put("next_actions", &self.next);
    }

    fn load(&mut self, snapshot: &Snapshot, restored: bool) -> Result<()> {
        self.rng = snapshot.get("actor.rng")?;
        self.online.dispatch().load(snapshot)?;
        (self.explorer.sampled, self.explorer.samples) = snapshot.get("exploration")?;
        let next: Option<Vec<i64>> = snapshot.get("next_actions")?;
        if next.iter().flatten().any(|&a| a < 0 || a as usize >= self.online.actions()) {
            return Err(Error::checkpoint("next_actions", "of another environment"));
        }
        self.next = next.filter(|_| restored);
        Ok(())
    }
}
