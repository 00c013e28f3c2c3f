//! Frame stacking: the place where the last frames are combined into one observation, in the memory of the host.
//!
//! Frames are stacked along the *last* axis (channels-last, oldest first), the layout in which convolutions are fastest.
//! With 4 bytes per pixel, a step is one shift of a 32-bit word per pixel. Before the first frame of an episode the stack is
//! zero. A lost life does not clear it.
//!
//! ```text
//! frames of one episode           a      b      c      d      e
//! observation (frame_stack = 4)   000a   00ab   0abc   abcd   bcde
//! ```

use crate::{Dtype, EnvSpec, Obs, ObsMut, ObsRef, StepBatch};

/// The stacked observations of a batch of environments.
#[derive(Clone, Debug)]
pub struct FrameStack {
    depth: usize,
    obs_len: usize,
    stacked: Obs,
    last: Obs,
    /// One per environment.
    starts: Vec<bool>,
    action_mask: Vec<bool>,
}

impl FrameStack {
    /// For `n` environments of `spec`.
    pub fn new(spec: &EnvSpec, n: usize) -> Self {
        let empty = Obs::zeros(spec.dtype, n * spec.obs_len());
        let (starts, action_mask) = (vec![true; n], vec![true; n * spec.mask_len()]);
        Self {
            depth: spec.frame_stack,
            obs_len: spec.obs_len(),
            last: empty.clone(),
            stacked: empty,
            starts,
            action_mask,
        }
    }

    /// The current observations: `[n, shape…, frame_stack]`.
    pub fn observations(&self) -> &Obs {
        &self.stacked
    }

    /// Whether the last step began a new stack in each environment, so that all but the newest frame are zero.
    pub fn starts(&self) -> &[bool] {
        &self.starts
    }

    /// Whether each action is valid at the current observations, `[n, choices]`: see [`StepBatch::action_mask`].
    pub fn action_mask(&self) -> &[bool] {
        &self.action_mask
    }

    /// The last observation of the episode of environment `i` that ended in the last [`push`](Self::push). Other rows are not
    /// valid.
    pub fn final_observation(&self, i: usize) -> ObsRef<'_> {
        self.last.slice(i * self.obs_len, self.obs_len)
    }

    /// Starts an episode in every environment with the frames of `batch`.
    pub fn reset(&mut self, batch: &StepBatch) {
        self.each(batch, |_| true);
    }

    /// Appends the frames of a step; where an episode ended, or the environment ignored the action, a new stack begins.
    pub fn push(&mut self, batch: &StepBatch) {
        self.each(batch, |i| batch.done(i) || batch.ignored[i]);
    }

    /// The number of frames in one observation.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Replaces the current observations and action masks by those of a checkpoint.
    ///
    /// # Panics
    /// If type or length differ: the caller must check them.
    pub fn restore(&mut self, stacked: ObsRef<'_>, action_mask: &[bool]) {
        self.stacked.as_mut().copy_from(stacked);
        self.starts.fill(false);
        self.action_mask.copy_from_slice(action_mask);
    }

    fn each(&mut self, batch: &StepBatch, first: impl Fn(usize) -> bool) {
        self.action_mask.copy_from_slice(&batch.action_mask);
        (0..self.starts.len()).for_each(|i| self.starts[i] = first(i));
        let sizes = (self.obs_len / self.depth, self.depth);
        match (&mut self.stacked, &mut self.last, &batch.obs, &batch.final_obs) {
            (Obs::U8(s), Obs::U8(l), Obs::U8(obs), Obs::U8(end)) => each((s, l), (obs, end), sizes, first),
            (Obs::F32(s), Obs::F32(l), Obs::F32(obs), Obs::F32(end)) => each((s, l), (obs, end), sizes, first),
            _ => panic!("the batch has another dtype than the spec"),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.stacked.dtype()
    }
}

