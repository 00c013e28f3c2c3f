//! Tic-tac-toe against a random opponent: the smallest game in which some actions are invalid.

use crate::canvas::{BLACK, BLUE, Canvas, RED};
use crate::support::{discrete, reseed, restore};
use playfield_core::rng::{self, Rng};
use playfield_core::space::random_action;
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, Image, ObsMut, Result, State, Step};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// The cells of each row, column and diagonal; a cell is its row times 3 plus its column.
const LINES: [[usize; 3]; 8] = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]];

/// Three in a row.
///
/// Observation, `f32[18]`: 1 at each of the agent's cells, then at each of the opponent's. Actions: the cells, of which the empty ones
/// are valid ([`Env::action_mask`]); another one is an error. A player chosen at random begins, and the opponent plays random empty
/// cells. The episode terminates with reward 1 for three of the agent's marks in a line, −1 for three of the opponent's, and 0 for a
/// full board. All other rewards are 0.
#[derive(Clone, Debug)]
pub struct TicTacToe {
    spec: EnvSpec,
    sim: Simulation,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Simulation {
    rng: Rng,
    /// Whether each cell is the agent's, and the opponent's.
    marks: [[bool; 9]; 2],
    ended: bool,
}

impl TicTacToe {
    /// Creates the environment; call [`reset`](Env::reset) first.
    pub fn new() -> Self {
        let spec = EnvSpec::new("TicTacToe", &[18], Dtype::F32, ActionSpace::Discrete { n: 9 }).with_action_mask();
        Self { spec, sim: Simulation { rng: rng::stream(0, "game"), marks: [[false; 9]; 2], ended: false } }
    }

    fn empty(&self) -> [bool; 9] {
        let [ours, theirs] = &self.sim.marks;
        std::array::from_fn(|cell| !ours[cell] && !theirs[cell])
    }

    /// Marks `cell` for a player: 0 the agent, 1 the opponent. Returns the reward of the end of the game, if it is one.
    fn mark(&mut self, player: usize, cell: usize) -> Option<f32> {
        let marks = &mut self.sim.marks[player];
        marks[cell] = true;
        let wins = LINES.iter().any(|line| line.iter().all(|&cell| marks[cell]));
        let reward = [1.0, -1.0][player];
        if wins { Some(reward) } else { (!self.empty().contains(&true)).then_some(0.0) }
    }

    fn opponent(&mut self) -> Option<f32> {
        let cell = random_action(9, &self.empty(), &mut self.sim.rng);
        self.mark(1, cell)
    }

    fn observe(&self, mut obs: ObsMut<'_>) {
        for (element, mark) in obs.f32().iter_mut().zip(self.sim.marks.as_flattened()) {
            *element = f32::from(*mark);
        }
    }
}

impl Default for TicTacToe {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for TicTacToe {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        reseed(&mut self.sim.rng, seed);
        (self.sim.marks, self.sim.ended) = ([[false; 9]; 2], false);
        if self.sim.rng.random() {
            self.opponent();
        }
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let cell = discrete(&self.spec, action)?;
        if self.sim.ended {
            return Err(Error::env(&self.spec.id, "the episode has ended: `reset` must come next"));
        }
        if !self.empty()[cell] {
            return Err(Error::env(&self.spec.id, format!("cell {cell} is not empty: the action mask says which are")));
        }
        let end = self.mark(0, cell).or_else(|| self.opponent());
        self.sim.ended = end.is_some();
        self.observe(obs);
        Ok(Step { reward: end.unwrap_or(0.0), terminated: end.is_some(), ..Step::default() })
    }

    fn action_mask(&self, mask: &mut [bool]) {
        mask.copy_from_slice(&self.empty());
    }

    fn render(&mut self) -> Result<Option<Image>> {
        let mut canvas = Canvas::new(150, [0.0, 0.0], [3.0, 3.0]);
        for edge in [1.0, 2.0] {
            canvas.line(BLACK, [edge, 0.0], [edge, 3.0], 0.04);
            canvas.line(BLACK, [0.0, edge], [3.0, edge], 0.04);
        }
        for cell in 0..9 {
            let center = [(cell % 3) as f64 + 0.5, 2.5 - (cell / 3) as f64];
            match self.sim.marks.map(|marks| marks[cell]) {
                [true, _] => canvas.disc(BLUE, center, 0.35),
                [_, true] => canvas.disc(RED, center, 0.35),
                _ => {}
            }
        }
        Ok(Some(canvas.into_image()))
    }

    fn save_state(&self) -> Option<State> {
        serde_json::to_value(&self.sim).ok()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let sim: Simulation = restore(&self.spec, state)?;
        let [ours, theirs] = &sim.marks;
        if ours.iter().zip(theirs).any(|(ours, theirs)| *ours && *theirs) {
            return Err(Error::env(&self.spec.id, "the saved state has a cell of both players"));
        }
        if !sim.ended && ours.iter().zip(theirs).all(|(ours, theirs)| *ours || *theirs) {
            return Err(Error::env(&self.spec.id, "the saved state has no empty cell in a game that has not ended"));
        }
        self.sim = sim;
        Ok(())
    }
}
