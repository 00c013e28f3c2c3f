//! A corridor of ten cells, with a reward at its right end.

use playfield::core::{Action, ActionSpace, Dtype, Env, EnvSpec, Error, ObsMut, Result, State, Step};

const CELLS: usize = 10;

/// Walk left (0) or right (1). The reward is −0.1 per step, and 1 for reaching the last cell, which ends the episode.
pub struct Corridor {
    spec: EnvSpec,
    position: usize,
}

impl Corridor {
    pub fn new() -> Self {
        let spec = EnvSpec::new("Corridor", &[CELLS], Dtype::F32, ActionSpace::Discrete { n: 2 });
        let spec = spec.with_action_names(["LEFT", "RIGHT"]);
        Self { spec, position: 0 }
    }

    /// One-hot: 1 at the current cell.
    fn observe(&self, mut obs: ObsMut<'_>) {
        let cells = obs.f32();
        cells.fill(0.0);
        cells[self.position] = 1.0;
    }
}

impl Env for Corridor {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    // Nothing is random here. An environment with a random generator reseeds it with each `Some(seed)`.
    fn reset(&mut self, _seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        self.position = 0;
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        self.position = match action {
            Action::Discrete(0) => self.position.saturating_sub(1),
            Action::Discrete(1) => (self.position + 1).min(CELLS - 1),
            other => return Err(Error::env("Corridor", format!("{other:?} is not in the action space"))),
        };
        self.observe(obs);
        let terminated = self.position == CELLS - 1;
        Ok(Step { reward: if terminated { 1.0 } else { -0.1 }, terminated, ..Step::default() })
    }

    // Optional: with these two methods a resumed run equals an uninterrupted one bit for bit.
    fn save_state(&self) -> Option<State> {
        Some(self.position.into())
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let position = state.as_u64().filter(|&p| p < CELLS as u64);
        self.position = position.ok_or_else(|| Error::env("Corridor", "the saved state is not a position"))? as usize;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield::core::Obs;

    #[test]
    fn nine_steps_to_the_right_end_the_episode() {
        let mut env = Corridor::new();
        let mut obs = Obs::zeros(Dtype::F32, CELLS);
        env.reset(None, obs.as_mut()).unwrap();
        env.step(Action::Discrete(0), obs.as_mut()).unwrap(); // against the wall
        let rewards: Vec<f32> = (0..9).map(|_| env.step(Action::Discrete(1), obs.as_mut()).unwrap().reward).collect();
        assert_eq!(rewards, [-0.1, -0.1, -0.1, -0.1, -0.1, -0.1, -0.1, -0.1, 1.0]);
        let state = env.save_state().unwrap();
        assert_eq!(state, 9);
        assert!(env.load_state(&10.into()).is_err());
    }
}
