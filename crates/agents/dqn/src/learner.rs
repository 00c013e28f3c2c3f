//! The update of DQN and its family, testable without an environment.

use crate::config::{Config, Distribution, Loss};
use crossbeam::channel::{Receiver, Sender, bounded};
use playfield_core::rng::{self, Rng};
use playfield_core::{EnvSpec, Result, Snapshot};
use playfield_losses::{distributional, q_learning as ql};
use playfield_nn::QNetwork;
use playfield_nn::noisy_linear::Noise;
use playfield_nn::optim::Optimizer;
use playfield_nn::params::to_vec;
use playfield_replay::Transitions;
use std::ops::Range;
use std::thread;
use tch::{Device, Kind, Tensor, no_grad};

/// The online network, its target, the optimizer and the random stream.
#[derive(Debug)]
pub struct Learner {
    config: Config,
    /// Parts of a batch are worked on by threads of their own. The networks of all share their parameters.
    shards: Vec<Shard>,
    /// Where the last shard is worked on, if a [`Helper`] does that.
    lent: Option<(Sender<Option<Shard>>, Receiver<Shard>)>,
    optimizer: Optimizer,
    /// Of noisy layers.
    rng: Rng,
}

/// What one thread needs to work on its part of a batch. It owns all of it, so it can go to another thread and come back.
#[derive(Debug)]
struct Shard {
    config: Config,
    online: QNetwork,
    target: QNetwork,
    values: Values,
    rows: Range<usize>,
    batch: Transitions,
    weights: Vec<f32>,
    noise: BatchNoise,
    losses: Losses,
}

/// Noise of one update, the same for every element of the batch: independent samples for the online network, the target
/// network and, in double Q-learning, the selection of the next action (Fortunato et al. 2018, section 3.1 and appendix C).
#[derive(Clone, Debug, Default)]
struct BatchNoise {
    online: Vec<Noise>,
    target: Vec<Noise>,
    selector: Vec<Noise>,
}

impl BatchNoise {
    /// Of a network without noisy layers: nothing, and nothing is taken from `rng`.
    fn sample(network: &QNetwork, double: bool, rng: &mut Rng) -> Self {
        let (online, target) = (network.sample_noise(rng), network.sample_noise(rng));
        Self { online, target, selector: if double { network.sample_noise(rng) } else { Vec::new() } }
    }
}

/// Works on one part of every batch, on a thread that would wait otherwise.
#[derive(Debug)]
pub struct Helper {
    /// One for each update; nothing for one that is not made.
    jobs: Receiver<Option<Shard>>,
    done: Sender<Shard>,
}

impl Helper {
    /// Takes part in `updates` updates, and returns when its share in them is done, or the learner gone.
    pub fn help(&self, updates: u64) {
        for mut shard in self.jobs.iter().take(updates as usize).flatten() {
            shard.work();
            if self.done.send(shard).is_err() {
                return;
            }
        }
    }
}

/// How the numbers of an action become its value: they are its value, its quantiles, or the logits of its atoms.
#[derive(Debug)]
pub struct Values {
    support: Option<Tensor>,
}

