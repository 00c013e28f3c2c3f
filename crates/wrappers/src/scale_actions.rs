//! Continuous actions as environments receive them.
//!
//! A Gaussian policy is unbounded and, with initial weights, centered on 0 with a deviation of 1. Where an action's range is
//! another (`[5, 35]`, `[0, 1]`), clipping alone leaves it at a bound, without a gradient. So [−1, 1] of the policy is the
//! environment's [low, high]: Stable-Baselines3 advises its users to write that into their environment; here it holds for
//! all of them.
//!
//! ```text
//! policy's action    −1.7   −1    0     1    2.3      the rollout keeps this, and its log-probability
//! executed            5      5    20    35   35       in a Box of 5 to 35
//! ```

use crate::Rule;
use playfield_core::{ActionSpace, Actions};

/// Maps the policy's actions into the action space: see [`ActionSpace::Box`]. Discrete actions pass as they are.
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

impl Rule for ScaleActions {
    const NAME: &'static str = "scaling of actions";

    fn act(&mut self, actions: &Actions) -> Option<&Actions> {
        if matches!(actions, Actions::Discrete(_)) {
            return None;
        }
        // Actions that are too many or too few stay so: they are refused where they are executed.
        self.scaled.clone_from(actions);
        let Actions::Continuous { values: scaled, .. } = &mut self.scaled else { return None };
        self.space.to_bounds(scaled);
        Some(&self.scaled)
    }
}
