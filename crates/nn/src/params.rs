//! One flat tensor for all parameters of a network, and the views that layers compute with.
//!
//! ```text
//! master   f32   | conv1.weight | conv1.bias | conv2.weight | …      what the optimiser steps and checkpoints hold
//! weights  f32 or bf16, the same segments                            what layers compute with; leaves of autograd
//! grads    like weights                                              where autograd accumulates, in place
//! ```
//!
//! In `f32` the weights *are* the master. In bf16 they are a second buffer, cast once per update rather than once per
//! forward pass. Segments start on 64 bytes. Convolution weights lie as channels-last (O, H, W, I), the layout in which
//! convolutions run fastest; checkpoints hold PyTorch's (O, I, H, W).
//!
//! Autograd is made to accumulate into the flat gradient by giving every leaf a gradient once (an empty backward pass)
//! and pointing that gradient's storage at its view of the flat one.

use crate::init::Init;
use playfield_core::rng::Rng;
use playfield_core::{Array, Error, Result, Snapshot};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Kind, Tensor, no_grad};

/// 64 bytes, counted in the smallest element that a buffer holds (bf16).
const ALIGN: i64 = 32;

/// A parameter of a network: an index into [`Weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

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
    segments: Vec<Segment>,
    values: Vec<Vec<f32>>,
}

impl<'a> Builder<'a> {
    /// An empty network whose initial values are drawn from `rng`.
    pub fn new(rng: &'a mut Rng) -> Self {
        Self { rng, scope: Vec::new(), segments: Vec::new(), values: Vec::new() }
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
        let offset = self.segments.last().map_or(0, |s| (s.offset + s.len() + ALIGN - 1) / ALIGN * ALIGN);
        let name = self.scope.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".");
        self.values.push(init.draw(shape, self.rng));
        self.segments.push(Segment { name, shape: shape.to_vec(), offset });
        Slot(self.segments.len() - 1)
    }

    /// The parameters, on `device`, computing in `precision` (`Float` or `BFloat16`).
    pub fn finish(self, device: Device, precision: Kind) -> Params {
        let len = self.segments.last().map_or(0, |s| (s.offset + s.len() + ALIGN - 1) / ALIGN * ALIGN);
        let master = Tensor::zeros([len], (Kind::Float, device));
        for (segment, values) in self.segments.iter().zip(&self.values) {
            segment.view(&master).copy_(&Tensor::from_slice(values).view(&segment.shape[..]));
        }
        Params::new(self.segments.into(), master, precision)
    }
}

/// Views of one flat buffer, one per parameter, in its canonical shape.
#[derive(Debug)]
pub struct Weights {
    flat: Tensor,
    views: Vec<Tensor>,
}

impl Weights {
    fn new(segments: &[Segment], flat: Tensor) -> Self {
        let views = segments.iter().map(|s| s.view(&flat.detach())).collect();
        Self { flat, views }
    }

    /// The buffer itself, one dimension.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Copies another network's weights of the same layout.
    pub fn copy_from(&mut self, other: &Self) {
        no_grad(|| self.flat.copy_(&other.flat));
    }
}

impl std::ops::Index<Slot> for Weights {
    type Output = Tensor;

    fn index(&self, slot: Slot) -> &Tensor {
        &self.views[slot.0]
    }
}

/// The parameters of a network and their gradient.
#[derive(Debug)]
pub struct Params {
    segments: Arc<[Segment]>,
    master: Tensor,
    weights: Weights,
    grads: Tensor,
}

impl Params {
    fn new(segments: Arc<[Segment]>, master: Tensor, precision: Kind) -> Self {
        let flat = if precision == Kind::Float { master.shallow_clone() } else { master.to_kind(precision) };
        Self::over(segments, master, flat)
    }

    /// Leaves and a gradient of its own over these buffers.
    fn over(segments: Arc<[Segment]>, master: Tensor, flat: Tensor) -> Self {
        let mut weights = Weights::new(&segments, flat);
        weights.views = weights.views.iter().map(|v| v.detach().set_requires_grad(true)).collect();
        let grads = weights.flat.zeros_like();
        if !segments.is_empty() {
            Tensor::stack(&weights.views.iter().map(|v| v.sum(Kind::Float)).collect::<Vec<_>>(), 0)
                .sum(Kind::Float)
                .backward();
        }
        for (segment, view) in segments.iter().zip(&weights.views) {
            view.grad().set_data(&segment.view(&grads));
        }
        Self { segments, master, weights, grads }
    }

