//! One actor-learner, algorithm S3 of the paper:
//!
//! ```text
//! repeat
//!     θ′ ← θ                                                      own parameters ← shared ones
//!     for t in 1 … t_max:  act by π(·|s; θ′), step, store (s, a, r, γ)
//!     G ← V(s_last; θ′);  for t in t_max … 1:  G_t ← r_t + γ_t G
//!     dθ ← ∇ [ Σ −log π(a|s; θ′)·(G − V(s; θ′)) − β·H(π) + c·(G − V)² ]
//!     g ← α g + (1 − α) dθ²,  θ ← θ − η dθ/√(g + ε)               on the shared θ and g, a stripe at a time
//! ```
//!
//! The last line and the first of the next iteration are one pass over memory: a stripe is stepped and copied out together.
//!
//! With batch norm the running statistics are shared, too: a thread copies them before it learns, updates them with its batch,
//! and writes them back. Last writer wins: a concurrent thread's contribution to the running mean may be lost, but a variance is
//! always a mean of variances (added up as gradients are, stale ones could make it negative).

use crate::Config;
use crate::config::Method;
use crate::learner::{Learner, Report};
use crate::q_learner::Target;
use crossbeam::channel::{Receiver, Sender};
use playfield_collect::Collector;
use playfield_core::{EnvFactory, EpisodeEnd, Error, Persist as _, Result, Rollout, Snapshot};
use playfield_hogwild::{Shared, Stripe};
use playfield_nn::optim::{self, Step};
use playfield_nn::params::to_vec;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What all actor-learners share.
pub struct Context<'a> {
    /// The settings, resolved.
    pub config: &'a Config,
    /// The environments' factory.
    pub envs: &'a dyn EnvFactory,
    /// The seeds of all environments.
    pub seeds: &'a [u64],
    /// The number of actor-learners.
    pub threads: usize,
    /// Parameters and, where they are shared, optimizer statistics.
    pub shared: Shared,
    /// Batch norm's running statistics; empty without batch norm.
    pub running_stats: Mutex<Vec<f32>>,
    /// Q-learning's target parameters.
    pub target: Arc<Target>,
    /// Agent steps so far, of all threads.
    pub steps: AtomicU64,
    /// Agent steps to reach.
    pub total_steps: u64,
    /// Updates so far, of all threads.
    pub updates: AtomicU64,
    /// Asks every thread to finish its rollout and end.
    pub stop: AtomicBool,
}

/// Messages of an actor-learner to the main thread.
pub enum Message {
    /// Episodes that ended in a rollout of actor-learner `by`, each with its step.
    Episodes {
        /// The actor-learner.
        by: usize,
        /// Step and episode.
        episodes: Vec<(u64, EpisodeEnd)>,
    },
    /// An actor-learner made an update.
    Update(usize, Update),
    /// An actor-learner ended: with its state, or an error.
    Ended(usize, Result<Snapshot>),
}

/// One update.
pub struct Update {
    /// The metrics of the loss.
    pub report: Report,
    /// ε, of a method that explores by it.
    pub epsilon: Option<f64>,
    /// The gradient's norm before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The number of updates by other threads between this thread's copy of the parameters and its update.
    pub lag: u64,
    /// Milliseconds of each phase.
    pub phases: Vec<(&'static str, f64)>,
}

/// Asks an actor-learner to report its state between two rollouts and to pause there.
#[derive(Clone)]
pub struct Pause {
    /// Receives the state.
    pub states: Sender<(usize, Snapshot)>,
    /// The thread resumes when the other end of this channel is dropped.
    pub resume: Receiver<()>,
}

impl Context<'_> {
    fn should_continue(&self) -> bool {
        !self.stop.load(Relaxed) && self.steps.load(Relaxed) < self.total_steps
    }

