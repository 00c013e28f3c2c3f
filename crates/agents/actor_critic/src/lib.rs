//! An actor with a critic: what the policy gradient algorithms (A3C, PAAC, PPO) share.
//!
//! All sample actions from a policy, store a [`Rollout`], and follow the gradient of a loss on it. [`Actor`] is the policy with its
//! recurrent state and random stream; [`Targets`] are advantages and returns; [`Objective`] is the loss of A3C and PAAC. How
//! environments, threads and parameters are arranged is each algorithm's own.

mod actor;

pub use actor::{Actor, check_norms};

use playfield_core::group::{Group, Reduce};
use playfield_core::{Result, Rollout};
use playfield_losses::{policy_gradient as pg, returns};
use playfield_nn::EvaluatedActions;
use playfield_nn::observations::upload;
use tch::{Device, Kind, Tensor};

/// How the parts of the loss are computed and weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// λ of generalized advantage estimation; 1: n-step returns.
    pub gae_lambda: f64,
    /// Weight of the policy's entropy.
    pub entropy_coefficient: f64,
    /// Weight of the squared error of the value.
    pub value_coefficient: f64,
    /// Whether the loss sums over a rollout's steps (and averages over environments) or averages over both.
    pub sum_over_time: bool,
    /// Whether advantages are normalized to mean 0 and standard deviation 1 over a batch.
    pub normalize_advantage: bool,
}

/// What a policy and a value function are fitted to, `[steps, envs]` each.
#[derive(Debug)]
pub struct Targets {
    /// Advantages of the actions taken.
    pub advantages: Tensor,
    /// Returns: advantages plus values.
    pub returns: Tensor,
}

/// The parts of one update's loss, before weighting: tensors, read only when they are reported.
#[derive(Debug)]
pub struct Losses {
    /// The weighted sum.
    pub loss: Tensor,
    /// mean(−log π·A).
    pub policy_loss: Tensor,
    /// mean((G − V)²).
    pub value_loss: Tensor,
    /// The mean entropy of the policy, in nats.
    pub entropy: Tensor,
    values: Tensor,
    returns: Tensor,
}

impl Losses {
    /// As metrics; the names are those of Stable-Baselines3, whose entropy loss is −entropy.
    pub fn report(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("train/loss", self.loss.double_value(&[])),
            ("train/policy_loss", self.policy_loss.double_value(&[])),
            ("train/value_loss", self.value_loss.double_value(&[])),
            ("train/entropy_loss", -self.entropy.double_value(&[])),
            ("train/explained_variance", pg::explained_variance(&self.values, &self.returns)),
        ]
    }
}

impl Targets {
    /// Advantages and returns of `rollout`: generalized advantage estimation with `gae_lambda` (1: n-step returns), from `values`
    /// `[steps, envs]` and the value of the last observations, `bootstrap` `[envs]`.
    pub fn new(rollout: &Rollout, values: &Tensor, bootstrap: &Tensor, gae_lambda: f64) -> Self {
        let by_time = |v: &[f32]| upload(&Tensor::from_slice(v), values.device()).view([-1, rollout.envs() as i64]);
        let (rewards, discounts) = (by_time(&rollout.bootstrapped_rewards()), by_time(rollout.discounts()));
        let advantages = match gae_lambda {
            1.0 => returns::n_step(&rewards, &discounts, bootstrap) - values,
            lambda => returns::gae(&rewards, &discounts, values, bootstrap, lambda),
        };
        Self { returns: &advantages + values, advantages }
    }
}

/// 1 for each action that was sampled from the policy, 0 where a wrapper executed another in its place, which must not
/// contribute to the policy gradient, `[steps · envs]`.
pub fn sampled(rollout: &Rollout) -> Vec<f32> {
    rollout.forced().iter().map(|&forced| if forced { 0.0 } else { 1.0 }).collect()
}

/// `advantages` `[n]` with mean 0 and standard deviation 1 over the batches of all ranks of `group`.
///
/// # Errors
/// [`Error::Group`](playfield_core::Error::Group).
pub fn normalize(advantages: &Tensor, group: &dyn Group) -> Result<Tensor> {
    if !group.is_distributed() {
        return Ok(pg::normalize(advantages));
    }
    let values = advantages.to_kind(Kind::Double);
    let sum = |t: &Tensor| t.sum(Kind::Double).double_value(&[]);
    let mut sums = [values.numel() as f64, sum(&values), sum(&values.square())];
    group.all_reduce(&mut sums, Reduce::Sum)?;
    let [n, first, second] = sums;
    let (mean, variance) = (first / n, second / n - (first / n).powi(2));
    Ok((advantages - mean) / (variance.max(0.0).sqrt() + 1e-8))
}

/// `indices` as a tensor on `device`.
pub fn index_tensor(indices: &[usize], device: Device) -> Tensor {
    let indices: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
    upload(&Tensor::from_slice(&indices), device)
}

impl Objective {
    /// The loss on the [transitions](Rollout::transitions) of `rollout`, from the `evaluated` actions of all its steps: this rank's part of
    /// the batch of `group`.
    ///
    /// # Errors
    /// [`Error::Group`](playfield_core::Error::Group).
    pub fn loss(
        &self,
        rollout: &Rollout,
        evaluated: EvaluatedActions,
        targets: &Targets,
        group: &dyn Group,
    ) -> Result<Losses> {
        let device = evaluated.values.device();
        let transitions = rollout.transitions().map(|indices| index_tensor(&indices, device));
        let select = |t: Tensor| match &transitions {
            Some(indices) => t.index_select(0, indices),
            None => t,
        };
        let [mut advantages, returns] = [&targets.advantages, &targets.returns].map(|t| select(t.flatten(0, 1)));
        let EvaluatedActions { log_probs, entropies, values } = evaluated;
        let [log_probs, entropies, values] = [log_probs, entropies, values].map(select);
        if self.normalize_advantage {
            advantages = normalize(&advantages, group)?;
        }
        if rollout.forced().contains(&true) {
            advantages *= select(upload(&Tensor::from_slice(&sampled(rollout)), device));
        }
        let entropy = entropies.mean(Kind::Float);
        let policy_loss = pg::policy_loss(&log_probs, &advantages);
        let value_loss = pg::value_loss(&values, &returns);
        let scale = if self.sum_over_time { rollout.steps() as f64 } else { 1.0 };
        let loss = (&policy_loss - &entropy * self.entropy_coefficient + &value_loss * self.value_coefficient) * scale;
        Ok(Losses { loss, policy_loss, value_loss, entropy, values: values.detach(), returns })
    }
}
