use playfield_core::algorithm::{
    LARGEST_SIZE, check_counts, check_share_schedules, check_shares, check_size_schedules, check_sizes,
};
use playfield_core::{Error, Group, Result, Schedule};
use playfield_nn::optim::{OptimizerConfig, RmsProp};
use playfield_nn::{NetworkConfig, QConfig};
use playfield_replay::{PriorityConfig, prioritized::PriorityKind};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The `[dqn]` section, and the network. Defaults: DeepMind's published code for Nature's DQN, every refinement off.
///
/// Every interval counts agent steps (a step is one action, of four emulator frames on Atari), over all environments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Discount of rewards per agent step.
    pub gamma: f64,
    /// The number of rewards that a return sums before it bootstraps.
    pub n_step: usize,
    /// Learning rate.
    pub learning_rate: Schedule,
    /// Transitions of one update, of all processes together.
    pub batch_size: usize,
    /// Capacity of the replay buffer in steps, of all processes together.
    pub buffer_size: usize,
    /// Whether the replay buffer compresses frames in memory.
    pub buffer_compression: bool,
    /// Whether a GPU keeps a copy of the replay buffer's frames, uncompressed, so that samples are not sent to it: where observations are
    /// frames alone, and the GPU has the memory (7 GB for a million frames of 84 × 84).
    pub buffer_on_device: bool,
    /// Steps before the first update.
    pub learning_starts: u64,
    /// Steps between two times of training.
    pub train_interval: u64,
    /// Updates at each time of training.
    pub gradient_steps: u64,
    /// Steps between two updates of the target network.
    pub target_update_interval: u64,
    /// The share of the online network in an update of the target network: 1 copies, less is a soft (Polyak) update.
    pub tau: f64,
    /// Double Q-learning: the online network selects the action that the target network evaluates.
    pub double: bool,
    /// Separate streams for the value and the actions' advantages.
    pub dueling: bool,
    /// σ₀ of noisy layers, which replace ε-greedy exploration; 0: none. Rainbow: 0.5.
    pub noisy_sigma: f64,
    /// Whether the network learns values or distributions of returns.
    pub distribution: Distribution,
    /// Atoms of a categorical distribution, or quantiles. C51: 51; QR: 200.
    pub atoms: i64,
    /// The lowest atom of a categorical distribution.
    pub value_min: f64,
    /// The highest.
    pub value_max: f64,
    /// Whether transitions are sampled by priority.
    pub prioritized: bool,
    /// Priorities.
    pub priority: PriorityConfig,
    /// β, the exponent of the importance weights.
    pub beta: Schedule,
    /// Whether the schedules of ε and β begin when learning starts (DeepMind's code, DQN Zoo), or at step 0 (Stable-Baselines3).
    pub anneal_from_learning_starts: bool,
    /// ε, the share of random actions.
    pub exploration_epsilon: Schedule,
    /// ε of an evaluation that is not deterministic; noisy networks explore by their noise alone.
    pub exploration_evaluation: f64,
    /// The loss of a temporal-difference error.
    pub loss: Loss,
    /// Where the Huber loss becomes linear: the bound on |δ| in the gradient.
    pub huber_bound: f64,
    /// Whether the losses of a batch are summed (Nature) or averaged.
    pub sum_over_batch: bool,
    /// The global norm above which a gradient is scaled down; 0: never.
    pub gradient_clip: f64,
    /// Whether acting and learning overlap: the actor's weights are one training interval old then. Without, a resumed run equals
    /// an uninterrupted one bit for bit (where environments can save their state). A small network with `num_threads` = 0 never overlaps.
    pub overlap: bool,
    /// Threads among which a batch is split, on the CPU; 0: one per core, but at least 16 batch elements each, and one without overlap
    /// for a small network (fully connected, less than 2¹⁹ weights), whose updates take less time than handing them over.
    pub num_threads: usize,
    /// Where acting and learning overlap, the acting thread computes the last part of each batch, and this is its share: smaller
    /// than the others', since it also acts. Fixed, so that a seed gives the same run whatever the timing.
    pub actor_share: f64,
    /// The optimizer: RMSProp, centered, ε inside the root.
    pub optimizer: OptimizerConfig,
    /// The network.
    pub network: NetworkConfig,
    /// The device of the network: `cpu`, `cuda`, `cuda:N` or `auto`.
    pub device: String,
}

/// What the network learns of the return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Its mean.
    #[default]
    None,
    /// Its distribution on fixed atoms (C51).
    Categorical,
    /// Its quantiles (QR-DQN).
    Quantile,
}

/// The loss of a temporal-difference error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// ½δ² near 0, linear beyond: Nature's clipped error.
    #[default]
    Huber,
    /// ½δ².
    Squared,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gamma: 0.99,
            n_step: 1,
            learning_rate: Schedule::constant(2.5e-4),
            batch_size: 32,
            buffer_size: 1_000_000,
            buffer_compression: false,
            buffer_on_device: true,
            learning_starts: 50_000,
            train_interval: 4,
            gradient_steps: 1,
            target_update_interval: 10_000,
            tau: 1.0,
            double: false,
            dueling: false,
            noisy_sigma: 0.0,
            distribution: Distribution::None,
            atoms: 51,
            value_min: -10.0,
            value_max: 10.0,
            prioritized: false,
            priority: PriorityConfig::default(),
            beta: Schedule::linear(0.4, 1.0, 0),
            anneal_from_learning_starts: true,
            exploration_epsilon: Schedule::linear(1.0, 0.1, 1_000_000),
            exploration_evaluation: 0.05,
            loss: Loss::Huber,
            huber_bound: 1.0,
            sum_over_batch: true,
            gradient_clip: 0.0,
            overlap: true,
            num_threads: 0,
            actor_share: 0.35,
            optimizer: RmsProp { decay: 0.95, centered: true, eps: 0.01, eps_inside_root: true, ..RmsProp::default() }
                .into(),
            network: NetworkConfig::default(),
            device: "auto".into(),
        }
    }
}

