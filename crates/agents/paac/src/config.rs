use playfield_actor_critic::Objective;
use playfield_core::algorithm::{check_counts, check_shares, check_size_schedules, check_sizes};
use playfield_core::{Result, Schedule};
use playfield_nn::NetworkConfig;
use playfield_nn::optim::{OptimizerConfig, RmsProp};
use serde::{Deserialize, Serialize};

/// The `[paac]` section, and the network. Defaults: the authors' repository (github.com/Alfredvc/paac).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Steps of each environment between two updates, and so the longest return.
    pub rollout_steps: usize,
    /// Discount of rewards per agent step.
    pub gamma: f64,
    /// λ of generalized advantage estimation; 1: n-step returns, as published.
    pub gae_lambda: f64,
    /// Learning rate: linear to 0 over the run. The authors use 7e-4 per environment, times 32.
    pub learning_rate: Schedule,
    /// Weight of the policy's entropy. The paper: .01.
    pub entropy_coefficient: Schedule,
    /// Weight of the squared error of the value.
    pub value_coefficient: f64,
    /// Whether the loss sums over a rollout's steps (and averages over environments), as the authors' does, or averages
    /// over both.
    pub sum_over_time: bool,
    /// The global norm above which a gradient is scaled down; 0: never. The paper: 40.
    pub gradient_clip: f64,
    /// Whether advantages are normalized to mean 0 and standard deviation 1 over a batch (not in the paper).
    pub normalize_advantage: bool,
    /// The number of batches that the environments step in, in turn: while one steps, the policy acts for the next one. 0: two where
    /// environments step in the background (Atari, processes) and there is no LSTM, else one.
    pub num_splits: usize,
    /// Threads among which a convolutional network splits a batch, on the CPU; 0: one per core.
    pub num_threads: usize,
    /// The optimizer: RMSProp as TensorFlow has it.
    pub optimizer: OptimizerConfig,
    /// The network.
    pub network: NetworkConfig,
    /// The device of the network: `cpu`, `cuda`, `cuda:N` or `auto`.
    pub device: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rollout_steps: 5,
            gamma: 0.99,
            gae_lambda: 1.0,
            learning_rate: Schedule::linear(0.0224, 0.0, 0),
            entropy_coefficient: Schedule::constant(0.02),
            value_coefficient: 0.25,
            sum_over_time: true,
            gradient_clip: 3.0,
            normalize_advantage: false,
            num_splits: 0,
            num_threads: 0,
            optimizer: RmsProp::tensorflow().into(),
            network: NetworkConfig::default(),
            device: "auto".into(),
        }
    }
}

impl Config {
    /// The loss, with the entropy coefficient at agent step `step`.
    pub fn objective(&self, step: u64) -> Objective {
        Objective {
            gae_lambda: self.gae_lambda,
            entropy_coefficient: self.entropy_coefficient.at(step),
            value_coefficient: self.value_coefficient,
            sum_over_time: self.sum_over_time,
            normalize_advantage: self.normalize_advantage,
        }
    }

    /// Rejects values that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) naming the key and its bounds.
    pub fn check(&self) -> Result<()> {
        check_counts("paac", &[("rollout_steps", self.rollout_steps as u64)])?;
        check_shares("paac", &[("gamma", self.gamma), ("gae_lambda", self.gae_lambda)])?;
        check_size_schedules(
            "paac",
            &[("learning_rate", self.learning_rate), ("entropy_coefficient", self.entropy_coefficient)],
        )?;
        check_sizes("paac", &[("value_coefficient", self.value_coefficient), ("gradient_clip", self.gradient_clip)])?;
        self.optimizer.check("paac")?;
        self.network.check()
    }
}
