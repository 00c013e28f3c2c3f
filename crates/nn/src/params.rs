//! One flat tensor for all parameters of a network, and the views that layers compute with.
//!
//! ```text
//! master   f32           | conv1.weight | conv1.bias | … ‖ policy.weight | …     what the optimizer steps, checkpoints hold
//! weights  f32 or bf16   the same segments               ‖ f32                   what layers compute with; autograd's leaves
//! grads    like weights                                                          where autograd accumulates, in place
//! running  f32           | norm1.running_mean | norm1.running_var | …            batch norm's running statistics
//! ```
//!
//! In `f32` the weights *are* the master. In bf16 they are a second buffer, cast once per update rather than once per
//! forward pass, up to the first full-precision segment (‖): the last layers of a network, whose outputs are compared and
//! subtracted, compute in `f32` from the master itself. Segments are aligned to 64 bytes. Convolution weights are channels-last
//! (O, H, W, I), the layout in which convolutions run fastest; checkpoints hold PyTorch's (O, I, H, W).
//!
//! Autograd accumulates into the flat gradient: an empty backward pass gives every leaf a gradient once, whose storage is then
//! replaced by a view of the flat one. A model of bare layers trains as in PyTorch: [`zero_gradient`](Params::zero_gradient),
//! `loss.backward()`. A network of [`crate::networks`] has a `backward` of its own, because its feature extractor may compute outside
//! of autograd.

use crate::init::Init;
use crate::tensor::{TensorElement, slice};
use playfield_core::rng::Rng;
use playfield_core::{Array, Error, Group, Result, Snapshot, memory};
use playfield_kernels::bf16;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tch::{Device, Kind, Tensor, no_grad};

pub use crate::tensor::to_vec;

/// Alignment of segments: 64 bytes in bf16, the smallest element.
const ALIGN: i64 = 32;

/// A parameter of a network: an index into [`Weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// A running statistic of a network: another index into [`Weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running(usize);

/// The segments of the flat buffers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Layout {
    params: Vec<Segment>,
    running: Vec<Segment>,
    /// The offset of the first full-precision segment.
    full_precision: Option<i64>,
}

impl Layout {
    /// Elements of the flat buffers.
    fn len(&self) -> i64 {
        Segment::start_after(&self.params)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Segment {
    name: String,
    /// The canonical shape, as PyTorch has it.
    shape: Vec<i64>,
    offset: i64,
}

impl Segment {
    fn len(&self) -> i64 {
        self.shape.iter().product()
    }

    /// The offset of a segment after `before`.
    fn start_after(before: &[Self]) -> i64 {
        before.last().map_or(0, |s| (s.offset + s.len() + ALIGN - 1) / ALIGN * ALIGN)
    }

    /// The view of `flat` with the canonical shape, whatever the memory layout.
    fn view(&self, flat: &Tensor) -> Tensor {
        self.view_from(flat, 0)
    }

    /// The same of a buffer that holds the flat one from element `start`.
    fn view_from(&self, flat: &Tensor, start: usize) -> Tensor {
        let part = flat.narrow(0, self.offset - start as i64, self.len());
        match self.shape[..] {
            [o, i, h, w] => part.view([o, h, w, i]).permute([0, 3, 1, 2]),
            _ => part.view(&self.shape[..]),
        }
    }
}

/// Collects the parameters of a network under construction, with their initial values.
pub struct Builder<'a> {
    rng: &'a mut Rng,
    scope: Vec<String>,
    layout: Layout,
    values: Vec<Vec<f32>>,
    running: Vec<f32>,
}

impl<'a> Builder<'a> {
    /// An empty network whose initial values are sampled from `rng`.
    pub fn new(rng: &'a mut Rng) -> Self {
        Self { rng, scope: Vec::new(), layout: Layout::default(), values: Vec::new(), running: Vec::new() }
    }

    /// Builds a part whose parameters are named `name.…`.
    pub fn scope<T>(&mut self, name: &str, part: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(name.into());
        let built = part(self);
        self.scope.pop();
        built
    }

