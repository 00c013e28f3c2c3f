//! Rescaling of continuous actions from [−1, 1] to the bounds of the action space.
//!
//! A Gaussian policy is unbounded and, with initial weights, has mean 0 and standard deviation .5. Where the range of an action
//! is different (`[5, 35]`, `[0, 1]`), clipping alone leaves it at a bound, without a gradient. So the policy's [−1, 1] is mapped
//! onto the environment's [low, high]. Stable-Baselines3 recommends that each environment does this; here a wrapper does it for
//! all.
//!
//! ```text
//! policy's action    −1.7   −1    0     1    2.3      stored in the rollout, with its log-probability
//! executed            5      5    20    35   35       in a Box of 5 to 35
//! ```

use crate::VecEnvWrapper;
use playfield_core::{ActionSpace, Actions};

/// Maps the policy's continuous actions into the action space: see [`ActionSpace::Box`]. Discrete actions are unchanged.
#[derive(Clone, Debug)]
pub struct ScaleActions {
    space: ActionSpace,
    scaled: Actions,
}

impl ScaleActions {
    /// For `n` environments with the action space `space`.
    pub fn new(space: &ActionSpace, n: usize) -> Self {
        Self { space: space.clone(), scaled: Actions::zeros(space, n) }
    }
}

impl VecEnvWrapper for ScaleActions {
    const NAME: &'static str = "scaling of actions";

    fn send(&mut self, actions: &Actions) -> Option<&Actions> {
        if matches!(actions, Actions::Discrete(_)) {
            return None;
        }
        // A wrong number of actions is kept: the batch inside refuses it.
        self.scaled.clone_from(actions);
        let Actions::Continuous { values: scaled, .. } = &mut self.scaled else { return None };
        self.space.to_bounds(scaled);
        Some(&self.scaled)
    }
}
