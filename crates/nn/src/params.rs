//! One flat tensor for all parameters of a network, and the views that layers compute with.
//!
//! ```text
//! master   f32   | conv1.weight | conv1.bias | conv2.weight | …      what the optimiser steps and checkpoints hold
//! weights  f32 or bf16, the same segments                            what layers compute with; leaves of autograd
//! grads    like weights                                              where autograd accumulates, in place
//! running  f32   | norm1.running_mean | norm1.running_var | …        what batch norm has seen; never stepped, never rounded
//! ```
//!
//! In `f32` the weights *are* the master. In bf16 they are a second buffer, cast once per update rather than once per
//! forward pass. Segments start on 64 bytes. Convolution weights lie as channels-last (O, H, W, I), the layout in which
//! convolutions run fastest; checkpoints hold PyTorch's (O, I, H, W).
//!
//! Autograd is made to accumulate into the flat gradient by giving every leaf a gradient once (an empty backward pass)
//! and pointing that gradient's storage at its view of the flat one.

use crate::init::Init;
use crate::simd::Number;
use playfield_core::rng::Rng;
use playfield_core::{Array, Error, Result, Snapshot};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tch::{Device, Kind, Tensor, no_grad};

/// 64 bytes, counted in the smallest element that a buffer holds (bf16).
const ALIGN: i64 = 32;

/// A parameter of a network: an index into [`Weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// A running statistic of a network: another index into [`Weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running(usize);

/// What lies where.
#[derive(Clone, Debug, Default, PartialEq)]
struct Layout {
    params: Vec<Segment>,
    running: Vec<Segment>,
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

    /// Where a segment may start in a buffer that holds `before`.
    fn start_after(before: &[Self]) -> i64 {
        before.last().map_or(0, |s| (s.offset + s.len() + ALIGN - 1) / ALIGN * ALIGN)
    }

