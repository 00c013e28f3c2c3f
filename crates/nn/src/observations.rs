//! Observations in the memory of the host or of a device.
//!
//! [`DeviceRollout`] and [`DeviceFrames`] receive each frame once, as bytes, and stack frames on the device. Otherwise each frame would be
//! sent with every stack that contains it, and again in every epoch, or with every sample of a replay buffer.

use playfield_core::{Dtype, EnvSpec, Error, FrameStack, Obs, ObsRef, Result};
use tch::{Device, Kind, Tensor, no_grad};

/// A batch of observations for a network.
#[derive(Clone, Copy, Debug)]
pub enum Observations<'a> {
    /// In the memory of the host.
    Host(ObsRef<'a>),
    /// In the memory of the host, selected from a buffer.
    Indexed(Indexed<'a>),
    /// Frames in the memory of the network's device: `u8`, `[n, height, width, channels]`, stacked along the last axis.
    Device(&'a Tensor),
}

/// Observations selected by index. Each thread reads those of its part of a batch; for libtorch it copies them.
#[derive(Clone, Copy, Debug)]
pub struct Indexed<'a> {
    /// Observations, one after the other.
    pub buffer: ObsRef<'a>,
    /// Elements of an observation.
    pub obs_len: usize,
    /// Those of the batch, in order.
    pub indices: &'a [usize],
}

/// [`Observations`], one after the other.
#[derive(Clone, Copy, Debug)]
pub enum Contiguous<'a> {
    /// In the memory of the host.
    Host(ObsRef<'a>),
    /// In the memory of the network's device, as [`Observations::Device`].
    Device(&'a Tensor),
}

impl<'a> From<ObsRef<'a>> for Contiguous<'a> {
    fn from(obs: ObsRef<'a>) -> Self {
        Self::Host(obs)
    }
}

impl<'a> Observations<'a> {
    /// The bytes of each of `n` observations, where they are bytes in the memory of the host.
    pub(crate) fn frames(self, n: usize) -> Option<Vec<&'a [u8]>> {
        match self {
            Self::Host(ObsRef::U8(bytes)) => Some(bytes.chunks_exact((bytes.len() / n.max(1)).max(1)).collect()),
            Self::Indexed(Indexed { buffer: ObsRef::U8(bytes), obs_len, indices }) => {
                Some(indices.iter().map(|&i| &bytes[i * obs_len..(i + 1) * obs_len]).collect())
            }
            _ => None,
        }
    }

    /// The same observations one after the other: selected ones are copied to `to`.
    pub(crate) fn contiguous<'b>(self, to: &'b mut Obs) -> Contiguous<'b>
    where
        'a: 'b,
    {
        match self {
            Self::Host(obs) => Contiguous::Host(obs),
            Self::Indexed(Indexed { buffer, obs_len, indices }) => {
                to.gather(buffer, obs_len, indices);
                Contiguous::Host(to.as_ref())
            }
            Self::Device(frames) => Contiguous::Device(frames),
        }
    }
}

impl<'a> From<ObsRef<'a>> for Observations<'a> {
    fn from(obs: ObsRef<'a>) -> Self {
        Self::Host(obs)
    }
}

/// A copy of `tensor`, which is in the memory of the host, on `device`; on the CPU `tensor` itself. The copy to a CUDA device is
/// asynchronous, from page-locked memory.
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cpu => tensor.shallow_clone(),
        // `pin_memory` warns in every call that its device is deprecated. libtorch keeps the page-locked copy until the device has read it.
        Device::Cuda(_) => tensor.internal_pin_memory(device).to_device_(device, tensor.kind(), true, false),
        _ => tensor.to_device(device),
    }
}

/// The stacked frames of a rollout, in the memory of a device.
#[derive(Debug)]
pub struct DeviceRollout {
    /// `u8`, `[steps + 1, envs, height, width, channels]`.
    stacked: Tensor,
    /// Frames per observation.
    depth: i64,
    /// The number of stored observations.
    stored: usize,
}

impl DeviceRollout {
    /// For `steps` steps of `envs` environments of `spec`; `None` where observations are not frames alone.
    ///
    /// # Errors
    /// [`Error::Config`] where the device has too little memory.
    pub fn new(spec: &EnvSpec, envs: usize, steps: usize, device: Device) -> Result<Option<Self>> {
        let Some([height, width, colors]) = frame_size(spec) else { return Ok(None) };
        let [rows, envs] = [steps + 1, envs].map(|d| d as i64);
        let size = [rows, envs, height, width, colors * spec.frame_stack as i64];
        let stacked = zeros(&size, device, "a rollout")
            .map_err(|error| Error::config(format!("lower `rollout_steps` or `env.num_envs`: {error}")))?;
        Ok(Some(Self { stacked, depth: spec.frame_stack as i64, stored: 0 }))
    }

