//! Recurrent layers, and batches of sequences of unequal length.

pub mod cell;
pub mod gru;
pub mod lstm;
pub mod rnn;
pub mod sequence;
pub mod stack;
pub mod state;
mod unroll;
