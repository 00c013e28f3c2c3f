use playfield_actor_critic::Objective;
use playfield_core::algorithm::{check_counts, check_shares, check_sizes, parse_section_over};
use playfield_core::rng::Rng;
use playfield_core::{Error, Result, Schedule};
use playfield_hogwild::Sharing;
use playfield_nn::optim::{OptimizerConfig, RmsProp};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// What the threads learn, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A policy and the value of states: A3C itself.
    #[default]
    ActorCritic,
    /// The values of actions, from returns over the rollout.
    NStepQ,
    /// The values of actions, from the best that can follow.
    OneStepQ,
    /// The values of actions, from what did follow.
    OneStepSarsa,
}

/// How the threads of Q-learning explore: by a law from which each draws an ε of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exploration {
    /// Where a thread's ε ends: one of these …
    pub ends: Vec<f64>,
    /// … each with this probability.
    pub probabilities: Vec<f64>,
    /// Agent steps, of all threads together, over which ε falls from 1 to there; 0: it is there from the start. The paper: four
    /// million frames, which are a million steps.
    pub anneal_steps: u64,
    /// Instead of all that: ε lies anywhere in `[low, high]`, equally likely, and is drawn again and again; empty: not.
    pub range: Vec<f64>,
    /// Agent steps, of all threads together, until each draws again from `range`.
    pub resample_steps: u64,
    /// ε of an evaluation that is not greedy.
    pub evaluation: f64,
}

impl Default for Exploration {
    fn default() -> Self {
        Self {
            ends: vec![0.1, 0.01, 0.5],
            probabilities: vec![0.4, 0.3, 0.3],
            anneal_steps: 1_000_000,
            range: vec![],
            resample_steps: 10_000,
            evaluation: 0.01,
        }
    }
}

impl Exploration {
    /// Whether ε is drawn again and again, rather than once.
    pub fn resampled(&self) -> bool {
        !self.range.is_empty()
    }

    /// A draw.
    pub fn draw(&self, rng: &mut Rng) -> f64 {
        let mut u = rng.random::<f64>();
        if let [low, high] = self.range[..] {
            return low + (high - low) * u;
        }
        for (end, p) in self.ends.iter().zip(&self.probabilities) {
            if u < *p {
                return *end;
            }
            u -= p;
        }
        *self.ends.last().expect("one at least")
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::config(format!("[a3c.exploration]: {what}")));
        for values in [&self.ends, &self.probabilities, &self.range, &vec![self.evaluation]] {
            if let Some(value) = values.iter().find(|v| !(0.0..=1.0).contains(*v)) {
                return wrong(&format!("{value} must lie between 0 and 1"));
            }
        }
        match self {
            e if e.ends.is_empty() || e.ends.len() != e.probabilities.len() => {
                wrong("`ends` needs one value or more, and `probabilities` as many")
            }
            e if (e.probabilities.iter().sum::<f64>() - 1.0).abs() > 1e-6 => wrong("`probabilities` must sum to 1"),
            e if ![0, 2].contains(&e.range.len()) || e.range.first() > e.range.last() => {
                wrong("`range` is [low, high], or [] for none")
            }
            e if e.resample_steps == 0 => wrong("`resample_steps` must be at least 1"),
            _ => Ok(()),
        }
    }
}

/// The `[a3c]` section. Defaults: the paper, with what its first author wrote about it since (github.com/muupan/async-rl/wiki).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is learned: `actor_critic`, `n_step_q`, `one_step_q` or `one_step_sarsa`.
    pub method: Method,
    /// Actor-learners, each a thread with an equal share of `env.num_envs` environments; 0: one for each environment, as
    /// published.
    pub num_threads: usize,
    /// Steps of each environment between two updates, and so the longest return.
    pub rollout_steps: usize,
    /// Discount of rewards per agent step.
    pub gamma: f64,
    /// λ of generalized advantage estimation (not in the paper); 1: plain n-step returns. An actor-critic's, as are the next
    /// two weights.
    pub gae_lambda: f64,
    /// Learning rate at the start. The paper searched between 1e-4 and 1e-2; 7e-4 was best over all games.
    pub learning_rate: f64,
    /// Agent steps, of all threads together, over which the learning rate falls linearly to 0; 0: over the whole run.
    pub anneal_steps: u64,
    /// Weight of the policy's entropy.
    pub entropy_coefficient: f64,
    /// What is left of that weight once the learning rate has fallen, as a share of its start: 1: all, as published; less: it
    /// falls along, so that a policy that has stopped searching plays as well as it can.
    pub entropy_floor: f64,
    /// Weight of the squared error of the value: the paper's half of a half.
    pub value_coefficient: f64,
    /// Whether the loss sums over a rollout's steps, as published, or averages over them.
    pub sum_over_time: bool,
    /// The global norm above which a gradient is scaled down; 0: never.
    pub gradient_clip: f64,
    /// Agent steps, of all threads together, between two renewals of Q-learning's target parameters.
    pub target_update_interval: u64,
    /// How Q-learning explores.
    pub exploration: Exploration,
    /// How the threads share parameters: `lock` (a stripe at a time) or `atomic` (lock-free).
    pub sharing: Sharing,
    /// Whether RMSProp's statistics are shared as the parameters are (the paper's best), or each thread keeps its own.
    pub shared_statistics: bool,
    /// The optimizer: RMSProp without a mean, ε inside the root, statistics from 0.
    pub optimizer: OptimizerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            method: Method::default(),
            num_threads: 0,
            rollout_steps: 5,
            gamma: 0.99,
            gae_lambda: 1.0,
            learning_rate: 7e-4,
            anneal_steps: 0,
            entropy_coefficient: 0.01,
            entropy_floor: 1.0,
            value_coefficient: 0.25,
            sum_over_time: true,
            gradient_clip: 40.0,
            target_update_interval: 10_000, // 40,000 frames
            exploration: Exploration::default(),
            sharing: Sharing::default(),
            shared_statistics: true,
            optimizer: RmsProp { initial_square: 0.0, ..RmsProp::tensorflow() }.into(),
        }
    }
}

