//! Networks and observations that several tests use.

use playfield_core::rng::stream;
use playfield_core::{ActionSpace, Dtype, EnvSpec, Obs};
use playfield_nn::Distribution;
use playfield_nn::NetworkConfig;
use playfield_nn::config::{Precision, TorsoKind};
use rand::Rng as _;
use tch::Tensor;

pub fn spec(shape: &[usize], dtype: Dtype, history: usize) -> EnvSpec {
    let actions = ActionSpace::Discrete { n: 6 };
    EnvSpec::new("test", shape, dtype, actions).with_frame_stack(history)
}

pub fn pong() -> EnvSpec {
    spec(&[84, 84], Dtype::U8, 4)
}

pub fn network(torso: TorsoKind, precision: Precision) -> NetworkConfig {
    NetworkConfig { torso, precision, ..NetworkConfig::default() }
}

/// Of one color above, noise below: half of the windows of a frame are equal.
pub fn frames(n: usize, spec: &EnvSpec) -> Obs {
    let Obs::U8(mut pixels) = noise(n, spec) else { unreachable!() };
    pixels.chunks_exact_mut(spec.obs_len()).for_each(|frame| frame[..spec.obs_len() / 2].fill(40));
    Obs::U8(pixels)
}

pub fn noise(n: usize, spec: &EnvSpec) -> Obs {
    let mut rng = stream(5, "frames");
    Obs::U8((0..n * spec.obs_len()).map(|_| (rng.next_u64() >> 56) as u8).collect())
}

pub fn logits(policy: Distribution) -> Tensor {
    match policy {
        Distribution::Categorical { logits, .. } => logits,
        Distribution::Gaussian { .. } => panic!("the space is discrete"),
    }
}

/// The norm of the difference, relative to `b`'s.
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).norm().double_value(&[]) / b.norm().double_value(&[])
}
