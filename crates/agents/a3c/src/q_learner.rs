//! Asynchronous Q-learning, one-step (algorithm 1 of the paper) and n-step (algorithm S2), and one-step Sarsa.
//!
//! ```text
//! one-step Q      y_t = r_t + γ_t max_a Q(s_{t+1}, a; θ⁻)
//! one-step Sarsa  y_t = r_t + γ_t Q(s_{t+1}, a_{t+1}; θ⁻)
//! n-step Q        y_t = r_t + γ_t y_{t+1},   y_T = max_a Q(s_T, a; θ⁻)
//! dθ ← ∇ Σ ½ (y_t − Q(s_t, a_t; θ′))²
//! ```
//!
//! θ⁻ are the target parameters, which all threads share and somebody renews now and then. Each thread explores by an ε of its
//! own: that, and not a replay memory, is what keeps what they learn from apart.

use crate::Config;
use crate::config::{Exploration, Method};
use crate::learner::Learner;
use playfield_core::rng::Rng;
use playfield_core::{Actions, EnvSpec, Error, Mode, Obs, ObsRef, Outputs, Policy, Result, Rollout, Snapshot};
use playfield_losses::{q_learning as ql, returns};
use playfield_nn::params::to_vec;
use playfield_nn::{NetworkConfig, Params, Pass, QConfig, QNetwork};
use rand::{RngExt as _, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Kind, Tensor};

/// The target parameters that all threads share.
#[derive(Debug, Default)]
pub struct Target {
    /// How often they were renewed: who holds an older version takes the new one before its next rollout.
    version: AtomicU64,
    /// The flat parameters, and after them the running statistics.
    state: Mutex<Vec<f32>>,
}

impl Target {
    /// Renews them: flat parameters, then running statistics.
    pub fn renew(&self, state: Vec<f32>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.version.fetch_add(1, Relaxed);
    }

    /// A copy of them.
    pub fn state(&self) -> Vec<f32> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One thread's part of asynchronous Q-learning.
#[derive(Debug)]
pub struct QLearner {
    method: Method,
    online: QNetwork,
    target: QNetwork,
    shared_target: Arc<Target>,
    /// The version of `target`.
    version: u64,
    explorer: Explorer,
    /// Sarsa's next actions, which the last update has counted on already.
    next: Option<Vec<i64>>,
    rng: Rng,
}

/// A thread's ε.
#[derive(Clone, Debug, PartialEq)]
pub struct Explorer {
    law: Exploration,
    /// Where ε ends, or what it is until it is drawn again.
    drawn: f64,
    /// How many draws were due when it was drawn last.
    draws: u64,
    now: f64,
}

impl Explorer {
    /// Draws an ε by `law`.
    pub fn new(law: Exploration, rng: &mut Rng) -> Self {
        let drawn = law.draw(rng);
        Self { now: if law.resampled() { drawn } else { 1.0 }, law, drawn, draws: 0 }
    }

    /// ε when all have made `steps` steps.
    pub fn at(&mut self, steps: u64, rng: &mut Rng) -> f64 {
        if self.law.resampled() {
            let due = steps / self.law.resample_steps;
            if due != self.draws {
                (self.drawn, self.draws) = (self.law.draw(rng), due);
            }
            self.now = self.drawn;
        } else {
            let share = if self.law.anneal_steps == 0 { 1.0 } else { steps as f64 / self.law.anneal_steps as f64 };
            let share = share.min(1.0);
            self.now = 1.0 - share + self.drawn * share;
        }
        self.now
    }
}

impl QLearner {
    /// A learner with fresh parameters.
    ///
    /// # Errors
    /// [`Error::Config`] where network and environment don't fit, or actions are continuous.
    pub fn new(
        config: &Config,
        network: &NetworkConfig,
        spec: &EnvSpec,
        init: &mut Rng,
        mut rng: Rng,
        shared_target: Arc<Target>,
    ) -> Result<Self> {
        let q = QConfig { dueling: false, noisy_sigma: 0.0, atoms: 1 };
        let online = QNetwork::new(network, q, spec, "cpu", init)?;
        let (target, explorer) = (online.deep_clone(), Explorer::new(config.exploration.clone(), &mut rng));
        Ok(Self { method: config.method, online, target, shared_target, version: 0, explorer, next: None, rng })
    }

    /// Sets the ε by which it plays from now on: for evaluation.
    pub fn explore_by(&mut self, epsilon: f64) {
        self.explorer.now = epsilon;
    }

    /// One action per observation, each at random with probability `epsilon`, else the best.
    fn choose(&mut self, obs: ObsRef<'_>, n: usize, epsilon: f64) -> Vec<i64> {
        let q = self.online.forward(obs, n, Pass::Infer).squeeze_dim(2);
        let (best, k) = (Vec::<i64>::try_from(q.argmax(1, false)).expect("one a row"), self.online.actions());
        let rng = &mut self.rng;
        best.into_iter()
            .map(|best| if rng.random::<f64>() < epsilon { rng.random_range(0..k) as i64 } else { best })
            .collect()
    }

