//! The update of PAAC, testable without an environment.

use crate::Config;
use playfield_actor_critic::{Objective, Player};
use playfield_core::{EnvSpec, Result, Rollout, Snapshot, rng};
use playfield_nn::optim::Optimizer;
use playfield_nn::{ActorCritic, NetworkConfig};

pub use playfield_actor_critic::Losses;

/// The network at play, and its optimizer.
#[derive(Debug)]
pub struct Learner {
    /// What acts.
    pub player: Player,
    objective: Objective,
    optimizer: Optimizer,
    gradient_clip: f64,
}

impl Learner {
    /// A learner with a fresh network, for `n` environments of `spec`.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) where network, observation and device don't fit.
    pub fn new(
        config: &Config,
        network: &NetworkConfig,
        spec: &EnvSpec,
        n: usize,
        device: &str,
        seed: u64,
    ) -> Result<Self> {
        let mut net = ActorCritic::new(network, spec, device, &mut rng::stream(seed, "paac/init"))?;
        net.set_num_threads(config.threads());
        let optimizer = Optimizer::new(config.optimizer.clone(), &net.params).with_num_threads(config.threads());
        let player = Player::new(net, n, rng::stream(seed, "paac/actions"));
        Ok(Self { player, objective: config.objective(), optimizer, gradient_clip: config.gradient_clip })
    }

    /// Weighs the policy's entropy by `coefficient` from now on.
    pub fn set_entropy_coefficient(&mut self, coefficient: f64) {
        self.objective.entropy_coefficient = coefficient;
    }

    /// Learns from a full rollout, at `learning_rate`. Returns its losses, and the gradient's global norm before clipping.
    pub fn update(&mut self, rollout: &Rollout, learning_rate: f64) -> (Losses, f64) {
        let losses = self.player.learn(rollout, &self.objective);
        let grad_norm = self.player.net.step(&mut self.optimizer, learning_rate, self.gradient_clip);
        (losses, grad_norm)
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.optimizer.updates()
    }

    /// Writes everything that an exact resume needs: parameters, optimizer, memory, random stream.
    pub fn save_all(&self, snapshot: &mut Snapshot) {
        self.player.net.params.save(snapshot);
        self.optimizer.save(&self.player.net.params, snapshot);
        self.player.save(snapshot);
    }

    /// Takes parameters and optimizer of `snapshot`; the player's own part is [`Player::load`]'s.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where they are another network's.
    pub fn load_all(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.load(snapshot)?;
        self.optimizer.load(&self.player.net.params, snapshot)
    }

    /// Takes the parameters of `snapshot`: all that playing needs.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where they are another network's.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.player.net.params.load(snapshot)
    }
}
