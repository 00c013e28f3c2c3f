//! Observations to features: the boundary between kernels, threads and autograd.
//!
//! [`FeatureExtractor::forward`] computes the features of a batch by libtorch or by playfield's own kernels, on one thread or on
//! several; a network's remaining layers and its loss are recorded by autograd from the features on. [`backward`] is the one backward
//! pass: autograd's down to the features, then each thread's below them.
//!
//! ```text
//! batch ┬ torso, thread 0 ─┬ features ── heads, loss ── gradient of features ┬ torso backward, thread 0 ─┬ Σ gradients
//!       └ torso, thread 1 ─┘  (a leaf)                                       └ torso backward, thread 1 ─┘
//! ```
//!
//! [`FeatureExtractor::forward_heads`] continues to linear heads. Where playfield's kernels compute the features they compute these, too, and the
//! leaves are their outputs or what an [`EvaluatedActions`](super::evaluated_actions::EvaluatedActions) computes of them: autograd records the loss alone, and each
//! thread's backward pass begins with its part of the outputs.
//!
//! Where one thread computes by libtorch, and its passes are not [captured](super::captured), features are no leaf: autograd's pass
//! reaches the torso by itself.

use super::captured::CapturedTorso;
use super::config::Kernels;
use super::dispatch::{Dispatch, Path};
use super::evaluated_actions::CategoricalLeaf;
use super::input::Input;
use super::own_kernels::OwnKernels;
use super::torso::Torso;
use crate::cuda_graph::{self, NewGraph};
use crate::export::Exporter;
use crate::layers::linear::Linear;
use crate::observations::{Indexed, Observations};
use crate::params::{Params, to_vec};
use crate::pass::Pass;
use crate::sharding::{Shards, split};
use playfield_core::graph::Value;
use playfield_core::{Obs, ObsRef, Result};
use std::mem::take;
use std::ops::Range;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor, no_grad};

/// The fewest batch elements that are worth a thread.
const MIN_SHARD: usize = 4;

/// The most outputs of heads that the own kernels compute: they read all weights for each batch element, on the calling thread. Atari has 19.
const MAX_OUTPUTS: usize = 32;

/// A [`Torso`] with its input, its kernels and its threads.
#[derive(Debug)]
pub(super) struct FeatureExtractor {
    local: Local,
    /// What the other threads compute with.
    shards: Shards<Shard>,
    /// The last training pass, until its backward pass.
    trained: Option<Trained>,
    /// How many shards have a gradient from the last backward pass.
    with_gradient: usize,
}

/// What one thread computes with.
#[derive(Debug)]
struct Local {
    torso: Torso,
    input: Input,
    /// Where they support the torso.
    own: Option<Box<OwnKernels>>,
    /// On a CUDA device.
    captured: Option<CapturedTorso>,
    dispatch: Dispatch,
    /// The observations of the last batch that was [`Indexed`], for libtorch.
    gathered: Obs,
}

/// Another thread's part of a batch.
#[derive(Debug)]
struct Shard {
    params: Params,
    local: Local,
    /// The result of a forward pass; the argument of a backward pass.
    features: Option<Features>,
    /// Of its part of each leaf, for a backward pass.
    gradients: Vec<Tensor>,
}

/// The features of one thread.
#[derive(Debug)]
enum Features {
    /// By playfield's own kernels, `[n · width]`.
    Own(Vec<f32>),
    /// By libtorch, eagerly or captured, `[n, width]`.
    Libtorch(Tensor),
    Captured(Tensor),
}

impl Features {
    /// As a tensor `[n, width]`.
    fn to_tensor(&self, n: usize) -> Tensor {
        match self {
            Self::Own(values) => Tensor::from_slice(values).view([n as i64, -1]),
            Self::Libtorch(values) | Self::Captured(values) => values.shallow_clone(),
        }
    }

    /// Of the own kernels.
    fn own(&self) -> Option<&[f32]> {
        if let Self::Own(values) = self { Some(values) } else { None }
    }
}

/// Where autograd's backward pass ends.
#[derive(Debug)]
pub(super) enum Leaf {
    /// At the features, or at the output of a head, `[n, outputs]`.
    Output(Tensor),
    /// At what was computed from the output of a policy head.
    Categorical(CategoricalLeaf),
}

