//! The exchange of gradients among the processes that train together.

use super::arrays_below;
use super::low_rank::{self, LowRank};
use super::step;
use crate::params::Params;
use crate::tensor::{slice, to_vec};
use playfield_core::group::{self, GradientPrecision, Group, SingleProcess};
use playfield_core::{Array, Error, Result, Snapshot};
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Kind, Tensor, no_grad};

/// How the gradients of several processes are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Their mean: for a loss that is a mean over the rank's batch. All batches have the same size.
    Mean,
    /// Their sum: for a loss that is a sum over the batch.
    Sum,
}

/// A gradient that has not been applied, where the exchange overlaps with a rollout.
#[derive(Debug)]
enum Pending {
    /// There is none.
    None,
    /// The ranks are exchanging it.
    InFlight,
    /// The combined gradient of all ranks, on the CPU.
    Combined(Tensor),
}

/// The prefix of the names of [`Pending::Combined`] in a snapshot. What begins with `optimizer.` is the same on all ranks.
const PENDING: &str = "optimizer.pending_gradient.";

#[derive(Debug)]
pub(super) struct Exchange {
    group: Arc<dyn Group>,
    combine: Combine,
    config: group::Config,
    pending: Pending,
    /// Memory for the flat gradient, in `f32`; empty in one process.
    gradient: Tensor,
    /// The approximation with `gradient_rank`.
    low_rank: Option<LowRank>,
    /// What a snapshot has of it, until the ranks join.
    saved: BTreeMap<String, Array>,
}

impl Exchange {
    /// That of one process, which exchanges nothing.
    pub(super) fn new() -> Self {
        let (group, config) = (SingleProcess::shared(), group::Config::default());
        let (pending, gradient, low_rank, saved) = (Pending::None, Tensor::new(), None, BTreeMap::new());
        Self { group, combine: Combine::Mean, config, pending, gradient, low_rank, saved }
    }

    /// Makes this the exchange among the ranks of `group`, of gradients of `params`.
    pub(super) fn join(
        &mut self,
        group: Arc<dyn Group>,
        combine: Combine,
        config: group::Config,
        params: &Params,
    ) -> Result<()> {
        group.set_device(match params.master().device() {
            Device::Cuda(index) => Some(index),
            _ => None,
        })?;
        if config.overlap_exchange && group.sums_on_device() {
            return Err(Error::config(
                "`distributed.overlap_exchange` must be false where NCCL sums gradients on CUDA devices: it is for slower networks, with Gloo",
            ));
        }
        let approximates = config.gradient_rank > 0 && group.is_distributed();
        if approximates && config.overlap_exchange {
            return Err(Error::config(
                "`distributed.gradient_rank` must be 0 with `distributed.overlap_exchange`, which exchanges whole gradients",
            ));
        }
        let saved = std::mem::take(&mut self.saved);
        self.low_rank = approximates.then(|| LowRank::new(params, config.gradient_rank, &saved));
        if group.is_distributed() {
            self.gradient = params.master().zeros_like();
        }
        (self.group, self.combine, self.config) = (group, combine, config);
        if !self.overlaps() {
            self.pending = Pending::None;
        }
        Ok(())
    }

    pub(super) fn is_distributed(&self) -> bool {
        self.group.is_distributed()
    }

    fn overlaps(&self) -> bool {
        self.config.overlap_exchange && self.is_distributed()
    }

