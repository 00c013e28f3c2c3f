//! What acts: all that evaluation needs to know about an agent.

use crate::{Actions, Obs, Result};

/// How an action is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As in training: sampled from the policy (or with the algorithm's evaluation ε).
    Sample,
    /// The best action by the network's own account.
    Greedy,
}

/// A trained (or training) policy.
pub trait Policy {
    /// Chooses one action per observation.
    ///
    /// `obs` holds `actions.len()` observations with their history (see [`History`](crate::History)).
    ///
    /// # Errors
    /// Where the network fails.
    fn act(&mut self, obs: &Obs, mode: Mode, actions: &mut Actions) -> Result<()>;

    /// Tells which rows start a new episode; a recurrent policy clears their state.
    fn episodes_ended(&mut self, _ended: &[bool]) {}

    /// Starts the policy's random stream anew.
    fn seed(&mut self, seed: u64);
}
