//! Observations to features: a torso, what feeds it, and the way in which this machine computes it best.

use crate::direct::{self, Direct};
use crate::input::Input;
use crate::norm::recording;
use crate::params::Params;
use crate::torso::Torso;
use playfield_core::ObsRef;
use tch::Tensor;

/// A [`Torso`] that is ready for observations.
#[derive(Debug)]
pub(crate) struct Encoder {
    torso: Torso,
    input: Input,
    /// Where it can be and pays, in libtorch's stead.
    direct: Option<Box<dyn Direct>>,
}

impl Encoder {
    /// `torso`, whose parameters are among `params`, fed by `input`.
    pub fn new(torso: Torso, input: Input, params: &Params) -> Self {
        let image = input.image();
        let direct = torso.plain().zip(image).and_then(|(layers, image)| direct::build(&layers, params, image));
        Self { torso, input, direct }
    }

    /// The same over `params`, which have the same layout, with buffers of its own.
    pub fn over(&self, params: &Params) -> Self {
        Self::new(self.torso.clone(), self.input.duplicate(), params)
    }

    /// What it is made of.
    pub fn torso(&self) -> &Torso {
        &self.torso
    }

    /// The features of `n` observations, `[n, width]`. Unless inside [`tch::no_grad`], autograd records what follows from
    /// them, and [`backward`](Self::backward) must follow autograd's pass.
    ///
    /// # Panics
    /// If `obs` is not `n` observations: a bug of the caller.
    pub fn forward(&mut self, params: &Params, obs: ObsRef<'_>, n: usize) -> Tensor {
        let recording = recording();
        match &mut self.direct {
            Some(direct) if direct.pays(n, recording) => direct.forward(params, &self.input, obs, n, recording),
            direct => {
                if recording {
                    direct.iter_mut().for_each(|direct| direct.forget());
                }
                self.torso.forward(params.weights(), &self.input.load(obs, n))
            }
        }
    }

    /// Sets the torso's part of the gradient, where autograd's backward pass of what was recorded last has not done so.
    pub fn backward(&mut self, params: &mut Params) {
        if let Some(direct) = &mut self.direct {
            direct.backward(params, &self.input);
        }
    }

    /// Folds every batch norm into the layer before it: see [`norm::fold`](crate::norm::fold).
    pub fn fold(&mut self, params: &mut Params) {
        self.torso.fold(params);
        *self = self.over(params);
    }
}
