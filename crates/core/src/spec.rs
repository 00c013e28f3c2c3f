//! What an environment declares about itself.

use crate::{ActionSpace, Dtype};
use serde::{Deserialize, Serialize};

/// What an environment observes and accepts: plain data, saved with every checkpoint, compared when one is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvSpec {
    /// Its name, as in a configuration file: `"ALE/Pong-v5"`, `"CartPole"`.
    pub id: String,
    /// The shape of *one* frame or vector, without history: `[84, 84]`, `[4]`. Color is the last axis.
    pub shape: Vec<usize>,
    /// The type of an observation's numbers.
    pub dtype: Dtype,
    /// How many of the last frames an agent sees as one observation (1: only the newest).
    pub frame_stack: usize,
    /// What can be done.
    pub actions: ActionSpace,
    /// The names of discrete actions where they have any (`"NOOP"`, `"FIRE"`, …); else empty.
    #[serde(default)]
    pub action_names: Vec<String>,
}

impl EnvSpec {
    /// How many numbers one frame or vector has.
    pub fn frame_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// How many numbers an observation has, history included.
    pub fn obs_len(&self) -> usize {
        self.frame_len() * self.frame_stack
    }

    /// The number of the action called `name`, if there is one.
    pub fn action_named(&self, name: &str) -> Option<usize> {
        self.action_names.iter().position(|n| n == name)
    }
}