impl Values {
    pub(crate) fn new(config: &Config, device: Device) -> Self {
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// What was minimized.
    pub loss: f64,
    /// Mean value of the actions in the batch.
    pub q_mean: f64,
    /// Each transition's error: δ, or the loss of a distribution. Priorities are made of their sizes.
    pub errors: Vec<f32>,
    /// The gradient's global norm before clipping; NaN where the loss was not finite and no step was made.
    pub grad_norm: f64,
}

impl Losses {
    /// Whether the update was made: neither loss nor gradient was infinite or NaN.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }
}

impl Learner {
    /// A learner with a fresh network.
    ///
    /// # Errors
    /// [`Error::Config`] where network, observation, actions and device don't fit.
    pub fn new(config: Config, spec: &EnvSpec, seed: u64) -> Result<Self> {
        let init = &mut rng::stream(seed, "dqn/init");
        let online = QNetwork::new(&config.network, config.heads(), spec, &config.device, init)?;
        let target = online.deep_clone();
        let optimizer = Optimizer::new(config.optimizer.clone(), &online.params);
        let device = online.params.master().device();
        // Batch norm is of the whole batch: rows that are normalized by it stay together.
        let separable = device == Device::Cpu && !online.uses_batch_statistics();
        let parts = config.parts(if separable { config.threads() } else { 1 });
        let shard = |online, target, rows: Range<usize>| Shard {
            values: Values::new(&config, device),
            batch: Transitions::new(spec, rows.len()),
            weights: vec![1.0; rows.len()],
            noise: BatchNoise::default(),
            losses: Losses::default(),
            config: config.clone(),
            online,
            target,
            rows,
        };
        let others: Vec<_> =
            parts[1..].iter().map(|rows| shard(online.share(), target.share(), rows.clone())).collect();
        let shards = [shard(online, target, parts[0].clone())].into_iter().chain(others).collect();
        Ok(Self { config, shards, lent: None, optimizer, rng: rng::stream(seed, "dqn/noise") })
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The network that learns.
    pub fn online(&self) -> &QNetwork {
        &self.shards[0].online
    }

    /// Someone to work on the last part of every batch from now on; `None` where there is but one part.
    pub fn lend(&mut self) -> Option<Helper> {
        (self.shards.len() > 1).then(|| {
            let ((to_helper, jobs), (done, from_helper)) = (bounded(1), bounded(1));
            self.lent = Some((to_helper, from_helper));
            Helper { jobs, done }
        })
    }

    /// Learns from a batch of transitions, if its loss and gradient are [finite](Losses::is_finite), each weighted (1 where they were drawn uniformly). `fill` is asked for some rows of
    /// the batch at a time.
    ///
    /// # Panics
    /// If a thread that worked on a part did, or the [`Helper`] is gone.
    pub fn update(
        &mut self,
        learning_rate: f64,
        mut fill: impl FnMut(Range<usize>, &mut Transitions, &mut [f32]),
    ) -> Losses {
        let Self { config, shards, lent, optimizer, rng } = self;
        let noise = BatchNoise::sample(&shards[0].online, config.double, rng);
        let mut away = None;
        // The last first: it has the longest way.
        for i in (0..shards.len()).rev() {
            let shard = &mut shards[i];
            fill(shard.rows.clone(), &mut shard.batch, &mut shard.weights);
            shard.noise = noise.clone();
            if let (None, Some((to_helper, _))) = (&away, &lent) {
                away = shards.pop().map(|shard| to_helper.send(Some(shard)).expect("a helper that is there"));
            }
        }
        thread::scope(|scope| {
            let (first, others) = shards.split_first_mut().expect("one at least");
            others.iter_mut().for_each(|shard| _ = scope.spawn(|| shard.work()));
            first.work();
        });
        if let (Some(_), Some((_, from_helper))) = (away, &lent) {
            shards.push(from_helper.recv().expect("a helper that is there"));
        }
        let (first, others) = shards.split_first_mut().expect("one at least");
        let losses_finite = others.iter().all(|s| s.losses.loss.is_finite());
        let others: Vec<_> = others.iter().map(|s| &s.online.params).collect();
        let (rate, clip) = (learning_rate, config.gradient_clip);
        // A clipped loss has a finite gradient even where it is NaN itself.
        let finite = first.losses.loss.is_finite() && losses_finite;
        let grad_norm =
            if finite { optimizer.step_with(&mut first.online.params, &others, rate, clip) } else { f64::NAN };
        let all = || self.shards.iter().map(|s| &s.losses);
        Losses {
            loss: all().map(|p| p.loss).sum(),
            q_mean: all().map(|p| p.q_mean).sum(),
            errors: all().flat_map(|p| &p.errors).copied().collect(),
            grad_norm,
        }
    }

    /// An update that was announced is not made.
    pub fn skip_update(&self) {
        if let Some((to_helper, _)) = &self.lent {
            // A helper that is gone waits for nothing.
            let _ = to_helper.send(None);
        }
    }

    /// Moves the target network the share `rate` of its way to the online one; 1 copies.
    pub fn update_target(&mut self, rate: f64) {
        let Shard { online, target, .. } = &mut self.shards[0];
        target.params.polyak_update(&online.params, rate);
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.optimizer.updates()
    }

    /// Writes everything that going on needs: both networks, the optimizer, the random stream.
    pub fn save_all(&self, snapshot: &mut Snapshot) {
        let Shard { online, target, .. } = &self.shards[0];
        online.params.save(snapshot);
        online.dispatch().save(snapshot);
        snapshot
            .arrays
            .extend(target.params.state().into_iter().map(|(name, array)| (format!("target.{name}"), array)));
        self.optimizer.save(&online.params, snapshot);
        snapshot.put("dqn.rng", &self.rng);
    }

    /// Takes what [`save_all`](Self::save_all) wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is another network's.
    pub fn load_all(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.shards[0].online.params.load(snapshot)?;
        let arrays = snapshot.arrays.iter();
        let state = arrays.filter_map(|(k, v)| Some((k.strip_prefix("target.")?.to_string(), v.clone()))).collect();
        let Shard { online, target, .. } = &mut self.shards[0];
        target.params.load_state(&state)?;
        online.dispatch().load(snapshot)?;
        self.optimizer.load(&online.params, snapshot)?;
        self.rng = snapshot.get("dqn.rng")?;
        Ok(())
    }
}

impl Shard {
    /// Sets this shard's gradient to its rows' part of the loss over the whole batch, and its losses to their part.
    fn work(&mut self) {
        let Self { config, online, target, values, batch, weights, noise, .. } = self;
        let (n, all, device) = (batch.len(), config.batch_size as f64, online.params.master().device());
        let tensor = |v: &[f32]| Tensor::from_slice(v).to_device(device);
        let (r_t, discount_t, weights) = (tensor(&batch.r_t), tensor(&batch.discount_t), tensor(weights));
        let a_tm1 = Tensor::from_slice(&batch.a_tm1).to_device(device);
        let (s_tm1, s_t) = (batch.s_tm1.as_ref(), batch.s_t.as_ref());

        // Values (or distributions) by the target network, and by the network that chooses the next action.
        let noise = std::mem::take(noise);
        target.set_noise(noise.target);
        online.set_noise(noise.selector);
        let (z_t, selector) = no_grad(|| {
            let z_t = target.forward(s_t, n);
            let selector = if config.double { values.mean(&online.forward(s_t, n)) } else { values.mean(&z_t) };
            (z_t, selector)
        });
        online.set_noise(noise.online);
        let z_tm1 = online.forward(s_tm1, n);
        let q_tm1 = ql::chosen(&values.mean(&z_tm1), &a_tm1);
        let best = selector.argmax(1, false);

        let (losses, errors) = match (config.distribution, &values.support) {
            (Distribution::Categorical, Some(support)) => {
                let p_t = chosen(&z_t, &best).softmax(-1, Kind::Float);
                let target = distributional::project(&r_t, &discount_t, &p_t, support);
                let losses = distributional::cross_entropy(&chosen(&z_tm1, &a_tm1), &target);
                (losses.shallow_clone(), losses)
            }
            (Distribution::Quantile, _) => {
                let target = r_t.unsqueeze(1) + discount_t.unsqueeze(1) * chosen(&z_t, &best);
                let losses = distributional::quantile_huber(&chosen(&z_tm1, &a_tm1), &target, config.huber_bound);
                (losses.shallow_clone(), losses)
            }
            _ => {
                let error = ql::q_target(&r_t, &discount_t, &values.mean(&z_t), &selector) - &q_tm1;
                let losses = match config.loss {
                    Loss::Huber => ql::huber(&error, config.huber_bound),
                    Loss::Squared => ql::squared(&error),
                };
                (losses, error)
            }
        };
        let scale = if config.sum_over_batch { 1.0 } else { 1.0 / all };
        let loss = ql::weighted_sum(&losses, &weights) * scale;
        online.backward(&loss);
        self.losses = Losses {
            loss: loss.double_value(&[]),
            q_mean: q_tm1.sum(Kind::Float).double_value(&[]) / all,
            errors: to_vec(&errors.detach()),
            grad_norm: 0.0,
        };
    }
}

/// The numbers of one action per row. `z` `[n, actions, atoms]`, `actions` `[n]` → `[n, atoms]`.
fn chosen(z: &Tensor, actions: &Tensor) -> Tensor {
    let atoms = z.size()[2];
    z.gather(1, &actions.view([-1, 1, 1]).expand([-1, 1, atoms], false), false).squeeze_dim(1)
}
