//! Groups of processes for data-parallel training, on libtorch's own c10d: the engine of PyTorch's `torch.distributed`.
//!
//! A process joins with the environment variables that `torchrun` and others set ([`Config`]). The ranks find each other through a
//! key-value server at rank 0 (TCPStore), and exchange data with Gloo, over TCP between CPUs. There is no Python and no package
//! beside libtorch: `libtorch_cpu.so` contains both, and `shim.cpp` calls them. Where libtorch has CUDA (`make setup DEVICE=cuda`), its
//! ProcessGroupNCCL is built, too, and sums the gradients of ranks that have a CUDA device each, without a copy to the host.
//!
//! - Every operation has a timeout. When one fails, the ranks ask each other through the store who is still there, so that the
//!   error names the rank that has ended or does not respond.
//! - Rank 0 listens on `MASTER_ADDR`, and each rank on the address with the route to it (or that of `GLOO_SOCKET_IFNAME`), and on
//!   no other. Nothing is encrypted or authenticated: use a private network.
//! - NCCL has not been run: there was no GPU. Ranks that share a device, which NCCL refuses, use Gloo: their gradients go through the
//!   memory of the host.

mod config;
mod ffi;
mod group;

pub use config::{Config, TIMEOUT};
pub use group::Group;

// Links libtorch.
use tch as _;