    /// Replaces the gradient of `params` by that of all shards of all ranks, and running statistics by their means, with one
    /// all-reduce of each flat buffer. Returns false where the exchange overlaps: it starts, and `params` keeps its own gradient.
    ///
    /// # Panics
    /// If a gradient is pending: a bug of the caller.
    pub(super) fn combine(
        &mut self,
        params: &mut Params,
        shards: &[&Params],
        pool: Option<&ThreadPool>,
    ) -> Result<bool> {
        let mut gradient = self.gradient.shallow_clone();
        step::sum_gradients(params, shards, &gradient, pool);
        let overlaps = self.overlaps();
        if !overlaps {
            let (group, precision) = (&*self.group, self.config.gradient_precision);
            match &mut self.low_rank {
                Some(low_rank) => low_rank.sum(&gradient, pool, |values| sum(group, precision, values))?,
                None => sum(group, precision, &mut gradient)?,
            }
            gradient = self.scaled(gradient);
        }
        self.average_running_stats(params)?;
        match overlaps {
            true => self.start(&gradient)?,
            false => params.set_gradient(&gradient),
        }
        Ok(!overlaps)
    }

    /// Replaces running statistics by their means over the ranks.
    fn average_running_stats(&self, params: &mut Params) -> Result<()> {
        let mut running = to_vec(params.running_stats());
        if !running.is_empty() {
            self.group.sum(&mut running, GradientPrecision::Fp32)?;
            let scale = 1.0 / self.group.world_size() as f32;
            running.iter_mut().for_each(|x| *x *= scale);
            params.set_running_stats(&running);
        }
        Ok(())
    }

    /// Starts the exchange of `gradient`.
    fn start(&mut self, gradient: &Tensor) -> Result<()> {
        assert!(matches!(self.pending, Pending::None), "a gradient is pending");
        self.group.start_sum(to_vec(gradient), self.config.gradient_precision)?;
        self.pending = Pending::InFlight;
        Ok(())
    }