    /// Stores the observations before step `t` of the environments from `first`: those of `frames`. At the first step of a rollout the
    /// whole stack is sent, later only the newest frames, `newest`.
    ///
    /// # Panics
    /// If frames are not bytes: a bug of the caller.
    pub fn store(&mut self, t: usize, first: usize, frames: &FrameStack, newest: &Obs) {
        let (n, device) = (frames.starts().len(), self.stacked.device());
        self.stored += n;
        let mut to = self.at(t, first, n);
        let &[envs, height, width, channels] = &to.size()[..] else { unreachable!("four axes") };
        no_grad(|| {
            if t == 0 {
                let all = Tensor::from_slice(frames.observations().as_ref().u8()).view_as(&to);
                return to.copy_(&upload(&all, device));
            }
            // After the frames a byte per environment: 0 where an episode begins, else 255. It masks the older frames.
            let mask = frames.starts().iter().map(|&start| if start { 0 } else { u8::MAX });
            let sent: Vec<u8> = newest.as_ref().u8().iter().copied().chain(mask).collect();
            let sent = upload(&Tensor::from_slice(&sent), device).split_with_sizes([sent.len() as i64 - envs, envs], 0);
            let by_frame = |x: &Tensor, depth: i64| x.view([envs, height, width, channels / self.depth, depth]);
            let older = by_frame(&self.at(t - 1, first, n), self.depth).narrow(4, 1, self.depth - 1);
            let older = older.bitwise_and_tensor(&sent[1].view([-1, 1, 1, 1, 1]));
            to.copy_(&Tensor::cat(&[older, by_frame(&sent[0], 1)], 4).view_as(&to));
        });
    }

    /// The observations before step `t` of `n` environments from `first`, `[n, height, width, channels]`: a view.
    pub fn at(&self, t: usize, first: usize, n: usize) -> Tensor {
        self.stacked.get(t as i64).narrow(0, first as i64, n as i64)
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.stacked.size()[0] as usize - 1
    }

    /// Whether all observations are stored, those after the last step, too.
    pub fn is_full(&self) -> bool {
        self.stored as i64 == self.stacked.size()[0] * self.stacked.size()[1]
    }

    /// Removes all observations, for the next rollout.
    pub fn clear(&mut self) {
        self.stored = 0;
    }

    /// All but the last observations, `[steps · envs, height, width, channels]`: a view.
    pub fn observations(&self) -> Tensor {
        self.stacked.narrow(0, 0, self.steps() as i64).flatten(0, 1)
    }

    /// The observations after the last step, `[envs, height, width, channels]`: a view.
    pub fn last_observations(&self) -> Tensor {
        self.stacked.get(-1)
    }
}

/// The frames of a replay buffer, in the memory of a device. They are stacked when they are sampled.
#[derive(Debug)]
pub struct DeviceFrames {
    /// `u8`, `[slots + 1, height, width, channels]`. The last is zero.
    frames: Tensor,
}

impl DeviceFrames {
    /// For `slots` frames of environments of `spec`; `None` where observations are not frames alone.
    ///
    /// # Errors
    /// [`Error::Config`] where the device has too little memory.
    pub fn new(spec: &EnvSpec, slots: usize, device: Device) -> Result<Option<Self>> {
        let Some([height, width, colors]) = frame_size(spec) else { return Ok(None) };
        let frames = zeros(&[slots as i64 + 1, height, width, colors], device, "a replay buffer's frames")?;
        Ok(Some(Self { frames }))
    }

    /// Writes `frames`, one after another, to `slots`.
    ///
    /// # Panics
    /// If they are not of this size, or a slot does not exist: bugs of the caller.
    pub fn write(&mut self, slots: &[usize], frames: &[u8]) {
        let slots: Vec<_> = slots.iter().map(|&slot| slot as i64).collect();
        let [_, height, width, colors] = self.frames.size()[..] else { unreachable!("four axes") };
        let (device, frames) = (self.frames.device(), Tensor::from_slice(frames).view([-1, height, width, colors]));
        let _ = no_grad(|| {
            self.frames.index_copy_(0, &upload(&Tensor::from_slice(&slots), device), &upload(&frames, device))
        });
    }

    /// Observations of `depth` frames each, oldest first, in `slots`; `None` is a zero frame. `[n · depth]` → `[n, height, width,
    /// channels · depth]`.
    pub fn stacked(&self, slots: &[Option<usize>], depth: usize) -> Tensor {
        let [absent, height, width, colors] = self.frames.size()[..] else { unreachable!("four axes") };
        let slots: Vec<_> = slots.iter().map(|slot| slot.map_or(absent - 1, |slot| slot as i64)).collect();
        let (n, depth) = ((slots.len() / depth) as i64, depth as i64);
        let frames = self.frames.index_select(0, &upload(&Tensor::from_slice(&slots), self.frames.device()));
        let stacked = frames.view([n, depth, height, width, colors]).permute([0, 2, 3, 4, 1]);
        stacked.reshape([n, height, width, colors * depth])
    }
}

/// Height, width and channels of one frame of `spec`; `None` where observations are not frames alone.
fn frame_size(spec: &EnvSpec) -> Option<[i64; 3]> {
    let &[height, width, ref colors @ ..] = &spec.shape[..] else { return None };
    let is_frames = spec.dtype == Dtype::U8 && spec.parts.is_empty();
    is_frames.then(|| [height, width, colors.iter().product()].map(|d| d as i64))
}

fn zeros(size: &[i64], device: Device, what: &str) -> Result<Tensor> {
    let gigabytes = size.iter().product::<i64>() as f64 / 1e9;
    Tensor::f_zeros(size, (Kind::Uint8, device)).map_err(|error| {
        let (error, all) = (error.to_string(), format!("{gigabytes:.2} GB of the device's memory for {what}"));
        Error::config(format!("cannot allocate {all}: {}", error.lines().next().unwrap_or_default()))
    })
}