    /// A copy of the running statistics.
    pub fn running_stats(&self) -> Vec<f32> {
        self.running_stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs actor-learner `i` until all shall stop, from `snapshot` if it is given. Returns its state.
///
/// # Errors
/// Where an environment fails or the gradient is not finite.
pub fn run(
    context: &Context<'_>,
    i: usize,
    mut learner: Box<dyn Learner>,
    snapshot: Option<Snapshot>,
    pauses: &Receiver<Pause>,
    messages: &Sender<Message>,
) -> Result<Snapshot> {
    let Context { config, envs, threads, shared, steps, updates, .. } = context;
    let n = context.seeds.len() / threads;
    let mut collector = Collector::new(envs.vec(&context.seeds[i * n..(i + 1) * n])?, snapshot.as_ref())?;
    if *threads > 1 && collector.statistics().is_some() {
        return Err(Error::config(
            "env.normalize_obs and env.normalize_reward keep statistics, and each actor-learner would keep its own: set a3c.num_threads = 1, or use paac",
        ));
    }
    let mut rollout = Rollout::new(envs.spec(), n, config.rollout_steps, config.gamma);
    let mut own = Statistics::new(config, learner.params().master().numel());
    if let Some(snapshot) = &snapshot {
        learner.load(snapshot, collector.is_restored())?;
        own.load(snapshot)?;
    }
    shared.read(|start, params| learner.params().set_master(start, params));
    learner.params().set_running_stats(&context.running_stats());
    learner.params().mark_updated();
    let mut copied_at = updates.load(Relaxed);

    while context.should_continue() {
        if let Ok(Pause { states, resume }) = pauses.try_recv() {
            // The receiver may have ended.
            let _ = states.send((i, state(&*learner, &own, &mut collector)?));
            drop(states);
            let _ = resume.recv();
        }
        learner.begin_rollout(steps.load(Relaxed));
        let start = collector.steps();
        collector.collect(learner.policy(), &mut rollout)?;
        let collected = collector.steps() - start;
        let before = steps.fetch_add(collected, Relaxed);
        let step = before + collected;
        let episodes: Vec<_> =
            collector.take_episodes().into_iter().map(|(s, end)| (before + s - start, end)).collect();
        if !episodes.is_empty() {
            let _ = messages.send(Message::Episodes { by: i, episodes });
        }
        let learning_rate = config.learning_rate.at(step);
        let started = std::time::Instant::now();
        learner.params().set_running_stats(&context.running_stats());
        let report = learner.compute_gradients(&rollout, step)?;
        let epsilon = learner.epsilon();
        let params = learner.params();
        *context.running_stats.lock().unwrap_or_else(PoisonError::into_inner) = to_vec(params.running_stats());
        let gradient_norm = optim::gradient_norm(params);
        if !gradient_norm.is_finite() {
            // The shared parameters stay as they are.
            let update = updates.load(Relaxed) + 1;
            return Err(Error::Diverged(format!("the gradient's norm is {gradient_norm} at update {update}")));
        }
        let earlier = updates.fetch_add(1, Relaxed);
        let optimizer_step = Step {
            config: &config.optimizer,
            learning_rate,
            scale: optim::clip(gradient_norm, config.gradient_clip),
            updates: own.updates(earlier + 1),
        };
        shared.update(i as f64 / *threads as f64, |stripe| {
            let start = stripe.start;
            optim::step_shared(params, optimizer_step, start, own.of(stripe));
        });
        let lag = earlier - copied_at;
        copied_at = updates.load(Relaxed);
        collector.timer.add("time/phase_learn_ms", Some(started.elapsed()));
        if config.method != Method::ActorCritic && config.target_update_due(before, step) {
            let [params, ..] = shared.copy();
            context.target.update([params, context.running_stats()].concat());
        }
        let phases = collector.timer.take();
        let update = Update { report, epsilon, gradient_norm, learning_rate, lag, phases };
        let _ = messages.send(Message::Update(i, update));
    }
    state(&*learner, &own, &mut collector)
}

fn state(learner: &dyn Learner, own: &Statistics, collector: &mut Collector) -> Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    learner.save(&mut snapshot);
    own.save(&mut snapshot);
    collector.save(&mut snapshot).map(|()| snapshot)
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

    /// The number of updates of these statistics, when all threads have made `all`.
    fn updates(&mut self, all: u64) -> u64 {
        self.updates.as_mut().map_or(all, |own| {
            *own += 1;
            *own
        })
    }

    /// The elements that a step on `stripe` changes: parameters, mean squares, means.
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
            self.updates = Some(optim::check_updates("statistics.updates", snapshot)?);
            for (name, values) in [("statistics.square", &mut self.square), ("statistics.mean", &mut self.mean)] {
                let saved = snapshot.array(name)?.values::<f32>().filter(|saved| saved.len() == values.len());
                *values = saved.ok_or_else(|| Error::checkpoint(name, "of another network"))?;
            }
        }
        Ok(())
    }
}
