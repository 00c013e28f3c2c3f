//! Trick 26: experience replay, uniform and prioritized.

use super::agents::{recipe, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use toml::Value;

const NONE: &str = "none: the last 256 transitions";
const UNIFORM: &str = "uniform";
const PRIORITIZED: &str = "prioritized";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 26,
    name: "replay",
    about: "transitions are stored and sampled repeatedly; those with a large error more often",
    source: "Lin 1992; Mnih et al. 2015; Schaul et al. 2016",
    data: "CartPole, DQN, 50,000 steps",
    verified_by: "crates/replay/tests/replay_buffer.rs: equals_a_list_of_everything; crates/replay/tests/prioritized.rs: samples_follow_the_probabilities",
    metric: "mean raw return of the last 100 episodes (500 at most)",
    better: Better::Higher,
    baseline: NONE,
    with: &[UNIFORM, PRIORITIZED],
    timed: false,
    run,
};

const STEPS: u64 = 50_000;

fn run(trial: &mut Trial) -> Result<()> {
    trial.axes("agent steps", "return, mean of 100 episodes");
    for (variant, capacity, prioritized, double) in [
        (NONE, 256, false, false),
        (UNIFORM, 50_000, false, false),
        (PRIORITIZED, 50_000, true, false),
        ("uniform, double", 50_000, false, true),
        ("prioritized, double", 50_000, true, true),
    ] {
        let changes = [
            ("", "steps", Value::from(STEPS as i64)),
            ("network", "hidden", Value::from(vec![64, 64])),
            // The number of steps between two times of training equals the capacity of the smallest buffer.
            ("dqn", "learning_starts", 256.into()),
            ("dqn", "buffer_size", capacity.into()),
            ("dqn", "prioritized", prioritized.into()),
            ("dqn", "double", double.into()),
        ];
        let recipe = recipe(include_str!("../../../../configs/dqn/cartpole.toml"), &changes)?;
        let trained = train(trial, &recipe, None)?;
        trained.draw(trial, variant, STEPS, 1.0);
        trial.record(variant, trained.lately(STEPS));
    }
    Ok(())
}
