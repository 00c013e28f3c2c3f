//! The tricks of supervised learning that are a procedure rather than a layer (those are in `playfield-nn`).
//!
//! Nothing here knows an environment or an agent. Models train with `playfield_nn`'s optimizers on its flat parameters, and
//! every random number comes from a generator that the caller hands in.

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
