//! Trick 27: one model for synchronous environments (PAAC) compared with asynchronous threads with one model each (A3C).

use super::agents::{recipe, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use toml::Value;

const ASYNCHRONOUS: &str = "A3C";
const SYNCHRONOUS: &str = "PAAC";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 27,
    name: "synchronous",
    about: "PAAC: synchronous environments and one model instead of A3C's asynchronous threads",
    source: "Clemente, Castejón and Chandra 2017",
    data: "CartPole, 150,000 steps, each algorithm with its own configuration (configs/paac and configs/a3c); curves over time",
    verified_by: "crates/agents/paac/tests/update.rs: an_update_equals_pytorch; crates/agents/a3c/tests/actor_learners.rs: a_single_actor_learner_is_paac",
    metric: "mean raw return of the last 100 episodes (500 at most), at equal steps",
    better: Better::Higher,
    baseline: ASYNCHRONOUS,
    with: &[SYNCHRONOUS],
    timed: true,
    run,
};

const STEPS: u64 = 150_000;

fn run(trial: &mut Trial) -> Result<()> {
    trial.axes("seconds", "return, mean of 100 episodes");
    let steps = [("", "steps", Value::from(STEPS as i64))];
    let mut both = Vec::new();
    for (variant, text) in [
        (ASYNCHRONOUS, include_str!("../../../../configs/a3c/cartpole.toml")),
        (SYNCHRONOUS, include_str!("../../../../configs/paac/cartpole.toml")),
    ] {
        let trained = train(trial, &recipe(text, &steps)?, None)?;
        trial.record(variant, trained.lately(STEPS));
        both.push((variant, trained));
    }
    // At equal time: the time that the faster of the two took.
    let last = |trained: &super::agents::Trained| trained.episodes.last().map_or(0.0, |e| e.elapsed.as_secs_f64());
    let least = both.iter().map(|(_, trained)| last(trained)).fold(f64::INFINITY, f64::min);
    for (variant, trained) in &both {
        let at = |seconds: f64| {
            let mut before = trained.episodes.iter().filter(|e| e.elapsed.as_secs_f64() <= seconds);
            trained.lately(before.next_back().map_or(0, |e| e.step))
        };
        trial.record(&format!("{variant}, at equal time"), at(least));
        for tenth in 1..=(10.0 * last(trained)) as u64 {
            trial.point(variant, tenth as f64 / 10.0, at(tenth as f64 / 10.0));
        }
    }
    Ok(())
}
