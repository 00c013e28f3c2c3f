//! The exchange of gradients, or with local updates of parameters, among the processes that train together.

use super::arrays_below;
use crate::params::Params;
use crate::tensor::{slice, to_vec};
use playfield_core::group::{self, GradientPrecision, Group, SingleProcess};
use playfield_core::{Error, Result, Snapshot};
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
    /// Parameters and state, one after the other, before the first of the updates that this rank has made by itself.
    before: Option<Tensor>,
}

impl Exchange {
    /// That of one process, which exchanges nothing.
    pub(super) fn new() -> Self {
        let (group, config) = (SingleProcess::shared(), group::Config::default());
        Self { group, combine: Combine::Mean, config, pending: Pending::None, before: None }
    }

    /// Makes this the exchange among the ranks of `group`, of gradients on `device`.
    pub(super) fn join(
        &mut self,
        group: Arc<dyn Group>,
        combine: Combine,
        config: group::Config,
        device: Device,
    ) -> Result<()> {
        group.set_device(match device {
            Device::Cuda(index) => Some(index),
            _ => None,
        })?;
        if config.overlap_exchange && group.sums_on_device() {
            return Err(Error::config(
                "`distributed.overlap_exchange` must be false where NCCL sums gradients on CUDA devices: it is for slower networks, with Gloo",
            ));
        }
        (self.group, self.combine, self.config) = (group, combine, config);
        if !self.overlaps() {
            self.pending = Pending::None;
        }
        Ok(())
    }

    /// Whether the ranks combine the gradients of each update.
    pub(super) fn combines_gradients(&self) -> bool {
        self.group.is_distributed() && !self.config.local_updates
    }

    /// Whether each rank makes updates by itself, which end with [`average`](Self::average).
    pub(super) fn has_local_updates(&self) -> bool {
        self.group.is_distributed() && self.config.local_updates
    }

    fn overlaps(&self) -> bool {
        self.config.overlap_exchange && self.group.is_distributed()
    }

