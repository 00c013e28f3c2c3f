//! Observations in the memory of the host or of a device.
//!
//! A device that is not the CPU receives each frame once, as bytes: [`DeviceRollout`] stacks frames there and keeps the rollout's
//! observations for its updates. Otherwise a stack of four would be sent four times for acting, and once more for every epoch.

use crate::tensor::slice;
use playfield_core::{Dtype, EnvSpec, FrameStack, ObsRef};
use tch::{Device, Kind, Tensor, no_grad};

/// A batch of observations for a network.
#[derive(Clone, Copy, Debug)]
pub enum Observations<'a> {
    /// In the memory of the host.
    Host(ObsRef<'a>),
    /// Frames in the memory of the network's device: `u8`, `[n, height, width, channels]`, stacked along the last axis.
    Device(&'a Tensor),
}

impl<'a> From<ObsRef<'a>> for Observations<'a> {
    fn from(obs: ObsRef<'a>) -> Self {
        Self::Host(obs)
    }
}

impl<'a> From<&'a Tensor> for Observations<'a> {
    fn from(frames: &'a Tensor) -> Self {
        Self::Device(frames)
    }
}

/// `tensor`, from the memory of the host, on `device`. The caller does not wait for the copy: it is made from page-locked memory, in the
/// order of the device's operations.
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cpu => tensor.shallow_clone(),
        // libtorch frees the page-locked copy once the device has read it.
        Device::Cuda(_) => tensor.pin_memory(device).to_device_(device, tensor.kind(), true, false),
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
}

impl DeviceRollout {
    /// For `steps` steps of `envs` environments of `spec`; `None` where observations are not frames.
    pub fn new(spec: &EnvSpec, envs: usize, steps: usize, device: Device) -> Option<Self> {
        let &[height, width, ref colors @ ..] = &spec.shape[..] else { return None };
        if spec.dtype != Dtype::U8 || !spec.parts.is_empty() {
            return None;
        }
        let channels = colors.iter().product::<usize>() * spec.frame_stack;
        let size = [steps + 1, envs, height, width, channels].map(|d| d as i64);
        Some(Self { stacked: Tensor::zeros(size, (Kind::Uint8, device)), depth: spec.frame_stack as i64 })
    }

    /// Stores the observations before step `t` of the environments from `first`. Of all but the first of a rollout only the newest frames are
    /// sent: the others are on the device.
    pub fn store(&mut self, t: usize, first: usize, frames: &FrameStack) {
        let n = frames.starts().len();
        let mut to = self.rows(t, first, n);
        let device = self.stacked.device();
        if t == 0 {
            let all = Tensor::from_slice(frames.observations().as_ref().u8()).view_as(&to);
            return no_grad(|| to.copy_(&upload(&all, device)));
        }
        let (height, width, channels) = (to.size()[1], to.size()[2], to.size()[3]);
        no_grad(|| {
            // Each frame is followed by 255, or by 0 where its episode begins: what the older frames of the stack are masked with.
            let len = height * width * channels / self.depth;
            let sent = Tensor::zeros([n as i64, len + 1], (Kind::Uint8, Device::Cpu));
            // SAFETY: a new tensor of bytes on the CPU, contiguous.
            let rows = unsafe { slice::<u8>(&sent) };
            for (i, row) in rows.chunks_exact_mut(len as usize + 1).enumerate() {
                frames.newest(i, &mut row[..len as usize]);
                row[len as usize] = if frames.starts()[i] { 0 } else { u8::MAX };
            }
            let sent = upload(&sent, device);
            let split = |x: &Tensor, depth: i64| x.reshape([n as i64, height, width, channels / self.depth, depth]);
            let (newest, mask) = (split(&sent.narrow(1, 0, len), 1), sent.narrow(1, len, 1).view([-1, 1, 1, 1, 1]));
            let older = split(&self.rows(t - 1, first, n), self.depth).narrow(4, 1, self.depth - 1);
            to.copy_(&Tensor::cat(&[older.bitwise_and_tensor(&mask), newest], 4).view_as(&to));
        });
    }

    /// The observations before step `t` of `n` environments from `first`, `[n, height, width, channels]`: a view.
    pub fn rows(&self, t: usize, first: usize, n: usize) -> Tensor {
        self.stacked.get(t as i64).narrow(0, first as i64, n as i64)
    }

    /// All but the last observations, `[steps · envs, height, width, channels]`: a view.
    pub fn observations(&self) -> Tensor {
        self.stacked.narrow(0, 0, self.stacked.size()[0] - 1).flatten(0, 1)
    }

    /// The observations after the last step, `[envs, height, width, channels]`: a view.
    pub fn last_observations(&self) -> Tensor {
        self.stacked.get(-1)
    }
}
