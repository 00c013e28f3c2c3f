//! Optimizers on a flat parameter buffer, one file per rule, with state that can be saved. `tch` cannot save libtorch's, which an
//! exact resume needs.
//!
//! A rule is a config type ([`Sgd`], [`RmsProp`], [`Adam`], [`AdamW`], [`RAdam`]) whose default is the published one; it states what it
//! keeps per parameter and turns its settings into the scalars of a step. The arithmetic is in one place for all rules: one pass
//! over memory on the CPU ([`playfield_kernels::optimizer`]), the same in tensor operations on other devices.

mod adam;
mod adamw;
mod config;
mod exchange;
mod low_rank;
mod norm;
mod radam;
mod rmsprop;
mod rule;
mod sgd;
mod step;

pub use adam::Adam;
pub use adamw::AdamW;
pub use config::{OptimizerConfig, Rule};
pub use exchange::Combine;
pub use norm::Norm;
pub use radam::RAdam;
pub use rmsprop::RmsProp;
pub use sgd::Sgd;
pub use step::{Step, gradient_norm, step_shared};

use crate::params::Params;
use crate::tensor::to_vec;
use exchange::Exchange;
use playfield_core::{Array, Error, Group, Result, Snapshot, group};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Tensor, no_grad};

/// An optimizer of one network.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    state: [Option<Tensor>; 2],
    updates: u64,
    /// A second thread.
    pool: Option<ThreadPool>,
    exchange: Exchange,
}

impl Optimizer {
    /// An optimizer for `params`, on one thread.
    pub fn new(config: impl Into<OptimizerConfig>, params: &Params) -> Self {
        let config = config.into();
        let buffer = |initial: f32| params.master().full_like(f64::from(initial));
        let state = config.rule().state().map(|state| state.map(|state| buffer(state.initial)));
        Self { config, state, updates: 0, pool: None, exchange: Exchange::new() }
    }

    /// Makes [`step_sharded`](Self::step_sharded) combine the gradients of all ranks of `group`, which they exchange as `exchange`
    /// says: each rank steps by the same gradient, so that parameters and state that are the same at the start stay so.
    ///
    /// # Errors
    /// [`Error::Group`]. [`Error::Config`] where the exchange shall overlap, and NCCL sums gradients on CUDA devices or
    /// [`gradient_rank`](group::Config::gradient_rank) is set.
    pub fn set_group(
        &mut self,
        group: Arc<dyn Group>,
        combine: Combine,
        exchange: group::Config,
        params: &Params,
    ) -> Result<()> {
        self.exchange.join(group, combine, exchange, params)
    }

    /// The same with up to `threads` threads for a step. It uses two at most, and one for small networks.
    pub fn with_num_threads(mut self, threads: usize) -> Self {
        let parallel = threads > 1 && self.state.iter().flatten().any(|state| state.numel() >= step::PARALLEL);
        self.pool = if parallel { ThreadPoolBuilder::new().num_threads(1).build().ok() } else { None };
        self
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Steps `params` by their gradient, after scaling it to a *global* norm of at most `max_norm` (0: unlimited). Returns
    /// the norm before scaling. If that norm is not finite, neither parameters nor state change.
    pub fn step(&mut self, params: &mut Params, learning_rate: f64, max_norm: f64) -> f64 {
        self.apply(params, &[], learning_rate, max_norm).value()
    }

    /// [`step`](Self::step) by the sum of the gradients of `params` and of `shards`, which are
    /// [shallow clones](Params::shallow_clone) of it, [combined](Self::set_group) with those of the other ranks. With
    /// [`overlap_exchange`](group::Config::overlap_exchange) it only starts the exchange, and the norm is 0: before the next gradient is
    /// computed, [`step_pending`](Self::step_pending) makes the step.
    ///
    /// # Errors
    /// [`Error::Group`](playfield_core::Error::Group).
    ///
    /// # Panics
    /// If a gradient is still pending: a bug of the caller.
    pub fn step_sharded(
        &mut self,
        params: &mut Params,
        shards: &[&Params],
        learning_rate: f64,
        max_norm: f64,
    ) -> Result<Norm> {
        if !self.exchange.is_distributed() {
            return Ok(self.apply(params, shards, learning_rate, max_norm));
        }
        match self.exchange.combine(params, shards, self.pool.as_ref())? {
            true => Ok(self.apply(params, &[], learning_rate, max_norm)),
            false => Ok(Norm::Known(0.0)),
        }
    }

    /// Waits for the exchange that [`step_sharded`](Self::step_sharded) has started, if it has, and steps by that gradient. Returns the
    /// gradient's norm, if one was pending.
    ///
    /// # Errors
    /// [`Error::Group`](playfield_core::Error::Group).
    pub fn step_pending(&mut self, params: &mut Params, learning_rate: f64, max_norm: f64) -> Result<Option<Norm>> {
        let is_pending = self.exchange.receive(params)?;
        Ok(is_pending.then(|| self.apply(params, &[], learning_rate, max_norm)))
    }

    /// Waits for the exchange that was started last, so that [`save`](Self::save) writes its gradient: call it before.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub fn finish_exchange(&mut self) -> Result<()> {
        self.exchange.finish()
    }

