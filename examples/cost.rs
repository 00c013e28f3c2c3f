//! How the cost of training grows with environments, minibatches, threads and the replay buffer, measured on this machine and drawn as
//! four charts: `make build && cargo run --release --example cost -- cost.svg`.
#![allow(clippy::print_stdout)] // not a library

use playfield::core::rng;
use playfield::replay::{Changes, Prioritized, PriorityConfig};
use playfield::report::chart::{self, Line, Lines};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The program, built by `make build`.
const PLAYFIELD: &str = "target/release/playfield";

/// Agent steps per second of a training run after its first quarter.
fn rate(config: &str, steps: usize, settings: &[(&str, usize)]) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut train = Command::new(PLAYFIELD);
    train.args(["train", config, "--steps", &steps.to_string(), "--run-dir"]).arg(&run);
    train.args(["--set", &format!("log_steps={}", steps / 8)]);
    for (key, value) in settings {
        train.args(["--set", &format!("{key}={value}")]);
    }
    let status = train.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("run `make build` first").success(), "{config} with {settings:?} failed");
    let rows = times(&run.join("progress.csv"));
    let (end, last) = rows[rows.len() - 1];
    let (begin, first) = *rows.iter().find(|(_, step)| *step >= last / 4.0).unwrap();
    (last - first) / (end - begin)
}

/// The seconds and the steps of each row of metrics.
fn times(progress: &Path) -> Vec<(f64, f64)> {
    let text = std::fs::read_to_string(progress).unwrap();
    let (head, rows) = text.split_once('\n').unwrap();
    let column = |name: &str| head.split(',').position(|tag| tag == name).unwrap();
    let (seconds, steps) = (column("time/time_elapsed"), column("time/total_timesteps"));
    let cell = |row: &str, i: usize| row.split(',').nth(i)?.parse().ok();
    rows.lines().filter_map(|row| Some((cell(row, seconds)?, cell(row, steps)?))).collect()
}

/// Microseconds to draw a prioritized batch of 32 from `items` and to update its priorities: the median of 20,000.
fn prioritized(items: usize) -> f64 {
    let mut priorities = Prioritized::new(PriorityConfig::default(), items).unwrap();
    priorities.apply(&Changes { added: (0..items).collect(), removed: vec![], ..Changes::default() });
    let (mut random, mut indices, mut weights) = (rng::stream(1, "samples"), [0; 32], [0.0; 32]);
    let mut errors: Vec<f32> = (0..32).map(|i| i as f32 / 32.0).collect();
    let mut draw = || {
        let start = Instant::now();
        priorities.sample(&mut random, 0.4, &mut indices, &mut weights);
        errors.rotate_left(1);
        priorities.update(&indices, &errors).unwrap();
        start.elapsed().as_secs_f64() * 1e6
    };
    let mut times: Vec<_> = (0..20_000).map(|_| draw()).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A line through `measure(x)` for each of `xs`, at the positions `place(x)`; prints each value.
fn line(i: usize, name: &str, xs: &[usize], place: fn(f64) -> f64, measure: impl Fn(usize) -> f64) -> Line {
    let points = xs.iter().map(|&x| {
        let y = measure(x);
        println!("{name:<40}{x:>10}{y:>10.1}");
        [place(x as f64), y, y, y]
    });
    Line { name: name.into(), color: chart::line_color(i), points: points.collect() }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::env::args().nth(1).unwrap_or_else(|| "cost.svg".into());
    let threads = [(1, "1 thread"), (2, "2 threads")];
    let environments = threads.map(|(n, name)| {
        line(n, &format!("PAAC, {name}"), &[2, 4, 8, 16, 32, 64, 128, 256], f64::log2, |envs| {
            let settings = [("env.num_envs", envs), ("env.num_threads", n), ("paac.num_threads", n)];
            rate("configs/bench/paac.toml", (40 * envs).max(6_000).next_multiple_of(5 * envs), &settings)
        })
    });
    let minibatches = threads.map(|(n, name)| {
        line(n, &format!("PPO, {name}"), &[32, 64, 128, 256, 512, 1024, 2048], f64::log2, |rows| {
            let settings =
                [("minibatch_size", rows), ("env.num_envs", 16), ("env.num_threads", n), ("ppo.num_threads", n)];
            rate("configs/ppo/pong.toml", 8_192, &settings)
        })
    });
    let batches = [line(3, "DQN, 2 threads", &[32, 64, 128, 256, 512, 1024, 2048], f64::log2, |rows| {
        // Training starts after the quarter that is not measured.
        let steps = (65_536 / rows).max(512);
        rate("configs/bench/dqn.toml", steps, &[("batch_size", rows), ("learning_starts", steps / 4)])
    })];
    let replay =
        [line(4, "prioritized batch of 32", &[10_000, 100_000, 1_000_000, 10_000_000], f64::log10, prioritized)];

    let power_of_2 = |place: f64| if place.fract() == 0.0 { format!("{}", place.exp2()) } else { String::new() };
    let power_of_10 = |place: f64| if place.fract() == 0.0 { format!("10^{place}") } else { String::new() };
    type Panel<'a> = (&'a [Line], (&'a str, &'a str), fn(f64) -> String);
    let panels: [Panel<'_>; 4] = [
        (&environments, ("environments", "steps/s"), power_of_2),
        (&minibatches, ("minibatch size", "steps/s"), power_of_2),
        (&batches, ("batch size", "steps/s"), power_of_2),
        (&replay, ("transitions", "µs"), power_of_10),
    ];
    let svg = chart::svg((960, 640), "the cost of training", |area| {
        for ((lines, axes, x_label), area) in panels.into_iter().zip(area.split_evenly((2, 2))) {
            let legend = Some(chart::Legend::LowerRight);
            Lines { lines, axes, from_zero: false, x_label, log: false, levels: &[0.0], legend, text: 12 }
                .draw(&area)?;
        }
        Ok(())
    })?;
    std::fs::write(&out, svg)?;
    println!("written: {out}");
    Ok(())
}
