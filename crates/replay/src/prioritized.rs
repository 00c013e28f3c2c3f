//! Prioritised sampling, the proportional variant (Schaul et al. 2016, *Prioritized Experience Replay*, section 3.3).
//!
//! Transition i is drawn with probability P(i) = pᵢ^α / Σ p^α, where pᵢ = |δᵢ| + ε from its last update; a new one gets
//! the largest |δ| seen so far, so that it is drawn soon. What this changes about the distribution is weighed back by
//! wᵢ = (N · P(i))^−β, divided by the batch's largest so that weights only ever shrink a step.
//!
//! A small share of draws is uniform (DQN Zoo's 10⁻³), which keeps forgotten transitions alive.

use crate::{Changes, SumTree};
use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// How transitions are prioritised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriorityConfig {
    /// α: 0 draws uniformly, 1 in proportion to |δ|.
    pub exponent: f64,
    /// Added to |δ|, so that no transition is lost for good.
    pub epsilon: f64,
    /// The share of draws that are uniform.
    pub uniform_share: f64,
}

impl Default for PriorityConfig {
    /// Proportional, as in the paper and DQN Zoo.
    fn default() -> Self {
        Self { exponent: 0.6, epsilon: 1e-6, uniform_share: 1e-3 }
    }
}

/// Priorities of a memory's transitions, by index.
#[derive(Clone, Debug)]
pub struct Prioritized {
    config: PriorityConfig,
    tree: SumTree,
    /// Which transitions can be drawn, for the uniform share.
    items: Vec<usize>,
    place: Vec<usize>,
    largest: f64,
}

/// No place among the items.
const NONE: usize = usize::MAX;

impl Prioritized {
    /// For a memory of `capacity` slots.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that cannot work.
    pub fn new(config: PriorityConfig, capacity: usize) -> Result<Self> {
        let wrong = |what: &str| Err(Error::config(format!("prioritised replay: {what}")));
        match &config {
            c if !(0.0..=2.0).contains(&c.exponent) => wrong("`exponent` must lie between 0 and 2"),
            c if !(c.epsilon >= 0.0 && c.epsilon.is_finite()) => wrong("`epsilon` must not be negative"),
            c if !(0.0..=1.0).contains(&c.uniform_share) => wrong("`uniform_share` must lie between 0 and 1"),
            _ => Ok(Self {
                config,
                tree: SumTree::new(capacity),
                items: Vec::new(),
                place: vec![NONE; capacity],
                largest: 1.0,
            }),
        }
    }

    /// How many transitions can be drawn.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none can be drawn.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Follows a memory: what entered it gets the largest priority so far, what left it none.
    pub fn follow(&mut self, changes: &Changes) {
        for &item in &changes.left {
            self.tree.set(item, 0.0);
            let place = std::mem::replace(&mut self.place[item], NONE);
            self.items.swap_remove(place);
            if let Some(&moved) = self.items.get(place) {
                self.place[moved] = place;
            }
        }
        for &item in &changes.entered {
            self.tree.set(item, self.priority(self.largest));
            self.place[item] = self.items.len();
            self.items.push(item);
        }
    }

    /// The probability with which one draw finds `item`.
    pub fn probability(&self, item: usize) -> f64 {
        let uniform = if self.place[item] == NONE { 0.0 } else { 1.0 / self.len() as f64 };
        let share = self.config.uniform_share;
        match self.tree.total() {
            0.0 => uniform,
            total => share * uniform + (1.0 - share) * self.tree.get(item) / total,
        }
    }

    /// Draws `indices.len()` transitions, with repetition, and their importance weights for `beta`.
    ///
    /// # Panics
    /// If none can be drawn.
    pub fn sample(&self, rng: &mut Rng, beta: f64, indices: &mut [usize], weights: &mut [f32]) {
        assert!(!self.is_empty(), "a draw from an empty replay");
        let total = self.tree.total();
        for index in indices.iter_mut() {
            let uniform = total == 0.0 || rng.random::<f64>() < self.config.uniform_share;
            *index = match uniform {
                true => self.items[rng.random_range(0..self.items.len())],
                false => self.tree.find(rng.random::<f64>() * total),
            };
        }
        let weight = |i: usize| (self.len() as f64 * self.probability(i)).powf(-beta);
        let largest = indices.iter().map(|&i| weight(i)).fold(0.0, f64::max);
        for (w, &i) in weights.iter_mut().zip(indices.iter()) {
            *w = (weight(i) / largest) as f32;
        }
    }

    /// Sets priorities from the errors δ of an update. A transition that left the memory since it was drawn is passed over.
    ///
    /// # Errors
    /// [`Error::Diverged`] for an error that is not finite: nothing was changed then.
    pub fn update(&mut self, indices: &[usize], errors: &[f32]) -> Result<()> {
        if let Some(error) = errors.iter().find(|e| !e.is_finite()) {
            return Err(Error::Diverged(format!(
                "training diverged: a temporal-difference error is {error}. Lower the learning rate"
            )));
        }
        for (&item, error) in indices.iter().zip(errors) {
            let error = f64::from(error.abs());
            self.largest = self.largest.max(error);
            if self.place[item] != NONE {
                self.tree.set(item, self.priority(error));
            }
        }
        Ok(())
    }

    fn priority(&self, error: f64) -> f64 {
        (error + self.config.epsilon).powf(self.config.exponent)
    }
}
