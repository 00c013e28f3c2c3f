use playfield_actor_critic::Objective;
use playfield_core::algorithm::{check_counts, check_shares, check_size_schedules, check_sizes};
use playfield_core::rng::Rng;
use playfield_core::{Error, Result, Schedule};
use playfield_hogwild::Sharing;
use playfield_nn::NetworkConfig;
use playfield_nn::optim::{OptimizerConfig, RmsProp};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// The algorithm that the threads run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A policy and a state-value function: A3C.
    #[default]
    ActorCritic,
    /// Q-learning with returns over the rollout.
    NStepQ,
    /// Q-learning.
    OneStepQ,
    /// Sarsa.
    OneStepSarsa,
}

/// Exploration of the Q-learning methods: each thread has its own ε.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exploration {
    /// The final ε of a thread is sampled from these values …
    pub final_epsilons: Vec<f64>,
    /// … with these probabilities.
    pub probabilities: Vec<f64>,
    /// Agent steps, of all threads together, over which ε falls linearly from 1 to its final value; 0: ε is final from the start.
    /// The paper: four million frames, which are a million steps.
    pub anneal_steps: u64,
    /// Instead of annealing: ε is sampled uniformly from `[low, high]`, again and again; empty: off.
    pub range: Vec<f64>,
    /// Agent steps, of all threads together, between two samples from `range`.
    pub resample_steps: u64,
    /// ε of an evaluation that is not deterministic.
    pub evaluation: f64,
}

impl Default for Exploration {
    fn default() -> Self {
        Self {
            final_epsilons: vec![0.1, 0.01, 0.5],
            probabilities: vec![0.4, 0.3, 0.3],
            anneal_steps: 1_000_000,
            range: vec![],
            resample_steps: 10_000,
            evaluation: 0.01,
        }
    }
}

impl Exploration {
    /// Whether ε is sampled repeatedly, rather than once.
    pub fn resampled(&self) -> bool {
        !self.range.is_empty()
    }

    /// A sample of ε.
    pub fn sample(&self, rng: &mut Rng) -> f64 {
        let mut u = rng.random::<f64>();
        if let [low, high] = self.range[..] {
            return low + (high - low) * u;
        }
        for (end, p) in self.final_epsilons.iter().zip(&self.probabilities) {
            if u < *p {
                return *end;
            }
            u -= p;
        }
        *self.final_epsilons.last().expect("one at least")
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::config(format!("[a3c.exploration]: {what}")));
        for values in [&self.final_epsilons, &self.probabilities, &self.range, &vec![self.evaluation]] {
            if let Some(value) = values.iter().find(|v| !(0.0..=1.0).contains(*v)) {
                return wrong(&format!("{value} must lie between 0 and 1"));
            }
        }
        match self {
            e if e.final_epsilons.is_empty() || e.final_epsilons.len() != e.probabilities.len() => {
                wrong("`final_epsilons` needs one value or more, and `probabilities` as many")
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

/// The `[a3c]` section, and the network. Defaults: the paper, with what its first author wrote about it since
/// (github.com/muupan/async-rl/wiki).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `actor_critic`, `n_step_q`, `one_step_q` or `one_step_sarsa`.
    pub method: Method,
    /// Actor-learner threads, each with an equal number of the `env.num_envs` environments; 0: one thread for each environment, as
    /// published.
    pub num_threads: usize,
    /// Steps of each environment between two updates, and so the longest return.
    pub rollout_steps: usize,
    /// Discount of rewards per agent step.
    pub gamma: f64,
    /// λ of generalized advantage estimation (not in the paper); 1: n-step returns. Of the actor-critic, as are the next two
    /// coefficients.
    pub gae_lambda: f64,
    /// Learning rate by agent steps of all threads together: linear to 0 over the run. The paper sampled it between 1e-4 and
    /// 1e-2; 7e-4 was best over all games.
    pub learning_rate: Schedule,
    /// Weight of the policy's entropy, by agent steps of all threads together.
    pub entropy_coefficient: Schedule,
    /// Weight of the squared error of the value.
    pub value_coefficient: f64,
    /// Whether the loss sums over a rollout's steps, as published, or averages over them.
    pub sum_over_time: bool,
    /// The global norm above which a gradient is scaled down; 0: never.
    pub gradient_clip: f64,
    /// Agent steps, of all threads together, between two updates of Q-learning's target network.
    pub target_update_interval: u64,
    /// Exploration of the Q-learning methods.
    pub exploration: Exploration,
    /// How threads share parameters: `lock` (a stripe at a time) or `atomic` (lock-free).
    pub sharing: Sharing,
    /// Whether RMSProp's statistics are shared as the parameters are (the paper's best), or each thread keeps its own.
    pub shared_statistics: bool,
    /// The optimizer: RMSProp without a mean, ε inside the root, statistics from 0.
    pub optimizer: OptimizerConfig,
    /// The network.
    pub network: NetworkConfig,
    /// The device of the network: `cpu`, or `auto`, which means it.
    pub device: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            method: Method::default(),
            num_threads: 0,
            rollout_steps: 5,
            gamma: 0.99,
            gae_lambda: 1.0,
            learning_rate: Schedule::linear(7e-4, 0.0, 0),
            entropy_coefficient: Schedule::constant(0.01),
            value_coefficient: 0.25,
            sum_over_time: true,
            gradient_clip: 40.0,
            target_update_interval: 10_000, // 40,000 frames
            exploration: Exploration::default(),
            sharing: Sharing::default(),
            shared_statistics: true,
            optimizer: RmsProp { initial_square: 0.0, ..RmsProp::tensorflow() }.into(),
            network: NetworkConfig::default(),
            device: "auto".into(),
        }
    }
}

