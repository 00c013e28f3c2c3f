//! The update of PAAC, testable without an environment.

use crate::Config;
use playfield_actor_critic::{Actor, Losses, check_norms};
use playfield_core::group;
use playfield_core::{EnvSpec, Group, Persist, Result, Rollout, Snapshot, rng};
use playfield_nn::ActorCritic;
use playfield_nn::optim::Optimizer;
use std::sync::Arc;

/// The actor-critic and its optimizer.
#[derive(Debug)]
pub struct Learner {
    /// The policy in training.
    pub actor: Actor,
    config: Config,
    optimizer: Optimizer,
}

/// One update.
#[derive(Debug)]
pub struct Update {
    /// The parts of the loss.
    pub losses: Losses,
    /// The global norm, before clipping, of the gradient that was applied; 0 if none was.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The number of updates so far.
    pub updates: u64,
}

impl Update {
    /// As metrics.
    pub fn report(&self) -> Vec<(&'static str, f64)> {
        let mut row = self.losses.report();
        row.extend([
            ("train/grad_norm", self.gradient_norm),
            ("train/learning_rate", self.learning_rate),
            ("train/n_updates", self.updates as f64),
        ]);
        row
    }
}

impl Learner {
    /// A learner with a new network, for `n` environments of `spec`. `config` is resolved.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) where network, observation and device don't fit.
    pub fn new(config: &Config, spec: &EnvSpec, n: usize, seed: u64) -> Result<Self> {
        let mut net = ActorCritic::new(&config.network, spec, &config.device, &mut rng::stream(seed, "paac/init"))?;
        net.set_num_threads(config.num_threads);
        let optimizer = Optimizer::new(config.optimizer.clone(), &net.params).with_num_threads(config.num_threads);
        let actor =
            Actor::new(net, n, rng::stream(seed, "paac/actions")).with_rollout(spec, n, config.rollout_steps)?;
        Ok(Self { actor, config: config.clone(), optimizer })
    }

    /// Updates the parameters from a full rollout; schedules are read at agent step `step`. With
    /// [`overlap_exchange`](group::Config::overlap_exchange) it applies the gradient of the rollout before, computes that of this one, and
    /// starts its exchange.
    ///
    /// # Errors
    /// [`Error::Diverged`](playfield_core::Error::Diverged) where the gradient is not finite; the parameters stay as they were.
    /// [`Error::Group`](playfield_core::Error::Group).
    pub fn update(&mut self, rollout: &Rollout, step: u64) -> Result<Update> {
        let (learning_rate, clip) = (self.config.learning_rate.at(step), self.config.gradient_clip);
        let pending = self.actor.step_pending(&mut self.optimizer, learning_rate, clip)?;
        let losses = self.actor.compute_gradients(rollout, &self.config.objective(step))?;
        let norm = self.actor.step(&mut self.optimizer, learning_rate, clip)?;
        let gradient_norm = check_norms(&[pending.unwrap_or(norm)], &self.optimizer)?[0];
        Ok(Update { losses, gradient_norm, learning_rate, updates: self.updates() })
    }

    /// Makes this the learner of one rank of `group`: see [`Actor::join`].
    ///
    /// # Errors
    /// As that.
    pub fn join(&mut self, group: &Arc<dyn Group>, exchange: group::Config) -> Result<()> {
        self.actor.join(&mut self.optimizer, group, exchange)
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.optimizer.updates()
    }

    /// Restores what [`save`](Persist::save) wrote. `with_state`: see [`Actor::load_acting_state`].
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where it is of another network.
    pub fn load(&mut self, snapshot: &Snapshot, with_state: bool) -> Result<()> {
        self.actor.load_training_state(&mut self.optimizer, snapshot, with_state)
    }
}

/// Everything that an exact resume needs: parameters, optimizer, recurrent state, random stream.
impl Persist for Learner {
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.actor.save_training_state(&mut self.optimizer, snapshot)?;
        Ok(())
    }
}