    /// Adds a parameter of canonical `shape` with initial values sampled by `init`.
    pub fn param(&mut self, name: &str, shape: &[i64], init: Init) -> Slot {
        let (name, offset) = (self.full(name), Segment::start_after(&self.layout.params));
        self.layout.params.push(Segment { name, shape: shape.to_vec(), offset });
        // Too large a network is an error of `check_memory`.
        let values = if self.check_memory().is_ok() { init.sample(shape, self.rng) } else { Vec::new() };
        self.values.push(values);
        Slot(self.layout.params.len() - 1)
    }

    /// Layers compute in `f32` with all parameters added from here on: see [the module](self).
    pub fn full_precision(&mut self) {
        self.layout.full_precision.get_or_insert(self.layout.len());
    }

    /// Adds `len` running statistics, initially `value`.
    pub fn running_stats(&mut self, name: &str, len: i64, value: f32) -> Running {
        let (name, offset) = (self.full(name), Segment::start_after(&self.layout.running));
        self.running.push(value);
        self.layout.running.push(Segment { name, shape: vec![len], offset });
        Running(self.layout.running.len() - 1)
    }

    fn full(&self, name: &str) -> String {
        self.scope.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
    }

    /// Checks that the machine has the memory of the parameters so far, of their gradients and of an optimizer's statistics.
    ///
    /// # Errors
    /// [`Error::Config`] with the number of parameters.
    pub fn check_memory(&self) -> Result<()> {
        let parameters = Segment::start_after(&self.layout.params) as u64;
        // Initial values, master, weights, gradient and two statistics, up to 4 bytes each. Small networks always fit.
        if parameters < 10_000_000 {
            return Ok(());
        }
        let what = format!("[network]: a network of {parameters} parameters");
        memory::require(&what, 24 * parameters, "lower `hidden` or `lstm`, or choose a smaller torso")
    }

    /// The parameters, on `device`, computing in `precision` (`Float` or `BFloat16`).
    pub fn finish(self, device: Device, precision: Kind) -> Params {
        let zeros = |segments: &[Segment]| Tensor::zeros([Segment::start_after(segments)], (Kind::Float, device));
        let (master, running) = (zeros(&self.layout.params), zeros(&self.layout.running));
        for (segment, values) in self.layout.params.iter().zip(&self.values) {
            segment.view(&master).copy_(&Tensor::from_slice(values).view(&segment.shape[..]));
        }
        for (segment, &value) in self.layout.running.iter().zip(&self.running) {
            let _ = segment.view(&running).fill_(f64::from(value));
        }
        Params::new(self.layout.into(), master, running, precision)
    }
}

/// The parameters, each in its canonical shape, and the running statistics, as layers compute with them.
#[derive(Debug)]
pub struct Weights {
    views: Vec<Tensor>,
    running: Vec<Tensor>,
}

impl Weights {
    /// The same values, in the same memory, as other leaves of autograd, without gradients.
    pub(crate) fn detached_leaves(&self) -> Self {
        let leaf = |view: &Tensor| view.detach().set_requires_grad(true);
        Self {
            views: self.views.iter().map(leaf).collect(),
            running: self.running.iter().map(Tensor::shallow_clone).collect(),
        }
    }
}

/// A contiguous part of the flat buffers with one precision.
#[derive(Debug)]
pub(crate) struct Part {
    /// Its elements in the flat buffers.
    pub range: Range<usize>,
    /// What layers compute with, one-dimensional. In `f32`: this part of the master.
    pub weights: Tensor,
    /// The gradient, of the same kind.
    pub grads: Tensor,
}

impl std::ops::Index<Slot> for Weights {
    type Output = Tensor;

    fn index(&self, slot: Slot) -> &Tensor {
        &self.views[slot.0]
    }
}

impl std::ops::Index<Running> for Weights {
    type Output = Tensor;

    fn index(&self, running: Running) -> &Tensor {
        &self.running[running.0]
    }
}

/// The parameters of a network and their gradient, and its running statistics.
#[derive(Debug)]
pub struct Params {
    layout: Arc<Layout>,
    master: Tensor,
    running: Tensor,
    weights: Weights,
    /// One in `f32`; in bf16 a second for the full-precision segments, if there are any. They cover the flat buffers.
    parts: Vec<Part>,
    /// Version of the values, common to all shallow clones.
    version: Arc<AtomicU64>,
}

impl Params {
    fn new(layout: Arc<Layout>, master: Tensor, running: Tensor, precision: Kind) -> Self {
        let (len, whole) = (layout.len(), precision == Kind::Float);
        let split = layout.full_precision.filter(|_| !whole).unwrap_or(len);
        let part = |start: i64, end: i64| master.narrow(0, start, end - start);
        let mut weights = vec![if whole { master.shallow_clone() } else { part(0, split).to_kind(precision) }];
        if split < len {
            weights.push(part(split, len));
        }
        Self::over(layout, master, running, weights)
    }