/// Stacks `frames` (at most `depth`, oldest first) into one observation; missing older frames are zero. For a replay buffer
/// that stores single frames.
///
/// # Panics
/// If frames and `out` are of different types or sizes: bugs of the caller.
pub fn stack(frames: &[ObsRef<'_>], depth: usize, out: ObsMut<'_>) {
    match out {
        ObsMut::U8(out) => interleave(&frames.iter().map(|f| f.u8()).collect::<Vec<_>>(), depth, out),
        ObsMut::F32(out) => interleave(&frames.iter().map(|f| f.f32()).collect::<Vec<_>>(), depth, out),
    }
}

fn interleave<T: Copy + Default>(frames: &[&[T]], depth: usize, out: &mut [T]) {
    if let (4, &[a, b, c, d]) = (depth, frames) {
        // One pass over all four: the compiler vectorizes it.
        for ((((pixel, &a), &b), &c), &d) in out.as_chunks_mut::<4>().0.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *pixel = [a, b, c, d];
        }
        return;
    }
    let missing = depth - frames.len();
    if missing > 0 {
        out.fill(T::default());
    }
    for (k, frame) in frames.iter().enumerate() {
        for (pixel, &new) in out.chunks_exact_mut(depth).zip(*frame) {
            pixel[missing + k] = new;
        }
    }
}

fn each<T: Copy + Default>(
    (stacked, last): (&mut [T], &mut [T]),
    (obs, final_obs): (&[T], &[T]),
    (frame, depth): (usize, usize),
    first: impl Fn(usize) -> bool,
) {
    for (i, (stack, new)) in stacked.chunks_exact_mut(frame * depth).zip(obs.chunks_exact(frame)).enumerate() {
        if first(i) {
            let end = &mut last[i * frame * depth..(i + 1) * frame * depth];
            end.copy_from_slice(stack);
            shift(end, &final_obs[i * frame..(i + 1) * frame], depth);
            stack.fill(T::default());
        }
        shift(stack, new, depth);
    }
}

