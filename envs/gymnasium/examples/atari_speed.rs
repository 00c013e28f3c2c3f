//! Agent steps per second of a batch of Atari games under random actions, and nothing else.
//!
//! `cargo run --release -p playfield-gymnasium --example atari_speed -- [ID] [ENVS] [THREADS] [STEPS]`; the same loop
//! in plain Python is `atari_speed.py` beside this file.
#![allow(clippy::print_stdout, reason = "an example reports to its user")]

use playfield_core::{ActionSpace, Actions, EnvConfig, EnvSource, Result, StepBatch, rng};
use playfield_gymnasium::AtariSource;
use std::time::Instant;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let id = arguments.next().unwrap_or_else(|| "ALE/Pong-v5".into());
    let mut number = |default| arguments.next().and_then(|a| a.parse().ok()).unwrap_or(default);
    let (envs, threads, steps) = (number(32), number(2), number(2000));
    let source = AtariSource::new(&id);
    let mut table = source.defaults();
    table.insert("id".into(), id.into());
    table.insert("num_envs".into(), (envs as i64).into());
    table.insert("num_threads".into(), (threads as i64).into());
    let config = EnvConfig::resolve(&table, source.defaults())?;
    let mut vec = source.batch(&config, &rng::seeds(1, "env", envs))?.expect("a batch");
    let ActionSpace::Discrete { n } = vec.spec().actions else { unreachable!("Atari actions are discrete") };
    let mut batch = StepBatch::new(vec.spec(), envs);
    let mut random = rng::stream(1, "actions");
    vec.reset(&mut batch)?;
    let sample = |random: &mut rng::Rng| {
        use rand::Rng as _;
        Actions::Discrete((0..envs).map(|_| (random.next_u64() % n as u64) as i64).collect())
    };
    let start = Instant::now();
    for _ in 0..steps {
        vec.step(&sample(&mut random), &mut batch)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} agent steps/s", (steps * envs) as f64 / seconds);
    Ok(())
}