    /// Leaves and a new gradient over these buffers.
    fn over(layout: Arc<Layout>, master: Tensor, running: Tensor, weights: Vec<Tensor>) -> Self {
        let mut start = 0;
        let parts: Vec<_> = weights
            .into_iter()
            .map(|weights| {
                let range = start..start + weights.numel();
                start = range.end;
                Part { range, grads: weights.zeros_like(), weights }
            })
            .collect();
        let part =
            |s: &Segment| parts.iter().find(|p| p.range.contains(&(s.offset as usize))).expect("parts cover all");
        let leaf = |s: &Segment| {
            let Part { range, weights, .. } = part(s);
            s.view_from(&weights.detach(), range.start).detach().set_requires_grad(true)
        };
        let views: Vec<_> = layout.params.iter().map(leaf).collect();
        if !views.is_empty() {
            let sum =
                || Tensor::stack(&views.iter().map(|v| v.sum(Kind::Float)).collect::<Vec<_>>(), 0).sum(Kind::Float);
            tch::with_grad(|| sum().backward());
        }
        for (segment, view) in layout.params.iter().zip(&views) {
            let Part { range, grads, .. } = part(segment);
            view.grad().set_data(&segment.view_from(grads, range.start));
        }
        let weights = Weights { views, running: layout.running.iter().map(|s| s.view(&running)).collect() };
        Self { layout, master, running, weights, parts, version: Arc::new(next_version().into()) }
    }

    /// Globally unique version of the weights, replaced whenever they change. Use it to invalidate anything cached from them.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// Call this after changing the weights.
    pub(crate) fn mark_changed(&self) {
        self.version.store(next_version(), Relaxed);
    }

    /// A parameter's canonical shape.
    pub(crate) fn shape(&self, slot: Slot) -> Vec<usize> {
        self.layout.params[slot.0].shape.iter().map(|&d| d as usize).collect()
    }

    /// A parameter's canonical name.
    pub(crate) fn name(&self, slot: Slot) -> &str {
        &self.layout.params[slot.0].name
    }

    /// A parameter in its canonical shape, as [`named`](Self::named) has it.
    pub(crate) fn array(&self, slot: Slot) -> Array {
        array(&self.layout.params[slot.0], &self.master)
    }

    /// The name of a running statistic.
    pub(crate) fn running_name(&self, running: Running) -> &str {
        &self.layout.running[running.0].name
    }

    /// A running statistic.
    pub(crate) fn running_array(&self, running: Running) -> Array {
        array(&self.layout.running[running.0], &self.running)
    }

    /// A parameter's elements in the flat buffers.
    pub(crate) fn range(&self, slot: Slot) -> Range<usize> {
        let segment = &self.layout.params[slot.0];
        segment.offset as usize..(segment.offset + segment.len()) as usize
    }

    /// The parameters that lie in `ranges` of the flat buffers.
    pub(crate) fn slots_in(&self, ranges: &[Range<usize>]) -> Vec<Slot> {
        let slots = (0..self.layout.params.len()).map(Slot);
        slots.filter(|&slot| ranges.iter().any(|range| range.contains(&self.range(slot).start))).collect()
    }

    /// What layers compute with: leaves of autograd, unless inside [`tch::no_grad`].
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The flat `f32` parameters: change them only inside [`tch::no_grad`], then call
    /// [`mark_updated`](Self::mark_updated).
    pub fn master(&self) -> &Tensor {
        &self.master
    }

    /// One parameter in `f32`, in its canonical shape: a view of [`master`](Self::master), to which the same applies.
    pub fn param(&self, slot: Slot) -> Tensor {
        self.layout.params[slot.0].view(&self.master)
    }

    /// The flat `f32` running statistics; empty without batch norm.
    pub fn running_stats(&self) -> &Tensor {
        &self.running
    }

    /// The precision of all but the full-precision segments: `Float` or `BFloat16`.
    pub fn precision(&self) -> Kind {
        self.parts[0].weights.kind()
    }

