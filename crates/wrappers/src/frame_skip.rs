//! Frame skip: each action is repeated for several frames, and max-pooling of the last two removes the emulator's flicker.
//!
//! A skip of 4 with max-pooling, where an episode ends at frame 7:
//!
//! ```text
//! environment  (0)    1  2  3  4    5  6  7†
//! obs           0     ~  ~  ~  3∨4  ~  ~  3∨4      3∨4: the pixelwise maximum of frames 3 and 4
//! reward              ~  ~  ~  Σ    ~  ~  Σ        the sum over the frames of the step
//! ```
//!
//! With max-pooling the frame that terminates an episode is ignored, as in ALE's vector environment (`PreprocessedEnv::step`)
//! and in Gymnasium's `AtariPreprocessing`, which leave their loop first. The observation is then the maximum of the previous
//! observation and the last-but-one frame of the skip, if the episode reached that frame (an end at frame 8: 3∨4∨7). This has
//! no effect on learning, as the value of a terminated episode's last observation is not estimated.
//!
//! The last observation of a *truncated* episode is bootstrapped from, so it is the maximum of the true last two frames (a
//! limit inside the skip at frame 7: 6∨7; at frame 5: 4∨5). Playfield's own time limit is outside the skip and truncates only
//! whole skips. Without max-pooling the observation is the last frame.

use crate::EnvWrapper;
use data_encoding::HEXLOWER;
use playfield_core::{Action, Dtype, Env, EnvSpec, Error, ObsMut, Result, State, Step};
use serde::Deserialize;
use serde_json::json;

/// Repeats each action and sums the rewards, until the skip is complete or the episode ends.
pub struct FrameSkip {
    skip: usize,
    pool: Option<MaxPool>,
}

/// The frames to take the maximum of.
struct MaxPool {
    /// The previous observation.
    last: Vec<u8>,
    /// The frame before the current one.
    before: Vec<u8>,
}

impl FrameSkip {
    /// Repeats each action for `skip` (at least 1) frames of an environment of `spec`; with `max_pool` an observation is the
    /// maximum of the last two.
    ///
    /// # Errors
    /// [`Error::Config`] for max-pooling of observations that are not `u8` frames.
    pub fn new(spec: &EnvSpec, skip: usize, max_pool: bool) -> Result<Self> {
        if max_pool && (spec.dtype != Dtype::U8 || !spec.parts.is_empty()) {
            let message = "`max_pool` is for frames of pixels";
            return Err(Error::config(format!("[env]: {message}: {} observes {}", spec.id, spec.observation_text())));
        }
        let len = spec.frame_len();
        let pool = max_pool.then(|| MaxPool { last: vec![0; len], before: vec![0; len] });
        Ok(Self { skip: skip.max(1), pool })
    }
}

impl EnvWrapper for FrameSkip {
    const NAME: &'static str = "this frame skip";

    fn reset(&mut self, env: &mut dyn Env, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<Step> {
        let start = env.reset(seed, obs.reborrow())?;
        if let Some(pool) = &mut self.pool {
            pool.last.copy_from_slice(obs.u8());
            pool.before.copy_from_slice(obs.u8());
        }
        Ok(start)
    }

    fn step(&mut self, env: &mut dyn Env, action: Action<'_>, mut obs: ObsMut<'_>) -> Result<Step> {
        let mut total = Step::default();
        for left in (0..self.skip).rev() {
            let step = env.step(action, obs.reborrow())?;
            total = Step { reward: total.reward + step.reward, life_lost: total.life_lost | step.life_lost, ..step };
            if let Some(MaxPool { last, before }) = &mut self.pool {
                let (frame, is_last) = (obs.u8(), left == 0 || step.done());
                if is_last {
                    if !step.terminated {
                        last.copy_from_slice(frame);
                    }
                    // `before` is a frame of this skip, or the episode is truncated at the first frame of the skip.
                    if self.skip > 1 && (left == 0 || !step.terminated) {
                        last.iter_mut().zip(&*before).for_each(|(last, before)| *last = (*last).max(*before));
                    }
                }
                before.copy_from_slice(frame);
                if is_last {
                    frame.copy_from_slice(last);
                }
            }
            if step.done() {
                break;
            }
        }
        Ok(total.with_exclusive_flags())
    }

    fn save(&self) -> Option<State> {
        let hex = |pool: &MaxPool| [&pool.last, &pool.before].map(|frame| HEXLOWER.encode(frame));
        Some(json!(self.pool.as_ref().map(hex)))
    }

    fn load(&mut self, state: &State) -> Option<()> {
        let frames = Option::<[String; 2]>::deserialize(state).ok()?;
        match (&mut self.pool, frames) {
            (None, None) => Some(()),
            (Some(pool), Some(frames)) => {
                let [last, before] = frames.map(|hex| HEXLOWER.decode(hex.as_bytes()).ok());
                let (last, before) = (last?, before?);
                if last.len() != pool.last.len() || before.len() != pool.before.len() {
                    return None;
                }
                *pool = MaxPool { last, before };
                Some(())
            }
            _ => None,
        }
    }
}