impl Leaf {
    /// Whether the loss depends on it.
    fn has_gradient(&self) -> bool {
        match self {
            Self::Output(output) => output.grad().defined(),
            Self::Categorical(categorical) => categorical.has_gradient(),
        }
    }

    /// The gradient of the features or the output, zeros where the loss does not depend on it.
    fn gradient(&self) -> Tensor {
        match self {
            Self::Output(output) if self.has_gradient() => output.grad(),
            Self::Output(output) => output.zeros_like(),
            Self::Categorical(categorical) => categorical.gradient(),
        }
    }
}

/// A training pass whose results are leaves of autograd.
#[derive(Debug)]
struct Trained {
    /// The features or, where there are heads, the output of each.
    leaves: Vec<Leaf>,
    /// The heads that were computed with the features.
    heads: Vec<Linear>,
    /// The parts of all threads, the calling thread's first.
    parts: Vec<Features>,
}

impl FeatureExtractor {
    /// `torso`, whose parameters are among `params`, on one thread; `dispatch` chooses its kernels.
    pub fn new(torso: Torso, input: Input, params: &Params, dispatch: Dispatch) -> Self {
        let new_graph = cuda_graph::on(params.master().device());
        Local::new(torso, input, params, dispatch).captured_by(new_graph, params).into()
    }

    /// The same over `params`, which have the same layout, with buffers of its own, on one thread. Passes are not captured: many copies are made
    /// for one evaluation only.
    pub fn over(&self, params: &Params) -> Self {
        self.local.over(params).into()
    }

    /// Its layers.
    pub fn torso(&self) -> &Torso {
        &self.local.torso
    }

    /// Whether playfield's own kernels support it.
    pub fn has_own_kernels(&self) -> bool {
        self.local.own.is_some()
    }

    /// Chooses its kernels.
    pub fn dispatch(&self) -> &Dispatch {
        &self.local.dispatch
    }

    /// Splits every batch among `threads` threads from now on, where that is faster: convolutional torsos on the CPU. Batch norm
    /// needs the whole batch on one thread.
    pub fn set_num_threads(&mut self, params: &Params, threads: usize) {
        let torso = self.torso();
        let parallel = torso.is_convolutional() && !torso.uses_batch_statistics();
        let threads = if parallel && params.master().device() == Device::Cpu { threads } else { 1 };
        let shard = |params: Params| {
            let mut local = self.local.over(&params);
            if let (Some(own), Some(first)) = (&mut local.own, &self.local.own) {
                own.share_cache(first);
            }
            Shard { local, params, features: None, gradients: Vec::new() }
        };
        self.shards = Shards::new((1..threads).map(|_| shard(params.shallow_clone())).collect());
        (self.trained, self.with_gradient) = (None, 0);
    }

    /// The duration of a forward pass on one thread and, in training, a backward pass.
    pub fn time(&mut self, params: &mut Params, obs: ObsRef<'_>, n: usize, pass: Pass) -> Duration {
        self.local.time(params, obs.into(), n, pass)
    }

    /// The features of `n` observations, `[n, width]`. After [`Pass::Train`], [`backward`] may follow.
    ///
    /// # Panics
    /// If `obs` is not `n` observations: a bug of the caller.
    pub fn forward(&mut self, params: &Params, obs: Observations<'_>, n: usize, pass: Pass) -> Tensor {
        let parts = self.compute(params, obs, n, pass);
        self.join(parts, n, pass)
    }

