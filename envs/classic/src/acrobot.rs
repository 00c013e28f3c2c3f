//! A two-link pendulum with a motor at the joint between the links (Sutton 1996): Gymnasium's `Acrobot-v1`.

use crate::canvas::{BLUE, BROWN, Canvas, GRAY};
use crate::support::{discrete, reseed, restore, uniform};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, Image, ObsMut, Result, State, Step};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

const DT: f64 = 0.2; // s
const CENTER: f64 = 0.5; // m, from a link's joint to its center of mass
const INERTIA: f64 = 1.0; // kg·m², of each link
const GRAVITY: f64 = 9.8; // m/s²
const MAX_SPEEDS: [f64; 2] = [4.0 * PI, 9.0 * PI]; // rad/s
// Each link has a mass of 1 kg and a length of 1 m, so neither appears in a formula.

/// Swing the free end of the two links up.
///
/// Observation, `f32[6]`: cosine and sine of the first joint's angle (0: hanging), of the second's (0: stretched), both
/// angular velocities (±4π and ±9π rad/s). Actions: a torque of −1, 0 or 1 N·m on the second joint. Reward: −1 per step, and
/// 0 for the last. An episode terminates when the free end is more than a link's length above the first joint; by default it
/// is truncated after 500 steps. The initial state is uniform on (−0.1, 0.1)⁴.
#[derive(Clone, Debug)]
pub struct Acrobot {
    spec: EnvSpec,
    sim: Simulation,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Simulation {
    rng: Rng,
    /// Angles, then angular velocities.
    state: [f64; 4],
}

impl Acrobot {
    /// Creates the environment; call [`reset`](Env::reset) first.
    pub fn new() -> Self {
        let names = ["LEFT", "NOOP", "RIGHT"];
        let spec = EnvSpec::new("Acrobot", &[6], Dtype::F32, ActionSpace::Discrete { n: 3 }).with_action_names(names);
        Self { spec, sim: Simulation { rng: rng::stream(0, "game"), state: [0.0; 4] } }
    }

    fn observe(&self, mut obs: ObsMut<'_>) {
        let [first, second, first_dot, second_dot] = self.sim.state;
        let numbers = [first.cos(), first.sin(), second.cos(), second.sin(), first_dot, second_dot];
        obs.f32().copy_from_slice(&numbers.map(|x| x as f32));
    }
}

impl Default for Acrobot {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for Acrobot {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.sim.rng, seed);
        // Gymnasium rounds the first state, and no other, to `f32`.
        self.sim.state = [(); 4].map(|()| f64::from(uniform(&mut self.sim.rng, -0.1, 0.1) as f32));
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let torque = discrete(&self.spec, action)? as f64 - 1.0;
        let [first, second, first_dot, second_dot] = runge_kutta(self.sim.state, |s| derivative(s, torque));
        let (first, second) = (wrap(first), wrap(second));
        let first_dot = first_dot.clamp(-MAX_SPEEDS[0], MAX_SPEEDS[0]);
        let second_dot = second_dot.clamp(-MAX_SPEEDS[1], MAX_SPEEDS[1]);
        self.sim.state = [first, second, first_dot, second_dot];
        self.observe(obs);
        let terminated = -first.cos() - (second + first).cos() > 1.0;
        Ok(Step { reward: if terminated { 0.0 } else { -1.0 }, terminated, ..Step::default() })
    }

    fn render(&mut self) -> Result<Option<Image>> {
        let [first, second, ..] = self.sim.state;
        let middle = [first.sin(), -first.cos()];
        let end = [middle[0] + (first + second).sin(), middle[1] - (first + second).cos()];
        let mut canvas = Canvas::new(240, [-2.2, -2.2], [2.2, 2.2]);
        canvas.line(GRAY, [-2.2, 1.0], [2.2, 1.0], 0.02);
        canvas.line(BLUE, [0.0, 0.0], middle, 0.2);
        canvas.line(BLUE, middle, end, 0.2);
        canvas.disc(BROWN, [0.0, 0.0], 0.1);
        canvas.disc(BROWN, middle, 0.1);
        Ok(Some(canvas.into_image()))
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let sim: Simulation = restore(&self.spec, state)?;
        let limits = [PI, PI, MAX_SPEEDS[0], MAX_SPEEDS[1]];
        if sim.state.iter().zip(limits).any(|(x, limit)| x.abs() > limit) {
            return Err(Error::env(
                &self.spec.id,
                "the saved state has an angle beyond ±π or a velocity beyond its limit",
            ));
        }
        self.sim = sim;
        Ok(())
    }
}

/// The equations of motion of Sutton & Barto (2018).
fn derivative([first, second, first_dot, second_dot]: [f64; 4], torque: f64) -> [f64; 4] {
    let (sin2, cos2) = second.sin_cos();
    let d1 = CENTER.powi(2) + (1.0 + CENTER.powi(2) + 2.0 * CENTER * cos2) + INERTIA + INERTIA;
    let d2 = (CENTER.powi(2) + CENTER * cos2) + INERTIA;
    let phi2 = CENTER * GRAVITY * (first + second - PI / 2.0).cos();
    let phi1 = -CENTER * second_dot.powi(2) * sin2 - 2.0 * CENTER * second_dot * first_dot * sin2
        + (CENTER + 1.0) * GRAVITY * (first - PI / 2.0).cos()
        + phi2;
    let second_acc = (torque + d2 / d1 * phi1 - CENTER * first_dot.powi(2) * sin2 - phi2)
        / (CENTER.powi(2) + INERTIA - d2.powi(2) / d1);
    let first_acc = -(d2 * second_acc + phi1) / d1;
    [first_dot, second_dot, first_acc, second_acc]
}

/// One step of length [`DT`] by the classic fourth-order Runge-Kutta method.
fn runge_kutta(s: [f64; 4], derivative: impl Fn([f64; 4]) -> [f64; 4]) -> [f64; 4] {
    let along = |k: [f64; 4], dt: f64| [0, 1, 2, 3].map(|i| s[i] + dt * k[i]);
    let k1 = derivative(s);
    let k2 = derivative(along(k1, DT / 2.0));
    let k3 = derivative(along(k2, DT / 2.0));
    let k4 = derivative(along(k3, DT));
    [0, 1, 2, 3].map(|i| s[i] + DT / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
}

/// The equivalent angle in [−π, π].
fn wrap(mut angle: f64) -> f64 {
    while angle > PI {
        angle -= 2.0 * PI;
    }
    while angle < -PI {
        angle += 2.0 * PI;
    }
    angle
}
