use playfield_actor_critic::Objective;
use playfield_core::algorithm::{check_counts, check_shares, check_sizes, parse_section_over};
use playfield_core::{Result, Schedule};
use playfield_nn::optim::{OptimizerConfig, RmsProp};
use serde::{Deserialize, Serialize};

/// The `[paac]` section. Defaults: the authors' repository (github.com/Alfredvc/paac).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Steps of each environment between two updates, and so the longest return.
    pub rollout_steps: usize,
    /// Discount of rewards per agent step.
    pub gamma: f64,
    /// λ of generalized advantage estimation; 1: plain n-step returns, as published.
    pub gae_lambda: f64,
    /// Learning rate at the start: the authors use 7e-4 per environment, times 32.
    pub learning_rate: f64,
    /// Agent steps over which the learning rate falls linearly to 0; 0: over the whole run.
    pub anneal_steps: u64,
    /// Where the learning rate stops falling, as a share of its start (0: at nothing, as published).
    pub learning_rate_floor: f64,
    /// Weight of the policy's entropy. The paper: .01.
    pub entropy_coefficient: f64,
    /// What is left of that weight once the learning rate has fallen, as a share of its start: 1: all, as published; less: it
    /// falls along, so that a policy that has stopped searching plays as well as it can.
    pub entropy_floor: f64,
    /// Weight of the squared error of the value.
    pub value_coefficient: f64,
    /// Whether the loss sums over a rollout's steps (and averages over environments), as the authors' does, or averages
    /// over both.
    pub sum_over_time: bool,
    /// The global norm above which a gradient is scaled down; 0: never. The paper: 40.
    pub gradient_clip: f64,
    /// Whether advantages are scaled to mean 0 and deviation 1 over a batch (not in the paper).
    pub normalize_advantage: bool,
    /// Threads among which a convolving network shares the rows of a batch out, on the processor; 0: one per core.
    pub num_threads: usize,
    /// The optimizer: RMSProp as TensorFlow has it.
    pub optimizer: OptimizerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rollout_steps: 5,
            gamma: 0.99,
            gae_lambda: 1.0,
            learning_rate: 0.0224,
            anneal_steps: 0,
            learning_rate_floor: 0.0,
            entropy_coefficient: 0.02,
            entropy_floor: 1.0,
            value_coefficient: 0.25,
            sum_over_time: true,
            gradient_clip: 3.0,
            normalize_advantage: false,
            num_threads: 0,
            optimizer: RmsProp::tensorflow().into(),
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
            parse_section_over("paac", table, &Self { optimizer: default.optimizer.clone().over(table), ..default })?;
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
            normalize_advantage: self.normalize_advantage,
        }
    }

    /// The learning rate, by agent steps, in a run of `steps`.
    pub fn learning_rate(&self, steps: u64) -> Schedule {
        Schedule::linear(self.learning_rate, self.learning_rate * self.learning_rate_floor, self.horizon(steps))
    }

    /// The weight of the policy's entropy, by agent steps, in a run of `steps`.
    pub fn entropy(&self, steps: u64) -> Schedule {
        let start = self.entropy_coefficient;
        Schedule::linear(start, start * self.entropy_floor, self.horizon(steps))
    }

    fn horizon(&self, steps: u64) -> u64 {
        if self.anneal_steps == 0 { steps } else { self.anneal_steps }
    }

    /// How many threads share the rows of a batch.
    pub fn threads(&self) -> usize {
        if self.num_threads == 0 {
            std::thread::available_parallelism().map_or(1, usize::from)
        } else {
            self.num_threads
        }
    }

    /// Refuses values that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key and its bounds.
    pub fn check(&self) -> Result<()> {
        check_counts("paac", &[("rollout_steps", self.rollout_steps as u64)])?;
        check_shares(
            "paac",
            &[
                ("gamma", self.gamma),
                ("gae_lambda", self.gae_lambda),
                ("learning_rate_floor", self.learning_rate_floor),
                ("entropy_floor", self.entropy_floor),
            ],
        )?;
        self.optimizer.check("paac")?;
        check_sizes(
            "paac",
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

    /// Learning rate and entropy's weight by step: lines to their floors at the end of the run, or after `anneal_steps`.
    #[test]
    fn schedules_by_step() {
        let config = Config {
            learning_rate: 0.4,
            learning_rate_floor: 0.25,
            entropy_coefficient: 0.02,
            entropy_floor: 0.0,
            ..Config::default()
        };
        let at = |config: &Config, step| (config.learning_rate(100).at(step), config.entropy(100).at(step));
        let short = Config { anneal_steps: 40, ..config.clone() };
        for (config, step, rate, entropy) in [
            (&config, 0, 0.4, 0.02),
            (&config, 50, 0.25, 0.01),
            (&config, 100, 0.1, 0.0),
            (&short, 20, 0.25, 0.01),
            (&short, 40, 0.1, 0.0),
            (&short, 90, 0.1, 0.0),
        ] {
            let found = at(config, step);
            assert!((found.0 - rate).abs() < 1e-12 && (found.1 - entropy).abs() < 1e-12, "{step}: {found:?}");
        }
        assert_eq!(at(&Config::default(), 50), (0.0112, 0.02));
    }
}
