//! The `[env]` section of a configuration: which environment, how many, and what wraps them.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The `[env]` section. Where a key is left out, the environment's own kind decides (Atari games arrive with the
/// field's usual preprocessing), else the default stated here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvConfig {
    /// The environment: a name of `playfield envs`, any Gymnasium id, or `module:Id` for one of your own in Python.
    pub id: String,
    /// How many environments step together.
    pub num_envs: usize,
    /// Threads that step them; 0: one per core.
    pub num_threads: usize,
    /// For Gymnasium environments other than Atari, behind wrappers or not: `sync` (in this process) or `async` (a process
    /// each).
    pub vectorization: Vectorization,
    /// How many of the last frames make one observation. Atari: 4.
    pub frame_stack: usize,
    /// How many emulator frames one action lasts. Atari: 4.
    pub frame_skip: usize,
    /// Whether an observation is the maximum of the last two emulator frames of a skip (sprites flicker). Atari: true.
    pub max_pool: bool,
    /// Height and width to which a frame is reduced, in gray, by area interpolation; empty: as it is. Atari: [84, 84].
    pub resize: Vec<usize>,
    /// An episode starts with fewer than this many no-op frames, drawn at random, a FIRE included (as ALE draws them);
    /// 0: none. Atari: 30.
    pub noop_max: usize,
    /// Press FIRE once when a game starts, where the game has that action. Atari: true.
    pub fire_reset: bool,
    /// Press FIRE after a lost life, too: the action sent is replaced, and recorded as replaced.
    pub fire_on_life_loss: bool,
    /// A lost life ends the episode for the learner (discount 0); the game goes on.
    pub episodic_life: bool,
    /// The probability with which the emulator repeats the previous action (sticky actions), per emulator frame.
    pub repeat_action_probability: f64,
    /// All 18 actions of the Atari rather than the game's own. Gymnasium's other environments refuse it.
    pub full_action_space: bool,
    /// An episode is truncated after this many agent steps; 0: never. Atari: 27000 (half an hour of play).
    pub max_episode_steps: u64,
    /// What the learner sees of a reward. Infinite rewards end a run unless they are clipped here (and not normalized).
    pub clip_reward: ClipReward,
    /// Observations are scaled to mean 0, variance 1 by running statistics, and clipped at ±10.
    pub normalize_obs: bool,
    /// Rewards are divided by the running standard deviation of the discounted return, and clipped at ±10.
    pub normalize_reward: bool,
    /// The discount of that return.
    pub normalize_gamma: f64,
    /// Handed to the environment's constructor as they are.
    pub kwargs: toml::Table,
}

/// What the learner sees of a reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClipReward {
    /// The raw reward.
    #[default]
    None,
    /// Its sign: −1, 0 or 1 (Mnih et al. 2015).
    Sign,
    /// The reward cut to [−1, 1] (Clemente et al. 2017).
    Clamp,
}

/// Where Gymnasium environments run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vectorization {
    /// In this process, one after the other.
    #[default]
    Sync,
    /// Each in a process of its own.
    Async,
}

impl Default for EnvConfig {
    fn default() -> Self {
        Self {
            id: String::new(),
            num_envs: 16,
            num_threads: 0,
            vectorization: Vectorization::Sync,
            frame_stack: 1,
            frame_skip: 1,
            max_pool: false,
            resize: Vec::new(),
            noop_max: 0,
            fire_reset: false,
            fire_on_life_loss: false,
            episodic_life: false,
            repeat_action_probability: 0.0,
            full_action_space: false,
            max_episode_steps: 0,
            clip_reward: ClipReward::None,
            normalize_obs: false,
            normalize_reward: false,
            normalize_gamma: 0.99,
            kwargs: toml::Table::new(),
        }
    }
}

impl EnvConfig {
    /// The section: `table` over the `defaults` of the environment's kind.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown key or a value that cannot work.
    pub fn resolve(table: &toml::Table, defaults: toml::Table) -> Result<Self> {
        let mut merged = defaults;
        merged.extend(table.clone());
        let config: Self = crate::algorithm::parse_section("env", &merged)?;
        let wrong = |what: &str| Err(Error::config(format!("[env]: {what}")));
        match &config {
            c if c.id.is_empty() => wrong("`id` is missing: name an environment (playfield envs lists them)"),
            c if c.num_envs == 0 => wrong("`num_envs` must be at least 1"),
            c if c.frame_stack == 0 => wrong("`frame_stack` must be at least 1"),
            c if c.frame_skip == 0 => wrong("`frame_skip` must be at least 1"),
            c if ![0, 2].contains(&c.resize.len()) || c.resize.contains(&0) => {
                wrong("`resize` is [height, width], or [] for none")
            }
            c if !(0.0..=1.0).contains(&c.repeat_action_probability) => {
                wrong("`repeat_action_probability` is a probability, 0 to 1")
            }
            c if !(0.0..=1.0).contains(&c.normalize_gamma) => wrong("`normalize_gamma` is a discount, 0 to 1"),
            _ => Ok(config),
        }
    }

    /// The section for evaluation: with the keys of `overrides`, raw rewards, and episodes that a lost life does not end.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown key or a value that cannot work.
    pub fn evaluation(&self, overrides: &toml::Table) -> Result<Self> {
        let mut table = crate::algorithm::write_section("env", self)?;
        table.extend(overrides.clone());
        let config = Self::resolve(&table, toml::Table::new())?;
        Ok(Self { clip_reward: ClipReward::None, episodic_life: false, ..config })
    }

    /// How many threads step the environments: [`num_threads`](Self::num_threads), or one per core.
    pub fn thread_count(&self) -> usize {
        thread_count(self.num_threads).min(self.num_envs)
    }
}

/// The number of threads that the setting `num_threads` means: 0 is one per core.
pub fn thread_count(num_threads: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if num_threads == 0 { cores() } else { num_threads }
}
