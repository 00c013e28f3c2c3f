//! What networks are made of, on libtorch.
//!
//! * All parameters of a network lie in **one flat tensor** ([`params`]); layers hold [`Slot`](params::Slot)s into it and
//!   compute with whatever [`Weights`](params::Weights) they are given: the trained ones, a target network's, an actor's
//!   copy. An optimizer step, a norm, a copy, a checkpoint are each one operation on one buffer.
//! * Frames arrive as `u8` and become floats here ([`input`]), once, and nowhere else in playfield.
//! * Random numbers come from playfield's own generators, whose state can be saved; libtorch's cannot.
//!
//! libtorch reports a shape that does not fit by unwinding: inside this crate that is a bug and panics. What a user's
//! configuration can get wrong is checked when a network is built, and returned as an error.

pub mod actor_critic;
pub mod attention;
pub mod config;
pub mod conv;
pub mod device;
mod direct;
pub mod dispatch;
pub mod distribution;
pub mod dropout;
pub mod embedding;
mod encoder;
mod fused;
pub mod gru;
pub mod heads;
pub mod impala;
pub mod init;
pub mod input;
pub mod linear;
pub mod lstm;
pub mod noisy_linear;
pub mod norm;
pub mod optim;
pub mod params;
pub mod q_network;
pub mod recurrent;
pub mod resolve;
pub mod rnn;
pub mod sequence;
mod shards;
mod simd;
pub mod skip;
pub mod stack;
pub mod torso;

pub use actor_critic::ActorCritic;
pub use config::NetworkConfig;
pub use distribution::Distribution;
pub use lstm::RecurrentState;
pub use params::{Builder, Params, Weights};
pub use q_network::{QConfig, QNetwork};
pub use resolve::resolve;
