//! What the learner sees of a reward.
//!
//! With one scale for all games the same learning rate serves them all (Mnih et al. 2015, Methods). The outermost
//! wrapper: statistics have already seen the raw reward.

use crate::Rule;
use playfield_core::{Result, StepBatch, config::ClipReward as Kind};

/// Replaces rewards by their sign, or cuts them to [−1, 1].
#[derive(Clone, Copy, Debug)]
pub struct ClipReward(
    /// Which of the two, or neither.
    pub Kind,
);

impl Rule for ClipReward {
    const NAME: &'static str = "reward clipping";

    fn outcome(&mut self, batch: &mut StepBatch) -> Result<()> {
        match self.0 {
            Kind::None => {}
            Kind::Sign => batch.reward.iter_mut().for_each(|r| *r = sign(*r)),
            Kind::Clamp => batch.reward.iter_mut().for_each(|r| *r = r.clamp(-1.0, 1.0)),
        }
        Ok(())
    }
}

/// −1, 0 or 1, as in NumPy: Rust's `signum` has no 0. What is no number stays none.
fn sign(reward: f32) -> f32 {
    if reward == 0.0 { 0.0 } else { reward.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::{ActionSpace, Dtype, EnvSpec};

    #[test]
    fn sign_and_clamp() {
        let spec = EnvSpec {
            id: "t".into(),
            shape: vec![1],
            dtype: Dtype::U8,
            frame_stack: 1,
            actions: ActionSpace::Discrete { n: 2 },
            action_names: vec![],
        };
        for (kind, expected) in [
            (Kind::None, [-7.0, -0.5, 0.0, 0.25, 3.0]),
            (Kind::Sign, [-1.0, -1.0, 0.0, 1.0, 1.0]),
            (Kind::Clamp, [-1.0, -0.5, 0.0, 0.25, 1.0]),
        ] {
            let mut batch = StepBatch::new(&spec, 5);
            batch.reward = vec![-7.0, -0.5, 0.0, 0.25, 3.0];
            ClipReward(kind).outcome(&mut batch).unwrap();
            assert_eq!(batch.reward, expected, "{kind:?}");
        }
        assert!(sign(f32::NAN).is_nan());
    }
}
