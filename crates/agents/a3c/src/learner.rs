//! What an actor-learner plays and learns with: one of the paper's methods.

use crate::Config;
use crate::config::Method;
use crate::q_learner::{QLearner, Target};
use playfield_actor_critic::{Objective, Player};
use playfield_core::rng::Rng;
use playfield_core::{Actions, EnvSpec, Mode, Obs, ObsRef, Outputs, Policy, Result, Rollout, Schedule, Snapshot, rng};
use playfield_nn::{ActorCritic, NetworkConfig, Params};
use std::sync::Arc;

/// A method, with one thread's copy of the network.
pub trait Learner: Policy + Send {
    /// To be told before each rollout how many steps all have made: what follows a schedule moves on.
    fn begin(&mut self, _steps: u64) {}

    /// What the last observation of an episode that was cut in environment `i` is worth: to be asked before
    /// [`reset_states`](Policy::reset_states).
    fn final_value(&mut self, obs: ObsRef<'_>, i: usize) -> f32;

    /// Sets the network's gradient to that of the loss on a full rollout. Returns what to log.
    fn learn(&mut self, rollout: &Rollout) -> Vec<(&'static str, f64)>;

    /// The thread's copy of the parameters.
    fn params(&mut self) -> &mut Params;

    /// Folds batch norm into the layers before it: for a network that only plays from now on.
    fn fold(&mut self);

    /// Writes what goes on beside the parameters. To be called between two rollouts.
    fn save(&self, snapshot: &mut Snapshot);

    /// Takes what [`save`](Self::save) wrote. `restored`: whether the environments are where they were, too.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where it is missing or of another network.
    fn load(&mut self, snapshot: &Snapshot, restored: bool) -> Result<()>;
}

/// A learner of the configured method for `n` environments, with fresh parameters from the run's `seed` and a random stream
/// from `rng`.
///
/// # Errors
/// [`Error::Config`](playfield_core::Error::Config) where method, network and environment don't fit.
pub fn learner(
    config: &Config,
    network: &NetworkConfig,
    spec: &EnvSpec,
    n: usize,
    seed: u64,
    rng: Rng,
    target: &Arc<Target>,
) -> Result<Box<dyn Learner>> {
    let init = &mut rng::stream(seed, "a3c/init");
    Ok(match config.method {
        Method::ActorCritic => {
            let net = ActorCritic::new(network, spec, "cpu", init)?;
            let (player, entropy) = (Player::new(net, n, rng), config.entropy());
            Box::new(ActorCriticLearner { player, objective: config.objective(), entropy })
        }
        _ => Box::new(QLearner::new(config, network, spec, init, rng, target.clone())?),
    })
}

/// A3C.
struct ActorCriticLearner {
    player: Player,
    objective: Objective,
    /// The weight of the policy's entropy.
    entropy: Schedule,
}

impl Policy for ActorCriticLearner {
    fn act(&mut self, obs: &Obs, mode: Mode, actions: &mut Actions) -> Result<()> {
        self.player.act(obs, mode, actions)
    }

    fn reset_states(&mut self, ended: &[bool]) {
        self.player.reset_states(ended);
    }

    fn outputs(&mut self, obs: &Obs, n: usize) -> Result<Outputs> {
        self.player.outputs(obs, n)
    }

    fn seed(&mut self, seed: u64) {
        self.player.seed(seed);
    }
}

impl Learner for ActorCriticLearner {
    fn begin(&mut self, steps: u64) {
        self.objective.entropy_coefficient = self.entropy.at(steps);
    }

    fn final_value(&mut self, obs: ObsRef<'_>, i: usize) -> f32 {
        self.player.final_value(obs, i)
    }

    fn learn(&mut self, rollout: &Rollout) -> Vec<(&'static str, f64)> {
        self.player.learn(rollout, &self.objective).report().to_vec()
    }

    fn params(&mut self) -> &mut Params {
        &mut self.player.net.params
    }

    fn fold(&mut self) {
        self.player.net.fold();
    }

    fn save(&self, snapshot: &mut Snapshot) {
        self.player.save(snapshot);
    }

    fn load(&mut self, snapshot: &Snapshot, restored: bool) -> Result<()> {
        self.player.load(snapshot, restored)
    }
}