    /// Replaces the gradient of `params` by that of all shards of all ranks, and running statistics by their means, with one
    /// all-reduce of each flat buffer. Returns false where the exchange overlaps: it starts, and `params` keeps its own gradient.
    ///
    /// # Panics
    /// If a gradient is pending: a bug of the caller.
    pub(super) fn combine(&mut self, params: &mut Params, shards: &[&Params]) -> Result<bool> {
        let mut gradient = params.gradient();
        shards.iter().for_each(|other| no_grad(|| gradient += other.gradient()));
        let overlaps = self.overlaps();
        if !overlaps {
            self.sum(&mut gradient)?;
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

    /// Replaces `values`, a buffer of its own in `f32`, by the sum over the ranks.
    fn sum(&self, values: &mut Tensor) -> Result<()> {
        assert!(values.kind() == Kind::Float && values.is_contiguous(), "a buffer of {:?}", values.kind());
        let precision = self.config.gradient_precision;
        if self.group.sums_on_device() {
            return self.group.sum_on_device(values, precision);
        }
        if values.device() == Device::Cpu {
            // SAFETY: contiguous, of this type and on the CPU, as checked; nothing else uses its memory while `values` is borrowed.
            return self.group.sum(unsafe { slice(values) }, precision);
        }
        let mut host = to_vec(values);
        self.group.sum(&mut host, precision)?;
        no_grad(|| values.copy_(&Tensor::from_slice(&host)));
        Ok(())
    }

    /// Keeps a copy of `buffers`, parameters and state, before the first local update since the last [`average`](Self::average).
    pub(super) fn begin_local_update(&mut self, buffers: &[&Tensor]) {
        self.before.get_or_insert_with(|| no_grad(|| Tensor::cat(buffers, 0)));
    }

    /// Replaces `buffers`, those of [`begin_local_update`](Self::begin_local_update), by their means over the ranks, and the running
    /// statistics of `params`, too. The ranks exchange what has changed: in bf16 a parameter would lose small changes. Returns false, and does
    /// nothing, where no local update was made.
    pub(super) fn average(&mut self, params: &mut Params, buffers: &[&Tensor]) -> Result<bool> {
        let Some(mut mean) = self.before.take() else { return Ok(false) };
        let sizes: Vec<_> = buffers.iter().map(|buffer| buffer.numel() as i64).collect();
        let mut change = mean.empty_like();
        no_grad(|| {
            let parts = change.split_with_sizes(&sizes[..], 0).into_iter().zip(mean.split_with_sizes(&sizes[..], 0));
            parts.zip(buffers).for_each(|((change, before), buffer)| _ = buffer.sub_out(&change, &before));
        });
        self.sum(&mut change)?;
        no_grad(|| {
            let ranks = Tensor::from(self.group.world_size() as f32).to_device(mean.device());
            let _ = mean.addcdiv_(&change, &ranks);
            let parts = mean.split_with_sizes(&sizes[..], 0);
            parts.iter().zip(buffers).for_each(|(mean, buffer)| buffer.shallow_clone().copy_(mean));
        });
        self.average_running_stats(params)?;
        Ok(true)
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
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Init;
    use crate::optim::{Adam, Optimizer, OptimizerConfig, RmsProp, Sgd};
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

    /// Two ranks with the same values, or with others that differ by a constant.
    #[derive(Debug, Default)]
    struct Two {
        /// Whether gradients are summed where they are.
        on_device: bool,
        /// By how much the values of the other rank are greater.
        offset: f32,
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
            values.iter_mut().for_each(|x| *x = 2.0 * *x + self.offset);
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
            let tensor = tensor.downcast_mut::<Tensor>().unwrap();
            *tensor *= 2.0;
            *tensor += f64::from(self.offset);
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
        group::Config { gradient_precision: GradientPrecision::Fp32, overlap_exchange: false, local_updates: false };
    const OVERLAPPED: group::Config = group::Config { overlap_exchange: true, ..SYNCHRONOUS };
    const LOCAL: group::Config = group::Config { local_updates: true, ..SYNCHRONOUS };

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
            ours.set_group(Arc::new(group), combine, group::Config::default()).unwrap();
            let mut shard = params.shallow_clone();
            params.set_gradient(&gradient(0));
            shard.set_gradient(&gradient(0));
            alone.set_gradient(&(gradient(0) * factor));
            ours.step_sharded(&mut params, &[&shard], 0.1, 0.0).unwrap();
            theirs.step(&mut alone, 0.1, 0.0);
            assert_eq!(to_vec(params.master()), to_vec(alone.master()), "{on_device} {kind:?} {combine:?}");
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
            let join = |optimizer: &mut Optimizer| {
                optimizer.set_group(Arc::new(Two::default()), combine, OVERLAPPED).unwrap();
            };
            let ((mut ours, mut overlapped), (mut theirs, mut exact)) = (new(), new());
            join(&mut overlapped);
            for t in 0..6 {
                let expected = (t > 0).then(|| {
                    theirs.set_gradient(&(gradient(t - 1) * factor));
                    exact.step(&mut theirs, 0.01, 1.0)
                });
                assert_eq!(overlapped.step_pending(&mut ours, 0.01, 1.0).unwrap(), expected, "update {t}");
                ours.set_gradient(&gradient(t));
                assert_eq!(overlapped.step_sharded(&mut ours, &[], 0.01, 1.0).unwrap(), 0.0, "update {t}");
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
                    join(&mut overlapped);
                }
            }
        }
    }

    /// A gradient that is not finite is not saved.
    #[test]
    fn a_pending_gradient_that_is_not_finite_is_not_saved() {
        let mut params = params(Kind::Float);
        let mut optimizer = Optimizer::new(Sgd::default(), &params);
        optimizer.set_group(Arc::new(Two::default()), Combine::Mean, OVERLAPPED).unwrap();
        for (factor, saved) in [(1.0, true), (f64::NAN, false)] {
            params.set_gradient(&(gradient(0) * factor));
            optimizer.step_sharded(&mut params, &[], 0.01, 0.0).unwrap();
            optimizer.finish_exchange().unwrap();
            let mut snapshot = Snapshot::default();
            optimizer.save(&params, &mut snapshot);
            assert_eq!(snapshot.arrays.keys().any(|name| name.starts_with(PENDING)), saved);
            let norm = optimizer.step_pending(&mut params, 0.01, 0.0).unwrap();
            assert_eq!(norm.is_some_and(f64::is_finite), saved);
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
            optimizer.set_group(group, Combine::Mean, config).unwrap();
            let mut snapshot = Snapshot::default();
            optimizer.save(&params, &mut snapshot);
            assert!(snapshot.arrays.keys().all(|name| !name.starts_with(PENDING)));
            assert_eq!(optimizer.step_pending(&mut params, 0.01, 0.0).unwrap(), None);
        }
    }

    /// With local updates, steps are those of one process. Then parameters, state and running statistics become the mean of two ranks, of
    /// which the other has changed each of them by 0.5 more: 0.25 more than alone. Where nothing was stepped, nothing is averaged.
    #[test]
    fn local_updates_end_with_the_mean() {
        let rules: [OptimizerConfig; 3] = [Adam::default().into(), Sgd::default().into(), RmsProp::tensorflow().into()];
        let cases = [(false, Kind::Float), (true, Kind::Float), (false, Kind::BFloat16)];
        for (rule, (on_device, kind)) in rules.iter().flat_map(|rule| cases.map(|case| (rule, case))) {
            let (mut ours, mut theirs) = (params(kind), params(kind));
            let [mut local, mut alone] = [&ours, &theirs].map(|params| Optimizer::new(rule.clone(), params));
            let group = Two { on_device, offset: 0.5, ..Two::default() };
            local.set_group(Arc::new(group), Combine::Mean, LOCAL).unwrap();
            for rollout in 0..2 {
                for t in 0..3 {
                    [&mut ours, &mut theirs].iter_mut().for_each(|params| params.set_gradient(&gradient(rollout + t)));
                    let [our_shard, their_shard] = [&ours, &theirs].map(|params| {
                        let mut shard = params.shallow_clone();
                        shard.set_gradient(&gradient(t));
                        shard
                    });
                    let norm = local.step_sharded(&mut ours, &[&our_shard], 0.01, 1.0).unwrap();
                    assert_eq!(norm, alone.step_sharded(&mut theirs, &[&their_shard], 0.01, 1.0).unwrap());
                }
                assert_eq!(to_vec(ours.master()), to_vec(theirs.master()), "rollout {rollout}");
                local.average(&mut ours).unwrap();
                let mut expected: Vec<f32> = to_vec(theirs.master());
                expected.iter_mut().for_each(|x| *x += 0.25);
                let (updates, mut state) = alone.statistics();
                state.iter_mut().flatten().for_each(|x| *x += 0.25);
                let found = local.statistics();
                let pairs = [
                    (to_vec(ours.master()), &expected),
                    (found.1[0].clone(), &state[0]),
                    (found.1[1].clone(), &state[1]),
                ];
                for (found, expected) in pairs {
                    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, {expected:?}");
                }
                assert_eq!(found.0, updates);
                // One of the ranks' running statistics has an offset of 0.5, each time.
                let running = vec![1.5 + 0.25 * (rollout + 1) as f32; RUNNING as usize];
                assert_eq!(to_vec(ours.running_stats()), running);
                assert_eq!(to_vec(ours.flat()), to_vec(&ours.master().to_kind(kind)), "what layers compute with");
                let before = to_vec(ours.master());
                local.average(&mut ours).unwrap();
                assert_eq!(to_vec(ours.master()), before);
                no_grad(|| theirs.master().shallow_clone().copy_(ours.master()));
                theirs.mark_updated();
                alone.set_statistics(updates, found.1.each_ref().map(|state| &state[..]));
            }
        }
    }

    /// A mean of squares that has fallen to 0, of which bf16 has rounded the change up, stays at 0.
    #[test]
    fn means_of_squares_are_not_negative() {
        let mut params = params(Kind::Float);
        let mut optimizer = Optimizer::new(Adam::default(), &params);
        // The changes of both ranks together are greater by a hundredth than their own.
        optimizer.set_group(Arc::new(Two { offset: -0.01, ..Two::default() }), Combine::Mean, LOCAL).unwrap();
        optimizer.set_statistics(1, [&[0.0; LEN as usize], &[0.0; LEN as usize]]);
        params.set_gradient(&(gradient(0) * 0.0));
        optimizer.step_sharded(&mut params, &[], 0.01, 0.0).unwrap();
        optimizer.average(&mut params).unwrap();
        let (_, [squares, means]) = optimizer.statistics();
        assert!(squares.iter().all(|x| *x == 0.0) && means.iter().all(|x| *x == -0.005));
    }

    #[test]
    fn sums_on_devices_do_not_overlap() {
        let mut optimizer = Optimizer::new(Sgd::default(), &params(Kind::Float));
        let group = Arc::new(Two { on_device: true, ..Two::default() });
        let error = optimizer.set_group(group, Combine::Mean, OVERLAPPED).unwrap_err();
        assert!(
            matches!(error, Error::Config(_)) && error.to_string().contains("`distributed.overlap_exchange`"),
            "{error}"
        );
    }
}
