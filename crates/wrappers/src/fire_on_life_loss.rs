//! FIRE after a lost life: some games (Breakout) wait for it, and an agent may take long to discover that.
//!
//! ```text
//! agent's action       a     b     c     d
//! executed             a     b     FIRE  d
//! result               .     life  .     .
//! `forced`             -     -     FIRE  -
//! ```
//!
//! The action of one step is replaced and recorded in [`StepBatch::forced`], so that a learner learns from the executed
//! action.

use crate::VecEnvWrapper;
use playfield_core::{ActionSpace, Actions, EnvSpec, Result, State, StepBatch};
use serde::Deserialize;

/// Replaces the action after a lost life by FIRE, in games that have this action.
#[derive(Clone, Debug)]
pub struct FireOnLifeLoss {
    fire: Option<i64>,
    /// Whether the next action of each environment is FIRE.
    due: Vec<bool>,
    /// Whether FIRE replaced the action sent to each environment.
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

impl VecEnvWrapper for FireOnLifeLoss {
    const NAME: &'static str = "FIRE after a lost life";

    fn reset(&mut self, _batch: &mut StepBatch) -> Result<()> {
        self.due.fill(false);
        self.forced.fill(false);
        Ok(())
    }

    fn send(&mut self, actions: &Actions) -> Option<&Actions> {
        let fire = self.fire.filter(|_| self.due.contains(&true))?;
        let (Actions::Discrete(ours), Actions::Discrete(sent)) = (&mut self.actions, actions) else { return None };
        // A wrong number of actions is kept: the batch inside refuses it.
        ours.clone_from(sent);
        for (action, due) in ours.iter_mut().zip(&self.due) {
            if *due {
                *action = fire;
            }
        }
        self.forced.copy_from_slice(&self.due);
        Some(&self.actions)
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        let Some(fire) = self.fire else { return Ok(()) };
        for (i, (due, forced)) in self.due.iter_mut().zip(&mut self.forced).enumerate() {
            if std::mem::take(forced) && !batch.ignored[i] {
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
