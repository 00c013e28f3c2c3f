//! The update of DQN and its variants, independent of environments.

use crate::config::{Config, Distribution, Loss};
use crossbeam::channel::{Receiver, Sender, bounded};
use playfield_core::group::{self, SingleProcess};
use playfield_core::rng::{self, Rng};
use playfield_core::{EnvSpec, Group, Result, Snapshot};
use playfield_losses::{distributional, q_learning as ql};
use playfield_nn::noisy::Noise;
use playfield_nn::observations::upload;
use playfield_nn::optim::{Combine, Optimizer};
use playfield_nn::params::to_vec;
use playfield_nn::sharding::Shards;
use playfield_nn::{Observations, Pass, QNetwork};
use playfield_replay::Transitions;
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// The online network, the target network, the optimizer and the random stream.
#[derive(Debug)]
pub struct Learner {
    config: Config,
    /// The part of a batch that the calling thread computes, with the networks that are saved.
    main: Shard,
    /// The parts of other threads, whose networks share the parameters of `main`.
    shards: Shards<Shard>,
    /// The part of a [`ShardWorker`].
    remote: Option<Remote>,
    optimizer: Optimizer,
    /// Of noisy layers.
    rng: Rng,
    group: Arc<dyn Group>,
    /// Whether reading a tensor waits for a device.
    reading_waits: bool,
}

/// A part of every batch, with all that its gradient needs: it can move between threads.
#[derive(Debug)]
struct Shard {
    config: Config,
    online: QNetwork,
    target: QNetwork,
    values: Values,
    /// Its elements of the batch.
    range: Range<usize>,
    batch: Transitions,
    /// The observations before and after, where the network's device has them, instead of the batch's.
    observations: Option<[Tensor; 2]>,
    weights: Vec<f32>,
    noise: BatchNoise,
    /// Of this part, on the network's device: the loss, the sum of the chosen actions' values, each transition's error. `[2 + n]`.
    terms: Tensor,
}

/// The noise of one update, common to all elements of the batch and so independent of the number of threads: one sample each for
/// the online network, the target network and, in double Q-learning, the selection of the next action (Fortunato et al. 2018, section 3.1 and appendix C).
#[derive(Clone, Debug, Default)]
struct BatchNoise {
    online: Vec<Noise>,
    target: Vec<Noise>,
    selector: Vec<Noise>,
}

impl BatchNoise {
    /// Empty for a network without noisy layers, which leaves `rng` as it is.
    fn sample(network: &QNetwork, double: bool, rng: &mut Rng) -> Self {
        let (online, target) = (network.sample_noise(rng), network.sample_noise(rng));
        Self { online, target, selector: if double { network.sample_noise(rng) } else { Vec::new() } }
    }
}

/// The shard of a [`ShardWorker`], and the channels to it.
#[derive(Debug)]
struct Remote {
    /// `None` while the worker has it.
    shard: Option<Shard>,
    jobs: Sender<Option<Shard>>,
    done: Receiver<Shard>,
}

/// Computes one part of every batch on a thread that would otherwise be idle.
#[derive(Debug)]
pub struct ShardWorker {
    /// A shard per update; `None` for a skipped one.
    jobs: Receiver<Option<Shard>>,
    done: Sender<Shard>,
}

impl ShardWorker {
    /// Computes its part of `updates` updates. Returns early if the learner is gone.
    pub fn run(&self, updates: u64) {
        for mut shard in self.jobs.iter().take(updates as usize).flatten() {
            shard.compute_gradients();
            if self.done.send(shard).is_err() {
                return;
            }
        }
    }
}

/// Turns a network's outputs for an action (its value, its quantiles, or the logits of its atoms) into its value.
#[derive(Debug)]
pub struct Values {
    support: Option<Tensor>,
}

impl Values {
    pub(crate) fn new(config: &Config, device: Device) -> Self {
        let atoms = || distributional::support(config.value_min, config.value_max, config.atoms, device);
        Self { support: (config.distribution == Distribution::Categorical).then(atoms) }
    }

    /// The values of a categorical distribution's atoms.
    pub fn support(&self) -> Option<Vec<f32>> {
        self.support.as_ref().map(to_vec)
    }

