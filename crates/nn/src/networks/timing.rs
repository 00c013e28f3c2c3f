//! How fast a feature extractor is in each precision by each path: for the automatic precision, and for reports.

use super::config::{InitKind, Kernels, NetworkConfig, Precision};
use super::dispatch::{BUDGET, Dispatch, are_close, prefers_first};
use super::feature_extractor::FeatureExtractor;
use super::input::Input;
use super::torso::Torso;
use crate::params::Builder;
use crate::pass::Pass;
use crate::sharding::use_one_core;
use playfield_core::{EnvSpec, Obs, Result, rng};
use rand::Rng as _;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tch::Device;

/// The duration of one pass of the torso of `config` for `n` observations on one thread, the shortest of `repetitions` after one that is
/// not counted. A training pass is forward and backward. `None` where `config.kernels` are the own ones and do not support the torso
/// in this precision.
///
/// # Errors
/// [`Error::Config`](playfield_core::Error::Config) where the torso and the observations do not fit.
pub fn time(
    config: &NetworkConfig,
    spec: &EnvSpec,
    n: usize,
    pass: Pass,
    repetitions: usize,
) -> Result<Option<Duration>> {
    let mut rng = rng::stream(0, "timing");
    let mut b = Builder::new(&mut rng);
    // Orthogonal initial values would take longer than what is timed, which does not depend on them.
    let torso = Torso::new(&mut b, &NetworkConfig { init: InitKind::FanIn, ..config.clone() }, spec)?;
    let kind = config.kind(Device::Cpu, torso.is_convolutional());
    let mut params = b.finish(Device::Cpu, kind);
    let input = Input::new(config, spec, torso.is_convolutional(), Device::Cpu, kind)?;
    let mut extractor = FeatureExtractor::new(torso, input, &params, Dispatch::new(config.kernels));
    if config.kernels == Kernels::Own && !extractor.has_own_kernels() {
        return Ok(None);
    }
    // Noise: the own kernels compute equal windows once.
    let mut noise = rng::stream(0, "noise");
    let obs = Obs::U8((0..n * spec.obs_len()).map(|_| (noise.next_u64() >> 56) as u8).collect());
    let threads = tch::get_num_threads();
    use_one_core();
    let mut pass = || extractor.time(&mut params, obs.as_ref(), n, pass);
    pass();
    let shortest = (0..repetitions).map(|_| pass()).min();
    tch::set_num_threads(threads);
    Ok(shortest)
}

/// Observations of the training pass that the precision is chosen by.
const BATCH: usize = 32;

/// The faster precision for the convolutional torso of `config` on a CPU with native bf16, each by its faster path. Measured once a
/// process for each torso and shape.
///
/// # Errors
/// As [`time`].
pub(crate) fn faster_precision(config: &NetworkConfig, spec: &EnvSpec) -> Result<Precision> {
    static MEASURED: Mutex<BTreeMap<String, Precision>> = Mutex::new(BTreeMap::new());
    let mut measured = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = format!("{:?} {:?} {:?} {}", config.torso, config.norm, spec.shape, spec.frame_stack);
    if let Some(precision) = measured.get(&key) {
        return Ok(*precision);
    }
    let shortest = |precision, repetitions| -> Result<Duration> {
        let mut best = Duration::MAX;
        for kernels in [Kernels::Own, Kernels::Libtorch] {
            let config = NetworkConfig { precision, kernels, ..config.clone() };
            best = best.min(time(&config, spec, BATCH, Pass::Train, repetitions)?.unwrap_or(Duration::MAX));
        }
        Ok(best)
    };
    let both = |repetitions| Ok((shortest(Precision::Bf16, repetitions)?, shortest(Precision::Fp32, repetitions)?));
    let (mut bf16, mut fp32) = both(2)?;
    if are_close(bf16, fp32) && 8 * (bf16 + fp32) < BUDGET {
        (bf16, fp32) = both(8)?;
    }
    let precision = if prefers_first(bf16, fp32) { Precision::Bf16 } else { Precision::Fp32 };
    measured.insert(key, precision);
    Ok(precision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NormKind, TorsoKind, native_bf16};
    use playfield_core::{ActionSpace, Dtype};

    fn frames() -> EnvSpec {
        EnvSpec::new("frames", &[40, 40], Dtype::U8, ActionSpace::Discrete { n: 6 })
    }

    /// Each path is timed in each precision, except the own kernels where they do not support the torso.
    #[test]
    fn a_path_that_supports_the_torso_has_a_duration() {
        let of = |kernels, precision, norm| {
            let torso = TorsoKind::Impala;
            let config = NetworkConfig { torso, kernels, precision, norm, ..NetworkConfig::default() };
            time(&config, &frames(), 3, Pass::Train, 2).unwrap()
        };
        assert!(of(Kernels::Libtorch, Precision::Fp32, NormKind::None) > Some(Duration::ZERO));
        assert_eq!(of(Kernels::Own, Precision::Fp32, NormKind::Batch), None);
        let config = NetworkConfig { torso: TorsoKind::Nature, ..NetworkConfig::default() };
        let vectors = EnvSpec::new("vectors", &[4], Dtype::F32, ActionSpace::Discrete { n: 2 });
        assert!(time(&config, &vectors, 3, Pass::Infer, 1).is_err());
    }

    /// A process measures once, so that all its networks of one kind have one precision.
    #[test]
    fn the_automatic_precision_is_chosen_once() {
        if !native_bf16() {
            return;
        }
        let config = NetworkConfig { torso: TorsoKind::Nips, ..NetworkConfig::default() };
        let chosen = faster_precision(&config, &frames()).unwrap();
        assert_ne!(chosen, Precision::Auto);
        for _ in 0..3 {
            assert_eq!(faster_precision(&config, &frames()).unwrap(), chosen);
        }
    }
}