    fn apply(&mut self, params: &mut Params, shards: &[&Params], learning_rate: f64, max_norm: f64) -> Norm {
        self.updates += 1;
        let updates = self.updates;
        let Self { config, state, pool, .. } = self;
        let step = |scale: f64| Step { config, learning_rate, scale, updates }.to_kernel();
        let state = state.each_ref().map(Option::as_ref);
        let Some(buffers) = step::buffers(params, shards, state) else {
            return self.apply_on_tensors(params, shards, learning_rate, max_norm);
        };
        let norm = step::norm_of(&buffers, pool.as_ref());
        if norm.is_finite() {
            let step = step(clip(norm, max_norm));
            buffers.into_iter().for_each(|part| step::run(part, step, pool.as_ref()));
            params.mark_changed();
        }
        Norm::Known(norm)
    }

    /// The same in tensor operations, none of which waits for the device.
    fn apply_on_tensors(&self, params: &mut Params, shards: &[&Params], learning_rate: f64, max_norm: f64) -> Norm {
        let Self { config, state, updates, .. } = self;
        let step = Step { config, learning_rate, scale: 1.0, updates: *updates }.to_kernel();
        let norm = no_grad(|| {
            let gradient = shards.iter().fold(params.gradient(), |sum, other| sum + other.gradient());
            let norm = gradient.norm();
            let scaled = if max_norm > 0.0 { gradient * (max_norm / &norm).clamp_max(1.0) } else { gradient };
            let changed = [Some(params.master()), state[0].as_ref(), state[1].as_ref()].into_iter().flatten();
            let before: Vec<_> = changed.map(|tensor| (tensor.shallow_clone(), tensor.copy())).collect();
            step::run_on_tensors(params.master(), scaled, state.each_ref().map(Option::as_ref), step);
            let is_finite = norm.isfinite();
            before.into_iter().for_each(|(mut now, before)| now.copy_(&now.where_self(&is_finite, &before)));
            norm
        });
        params.mark_updated();
        Norm::OnDevice(norm)
    }

    /// Updates so far and a copy of the state; the second part is empty where the rule has none.
    pub fn statistics(&self) -> (u64, [Vec<f32>; 2]) {
        (self.updates, self.state.each_ref().map(|state| state.as_ref().map(to_vec).unwrap_or_default()))
    }

    /// Replaces updates and state.
    ///
    /// # Panics
    /// If they are of another network: a bug of the caller.
    pub fn set_statistics(&mut self, updates: u64, state: [&[f32]; 2]) {
        self.updates = updates;
        for (to, from) in self.state.iter_mut().zip(state) {
            to.iter_mut().for_each(|to| no_grad(|| to.copy_(&Tensor::from_slice(from))));
        }
    }

    /// Writes updates and state into `snapshot`.
    pub fn save(&self, params: &Params, snapshot: &mut Snapshot) {
        snapshot.put("optimizer.updates", &self.updates);
        for (name, flat) in self.named_state() {
            let named = params.named(flat).into_iter().map(|(k, v)| (format!("optimizer.{name}.{k}"), v));
            snapshot.arrays.extend(named);
        }
        self.exchange.save(params, snapshot);
    }

    /// Restores updates and state from `snapshot`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where they are missing or of another network.
    pub fn load(&mut self, params: &Params, snapshot: &Snapshot) -> Result<()> {
        self.updates = check_updates("optimizer.updates", snapshot)?;
        for (name, flat) in self.named_state() {
            params.load_named(&arrays_below(&format!("optimizer.{name}."), snapshot), flat)?;
        }
        self.exchange.load(params, snapshot)
    }

    fn named_state(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let names = self.config.rule().state();
        names.into_iter().zip(&self.state).filter_map(|(state, flat)| Some((state?.name, flat.as_ref()?)))
    }
}

/// The arrays of `snapshot` whose names begin with `prefix`, without it.
fn arrays_below(prefix: &str, snapshot: &Snapshot) -> BTreeMap<String, Array> {
    let arrays = snapshot.arrays.iter();
    arrays.filter_map(|(name, array)| Some((name.strip_prefix(prefix)?.to_string(), array.clone()))).collect()
}

/// The number of updates that `snapshot` has under `key`.
///
/// # Errors
/// [`Error::Checkpoint`] where it is missing, or more than any run makes.
pub fn check_updates(key: &str, snapshot: &Snapshot) -> Result<u64> {
    match snapshot.get(key)? {
        updates if updates < 1 << 53 => Ok(updates),
        updates => Err(Error::checkpoint(key, format!("{updates} updates are more than a run makes"))),
    }
}

