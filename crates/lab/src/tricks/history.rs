//! Trick 25: frame stacking.

use super::agents::{recipe, train};
use crate::{Better, Trial, Trick};
use playfield_classic::CartPole;
use playfield_core::env::source;
use playfield_core::{Action, Dtype, Env, EnvSpec, ObsMut, ObsRef, Result, Step};
use std::sync::Arc;
use toml::Value;

const ONE: &str = "1 frame";
const FOUR: &str = "4 frames";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 25,
    name: "history",
    about: "the last four frames form one observation, which makes motion observable",
    source: "Mnih et al. 2013, section 4.1",
    data: "CartPole with only the cart's position and the pole's angle observed, PAAC, 200,000 steps",
    verified_by: "crates/core/src/frame_stack.rs: equals_the_list_of_frames_for_every_depth",
    metric: "mean raw return of the last 100 episodes (500 at most)",
    better: Better::Higher,
    baseline: ONE,
    with: &[FOUR],
    timed: false,
    run,
};

const STEPS: u64 = 200_000;

fn run(trial: &mut Trial) -> Result<()> {
    trial.axes("agent steps", "return, mean of 100 episodes");
    for (variant, history) in [(ONE, 1), (FOUR, 4)] {
        let changes = [
            ("", "steps", Value::from(STEPS as i64)),
            ("env", "frame_stack", history.into()),
            ("env", "max_episode_steps", 500.into()),
            ("env", "num_threads", 1.into()),
        ];
        let recipe = recipe(include_str!("../../../../configs/paac/cartpole.toml"), &changes)?;
        let trained = train(trial, &recipe, Some(Arc::new(source(|_| Ok(Positions::new())))))?;
        trained.draw(trial, variant, STEPS, 1.0);
        trial.record(variant, trained.lately(STEPS));
    }
    Ok(())
}

/// CartPole without its velocities.
struct Positions {
    game: CartPole,
    spec: EnvSpec,
    state: [f32; 4],
}

impl Positions {
    fn new() -> Self {
        let game = CartPole::new();
        let spec = EnvSpec { id: "CartPolePositions".into(), shape: vec![2], dtype: Dtype::F32, ..game.spec().clone() };
        Self { game, spec, state: [0.0; 4] }
    }

    /// The cart's position and the pole's angle are elements 0 and 2 of CartPole's observation.
    fn show(&self, mut obs: ObsMut<'_>) {
        obs.copy_from(ObsRef::F32(&[self.state[0], self.state[2]]));
    }
}

impl Env for Positions {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        let step = self.game.reset(seed, ObsMut::F32(&mut self.state))?;
        self.show(obs);
        Ok(step)
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let step = self.game.step(action, ObsMut::F32(&mut self.state))?;
        self.show(obs);
        Ok(step)
    }
}
