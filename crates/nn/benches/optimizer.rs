//! How long a step of the optimizer takes, with the gradient's norm, clipping and, in bf16, the copy of the weights: the nature network for
//! Pong, `cargo bench -p playfield-nn --bench optimizer`.

#![allow(clippy::print_stdout, missing_docs)]

use playfield_core::{ActionSpace, Dtype, EnvSpec, rng};
use playfield_nn::config::{Precision, TorsoKind};
use playfield_nn::optim::{Adam, Optimizer, OptimizerConfig, RmsProp};
use playfield_nn::{ActorCritic, NetworkConfig};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

fn main() {
    tch::set_num_threads(1);
    let spec = EnvSpec::new("frames", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 6 }).with_frame_stack(4);
    println!("{:<10}{:<10}{:>8}{:>14}", "rule", "precision", "threads", "ms, median");
    let rules: [(&str, OptimizerConfig); 2] =
        [("adam", Adam::default().into()), ("rmsprop", RmsProp::tensorflow().into())];
    for (rule, config) in rules {
        for (name, precision) in [("bf16", Precision::Bf16), ("fp32", Precision::Fp32)] {
            for threads in [1, 2] {
                let network = NetworkConfig { torso: TorsoKind::Nature, precision, ..NetworkConfig::default() };
                let mut params = ActorCritic::new(&network, &spec, "cpu", &mut rng::stream(1, "bench")).unwrap().params;
                let mut optimizer = Optimizer::new(config.clone(), &params).with_num_threads(threads);
                let gradient = Tensor::randn([params.master().numel() as i64], (Kind::Float, Device::Cpu)) * 1e-3;
                params.set_gradient(&gradient);
                let mut times: Vec<_> = (0..101)
                    .map(|_| {
                        let start = Instant::now();
                        optimizer.step(&mut params, 1e-4, 0.5);
                        start.elapsed().as_secs_f64() * 1e3
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                println!("{rule:<10}{name:<10}{threads:>8}{:>14.2}", times[50]);
            }
        }
    }
}