impl Config {
    /// The section `table`: what it does not name is as in [`Config::default`], and of another optimizer rule as published.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) for an unknown key, or a value that cannot work.
    pub fn from_table(table: &toml::Table) -> Result<Self> {
        let default = Self::default();
        let config: Self =
            parse_section_over("a3c", table, &Self { optimizer: default.optimizer.clone().over(table), ..default })?;
        config.check()?;
        Ok(config)
    }

    /// Its part of the loss.
    pub fn objective(&self) -> Objective {
        Objective {
            gae_lambda: self.gae_lambda,
            entropy_coefficient: self.entropy_coefficient,
            value_coefficient: self.value_coefficient,
            sum_over_time: self.sum_over_time,
            normalize_advantage: false,
        }
    }

    /// The learning rate, by agent steps of all threads together.
    pub fn learning_rate(&self) -> Schedule {
        Schedule::linear(self.learning_rate, 0.0, self.anneal_steps)
    }

    /// Whether Q-learning's target parameters are renewed on the way from `before` to `after` steps of all threads together.
    pub fn renews_target(&self, before: u64, after: u64) -> bool {
        after / self.target_update_interval > before / self.target_update_interval
    }

    /// The weight of the policy's entropy, by agent steps.
    pub fn entropy(&self) -> Schedule {
        Schedule::linear(self.entropy_coefficient, self.entropy_coefficient * self.entropy_floor, self.anneal_steps)
    }

    /// How many actor-learners there are for `envs` environments.
    ///
    /// # Errors
    /// [`Error::Config`] where the environments cannot be shared out evenly.
    pub fn threads(&self, envs: usize) -> Result<usize> {
        let threads = if self.num_threads == 0 { envs } else { self.num_threads };
        match envs % threads {
            0 => Ok(threads),
            _ => Err(Error::config(format!(
                "[a3c]: `num_threads` = {threads} cannot share {envs} environments evenly: set env.num_envs to a multiple of it"
            ))),
        }
    }

    /// Refuses values that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key and its bounds.
    pub fn check(&self) -> Result<()> {
        check_counts(
            "a3c",
            &[("rollout_steps", self.rollout_steps as u64), ("target_update_interval", self.target_update_interval)],
        )?;
        self.exploration.check()?;
        check_shares(
            "a3c",
            &[("gamma", self.gamma), ("gae_lambda", self.gae_lambda), ("entropy_floor", self.entropy_floor)],
        )?;
        self.optimizer.check("a3c")?;
        check_sizes(
            "a3c",
            &[
                ("learning_rate", self.learning_rate),
                ("entropy_coefficient", self.entropy_coefficient),
                ("value_coefficient", self.value_coefficient),
                ("gradient_clip", self.gradient_clip),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Learning rate, entropy's weight and the renewals of the target by step.
    #[test]
    fn clocks_by_step() {
        let config = Config {
            learning_rate: 0.4,
            anneal_steps: 100,
            entropy_coefficient: 0.02,
            entropy_floor: 0.5,
            target_update_interval: 40,
            ..Config::default()
        };
        for (step, rate, entropy) in [(0, 0.4, 0.02), (50, 0.2, 0.015), (100, 0.0, 0.01), (150, 0.0, 0.01)] {
            let found = (config.learning_rate().at(step), config.entropy().at(step));
            assert!((found.0 - rate).abs() < 1e-12 && (found.1 - entropy).abs() < 1e-12, "{step}: {found:?}");
        }
        let renewals: Vec<u64> = (1..=130).filter(|&step| config.renews_target(step - 1, step)).collect();
        assert_eq!(renewals, [40, 80, 120]);
        assert!(config.renews_target(35, 45) && !config.renews_target(40, 79));
    }

    /// The paper anneals ε over four million frames, which are a million steps.
    #[test]
    fn exploration_is_the_papers() {
        let e = Exploration::default();
        assert_eq!(
            (e.anneal_steps, &e.ends[..], &e.probabilities[..]),
            (1_000_000, &[0.1, 0.01, 0.5][..], &[0.4, 0.3, 0.3][..])
        );
    }
}
