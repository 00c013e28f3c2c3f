use playfield_core::algorithm::{check_counts, check_shares, check_size_schedules, check_sizes};
use playfield_core::{Error, Group, Result, Schedule};
use playfield_nn::NetworkConfig;
use playfield_nn::config::{InitKind, NormKind};
use playfield_nn::optim::{Adam, OptimizerConfig};
use serde::{Deserialize, Serialize};

/// The `[ppo]` section, and the network. Defaults: Atari games in RL Baselines3 Zoo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Steps of each environment between two updates.
    pub rollout_steps: usize,
    /// Transitions of one gradient step, of all processes together. Where it does not divide `rollout_steps · env.num_envs`, the last minibatch of each epoch
    /// is smaller. With an LSTM a multiple of `rollout_steps`: a minibatch holds whole sequences.
    pub minibatch_size: usize,
    /// Passes over each rollout. The paper, for Atari games: 3.
    pub epochs: usize,
    /// Discount of rewards per agent step.
    pub gamma: f64,
    /// λ of generalized advantage estimation.
    pub gae_lambda: f64,
    /// Learning rate: linear to 0 over the run.
    pub learning_rate: Schedule,
    /// Where not 0, the learning rate follows the KL divergence, and `learning_rate` is only its initial value: where the mean KL over
    /// the last epoch of a rollout exceeds twice this, the next rollout's learning rate is divided by 1.5; below half of it,
    /// multiplied by 1.5; always within 1e-6 to 1e-2. Thresholds and bounds are rl_games' (not in the paper).
    pub learning_rate_target_kl: f64,
    /// The clipping range ε of the probability ratio. Linear to 0 over the run.
    pub clip_range: Schedule,
    /// Where not 0, the loss of a value is the larger of two errors: its own, and that of the value clipped to this distance from the
    /// rollout's (not in the paper).
    pub value_clip_range: f64,
    /// Weight of the policy's entropy.
    pub entropy_coefficient: Schedule,
    /// Weight of the squared error of the value. The paper, for Atari games: 1.
    pub value_coefficient: f64,
    /// The global norm above which a gradient is scaled down; 0: never (the paper).
    pub gradient_clip: f64,
    /// Whether advantages are normalized to mean 0 and standard deviation 1 over a minibatch (not in the paper).
    pub normalize_advantage: bool,
    /// Where not 0, updates from a rollout stop before the first minibatch whose KL divergence exceeds 1.5 times this.
    pub target_kl: f64,
    /// The number of batches that the environments step in, in turn: while one steps, the policy acts for the next one. 0: two where
    /// environments step in the background (Atari, processes) and there is no LSTM, else one.
    pub num_splits: usize,
    /// Threads among which a convolutional network splits a batch, on the CPU; 0: one per core.
    pub num_threads: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The network.
    pub network: NetworkConfig,
    /// The device of the network: `cpu`, `cuda`, `cuda:N` or `auto`.
    pub device: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rollout_steps: 128,
            minibatch_size: 256,
            epochs: 4,
            gamma: 0.99,
            gae_lambda: 0.95,
            learning_rate: Schedule::linear(2.5e-4, 0.0, 0),
            learning_rate_target_kl: 0.0,
            clip_range: Schedule::linear(0.1, 0.0, 0),
            value_clip_range: 0.0,
            entropy_coefficient: Schedule::constant(0.01),
            value_coefficient: 0.5,
            gradient_clip: 0.5,
            normalize_advantage: true,
            target_kl: 0.0,
            num_splits: 0,
            num_threads: 0,
            optimizer: Adam { eps: 1e-5, ..Adam::default() }.into(),
            network: NetworkConfig { init: InitKind::Orthogonal, ..NetworkConfig::default() },
            device: "auto".into(),
        }
    }
}

impl Config {
    /// Rejects values that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key and its bounds.
    pub fn check(&self) -> Result<()> {
        let counts =
            [("rollout_steps", self.rollout_steps), ("minibatch_size", self.minibatch_size), ("epochs", self.epochs)];
        check_counts("ppo", &counts.map(|(key, count)| (key, count as u64)))?;
        if self.epochs > 1000 {
            return Err(Error::config(format!("[ppo]: `epochs` = {} must be at most 1000", self.epochs)));
        }
        check_shares("ppo", &[("gamma", self.gamma), ("gae_lambda", self.gae_lambda)])?;
        let schedules = [
            ("learning_rate", self.learning_rate),
            ("clip_range", self.clip_range),
            ("entropy_coefficient", self.entropy_coefficient),
        ];
        check_size_schedules("ppo", &schedules)?;
        let sizes = [
            ("learning_rate_target_kl", self.learning_rate_target_kl),
            ("value_clip_range", self.value_clip_range),
            ("value_coefficient", self.value_coefficient),
            ("gradient_clip", self.gradient_clip),
            ("target_kl", self.target_kl),
        ];
        check_sizes("ppo", &sizes)?;
        if self.clip_range.start == 0.0 {
            return Err(Error::config("[ppo]: `clip_range` must start above 0: within 1 ± 0 nothing is learned"));
        }
        if self.target_kl > 0.0 && self.network.norm == NormKind::Batch {
            return Err(Error::config(
                "[ppo]: with norm = \"batch\" the acting and the learning policy differ from the first minibatch on: set target_kl = 0, \
                 or norm = \"layer\"",
            ));
        }
        // A remainder of one transition has the normalized advantage 0: it contributes its value and its entropy.
        if self.normalize_advantage && self.minibatch_size == 1 {
            return Err(Error::config(
                "[ppo]: one advantage cannot be normalized: set minibatch_size to at least 2, or normalize_advantage = false",
            ));
        }
        self.optimizer.check("ppo")?;
        self.network.check()
    }

    /// The settings of one rank of `group`, which has an equal part of each minibatch.
    ///
    /// # Errors
    /// [`Error::Config`] where the parts are not equal.
    pub fn of_rank(&self, group: &dyn Group) -> Result<Self> {
        Ok(Self { minibatch_size: group.share("ppo.minibatch_size", self.minibatch_size)?, ..self.clone() })
    }

    /// Rejects a minibatch that does not fit the rollouts of `n` environments.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key and its bounds.
    pub fn check_minibatch(&self, n: usize) -> Result<()> {
        let Self { rollout_steps, minibatch_size, .. } = self;
        if *minibatch_size > n.saturating_mul(*rollout_steps) {
            return Err(Error::config(format!(
                "[ppo]: `minibatch_size` = {minibatch_size} must be at most the {} transitions of a rollout (rollout_steps · \
                 env.num_envs)",
                n * rollout_steps
            )));
        }
        if self.network.lstm_width() > 0 && minibatch_size % rollout_steps != 0 {
            return Err(Error::config(format!(
                "[ppo]: `minibatch_size` = {minibatch_size} would cut a sequence of the LSTM: it must be a multiple of rollout_steps = \
                 {rollout_steps}"
            )));
        }
        Ok(())
    }
}
