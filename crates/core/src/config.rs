//! The `[env]` section of a configuration: the environment, the size of the batch, and the wrappers.

use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The `[env]` section. A key that is left out takes the default of the kind of environment (Atari games have the usual
/// preprocessing), else the default below.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvConfig {
    /// The environment: a name listed by `playfield envs`, any Gymnasium id, or your own in Python: `path/to/file.py:Class`, or
    /// `module:Id` where it is registered.
    pub id: String,
    /// The number of environments that step together.
    pub num_envs: usize,
    /// The largest number of threads that step them; 0: one per core. Gymnasium environments other than Atari step in one
    /// thread, or in a process each (`vectorization`).
    pub num_threads: usize,
    /// For Gymnasium environments other than Atari, wrapped or not: `sync` (in this process), `async` (a process each), or `auto` (the
    /// faster one by the measured duration of a step; a run saves the choice).
    pub vectorization: Vectorization,
    /// The longest time that a step of one environment may take, with the reset after the end of an episode; 0: no limit. A longer
    /// step is a failure.
    pub step_timeout_seconds: f64,
    /// What follows the failure of an environment with a process of its own: `stop` ends the run with an error, `restart` starts
    /// the process anew (at most ten times for each environment), and its episode is truncated.
    pub on_failure: OnFailure,
    /// How many of the last frames are stacked into one observation. Atari: 4.
    pub frame_stack: usize,
    /// How many emulator frames an action is repeated for. Atari: 4.
    pub frame_skip: usize,
    /// Whether an observation is the maximum of the last two emulator frames of a skip (sprites flicker). Atari: true.
    pub max_pool: bool,
    /// Height and width of a frame after conversion to gray and area interpolation; empty: unchanged. Atari: [84, 84].
    pub resize: Vec<usize>,
    /// An episode starts with a random number of no-op frames below this, a FIRE included (as in ALE); 0: none. Atari: 30.
    pub noop_max: usize,
    /// Press FIRE once when an episode starts, where the Atari game has that action. Atari: true. Other environments need
    /// the action.
    pub fire_reset: bool,
    /// Press FIRE after a lost life, too: the agent's action is replaced, and recorded as replaced. Needs the action as
    /// `fire_reset` does.
    pub fire_on_life_loss: bool,
    /// A lost life ends the episode for the learner (discount 0); the game continues. Without effect where there are no lives.
    pub episodic_life: bool,
    /// The probability that the emulator repeats the previous action (sticky actions), per emulator frame.
    pub repeat_action_probability: f64,
    /// All 18 actions of the Atari rather than the game's own. Other environments refuse it.
    pub full_action_space: bool,
    /// An episode is truncated after this many agent steps; 0: never. Atari: 27000 (half an hour of play).
    pub max_episode_steps: u64,
    /// The reward that the learner receives. Infinite rewards end a run unless they are clipped here (and not normalized).
    pub clip_reward: ClipReward,
    /// Observations are normalized to mean 0, variance 1 by running statistics, and clipped at ±10.
    pub normalize_obs: bool,
    /// Rewards are divided by the running standard deviation of the discounted return, and clipped at ±10.
    pub normalize_reward: bool,
    /// The discount of that return.
    pub normalize_gamma: f64,
    /// Keyword arguments of the environment's constructor.
    pub kwargs: toml::Table,
}

/// The reward that the learner receives.
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

/// The processes in which Gymnasium environments run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vectorization {
    /// In this process, one after the other.
    #[default]
    Sync,
    /// Each in its own process.
    Async,
    /// One of the two, chosen by the duration of a step when the environments are created.
    Auto,
}

/// What follows the failure of an environment: an exception, a process that ended, or a step over its time limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The run ends with an error.
    #[default]
    Stop,
    /// The environment starts anew.
    Restart,
}

