use playfield_core::algorithm::{check_counts, check_shares, check_sizes, parse_section_over};
use playfield_core::{Error, Result};
use playfield_nn::QConfig;
use playfield_nn::optim::{OptimizerConfig, RmsProp};
use playfield_replay::PriorityConfig;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The `[dqn]` section. Defaults: DeepMind's published code for Nature's DQN, every refinement off.
///
/// Every clock counts agent steps (a step is one action, of four emulator frames on Atari), over all environments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Discount of rewards per agent step.
    pub gamma: f64,
    /// How many rewards a return sums before it bootstraps.
    pub n_step: usize,
    /// Step size of the optimizer.
    pub learning_rate: f64,
    /// Transitions of one update.
    pub batch_size: usize,
    /// How many steps the replay holds.
    pub buffer_size: usize,
    /// Whether its frames lie compressed in memory.
    pub buffer_compression: bool,
    /// Steps before the first update.
    pub learning_starts: u64,
    /// Steps between two rounds of updates.
    pub train_interval: u64,
    /// Updates of one round.
    pub gradient_steps: u64,
    /// Steps between two updates of the target network.
    pub target_update_interval: u64,
    /// How far the target network moves to the online one then: 1 copies, less is a soft update.
    pub tau: f64,
    /// The online network chooses the action whose value the target network says.
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
    /// Whether transitions are drawn by their priority.
    pub prioritized: bool,
    /// How they are prioritized.
    pub priority: PriorityConfig,
    /// β of the importance weights at the start; it rises linearly to 1.
    pub beta_start: f64,
    /// Steps over which β rises; 0: to the end of the run.
    pub beta_steps: u64,
    /// Whether ε and β begin to move when learning starts (DeepMind's code, DQN Zoo), or at step 0 (Stable-Baselines3).
    pub anneal_from_learning_starts: bool,
    /// ε at the start: the share of random actions.
    pub exploration_start: f64,
    /// ε at the end.
    pub exploration_end: f64,
    /// Steps over which ε falls linearly.
    pub exploration_steps: u64,
    /// ε when a trained agent is evaluated without `--deterministic`; noisy networks then explore by their noise alone.
    pub exploration_evaluation: f64,
    /// What a temporal-difference error costs.
    pub loss: Loss,
    /// Where the Huber loss turns linear: the bound on |δ| in the gradient.
    pub huber_bound: f64,
    /// Whether a batch's losses are summed (Nature) or averaged.
    pub sum_over_batch: bool,
    /// The global norm above which a gradient is scaled down; 0: never.
    pub gradient_clip: f64,
    /// Whether acting and learning overlap: the actor's weights are then one round of updates old. Without, a resumed run
    /// equals an uninterrupted one bit for bit (where environments can save their state).
    pub overlap: bool,
    /// Threads among which the rows of a batch are shared out, on the processor; 0: one per core, but 16 rows at least each.
    pub num_threads: usize,
    /// Where acting and learning overlap, the last of those threads is the one that acts, and this is its share of the rows:
    /// less than an equal one by as much as its playing takes. Fixed, so that a seed gives the same run on any day.
    pub actor_share: f64,
    /// The optimizer: RMSProp, centered, ε inside the root.
    pub optimizer: OptimizerConfig,
}

/// What the network learns about the return.
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

/// What a temporal-difference error costs.
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
            learning_rate: 2.5e-4,
            batch_size: 32,
            buffer_size: 1_000_000,
            buffer_compression: false,
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
            beta_start: 0.4,
            beta_steps: 0,
            anneal_from_learning_starts: true,
            exploration_start: 1.0,
            exploration_end: 0.1,
            exploration_steps: 1_000_000,
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
        }
    }
}

impl Config {
    /// The section `table`: what it does not name is as in [`Config::default`]. Some choices bring their published settings
    /// along: another optimizer rule, priorities by rank (α = .7, β from .5) and quantiles (200).
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown key, or a value that cannot work.
    pub fn from_table(table: &toml::Table) -> Result<Self> {
        let default = Self::default();
        let mut defaults = Self { optimizer: default.optimizer.clone().over(table), ..default };
        let names = |value: Option<&toml::Value>, name: &str| value.and_then(toml::Value::as_str) == Some(name);
        if names(table.get("priority").and_then(|priority| priority.get("by")), "rank") {
            (defaults.priority.exponent, defaults.beta_start) = (0.7, 0.5);
        }
        if names(table.get("distribution"), "quantile") {
            defaults.atoms = 200;
        }
        let config: Self = parse_section_over("dqn", table, &defaults)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key and its bounds.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::config(format!("[dqn]: {what}")));
        check_shares(
            "dqn",
            &[
                ("gamma", self.gamma),
                ("tau", self.tau),
                ("beta_start", self.beta_start),
                ("actor_share", self.actor_share),
                ("exploration_start", self.exploration_start),
                ("exploration_end", self.exploration_end),
                ("exploration_evaluation", self.exploration_evaluation),
            ],
        )?;
        self.optimizer.check("dqn")?;
        check_sizes(
            "dqn",
            &[
                ("learning_rate", self.learning_rate),
                ("noisy_sigma", self.noisy_sigma),
                ("gradient_clip", self.gradient_clip),
            ],
        )?;
        check_counts(
            "dqn",
            &[
                ("n_step", self.n_step as u64),
                ("batch_size", self.batch_size as u64),
                ("train_interval", self.train_interval),
                ("gradient_steps", self.gradient_steps),
                ("target_update_interval", self.target_update_interval),
            ],
        )?;
        match self {
            c if c.buffer_size < c.batch_size => {
                wrong(format!("`buffer_size` = {} is smaller than `batch_size` = {}", c.buffer_size, c.batch_size))
            }
            c if c.tau == 0.0 => wrong("`tau` = 0 would never move the target network".into()),
            c if c.huber_bound.is_nan() || c.huber_bound <= 0.0 => wrong("`huber_bound` must be greater than 0".into()),
            c if c.distribution == Distribution::Categorical
                && (c.atoms < 2 || c.width().is_nan() || c.width() <= 0.0) =>
            {
                wrong("a categorical distribution needs `atoms` ≥ 2 and `value_min` < `value_max`".into())
            }
            c if c.atoms < 1 => wrong("`atoms` must be at least 1".into()),
            _ => Ok(()),
        }
    }

    /// How far the lowest atom is from the highest.
    fn width(&self) -> f64 {
        self.value_max - self.value_min
    }

    /// How many threads share the rows of a batch.
    pub fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if self.num_threads == 0 { cores.min(self.batch_size / 16).max(1) } else { self.num_threads }
    }

    /// The rows of a batch that each of so many works on.
    pub fn parts(&self, threads: usize) -> Vec<Range<usize>> {
        let (n, all) = (threads.min(self.batch_size), self.batch_size);
        let (even, last) = match self.overlap && n > 1 {
            // Everyone has a row to work on.
            true => (n - 1, ((all as f64 * self.actor_share) as usize).clamp(1, all + 1 - n)),
            false => (n, 0),
        };
        let border = |i: usize| if i > even { all } else { i * (all - last) / even };
        (0..n).map(|i| border(i)..border(i + 1)).collect()
    }

    /// What the network has beyond its torso.
    pub fn network(&self) -> QConfig {
        let atoms = if self.distribution == Distribution::None { 1 } else { self.atoms };
        QConfig { dueling: self.dueling, noisy_sigma: self.noisy_sigma, atoms }
    }
}
