//! One actor-learner, algorithm S3 of the paper:
//!
//! ```text
//! repeat
//!     θ′ ← θ                                                      own parameters ← shared ones
//!     for t in 1 … rollout_steps:  act by π(·|s; θ′), step, remember (s, a, r, γ)
//!     G ← V(s_last; θ′);  for t in rollout_steps … 1:  G_t ← r_t + γ_t G
//!     dθ ← ∇ [ Σ −log π(a|s; θ′)·(G − V(s; θ′)) − β·H(π) + c·(G − V)² ]
//!     g ← α g + (1 − α) dθ²,  θ ← θ − η dθ/√(g + ε)               on the shared θ and g, a stripe at a time
//! ```
//!
//! The last line and the first of the next turn are one pass over memory: a stripe is stepped and copied out together.
//!
//! With batch norm the running statistics are shared, too, as everybody's network is the same: a thread takes them before it
//! learns, moves them by its batch, and puts them back. Who put last has the word: another thread's batch may be lost from a
//! mean of many, but a variance is always a mean of variances (added up as gradients are, stale ones could make it negative).

use crate::Config;
use crate::config::Method;
use crate::learner::Learner;
use crate::q_learner::Target;
use crossbeam::channel::{Receiver, Sender};
use playfield_core::metrics::PhaseTimer;
use playfield_core::resume::{restore_environments, save_environments};
use playfield_core::{
    Actions, EnvFactory, EpisodeEnd, Error, FrameStack, Mode, Result, Rollout, Schedule, Snapshot, StepBatch, VecEnv,
};
use playfield_hogwild::{Shared, Stripe};
use playfield_nn::optim::{self, Step};
use playfield_nn::params::to_vec;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What all actor-learners share.
pub struct Common<'a> {
    /// The settings.
    pub config: &'a Config,
    /// What makes environments.
    pub factory: &'a dyn EnvFactory,
    /// The seeds of all environments.
    pub seeds: &'a [u64],
    /// How many actor-learners.
    pub threads: usize,
    /// Parameters and, where they are shared, statistics.
    pub shared: Shared,
    /// Batch norm's running statistics; of a network without it, nothing.
    pub running: Mutex<Vec<f32>>,
    /// Q-learning's target parameters.
    pub target: Arc<Target>,
    /// Over agent steps of all.
    pub learning_rate: Schedule,
    /// Agent steps so far, of all.
    pub steps: AtomicU64,
    /// How many there shall be.
    pub goal: u64,
    /// Updates so far, of all.
    pub updates: AtomicU64,
    /// Whether everybody shall finish the rollout under way and end.
    pub stop: AtomicBool,
}

/// What an actor-learner tells.
pub enum Report {
    /// An episode ended.
    Episode {
        /// Of which actor-learner.
        by: usize,
        /// Agent steps of all by then.
        step: u64,
        /// Its raw return and length.
        end: EpisodeEnd,
    },
    /// An actor-learner made an update.
    Update(usize, Update),
    /// An actor-learner has ended: where it stands, or why.
    Ended(usize, Result<Snapshot>),
}

