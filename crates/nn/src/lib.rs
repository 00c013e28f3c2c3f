//! Networks on libtorch: layers, feature extractors, heads and optimizers.
//!
//! * All parameters of a network lie in **one flat tensor** ([`params`]); [`layers`] hold [`Slot`](params::Slot)s into it and
//!   compute with the [`Weights`](params::Weights) they are given: an online network's, a target network's, an actor's
//!   copy. An optimizer step, a norm, a copy, a checkpoint are each one operation on one buffer.
//! * Frames arrive as `u8` and become floats in one place, [`input`].
//! * Each layer of a network also describes itself as operators, for other programs: [`export`].
//! * [`Pass`] tells a forward pass whether a backward pass follows.
//! * Random numbers come from playfield's own generators, whose state can be saved; libtorch's cannot.
//!
//! libtorch reports a shape mismatch by unwinding: inside this crate that is a bug and panics. What a user's
//! configuration can get wrong is checked when a network is built, and returned as an error.

mod cuda_graph;
pub mod device;
pub mod export;
pub mod init;
pub mod layers;
pub mod networks;
pub mod observations;
pub mod optim;
pub mod params;
pub mod pass;
mod resolve;
pub mod sharding;
mod tensor;

pub use layers::recurrent::state::RecurrentState;
pub use layers::recurrent::{cell as recurrent, gru, lstm, rnn, sequence, stack};
pub use layers::{attention, conv, dropout, embedding, linear, noisy, norm, skip};
pub use networks::actor_critic::ActorCritic;
pub use networks::config::NetworkConfig;
pub use networks::distribution::Distribution;
pub use networks::evaluated_actions::EvaluatedActions;
pub use networks::q_network::{QConfig, QNetwork};
pub use networks::summary::Summary;
pub use networks::{config, dispatch, distribution, heads, input, timing, torso};
pub use observations::{DeviceFrames, DeviceRollout, Indexed, Observations};
pub use params::{Builder, Params, Weights};
pub use pass::Pass;
pub use resolve::resolve;
