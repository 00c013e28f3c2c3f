//! Trick 24: frame skip.

use super::agents::{recipe, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use toml::Value;

const EACH: &str = "no frame skip";
const SKIP: &str = "frame skip 4";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 24,
    name: "frame-skip",
    about: "an action is repeated for four frames",
    source: "Bellemare et al. 2013; Mnih et al. 2015, methods",
    data: "MountainCar, DQN, 40,000 frames in total with and without frame skip; an episode has at most 200 frames",
    verified_by: "envs/gymnasium/tests/parity.rs: gymnasiums_wrappers_on_breakout",
    metric: "mean raw return (minus the frames to the goal) of the last 100 episodes",
    better: Better::Higher,
    baseline: EACH,
    with: &[SKIP],
    timed: false,
    run,
};

const FRAMES: u64 = 40_000;

fn run(trial: &mut Trial) -> Result<()> {
    trial.axes("frames", "return, mean of 100 episodes");
    for (variant, skip, steps) in
        [(EACH, 1_u64, FRAMES), (SKIP, 4, FRAMES / 4), ("frame skip 4, equal number of actions", 4, FRAMES)]
    {
        let whole = |n: u64| Value::from(n as i64);
        let changes = [
            ("", "steps", whole(steps)),
            ("env", "frame_skip", whole(skip)),
            ("env", "max_episode_steps", whole(200 / skip)),
            ("network", "hidden", Value::from(vec![64, 64])),
            ("dqn.exploration_epsilon", "steps", whole(steps / 5)),
            ("dqn", "learning_starts", whole(1000 / skip)),
        ];
        let recipe = recipe(include_str!("../../../../configs/dqn/mountaincar.toml"), &changes)?;
        let trained = train(trial, &recipe, None)?;
        trained.draw(trial, variant, steps, skip as f64);
        trial.record(variant, trained.lately(steps));
    }
    Ok(())
}
