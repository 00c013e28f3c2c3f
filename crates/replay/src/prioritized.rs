//! Prioritized sampling (Schaul et al. 2016, *Prioritized Experience Replay*, section 3.3), proportional or rank-based.
//!
//! Transition i is drawn with probability P(i) = pᵢ^α / Σ p^α. Proportional: pᵢ = |δᵢ| + ε, from its last update.
//! Rank-based: pᵢ = 1/rank(i) among all |δ|, which no outlier can dominate. A new transition gets the largest |δ| seen so
//! far, so that it is drawn soon. What this changes about the distribution is weighed back by wᵢ = (N · P(i))^−β, divided
//! by the largest so that weights only ever shrink a step.
//!
//! A small share of draws is uniform (DQN Zoo's 10⁻³), which keeps forgotten transitions alive.

use crate::ranks::Ranks;
use crate::{Changes, SumTree};
use playfield_core::rng::Rng;
use playfield_core::{Array, Error, Result, Snapshot};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// How transitions are prioritized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriorityConfig {
    /// What a priority is made of.
    pub by: By,
    /// α: 0 draws uniformly, 1 in proportion to |δ| (or to 1/rank).
    pub exponent: f64,
    /// Added to |δ|, so that no transition is lost for good.
    pub epsilon: f64,
    /// The share of draws that are uniform.
    pub uniform_share: f64,
    /// Whose largest weight is 1.
    pub largest_weight_of: LargestOf,
    /// Whether a batch has one draw from each of as many equal shares of the probability (the paper, section 3.3 and appendix
    /// B.2.1), or independent draws (DQN Zoo).
    pub stratified: bool,
}

/// What a priority is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The size of the error.
    #[default]
    Error,
    /// Its rank among all errors.
    Rank,
}

/// Whose largest importance weight is scaled to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LargestOf {
    /// The drawn batch's (DQN Zoo, Dopamine): the scale of a step varies from batch to batch.
    #[default]
    Batch,
    /// That of all transitions in the memory (OpenAI Baselines): one scale, and smaller steps.
    Memory,
}

impl Default for PriorityConfig {
    /// Proportional, as in the paper and DQN Zoo.
    fn default() -> Self {
        let (by, largest_weight_of) = (By::default(), LargestOf::default());
        Self { by, exponent: 0.6, epsilon: 1e-6, uniform_share: 1e-3, largest_weight_of, stratified: false }
    }
}

/// Priorities of a memory's transitions, by index.
#[derive(Clone, Debug)]
pub struct Prioritized {
    config: PriorityConfig,
    order: Order,
    /// Which transitions can be drawn, for the uniform share.
    items: Vec<usize>,
    place: Vec<usize>,
    largest: f64,
}

#[derive(Clone, Debug)]
enum Order {
    Tree(SumTree),
    Ranks(Ranks),
}

/// No place among the items.
const NONE: usize = usize::MAX;

impl Prioritized {
    /// For a memory of `capacity` slots.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that cannot work.
    pub fn new(config: PriorityConfig, capacity: usize) -> Result<Self> {
        let wrong = |what: &str| Err(Error::config(format!("prioritized replay: {what}")));
        let order = match config.by {
            By::Error => Order::Tree(SumTree::new(capacity)),
            By::Rank => Order::Ranks(Ranks::new(capacity, config.exponent)),
        };
        match &config {
            c if !(0.0..=2.0).contains(&c.exponent) => wrong("`exponent` must lie between 0 and 2"),
            c if !(c.epsilon >= 0.0 && c.epsilon.is_finite()) => wrong("`epsilon` must not be negative"),
            c if !(0.0..=1.0).contains(&c.uniform_share) => wrong("`uniform_share` must lie between 0 and 1"),
            _ => Ok(Self { config, order, items: Vec::new(), place: vec![NONE; capacity], largest: 1.0 }),
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
            let place = std::mem::replace(&mut self.place[item], NONE);
            self.items.swap_remove(place);
            if let Some(&moved) = self.items.get(place) {
                self.place[moved] = place;
            }
        }
        for &item in &changes.entered {
            self.place[item] = self.items.len();
            self.items.push(item);
        }
        let (largest, priority) = (self.largest, self.config.priority(self.largest));
        match &mut self.order {
            Order::Tree(tree) => {
                let entered = changes.entered.iter().map(|&item| (item, priority));
                tree.set(changes.left.iter().map(|&item| (item, 0.0)).chain(entered));
            }
            Order::Ranks(ranks) => {
                changes.left.iter().for_each(|&item| ranks.remove(item));
                changes.entered.iter().for_each(|&item| ranks.set(item, largest));
            }
        }
    }

    /// The probability with which one draw finds `item`.
    pub fn probability(&self, item: usize) -> f64 {
        let uniform = if self.place[item] == NONE { 0.0 } else { 1.0 / self.len() as f64 };
        let prioritized = match &self.order {
            Order::Tree(tree) if tree.total() == 0.0 => return uniform,
            Order::Tree(tree) => tree.get(item) / tree.total(),
            Order::Ranks(ranks) => ranks.probability(item),
        };
        self.mix(uniform, prioritized)
    }

