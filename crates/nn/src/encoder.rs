//! Observations to features: a torso, what feeds it, and the way in which this machine computes it best.

use crate::config::Kernels;
use crate::direct::{self, Direct};
use crate::dispatch::{Dispatch, Path};
use crate::input::Input;
use crate::norm::recording;
use crate::params::Params;
use crate::torso::Torso;
use playfield_core::ObsRef;
use std::time::{Duration, Instant};
use tch::{Kind, Tensor};

/// A [`Torso`] that is ready for observations.
#[derive(Debug)]
pub(crate) struct Encoder {
    torso: Torso,
    input: Input,
    /// playfield's own kernels, where they can compute the torso.
    direct: Option<Box<dyn Direct>>,
    dispatch: Dispatch,
}

impl Encoder {
    /// `torso`, whose parameters are among `params`, fed by `input`; `dispatch` says which path computes it.
    pub fn new(torso: Torso, input: Input, params: &Params, dispatch: Dispatch) -> Self {
        let image = input.image();
        let direct = torso.plain().zip(image).and_then(|(layers, image)| direct::build(&layers, params, image));
        Self { torso, input, direct, dispatch }
    }

    /// The same over `params`, which have the same layout, with buffers of its own and the same choice of paths.
    pub fn over(&self, params: &Params) -> Self {
        Self::new(self.torso.clone(), self.input.deep_clone(), params, self.dispatch.clone())
    }

    /// What it is made of.
    pub fn torso(&self) -> &Torso {
        &self.torso
    }

    /// What says which path computes it.
    pub fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// The features of `n` observations, `[n, width]`. Unless inside [`tch::no_grad`], autograd records what follows from
    /// them, and [`backward`](Self::backward) must follow autograd's pass.
    ///
    /// # Panics
    /// If `obs` is not `n` observations: a bug of the caller.
    pub fn forward(&mut self, params: &Params, obs: ObsRef<'_>, n: usize) -> Tensor {
        let recording = recording();
        let own = self.direct.is_some() && self.path(params, obs, n, recording) == Path::Own;
        match &mut self.direct {
            Some(direct) if own => direct.forward(params, &self.input, obs, n, recording),
            direct => {
                if recording {
                    direct.iter_mut().for_each(|direct| direct.forget());
                }
                self.torso.forward(params.weights(), &self.input.load(obs, n))
            }
        }
    }

    /// Which path computes `n` observations. Where that has to be measured first, a copy of the torso does it.
    fn path(&self, params: &Params, obs: ObsRef<'_>, n: usize, recording: bool) -> Path {
        let mut copies = None;
        self.dispatch.path(n, recording, |path| {
            let (params, encoders) = copies.get_or_insert_with(|| {
                let params = params.deep_clone();
                let fixed = |kernels| Self { dispatch: Dispatch::new(kernels), ..self.over(&params) };
                let encoders = [fixed(Kernels::Own), fixed(Kernels::Libtorch)];
                (params, encoders)
            });
            encoders[usize::from(path == Path::Libtorch)].time(params, obs, n, recording)
        })
    }

    /// How long a forward pass takes, and where it is recorded a backward pass after it.
    fn time(&mut self, params: &mut Params, obs: ObsRef<'_>, n: usize, recording: bool) -> Duration {
        let start = Instant::now();
        let features = self.forward(params, obs, n);
        if recording {
            features.sum(Kind::Float).backward();
            self.backward(params);
        }
        start.elapsed()
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
