//! How long Atari's networks take, forward and backward, with few rows and with many, one thread: `cargo bench -p playfield-nn
//! --bench torso`. Without norm the faster of playfield's and libtorch's kernels computes the torso, with layer norm libtorch's.

#![allow(clippy::print_stdout, missing_docs)]

use playfield_core::{ActionSpace, Dtype, EnvSpec, Obs, rng};
use playfield_nn::config::{NormKind, TorsoKind};
use playfield_nn::{ActorCritic, Distribution, NetworkConfig, Pass};
use std::time::Instant;
use tch::Kind;

fn main() {
    tch::set_num_threads(1);
    let spec = EnvSpec::new("frames", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 6 }).with_frame_stack(4);
    println!("{:<8}{:<12}{:>6}{:>22}{:>22}", "torso", "norm", "rows", "acting, µs a row", "learning, µs a row");
    for torso in [TorsoKind::Nips, TorsoKind::Nature] {
        for norm in [NormKind::None, NormKind::Layer] {
            let config = NetworkConfig { torso, norm, ..NetworkConfig::default() };
            let mut net = ActorCritic::new(&config, &spec, "cpu", &mut rng::stream(1, "bench")).unwrap();
            for n in [1, 5, 32, 160] {
                let obs = Obs::U8((0..n * spec.obs_len()).map(|i| (i * 7919 % 251) as u8).collect());
                let acting = median(|| _ = net.forward(obs.as_ref(), n, Pass::Infer));
                let learning = median(|| {
                    let (policy, value) = net.forward(obs.as_ref(), n, Pass::Train);
                    let Distribution::Categorical { logits, .. } = policy else { unreachable!() };
                    net.backward(&(logits.square().sum(Kind::Float) + value.sum(Kind::Float)));
                });
                let name = |text: String| text.to_lowercase();
                let (torso, norm) = (name(format!("{torso:?}")), name(format!("{norm:?}")));
                println!("{torso:<8}{norm:<12}{n:>6}{:>22.1}{:>22.1}", acting / n as f64, learning / n as f64);
            }
        }
    }
}

/// Microseconds, median of 31.
fn median(mut what: impl FnMut()) -> f64 {
    let mut times: Vec<_> = (0..31)
        .map(|_| {
            let start = Instant::now();
            what();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[15]
}
