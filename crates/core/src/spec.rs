//! The observation space and the action space of an environment.

use crate::{ActionSpace, Dtype};
use serde::{Deserialize, Serialize};

/// The spaces of an environment: plain data, saved with every checkpoint and compared when one is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvSpec {
    /// The environment's id, as in a configuration file: `"ALE/Pong-v5"`, `"CartPole"`.
    pub id: String,
    /// The shape of *one* frame or vector, before frame stacking: `[84, 84]`, `[4]`. Color channels are the last axis.
    pub shape: Vec<usize>,
    /// The element type of an observation.
    pub dtype: Dtype,
    /// How many of the last frames are stacked into one observation (1: only the newest).
    pub frame_stack: usize,
    /// The action space.
    pub actions: ActionSpace,
    /// The names of discrete actions where they have any (`"NOOP"`, `"FIRE"`, …); else empty.
    #[serde(default)]
    pub action_names: Vec<String>,
    /// Whether the environment states which discrete actions are valid ([`Env::action_mask`](crate::Env::action_mask)).
    #[serde(default)]
    pub action_mask: bool,
}

impl EnvSpec {
    /// An environment that observes one frame (or vector) of `shape` at a time, and whose actions have no names.
    pub fn new(id: impl Into<String>, shape: &[usize], dtype: Dtype, actions: ActionSpace) -> Self {
        Self {
            id: id.into(),
            shape: shape.to_vec(),
            dtype,
            frame_stack: 1,
            actions,
            action_names: Vec::new(),
            action_mask: false,
        }
    }

    /// The same environment, whose last `frame_stack` frames make one observation.
    #[must_use]
    pub fn with_frame_stack(self, frame_stack: usize) -> Self {
        Self { frame_stack, ..self }
    }

    /// The same environment, whose discrete actions have these names.
    #[must_use]
    pub fn with_action_names<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        Self { action_names: names.into_iter().map(Into::into).collect(), ..self }
    }

    /// The same environment, which states which actions are valid.
    #[must_use]
    pub fn with_action_mask(self) -> Self {
        Self { action_mask: true, ..self }
    }

    /// The number of elements of one action mask: the choices of all components of an action; 0 where every action is always valid.
    pub fn mask_len(&self) -> usize {
        if self.action_mask { self.actions.sizes().iter().sum() } else { 0 }
    }

    /// The number of elements of one frame or vector.
    pub fn frame_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The number of elements of one observation: `frame_len · frame_stack`.
    pub fn obs_len(&self) -> usize {
        self.frame_len() * self.frame_stack
    }

    /// The index of the action called `name`, if there is one.
    pub fn action_named(&self, name: &str) -> Option<usize> {
        self.action_names.iter().position(|n| n == name)
    }
}
