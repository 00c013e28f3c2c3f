//! What each trick does, measured.
//!
//! A test verifies the definition of each trick of the core (`nn`, `tricks`, the algorithms). This crate measures whether the
//! trick *helps*: every [`Trick`] has an experiment that runs with it and without it over several seeds, and its [`Outcome`] is
//! reported even if there is no effect. The experiments are small (about a minute on two cores) and mostly on toy data: they show
//! that an effect exists, not how large it is elsewhere.
//!
//! | module | content |
//! |---|---|
//! | [`trick`] | the definition of an experiment, and what it records |
//! | [`tricks`] | the experiments, in the order of the original list |
//! | [`run`] | repetition over seeds |
//! | [`stats`] | medians, quartiles, significance tests |
//! | [`chart`] | charts |
//! | [`map`] | t-SNE maps of an agent's hidden layer |
//! | [`page`] | the page `docs/tricks.md` |
//!
//! Not for benchmarks of whole agents: `docs/` has those, on real games and with real budgets.

pub mod caption;
pub mod chart;
pub mod map;
pub mod page;
pub mod run;
pub mod stats;
pub mod trick;
pub mod tricks;

pub use run::{Outcome, run};
pub use trick::{Better, Trial, Trick};
