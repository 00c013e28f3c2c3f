//! An underpowered pendulum, as in Gymnasium's `Pendulum-v1`: the smallest task of continuous control.

use crate::canvas::{BLACK, Canvas, RED};
use crate::support::{continuous, reseed, restore, uniform};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Image, ObsMut, Result, State, Step};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

const MAX_SPEED: f64 = 8.0; // rad/s
const MAX_TORQUE: f32 = 2.0; // N·m
const DT: f64 = 0.05; // s
// Its mass is 1 kg and its length 1 m, so neither appears in a formula.

/// Swing a pendulum up and hold it there.
///
/// Observation, `f32[3]`: cosine and sine of the angle (0: upright), angular velocity (±8 rad/s). Action, `f32[1]`: the
/// torque (±2 N·m). Reward: −(angle² + 0.1·velocity² + 0.001·torque²), the angle from −π to π. An episode never
/// terminates; by default it is truncated after 200 steps. The initial angle is uniform
/// on [−π, π), and the initial velocity on [−1, 1) rad/s.
#[derive(Clone, Debug)]
pub struct Pendulum {
    spec: EnvSpec,
    config: PendulumConfig,
    sim: Simulation,
}

/// The `[env.kwargs]` of [`Pendulum`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PendulumConfig {
    /// The acceleration of gravity, in m/s².
    pub g: f64,
}

impl Default for PendulumConfig {
    fn default() -> Self {
        Self { g: 10.0 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Simulation {
    rng: Rng,
    /// Angle (not wrapped to ±π), angular velocity.
    state: [f64; 2],
}

impl Pendulum {
    /// Creates the environment; call [`reset`](Env::reset) first.
    pub fn new(config: PendulumConfig) -> Self {
        let actions = ActionSpace::Box { low: vec![-MAX_TORQUE], high: vec![MAX_TORQUE] };
        let spec = EnvSpec::new("Pendulum", &[3], Dtype::F32, actions);
        Self { spec, config, sim: Simulation { rng: rng::stream(0, "game"), state: [0.0; 2] } }
    }

    fn observe(&self, mut obs: ObsMut<'_>) {
        let [angle, velocity] = self.sim.state;
        obs.f32().copy_from_slice(&[angle.cos(), angle.sin(), velocity].map(|x| x as f32));
    }
}

impl Env for Pendulum {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.sim.rng, seed);
        self.sim.state = [PI, 1.0].map(|most| uniform(&mut self.sim.rng, -most, most));
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        // The torque is `f32` for as long as it is in Gymnasium.
        let torque = continuous(&self.spec, action)?;
        let [angle, velocity] = self.sim.state;
        let from_top = (angle + PI).rem_euclid(2.0 * PI) - PI;
        let cost = from_top.powi(2) + 0.1 * velocity.powi(2) + f64::from(0.001 * torque.powi(2));

        let acceleration = 3.0 * self.config.g / 2.0 * angle.sin() + f64::from(3.0 * torque);
        let velocity = (velocity + acceleration * DT).clamp(-MAX_SPEED, MAX_SPEED);
        self.sim.state = [angle + velocity * DT, velocity];
        self.observe(obs);
        Ok(Step { reward: -cost as f32, ..Step::default() })
    }

    fn render(&mut self) -> Result<Option<Image>> {
        let (sin, cos) = self.sim.state[0].sin_cos();
        let mut canvas = Canvas::new(240, [-1.3, -1.3], [1.3, 1.3]);
        canvas.line(RED, [0.0, 0.0], [-sin, cos], 0.2);
        canvas.disc(BLACK, [0.0, 0.0], 0.05);
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