    /// The mean of each action's distribution. `[n, actions, atoms]` → `[n, actions]`.
    pub fn mean(&self, z: &Tensor) -> Tensor {
        match &self.support {
            Some(support) => (z.softmax(-1, Kind::Float) * support).sum_dim_intlist(-1, false, Kind::Float),
            None if z.size()[2] == 1 => z.squeeze_dim(2),
            None => z.mean_dim([-1_i64].as_slice(), false, Kind::Float),
        }
    }
}

/// The results of one update.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// The minimized loss.
    pub loss: f64,
    /// Mean value of the actions in the batch.
    pub q_mean: f64,
    /// Each transition's error: δ, or the loss of a distribution. Priorities depend on their absolute values.
    pub errors: Vec<f32>,
    /// The gradient's global norm before clipping; NaN where the loss is not finite and no step is made.
    pub grad_norm: f64,
}

impl Losses {
    /// The mean of the errors' absolute values.
    pub fn mean_error(&self) -> f64 {
        self.errors.iter().map(|e| f64::from(e.abs())).sum::<f64>() / self.errors.len() as f64
    }

    /// Whether the update was made: loss and gradient are finite.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }
}

impl Learner {
    /// A learner with a fresh network.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) where network, observation, actions and device don't fit.
    pub fn new(config: Config, spec: &EnvSpec, seed: u64) -> Result<Self> {
        let init = &mut rng::stream(seed, "dqn/init");
        let online = QNetwork::new(&config.network, config.heads(), spec, &config.device, init)?;
        let target = online.deep_clone();
        let optimizer = Optimizer::new(config.optimizer.clone(), &online.params).with_num_threads(config.threads());
        let device = online.params.master().device();
        // Batch norm needs the whole batch on one thread.
        let separable = device == Device::Cpu && !online.uses_batch_statistics();
        let parts = config.parts(if separable { config.threads() } else { 1 });
        let shard = |online, target, range: Range<usize>| Shard {
            values: Values::new(&config, device),
            batch: Transitions::new(spec, range.len()),
            observations: None,
            weights: vec![1.0; range.len()],
            noise: BatchNoise::default(),
            terms: Tensor::zeros([2 + range.len() as i64], (Kind::Float, device)),
            config: config.clone(),
            online,
            target,
            range,
        };
        let others = parts[1..].iter();
        let others = others.map(|range| shard(online.shallow_clone(), target.shallow_clone(), range.clone())).collect();
        let main = shard(online, target, parts[0].clone());
        let rng = rng::stream(seed, "dqn/noise");
        let group = SingleProcess::shared();
        let (shards, reading_waits) = (Shards::new(others), device != Device::Cpu);
        Ok(Self { config, main, shards, remote: None, optimizer, rng, group, reading_waits })
    }

    /// Makes this the learner of one rank of `group`: it takes the parameters of rank 0, and steps by the gradient of the batches of
    /// all ranks from now on, which they exchange as `exchange` says. Call it after loading.
    ///
    /// # Errors
    /// [`Error::Group`](playfield_core::Error::Group). [`Error::Config`](playfield_core::Error::Config) with `overlap_exchange`.
    pub fn join(&mut self, group: &Arc<dyn Group>, exchange: group::Config) -> Result<()> {
        exchange.refuse_overlap(&**group)?;
        let Shard { online, target, .. } = &mut self.main;
        online.params.broadcast(&**group)?;
        target.params.broadcast(&**group)?;
        let combine = if self.config.sum_over_batch { Combine::Sum } else { Combine::Mean };
        self.optimizer.set_group(group.clone(), combine, exchange, &self.main.online.params)?;
        self.group = group.clone();
        Ok(())
    }

