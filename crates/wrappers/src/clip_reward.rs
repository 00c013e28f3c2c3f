//! Reward clipping.
//!
//! Rewards of the same scale allow the same learning rate for all games (Mnih et al. 2015, Methods). This is the outermost
//! wrapper, so that episode statistics use raw rewards.

use crate::VecEnvWrapper;
use playfield_core::{Result, StepBatch, config::ClipReward as Kind};

/// Replaces rewards by their sign, or clips them to [−1, 1].
#[derive(Clone, Copy, Debug)]
pub struct ClipReward(
    /// The kind of clipping.
    pub Kind,
);

impl VecEnvWrapper for ClipReward {
    const NAME: &'static str = "reward clipping";

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        match self.0 {
            Kind::None => {}
            Kind::Sign => batch.reward.iter_mut().for_each(|r| *r = sign(*r)),
            Kind::Clamp => batch.reward.iter_mut().for_each(|r| *r = r.clamp(-1.0, 1.0)),
        }
        Ok(())
    }
}

/// −1, 0 or 1, as in NumPy: Rust's `signum` is never 0. NaN stays NaN.
fn sign(reward: f32) -> f32 {
    if reward == 0.0 { 0.0 } else { reward.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::{ActionSpace, Dtype, EnvSpec};

    #[test]
    fn sign_and_clamp() {
        let spec = EnvSpec::new("t", &[1], Dtype::U8, ActionSpace::Discrete { n: 2 });
        for (kind, expected) in [
            (Kind::None, [-7.0, -0.5, 0.0, 0.25, 3.0]),
            (Kind::Sign, [-1.0, -1.0, 0.0, 1.0, 1.0]),
            (Kind::Clamp, [-1.0, -0.5, 0.0, 0.25, 1.0]),
        ] {
            let mut batch = StepBatch::new(&spec, 5);
            batch.reward = vec![-7.0, -0.5, 0.0, 0.25, 3.0];
            ClipReward(kind).recv(&mut batch).unwrap();
            assert_eq!(batch.reward, expected, "{kind:?}");
        }
        assert!(sign(f32::NAN).is_nan());
    }
}
