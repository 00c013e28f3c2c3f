//! Policies: what evaluation and the collection of experience need of an agent.

use crate::graph::{Graph, Value};
use crate::rollout::Decisions;
use crate::{Actions, Error, FrameStack, Obs, ObsRef, Result};

/// How an action is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As in training: sampled from the policy, or ε-greedy.
    Sample,
    /// The most probable action, or that of the highest value.
    Greedy,
}

/// The outputs of a network for `n` observations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// Logits or values of the actions, `[n, actions]`, or of the choices of all components of an action, one after the other; empty
    /// where actions are continuous. Action masks are not applied.
    pub preferences: Vec<f32>,
    /// Whether those are values of actions, rather than logits of a policy.
    pub are_values: bool,
    /// The estimated value of each observation, `[n]`.
    pub values: Vec<f32>,
    /// The activations of the last hidden layer, `[n, width]`.
    pub features: Vec<f32>,
}

impl Outputs {
    /// The outputs of a Q-network `[n, actions]`: the value of an observation is that of its best action.
    pub fn of_values(preferences: Vec<f32>, n: usize, features: Vec<f32>) -> Self {
        let rows = preferences.chunks_exact((preferences.len() / n.max(1)).max(1));
        let values = rows.map(|row| row.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
        Self { preferences, are_values: true, values, features }
    }
}

/// A trained policy, or one in training.
pub trait Policy {
    /// Selects one action per observation.
    ///
    /// `obs` holds `actions.len()` observations with stacked frames (see [`FrameStack`](crate::FrameStack)). `action_mask` states which
    /// actions are valid ([`StepBatch::action_mask`](crate::StepBatch::action_mask)); it is empty where all are.
    ///
    /// # Errors
    /// Where the network fails.
    fn act(&mut self, obs: &Obs, action_mask: &[bool], mode: Mode, actions: &mut Actions) -> Result<()>;

    /// Prepares for `n` environments, each at the start of an episode. A recurrent policy needs the call before it acts in another
    /// number of environments than before.
    fn begin(&mut self, _n: usize) {}

    /// Resets the recurrent state of every environment whose episode ended (`ended[i]`).
    fn reset_states(&mut self, _ended: &[bool]) {}

    /// The outputs of the network for `n` observations, the next that [`act`](Self::act) receives. A recurrent state does not
    /// advance.
    ///
    /// # Errors
    /// Where the network fails, or the policy does not expose it.
    fn outputs(&mut self, _obs: &Obs, _n: usize) -> Result<Outputs> {
        Err(Error::other("this policy does not expose the outputs of its network"))
    }

    /// Adds the network to `graph`: from `obs`, the observations `[n, shape…, frame_stack]` (without the last axis where frames are not
    /// stacked), to the outputs that an action is selected by. Their names: `logits`, or `mean` and `std`, or `q_values`; `value`;
    /// `next_hidden` and `next_cell`, with the inputs `hidden` and `cell`.
    ///
    /// # Errors
    /// [`Error::Config`] naming a layer that has no operators; every policy that does not implement this.
    fn export(&self, _graph: &mut Graph, _obs: Value) -> Result<()> {
        Err(Error::config("the policy of this algorithm cannot be exported: it does not implement `Policy::export`"))
    }

    /// Restarts the policy's random stream from `seed`.
    fn seed(&mut self, seed: u64);
}

/// A policy that on-policy algorithms collect rollouts with.
pub trait RolloutPolicy: Policy {
    /// Stores the observations before step `t` of a rollout, and after its last one, of the environments from `first`: those of `frames`, whose
    /// newest frames are `newest`. For a policy that keeps observations on a device.
    fn store_observations(&mut self, _t: usize, _first: usize, _frames: &FrameStack, _newest: &Obs) {}

    /// Samples one action per observation, as [`act`](Policy::act) does. Writes the log-probability of each action and the estimated
    /// value of each observation into `decisions`; a policy without one of them leaves zeros.
    ///
    /// # Errors
    /// Where the network fails.
    fn sample(
        &mut self,
        obs: &Obs,
        action_mask: &[bool],
        actions: &mut Actions,
        decisions: Decisions<'_>,
    ) -> Result<()>;

    /// The estimated value of `obs`, the final observation of environment `i`'s truncated episode, where the actions of `action_mask`
    /// are valid (empty: all). Called before [`reset_states`](Policy::reset_states).
    fn final_value(&mut self, obs: ObsRef<'_>, action_mask: &[bool], i: usize) -> f32;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;

    impl Policy for Plain {
        fn act(&mut self, _: &Obs, _: &[bool], _: Mode, _: &mut Actions) -> Result<()> {
            Ok(())
        }
        fn seed(&mut self, _: u64) {}
    }

    /// Two observations with three actions each: the values of the best ones.
    #[test]
    fn the_value_of_an_observation_is_that_of_its_best_action() {
        let outputs = Outputs::of_values(vec![1.0, 3.0, 2.0, -1.0, -2.0, -3.0], 2, vec![9.0]);
        assert!(outputs.are_values && outputs.preferences.len() == 6 && outputs.features == [9.0]);
        assert_eq!(outputs.values, [3.0, -1.0]);
        assert!(Outputs::of_values(Vec::new(), 0, Vec::new()).values.is_empty());
    }

    #[test]
    fn a_policy_without_outputs_says_so() {
        let said = |result: Result<()>| result.unwrap_err().to_string();
        assert!(said(Plain.outputs(&Obs::F32(vec![]), 0).map(drop)).contains("does not expose"));
        let mut graph = Graph::default();
        let obs = graph.input("obs", crate::Dtype::F32, &[1]);
        assert!(said(Plain.export(&mut graph, obs)).contains("cannot be exported"));
    }
}
