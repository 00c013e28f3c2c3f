//! The update of PPO, testable without an environment.

use crate::Config;
use playfield_actor_critic::{Actor, Targets, check_norms, index_tensor, normalize, sampled};
use playfield_core::group;
use playfield_core::rng::Rng;
use playfield_core::{EnvSpec, Group, Persist, Result, Rollout, Snapshot, rng};
use playfield_losses::policy_gradient as pg;
use playfield_nn::observations::upload;
use playfield_nn::optim::Optimizer;
use playfield_nn::{ActorCritic, EvaluatedActions};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// The actor-critic and its optimizer.
#[derive(Debug)]
pub struct Learner {
    /// The policy in training.
    pub actor: Actor,
    config: Config,
    optimizer: Optimizer,
    /// The learning rate, where it adapts to the KL divergence.
    adapted_rate: f64,
    /// The order of the minibatches.
    rng: Rng,
}

/// The inputs of the loss that do not depend on the network in training, `[5, n]`: advantages, returns, log-probabilities of the actions under
/// the policy that acted, values at the time of acting, and 0 where a wrapper replaced the action, else 1.
struct Transitions(Tensor);

/// The updates from one rollout.
#[derive(Debug)]
pub struct Update {
    /// One row of [`TERMS`] for each minibatch, `[minibatches, 6]`.
    terms: Tensor,
    gradient_norms: Vec<f64>,
    /// The mean standard deviation of a Gaussian policy.
    std: Option<Tensor>,
    values: Tensor,
    returns: Tensor,
    learning_rate: f64,
    clip_range: f64,
    updates: u64,
}

/// The columns of [`Update::terms`].
const TERMS: [&str; 6] = [
    "train/loss",
    "train/policy_gradient_loss",
    "train/value_loss",
    "train/entropy_loss",
    "train/approx_kl",
    "train/clip_fraction",
];

/// The column of the KL divergence.
const KL: usize = 4;

impl Update {
    /// As metrics. The losses, the KL divergence, the clip fraction and the gradient's norm are means over the minibatches.
    pub fn report(&self) -> Vec<(&'static str, f64)> {
        let means = self.terms.mean_dim(0, false, Kind::Float);
        let mut row: Vec<_> = (0..).zip(TERMS).map(|(i, tag)| (tag, means.double_value(&[i]))).collect();
        if !self.gradient_norms.is_empty() {
            row.push(("train/grad_norm", self.gradient_norms.iter().sum::<f64>() / self.gradient_norms.len() as f64));
        }
        row.extend(self.std.as_ref().map(|std| ("train/std", std.double_value(&[]))));
        row.extend([
            ("train/explained_variance", pg::explained_variance(&self.values, &self.returns)),
            ("train/learning_rate", self.learning_rate),
            ("train/clip_range", self.clip_range),
            ("train/n_updates", self.updates as f64),
        ]);
        row
    }
}

impl Transitions {
    /// The transitions of `rollout` with their `targets`.
    fn new(rollout: &Rollout, targets: &Targets, device: Device) -> Self {
        let row = |v: &[f32]| upload(&Tensor::from_slice(v), device);
        let [advantages, returns] = [&targets.advantages, &targets.returns].map(|t| t.flatten(0, 1));
        let [log_probs, values] = [rollout.log_probs(), rollout.values()].map(row);
        Self(Tensor::stack(&[advantages, returns, log_probs, values, row(&sampled(rollout))], 0))
    }

    /// The five rows at the transitions `indices`, `[indices]` each.
    fn select(&self, indices: &[usize]) -> [Tensor; 5] {
        let rows = self.0.index_select(1, &index_tensor(indices, self.0.device()));
        rows.unbind(0).try_into().expect("five rows")
    }
}