    /// What layers compute with. Inside [`tch::no_grad`] this is acting; outside, autograd records.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// A copy of the weights that is not trained: a target network, or an actor's own.
    pub fn copy_weights(&self) -> Weights {
        Weights::new(&self.segments, self.weights.flat.copy())
    }

    /// The flat `f32` parameters: change them only inside [`tch::no_grad`], then call [`updated`](Self::updated).
    pub fn master(&self) -> &Tensor {
        &self.master
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
    }

    /// How many numbers the network has, padding excluded.
    pub fn count(&self) -> usize {
        self.segments.iter().map(|s| s.len() as usize).sum()
    }

    /// Moves to another network's parameters of the same layout by the share `rate`: 1 copies (a target network of Mnih et
    /// al. 2015), less is a soft update (Lillicrap et al. 2016).
    pub fn approach(&mut self, other: &Self, rate: f64) {
        no_grad(|| {
            let mut master = self.master.shallow_clone();
            match rate {
                1.0 => master.copy_(&other.master),
                rate => _ = master.lerp_(&other.master, rate),
            }
        });
        self.updated();
    }

    /// The same parameters, in the same memory, with a gradient of their own: for another thread, which may work on its part
    /// of a batch while nobody changes them.
    pub fn share(&self) -> Self {
        Self::over(self.segments.clone(), self.master.shallow_clone(), self.weights.flat.shallow_clone())
    }

    /// Copies what layers compute with from `other`, and nothing else.
    pub fn follow(&mut self, other: &Self) {
        self.weights.copy_from(&other.weights);
    }

    /// Takes the values of the master from `start` on. What layers compute with must follow: [`updated`](Self::updated).
    ///
    /// # Panics
    /// If the master is not on the processor, or shorter: bugs of the caller.
    pub fn take(&mut self, start: usize, values: &[f32]) {
        assert!(self.master.device() == Device::Cpu && start + values.len() <= self.master.numel());
        // SAFETY: contiguous `f32` on the processor, as every master is, and nobody else reads it during the call.
        let master =
            unsafe { std::slice::from_raw_parts_mut(self.master.data_ptr().cast::<f32>(), self.master.numel()) };
        master[start..start + values.len()].copy_from_slice(values);
    }

    /// Another set of parameters with the same layout and values, computing in the same precision.
    pub fn duplicate(&self) -> Self {
        Self::new(self.segments.clone(), self.master.copy(), self.weights.flat.kind())
    }

    /// The segments of a flat `f32` buffer (the master, or an optimiser's statistics), by canonical name.
    pub fn named(&self, flat: &Tensor) -> BTreeMap<String, Array> {
        let flat = flat.to_device(Device::Cpu);
        let array = |s: &Segment| {
            let values = to_vec(&s.view(&flat).contiguous());
            Array::new(&s.shape.iter().map(|&d| d as usize).collect::<Vec<_>>(), &values)
        };
        self.segments.iter().map(|s| (s.name.clone(), array(s))).collect()
    }

    /// Writes the parameters into `snapshot`.
    pub fn save(&self, snapshot: &mut Snapshot) {
        snapshot.params = self.named(&self.master);
    }

    /// Takes the parameters of `snapshot`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the first tensor that is missing, superfluous or of another shape.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        let names: Vec<_> = self.segments.iter().map(|s| &s.name).collect();
        if let Some(extra) = snapshot.params.keys().find(|k| !names.contains(k)) {
            return Err(Error::checkpoint("model", format!("holds '{extra}', which this network does not have")));
        }
        let master = self.master.shallow_clone();
        self.load_named(&snapshot.params, &master)?;
        self.updated();
        Ok(())
    }

    /// Fills a flat buffer from named arrays.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_named(&self, arrays: &BTreeMap<String, Array>, flat: &Tensor) -> Result<()> {
        for s in self.segments.iter() {
            let wrong = |what: String| Error::checkpoint("model", format!("'{}' {what}: another network?", s.name));
            let array = arrays.get(&s.name).ok_or_else(|| wrong("is missing".into()))?;
            let shape: Vec<i64> = array.shape.iter().map(|&d| d as i64).collect();
            let values = array.values::<f32>().filter(|_| shape == s.shape);
            let values = values.ok_or_else(|| wrong(format!("has shape {shape:?}, not {:?}", s.shape)))?;
            no_grad(|| s.view(flat).copy_(&Tensor::from_slice(&values).view(&s.shape[..])));
        }
        Ok(())
    }
}

/// The numbers of a tensor, in row-major order, as `f32` on the CPU.
pub fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}
