//! Layers: each holds the slots of its parameters and computes with the [`Weights`](crate::Weights) it is given.

pub mod activation;
pub mod attention;
pub mod conv;
pub mod dropout;
pub mod embedding;
pub mod linear;
pub mod noisy;
pub mod norm;
pub mod recurrent;
pub mod skip;