/// The factor that scales a gradient of this norm to at most `max_norm` (0: unlimited).
pub fn clip(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 && norm > max_norm { max_norm / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Init;
    use crate::params::Builder;
    use playfield_core::rng::stream;
    use tch::{Device, Kind};

    fn params(len: i64, kind: Kind) -> Params {
        let mut rng = stream(1, "start");
        let mut b = Builder::new(&mut rng);
        b.param("p", &[len], Init::Uniform { fan_in: 3 });
        b.finish(Device::Cpu, kind)
    }

    fn gradient(t: usize, params: &Params) -> Tensor {
        let gradient = |i: usize| ((i * 31 + t * 17) % 101) as f32 / 50.0 - 1.0;
        Tensor::from_slice(&(0..params.master().numel()).map(gradient).collect::<Vec<_>>())
    }

    /// The pass over memory equals the tensor operations: every rule, clipped, over several steps and more than a
    /// chunk, in both precisions, down to the bf16 weights.
    #[test]
    fn one_pass_equals_tensor_operations() {
        let rmsprop = |centered, eps_inside_root| RmsProp {
            centered,
            eps_inside_root,
            eps: 1e-3,
            weight_decay: if centered { 0.0 } else { 0.1 },
            ..RmsProp::tensorflow()
        };
        let configs: [OptimizerConfig; 8] = [
            rmsprop(false, true).into(),
            rmsprop(false, false).into(),
            rmsprop(true, true).into(),
            rmsprop(true, false).into(),
            Adam { eps: 1e-3, weight_decay: 0.1, ..Adam::default() }.into(),
            AdamW { eps: 1e-3, weight_decay: 0.1, ..AdamW::default() }.into(),
            RAdam { eps: 1e-3, weight_decay: 0.1, ..RAdam::default() }.into(),
            Sgd { weight_decay: 0.1, ..Sgd::default() }.into(),
        ];
        for (config, kind) in configs.iter().flat_map(|c| [(c, Kind::Float), (c, Kind::BFloat16)]) {
            let (mut one, mut other) = (params(2_777, kind), params(2_777, kind));
            let [mut fused, mut plain] = [&one, &other].map(|p| Optimizer::new(config.clone(), p));
            for t in 0..8 {
                let gradient = gradient(t, &one);
                [&mut one, &mut other].into_iter().for_each(|p| p.set_gradient(&gradient));
                let norm = fused.step(&mut one, 0.01, 7.0);
                plain.updates += 1;
                let expected = plain.apply_on_tensors(&mut other, &[], 0.01, 7.0).value();
                assert!((norm / expected - 1.0).abs() < 1e-6, "{norm}, {expected}");
                for (a, b) in to_vec(one.master()).iter().zip(to_vec(other.master())) {
                    assert!((a - b).abs() < 2e-6, "{config:?}: {a}, {b}");
                }
                let rounded = one.master().to_kind(kind);
                assert_eq!(to_vec(one.flat()), to_vec(&rounded), "what layers compute with");
            }
        }
    }

    /// Two threads compute what one does, bit for bit, and one thread keeps no pool.
    #[test]
    fn the_number_of_threads_does_not_change_a_step() {
        let [one, two] = [1, 2].map(|threads| {
            let mut params = params(step::PARALLEL as i64 + 5_000, Kind::BFloat16);
            let mut optimizer = Optimizer::new(Adam::default(), &params).with_num_threads(threads);
            assert_eq!(optimizer.pool.is_some(), threads > 1);
            for t in 0..2 {
                params.set_gradient(&gradient(t, &params));
                optimizer.step(&mut params, 0.01, 7.0);
            }
            (to_vec(params.master()), to_vec(params.flat()), optimizer.statistics())
        });
        assert!(one == two);
    }

    /// A gradient that is not finite leaves parameters and state as they are, clipped or not, in both implementations.
    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        for (kind, max_norm, value) in [
            (Kind::Float, 0.0, f64::NAN),
            (Kind::Float, 1.0, f64::NAN),
            (Kind::BFloat16, 0.0, f64::INFINITY),
            (Kind::BFloat16, 1.0, f64::NEG_INFINITY),
        ] {
            let mut params = params(100, kind);
            let mut optimizer = Optimizer::new(Adam::default(), &params);
            params.set_gradient(&gradient(0, &params));
            optimizer.step(&mut params, 0.01, 1.0);
            params.set_gradient(&(gradient(0, &params) * value));
            let values = |params: &Params, optimizer: &Optimizer| {
                (to_vec(params.flat()), optimizer.statistics().1, to_vec(params.master()))
            };
            let before = values(&params, &optimizer);
            assert!(!optimizer.step(&mut params, 0.01, max_norm).is_finite());
            assert_eq!(values(&params, &optimizer), before);
            assert!(!optimizer.apply_on_tensors(&mut params, &[], 0.01, max_norm).value().is_finite());
            assert_eq!(values(&params, &optimizer), before);
        }
    }
}
