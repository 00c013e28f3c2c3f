//! Benchmarks of the replay buffer: a prioritized batch of 32 with its update, at 10⁴ to 10⁷ items, and a batch of 32
//! transitions with four stacked Pong-sized frames, plain and compressed. `cargo bench -p playfield-replay`
#![allow(clippy::print_stdout, missing_docs)]

use playfield_core::rng::stream;
use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, Obs, StepBatch};
use playfield_replay::{Changes, Prioritized, PriorityConfig, ReplayBuffer, ReplayConfig, Transitions, uniform};
use std::time::Instant;

/// The median of `n` calls, in microseconds.
fn median(n: usize, mut call: impl FnMut()) -> f64 {
    let mut times: Vec<_> = (0..n)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[n / 2].as_secs_f64() * 1e6
}

fn main() {
    for items in [10_000, 100_000, 1_000_000, 10_000_000] {
        let mut priorities = Prioritized::new(PriorityConfig::default(), items).expect("valid settings");
        priorities.apply(&Changes { added: (0..items).collect(), removed: vec![], ..Changes::default() });
        let mut rng = stream(1, "samples");
        let (mut indices, mut weights) = ([0; 32], [0.0; 32]);
        let mut errors: Vec<f32> = (0..32).map(|i| i as f32 / 32.0).collect();
        let time = median(20_000, || {
            priorities.sample(&mut rng, 0.4, &mut indices, &mut weights);
            errors.rotate_left(1);
            priorities.update(&indices, &errors).expect("finite errors");
        });
        println!("prioritized batch of 32 and update, {items:>8} items   median {time:8.1} µs");
    }
    let actions = ActionSpace::Discrete { n: 6 };
    let spec = EnvSpec::new("bench", &[84, 84], Dtype::U8, actions).with_frame_stack(4);
    for compress in [false, true] {
        let config = ReplayConfig { capacity: 20_000, n_step: 1, gamma: 0.99, compress };
        let mut buffer = ReplayBuffer::new(&spec, 1, config).expect("enough memory");
        let mut batch = StepBatch::new(&spec, 1);
        buffer.reset(&batch);
        let mut t = 0;
        let write = median(20_000, || {
            t += 1;
            batch.obs = Obs::U8(pong(t));
            buffer.push(&Actions::Discrete(vec![0]), &batch);
        });
        let (mut rng, mut indices, mut sampled) = (stream(1, "samples"), [0; 32], Transitions::new(&spec, 32));
        let read = median(2_000, || {
            uniform::sample(&buffer, &mut rng, &mut indices);
            buffer.gather(&indices, &mut sampled);
        });
        let bytes = buffer.resident_bytes() as f64 / buffer.capacity() as f64;
        let name = if compress { "compressed" } else { "plain" };
        println!("frames, {name:10}   write {write:6.1} µs, batch of 32 {read:8.1} µs, {bytes:6.0} bytes per step");
    }
}

/// A frame similar to Pong's: a uniform field, borders, two paddles, a ball and digits.
fn pong(t: usize) -> Vec<u8> {
    let mut frame = vec![87; 84 * 84];
    let mut fill = |x: usize, y: usize, w: usize, h: usize, gray: u8| {
        (y..(y + h).min(84)).for_each(|y| frame[84 * y + x..84 * y + x + w].fill(gray));
    };
    fill(0, 10, 84, 4, 236);
    fill(0, 78, 84, 6, 236);
    fill(8, 14 + t * 7 % 56, 2, 7, 148);
    fill(74, 14 + t * 5 % 56, 2, 7, 147);
    fill(10 + t * 3 % 62, 14 + t * 2 % 62, 1, 2, 236);
    (0..12).for_each(|i| fill(18 + 4 * i, i % 3 * 2, 1 + (t / 100 + i) % 3, 6, 160));
    frame
}
