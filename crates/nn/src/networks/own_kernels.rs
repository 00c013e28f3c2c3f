//! Convolutional torsos on the CPU by playfield's own kernels rather than libtorch's.
//!
//! They support all convolutional torsos, without normalization or with layer norm. They are used where they are faster
//! ([`dispatch`](super::dispatch)); libtorch computes everything else, and everything on other devices.

use super::torso::Torso;
use crate::layers::conv::Conv;
use crate::layers::norm::Norm;
use crate::params::{Params, Slot};
use crate::pass::Pass;
use crate::tensor::TensorElement;
#[cfg(target_arch = "x86_64")]
use playfield_kernels::bf16;
use playfield_kernels::conv::LayerKernels;
use playfield_kernels::frames::Scaling;
use playfield_kernels::{Connection, ConvNet, Convolution, Layer};
use tch::{Device, Kind};

/// A torso in the precision of its weights.
#[derive(Debug)]
pub(super) enum OwnKernels {
    F32(ConvNet<f32>),
    #[cfg(target_arch = "x86_64")]
    Bf16(ConvNet<bf16>),
}

impl OwnKernels {
    /// `torso` on frames of `[height, width, channels]`; `None` where the kernels do not support it.
    pub fn new(torso: &Torso, params: &Params, image: [usize; 3]) -> Option<Self> {
        let layers = torso.kernel_layers(params)?;
        if params.master().device() != Device::Cpu {
            return None;
        }
        match params.precision() {
            Kind::Float => ConvNet::new(&layers, image).map(Self::F32),
            #[cfg(target_arch = "x86_64")]
            Kind::BFloat16 => ConvNet::new(&layers, image).map(Self::Bf16),
            _ => None,
        }
    }

    /// Shares the cached activations of `other`, the same torso on another thread.
    pub fn share_cache(&mut self, other: &Self) {
        match (self, other) {
            (Self::F32(net), Self::F32(other)) => net.share_cache(other),
            #[cfg(target_arch = "x86_64")]
            (Self::Bf16(net), Self::Bf16(other)) => net.share_cache(other),
            #[cfg(target_arch = "x86_64")]
            _ => unreachable!("torsos of one precision"),
        }
    }

    /// Forgets activations, so that a pass that is timed computes them.
    pub fn forget(&mut self) {
        match self {
            Self::F32(net) => net.forget(),
            #[cfg(target_arch = "x86_64")]
            Self::Bf16(net) => net.forget(),
        }
    }

    /// The features of `frames`, an observation each, `[frames, width]`.
    ///
    /// # Panics
    /// If a frame has another shape than the network's: a bug of the caller.
    pub fn forward(&mut self, params: &Params, scaling: Scaling, frames: &[&[u8]], pass: Pass) -> Vec<f32> {
        match self {
            Self::F32(net) => forward(net, params, scaling, frames, pass),
            #[cfg(target_arch = "x86_64")]
            Self::Bf16(net) => forward(net, params, scaling, frames, pass),
        }
    }

    /// Sets the layers' part of the gradient of `params` from that of the features of the last training pass, `[n, width]`.
    pub fn backward(&mut self, params: &mut Params, scaling: Scaling, features: &[f32]) {
        match self {
            Self::F32(net) => backward(net, params, scaling, features),
            #[cfg(target_arch = "x86_64")]
            Self::Bf16(net) => backward(net, params, scaling, features),
        }
    }
}

/// A layer with a rectifier as the kernels have it: a convolution, or fully connected.
pub(super) fn kernel_layer(
    params: &Params,
    (weight, bias): (Slot, Slot),
    convolution: Option<&Conv>,
    norm: &Norm,
) -> Layer {
    Layer {
        outputs: params.shape(weight)[0],
        convolution: convolution.map(|conv| Convolution {
            size: conv.size as usize,
            stride: conv.stride as usize,
            padding: conv.padding as usize,
        }),
        weight: params.range(weight),
        bias: params.range(bias),
        norm: norm.layer_norm().map(|norm| norm.slots().map(|slot| params.range(slot))),
        connection: Connection::Direct,
        rectifier: true,
    }
}

fn forward<T: LayerKernels + TensorElement>(
    net: &mut ConvNet<T>,
    params: &Params,
    scaling: Scaling,
    frames: &[&[u8]],
    pass: Pass,
) -> Vec<f32> {
    net.forward(params.elements(), params.version(), scaling, frames, pass == Pass::Train)
}

fn backward<T: LayerKernels + TensorElement>(
    net: &mut ConvNet<T>,
    params: &mut Params,
    scaling: Scaling,
    features: &[f32],
) {
    let (weights, gradient) = params.elements_and_gradient();
    net.backward(weights, gradient, scaling, features);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NetworkConfig, NormKind, Precision, TorsoKind, native_bf16};
    use crate::params::Builder;
    use playfield_core::{ActionSpace, Dtype, EnvSpec, rng};
    use playfield_kernels::simd::{SimdLevel, level};

    /// The kernels support every convolutional torso at every SIMD level above the baseline, with layer norm and without, and no batch
    /// norm.
    #[test]
    fn supported_torsos() {
        let actions = ActionSpace::Discrete { n: 6 };
        let shape = vec![84, 84];
        let spec = EnvSpec::new("frames", &shape, Dtype::U8, actions).with_frame_stack(4);
        let supported = |torso, precision, norm| {
            let config = NetworkConfig { torso, precision, norm, ..NetworkConfig::default() };
            let mut rng = rng::stream(1, "init");
            let mut b = Builder::new(&mut rng);
            let torso = Torso::new(&mut b, &config, &spec).unwrap();
            let params = b.finish(Device::Cpu, config.kind(Device::Cpu, true));
            OwnKernels::new(&torso, &params, [84, 84, 4]).is_some()
        };
        let simd = level() != SimdLevel::Baseline || !cfg!(target_arch = "x86_64");
        for torso in [TorsoKind::Small, TorsoKind::Nips, TorsoKind::Nature, TorsoKind::Impala] {
            for norm in [NormKind::None, NormKind::Layer] {
                assert_eq!(supported(torso, Precision::Fp32, norm), simd);
                assert_eq!(supported(torso, Precision::Bf16, norm), native_bf16());
            }
            assert!(!supported(torso, Precision::Fp32, NormKind::Batch));
        }
    }
}
