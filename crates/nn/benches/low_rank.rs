//! What a step costs in one of several processes, without the exchange itself: gradients are added, approximated with the columns of
//! `distributed.gradient_rank` (0: whole), and applied. The nature network for Pong: `cargo bench -p playfield-nn --bench low_rank`.

#![allow(clippy::print_stdout, missing_docs)]

use playfield_core::group::{Config, GradientPrecision, Group, Reduce};
use playfield_core::{ActionSpace, Dtype, EnvSpec, Result, rng};
use playfield_nn::config::TorsoKind;
use playfield_nn::optim::{Adam, Combine, Optimizer};
use playfield_nn::{ActorCritic, NetworkConfig};
use std::sync::Arc;
use std::time::Instant;
use tch::{Kind, Tensor};

/// Two ranks, of which the other has gradients of 0.
#[derive(Debug)]
struct Two;

impl Group for Two {
    fn rank(&self) -> usize {
        0
    }
    fn world_size(&self) -> usize {
        2
    }
    fn all_reduce(&self, _: &mut [f64], _: Reduce) -> Result<()> {
        Ok(())
    }
    fn sum(&self, _: &mut [f32], _: GradientPrecision) -> Result<()> {
        Ok(())
    }
    fn broadcast(&self, _: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes])
    }
}

fn main() {
    tch::set_num_threads(1);
    let spec = EnvSpec::new("frames", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 6 }).with_frame_stack(4);
    let config = NetworkConfig { torso: TorsoKind::Nature, ..NetworkConfig::default() };
    println!("{:>8}{:>16}{:>14}", "threads", "gradient_rank", "ms, median");
    for threads in [1, 2] {
        for gradient_rank in [0, 4, 8, 16, 32] {
            let mut params = ActorCritic::new(&config, &spec, "cpu", &mut rng::stream(1, "bench")).unwrap().params;
            let mut optimizer = Optimizer::new(Adam::default(), &params).with_num_threads(threads);
            let exchange = Config { gradient_rank, ..Config::default() };
            optimizer.set_group(Arc::new(Two), Combine::Mean, exchange, &params).unwrap();
            let shard = params.shallow_clone();
            let gradient = Tensor::randn([params.master().numel() as i64], (Kind::Float, tch::Device::Cpu)) * 1e-3;
            let mut times: Vec<_> = (0..31)
                .map(|_| {
                    params.set_gradient(&gradient);
                    let start = Instant::now();
                    optimizer.step_sharded(&mut params, &[&shard], 1e-4, 0.5).unwrap();
                    start.elapsed().as_secs_f64() * 1e3
                })
                .collect();
            times.sort_by(f64::total_cmp);
            println!("{threads:>8}{gradient_rank:>16}{:>14.2}", times[15]);
        }
    }
}
