//! The update of PAAC, testable without an environment.

use crate::Config;
pub use crate::rollout::Rollout;
use playfield_core::rng::{self, Rng};
use playfield_core::{Actions, EnvSpec, Mode, Obs, ObsRef, Policy, Result, Snapshot};
use playfield_losses::{policy_gradient as pg, returns};
use playfield_nn::heads::Distribution;
use playfield_nn::optim::Optimizer;
use playfield_nn::params::to_vec;
use playfield_nn::{ActorCritic, NetworkConfig};
use rand::SeedableRng;
use tch::{Kind, no_grad};

/// The network, its optimiser and its random stream.
#[derive(Debug)]
pub struct Learner {
    config: Config,
    net: ActorCritic,
    optimizer: Optimizer,
    rng: Rng,
}

/// The parts of one update's loss, before weighting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// The whole, weighted.
    pub loss: f64,
    /// mean(−log π·A).
    pub policy_loss: f64,
    /// mean((G − V)²).
    pub value_loss: f64,
    /// −mean(H), as Stable-Baselines3 reports it.
    pub entropy_loss: f64,
    /// 1 − Var(G − V)/Var(G).
    pub explained_variance: f64,
    /// The gradient's global norm before clipping.
    pub grad_norm: f64,
}

impl Learner {
    /// A learner with a fresh network.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) where network, observation and device don't fit.
    pub fn new(config: Config, network: &NetworkConfig, spec: &EnvSpec, device: &str, seed: u64) -> Result<Self> {
        let net = ActorCritic::new(network, spec, device, &mut rng::stream(seed, "paac/init"))?;
        let optimizer = Optimizer::new(config.optimizer.clone(), &net.params);
        Ok(Self { config, net, optimizer, rng: rng::stream(seed, "paac/actions") })
    }

    /// The values of `n` observations.
    pub fn values(&mut self, obs: ObsRef<'_>, n: usize) -> Vec<f32> {
        to_vec(&no_grad(|| self.net.forward(obs, n).1))
    }

    /// Learns from a full rollout, at `learning_rate`; `last` are the `n` observations after its last step.
    pub fn update(&mut self, rollout: &Rollout, last: ObsRef<'_>, n: usize, learning_rate: f64) -> Losses {
        let c = &self.config;
        let device = self.net.params.master().device();
        let bootstrap = no_grad(|| self.net.forward(last, n).1);
        let (policy, value) = self.net.forward(rollout.observations(), rollout.capacity());
        let actions = rollout.actions().to_device(device);
        let (r_t, discount_t) = rollout.rewards();
        let (r_t, discount_t) = (r_t.to_device(device), discount_t.to_device(device));

        let v_tm1 = value.detach().view([-1, n as i64]);
        let advantage = match c.gae_lambda {
            1.0 => returns::n_step(&r_t, &discount_t, &bootstrap) - &v_tm1,
            lambda => returns::gae(&r_t, &discount_t, &v_tm1, &bootstrap, lambda),
        };
        let g = (&advantage + &v_tm1).flatten(0, 1);
        let mut advantage = advantage.flatten(0, 1);
        if c.normalise_advantage {
            advantage = (&advantage - advantage.mean(Kind::Float)) / (advantage.std(false) + 1e-8);
        }
        let (log_prob, entropy) = match &policy {
            Distribution::Categorical(logits) => {
                (pg::categorical_log_prob(logits, &actions), pg::categorical_entropy(logits).mean(Kind::Float))
            }
            Distribution::Gaussian { mean, log_std } => {
                (pg::gaussian_log_prob(mean, log_std, &actions), pg::gaussian_entropy(log_std))
            }
        };
        let policy_loss = pg::policy_loss(&log_prob, &advantage);
        let value_loss = pg::value_loss(&value, &g);
        let scale = if c.sum_over_time { c.t_max as f64 } else { 1.0 };
        let loss = (&policy_loss - &entropy * c.entropy_coefficient + &value_loss * c.value_coefficient) * scale;
        self.net.params.backward(&loss);
        let grad_norm = self.optimizer.step(&mut self.net.params, learning_rate, c.max_grad_norm);
        Losses {
            loss: loss.double_value(&[]),
            policy_loss: policy_loss.double_value(&[]),
            value_loss: value_loss.double_value(&[]),
            entropy_loss: -entropy.double_value(&[]),
            explained_variance: pg::explained_variance(&value.detach(), &g),
            grad_norm,
        }
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.optimizer.updates()
    }

    /// Writes everything that an exact resume needs: parameters, optimiser, random stream.
    pub fn save_all(&self, snapshot: &mut Snapshot) {
        self.net.params.save(snapshot);
        self.optimizer.save(&self.net.params, snapshot);
        snapshot.put("paac.rng", &self.rng);
    }

    /// Takes parameters, optimiser and random stream of `snapshot`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where they are another network's.
    pub fn load_all(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.load(snapshot)?;
        self.optimizer.load(&self.net.params, snapshot)?;
        self.rng = snapshot.get("paac.rng")?;
        Ok(())
    }

    /// Takes the parameters of `snapshot`: all that playing needs.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where they are another network's.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.net.params.load(snapshot)
    }
}

impl Policy for Learner {
    fn act(&mut self, obs: &Obs, mode: Mode, actions: &mut Actions) -> Result<()> {
        let (policy, _) = no_grad(|| self.net.forward(obs.as_ref(), actions.len()));
        policy.choose(mode, &mut self.rng, actions);
        Ok(())
    }

    fn seed(&mut self, seed: u64) {
        self.rng = Rng::seed_from_u64(seed);
    }
}
