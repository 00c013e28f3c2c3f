//! Access to the elements of tensors.

use playfield_kernels::bf16;
use tch::{Device, Kind, Tensor};

/// An element type of tensors. (`tch::kind::Element` takes bf16 for f16.)
pub(crate) trait TensorElement: Copy {
    /// libtorch's name of the type.
    const KIND: Kind;
}

impl TensorElement for f32 {
    const KIND: Kind = Kind::Float;
}

impl TensorElement for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

/// The elements of a tensor in row-major order, as `f32` on the CPU.
pub fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}

/// The elements of a tensor, in place.
///
/// # Safety
/// The tensor must be contiguous, on the CPU and of elements of `T`'s size and meaning, and nothing else may use its memory
/// while the slice lives.
#[allow(clippy::mut_from_ref)] // a tensor is a handle: its memory is not behind the reference
pub(crate) unsafe fn slice<T>(tensor: &Tensor) -> &mut [T] {
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}