impl Config {
    /// The loss of the actor-critic, with the entropy coefficient at agent step `step`.
    pub fn objective(&self, step: u64) -> Objective {
        Objective {
            gae_lambda: self.gae_lambda,
            entropy_coefficient: self.entropy_coefficient.at(step),
            value_coefficient: self.value_coefficient,
            sum_over_time: self.sum_over_time,
            normalize_advantage: false,
        }
    }

    /// Whether Q-learning's target network is updated between `before` and `after` steps of all threads together.
    pub fn target_update_due(&self, before: u64, after: u64) -> bool {
        after / self.target_update_interval > before / self.target_update_interval
    }

    /// The number of actor-learners for `envs` environments.
    ///
    /// # Errors
    /// [`Error::Config`] where the environments cannot be divided evenly.
    pub fn threads(&self, envs: usize) -> Result<usize> {
        let threads = if self.num_threads == 0 { envs } else { self.num_threads };
        match envs % threads {
            0 => Ok(threads),
            _ => Err(Error::config(format!(
                "[a3c]: `num_threads` = {threads} cannot share {envs} environments evenly: set env.num_envs to a multiple of it"
            ))),
        }
    }

    /// Rejects values that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key and its bounds.
    pub fn check(&self) -> Result<()> {
        check_counts(
            "a3c",
            &[("rollout_steps", self.rollout_steps as u64), ("target_update_interval", self.target_update_interval)],
        )?;
        self.exploration.check()?;
        check_shares("a3c", &[("gamma", self.gamma), ("gae_lambda", self.gae_lambda)])?;
        check_size_schedules(
            "a3c",
            &[("learning_rate", self.learning_rate), ("entropy_coefficient", self.entropy_coefficient)],
        )?;
        check_sizes("a3c", &[("value_coefficient", self.value_coefficient), ("gradient_clip", self.gradient_clip)])?;
        self.optimizer.check("a3c")?;
        self.network.check()?;
        match self.device.as_str() {
            "auto" | "cpu" => Ok(()),
            other => Err(Error::config(format!(
                "device '{other}': the threads of a3c share parameters in the processor's memory. Use device 'cpu', or paac for a GPU"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_updates_by_step() {
        let config = Config { target_update_interval: 40, ..Config::default() };
        let updates: Vec<u64> = (1..=130).filter(|&step| config.target_update_due(step - 1, step)).collect();
        assert_eq!(updates, [40, 80, 120]);
        assert!(config.target_update_due(35, 45) && !config.target_update_due(40, 79));
    }

    /// The paper anneals ε over four million frames, which are a million steps.
    #[test]
    fn exploration_is_the_papers() {
        let e = Exploration::default();
        assert_eq!(
            (e.anneal_steps, &e.final_epsilons[..], &e.probabilities[..]),
            (1_000_000, &[0.1, 0.01, 0.5][..], &[0.4, 0.3, 0.3][..])
        );
    }
}