    /// The output of each of `heads`, layers in full precision, on these features, `[n, outputs]`. After [`Pass::Train`], [`backward`] may
    /// follow.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_heads(
        &mut self,
        heads: &[Linear],
        params: &Params,
        obs: Observations<'_>,
        n: usize,
        pass: Pass,
    ) -> Vec<Tensor> {
        let parts = self.compute(params, obs, n, pass);
        let own: Option<Vec<_>> = parts.iter().map(Features::own).collect();
        let width: usize = heads.iter().map(|head| params.shape(head.slots().1)[0]).sum();
        let Some(own) = own.filter(|_| width <= MAX_OUTPUTS) else {
            let features = self.join(parts, n, pass);
            return pass.run(|| heads.iter().map(|head| head.forward(params.weights(), &features)).collect());
        };
        let output = |head: &Linear| {
            let values: Vec<_> = own.iter().flat_map(|features| head.outputs(params, features)).collect();
            Tensor::from_slice(&values).view([n as i64, -1])
        };
        let outputs: Vec<_> = heads.iter().map(output).collect();
        if pass == Pass::Infer {
            return outputs;
        }
        let outputs: Vec<_> = outputs.into_iter().map(|output| output.set_requires_grad(true)).collect();
        let leaves = outputs.iter().map(|output| Leaf::Output(output.shallow_clone())).collect();
        self.trained = Some(Trained { leaves, heads: heads.to_vec(), parts });
        outputs
    }

    /// The leaf at the output of head `i` in the last training pass, where the own kernels computed the heads: to be replaced by what is computed
    /// from it.
    pub fn output_leaf(&mut self, i: usize) -> Option<&mut Leaf> {
        let trained = self.trained.as_mut().filter(|trained| !trained.heads.is_empty())?;
        trained.leaves.get_mut(i)
    }

    /// The features of all parts, `[n, width]`, a leaf of autograd where it does not reach the torso.
    fn join(&mut self, parts: Vec<Features>, n: usize, pass: Pass) -> Tensor {
        let features = match &parts[..] {
            [Features::Libtorch(values)] => return values.shallow_clone(),
            [part] => part.to_tensor(n),
            parts => {
                let sizes = split(n, parts.len()).map(|part| part.len());
                let parts: Vec<_> = parts.iter().zip(sizes).map(|(part, n)| part.to_tensor(n)).collect();
                no_grad(|| Tensor::cat(&parts, 0))
            }
        };
        if pass == Pass::Infer {
            return features;
        }
        let leaf = features.set_requires_grad(true);
        self.trained = Some(Trained { leaves: vec![Leaf::Output(leaf.shallow_clone())], heads: Vec::new(), parts });
        leaf
    }

    /// The features of each thread's part of `n` observations. A training pass ends the one before.
    fn compute(&mut self, params: &Params, obs: Observations<'_>, n: usize, pass: Pass) -> Vec<Features> {
        if pass == Pass::Train {
            self.trained = None;
        }
        match obs {
            Observations::Host(obs) => {
                let len = obs.len() / n.max(1);
                self.forward_parts(params, n, pass, |part| obs.slice(part.start * len, part.len() * len).into())
            }
            Observations::Indexed(all) => {
                assert_eq!(all.indices.len(), n, "`obs` must hold {n} observations");
                self.forward_parts(params, n, pass, |part| {
                    Observations::Indexed(Indexed { indices: &all.indices[part], ..all })
                })
            }
            Observations::Device(_) => vec![self.local.forward(params, (obs, n), pass)],
        }
    }

    /// The features of each thread's part of `n` observations, the calling thread's first.
    fn forward_parts<'a>(
        &mut self,
        params: &Params,
        n: usize,
        pass: Pass,
        part: impl Fn(Range<usize>) -> Observations<'a> + Sync,
    ) -> Vec<Features> {
        let Self { local, shards, .. } = self;
        let count = (n / MIN_SHARD).clamp(1, 1 + shards.as_slice().len());
        let ranges: Vec<_> = split(n, count).collect();
        let part = |i: usize| (part(ranges[i].clone()), ranges[i].len());
        let mut own = None;
        shards.run(
            count - 1,
            || own = Some(local.forward(params, part(0), pass)),
            |i, shard| shard.features = Some(shard.local.forward(&shard.params, part(i + 1), pass)),
        );
        let others = shards.as_mut_slice().iter_mut().take(count - 1).filter_map(|shard| shard.features.take());
        own.into_iter().chain(others).collect()
    }

    /// What [`backward`](Self::backward) sets of the flat gradient, whatever it was: the torso's and the heads' where autograd does not reach
    /// them.
    fn sets(&self, params: &Params) -> Vec<Range<usize>> {
        match &self.trained {
            Some(Trained { heads, parts, .. }) if !matches!(parts[0], Features::Libtorch(_)) => {
                ranges(self.torso(), heads, params)
            }
            _ => Vec::new(),
        }
    }

    /// The part of [`backward`] below the leaves.
    fn backward(&mut self, params: &mut Params) {
        let sets = self.sets(params);
        let Self { local, shards, trained, with_gradient } = self;
        *with_gradient = 0;
        // A loss that does not depend on the leaves gives them no gradient.
        let depends = |trained: &Trained| trained.leaves.iter().any(Leaf::has_gradient);
        let Some(Trained { leaves, heads, parts }) = trained.take().filter(depends) else {
            return sets.into_iter().for_each(|range| params.zero_gradient_in(range));
        };
        *with_gradient = parts.len() - 1;
        let of_leaves: Vec<_> = leaves.iter().map(Leaf::gradient).collect();
        let n = of_leaves[0].size()[0] as usize;
        let sizes: Vec<_> = split(n, parts.len()).map(|part| part.len() as i64).collect();
        let mut gradients: Vec<Vec<Tensor>> = parts.iter().map(|_| Vec::new()).collect();
        for gradient in of_leaves {
            gradients.iter_mut().zip(gradient.split_with_sizes(&sizes[..], 0)).for_each(|(all, part)| all.push(part));
        }
        let set_by_kernels = ranges(&local.torso, &heads, params);
        let mut parts = parts.into_iter().zip(gradients);
        let (own, own_gradients) = parts.next().expect("the calling thread's part");
        for (shard, (features, gradients)) in shards.as_mut_slice().iter_mut().zip(parts) {
            (shard.features, shard.gradients) = (Some(features), gradients);
        }
        shards.run(
            *with_gradient,
            || local.backward(params, &heads, own, &own_gradients),
            |_, Shard { params, local, features, gradients }| {
                let features = features.take().expect("features of the forward pass");
                // What this pass does not set may be of an earlier one.
                params.zero_gradient_except(if features.own().is_some() { &set_by_kernels } else { &[] });
                local.backward(params, &heads, features, gradients);
            },
        );
    }

    /// What holds the other threads' gradients of the last backward pass.
    pub fn shards_with_gradient(&self) -> Vec<&Params> {
        self.shards.as_slice()[..self.with_gradient].iter().map(|shard| &shard.params).collect()
    }

    /// Adds input and torso to a graph.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) for observations with several parts.
    pub fn export(&self, e: &mut Exporter<'_>, obs: Value) -> Result<Value> {
        let x = self.local.input.export(e, obs)?;
        Ok(self.torso().export(e, x))
    }

    /// Folds every batch norm into the layer before it: see [`norm::fold`](crate::norm::fold()).
    pub fn fold(&mut self, params: &mut Params) {
        self.local.torso.fold(params);
        *self = self.over(params);
    }
}

