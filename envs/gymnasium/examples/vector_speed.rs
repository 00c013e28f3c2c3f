//! Microseconds per step of one environment in a batch of Gymnasium environments, in this process and in processes.
//!
//! `cargo run --release -p playfield-gymnasium --example vector_speed -- [ENVS] [SECONDS] [STEPS] [image]`, with the seconds that a step
//! of one environment computes; the same loop in plain Python and by Gymnasium's vector environments is `vector_speed.py` beside this
//! file.
#![allow(clippy::print_stdout, reason = "an example reports to its user")]

use playfield_core::{Actions, EnvConfig, EnvSource, Result, StepBatch, rng};
use playfield_gymnasium::GymSource;
use rand::Rng as _;
use std::time::Instant;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: f64| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (envs, seconds, steps) = (number(0, 32.0) as usize, number(1, 0.0), number(2, 2000.0) as usize);
    let image = if arguments.iter().any(|a| a == "image") { ", shape = [210, 160, 3], dtype = 'uint8'" } else { "" };
    let id = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/vector_speed.py:Busy");
    for mode in ["sync", "async"] {
        let section = format!("id = '{id}'\nvectorization = '{mode}'\nkwargs = {{ seconds = {seconds:?}{image} }}\n");
        let config = EnvConfig::resolve(&section.parse().expect("TOML"), toml::Table::new())?;
        let mut env = GymSource::new(id).batch(&config, &rng::seeds(1, "env", envs))?.expect("a batch");
        let (mut batch, mut random) = (StepBatch::new(env.spec(), envs), rng::stream(1, "actions"));
        env.reset(&mut batch)?;
        let mut advance = |steps: usize| -> Result<f64> {
            let start = Instant::now();
            for _ in 0..steps {
                let actions = Actions::Discrete((0..envs).map(|_| (random.next_u64() % 2) as i64).collect());
                env.step(&actions, &mut batch)?;
            }
            Ok(start.elapsed().as_secs_f64())
        };
        advance((steps / 10).max(1))?;
        println!("playfield {mode:10} {:9.2} µs", advance(steps)? / (steps * envs) as f64 * 1e6);
    }
    Ok(())
}
