//! How long Atari's networks take, forward and backward, for few observations and for many, one thread, by playfield's kernels and by
//! libtorch's: `cargo bench -p playfield-nn --bench torso`.

#![allow(clippy::print_stdout, missing_docs)]

use playfield_core::{ActionSpace, Dtype, EnvSpec, Obs, rng};
use playfield_nn::config::{Kernels, NormKind, TorsoKind};
use playfield_nn::{ActorCritic, Distribution, NetworkConfig, Pass};
use rand::Rng as _;
use std::time::Instant;
use tch::Kind;

fn main() {
    tch::set_num_threads(1);
    let spec = EnvSpec::new("frames", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 6 }).with_frame_stack(4);
    println!("Microseconds per observation.");
    println!("{:<8}{:<8}{:<10}{:>12}{:>10}{:>10}", "torso", "norm", "kernels", "batch size", "acting", "learning");
    let torsos = [TorsoKind::Nips, TorsoKind::Nature, TorsoKind::Impala];
    let norms = [NormKind::None, NormKind::Layer];
    let cases = torsos.into_iter().flat_map(|torso| norms.map(|norm| (torso, norm)));
    for (torso, norm) in cases {
        for kernels in [Kernels::Own, Kernels::Libtorch] {
            let config = NetworkConfig { torso, norm, kernels, ..NetworkConfig::default() };
            let mut net = ActorCritic::new(&config, &spec, "cpu", &mut rng::stream(1, "bench")).unwrap();
            for n in [1, 5, 32, 160] {
                let mut noise = rng::stream(1, "noise");
                let obs = Obs::U8((0..n * spec.obs_len()).map(|_| (noise.next_u64() >> 56) as u8).collect());
                let acting = median(|| _ = net.forward(obs.as_ref(), n, Pass::Infer));
                let learning = median(|| {
                    let (policy, value) = net.forward(obs.as_ref(), n, Pass::Train);
                    let Distribution::Categorical { logits, .. } = policy else { unreachable!() };
                    net.backward(&(logits.square().sum(Kind::Float) + value.sum(Kind::Float)));
                });
                let name = |text: String| text.to_lowercase();
                let [torso, norm, kernels] =
                    [format!("{torso:?}"), format!("{norm:?}"), format!("{kernels:?}")].map(name);
                let (acting, learning) = (acting / n as f64, learning / n as f64);
                println!("{torso:<8}{norm:<8}{kernels:<10}{n:>12}{acting:>10.1}{learning:>10.1}");
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
