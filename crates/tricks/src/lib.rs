//! Training procedures of supervised learning. Layers are in `playfield-nn`.
//!
//! This crate depends on no environment and no agent. Models train with `playfield_nn`'s optimizers on its flat parameters, and
//! every random number comes from the caller's generator.

pub mod beam;
pub mod char_rnn;
pub mod classifier;
pub mod data;
pub mod distill;
pub mod distortion;
pub mod loader;
pub mod lr_search;
pub mod policy_distillation;
pub mod probe;
pub mod scheduled_sampling;
pub mod seq2seq;
pub mod tsne;