    /// The flat buffers by precision.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Replaces the running statistics.
    ///
    /// # Panics
    /// If they are of another network: a bug of the caller.
    pub fn set_running_stats(&mut self, values: &[f32]) {
        if !values.is_empty() || self.running.numel() > 0 {
            no_grad(|| self.running.copy_(&Tensor::from_slice(values)));
        }
    }

    /// The elements of the first part, which layers compute with.
    ///
    /// # Panics
    /// If they are not on the CPU, or of another type: bugs of the caller.
    pub(crate) fn elements<T: TensorElement>(&self) -> &[T] {
        let flat = &self.parts[0].weights;
        assert!(flat.device() == Device::Cpu && flat.kind() == T::KIND, "weights are {:?}", flat.kind());
        // SAFETY: contiguous, as every buffer is, of this type and on the CPU. Nothing writes while layers compute.
        unsafe { std::slice::from_raw_parts(flat.data_ptr().cast(), flat.numel()) }
    }

    /// The same, and the elements of the gradient, to be written.
    pub(crate) fn elements_and_gradient<T: TensorElement>(&mut self) -> (&[T], &mut [T]) {
        // SAFETY: as above; `self` is borrowed exclusively, and the gradient is a buffer of its own.
        (self.elements(), unsafe { slice(&self.parts[0].grads) })
    }

    /// The elements of the last part, in `f32`, and the offset of the first in the flat buffers.
    ///
    /// # Panics
    /// If they are not on the CPU, or of another type: bugs of the caller.
    pub(crate) fn full_precision(&self) -> (&[f32], usize) {
        let Part { range, weights, .. } = self.parts.last().expect("parts cover all");
        assert!(weights.device() == Device::Cpu && weights.kind() == Kind::Float, "weights are {:?}", weights.kind());
        // SAFETY: contiguous, as every buffer is, of this type and on the CPU. Nothing writes while layers compute.
        (unsafe { std::slice::from_raw_parts(weights.data_ptr().cast(), weights.numel()) }, range.start)
    }

    /// The same, and the elements of the gradient, to be written.
    pub(crate) fn full_precision_and_gradient(&mut self) -> (&[f32], &mut [f32], usize) {
        let (weights, start) = self.full_precision();
        // SAFETY: as above; `self` is borrowed exclusively, and the gradient is a buffer of its own.
        (weights, unsafe { slice(&self.parts.last().expect("parts cover all").grads) }, start)
    }

    /// A copy of the flat gradient; that of bf16 weights as `f32`.
    pub fn gradient(&self) -> Tensor {
        let kind = if self.precision() == Kind::BFloat16 { Kind::Float } else { self.precision() };
        Tensor::cat(&self.parts.iter().map(|part| part.grads.to_kind(kind)).collect::<Vec<_>>(), 0)
    }

    /// The flat buffer that layers compute with, up to the full-precision segments: change it only inside [`tch::no_grad`].
    pub fn flat(&self) -> &Tensor {
        &self.parts[0].weights
    }

    /// Replaces the flat gradient.
    ///
    /// # Panics
    /// If `gradient` has another length: a bug of the caller.
    pub fn set_gradient(&mut self, gradient: &Tensor) {
        assert_eq!(gradient.numel() as i64, self.layout.len(), "a gradient of another network");
        for Part { range, grads, .. } in &self.parts {
            no_grad(|| grads.shallow_clone().copy_(&gradient.narrow(0, range.start as i64, range.len() as i64)));
        }
    }

    /// Sets the gradient to 0.
    pub fn zero_gradient(&mut self) {
        self.zero_gradient_except(&[]);
    }

    /// The same, except in `ranges` of the flat buffers, which ascend.
    pub(crate) fn zero_gradient_except(&mut self, ranges: &[Range<usize>]) {
        let starts = [0].into_iter().chain(ranges.iter().map(|range| range.end));
        let ends = ranges.iter().map(|range| range.start).chain([usize::MAX]);
        starts.zip(ends).for_each(|(start, end)| self.zero_gradient_in(start..end));
    }

