//! A pole on a cart (Barto, Sutton & Anderson 1983), as in Gymnasium's `CartPole-v1`.

use crate::canvas::{BLACK, BLUE, BROWN, Canvas};
use crate::support::{discrete, reseed, restore, uniform};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Image, ObsMut, Result, State, Step};
use serde::{Deserialize, Serialize};

const GRAVITY: f64 = 9.8; // m/s²
const CART_MASS: f64 = 1.0; // kg
const POLE_MASS: f64 = 0.1; // kg
const HALF_LENGTH: f64 = 0.5; // m, of the pole
const FORCE: f64 = 10.0; // N
const TAU: f64 = 0.02; // s, between two steps
const MAX_ANGLE: f64 = 12.0 * 2.0 * std::f64::consts::PI / 360.0; // rad
const MAX_POSITION: f64 = 2.4; // m

/// Balance a pole by pushing its cart.
///
/// Observation, `f32[4]`: position (m), velocity (m/s), angle (rad), angular velocity (rad/s). Actions: 0 pushes left, 1
/// right. Reward: 1 per step. An episode terminates when the angle exceeds 12° or the position 2.4 m; by default it is
/// truncated after 500 steps. The initial state is uniform on (−0.05, 0.05)⁴.
#[derive(Clone, Debug)]
pub struct CartPole {
    spec: EnvSpec,
    sim: Simulation,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Simulation {
    rng: Rng,
    /// Position, velocity, angle, angular velocity.
    state: [f64; 4],
}

impl CartPole {
    /// Creates the environment; call [`reset`](Env::reset) first.
    pub fn new() -> Self {
        let spec = EnvSpec::new("CartPole", &[4], Dtype::F32, ActionSpace::Discrete { n: 2 });
        let spec = spec.with_action_names(["LEFT", "RIGHT"]);
        Self { spec, sim: Simulation { rng: rng::stream(0, "game"), state: [0.0; 4] } }
    }

    fn observe(&self, mut obs: ObsMut<'_>) {
        obs.f32().copy_from_slice(&self.sim.state.map(|x| x as f32));
    }
}

impl Default for CartPole {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for CartPole {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.sim.rng, seed);
        self.sim.state = [(); 4].map(|()| uniform(&mut self.sim.rng, -0.05, 0.05));
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let force = if discrete(&self.spec, action)? == 1 { FORCE } else { -FORCE };
        let [x, x_dot, theta, theta_dot] = self.sim.state;
        let (sin, cos) = theta.sin_cos();

        // Florian (2007), "Correct equations for the dynamics of the cart-pole system", without friction.
        const MASS: f64 = POLE_MASS + CART_MASS;
        const POLE_MOMENT: f64 = POLE_MASS * HALF_LENGTH;
        let temp = (force + POLE_MOMENT * (theta_dot * theta_dot) * sin) / MASS;
        let theta_acc = (GRAVITY * sin - cos * temp) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * (cos * cos) / MASS));
        let x_acc = temp - POLE_MOMENT * theta_acc * cos / MASS;

        // Explicit Euler: positions change by the velocities before the step.
        let (x, theta) = (x + TAU * x_dot, theta + TAU * theta_dot);
        self.sim.state = [x, x_dot + TAU * x_acc, theta, theta_dot + TAU * theta_acc];
        self.observe(obs);
        let terminated = x.abs() > MAX_POSITION || theta.abs() > MAX_ANGLE;
        Ok(Step { reward: 1.0, terminated, ..Step::default() })
    }

    fn render(&mut self) -> Result<Option<Image>> {
        let [x, _, theta, _] = self.sim.state;
        let mut canvas = Canvas::new(300, [-2.7, -0.5], [2.7, 1.3]);
        canvas.line(BLACK, [-2.7, 0.0], [2.7, 0.0], 0.02);
        canvas.rectangle(BLACK, [x - 0.25, -0.15], [x + 0.25, 0.15]);
        let (sin, cos) = theta.sin_cos();
        canvas.line(BROWN, [x, 0.0], [x + 2.0 * HALF_LENGTH * sin, 2.0 * HALF_LENGTH * cos], 0.1);
        canvas.disc(BLUE, [x, 0.0], 0.05);
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
