//! Trick 23: actor-learners with the same ε or with different ones.

use super::agents::{recipe, train};
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use toml::Value;

const ONE: &str = "one ε, .1";
const THREE: &str = "each .1, .01 or .5";
const RANGE: &str = "resampled from [.01, .5]";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 23,
    name: "exploration",
    about: "parallel agents, each with its own ε, sampled from a distribution",
    source: "Mnih et al. 2016, section 5.1, for three values; the list of tricks itself for a bounded distribution that is sampled repeatedly",
    data: "Catch (toy game in frames), n-step Q-learning by 4 threads, 25,000 steps",
    verified_by: "crates/agents/a3c/tests/q_learner.rs: final_epsilons_have_the_published_probabilities; crates/agents/a3c/tests/q_learner.rs: epsilon_is_resampled_from_a_range",
    metric: "mean return of 50 greedy episodes",
    better: Better::Higher,
    baseline: ONE,
    with: &[THREE, RANGE],
    timed: false,
    run,
};

const STEPS: u64 = 25_000;

fn run(trial: &mut Trial) -> Result<()> {
    trial.axes("agent steps of all threads", "return while exploring, mean of 100 episodes");
    let list = |values: &[f64]| Value::from(values.to_vec());
    for (variant, key, value) in [
        (ONE, "final_epsilons", list(&[0.1, 0.1, 0.1])),
        (THREE, "final_epsilons", list(&[0.1, 0.01, 0.5])),
        (RANGE, "range", list(&[0.01, 0.5])),
    ] {
        let changes = [
            ("", "steps", Value::from(STEPS as i64)),
            ("a3c.exploration", "anneal_steps", 10_000.into()),
            ("a3c.exploration", key, value),
        ];
        let recipe = recipe(include_str!("../../../../configs/a3c/catch-q.toml"), &changes)?;
        let mut trained = train(trial, &recipe, None)?;
        trained.draw(trial, variant, STEPS, 1.0);
        let mean = trained.greedy(trial.seed(), 50)?;
        trial.record(variant, mean);
    }
    Ok(())
}