    /// The same, in `range` of the flat buffers.
    pub(crate) fn zero_gradient_in(&mut self, range: Range<usize>) {
        for part in &self.parts {
            let (start, end) = (range.start.max(part.range.start), range.end.min(part.range.end));
            if start >= end {
                continue;
            }
            let mut grads = part.grads.narrow(0, (start - part.range.start) as i64, (end - start) as i64);
            // libtorch fills bf16 element by element.
            match grads.kind() {
                // SAFETY: contiguous, of this type and on the CPU; nothing else uses the gradient meanwhile.
                Kind::BFloat16 if grads.device() == Device::Cpu => unsafe { slice::<bf16>(&grads).fill(bf16::ZERO) },
                _ => no_grad(|| _ = grads.zero_()),
            }
        }
    }

    /// Call this after changing the master: copies it to the weights.
    pub fn mark_updated(&mut self) {
        if let Part { range, weights, .. } = &mut self.parts[0]
            && weights.kind() != Kind::Float
        {
            no_grad(|| weights.copy_(&self.master.narrow(0, 0, range.len() as i64)));
        }
        self.mark_changed();
    }

    /// The canonical name and shape of each parameter.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.layout.params.iter().map(|segment| (segment.name.as_str(), segment.shape.as_slice()))
    }

    /// The name of each matrix and convolution, its range in the flat buffers and the number of its rows, an output each.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = (&str, Range<usize>, usize)> {
        let segments = self.layout.params.iter().filter(|segment| segment.shape.len() > 1);
        segments.map(|s| (s.name.as_str(), s.offset as usize..(s.offset + s.len()) as usize, s.shape[0] as usize))
    }

    /// How many parameters the network has, padding excluded.
    pub fn count(&self) -> usize {
        self.layout.params.iter().map(|s| s.len() as usize).sum()
    }

    /// Updates a target network: p ← p + `rate`·(other − p), parameters and running statistics, of the same layout. A rate of 1 copies
    /// (Mnih et al. 2015), a smaller one is a soft update (Lillicrap et al. 2016).
    pub fn polyak_update(&mut self, other: &Self, rate: f64) {
        no_grad(|| {
            for (own, other) in [(&self.master, &other.master), (self.running_stats(), other.running_stats())] {
                let mut own = own.shallow_clone();
                match rate {
                    1.0 => own.copy_(other),
                    rate => _ = own.lerp_(other, rate),
                }
            }
        });
        self.mark_updated();
    }

    /// The same parameters, in the same memory, with a gradient of their own: for another thread, which may compute with them while
    /// no thread changes them.
    pub fn shallow_clone(&self) -> Self {
        let [master, running] = [&self.master, &self.running].map(Tensor::shallow_clone);
        let weights = self.parts.iter().map(|part| part.weights.shallow_clone()).collect();
        Self { version: self.version.clone(), ..Self::over(self.layout.clone(), master, running, weights) }
    }

    /// Copies the weights that layers compute with, and the running statistics, from `other`, of the same layout. The master stays.
    pub fn copy_from(&mut self, other: &Self) {
        no_grad(|| {
            for (own, other) in self.parts.iter_mut().zip(&other.parts) {
                own.weights.copy_(&other.weights);
            }
            self.running.copy_(&other.running);
        });
        self.mark_changed();
    }

    /// Replaces parameters and running statistics by those of rank 0 of `group`, which has the same network.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub fn broadcast(&mut self, group: &dyn Group) -> Result<()> {
        if group.is_distributed() {
            for flat in [&self.master, &self.running] {
                let mut bytes: Vec<u8> = to_vec(flat).into_iter().flat_map(f32::to_le_bytes).collect();
                group.broadcast(&mut bytes)?;
                let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
                let values: Vec<f32> = values.collect();
                if values.len() != flat.numel() {
                    let (own, theirs) = (flat.numel(), values.len());
                    return Err(Error::other(format!("rank 0 has {theirs} parameters, and this rank {own}")));
                }
                no_grad(|| flat.shallow_clone().copy_(&Tensor::from_slice(&values)));
            }
            self.mark_updated();
        }
        Ok(())
    }

    /// Sets elements of the master, from `start`; call [`mark_updated`](Self::mark_updated) afterwards.
    ///
    /// # Panics
    /// If the master is not on the CPU, or shorter: bugs of the caller.
    pub fn set_master(&mut self, start: usize, values: &[f32]) {
        assert!(self.master.device() == Device::Cpu && start + values.len() <= self.master.numel());
        // SAFETY: contiguous `f32` on the CPU, as every master is, and nothing else reads it during the call.
        let master = unsafe { slice::<f32>(&self.master) };
        master[start..start + values.len()].copy_from_slice(values);
        self.mark_changed();
    }

    /// A copy: other memory with the same layout, values and precision. Its layers compute the same, also where this one's weights were
    /// [copied](Self::copy_from) and are newer than its master.
    pub fn deep_clone(&self) -> Self {
        let mut clone = Self::new(self.layout.clone(), self.master.copy(), self.running.copy(), self.precision());
        clone.copy_from(self);
        clone
    }

    /// The segments of a flat `f32` buffer (the master, or an optimizer's statistics), by canonical name.
    pub fn named(&self, flat: &Tensor) -> BTreeMap<String, Array> {
        named(&self.layout.params, flat)
    }

    /// The elements of each parameter and of its gradient, by `parameters/NAME` and `gradients/NAME`: for histograms.
    pub fn histograms(&self) -> Vec<(String, Vec<f32>)> {
        let of = |kind: &str, flat: &Tensor| {
            let elements =
                |(name, array): (String, Array)| (format!("{kind}/{name}"), array.values().unwrap_or_default());
            self.named(flat).into_iter().map(elements).collect::<Vec<_>>()
        };
        [of("parameters", self.master()), of("gradients", &self.gradient())].concat()
    }

    /// Fills a flat buffer from named arrays.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_named(&self, arrays: &BTreeMap<String, Array>, flat: &Tensor) -> Result<()> {
        fill(&self.layout.params, arrays, flat)
    }

    /// Parameters and running statistics by canonical name: PyTorch's `state_dict`.
    pub fn state(&self) -> BTreeMap<String, Array> {
        let mut state = self.named(&self.master);
        state.extend(named(&self.layout.running, self.running_stats()));
        state
    }

    /// Restores what [`state`](Self::state) returned.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_state(&mut self, state: &BTreeMap<String, Array>) -> Result<()> {
        fill(&self.layout.params, state, &self.master)?;
        fill(&self.layout.running, state, self.running_stats())?;
        self.mark_updated();
        Ok(())
    }

    /// Writes parameters and running statistics into `snapshot`.
    pub fn save(&self, snapshot: &mut Snapshot) {
        snapshot.params = self.state();
    }

    /// Restores parameters and running statistics from `snapshot`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the first tensor that is missing, superfluous or of another shape.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        let names: Vec<_> = self.layout.params.iter().chain(&self.layout.running).map(|s| &s.name).collect();
        if let Some(extra) = snapshot.params.keys().find(|k| !names.contains(k)) {
            return Err(Error::checkpoint("model", format!("holds '{extra}', which this network does not have")));
        }
        self.load_state(&snapshot.params)
    }
}