    /// The view of `flat` with the canonical shape, whatever the order in memory.
    fn view(&self, flat: &Tensor) -> Tensor {
        let part = flat.narrow(0, self.offset, self.len());
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
    /// An empty network whose initial values are drawn from `rng`.
    pub fn new(rng: &'a mut Rng) -> Self {
        Self { rng, scope: Vec::new(), layout: Layout::default(), values: Vec::new(), running: Vec::new() }
    }

    /// Builds a part whose parameters are called `name.…`.
    pub fn scope<T>(&mut self, name: &str, part: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(name.into());
        let built = part(self);
        self.scope.pop();
        built
    }

    /// Adds a parameter of canonical `shape` with initial values drawn by `init`.
    pub fn param(&mut self, name: &str, shape: &[i64], init: Init) -> Slot {
        let (name, offset) = (self.full(name), Segment::start_after(&self.layout.params));
        self.values.push(init.draw(shape, self.rng));
        self.layout.params.push(Segment { name, shape: shape.to_vec(), offset });
        Slot(self.layout.params.len() - 1)
    }

    /// Adds `len` running statistics that start at `value`.
    pub fn running(&mut self, name: &str, len: i64, value: f32) -> Running {
        let (name, offset) = (self.full(name), Segment::start_after(&self.layout.running));
        self.running.push(value);
        self.layout.running.push(Segment { name, shape: vec![len], offset });
        Running(self.layout.running.len() - 1)
    }

    fn full(&self, name: &str) -> String {
        self.scope.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
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

/// Views of one flat buffer, one per parameter, in its canonical shape; and of another, one per running statistic.
#[derive(Debug)]
pub struct Weights {
    flat: Tensor,
    views: Vec<Tensor>,
    running: Tensor,
    running_views: Vec<Tensor>,
}

impl Weights {
    fn new(layout: &Layout, flat: Tensor, running: Tensor) -> Self {
        let views = layout.params.iter().map(|s| s.view(&flat.detach())).collect();
        let running_views = layout.running.iter().map(|s| s.view(&running)).collect();
        Self { flat, views, running, running_views }
    }

    /// The buffer itself, one dimension.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Copies another network's weights, and running statistics, of the same layout.
    pub fn copy_from(&mut self, other: &Self) {
        no_grad(|| {
            self.flat.copy_(&other.flat);
            self.running.copy_(&other.running);
        });
    }
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
        &self.running_views[running.0]
    }
}

/// The parameters of a network and their gradient, and its running statistics.
#[derive(Debug)]
pub struct Params {
    layout: Arc<Layout>,
    master: Tensor,
    weights: Weights,
    grads: Tensor,
    /// Of the weights' values; common to all with whom they are [shared](Self::share).
    version: Arc<AtomicU64>,
}

impl Params {
    fn new(layout: Arc<Layout>, master: Tensor, running: Tensor, precision: Kind) -> Self {
        let flat = if precision == Kind::Float { master.shallow_clone() } else { master.to_kind(precision) };
        Self::over(layout, master, flat, running)
    }

    /// Leaves and a gradient of its own over these buffers.
    fn over(layout: Arc<Layout>, master: Tensor, flat: Tensor, running: Tensor) -> Self {
        let mut weights = Weights::new(&layout, flat, running);
        weights.views = weights.views.iter().map(|v| v.detach().set_requires_grad(true)).collect();
        let grads = weights.flat.zeros_like();
        if !layout.params.is_empty() {
            Tensor::stack(&weights.views.iter().map(|v| v.sum(Kind::Float)).collect::<Vec<_>>(), 0)
                .sum(Kind::Float)
                .backward();
        }
        for (segment, view) in layout.params.iter().zip(&weights.views) {
            view.grad().set_data(&segment.view(&grads));
        }
        Self { layout, master, weights, grads, version: Arc::new(next_version().into()) }
    }

    /// Another number whenever the weights have changed, and of every network: by it, who keeps something that is made of
    /// them knows.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// To be called after the weights changed.
    pub(crate) fn changed(&self) {
        self.version.store(next_version(), Relaxed);
    }

    /// A parameter's canonical shape.
    pub(crate) fn shape(&self, slot: Slot) -> Vec<usize> {
        self.layout.params[slot.0].shape.iter().map(|&d| d as usize).collect()
    }

    /// Where a parameter lies in the flat buffers.
    pub(crate) fn range(&self, slot: Slot) -> Range<usize> {
        let segment = &self.layout.params[slot.0];
        segment.offset as usize..(segment.offset + segment.len()) as usize
    }

    /// What layers compute with. Inside [`tch::no_grad`] this is acting; outside, autograd records.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// A copy of the weights that is not trained: a target network, or an actor's own.
    pub fn copy_weights(&self) -> Weights {
        Weights::new(&self.layout, self.weights.flat.copy(), self.weights.running.copy())
    }

    /// The flat `f32` parameters: change them only inside [`tch::no_grad`], then call [`updated`](Self::updated).
    pub fn master(&self) -> &Tensor {
        &self.master
    }

    /// One parameter in `f32`, in its canonical shape: a view of the master, to which the same applies.
    pub fn param(&self, slot: Slot) -> Tensor {
        self.layout.params[slot.0].view(&self.master)
    }

    /// The flat `f32` running statistics; of a network without batch norm, nothing.
    pub fn running(&self) -> &Tensor {
        &self.weights.running
    }

    /// Takes running statistics that were kept elsewhere.
    ///
    /// # Panics
    /// If they are of another network: a bug of the caller.
    pub fn set_running(&mut self, values: &[f32]) {
        if !values.is_empty() || self.weights.running.numel() > 0 {
            no_grad(|| self.weights.running.copy_(&Tensor::from_slice(values)));
        }
    }

    /// The numbers of what layers compute with.
    ///
    /// # Panics
    /// If they do not lie in this machine's memory, or are of another type: bugs of the caller.
    pub(crate) fn numbers<T: Number>(&self) -> &[T] {
        let flat = self.weights.flat();
        assert!(flat.device() == Device::Cpu && flat.kind() == T::KIND, "weights are {:?}", flat.kind());
        // SAFETY: contiguous, as every buffer is, of this type and on this machine. Nobody writes while layers compute.
        unsafe { std::slice::from_raw_parts(flat.data_ptr().cast(), flat.numel()) }
    }

    /// The same, and those of the gradient, to be written.
    pub(crate) fn numbers_and_gradient<T: Number>(&mut self) -> (&[T], &mut [T]) {
        // SAFETY: as above; and nobody else uses the gradient, a buffer of its own, while `self` is borrowed.
        (self.numbers(), unsafe { slice(&self.grads) })
    }

    /// The flat gradient, in the precision of the weights.
    pub fn grads(&self) -> &Tensor {
        &self.grads
    }

    /// Sets the gradient to that of `loss` (a scalar).
    pub fn backward(&mut self, loss: &Tensor) {
        no_grad(|| _ = self.grads.zero_());
        loss.backward();
    }

    /// To be called after the master changed: the weights follow it.
    pub fn updated(&mut self) {
        if self.weights.flat.kind() != Kind::Float {
            no_grad(|| self.weights.flat.copy_(&self.master));
        }
        self.changed();
    }

    /// How many parameters the network has, padding excluded.
    pub fn count(&self) -> usize {
        self.layout.params.iter().map(|s| s.len() as usize).sum()
    }

    /// Moves to another network's parameters of the same layout by the share `rate`: 1 copies (a target network of Mnih et
    /// al. 2015), less is a soft update (Lillicrap et al. 2016). Running statistics go along.
    pub fn approach(&mut self, other: &Self, rate: f64) {
        no_grad(|| {
            for (own, other) in [(&self.master, &other.master), (self.running(), other.running())] {
                let mut own = own.shallow_clone();
                match rate {
                    1.0 => own.copy_(other),
                    rate => _ = own.lerp_(other, rate),
                }
            }
        });
        self.updated();
    }

    /// The same parameters, in the same memory, with a gradient of their own: for another thread, which may work on its part
    /// of a batch while nobody changes them.
    pub fn share(&self) -> Self {
        let [master, flat, running] =
            [&self.master, &self.weights.flat, &self.weights.running].map(Tensor::shallow_clone);
        Self { version: self.version.clone(), ..Self::over(self.layout.clone(), master, flat, running) }
    }

    /// Copies what layers compute with from `other`, and nothing else.
    pub fn follow(&mut self, other: &Self) {
        self.weights.copy_from(&other.weights);
        self.changed();
    }

    /// Takes the values of the master from `start` on. What layers compute with must follow: [`updated`](Self::updated).
    ///
    /// # Panics
    /// If the master is not on the processor, or shorter: bugs of the caller.
    pub fn take(&mut self, start: usize, values: &[f32]) {
        assert!(self.master.device() == Device::Cpu && start + values.len() <= self.master.numel());
        // SAFETY: contiguous `f32` on the processor, as every master is, and nobody else reads it during the call.
        let master = unsafe { slice::<f32>(&self.master) };
        master[start..start + values.len()].copy_from_slice(values);
        self.changed();
    }

    /// Another set of parameters with the same layout and values, computing in the same precision.
    pub fn duplicate(&self) -> Self {
        Self::new(self.layout.clone(), self.master.copy(), self.running().copy(), self.weights.flat.kind())
    }

    /// The segments of a flat `f32` buffer (the master, or an optimiser's statistics), by canonical name.
    pub fn named(&self, flat: &Tensor) -> BTreeMap<String, Array> {
        named(&self.layout.params, flat)
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
        state.extend(named(&self.layout.running, self.running()));
        state
    }

    /// Takes what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_state(&mut self, state: &BTreeMap<String, Array>) -> Result<()> {
        fill(&self.layout.params, state, &self.master)?;
        fill(&self.layout.running, state, self.running())?;
        self.updated();
        Ok(())
    }

    /// Writes parameters and running statistics into `snapshot`.
    pub fn save(&self, snapshot: &mut Snapshot) {
        snapshot.params = self.state();
    }

    /// Takes the parameters and running statistics of `snapshot`.
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

/// No two are the same.
fn next_version() -> u64 {
    static VERSIONS: AtomicU64 = AtomicU64::new(0);
    VERSIONS.fetch_add(1, Relaxed)
}

fn named(segments: &[Segment], flat: &Tensor) -> BTreeMap<String, Array> {
    let flat = flat.to_device(Device::Cpu);
    let array = |s: &Segment| {
        let values = to_vec(&s.view(&flat).contiguous());
        Array::new(&s.shape.iter().map(|&d| d as usize).collect::<Vec<_>>(), &values)
    };
    segments.iter().map(|s| (s.name.clone(), array(s))).collect()
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

/// The numbers of a tensor, in row-major order, as `f32` on the CPU.
pub fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}

/// The numbers of a tensor.
///
/// # Safety
/// The tensor must be contiguous, on the CPU and of elements of `T`'s size and meaning, and nothing else may use its memory
/// while the slice lives.
#[allow(clippy::mut_from_ref)] // a tensor is a handle: what it points to is not behind the reference
pub(crate) unsafe fn slice<T>(tensor: &Tensor) -> &mut [T] {
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}