    /// Replaces the gradient of `params` by the pending one, after waiting for its exchange; false where there is none.
    pub(super) fn receive(&mut self, params: &mut Params) -> Result<bool> {
        self.finish()?;
        match std::mem::replace(&mut self.pending, Pending::None) {
            Pending::Combined(gradient) => params.set_gradient(&gradient),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Waits for the exchange that was started last.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let Pending::InFlight = self.pending {
            let sum = self.group.finish_sum()?;
            self.pending = Pending::Combined(self.scaled(Tensor::from_slice(&sum)));
        }
        Ok(())
    }

    fn scaled(&self, mut sum: Tensor) -> Tensor {
        if self.combine == Combine::Mean {
            sum *= f64::from(1.0 / self.group.world_size() as f32);
        }
        sum
    }

    /// Writes the pending gradient, after [`finish`](Self::finish). One that is not finite is left out: the parameters are good, and a run
    /// that resumes with it would end at once.
    pub(super) fn save(&self, params: &Params, snapshot: &mut Snapshot) {
        if let Pending::Combined(gradient) = &self.pending
            && gradient.norm().double_value(&[]).is_finite()
        {
            let named = params.named(gradient).into_iter();
            snapshot.arrays.extend(named.map(|(name, array)| (format!("{PENDING}{name}"), array)));
        }
        self.low_rank.iter().for_each(|low_rank| low_rank.save(snapshot));
    }

    /// Restores what [`save`](Self::save) wrote.
    pub(super) fn load(&mut self, params: &Params, snapshot: &Snapshot) -> Result<()> {
        let arrays = arrays_below(PENDING, snapshot);
        self.pending = Pending::None;
        if !arrays.is_empty() {
            let gradient = Tensor::zeros([params.master().numel() as i64], (Kind::Float, Device::Cpu));
            params.load_named(&arrays, &gradient)?;
            self.pending = Pending::Combined(gradient);
        }
        self.saved = arrays_below(low_rank::PREFIX, snapshot);
        Ok(())
    }
}

/// Replaces `values`, a buffer of its own in `f32`, by the sum over the ranks of `group`.
fn sum(group: &dyn Group, precision: GradientPrecision, values: &mut Tensor) -> Result<()> {
    assert!(values.kind() == Kind::Float && values.is_contiguous(), "a buffer of {:?}", values.kind());
    if group.sums_on_device() {
        return group.sum_on_device(values, precision);
    }
    if values.device() == Device::Cpu {
        // SAFETY: contiguous, of this type and on the CPU, as checked; nothing else uses its memory while `values` is borrowed.
        return group.sum(unsafe { slice(values) }, precision);
    }
    let mut host = to_vec(values);
    group.sum(&mut host, precision)?;
    no_grad(|| values.copy_(&Tensor::from_slice(&host)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Init;
    use crate::optim::{Adam, Optimizer, OptimizerConfig, Sgd};
    use crate::params::Builder;
    use playfield_core::group::Reduce;
    use playfield_core::rng::stream;
    use std::any::Any;
    use std::sync::Mutex;

    /// A multiple of the alignment of buffers.
    const LEN: i64 = 128;

    /// Running statistics.
    const RUNNING: i64 = 64;

    fn params(kind: Kind) -> Params {
        let mut rng = stream(1, "start");
        let mut b = Builder::new(&mut rng);
        b.param("p", &[LEN], Init::Uniform { fan_in: 3 });
        b.running_stats("r", RUNNING, 1.5);
        b.finish(Device::Cpu, kind)
    }

    fn gradient(t: usize) -> Tensor {
        Tensor::from_slice(&(0..LEN).map(|i| ((i * 31 + t as i64 * 17) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>())
    }

    /// Two ranks with the same values.
    #[derive(Debug, Default)]
    struct Two {
        /// Whether gradients are summed where they are.
        on_device: bool,
        in_flight: Mutex<Option<Vec<f32>>>,
    }

    impl Group for Two {
        fn rank(&self) -> usize {
            0
        }
        fn world_size(&self) -> usize {
            2
        }
        fn all_reduce(&self, _: &mut [f64], _: Reduce) -> Result<()> {
            unreachable!()
        }
        fn sum(&self, values: &mut [f32], _: GradientPrecision) -> Result<()> {
            assert!(!self.on_device || values.len() == RUNNING as usize, "only running statistics");
            values.iter_mut().for_each(|x| *x *= 2.0);
            Ok(())
        }
        fn start_sum(&self, mut values: Vec<f32>, precision: GradientPrecision) -> Result<()> {
            self.sum(&mut values, precision)?;
            assert!(self.in_flight.lock().unwrap().replace(values).is_none(), "one at a time");
            Ok(())
        }
        fn finish_sum(&self) -> Result<Vec<f32>> {
            Ok(self.in_flight.lock().unwrap().take().expect("a sum was started"))
        }
        fn sums_on_device(&self) -> bool {
            self.on_device
        }
        fn sum_on_device(&self, tensor: &mut dyn Any, _: GradientPrecision) -> Result<()> {
            *tensor.downcast_mut::<Tensor>().unwrap() *= 2.0;
            Ok(())
        }
        fn broadcast(&self, _: &mut Vec<u8>) -> Result<()> {
            unreachable!()
        }
        fn gather(&self, _: Vec<u8>) -> Result<Vec<Vec<u8>>> {
            unreachable!()
        }
    }

    const SYNCHRONOUS: group::Config =
        group::Config { gradient_precision: GradientPrecision::Fp32, overlap_exchange: false, gradient_rank: 0 };
    const OVERLAPPED: group::Config = group::Config { overlap_exchange: true, ..SYNCHRONOUS };

    /// The mean of equal gradients is the gradient, their sum is twice as large; shards are added before.
    #[test]
    fn gradients_are_combined_in_the_host_or_on_the_device() {
        for (on_device, kind, combine, factor) in [
            (false, Kind::Float, Combine::Mean, 2.0),
            (false, Kind::BFloat16, Combine::Mean, 2.0),
            (true, Kind::Float, Combine::Mean, 2.0),
            (true, Kind::BFloat16, Combine::Mean, 2.0),
            (false, Kind::Float, Combine::Sum, 4.0),
            (true, Kind::Float, Combine::Sum, 4.0),
        ] {
            let (mut params, mut alone) = (params(kind), params(kind));
            let optimizer = |params: &Params| Optimizer::new(Sgd::default(), params);
            let (mut ours, mut theirs) = (optimizer(&params), optimizer(&alone));
            let group = Two { on_device, ..Two::default() };
            ours.set_group(Arc::new(group), combine, group::Config::default(), &params).unwrap();
            let mut shard = params.shallow_clone();
            params.set_gradient(&gradient(0));
            shard.set_gradient(&gradient(0));
            alone.set_gradient(&(gradient(0) * factor));
            ours.step_sharded(&mut params, &[&shard], 0.1, 0.0).unwrap();
            theirs.step(&mut alone, 0.1, 0.0);
            assert_eq!(to_vec(params.master()), to_vec(alone.master()), "{on_device} {kind:?} {combine:?}");
        }
    }

    /// Equal gradients of rank 1: each second update makes up for what the one before left, so that the sum of all is exact. That of both
    /// ranks is the gradient, or twice as large; shards are added before.
    #[test]
    fn gradients_are_approximated() {
        for (on_device, kind, combine) in [
            (false, Kind::Float, Combine::Mean),
            (false, Kind::BFloat16, Combine::Sum),
            (true, Kind::Float, Combine::Sum),
        ] {
            let mut rng = stream(1, "start");
            let mut b = Builder::new(&mut rng);
            b.param("matrix", &[16, 8], Init::Uniform { fan_in: 3 });
            b.running_stats("r", RUNNING, 1.5);
            let mut params = b.finish(Device::Cpu, kind);
            let mut optimizer = Optimizer::new(Sgd { momentum: 0.0, ..Sgd::default() }, &params);
            let config = group::Config { gradient_rank: 1, ..SYNCHRONOUS };
            optimizer.set_group(Arc::new(Two { on_device, ..Two::default() }), combine, config, &params).unwrap();
            let factor = if combine == Combine::Sum { 4.0 } else { 2.0 };
            let outer = |i: usize| (1.0 + (i / 8) as f32) * ((i % 8) as f32 - 3.0) / 64.0;
            let gradient = Tensor::from_slice(&(0..128).map(outer).collect::<Vec<_>>());
            let before = to_vec(params.master());
            for updates in 1..=4 {
                let mut shard = params.shallow_clone();
                params.set_gradient(&gradient);
                shard.set_gradient(&gradient);
                optimizer.step_sharded(&mut params, &[&shard], 1.0, 0.0).unwrap();
                let rounding = if kind == Kind::Float { 1e-4 } else { 3e-2 };
                let all = |(i, (before, after)): (usize, (&f32, &f32))| {
                    (before - after - factor * updates as f32 * outer(i)).abs() < rounding
                };
                let is_exact = before.iter().zip(&to_vec(params.master())).enumerate().all(all);
                assert_eq!(is_exact, updates % 2 == 0, "{kind:?} {combine:?}, {updates} updates");
            }
            let mut snapshot = Snapshot::default();
            optimizer.save(&params, &mut snapshot);
            let names: Vec<_> = snapshot.arrays.keys().filter(|name| name.starts_with(low_rank::PREFIX)).collect();
            assert_eq!(names, ["exchange.error.matrix", "exchange.right.matrix"]);
        }
    }

    /// With overlap, a gradient is applied when the next one is about to be computed: parameters, state and norms are those of one process.
    /// A run that is saved and loaded while a gradient is pending continues in the same way.
    #[test]
    fn a_pending_gradient_is_applied_before_the_next() {
        for (combine, factor) in [(Combine::Mean, 1.0), (Combine::Sum, 2.0)] {
            let config = OptimizerConfig::from(Adam::default());
            let new = || {
                let params = params(Kind::Float);
                let optimizer = Optimizer::new(config.clone(), &params);
                (params, optimizer)
            };
            let join = |optimizer: &mut Optimizer, params: &Params| {
                optimizer.set_group(Arc::new(Two::default()), combine, OVERLAPPED, params).unwrap();
            };
            let ((mut ours, mut overlapped), (mut theirs, mut exact)) = (new(), new());
            join(&mut overlapped, &ours);
            for t in 0..6 {
                let expected = (t > 0).then(|| {
                    theirs.set_gradient(&(gradient(t - 1) * factor));
                    exact.step(&mut theirs, 0.01, 1.0)
                });
                let pending = overlapped.step_pending(&mut ours, 0.01, 1.0).unwrap();
                assert_eq!(pending.map(|norm| norm.value()), expected, "update {t}");
                ours.set_gradient(&gradient(t));
                assert_eq!(overlapped.step_sharded(&mut ours, &[], 0.01, 1.0).unwrap().value(), 0.0, "update {t}");
                assert_eq!(to_vec(ours.master()), to_vec(theirs.master()), "update {t}");
                assert_eq!(overlapped.statistics(), exact.statistics(), "update {t}");
                if t == 3 {
                    let mut snapshot = Snapshot::default();
                    overlapped.finish_exchange().unwrap();
                    ours.save(&mut snapshot);
                    overlapped.save(&ours, &mut snapshot);
                    (ours, overlapped) = new();
                    ours.load(&snapshot).unwrap();
                    overlapped.load(&ours, &snapshot).unwrap();
                    join(&mut overlapped, &ours);
                }
            }
        }
    }

    /// A gradient that is not finite is not saved.
    #[test]
    fn a_pending_gradient_that_is_not_finite_is_not_saved() {
        let mut params = params(Kind::Float);
        let mut optimizer = Optimizer::new(Sgd::default(), &params);
        optimizer.set_group(Arc::new(Two::default()), Combine::Mean, OVERLAPPED, &params).unwrap();
        for (factor, saved) in [(1.0, true), (f64::NAN, false)] {
            params.set_gradient(&(gradient(0) * factor));
            optimizer.step_sharded(&mut params, &[], 0.01, 0.0).unwrap();
            optimizer.finish_exchange().unwrap();
            let mut snapshot = Snapshot::default();
            optimizer.save(&params, &mut snapshot);
            assert_eq!(snapshot.arrays.keys().any(|name| name.starts_with(PENDING)), saved);
            let norm = optimizer.step_pending(&mut params, 0.01, 0.0).unwrap();
            assert_eq!(norm.is_some_and(|norm| norm.value().is_finite()), saved);
        }
    }

    /// Without overlap, and in one process, a pending gradient from a checkpoint has no use.
    #[test]
    fn a_pending_gradient_is_dropped_without_overlap() {
        let mut params = params(Kind::Float);
        let mut optimizer = Optimizer::new(Sgd::default(), &params);
        for (group, config) in [
            (Arc::new(Two::default()) as Arc<dyn Group>, group::Config::default()),
            (SingleProcess::shared(), OVERLAPPED),
        ] {
            optimizer.exchange.pending = Pending::Combined(gradient(0));
            optimizer.set_group(group, Combine::Mean, config, &params).unwrap();
            let mut snapshot = Snapshot::default();
            optimizer.save(&params, &mut snapshot);
            assert!(snapshot.arrays.keys().all(|name| !name.starts_with(PENDING)));
            assert!(optimizer.step_pending(&mut params, 0.01, 0.0).unwrap().is_none());
        }
    }

    #[test]
    fn neither_sums_on_devices_nor_approximations_overlap() {
        let params = params(Kind::Float);
        let mut optimizer = Optimizer::new(Sgd::default(), &params);
        for (on_device, config) in [(true, OVERLAPPED), (false, group::Config { gradient_rank: 1, ..OVERLAPPED })] {
            let group = Arc::new(Two { on_device, ..Two::default() });
            let error = optimizer.set_group(group, Combine::Mean, config, &params).unwrap_err();
            assert!(
                matches!(error, Error::Config(_)) && error.to_string().contains("`distributed.overlap_exchange`"),
                "{error}"
            );
        }
    }
}
