//! Times recurrent layers, forward and with their gradient, over a small grid of sizes: libtorch's fused LSTM called directly,
//! as PyTorch's `nn.LSTM` calls it; the layers of this crate, which use it where possible; and their step-by-step form. One thread. `cargo bench -p playfield-nn [-- THREADS]`
#![allow(clippy::print_stdout, missing_docs)]

use playfield_core::rng::stream;
use playfield_nn::lstm::LstmConfig;
use playfield_nn::recurrent::{CellKind, Recurrent};
use playfield_nn::sequence::Lengths;
use playfield_nn::{Builder, Params};
use std::time::Instant;
use tch::{Device, Kind, Tensor, no_grad};

/// Steps, sequences, and features in and out.
const GRID: [(i64, i64, i64); 5] = [(5, 32, 256), (50, 16, 64), (50, 32, 128), (100, 16, 256), (20, 64, 512)];

/// The median of `n` calls of each, taken in turn, in milliseconds.
fn medians(n: usize, calls: &mut [Box<dyn FnMut() + '_>]) -> Vec<f64> {
    let mut times = vec![Vec::new(); calls.len()];
    for _ in 0..n {
        for (call, times) in calls.iter_mut().zip(&mut times) {
            let start = Instant::now();
            call();
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let middle = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.into_iter().map(middle).collect()
}

fn layer(kind: CellKind, peephole: bool, width: i64) -> (Recurrent, Params) {
    let mut rng = stream(1, "layer");
    let mut b = Builder::new(&mut rng);
    let config = LstmConfig { peephole, ..LstmConfig::default() };
    let layer = Recurrent::new(&mut b, "layer", kind, (width, width), &config).expect("settings that work");
    (layer, b.finish(Device::Cpu, Kind::Float))
}

fn main() {
    let threads = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(1);
    tch::set_num_threads(threads);
    println!("{threads} threads; median milliseconds; steps × sequences × width");
    let names = ["libtorch", "lstm", "half padding", "step by step", "gru", "rnn"];
    println!("{:24}{}", "", names.map(|name| format!("{name:>14}")).concat());
    for (steps, n, width) in GRID {
        let x =
            Tensor::linspace(-1.0, 1.0, steps * n * width, (Kind::Float, Device::Cpu)).sin().view([steps, n, width]);
        let full = Lengths::full(n, steps).expect("sequences");
        let half: Vec<i64> = (0..n).map(|i| 1 + (steps - 1) * i / (n - 1)).collect();
        let half = Lengths::new(&half, steps).expect("sequences");
        for backward in [false, true] {
            let of = |shape: &[i64]| {
                let len: i64 = shape.iter().product();
                let values = Tensor::linspace(-1.0, 1.0, len, (Kind::Float, Device::Cpu)).cos() / (width as f64).sqrt();
                values.view(shape).set_requires_grad(true)
            };
            let params = [of(&[4 * width, width]), of(&[4 * width, width]), of(&[4 * width]), of(&[4 * width])];
            let zeros = Tensor::zeros([1, n, width], (Kind::Float, Device::Cpu));
            let state = [zeros.shallow_clone(), zeros];
            let x = &x;
            let libtorch = move || {
                let forward = || x.lstm(&state, &params, true, 1, 0.0, false, false, false).0;
                if backward {
                    params.iter().filter(|p| p.grad().defined()).for_each(|p| _ = p.grad().zero_());
                    forward().sum(Kind::Float).backward();
                } else {
                    no_grad(|| _ = forward());
                }
            };
            let mut calls: Vec<Box<dyn FnMut() + '_>> = vec![Box::new(libtorch)];
            for (kind, peephole, lengths) in [
                (CellKind::Lstm, false, &full),
                (CellKind::Lstm, false, &half),
                (CellKind::Lstm, true, &full),
                (CellKind::Gru, false, &full),
                (CellKind::Rnn, false, &full),
            ] {
                let (layer, mut params) = layer(kind, peephole, width);
                let start = layer.initial_state(n as usize, Device::Cpu);
                calls.push(Box::new(move || {
                    let forward = |params: &Params| {
                        layer.sequence(params.weights(), x, &start, lengths, None).expect("shapes that fit").0
                    };
                    if backward {
                        let loss = forward(&params).sum(Kind::Float);
                        params.zero_gradient();
                        loss.backward();
                    } else {
                        no_grad(|| _ = forward(&params));
                    }
                }));
            }
            let times = medians(31, &mut calls);
            let what = format!("{steps} × {n} × {width}{}", if backward { ", gradient" } else { "" });
            println!("{what:24}{}", times.iter().map(|t| format!("{t:14.2}")).collect::<String>());
        }
    }
}