/// One update.
pub struct Update {
    /// What the method has to tell of the rollout.
    pub losses: Vec<(&'static str, f64)>,
    /// The gradient's norm before it was clipped.
    pub grad_norm: f64,
    /// By which it was applied.
    pub learning_rate: f64,
    /// How many updates the others made between this thread's taking the parameters and applying its gradient.
    pub lag: u64,
    /// Milliseconds of its phases.
    pub phases: Vec<(&'static str, f64)>,
}

/// Asks an actor-learner to say where it stands between two rollouts, and to wait there.
#[derive(Clone)]
pub struct Pause {
    /// Takes the answer.
    pub standing: Sender<(usize, Snapshot)>,
    /// It goes on when the other end of this is gone.
    pub gate: Receiver<()>,
}

impl Common<'_> {
    fn should_continue(&self) -> bool {
        !self.stop.load(Relaxed) && self.steps.load(Relaxed) < self.goal
    }

    /// A copy of the running statistics.
    pub fn running_stats(&self) -> Vec<f32> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Plays and learns until everybody shall stop, from where `resumed` stood if it is given. Returns where it stands then.
///
/// # Errors
/// Where an environment fails.
pub fn run(
    common: &Common<'_>,
    i: usize,
    mut learner: Box<dyn Learner>,
    resumed: Option<Snapshot>,
    pauses: &Receiver<Pause>,
    reports: &Sender<Report>,
) -> Result<Snapshot> {
    let Common { config, threads, shared, steps, updates, .. } = common;
    let n = common.seeds.len() / threads;
    let mut env = common.factory.vec(&common.seeds[i * n..(i + 1) * n])?;
    if *threads > 1 && env.save_statistics().is_some() {
        return Err(Error::config(
            "env.normalize_obs and env.normalize_reward learn statistics, and every actor-learner would learn its own: set a3c.num_threads = 1, or use paac",
        ));
    }
    let spec = env.spec().clone();
    let (mut batch, mut history) = (StepBatch::new(&spec, n), FrameStack::new(&spec, n));
    let mut actions = Actions::zeros(&spec.actions, n);
    let mut rollout = Rollout::new(&spec, n, config.rollout_steps, config.gamma);
    let mut own = Statistics::new(config, learner.params().master().numel());
    let mut restored = false;
    if let Some(snapshot) = resumed {
        restored = restore_environments(&mut *env, &mut history, &snapshot)?;
        learner.load(&snapshot, restored)?;
        own.load(&snapshot)?;
    }
    if !restored {
        env.reset(&mut batch)?;
        history.reset(&batch);
    }
    shared.read(|start, params| learner.params().set_master(start, params));
    learner.params().set_running_stats(&common.running_stats());
    learner.params().mark_updated();
    let mut seen = updates.load(Relaxed);
    let mut timer = PhaseTimer::default();

    while common.should_continue() {
        if let Ok(Pause { standing, gate }) = pauses.try_recv() {
            // Nobody who asks and is gone by now is owed an answer.
            let _ = standing.send((i, save(&*learner, &own, &mut *env, &history)));
            drop(standing);
            let _ = gate.recv();
        }
        learner.begin(steps.load(Relaxed));
        let mut target_due = false;
        rollout.clear();
        while !rollout.is_full() {
            rollout.observe(&history);
            timer.time("time/phase_act_ms", || learner.act(history.observations(), Mode::Sample, &mut actions))?;
            timer.time("time/phase_env_ms", || env.step(&actions, &mut batch))?;
            history.push(&batch);
            rollout.outcome(&actions, &batch, |i| learner.final_value(history.final_observation(i), i));
            learner.reset_states(&batch.ended());
            let before = steps.fetch_add(n as u64, Relaxed);
            let step = before + n as u64;
            target_due |= config.renews_target(before, step);
            for &end in batch.episode.iter().flatten() {
                let _ = reports.send(Report::Episode { by: i, step, end });
            }
        }
        rollout.observe(&history);
        let learning_rate = common.learning_rate.at(steps.load(Relaxed));
        let (losses, grad_norm, lag) = timer.time("time/phase_learn_ms", || {
            learner.params().set_running_stats(&common.running_stats());
            let losses = learner.learn(&rollout);
            let params = learner.params();
            *common.running.lock().unwrap_or_else(PoisonError::into_inner) = to_vec(params.running_stats());
            let grad_norm = optim::gradient_norm(params);
            if !grad_norm.is_finite() {
                // The shared parameters stay as they are.
                return Err(Error::Diverged(format!(
                    "the gradient's norm is {grad_norm} at update {}",
                    updates.load(Relaxed) + 1
                )));
            }
            let before = updates.fetch_add(1, Relaxed);
            let step = Step {
                config: &config.optimizer,
                learning_rate,
                scale: optim::clip(grad_norm, config.gradient_clip),
                updates: own.updates(before + 1),
            };
            shared.update(i as f64 / *threads as f64, |stripe| {
                let start = stripe.start;
                optim::step_shared(params, step, start, own.of(stripe));
            });
            let lag = before - seen;
            seen = updates.load(Relaxed);
            Ok((losses, grad_norm, lag))
        })?;
        if target_due && config.method != Method::ActorCritic {
            let [params, ..] = shared.copy();
            common.target.renew([params, common.running_stats()].concat());
        }
        let phases = timer.take();
        let _ = reports.send(Report::Update(i, Update { losses, grad_norm, learning_rate, lag, phases }));
    }
    Ok(save(&*learner, &own, &mut *env, &history))
}

fn save(learner: &dyn Learner, own: &Statistics, env: &mut dyn VecEnv, history: &FrameStack) -> Snapshot {
    let mut snapshot = Snapshot::default();
    learner.save(&mut snapshot);
    own.save(&mut snapshot);
    save_environments(env, history, &mut snapshot);
    snapshot
}

/// The optimizer's statistics that a thread keeps for itself; empty where all share them.
struct Statistics {
    square: Vec<f32>,
    mean: Vec<f32>,
    updates: Option<u64>,
}

impl Statistics {
    fn new(config: &Config, len: usize) -> Self {
        if config.shared_statistics {
            return Self { square: vec![], mean: vec![], updates: None };
        }
        let (square, mean) = config.optimizer.initial_statistics();
        let all = |x: f32| vec![x; len];
        Self { square: all(square), mean: mean.map(all).unwrap_or_default(), updates: Some(0) }
    }

    /// How many updates the statistics have seen, when all have made `all`.
    fn updates(&mut self, all: u64) -> u64 {
        self.updates.as_mut().map_or(all, |own| {
            *own += 1;
            *own
        })
    }

    /// The numbers that a step on `stripe` changes: parameters, mean squares, means.
    fn of<'a>(&'a mut self, stripe: Stripe<'a>) -> [&'a mut [f32]; 3] {
        if self.updates.is_none() {
            let [square, mean] = stripe.state;
            return [stripe.params, square, mean];
        }
        let range = stripe.start..stripe.start + stripe.params.len();
        let mean = if self.mean.is_empty() { &mut [][..] } else { &mut self.mean[range.clone()] };
        [stripe.params, &mut self.square[range], mean]
    }

    fn save(&self, snapshot: &mut Snapshot) {
        if let Some(updates) = self.updates {
            snapshot.put("statistics.updates", &updates);
            for (name, values) in [("statistics.square", &self.square), ("statistics.mean", &self.mean)] {
                snapshot.arrays.insert(name.into(), playfield_core::Array::new(&[values.len()], values));
            }
        }
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        if self.updates.is_some() {
            self.updates = Some(snapshot.get("statistics.updates")?);
            for (name, values) in [("statistics.square", &mut self.square), ("statistics.mean", &mut self.mean)] {
                let saved = snapshot.array(name)?.values::<f32>().filter(|saved| saved.len() == values.len());
                *values = saved.ok_or_else(|| Error::checkpoint(name, "of another network"))?;
            }
        }
        Ok(())
    }
}