    /// Draws `indices.len()` transitions, with repetition, [stratified](PriorityConfig::stratified) or independently, and their
    /// importance weights for `beta`.
    ///
    /// # Panics
    /// If none can be drawn.
    pub fn sample(&self, rng: &mut Rng, beta: f64, indices: &mut [usize], weights: &mut [f32]) {
        assert!(!self.is_empty(), "a draw from an empty replay");
        let strata = if self.config.stratified { indices.len() } else { 1 };
        for (k, index) in indices.iter_mut().enumerate() {
            let uniform = rng.random::<f64>() < self.config.uniform_share;
            let position = |u: f64| ((k % strata) as f64 + u) / strata as f64;
            *index = match &self.order {
                Order::Tree(tree) if !uniform && tree.total() > 0.0 => tree.find(position(rng.random()) * tree.total()),
                Order::Ranks(ranks) if !uniform => ranks.find(position(rng.random())),
                _ => self.items[rng.random_range(0..self.items.len())],
            };
        }
        let weight = |probability: f64| (self.len() as f64 * probability).powf(-beta);
        let largest = match self.config.largest_weight_of {
            LargestOf::Batch => indices.iter().map(|&i| weight(self.probability(i))).fold(0.0, f64::max),
            LargestOf::Memory => weight(self.smallest_probability()),
        };
        for (w, &i) in weights.iter_mut().zip(indices.iter()) {
            *w = (weight(self.probability(i)) / largest) as f32;
        }
    }

    /// Sets priorities from the errors δ of an update. A transition that left the memory since it was drawn is passed over.
    ///
    /// # Errors
    /// [`Error::Diverged`] for an error that is not finite: nothing was changed then.
    pub fn update(&mut self, indices: &[usize], errors: &[f32]) -> Result<()> {
        if let Some(error) = errors.iter().find(|e| !e.is_finite()) {
            return Err(Error::Diverged(format!("a temporal-difference error is {error}")));
        }
        let Self { config, order, place, largest, .. } = self;
        let errors = errors.iter().map(|e| f64::from(e.abs()));
        *largest = errors.clone().fold(*largest, f64::max);
        let there = indices.iter().copied().zip(errors).filter(|&(item, _)| place[item] != NONE);
        match order {
            Order::Tree(tree) => tree.set(there.map(|(item, error)| (item, config.priority(error)))),
            Order::Ranks(ranks) => there.for_each(|(item, error)| ranks.set(item, error)),
        }
        Ok(())
    }

    /// Writes everything into `snapshot`.
    pub fn save(&self, snapshot: &mut Snapshot) {
        let (numbers, changes): (Vec<f64>, _) = match &self.order {
            Order::Tree(tree) => (self.items.iter().map(|&i| tree.get(i)).collect(), 0),
            Order::Ranks(ranks) => (ranks.items().iter().map(|&i| ranks.error(i)).collect(), ranks.changes()),
        };
        let array = |items: &[usize]| Array::new(&[items.len()], &items.iter().map(|&i| i as u64).collect::<Vec<_>>());
        snapshot.put("priorities.largest", &self.largest);
        snapshot.put("priorities.changes", &changes);
        snapshot.arrays.insert("priorities.items".into(), array(&self.items));
        snapshot.arrays.insert("priorities.numbers".into(), Array::new(&[numbers.len()], &numbers));
        if let Order::Ranks(ranks) = &self.order {
            snapshot.arrays.insert("priorities.heap".into(), array(ranks.items()));
        }
    }

    /// Takes what [`save`](Self::save) wrote; must be as new.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing, damaged or of another memory.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        let wrong = |what: &str| Error::checkpoint("priorities", what);
        let capacity = self.place.len();
        let items = |key: &str| -> Result<Vec<usize>> {
            let items = snapshot.array(key)?.values::<u64>().ok_or_else(|| wrong("of another type"))?;
            let items: Vec<usize> = items.into_iter().map(|i| i as usize).collect();
            let mut seen = vec![false; capacity];
            let fits = items.iter().all(|&i| i < capacity && !std::mem::replace(&mut seen[i], true));
            if fits { Ok(items) } else { Err(wrong("of another memory")) }
        };
        self.items = items("priorities.items")?;
        self.items.iter().enumerate().for_each(|(place, &item)| self.place[item] = place);
        self.largest = snapshot.get("priorities.largest")?;
        let numbers = snapshot.array("priorities.numbers")?.values::<f64>().ok_or_else(|| wrong("of another type"))?;
        if numbers.len() != self.items.len() || !numbers.iter().all(|n| *n >= 0.0 && n.is_finite()) {
            return Err(wrong("holds what is no priority"));
        }
        match &mut self.order {
            Order::Tree(tree) => tree.set(self.items.iter().copied().zip(numbers)),
            Order::Ranks(ranks) => {
                let heap = items("priorities.heap")?;
                if heap.len() != numbers.len() {
                    return Err(wrong("of another memory"));
                }
                ranks.restore_from(&heap, &numbers, snapshot.get("priorities.changes")?);
            }
        }
        Ok(())
    }

    fn mix(&self, uniform: f64, prioritized: f64) -> f64 {
        let share = self.config.uniform_share;
        share * uniform + (1.0 - share) * prioritized
    }

    fn smallest_probability(&self) -> f64 {
        let uniform = 1.0 / self.len() as f64;
        match &self.order {
            Order::Tree(tree) => tree.smallest().map_or(uniform, |p| self.mix(uniform, p / tree.total())),
            Order::Ranks(ranks) => self.mix(uniform, ranks.smallest()),
        }
    }
}

impl PriorityConfig {
    fn priority(&self, error: f64) -> f64 {
        (error + self.epsilon).powf(self.exponent)
    }
}