/// A version that no other call returns.
fn next_version() -> u64 {
    static VERSIONS: AtomicU64 = AtomicU64::new(0);
    VERSIONS.fetch_add(1, Relaxed)
}

fn named(segments: &[Segment], flat: &Tensor) -> BTreeMap<String, Array> {
    let flat = flat.to_device(Device::Cpu);
    segments.iter().map(|s| (s.name.clone(), array(s, &flat))).collect()
}

fn array(s: &Segment, flat: &Tensor) -> Array {
    let values = to_vec(&s.view(flat).contiguous());
    Array::new(&s.shape.iter().map(|&d| d as usize).collect::<Vec<_>>(), &values)
}

fn fill(segments: &[Segment], arrays: &BTreeMap<String, Array>, flat: &Tensor) -> Result<()> {
    for s in segments {
        let wrong = |what: String| Error::checkpoint("model", format!("'{}' {what}: another network?", s.name));
        let array = arrays.get(&s.name).ok_or_else(|| wrong("is missing".into()))?;
        let shape: Vec<i64> = array.shape.iter().map(|&d| d as i64).collect();
        let values = array.values::<f32>().filter(|_| shape == s.shape);
        let values = values.ok_or_else(|| wrong(format!("has shape {shape:?}, not {:?}", s.shape)))?;
        no_grad(|| s.view(flat).copy_(&Tensor::from_slice(&values).view(&s.shape[..])));
    }
    Ok(())
}
