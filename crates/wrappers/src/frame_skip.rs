//! One action, several frames: the agent decides less often, and the emulator's flicker is gone.
//!
//! Skip 4 with max-pool, where an episode ends at frame 7:
//!
//! ```text
//! inner      (0)    1  2  3  4    5  6  7†
//! obs         0     ~  ~  ~  3∨4  ~  ~  3∨4      3∨4: the larger of the two frames at each pixel
//! reward            ~  ~  ~  Σ    ~  ~  Σ        the sum over the frames of the step
//! ```
//!
//! With max-pool the frame that terminates an episode is not looked at, in ALE's vector environment
//! (`PreprocessedEnv::step`) as in Gymnasium's `AtariPreprocessing`: they leave their loop first. What is shown then is the
//! larger of the last observation and of the last-but-one frame of the skip, if the episode came that far (had it ended at
//! frame 8: 3∨4∨7). That is harmless, as a terminated episode's last observation has no value to estimate.
//!
//! From the last observation of a *truncated* episode a value is bootstrapped: it is the larger of the true last two frames
//! (had a limit inside cut the episode at frame 7: 6∨7; at frame 5: 4∨5). Playfield's own time limit stands outside and cuts
//! only whole skips. Without max-pool the observation is simply the last frame.

use crate::saved::{foreign, hex, pack, unhex, unpack};
use playfield_core::{Action, Dtype, Env, EnvSpec, Error, Image, ObsMut, Result, State, Step};

/// Repeats each action and sums the rewards, until the frames are over or the episode is.
pub struct FrameSkip {
    inner: Box<dyn Env>,
    skip: usize,
    pool: Option<MaxPool>,
}

/// Two frames to take the maximum of.
struct MaxPool {
    /// The last observation returned.
    last: Vec<u8>,
    /// The frame before the current one.
    before: Vec<u8>,
}

impl FrameSkip {
    /// Each action lasts `skip` (at least 1) frames of `inner`; with `max_pool` an observation is the maximum of the last
    /// two.
    ///
    /// # Errors
    /// [`Error::Config`] for a maximum of observations that are no `u8` frames.
    pub fn new(inner: Box<dyn Env>, skip: usize, max_pool: bool) -> Result<Self> {
        let spec = inner.spec();
        if max_pool && spec.dtype != Dtype::U8 {
            return Err(Error::config(format!(
                "[env]: `max_pool` is for frames of pixels: {} observes numbers",
                spec.id
            )));
        }
        let len = spec.frame_len();
        let pool = max_pool.then(|| MaxPool { last: vec![0; len], before: vec![0; len] });
        Ok(Self { inner, skip: skip.max(1), pool })
    }
}

impl Env for FrameSkip {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }

    fn reset(&mut self, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<Step> {
        let start = self.inner.reset(seed, obs.reborrow())?;
        if let Some(pool) = &mut self.pool {
            pool.last.copy_from_slice(obs.u8());
            pool.before.copy_from_slice(obs.u8());
        }
        Ok(start)
    }

    fn step(&mut self, action: Action<'_>, mut obs: ObsMut<'_>) -> Result<Step> {
        let mut total = Step::default();
        for left in (0..self.skip).rev() {
            let step = self.inner.step(action, obs.reborrow())?;
            total = Step { reward: total.reward + step.reward, life_lost: total.life_lost | step.life_lost, ..step };
            if let Some(MaxPool { last, before }) = &mut self.pool {
                let (frame, is_last) = (obs.u8(), left == 0 || step.done());
                if is_last {
                    if !step.terminated {
                        last.copy_from_slice(frame);
                    }
                    // The frame before is of this skip, or the step is cut at its first frame.
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
        Ok(total.exclusive())
    }

    fn save_state(&self) -> Option<State> {
        pack(self.pool.as_ref().map(|pool| [hex(&pool.last), hex(&pool.before)]), self.inner.save_state())
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let what = "this frame skip";
        let wrong = foreign(&self.spec().id, what);
        let (frames, inner) = unpack::<Option<[String; 2]>>(&self.spec().id, what, state)?;
        match (&mut self.pool, frames) {
            (None, None) => {}
            (Some(pool), Some([last, before])) => {
                unhex(&last, &mut pool.last).and_then(|()| unhex(&before, &mut pool.before)).ok_or(wrong)?;
            }
            _ => return Err(wrong),
        }
        self.inner.load_state(inner)
    }

    fn render(&mut self) -> Result<Option<Image>> {
        self.inner.render()
    }

    fn lives(&self) -> u32 {
        self.inner.lives()
    }
}
