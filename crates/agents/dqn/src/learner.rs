//! The update of DQN and its family, testable without an environment.

use crate::config::{Config, Distribution, Loss};
use playfield_core::rng::{self, Rng};
use playfield_core::{EnvSpec, Result, Snapshot};
use playfield_losses::{distributional, q_learning as ql};
use playfield_nn::optim::Optimizer;
use playfield_nn::params::to_vec;
use playfield_nn::{NetworkConfig, QNetwork};
use playfield_replay::Transitions;
use tch::{Device, Kind, Tensor, no_grad};

/// The online network, its target, the optimiser and the random stream.
#[derive(Debug)]
pub struct Learner {
    config: Config,
    online: QNetwork,
    target: QNetwork,
    optimizer: Optimizer,
    values: Values,
    /// Of noisy layers.
    rng: Rng,
}

/// How the numbers of an action become its value: they are its value, its quantiles, or the logits of its atoms.
#[derive(Debug)]
pub struct Values {
    support: Option<Tensor>,
}

impl Values {
    fn new(config: &Config, device: Device) -> Self {
        let atoms = || distributional::support(config.value_min, config.value_max, config.atoms, device);
        Self { support: (config.distribution == Distribution::Categorical).then(atoms) }
    }

    /// The mean of each action's distribution. `[n, actions, atoms]` → `[n, actions]`.
    pub fn mean(&self, z: &Tensor) -> Tensor {
        match &self.support {
            Some(support) => (z.softmax(-1, Kind::Float) * support).sum_dim_intlist(-1, false, Kind::Float),
            None => z.mean_dim([-1_i64].as_slice(), false, Kind::Float),
        }
    }
}

/// What one update yields.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// What was minimised.
    pub loss: f64,
    /// Mean value of the actions in the batch.
    pub q_mean: f64,
    /// Each transition's error: δ, or the loss of a distribution. Priorities are made of their sizes.
    pub errors: Vec<f32>,
    /// The gradient's global norm before clipping.
    pub grad_norm: f64,
}

impl Learner {
    /// A learner with a fresh network.
    ///
    /// # Errors
    /// [`Error::Config`] where network, observation, actions and device don't fit.
    pub fn new(config: Config, network: &NetworkConfig, spec: &EnvSpec, device: &str, seed: u64) -> Result<Self> {
        let online = QNetwork::new(network, config.network(), spec, device, &mut rng::stream(seed, "dqn/init"))?;
        let target = online.duplicate();
        let optimizer = Optimizer::new(config.optimizer.clone(), &online.params);
        let values = Values::new(&config, online.params.master().device());
        Ok(Self { config, online, target, optimizer, values, rng: rng::stream(seed, "dqn/noise") })
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The network that learns.
    pub fn online(&self) -> &QNetwork {
        &self.online
    }

    /// How its numbers become values.
    pub fn values(&self) -> Values {
        Values::new(&self.config, self.online.params.master().device())
    }

    /// Learns from a batch of transitions, each weighted (1 where they were drawn uniformly).
    pub fn update(&mut self, batch: &Transitions, weights: &[f32]) -> Losses {
        let n = batch.len();
        let device = self.online.params.master().device();
        let tensor = |v: &[f32]| Tensor::from_slice(v).to_device(device);
        let (r_t, discount_t, weights) = (tensor(&batch.r_t), tensor(&batch.discount_t), tensor(weights));
        let a_tm1 = Tensor::from_slice(&batch.a_tm1).to_device(device);
        if self.config.noisy_sigma > 0.0 {
            self.online.draw_noise(&mut self.rng);
            self.target.draw_noise(&mut self.rng);
        }

        // Values (or distributions) by the target network, and by the network that chooses the next action.
        let (z_t, selector) = no_grad(|| {
            let z_t = self.target.forward(batch.s_t.as_ref(), n);
            let selector = match self.config.double {
                true => {
                    let z = self.online.forward(batch.s_t.as_ref(), n);
                    self.values.mean(&z)
                }
                false => self.values.mean(&z_t),
            };
            (z_t, selector)
        });
        let z_tm1 = self.online.forward(batch.s_tm1.as_ref(), n);
        let q_tm1 = ql::chosen(&self.values.mean(&z_tm1), &a_tm1);
        let best = selector.argmax(1, false);

        let (losses, errors) = match (self.config.distribution, &self.values.support) {
            (Distribution::Categorical, Some(support)) => {
                let p_t = chosen(&z_t, &best).softmax(-1, Kind::Float);
                let target = distributional::project(&r_t, &discount_t, &p_t, support);
                let losses = distributional::cross_entropy(&chosen(&z_tm1, &a_tm1), &target);
                (losses.shallow_clone(), losses)
            }
            (Distribution::Quantile, _) => {
                let target = r_t.unsqueeze(1) + discount_t.unsqueeze(1) * chosen(&z_t, &best);
                let losses = distributional::quantile_huber(&chosen(&z_tm1, &a_tm1), &target, self.config.huber_bound);
                (losses.shallow_clone(), losses)
            }
            _ => {
                let error = ql::q_target(&r_t, &discount_t, &self.values.mean(&z_t), &selector) - &q_tm1;
                let losses = match self.config.loss {
                    Loss::Huber => ql::huber(&error, self.config.huber_bound),
                    Loss::Squared => ql::squared(&error),
                };
                (losses, error)
            }
        };
        let scale = if self.config.sum_over_batch { n as f64 } else { 1.0 };
        let loss = ql::weighted_mean(&losses, &weights) * scale;
        self.online.params.backward(&loss);
        let (rate, clip) = (self.config.learning_rate, self.config.max_grad_norm);
        let grad_norm = self.optimizer.step(&mut self.online.params, rate, clip);
        Losses {
            loss: loss.double_value(&[]),
            q_mean: q_tm1.mean(Kind::Float).double_value(&[]),
            errors: to_vec(&errors.detach()),
            grad_norm,
        }
    }

    /// Moves the target network to the online one, all the way or by the configured rate.
    pub fn update_target(&mut self) {
        self.target.params.approach(&self.online.params, self.config.target_rate);
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.optimizer.updates()
    }

    /// Writes everything that going on needs: both networks, the optimiser, the random stream.
    pub fn save_all(&self, snapshot: &mut Snapshot) {
        self.online.params.save(snapshot);
        let target = self.target.params.named(self.target.params.master());
        snapshot.arrays.extend(target.into_iter().map(|(name, array)| (format!("target.{name}"), array)));
        self.optimizer.save(&self.online.params, snapshot);
        snapshot.put("dqn.rng", &self.rng);
    }

    /// Takes what [`save_all`](Self::save_all) wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is another network's.
    pub fn load_all(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.load(snapshot)?;
        let arrays = snapshot.arrays.iter();
        let named = arrays.filter_map(|(k, v)| Some((k.strip_prefix("target.")?.to_string(), v.clone()))).collect();
        let master = self.target.params.master().shallow_clone();
        self.target.params.load_named(&named, &master)?;
        self.target.params.updated();
        self.optimizer.load(&self.online.params, snapshot)?;
        self.rng = snapshot.get("dqn.rng")?;
        Ok(())
    }

    /// Takes the parameters of `snapshot`: all that playing needs.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where they are another network's.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.online.params.load(snapshot)
    }
}

/// The numbers of one action per row. `z` `[n, actions, atoms]`, `actions` `[n]` → `[n, atoms]`.
fn chosen(z: &Tensor, actions: &Tensor) -> Tensor {
    let atoms = z.size()[2];
    z.gather(1, &actions.view([-1, 1, 1]).expand([-1, 1, atoms], false), false).squeeze_dim(1)
}
