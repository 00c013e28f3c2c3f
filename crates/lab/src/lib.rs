//! What each trick does, measured.
//!
//! A trick of the core (`nn`, `tricks`, the agents) is held to its definition by a test; whether it *helps* is another
//! question, and this crate asks it: every [`Trick`] has an experiment that is run with it and without it, over seeds, and
//! the [`Outcome`] says what was seen, even where nothing was. The experiments are small (a minute each on two cores) and
//! mostly on toy data: they show that an effect exists, not how large it is elsewhere.
//!
//! | module | answers |
//! |---|---|
//! | [`trick`] | what an experiment is, and what it records |
//! | [`tricks`] | which there are, in the order of the list they come from |
//! | [`run`] | how one is repeated over seeds |
//! | [`stats`] | what may be concluded |
//! | [`chart`] | how it is drawn |
//! | [`map`] | how an agent's hidden layer is, by t-SNE |
//! | [`page`] | how it is written up |
//!
//! Not for: benchmarks of whole agents (`docs/` has those, on real games and with real budgets).

pub mod chart;
pub mod map;
pub mod page;
pub mod run;
pub mod stats;
pub mod trick;
pub mod tricks;

pub use run::{Outcome, run};
pub use trick::{Better, Trial, Trick};