/// The parameters of `torso` and `heads` in the flat buffers, which ascend.
fn ranges(torso: &Torso, heads: &[Linear], params: &Params) -> Vec<Range<usize>> {
    let heads = heads.iter().map(Linear::slots).flat_map(|(weight, bias)| [weight, bias]);
    let mut ranges: Vec<_> = torso.ranges(params).into_iter().chain(heads.map(|slot| params.range(slot))).collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// Sets the gradient of `params` to that of `loss` (a scalar), which depends on the features of `extractors` or on heads on them. Gradients of other
/// threads' parts stay with them: see [`FeatureExtractor::shards_with_gradient`].
pub(super) fn backward<'a>(
    extractors: impl IntoIterator<Item = &'a mut FeatureExtractor>,
    params: &mut Params,
    loss: &Tensor,
) {
    let extractors: Vec<_> = extractors.into_iter().collect();
    let mut sets: Vec<_> = extractors.iter().flat_map(|extractor| extractor.sets(params)).collect();
    sets.sort_by_key(|range| range.start);
    params.zero_gradient_except(&sets);
    loss.backward();
    extractors.into_iter().for_each(|extractor| extractor.backward(params));
}

impl From<Local> for FeatureExtractor {
    fn from(local: Local) -> Self {
        Self { local, shards: Shards::new(Vec::new()), trained: None, with_gradient: 0 }
    }
}

impl Local {
    fn new(torso: Torso, input: Input, params: &Params, dispatch: Dispatch) -> Self {
        let own = input.image().and_then(|image| OwnKernels::new(&torso, params, image)).map(Box::new);
        Self { torso, input, own, captured: None, dispatch, gathered: Obs::default() }
    }

    /// Captures passes as graphs that `new_graph` makes, where there is one and the torso allows it.
    fn captured_by(mut self, new_graph: Option<NewGraph>, params: &Params) -> Self {
        let new_graph = new_graph.filter(|_| self.dispatch.may_capture());
        self.captured = new_graph.and_then(|new_graph| CapturedTorso::new(&self.torso, params, new_graph));
        self
    }