/// Drops the oldest of `depth` frames and appends `new`.
fn shift<T: Copy>(stack: &mut [T], new: &[T], depth: usize) {
    match depth {
        1 => stack.copy_from_slice(new),
        // With a fixed width the compiler emits one shift per pixel.
        4 => {
            for (pixel, &new) in stack.as_chunks_mut::<4>().0.iter_mut().zip(new) {
                *pixel = [pixel[1], pixel[2], pixel[3], new];
            }
        }
        _ => {
            for (pixel, &new) in stack.chunks_exact_mut(depth).zip(new) {
                pixel.copy_within(1.., 0);
                pixel[depth - 1] = new;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActionSpace, Step};

    fn spec(frame_stack: usize) -> EnvSpec {
        EnvSpec::new("t", &[2], Dtype::U8, ActionSpace::Discrete { n: 2 }).with_frame_stack(frame_stack)
    }

    /// The slow definition: the last `depth` frames of an episode, with zeros before the first.
    fn oracle(episode: &[[u8; 2]], depth: usize) -> Vec<u8> {
        let at = |back: usize, pixel: usize| episode.len().checked_sub(back).map_or(0, |t| episode[t][pixel]);
        (0..2).flat_map(|pixel| (0..depth).map(move |k| at(depth - k, pixel))).collect()
    }

    #[test]
    fn equals_the_list_of_frames_for_every_depth() {
        for depth in [1, 2, 3, 4, 5] {
            let spec = spec(depth);
            let mut batch = StepBatch::new(&spec, 2);
            let mut stack = FrameStack::new(&spec, 2);
            let mut episodes = [vec![[1, 101]], vec![[2, 102]]];
            batch.obs = Obs::U8(vec![1, 101, 2, 102]);
            stack.reset(&batch);
            for t in 3..40_u8 {
                batch.clear();
                for (i, episode) in episodes.iter_mut().enumerate() {
                    let frame = [t + 40 * i as u8, 3 * t];
                    if t % (5 + i as u8) == 0 {
                        let end = [200, t];
                        batch.set(i, Step { truncated: true, ..Step::default() });
                        batch.final_obs_row_mut(i).u8().copy_from_slice(&end);
                        episode.push(end);
                        let last = Obs::U8(oracle(episode, depth));
                        episode.clear();
                        episode.push(frame);
                        batch.obs_row_mut(i).u8().copy_from_slice(&frame);
                        let mut copy = stack.clone();
                        copy.push(&batch);
                        assert_eq!(copy.final_observation(i), last.as_ref());
                    } else {
                        episode.push(frame);
                        batch.obs_row_mut(i).u8().copy_from_slice(&frame);
                    }
                }
                stack.push(&batch);
                let expected: Vec<u8> = episodes.iter().flat_map(|e| oracle(e, depth)).collect();
                assert_eq!(stack.observations(), &Obs::U8(expected), "depth {depth}, step {t}");
                let starts: Vec<bool> = episodes.iter().map(|episode| episode.len() == 1).collect();
                assert_eq!(stack.starts(), starts);
            }
        }
    }

    /// Next-step autoreset: the final frame is alone in the stack of the step to be ignored, and the first frame of the next episode in
    /// the one after it.
    #[test]
    fn an_ignored_step_clears_the_stack() {
        let spec = spec(2);
        let mut batch = StepBatch::new(&spec, 1);
        let mut stack = FrameStack::new(&spec, 1);
        batch.obs = Obs::U8(vec![1, 2]);
        stack.reset(&batch);
        batch.set(0, Step { terminated: true, ..Step::default() });
        (batch.obs, batch.final_obs) = (Obs::U8(vec![3, 4]), Obs::U8(vec![3, 4]));
        stack.push(&batch);
        assert_eq!(stack.final_observation(0).to_obs(), Obs::U8(vec![1, 3, 2, 4]));
        for (ignored, frame, expected) in [(true, [5, 6], [0, 5, 0, 6]), (false, [7, 8], [5, 7, 6, 8])] {
            batch.clear();
            batch.ignored[0] = ignored;
            batch.obs = Obs::U8(frame.to_vec());
            stack.push(&batch);
            assert_eq!(stack.observations(), &Obs::U8(expected.to_vec()));
        }
    }

    #[test]
    fn a_lost_life_does_not_clear_the_stack() {
        let spec = spec(2);
        let mut batch = StepBatch::new(&spec, 1);
        let mut stack = FrameStack::new(&spec, 1);
        batch.obs = Obs::U8(vec![1, 2]);
        stack.reset(&batch);
        batch.obs = Obs::U8(vec![3, 4]);
        batch.set(0, Step { life_lost: true, ..Step::default() });
        stack.push(&batch);
        assert_eq!(stack.observations(), &Obs::U8(vec![1, 3, 2, 4]));
    }

    /// Frames 10, 20, … of two pixels, whose second has 1 more: [`stack`] equals the stack of an episode with as many frames.
    #[test]
    fn single_frames_are_stacked_as_those_of_an_episode() {
        for depth in 1..6 {
            for count in 1..=depth {
                let frames: Vec<[u8; 2]> = (1..=count as u8).map(|t| [10 * t, 10 * t + 1]).collect();
                let (mut bytes, mut floats) = (vec![9; 2 * depth], vec![9.0; 2 * depth]);
                stack(&frames.iter().map(|f| ObsRef::U8(f)).collect::<Vec<_>>(), depth, ObsMut::U8(&mut bytes));
                let wide: Vec<[f32; 2]> = frames.iter().map(|frame| frame.map(f32::from)).collect();
                stack(&wide.iter().map(|f| ObsRef::F32(f)).collect::<Vec<_>>(), depth, ObsMut::F32(&mut floats));
                assert_eq!(bytes, oracle(&frames, depth), "{count} of {depth}");
                assert_eq!(floats, bytes.iter().map(|&byte| f32::from(byte)).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_stack_is_restored_with_its_action_masks() {
        let spec = spec(3).with_action_mask();
        let mut stack = FrameStack::new(&spec, 2);
        assert_eq!((stack.depth(), stack.dtype(), stack.action_mask()), (3, Dtype::U8, [true; 4].as_slice()));
        let stacked: Vec<u8> = (0..12).collect();
        stack.restore(ObsRef::U8(&stacked), &[true, false, false, true]);
        assert_eq!(
            (stack.observations(), stack.action_mask()),
            (&Obs::U8(stacked), [true, false, false, true].as_slice())
        );
        assert_eq!(stack.starts(), [false; 2]);
    }
}
