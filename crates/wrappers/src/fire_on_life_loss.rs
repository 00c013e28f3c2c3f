//! FIRE after a lost life: some games (Breakout) stand still until it is pressed, and an agent may take long to find out.
//!
//! ```text
//! sent by the agent    a     b     c     d
//! executed             a     b     FIRE  d
//! outcome              .     life  .     .
//! `forced`             -     -     FIRE  -
//! ```
//!
//! The action of one step is replaced, and recorded as replaced, so that a learner can learn from what was done.

use crate::Rule;
use playfield_core::{ActionSpace, Actions, EnvSpec, Result, State, StepBatch};
use serde::Deserialize;

/// Replaces the action that follows a lost life by FIRE, in games that have that action; else it does nothing.
#[derive(Clone, Debug)]
pub struct FireOnLifeLoss {
    fire: Option<i64>,
    /// Where FIRE comes next.
    due: Vec<bool>,
    /// Where FIRE has just been executed.
    forced: Vec<bool>,
    actions: Actions,
}

impl FireOnLifeLoss {
    /// For `n` environments of `spec`.
    pub fn new(spec: &EnvSpec, n: usize) -> Self {
        let discrete = matches!(spec.actions, ActionSpace::Discrete { .. });
        let fire = spec.action_named("FIRE").filter(|_| discrete).map(|fire| fire as i64);
        Self { fire, due: vec![false; n], forced: vec![false; n], actions: Actions::zeros(&spec.actions, n) }
    }
}

impl Rule for FireOnLifeLoss {
    const NAME: &'static str = "FIRE after a lost life";

    fn reset(&mut self, _batch: &mut StepBatch) -> Result<()> {
        self.due.fill(false);
        self.forced.fill(false);
        Ok(())
    }

    fn act(&mut self, actions: &Actions) -> Option<&Actions> {
        let fire = self.fire.filter(|_| self.due.contains(&true))?;
        let (Actions::Discrete(ours), Actions::Discrete(sent)) = (&mut self.actions, actions) else { return None };
        // Actions that are too many or too few stay so: they are refused where they are executed.
        ours.clone_from(sent);
        for (action, due) in ours.iter_mut().zip(&self.due) {
            if *due {
                *action = fire;
            }
        }
        self.forced.copy_from_slice(&self.due);
        Some(&self.actions)
    }

    fn outcome(&mut self, batch: &mut StepBatch) -> Result<()> {
        let Some(fire) = self.fire else { return Ok(()) };
        for (i, (due, forced)) in self.due.iter_mut().zip(&mut self.forced).enumerate() {
            if std::mem::take(forced) {
                batch.forced[i] = Some(fire);
            }
            *due = batch.life_lost[i] && !batch.done(i);
        }
        Ok(())
    }

    fn save(&self) -> State {
        serde_json::json!(self.due)
    }

    fn load(&mut self, state: &State) -> Option<()> {
        let due = Vec::deserialize(state).ok().filter(|d: &Vec<bool>| d.len() == self.due.len())?;
        self.due = due;
        self.forced.fill(false);
        Some(())
    }
}