/// The [`TERMS`] of an update, a scalar each, at agent step `step`, from the `evaluated` actions, those that were executed (Schulman et al.
/// 2017, equation 9). Advantages are normalized over the minibatches of all ranks of `group`.
fn loss(
    config: &Config,
    step: u64,
    [mut advantages, returns, log_probs, old_values, sampled]: [Tensor; 5],
    evaluated: &EvaluatedActions,
    group: &dyn Group,
) -> Result<[Tensor; 6]> {
    let clip_range = config.clip_range.at(step);
    let log_ratio = (&evaluated.log_probs - log_probs) * &sampled;
    if config.normalize_advantage {
        advantages = normalize(&advantages, group)?;
    }
    let policy_loss = pg::clipped_policy_loss(&log_ratio, &(advantages * &sampled), clip_range);
    let value_loss = match config.value_clip_range {
        0.0 => pg::value_loss(&evaluated.values, &returns),
        range => pg::clipped_value_loss(&evaluated.values, &old_values, &returns, range),
    };
    let entropy_loss = -evaluated.entropies.mean(Kind::Float);
    let loss =
        &policy_loss + &entropy_loss * config.entropy_coefficient.at(step) + &value_loss * config.value_coefficient;
    // Replaced actions have the ratio 1, and do not count.
    let share = sampled.mean(Kind::Float).clamp_min(f64::from(f32::EPSILON));
    let [kl, clipped] = [pg::approximate_kl(&log_ratio), pg::clip_fraction(&log_ratio, clip_range)].map(|t| t / &share);
    Ok([loss, policy_loss, value_loss, entropy_loss, kl, clipped])
}

impl Learner {
    /// A learner with a new network, for `n` environments of `spec`. `config` is resolved.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) where network, observation and device don't fit.
    pub fn new(config: &Config, spec: &EnvSpec, n: usize, seed: u64) -> Result<Self> {
        let mut net = ActorCritic::new(&config.network, spec, &config.device, &mut rng::stream(seed, "ppo/init"))?;
        net.set_num_threads(config.num_threads);
        let optimizer = Optimizer::new(config.optimizer.clone(), &net.params).with_num_threads(config.num_threads);
        let actor = Actor::new(net, n, rng::stream(seed, "ppo/actions")).with_rollout(spec, n, config.rollout_steps)?;
        let (adapted_rate, rng) = (config.learning_rate.start.clamp(1e-6, 1e-2), rng::stream(seed, "ppo/minibatches"));
        Ok(Self { actor, config: config.clone(), optimizer, adapted_rate, rng })
    }

