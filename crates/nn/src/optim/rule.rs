//! The interface of a rule's config type.

use playfield_kernels::optimizer::Update;

/// A buffer that a rule keeps: an element per parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State {
    /// Its name in a checkpoint.
    pub name: &'static str,
    /// The initial value of each element.
    pub initial: f32,
}

/// What a rule's config type provides.
pub(super) trait UpdateRule {
    /// What the rule keeps per parameter, in the order of [`Update`].
    fn state(&self) -> [Option<State>; 2];

    /// The scalars of the `updates`-th step.
    fn update(&self, learning_rate: f64, updates: u64) -> Update;

    /// λ of L2 regularization.
    fn l2(&self) -> f64;

    /// Settings that must lie in [0, 1].
    fn shares(&self) -> Vec<(&'static str, f64)>;

    /// Settings that must not be negative.
    fn sizes(&self) -> Vec<(&'static str, f64)>;
}