    /// The processes that train this network.
    pub fn group(&self) -> &dyn Group {
        &*self.group
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The online network.
    pub fn online(&self) -> &QNetwork {
        &self.main.online
    }

    /// A worker that computes the last part of every batch from now on; `None` where a batch has one part. Call it once.
    pub fn shard_worker(&mut self) -> Option<ShardWorker> {
        self.shards.pop().map(|shard| {
            let ((to_worker, jobs), (done, from_worker)) = (bounded(1), bounded(1));
            self.remote = Some(Remote { shard: Some(shard), jobs: to_worker, done: from_worker });
            ShardWorker { jobs, done }
        })
    }

    /// Sets the observations of the next update, which are in the memory of the network's device: `s_tm1` and `s_t`, frames, `u8`,
    /// `[n, height, width, channels]`. The batch's are not used then.
    ///
    /// # Panics
    /// If several threads share the batch, as they do on a CPU: a bug of the caller.
    pub fn set_observations(&mut self, observations: [Tensor; 2]) {
        assert!(self.shards.as_slice().is_empty() && self.remote.is_none(), "a batch on a device has one part");
        self.main.observations = Some(observations);
    }

    /// Makes one update on a batch of weighted transitions (1 for uniform sampling), unless loss or gradient is not
    /// [finite](Losses::is_finite). `fill` writes the given range of the batch.
    ///
    /// # Errors
    /// [`Error::Group`](playfield_core::Error::Group).
    ///
    /// # Panics
    /// If a thread that computes a part does, or the [`ShardWorker`] is gone.
    pub fn update(
        &mut self,
        learning_rate: f64,
        mut fill: impl FnMut(Range<usize>, &mut Transitions, &mut [f32]),
    ) -> Result<Losses> {
        let Self { config, main, shards, remote, optimizer, rng, group, reading_waits } = self;
        let noise = BatchNoise::sample(&main.online, config.double, rng);
        let mut prepare = |shard: &mut Shard| {
            fill(shard.range.clone(), &mut shard.batch, &mut shard.weights);
            shard.noise = noise.clone();
        };
        // Dispatch the remote shard first: it has the highest latency.
        if let Some(Remote { shard, jobs, .. }) = remote {
            let mut shard = shard.take().expect("the worker returned it");
            prepare(&mut shard);
            jobs.send(Some(shard)).expect("a worker");
        }
        shards.as_mut_slice().iter_mut().rev().for_each(&mut prepare);
        prepare(main);
        shards.run(shards.as_slice().len(), || main.compute_gradients(), |_, shard| shard.compute_gradients());
        if let Some(Remote { shard, done, .. }) = remote {
            *shard = Some(done.recv().expect("a worker"));
        }
        let remote = remote.as_ref().and_then(|remote| remote.shard.as_ref());
        let others: Vec<_> = shards.as_slice().iter().chain(remote).collect();
        let params: Vec<_> = others.iter().map(|shard| &shard.online.params).collect();
        let own = &mut main.online.params;
        let all = || [&main.terms].into_iter().chain(others.iter().map(|shard| &shard.terms));
        // A clipped loss has a finite gradient even where it is NaN itself.
        let finite = (!*reading_waits).then(|| all().all(|terms| terms.double_value(&[0]).is_finite()));
        let step = match finite {
            Some(false) if !group.is_distributed() => None,
            finite => {
                if finite != Some(true) {
                    // Unchanged, or NaN where the loss is not finite, so that no rank makes this update.
                    own.set_gradient(&all().fold(own.gradient(), |sum, terms| sum + terms.get(0) * 0.0));
                }
                Some(optimizer.step_sharded(own, &params, learning_rate, config.gradient_clip)?)
            }
        };
        // Nothing is read from a device before the step.
        let all: Vec<_> = all().map(to_vec).collect();
        let sum = |i: usize| all.iter().map(|terms| f64::from(terms[i])).sum::<f64>();
        Ok(Losses {
            loss: sum(0),
            q_mean: sum(1) / config.batch_size as f64,
            errors: all.iter().flat_map(|terms| &terms[2..]).copied().collect(),
            grad_norm: step.map_or(f64::NAN, |norm| norm.value()),
        })
    }

    /// Tells the [`ShardWorker`] that one of its updates is not made.
    pub fn skip_update(&self) {
        if let Some(remote) = &self.remote {
            // A worker that is gone needs no message.
            let _ = remote.jobs.send(None);
        }
    }

    /// Updates the target network: θ⁻ ← θ⁻ + `rate`·(θ − θ⁻); 1 copies.
    pub fn update_target(&mut self, rate: f64) {
        let Shard { online, target, .. } = &mut self.main;
        target.params.polyak_update(&online.params, rate);
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.optimizer.updates()
    }

    /// Writes everything that an exact resume needs: both networks, the optimizer, the random stream.
    pub fn save(&self, snapshot: &mut Snapshot) {
        let Shard { online, target, .. } = &self.main;
        online.params.save(snapshot);
        online.dispatch().save(snapshot);
        snapshot
            .arrays
            .extend(target.params.state().into_iter().map(|(name, array)| (format!("target.{name}"), array)));
        self.optimizer.save(&online.params, snapshot);
        snapshot.put("dqn.rng", &self.rng);
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where it is of another network.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.main.online.params.load(snapshot)?;
        let arrays = snapshot.arrays.iter();
        let state = arrays.filter_map(|(k, v)| Some((k.strip_prefix("target.")?.to_string(), v.clone()))).collect();
        let Shard { online, target, .. } = &mut self.main;
        target.params.load_state(&state)?;
        online.dispatch().load(snapshot)?;
        self.optimizer.load(&online.params, snapshot)?;
        self.rng = snapshot.get("dqn.rng")?;
        Ok(())
    }
}

impl Shard {
    /// Sets this shard's gradient and terms to its part of those of the whole batch.
    fn compute_gradients(&mut self) {
        let Self { config, online, target, values, batch, observations, weights, noise, .. } = self;
        let (n, all, device) = (batch.len(), config.batch_size as f64, online.params.master().device());
        let tensor = |v: &[f32]| upload(&Tensor::from_slice(v), device);
        let (r_t, discount_t, weights) = (tensor(&batch.r_t), tensor(&batch.discount_t), tensor(weights));
        let a_tm1 = upload(&Tensor::from_slice(&batch.a_tm1), device);
        let on_device = observations.take();
        let [s_tm1, s_t] = match &on_device {
            Some(observations) => observations.each_ref().map(Observations::Device),
            None => [&batch.s_tm1, &batch.s_t].map(|obs| obs.as_ref().into()),
        };

        // Outputs of the target network, and values of the network that selects the next action.
        let noise = std::mem::take(noise);
        target.set_noise(noise.target);
        online.set_noise(noise.selector);
        let z_t = target.forward(s_t, n, Pass::Infer);
        let selector = match config.double {
            true => values.mean(&online.forward(s_t, n, Pass::Infer)),
            false => values.mean(&z_t),
        };
        let selector = ql::masked(&selector, &batch.mask_t);
        online.set_noise(noise.online);
        let z_tm1 = online.forward(s_tm1, n, Pass::Train);
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
        self.terms = Tensor::cat(&[loss.view(1), q_tm1.sum(Kind::Float).view(1), errors], 0).detach();
    }
}

/// The outputs of one action per transition. `z` `[n, actions, atoms]`, `actions` `[n]` → `[n, atoms]`.
fn chosen(z: &Tensor, actions: &Tensor) -> Tensor {
    let atoms = z.size()[2];
    z.gather(1, &actions.view([-1, 1, 1]).expand([-1, 1, atoms], false), false).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::{ActionSpace, Dtype};

    /// A learner that reads nothing before a step makes the same updates, bit for bit, as one that does, and none from a loss that is NaN.
    #[test]
    fn updates_do_not_depend_on_when_losses_are_read() {
        let spec = EnvSpec::new("t", &[3], Dtype::F32, ActionSpace::Discrete { n: 2 });
        for distribution in [Distribution::None, Distribution::Categorical, Distribution::Quantile] {
            let config = Config { distribution, batch_size: 4, num_threads: 1, ..Config::default() };
            let learner = || Learner::new(config.clone(), &spec, 1).unwrap();
            let (mut early, mut late) = (learner(), Learner { reading_waits: true, ..learner() });
            let update = |learner: &mut Learner, reward: f32| {
                let losses = learner.update(0.1, |_, batch, weights| {
                    batch.r_t.fill(1.0);
                    batch.r_t[0] = reward;
                    weights.fill(1.0);
                });
                (losses.unwrap(), to_vec(learner.online().params.master()))
            };
            let (made, fresh) = (update(&mut early, 2.0), to_vec(late.online().params.master()));
            assert!(made.0.is_finite() && made.1 != fresh);
            assert_eq!(update(&mut late, 2.0), made);
            let (losses, params) = update(&mut late, f32::NAN);
            assert!(!losses.is_finite() && losses.grad_norm.is_nan() && params == made.1);
        }
    }
}
