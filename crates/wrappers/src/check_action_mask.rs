//! Refuses an action mask that allows no action, before a policy must choose one. The error names the environment.

use crate::VecEnvWrapper;
use playfield_core::{EnvSpec, Error, Result, StepBatch};

/// Ends a run where no choice of an action, or of one of its components, is valid. Inside the other wrappers of a batch.
#[derive(Clone, Debug)]
pub struct CheckActionMask {
    id: String,
    sizes: Vec<usize>,
}

impl CheckActionMask {
    /// For environments of `spec`, which state what is valid ([`EnvSpec::action_mask`]).
    pub fn new(spec: &EnvSpec) -> Self {
        Self { id: spec.id.clone(), sizes: spec.actions.sizes().to_vec() }
    }

    fn check(&self, batch: &StepBatch) -> Result<()> {
        for i in 0..batch.num_envs() {
            let mut mask = batch.mask_row(i);
            for (component, &size) in self.sizes.iter().enumerate() {
                let (choices, rest) = mask.split_at(size);
                mask = rest;
                if !choices.contains(&true) {
                    let of = if self.sizes.len() > 1 { format!(" for component {component}") } else { String::new() };
                    let message = format!("environment {i}: its action mask allows none of {size} actions{of}");
                    return Err(Error::env(&self.id, message));
                }
            }
        }
        Ok(())
    }
}

impl VecEnvWrapper for CheckActionMask {
    const NAME: &'static str = "the check of action masks";

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.check(batch)
    }

    /// A terminal state may have no valid action. Its value is not used, and must only be finite: all are valid there.
    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        for i in (0..batch.num_envs()).filter(|&i| batch.done(i)).collect::<Vec<_>>() {
            let mut mask = batch.final_mask_row_mut(i);
            for &size in &self.sizes {
                let (choices, rest) = mask.split_at_mut(size);
                mask = rest;
                if !choices.contains(&true) {
                    choices.fill(true);
                }
            }
        }
        self.check(batch)
    }
}