impl Default for EnvConfig {
    fn default() -> Self {
        Self {
            id: String::new(),
            num_envs: 16,
            num_threads: 0,
            vectorization: Vectorization::Sync,
            step_timeout_seconds: 0.0,
            on_failure: OnFailure::Stop,
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
    /// Parses and checks the section: the keys of `table`, then the `defaults` of the kind of environment.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown key or an invalid value.
    pub fn resolve(table: &toml::Table, defaults: toml::Table) -> Result<Self> {
        let mut merged = defaults;
        merged.extend(table.clone());
        let config: Self = crate::algorithm::parse_section("env", &merged)?;
        let wrong = |what: &str| Err(Error::config(format!("[env]: {what}")));
        match &config {
            c if c.id.is_empty() => wrong("`id` is missing: name an environment (playfield envs lists them)"),
            c if !(1..=100_000).contains(&c.num_envs) => wrong("`num_envs` must lie between 1 and 100000"),
            c if !(0.0..=1e9).contains(&c.step_timeout_seconds) => {
                wrong("`step_timeout_seconds` is a number of seconds, or 0 for no limit")
            }
            c if c.on_failure == OnFailure::Restart && c.vectorization != Vectorization::Async => wrong(
                "`on_failure` = \"restart\" needs `vectorization` = \"async\": only a process can be started anew",
            ),
            c if !(1..=1000).contains(&c.frame_stack) => wrong("`frame_stack` must lie between 1 and 1000"),
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

    /// The number of threads that step the environments: [`num_threads`](Self::num_threads), or one per core.
    pub fn thread_count(&self) -> usize {
        thread_count(self.num_threads).min(self.num_envs)
    }

    /// [`step_timeout_seconds`](Self::step_timeout_seconds), or `None` for no limit.
    pub fn step_timeout(&self) -> Option<Duration> {
        (self.step_timeout_seconds > 0.0).then(|| Duration::from_secs_f64(self.step_timeout_seconds))
    }

    /// The keys set here that an environment or a wrapper inside the batch must implement. All other keys are implemented
    /// once, over every batch. [`EnvSource`](crate::EnvSource) says which it implements.
    pub fn inner_settings(&self) -> Vec<&'static str> {
        let keys = [
            ("on_failure", self.on_failure != OnFailure::Stop),
            ("step_timeout_seconds", self.step_timeout_seconds > 0.0),
            ("vectorization", self.vectorization != Vectorization::Sync),
            ("frame_skip", self.frame_skip > 1),
            ("max_pool", self.max_pool),
            ("resize", !self.resize.is_empty()),
            ("noop_max", self.noop_max > 0),
            ("fire_reset", self.fire_reset),
            ("repeat_action_probability", self.repeat_action_probability > 0.0),
            ("full_action_space", self.full_action_space),
            ("max_episode_steps", self.max_episode_steps > 0),
            ("kwargs", !self.kwargs.is_empty()),
        ];
        keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
    }

    /// `[env.kwargs]` as the config struct of an environment in Rust.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key that the struct lacks (with serde's `deny_unknown_fields`) or that is invalid.
    pub fn parse_kwargs<T: DeserializeOwned>(&self) -> Result<T> {
        crate::algorithm::parse_section("env.kwargs", &self.kwargs)
    }

    /// Refuses every key of `[env.kwargs]`: for an environment in Rust that has no settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first key.
    pub fn refuse_kwargs(&self) -> Result<()> {
        match self.kwargs.keys().next() {
            None => Ok(()),
            Some(key) => Err(Error::config(format!("[env.kwargs]: unknown key `{key}`: {} takes none", self.id))),
        }
    }
}

/// The number of threads that the setting `num_threads` means: 0 is one per core.
pub fn thread_count(num_threads: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if num_threads == 0 { cores() } else { num_threads }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<EnvConfig> {
        EnvConfig::resolve(&text.parse().unwrap(), toml::Table::new())
    }

    /// Each bound: the values at it, and the first beyond it with what the error names.
    #[test]
    fn each_key_has_its_bounds() {
        for (good, bad, expected) in [
            ("", "id = ''", "`id` is missing"),
            ("num_envs = 1", "num_envs = 0", "`num_envs` must lie between 1 and 100000"),
            ("num_envs = 100000", "num_envs = 100001", "`num_envs` must"),
            ("step_timeout_seconds = 0", "step_timeout_seconds = -0.1", "`step_timeout_seconds` is a number"),
            ("step_timeout_seconds = 1e9", "step_timeout_seconds = 2e9", "`step_timeout_seconds` is"),
            ("on_failure = 'stop'", "on_failure = 'restart'", "needs `vectorization` = \"async\""),
            (
                "on_failure = 'restart'\nvectorization = 'async'",
                "on_failure = 'restart'\nvectorization = 'auto'",
                "needs",
            ),
            ("vectorization = 'async'", "vectorization = 'fast'", "vectorization"),
            ("frame_stack = 1", "frame_stack = 0", "`frame_stack` must lie between 1 and 1000"),
            ("frame_stack = 1000", "frame_stack = 1001", "`frame_stack` must"),
            ("frame_skip = 1", "frame_skip = 0", "`frame_skip` must be at least 1"),
            ("resize = []", "resize = [84]", "`resize` is [height, width]"),
            ("resize = [1, 1]", "resize = [84, 0]", "`resize` is"),
            ("repeat_action_probability = 1", "repeat_action_probability = 1.1", "is a probability"),
            ("repeat_action_probability = 0", "repeat_action_probability = -0.1", "is a probability"),
            ("normalize_gamma = 0", "normalize_gamma = -0.1", "`normalize_gamma` is a discount"),
            ("normalize_gamma = 1", "normalize_gamma = 1.1", "`normalize_gamma` is"),
        ] {
            let with_id =
                |text: &str| if text.starts_with("id") { text.into() } else { format!("id = 'Catch'\n{text}") };
            assert_eq!(resolve(&with_id(good)).unwrap().id, "Catch", "{good}");
            let message = resolve(&with_id(bad)).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("[env]"), "{message}");
        }
    }

    /// The keys of the file before those of the kind of environment, and these before the general ones.
    #[test]
    fn a_key_that_is_left_out_takes_its_default() {
        let defaults: toml::Table = "frame_stack = 4\nnoop_max = 30".parse().unwrap();
        let config = EnvConfig::resolve(&"id = 'Pong'\nnoop_max = 7".parse().unwrap(), defaults).unwrap();
        assert_eq!((config.frame_stack, config.noop_max, config.num_envs), (4, 7, EnvConfig::default().num_envs));
    }

    #[test]
    fn evaluation_has_raw_rewards_and_whole_episodes() {
        let config = resolve("id = 'Pong'\nclip_reward = 'sign'\nepisodic_life = true\nframe_skip = 4").unwrap();
        let evaluation = config.evaluation(&"max_episode_steps = 5".parse().unwrap()).unwrap();
        let expected =
            EnvConfig { clip_reward: ClipReward::None, episodic_life: false, max_episode_steps: 5, ..config };
        assert_eq!(evaluation, expected);
    }

    #[test]
    fn threads_and_time_limits() {
        let config = EnvConfig { num_envs: 3, ..EnvConfig::default() };
        let threads = |num_threads| EnvConfig { num_threads, ..config.clone() }.thread_count();
        assert_eq!([2, 3, 9].map(threads), [2, 3, 3]);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!((thread_count(0), thread_count(cores + 1)), (cores, cores + 1));
        let limit = |step_timeout_seconds| EnvConfig { step_timeout_seconds, ..config.clone() }.step_timeout();
        assert_eq!([0.0, 2.5].map(limit), [None, Some(Duration::from_millis(2500))]);
    }

    /// Nothing that has its default is a setting, and each that has not is one.
    #[test]
    fn settings_of_single_environments_are_named() {
        assert!(resolve("id = 'Catch'").unwrap().inner_settings().is_empty());
        let all = "on_failure = 'restart'\nstep_timeout_seconds = 1\nvectorization = 'async'\nframe_skip = 2\nmax_pool = true
            resize = [84, 84]\nnoop_max = 1\nfire_reset = true\nrepeat_action_probability = 0.25\nfull_action_space = true
            max_episode_steps = 1\nkwargs.size = 5";
        let keys: Vec<&str> =
            all.split_ascii_whitespace().filter(|word| word.starts_with(char::is_alphabetic)).collect();
        let keys: Vec<&str> =
            keys.iter().filter(|key| **key != "true").map(|key| key.split('.').next().unwrap()).collect();
        let config = resolve(&format!("id = 'Catch'\n{all}")).unwrap();
        assert_eq!(config.inner_settings(), keys);
        let config = EnvConfig { id: "Catch".into(), ..EnvConfig::default() };
        assert!(config.refuse_kwargs().is_ok());
        let config = EnvConfig { kwargs: "size = 5".parse().unwrap(), ..config };
        let message = config.refuse_kwargs().unwrap_err().to_string();
        assert_eq!(message, "[env.kwargs]: unknown key `size`: Catch takes none");
    }
}
