//! A paddle catches a falling ball: bsuite's `Catch` (Osband et al. 2020), the smallest game with frames as observations.

use crate::canvas::{BLACK, BLUE, Canvas, RED};
use crate::support::{discrete, reseed, restore};
use playfield_core::rng::{self, Rng};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, Image, ObsMut, Result, State, Step};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Catch a falling ball.
///
/// Observation, `u8[rows · cell, columns · cell]`: 255 at the ball and at the paddle, which moves along the lowest row, else 0. Actions: 0
/// left, 1 stay, 2 right. The ball starts in a random column of the highest row and falls one row per step. The episode
/// terminates when it reaches the lowest row, with reward 1 if the paddle is there and −1 if not. All other rewards are 0.
#[derive(Clone, Debug)]
pub struct Catch {
    spec: EnvSpec,
    config: CatchConfig,
    sim: Simulation,
}

/// The `[env.kwargs]` of [`Catch`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatchConfig {
    /// The height of the board, at least 2.
    pub rows: usize,
    /// The width of the board, at least 1.
    pub columns: usize,
    /// Pixels per side of a cell of the board, 1 to 100: larger frames for convolutional networks.
    pub cell: usize,
}

impl Default for CatchConfig {
    fn default() -> Self {
        Self { rows: 10, columns: 5, cell: 1 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Simulation {
    rng: Rng,
    /// Row and column.
    ball: [usize; 2],
    /// Column.
    paddle: usize,
}

impl Catch {
    /// Creates the environment; call [`reset`](Env::reset) first.
    ///
    /// # Errors
    /// [`Error::Config`] for a board with too few rows or columns.
    pub fn new(config: CatchConfig) -> Result<Self> {
        if config.rows < 2 || config.columns < 1 {
            return Err(Error::config("[env.kwargs]: Catch needs 2 or more `rows` and 1 or more `columns`"));
        }
        if !(1..=100).contains(&config.cell) {
            return Err(Error::config("[env.kwargs]: Catch needs a `cell` of 1 to 100 pixels"));
        }
        let names = ["LEFT", "NOOP", "RIGHT"];
        let shape = [config.rows, config.columns].map(|cells| cells.saturating_mul(config.cell));
        let spec = EnvSpec::new("Catch", &shape, Dtype::U8, ActionSpace::Discrete { n: 3 }).with_action_names(names);
        Ok(Self { spec, config, sim: Simulation { rng: rng::stream(0, "game"), ball: [0, 0], paddle: 0 } })
    }

    fn observe(&self, mut obs: ObsMut<'_>) {
        let CatchConfig { rows, columns, cell } = self.config;
        let (board, width) = (obs.u8(), columns * cell);
        board.fill(0);
        for [row, column] in [self.sim.ball, [rows - 1, self.sim.paddle]] {
            for line in board.chunks_exact_mut(width).skip(row * cell).take(cell) {
                line[column * cell..][..cell].fill(255);
            }
        }
    }
}

impl Env for Catch {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.sim.rng, seed);
        self.sim.ball = [0, self.sim.rng.random_range(0..self.config.columns)];
        self.sim.paddle = self.config.columns / 2;
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let action = discrete(&self.spec, action)?;
        if self.sim.ball[0] + 1 == self.config.rows {
            return Err(Error::env(&self.spec.id, "the episode has ended: `reset` must come next"));
        }
        self.sim.paddle = (self.sim.paddle + action).saturating_sub(1).min(self.config.columns - 1);
        self.sim.ball[0] += 1;
        self.observe(obs);
        let terminated = self.sim.ball[0] + 1 == self.config.rows;
        let reward = match (terminated, self.sim.ball[1] == self.sim.paddle) {
            (false, _) => 0.0,
            (true, true) => 1.0,
            (true, false) => -1.0,
        };
        Ok(Step { reward, terminated, ..Step::default() })
    }

    fn render(&mut self) -> Result<Option<Image>> {
        let CatchConfig { rows, columns, .. } = self.config;
        let (width, height) = (columns as f64, rows as f64);
        let mut canvas = Canvas::new(20 * columns, [0.0, 0.0], [width, height]);
        canvas.rectangle(BLACK, [0.0, 0.0], [width, height]);
        let [row, column] = self.sim.ball.map(|index| index as f64);
        canvas.disc(RED, [column + 0.5, height - row - 0.5], 0.4);
        let paddle = self.sim.paddle as f64;
        canvas.rectangle(BLUE, [paddle, 0.0], [paddle + 1.0, 0.4]);
        Ok(Some(canvas.into_image()))
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let sim: Simulation = restore(&self.spec, state)?;
        let CatchConfig { rows, columns, .. } = self.config;
        if sim.ball[0] >= rows || sim.ball[1] >= columns || sim.paddle >= columns {
            return Err(Error::env(&self.spec.id, "the saved state is from a larger board"));
        }
        self.sim = sim;
        Ok(())
    }
}
