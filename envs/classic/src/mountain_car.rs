//! An underpowered car in a valley (Moore 1990), as in Gymnasium's `MountainCar-v0`.

use crate::canvas::{BLACK, BLUE, Canvas, GRAY, RED};
use crate::support::{discrete, reseed, restore, uniform};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Image, ObsMut, Result, State, Step};
use serde::{Deserialize, Serialize};

const POSITIONS: [f64; 2] = [-1.2, 0.6];
const MAX_SPEED: f64 = 0.07;
const GOAL: f64 = 0.5;
const FORCE: f64 = 0.001;
const GRAVITY: f64 = 0.0025;

/// Gain momentum to leave a valley.
///
/// Observation, `f32[2]`: position (−1.2 to 0.6) and velocity (±0.07). Actions: 0 left, 1 no force, 2 right. Reward: −1 per
/// step. An episode terminates at position 0.5; by default it is truncated after 200 steps. The initial position is uniform on
/// [−0.6, −0.4), and the initial velocity is 0.
#[derive(Clone, Debug)]
pub struct MountainCar {
    spec: EnvSpec,
    config: MountainCarConfig,
    sim: Simulation,
}

/// The `[env.kwargs]` of [`MountainCar`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MountainCarConfig {
    /// The velocity required at the goal.
    pub goal_velocity: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Simulation {
    rng: Rng,
    /// Position, velocity.
    state: [f64; 2],
}

impl MountainCar {
    /// Creates the environment; call [`reset`](Env::reset) first.
    pub fn new(config: MountainCarConfig) -> Self {
        let names = ["LEFT", "NOOP", "RIGHT"];
        let spec =
            EnvSpec::new("MountainCar", &[2], Dtype::F32, ActionSpace::Discrete { n: 3 }).with_action_names(names);
        Self { spec, config, sim: Simulation { rng: rng::stream(0, "game"), state: [0.0; 2] } }
    }

    fn observe(&self, mut obs: ObsMut<'_>) {
        obs.f32().copy_from_slice(&self.sim.state.map(|x| x as f32));
    }
}

impl Env for MountainCar {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.sim.rng, seed);
        self.sim.state = [uniform(&mut self.sim.rng, -0.6, -0.4), 0.0];
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let push = discrete(&self.spec, action)? as f64 - 1.0;
        let [position, velocity] = self.sim.state;
        let velocity = velocity + (push * FORCE + (3.0 * position).cos() * -GRAVITY);
        let velocity = velocity.clamp(-MAX_SPEED, MAX_SPEED);
        let position = (position + velocity).clamp(POSITIONS[0], POSITIONS[1]);
        // The wall on the left stops the car.
        let velocity = if position == POSITIONS[0] && velocity < 0.0 { 0.0 } else { velocity };
        self.sim.state = [position, velocity];
        self.observe(obs);
        let terminated = position >= GOAL && velocity >= self.config.goal_velocity;
        Ok(Step { reward: -1.0, terminated, ..Step::default() })
    }

    fn render(&mut self) -> Result<Option<Image>> {
        let height = |x: f64| 0.45 * (3.0 * x).sin() + 0.55;
        let x = self.sim.state[0];
        let mut canvas = Canvas::new(300, [POSITIONS[0], 0.0], [POSITIONS[1], 1.2]);
        canvas.fill(GRAY, |[x, y]| y < height(x));
        canvas.line(BLACK, [GOAL, height(GOAL)], [GOAL, height(GOAL) + 0.12], 0.01);
        canvas.rectangle(RED, [GOAL, height(GOAL) + 0.07], [GOAL + 0.06, height(GOAL) + 0.12]);
        canvas.disc(BLUE, [x, height(x) + 0.03], 0.04);
        Ok(Some(canvas.into_image()))
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.sim = restore(&self.spec, state)?;
        Ok(())
    }
}
