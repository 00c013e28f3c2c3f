//! Replay memories, which know nothing of networks.
//!
//! [`FrameRing`] holds what happened: each frame once, as `u8`, however many stacked observations and n-step transitions it
//! is part of. Which transitions are drawn is a matter of its own: [`uniform::sample`], or [`Prioritized`], which follows
//! the memory's [`Changes`]. [`Segments`] keep its frames on disk.

pub mod frame_ring;
mod frames;
pub mod memory;
pub mod prioritized;
mod ranks;
mod segments;
mod sum_tree;
pub mod uniform;

pub use frame_ring::{Changes, FrameRing, RingConfig, Transitions};
pub use prioritized::{Prioritized, PriorityConfig};
pub use segments::Segments;
pub use sum_tree::SumTree;
