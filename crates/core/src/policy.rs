//! What acts: all that evaluation needs to know about an agent.

use crate::{Actions, Error, Obs, Result};

/// How an action is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As in training: sampled from the policy (or with the algorithm's evaluation ε).
    Sample,
    /// The best action by the network's own account.
    Greedy,
}

/// What a network says of `n` observations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// How much it is for each action, `[n, actions]`; empty where actions are continuous.
    pub preferences: Vec<f32>,
    /// Whether those are values of the actions, rather than logits of a policy.
    pub are_values: bool,
    /// What it takes each observation to be worth, `[n]`.
    pub values: Vec<f32>,
    /// What its last hidden layer holds, `[n, width]`.
    pub features: Vec<f32>,
}

impl Outputs {
    /// Those of a network of values `[n, actions]`, where an observation is worth what the best action is.
    pub fn of_values(preferences: Vec<f32>, n: usize, features: Vec<f32>) -> Self {
        let rows = preferences.chunks_exact((preferences.len() / n.max(1)).max(1));
        let values = rows.map(|row| row.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
        Self { preferences, are_values: true, values, features }
    }
}

/// A trained (or training) policy.
pub trait Policy {
    /// Chooses one action per observation.
    ///
    /// `obs` holds `actions.len()` observations with their history (see [`FrameStack`](crate::FrameStack)).
    ///
    /// # Errors
    /// Where the network fails.
    fn act(&mut self, obs: &Obs, mode: Mode, actions: &mut Actions) -> Result<()>;

    /// Tells which rows start a new episode; a recurrent policy clears their state.
    fn reset_states(&mut self, _ended: &[bool]) {}

    /// What the network says of `n` observations, which it is going to act on next: a recurrent policy remembers no more than
    /// before.
    ///
    /// # Errors
    /// Where the network fails, or the policy shows nothing of it.
    fn outputs(&mut self, _obs: &Obs, _n: usize) -> Result<Outputs> {
        Err(Error::other("this policy does not show what its network says"))
    }

    /// Starts the policy's random stream anew.
    fn seed(&mut self, seed: u64);
}