    fn over(&self, params: &Params) -> Self {
        Self::new(self.torso.clone(), self.input.deep_clone(), params, self.dispatch.clone())
    }

    fn forward(&mut self, params: &Params, (obs, n): (Observations<'_>, usize), pass: Pass) -> Features {
        if self.own.is_some()
            && let Some(frames) = obs.frames(n)
            && self.path(params, obs, n, pass) == Path::Own
            && let Some(own) = &mut self.own
        {
            return Features::Own(own.forward(params, self.input.scaling(), &frames, pass));
        }
        let mut gathered = take(&mut self.gathered);
        let input = self.input.load(obs.contiguous(&mut gathered), n, pass);
        self.gathered = gathered;
        let Self { torso, captured, .. } = self;
        match captured.as_mut().and_then(|captured| captured.forward(torso, params, &input, pass)) {
            Some(values) => Features::Captured(values),
            None => Features::Libtorch(pass.run(|| torso.forward(params.weights(), &input, pass))),
        }
    }

    /// Sets the part of the gradient of `params` that is the torso's and, where there are `heads`, theirs, from `gradients`: of the features, or
    /// of the output of each head.
    fn backward(&mut self, params: &mut Params, heads: &[Linear], features: Features, gradients: &[Tensor]) {
        match (&mut self.own, features) {
            (Some(own), Features::Own(features)) => {
                let gradient = match heads {
                    [] => to_vec(&gradients[0]),
                    heads => {
                        let mut sum = vec![0.0; features.len()];
                        for (head, gradient) in heads.iter().zip(gradients) {
                            head.backward(params, &features, &to_vec(gradient), &mut sum);
                        }
                        sum
                    }
                };
                own.backward(params, self.input.scaling(), &gradient);
            }
            (_, Features::Captured(_)) => {
                self.captured.iter_mut().for_each(|captured| captured.backward(&self.torso, &gradients[0]));
            }
            // The gradient of Σ features · g is g.
            (_, features) => {
                (features.to_tensor(gradients[0].size()[0] as usize) * &gradients[0]).sum(Kind::Float).backward()
            }
        }
    }

    /// Which path computes `n` observations. A copy of the torso measures it where that is not known.
    fn path(&self, params: &Params, obs: Observations<'_>, n: usize, pass: Pass) -> Path {
        let mut copies = None;
        self.dispatch.path(n, pass, |path| {
            let (params, copies) = copies.get_or_insert_with(|| {
                let params = params.deep_clone();
                let fixed = |kernels| Self { dispatch: Dispatch::new(kernels), ..self.over(&params) };
                let copies = [fixed(Kernels::Own), fixed(Kernels::Libtorch)];
                (params, copies)
            });
            copies[usize::from(path == Path::Libtorch)].time(params, obs, n, pass)
        })
    }

    /// The duration of a forward pass on observations that it does not know and, in training, a backward pass.
    fn time(&mut self, params: &mut Params, obs: Observations<'_>, n: usize, pass: Pass) -> Duration {
        self.own.iter_mut().for_each(|own| own.forget());
        let start = Instant::now();
        let features = self.forward(params, (obs, n), pass);
        if pass == Pass::Train {
            let gradient = features.to_tensor(n).detach().ones_like();
            self.backward(params, &[], features, &[gradient]);
        }
        start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{NetworkConfig, NormKind, Precision, TorsoKind};
    use super::*;
    use crate::cuda_graph::{Graph, Result};
    use crate::params::Builder;
    use playfield_core::{ActionSpace, Dtype, EnvSpec, notices, rng};
    use std::cell::Cell;

    /// A stand-in without a device: executes the operations each time, the first time twice.
    #[derive(Debug, Default)]
    struct Eager {
        is_captured: bool,
    }

    impl Graph for Eager {
        fn run(&mut self, operations: &mut dyn FnMut()) -> Result<()> {
            if !std::mem::replace(&mut self.is_captured, true) {
                operations();
            }
            RUNS.set(RUNS.get() + 1);
            operations();
            Ok(())
        }
    }

    /// A device that cannot capture.
    #[derive(Debug)]
    struct Failing;

    impl Graph for Failing {
        fn run(&mut self, operations: &mut dyn FnMut()) -> Result<()> {
            operations();
            Err("out of memory".into())
        }
    }

    thread_local! {
        /// Runs of [`Eager`].
        static RUNS: Cell<usize> = const { Cell::new(0) };
        /// Graphs of [`second_fails`].
        static GRAPHS: Cell<usize> = const { Cell::new(0) };
    }

    fn eager(_: Device) -> Result<Box<dyn Graph>> {
        Ok(Box::new(Eager::default()))
    }

    fn no_graph(_: Device) -> Result<Box<dyn Graph>> {
        Err("no driver".into())
    }

    fn failing(_: Device) -> Result<Box<dyn Graph>> {
        Ok(Box::new(Failing))
    }

    /// Captures forward passes, and fails in backward passes.
    fn second_fails(device: Device) -> Result<Box<dyn Graph>> {
        GRAPHS.set(GRAPHS.get() + 1);
        if GRAPHS.get().is_multiple_of(2) { failing(device) } else { eager(device) }
    }

    /// Features in training and inference and the gradient of 5 steps of gradient descent on 3 observations each, and of one on 2.
    fn steps(config: &NetworkConfig, new_graph: Option<NewGraph>) -> Vec<Vec<f32>> {
        let spec = EnvSpec::new("t", &[36, 36], Dtype::U8, ActionSpace::Discrete { n: 2 });
        let (device, init) = (Device::Cpu, &mut rng::stream(1, "init"));
        let kind = if config.precision == Precision::Bf16 { Kind::BFloat16 } else { Kind::Float };
        let mut b = Builder::new(init);
        let torso = Torso::new(&mut b, config, &spec).unwrap();
        let mut params = b.finish(device, kind);
        let input = Input::new(config, &spec, true, device, kind).unwrap();
        let local = Local::new(torso, input, &params, Dispatch::new(config.kernels)).captured_by(new_graph, &params);
        let mut extractor = FeatureExtractor::from(local);
        let mut results = Vec::new();
        for (t, n) in [3, 3, 3, 2, 3, 3].into_iter().enumerate() {
            let frames: Vec<u8> = (0..n * 36 * 36).map(|i| (i * (7 + t) % 251) as u8).collect();
            let frames = Tensor::from_slice(&frames).view([n as i64, 36, 36, 1]);
            results.push(to_vec(&extractor.forward(&params, Observations::Device(&frames), n, Pass::Infer)));
            let features = extractor.forward(&params, Observations::Device(&frames), n, Pass::Train);
            results.push(to_vec(&features.detach()));
            backward([&mut extractor], &mut params, &features.square().sum(Kind::Float));
            results.push(to_vec(&params.gradient()));
            no_grad(|| _ = params.master().shallow_clone().subtract_(&(params.gradient() * 1e-3)));
            params.mark_updated();
        }
        results
    }

    /// Captured passes equal eager ones, bit for bit, and so do the passes of a network whose graphs fail.
    #[test]
    fn captured_passes_change_no_result() {
        for (norm, precision) in [(NormKind::None, Precision::Bf16), (NormKind::Layer, Precision::Fp32)] {
            let config = NetworkConfig { torso: TorsoKind::Small, norm, precision, ..NetworkConfig::default() };
            let expected = steps(&config, None);
            assert!(expected[2].iter().any(|&g| g != 0.0) && expected[2] != expected[5]);
            RUNS.set(0);
            notices::take();
            assert_eq!(steps(&config, Some(eager)), expected);
            // The third to fifth time that a batch of 3 occurs: two forward passes and a backward pass each.
            assert_eq!(RUNS.get(), 9);
            let told = notices::take().join("\n");
            assert!(told.contains("CUDA graph for forward and backward, batch size 3"), "{told}");
            for new_graph in [no_graph as NewGraph, failing, second_fails] {
                assert_eq!(steps(&config, Some(new_graph)), expected);
                let told = notices::take().join("\n");
                assert_eq!(told.matches("a CUDA graph failed").count(), 1, "{told}");
            }
        }
    }

    /// Batch norm changes running statistics, and a setting may fix the path: then nothing is captured.
    #[test]
    fn some_passes_are_not_captured() {
        RUNS.set(0);
        for (norm, kernels) in [(NormKind::Batch, Kernels::Auto), (NormKind::None, Kernels::Libtorch)] {
            let config = NetworkConfig { torso: TorsoKind::Small, norm, kernels, ..NetworkConfig::default() };
            steps(&config, Some(eager));
            assert_eq!(RUNS.get(), 0);
        }
    }
}