impl Config {
    /// The defaults of a configuration with the choices of `chosen`. Some bring their published values: another optimizer rule,
    /// rank-based priorities (α = .7, β from .5) and quantiles (200).
    pub fn defaults(chosen: &Self) -> Self {
        let mut defaults = Self::default();
        defaults.optimizer = defaults.optimizer.with_rule(&chosen.optimizer);
        if chosen.priority.by == PriorityKind::Rank {
            (defaults.priority.exponent, defaults.beta.start) = (0.7, 0.5);
        }
        if chosen.distribution == Distribution::Quantile {
            defaults.atoms = 200;
        }
        defaults
    }

    /// Agent steps after which the schedules of ε and β begin.
    pub fn anneal_from(&self) -> u64 {
        if self.anneal_from_learning_starts { self.learning_starts } else { 0 }
    }

    /// Rejects values that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key and its bounds.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::config(format!("[dqn]: {what}")));
        let is_size = |x: f64| x > 0.0 && x <= LARGEST_SIZE;
        check_shares(
            "dqn",
            &[
                ("gamma", self.gamma),
                ("tau", self.tau),
                ("actor_share", self.actor_share),
                ("exploration_evaluation", self.exploration_evaluation),
            ],
        )?;
        check_share_schedules("dqn", &[("beta", self.beta), ("exploration_epsilon", self.exploration_epsilon)])?;
        check_size_schedules("dqn", &[("learning_rate", self.learning_rate)])?;
        check_sizes("dqn", &[("noisy_sigma", self.noisy_sigma), ("gradient_clip", self.gradient_clip)])?;
        self.optimizer.check("dqn")?;
        self.network.check()?;
        check_counts(
            "dqn",
            &[
                ("buffer_size", self.buffer_size as u64),
                ("n_step", self.n_step as u64),
                ("atoms", self.atoms.max(0) as u64),
                ("batch_size", self.batch_size as u64),
                ("train_interval", self.train_interval),
                ("gradient_steps", self.gradient_steps),
                ("target_update_interval", self.target_update_interval),
            ],
        )?;
        match self {
            // Ctrl-C is heeded once they are made.
            c if c.gradient_steps > 10_000 => {
                wrong(format!("`gradient_steps` = {} must be at most 10000", c.gradient_steps))
            }
            c if c.buffer_size < c.batch_size => {
                wrong(format!("`buffer_size` = {} is smaller than `batch_size` = {}", c.buffer_size, c.batch_size))
            }
            c if c.tau == 0.0 => wrong("`tau` = 0 would never move the target network".into()),
            c if !is_size(c.huber_bound) => {
                wrong(format!("`huber_bound` must be greater than 0, and at most {LARGEST_SIZE:e}"))
            }
            c if c.distribution == Distribution::Categorical && (c.atoms < 2 || !is_size(c.width())) => wrong(format!(
                "a categorical distribution needs `atoms` ≥ 2 and `value_min` < `value_max`, at most {LARGEST_SIZE:e} apart"
            )),
            _ => Ok(()),
        }
    }

    /// The distance of the highest atom from the lowest.
    fn width(&self) -> f64 {
        self.value_max - self.value_min
    }

    /// The number of threads among which a batch is split.
    pub fn threads(&self) -> usize {
        self.threads_on(std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn threads_on(&self, cores: usize) -> usize {
        if self.num_threads == 0 { cores.min(self.batch_size / 16).max(1) } else { self.num_threads }
    }

    /// The settings of one rank of `group`, which has an equal part of each batch and of the buffer, and acts and learns in turn where
    /// there are others.
    ///
    /// # Errors
    /// [`Error::Config`] where the parts are not equal.
    pub fn of_rank(&self, group: &dyn Group) -> Result<Self> {
        Ok(Self {
            batch_size: group.share("dqn.batch_size", self.batch_size)?,
            buffer_size: group.share("dqn.buffer_size", self.buffer_size)?,
            overlap: self.overlap && !group.is_distributed(),
            ..self.clone()
        })
    }

    /// The batch elements of each of `threads` threads.
    pub fn parts(&self, threads: usize) -> Vec<Range<usize>> {
        let (n, all) = (threads.min(self.batch_size), self.batch_size);
        let (even, last) = match self.overlap && n > 1 {
            // Every thread has one element at least.
            true => (n - 1, ((all as f64 * self.actor_share) as usize).clamp(1, all + 1 - n)),
            false => (n, 0),
        };
        let border = |i: usize| if i > even { all } else { i * (all - last) / even };
        (0..n).map(|i| border(i)..border(i + 1)).collect()
    }

    /// The Q-network's heads.
    pub fn heads(&self) -> QConfig {
        let atoms = if self.distribution == Distribution::None { 1 } else { self.atoms };
        QConfig { dueling: self.dueling, noisy_sigma: self.noisy_sigma, atoms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each thread has 16 elements at least.
    #[test]
    fn threads_depend_on_cores_and_batch() {
        let threads =
            |num_threads, batch_size, cores| Config { num_threads, batch_size, ..Config::default() }.threads_on(cores);
        assert_eq!(
            [(32, 1), (32, 2), (32, 8), (15, 8), (160, 8)].map(|(n, cores)| threads(0, n, cores)),
            [1, 2, 2, 1, 8]
        );
        assert_eq!(threads(3, 32, 8), 3);
    }
}