    /// max Q(s, ·; θ⁻), or, in Sarsa, that of `actions`. `[n]`.
    fn worth(&mut self, obs: ObsRef<'_>, n: usize, actions: Option<&[i64]>) -> Tensor {
        let q = self.target.forward(obs, n, Pass::Infer).squeeze_dim(2);
        match actions {
            Some(actions) => ql::chosen(&q, &Tensor::from_slice(actions)),
            None => q.amax([1_i64].as_slice(), false),
        }
    }
}

impl Policy for QLearner {
    fn act(&mut self, obs: &Obs, mode: Mode, actions: &mut Actions) -> Result<()> {
        let Actions::Discrete(actions) = actions else { panic!("actions of another space than the network's") };
        let epsilon = if mode == Mode::Greedy { 0.0 } else { self.explorer.now };
        let chosen = match self.next.take() {
            Some(next) if mode == Mode::Sample && next.len() == actions.len() => next,
            _ => self.choose(obs.as_ref(), actions.len(), epsilon),
        };
        actions.copy_from_slice(&chosen);
        Ok(())
    }

    fn outputs(&mut self, obs: &Obs, n: usize) -> Result<Outputs> {
        let q = self.online.forward(obs.as_ref(), n, Pass::Infer).squeeze_dim(2);
        let features = self.online.features(obs.as_ref(), n);
        Ok(Outputs::of_values(to_vec(&q), n, to_vec(&features)))
    }

    fn seed(&mut self, seed: u64) {
        self.rng = Rng::seed_from_u64(seed);
    }
}

impl Learner for QLearner {
    fn begin(&mut self, steps: u64) {
        let version = self.shared_target.version.load(Relaxed);
        if version != self.version {
            let (state, target) = (self.shared_target.state(), &mut self.target.params);
            let (params, running) = state.split_at(target.master().numel());
            target.set_master(0, params);
            target.set_running_stats(running);
            target.mark_updated();
            self.version = version;
        }
        self.explorer.at(steps, &mut self.rng);
    }

    fn final_value(&mut self, obs: ObsRef<'_>, _i: usize) -> f32 {
        let next = (self.method == Method::OneStepSarsa).then(|| self.choose(obs, 1, self.explorer.now));
        to_vec(&self.worth(obs, 1, next.as_deref()))[0]
    }

    fn learn(&mut self, rollout: &Rollout) -> Vec<(&'static str, f64)> {
        let (n, all) = (rollout.envs(), rollout.capacity());
        let Actions::Discrete(actions) = rollout.actions() else { panic!("Q-learning has discrete actions") };
        let (r_t, discount_t) = (Tensor::from_slice(rollout.r_t()), Tensor::from_slice(rollout.discount_t()));
        let target = match self.method {
            Method::NStepQ => {
                let bootstrap = self.worth(rollout.last(), n, None);
                let rows = |t: &Tensor| t.view([-1, n as i64]);
                returns::n_step(&rows(&r_t), &rows(&discount_t), &bootstrap).flatten(0, 1)
            }
            Method::OneStepSarsa => {
                let next = self.choose(rollout.last(), n, self.explorer.now);
                let following = [&actions[n..], &next[..]].concat();
                self.next = Some(next);
                r_t + discount_t * self.worth(rollout.s_t(), all, Some(&following))
            }
            _ => r_t + discount_t * self.worth(rollout.s_t(), all, None),
        };
        let q = ql::chosen(
            &self.online.forward(rollout.s_tm1(), all, Pass::Train).squeeze_dim(2),
            &Tensor::from_slice(actions),
        );
        let error = target.detach() - &q;
        let loss = ql::squared(&error).sum(Kind::Float) / n as f64;
        self.online.backward(&loss);
        vec![
            ("train/loss", loss.double_value(&[])),
            ("train/q_mean", q.mean(Kind::Float).double_value(&[])),
            ("train/td_error", error.abs().mean(Kind::Float).double_value(&[])),
            ("rollout/exploration_rate", self.explorer.now),
        ]
    }

    fn params(&mut self) -> &mut Params {
        &mut self.online.params
    }

    fn fold(&mut self) {
        self.online.fold();
    }

    fn save(&self, snapshot: &mut Snapshot) {
        snapshot.put("player.rng", &self.rng);
        self.online.dispatch().save(snapshot);
        snapshot.put("exploration", &(self.explorer.drawn, self.explorer.draws));
        snapshot.put("next_actions", &self.next);
    }

    fn load(&mut self, snapshot: &Snapshot, restored: bool) -> Result<()> {
        self.rng = snapshot.get("player.rng")?;
        self.online.dispatch().load(snapshot)?;
        (self.explorer.drawn, self.explorer.draws) = snapshot.get("exploration")?;
        let next: Option<Vec<i64>> = snapshot.get("next_actions")?;
        if next.iter().flatten().any(|&a| a < 0 || a as usize >= self.online.actions()) {
            return Err(Error::checkpoint("next_actions", "of another environment"));
        }
        self.next = next.filter(|_| restored);
        Ok(())
    }
}
