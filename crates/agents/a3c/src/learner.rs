//! What an actor-learner runs: one of the paper's methods.

use crate::Config;
use crate::config::Method;
use crate::q_learner::{QLearner, Target};
use playfield_actor_critic::Actor;
use playfield_core::rng::Rng;
use playfield_core::{EnvSpec, Policy, Result, Rollout, RolloutPolicy, Snapshot, rng};
use playfield_nn::{ActorCritic, Params, Summary};
use std::sync::Arc;

/// The metrics of an update, computed when they are reported.
pub type Report = Box<dyn FnOnce() -> Vec<(&'static str, f64)> + Send>;

/// A method, with one thread's copy of the network.
pub trait Learner: Send {
    /// The policy that acts.
    fn policy(&mut self) -> &mut dyn RolloutPolicy;

    /// Prepares a rollout that begins after `steps` agent steps of all threads: target network and ε.
    fn begin_rollout(&mut self, _steps: u64) {}

    /// Sets the network's gradient to that of the loss on a full rollout; schedules are read at agent step `step`.
    fn compute_gradients(&mut self, rollout: &Rollout, step: u64) -> Result<Report>;

    /// ε, of a method that explores by it.
    fn epsilon(&self) -> Option<f64> {
        None
    }

    /// The thread's copy of the parameters.
    fn params(&mut self) -> &mut Params;

    /// Describes the network, which was built from `config` for `spec`.
    fn summary(&self, config: &Config, spec: &EnvSpec) -> Summary;

    /// A copy of the policy for evaluation.
    fn evaluation_policy(&self) -> Box<dyn Policy>;

    /// Writes what a resume needs beside the parameters, between two rollouts.
    fn save(&self, snapshot: &mut Snapshot);

    /// Restores what [`save`](Self::save) wrote. `restored`: whether the environments were restored, too.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where it is missing or of another network.
    fn load(&mut self, snapshot: &Snapshot, restored: bool) -> Result<()>;
}

/// A learner of the configured method for `n` environments, with initial parameters from the run's `seed` and the random stream
/// `rng`.
///
/// # Errors
/// [`Error::Config`](playfield_core::Error::Config) where method, network and environment don't fit.
pub fn learner(
    config: &Config,
    spec: &EnvSpec,
    n: usize,
    seed: u64,
    rng: Rng,
    target: &Arc<Target>,
) -> Result<Box<dyn Learner>> {
    let init = &mut rng::stream(seed, "a3c/init");
    Ok(match config.method {
        Method::ActorCritic => {
            let net = ActorCritic::new(&config.network, spec, "cpu", init)?;
            Box::new(ActorCriticLearner { actor: Actor::new(net, n, rng), config: config.clone() })
        }
        _ => Box::new(QLearner::new(config, spec, init, rng, target.clone())?),
    })
}

/// A3C.
struct ActorCriticLearner {
    actor: Actor,
    config: Config,
}

impl Learner for ActorCriticLearner {
    fn policy(&mut self) -> &mut dyn RolloutPolicy {
        &mut self.actor
    }

    fn compute_gradients(&mut self, rollout: &Rollout, step: u64) -> Result<Report> {
        let losses = self.actor.compute_gradients(rollout, &self.config.objective(step))?;
        Ok(Box::new(move || losses.report()))
    }

    fn params(&mut self) -> &mut Params {
        &mut self.actor.net.params
    }

    fn summary(&self, config: &Config, spec: &EnvSpec) -> Summary {
        self.actor.net.summary(&config.network, spec)
    }

    fn evaluation_policy(&self) -> Box<dyn Policy> {
        Box::new(self.actor.evaluation_policy())
    }

    fn save(&self, snapshot: &mut Snapshot) {
        self.actor.save_acting_state(snapshot);
    }

    fn load(&mut self, snapshot: &Snapshot, restored: bool) -> Result<()> {
        self.actor.load_acting_state(snapshot, restored)
    }
}