    /// Updates the parameters from a full rollout, a minibatch at a time; schedules are read at agent step `step`.
    ///
    /// # Errors
    /// [`Error::Diverged`](playfield_core::Error::Diverged) where a gradient is not finite; the parameters stay as they were before
    /// that minibatch. On a device other than the CPU the minibatches after it change them.
    pub fn update(&mut self, rollout: &Rollout, step: u64) -> Result<Update> {
        let config = &self.config;
        let learning_rate =
            if config.learning_rate_target_kl > 0.0 { self.adapted_rate } else { config.learning_rate.at(step) };
        let bootstrap = self.actor.bootstrap(rollout);
        let values =
            upload(&Tensor::from_slice(rollout.values()), bootstrap.device()).view([-1, rollout.envs() as i64]);
        let targets = Targets::new(rollout, &values, &bootstrap, config.gae_lambda);
        let transitions = Transitions::new(rollout, &targets, bootstrap.device());

        let (mut terms, mut gradient_norms, mut last_epoch) = (Vec::new(), Vec::new(), 0);
        'epochs: for _ in 0..config.epochs {
            last_epoch = terms.len();
            let minibatches = match self.actor.net.is_recurrent() {
                true => rollout.sequence_minibatches(config.minibatch_size, &mut self.rng),
                false => rollout.minibatches(config.minibatch_size, &mut self.rng),
            };
            for indices in minibatches {
                let (evaluated, indices) = self.actor.evaluate_minibatch(rollout, indices);
                if indices.is_empty() {
                    continue;
                }
                let group = self.actor.group();
                let losses = loss(config, step, transitions.select(&indices), &evaluated, group)?;
                terms.push(Tensor::stack(&losses, 0).detach());
                if config.target_kl > 0.0 && group.mean(losses[KL].double_value(&[]))? > 1.5 * config.target_kl {
                    break 'epochs;
                }
                self.actor.net.backward(&losses[0]);
                gradient_norms.push(self.actor.step(&mut self.optimizer, learning_rate, config.gradient_clip)?);
            }
        }
        self.actor.next_rollout();
        if config.learning_rate_target_kl > 0.0 {
            let kl = Tensor::stack(&terms[last_epoch..], 0).mean_dim(0, false, Kind::Float).double_value(&[KL as i64]);
            let kl = self.actor.group().mean(kl)?;
            self.adapted_rate = adapt_learning_rate(learning_rate, kl, config.learning_rate_target_kl);
        }
        let evaluated = rollout.transitions().unwrap_or_else(|| (0..rollout.len()).collect());
        let [_, returns, _, values, _] = transitions.select(&evaluated);
        Ok(Update {
            terms: Tensor::stack(&terms, 0),
            gradient_norms: check_norms(&gradient_norms, &self.optimizer)?,
            std: self.actor.net.mean_std(),
            values,
            returns,
            learning_rate,
            clip_range: config.clip_range.at(step),
            updates: self.updates(),
        })
    }

    /// Makes this the learner of one rank of `group`: see [`Actor::join`].
    ///
    /// # Errors
    /// As that. [`Error::Config`](playfield_core::Error::Config) where the exchange shall overlap.
    pub fn join(&mut self, group: &Arc<dyn Group>, exchange: group::Config) -> Result<()> {
        exchange.refuse_overlap(&**group)?;
        self.actor.join(&mut self.optimizer, group, exchange)
    }

    /// Gradient steps so far.
    pub fn updates(&self) -> u64 {
        self.optimizer.updates()
    }

    /// Restores what [`save`](Persist::save) wrote. `with_state`: see [`Actor::load_acting_state`].
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where it is of another network.
    pub fn load(&mut self, snapshot: &Snapshot, with_state: bool) -> Result<()> {
        self.actor.load_training_state(&mut self.optimizer, snapshot, with_state)?;
        self.adapted_rate = snapshot.get("ppo.learning_rate")?;
        self.rng = snapshot.get("ppo.rng")?;
        Ok(())
    }
}

/// The learning rate of the next rollout, where the KL divergence of this one was `kl` nats and `target` is wanted (thresholds, factor
/// and bounds: rl_games' adaptive scheduler).
fn adapt_learning_rate(learning_rate: f64, kl: f64, target: f64) -> f64 {
    match kl {
        kl if kl > 2.0 * target => (learning_rate / 1.5).max(1e-6),
        kl if kl < target / 2.0 => (learning_rate * 1.5).min(1e-2),
        _ => learning_rate,
    }
}

/// Everything that an exact resume needs: parameters, optimizer, recurrent state, random streams, learning rate.
impl Persist for Learner {
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.actor.save_training_state(&mut self.optimizer, snapshot)?;
        snapshot.put("ppo.learning_rate", &self.adapted_rate);
        snapshot.put("ppo.rng", &self.rng);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_follows_the_kl_divergence() {
        assert_eq!(adapt_learning_rate(3.0, 0.021, 0.01), 2.0);
        assert_eq!(adapt_learning_rate(2.0e-3, 0.004, 0.01), 3.0e-3);
        assert_eq!(adapt_learning_rate(2e-4, 0.02, 0.01), 2e-4);
        assert_eq!(adapt_learning_rate(2e-4, 0.005, 0.01), 2e-4);
        assert_eq!([adapt_learning_rate(1e-6, 1.0, 0.01), adapt_learning_rate(9e-3, 0.0, 0.01)], [1e-6, 1e-2]);
    }
}
