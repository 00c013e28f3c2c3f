//! GFLOP/s of each kernel of the nature network's layers, and how long an observation takes to scale, one thread:
//! `cargo bench -p playfield-kernels --bench layers`. `PLAYFIELD_CPU` limits the instructions. The fastest of many repetitions counts, so that
//! other work on the machine matters little.

#![allow(clippy::print_stdout, missing_docs)]

use aligned_vec::{AVec, ConstAlign};
use playfield_kernels::conv::{LayerKernels, LayerShape};
use playfield_kernels::frames::Scaling;
use playfield_kernels::simd::{self, SimdLevel, level};
use playfield_kernels::{Element, bf16};
use std::hint::black_box;
use std::time::Instant;

/// Batch size of the fully connected layer.
const BATCH: usize = 32;

/// Name, side of the input, channels, outputs, kernel, stride.
const CONVOLUTIONS: [(&str, usize, usize, usize, usize, usize); 3] =
    [("8 × 8 × 32", 84, 4, 32, 8, 4), ("4 × 4 × 64", 20, 32, 64, 4, 2), ("3 × 3 × 64", 9, 64, 64, 3, 1)];

fn main() {
    let limit = std::env::var("PLAYFIELD_CPU").ok();
    SimdLevel::ALL
        .into_iter()
        .filter(|level| limit.as_deref() == Some(level.name()))
        .for_each(|level| _ = simd::limit(level));
    println!("{:<14}{:<12}{:>10}{:>18}{:>18}", "layer", "", "forward", "weight gradient", "input gradient");
    of::<bf16>(if level() == SimdLevel::Amx { "bf16, AMX" } else { "bf16" });
    of::<f32>("fp32");
    println!("\n84 × 84 × 4 pixels to fp32: {:.1} µs", scaling::<f32>());
    // The kernels for bf16 need its instructions.
    if level() >= SimdLevel::Avx512Bf16 {
        println!("84 × 84 × 4 pixels to bf16: {:.1} µs", scaling::<bf16>());
    }
}

/// Microseconds to scale the pixels of an observation to floats.
fn scaling<T: LayerKernels>() -> f64 {
    let pixels: Vec<u8> = (0..84 * 84 * 4).map(|i| (i * 7919 % 251) as u8).collect();
    let (mean, factor) = Scaling::Unit.mean_and_factor(&pixels);
    let mut to = zeros::<T>(pixels.len());
    1e6 * fastest(|| T::scale(black_box(&pixels), mean, factor, &mut to))
}

fn of<T: LayerKernels>(dtype: &str) {
    for (name, side, channels, outputs, kernel, stride) in CONVOLUTIONS {
        let shape =
            LayerShape { outputs, kernel_rows: kernel, row_len: kernel * channels, row_stride: side * channels };
        if !T::supports(&shape) {
            continue;
        }
        let count = (side - kernel) / stride + 1;
        let positions: Vec<usize> =
            (0..count * count).map(|p| (p / count * side + p % count) * channels * stride).collect();
        let (x, weights, bias) =
            (values::<T>(side * side * channels), values::<T>(outputs * shape.inputs()), values::<T>(outputs));
        let mut y = zeros::<T>(positions.len() * outputs);
        let dy = values::<T>(y.len());
        let (mut dx, mut dw) = (zeros(x.len()), zeros(weights.len()));
        let mut packed = T::Packed::default();
        T::pack(&shape, &weights, &mut packed);
        T::pack_transposed(&shape, &weights, &mut packed);
        let flops = 2 * positions.len() * weights.len();
        let forward = rate(flops, || T::convolve(&shape, &mut packed, &bias, true, &positions, black_box(&x), &mut y));
        let weight = rate(flops, || T::weight_gradient(&shape, &mut packed, &positions, &x, black_box(&dy), &mut dw));
        let input =
            rate(flops, || T::input_gradient(&shape, &mut packed, &weights, &positions, black_box(&dy), &mut dx));
        println!("{name:<14}{dtype:<12}{forward:>10.0}{weight:>18.0}{input:>18.0}");
    }
    let shape = LayerShape { outputs: 512, kernel_rows: 1, row_len: 3136, row_stride: 3136 };
    if !T::supports(&shape) {
        return;
    }
    let (x, weights, bias) = (values::<T>(BATCH * 3136), values::<T>(512 * 3136), values::<T>(512));
    let (mut y, dy) = (zeros::<T>(BATCH * 512), values::<T>(BATCH * 512));
    let (mut dx, mut dw) = (zeros(x.len()), weights.clone());
    let mut packed = T::Packed::default();
    let flops = 2 * BATCH * weights.len();
    let forward = rate(flops, || T::linear(&shape, &mut packed, &weights, &bias, true, black_box(&x), &mut y));
    let weight = rate(flops, || T::linear_weight_gradient(&shape, &mut packed, &x, black_box(&dy), &mut dw));
    let input = rate(flops, || T::linear_input_gradient(&shape, &mut packed, &weights, black_box(&dy), &mut dx));
    println!("{:<14}{dtype:<12}{forward:>10.0}{weight:>18.0}{input:>18.0}", "3136 × 512");
}

/// As networks have them, aligned with a cache line.
type Buffer<T> = AVec<T, ConstAlign<64>>;

fn values<T: Element>(n: usize) -> Buffer<T> {
    AVec::from_iter(64, (0..n).map(|i| T::narrow((i * 7919 % 251) as f32 / 251.0 - 0.5)))
}

fn zeros<T: Element>(n: usize) -> Buffer<T> {
    AVec::from_iter(64, (0..n).map(|_| T::narrow(0.0)))
}

/// GFLOP/s.
fn rate(flops: usize, call: impl FnMut()) -> f64 {
    flops as f64 / fastest(call) / 1e9
}

/// Seconds of the fastest of 300 calls.
fn fastest(mut call: impl FnMut()) -> f64 {
    let seconds = |_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64()
    };
    (0..300).map(seconds).fold(f64::INFINITY, f64::min)
}
