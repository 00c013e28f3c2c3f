//! Prioritized sampling (Schaul et al. 2016, *Prioritized Experience Replay*, section 3.3), proportional or rank-based.
//!
//! Transition i is sampled with probability P(i) = pᵢ^α / Σ p^α. Proportional: pᵢ = |δᵢ| + ε, with the TD error δᵢ of its last
//! update. Rank-based: pᵢ = 1/rank(i) among all |δ|, which is robust to outliers. A new transition gets the largest |δ| so far,
//! so that it is sampled soon. Importance weights wᵢ = (N · P(i))^−β correct the change of distribution; they are divided by the
//! largest, so that a weight never exceeds 1.
//!
//! A small fraction of samples is uniform (10⁻³ as in DQN Zoo), so that transitions with a small priority are sampled, too.

use crate::ranks::Ranks;
use crate::{Changes, SumTree};
use playfield_core::rng::Rng;
use playfield_core::{Array, Error, Result, Snapshot};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// The settings of prioritized sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriorityConfig {
    /// The kind of priority.
    pub by: PriorityKind,
    /// α: 0 is uniform, 1 proportional to |δ| (or to 1/rank).
    pub exponent: f64,
    /// Added to |δ|, so that no probability is 0.
    pub epsilon: f64,
    /// The fraction of samples that are uniform.
    pub uniform_share: f64,
    /// The transitions whose largest importance weight is 1.
    pub largest_weight_of: LargestOf,
    /// Whether a batch is stratified, with one sample from each of `batch_size` segments of equal probability (the paper, section
    /// 3.3 and appendix B.2.1), or its samples are independent (DQN Zoo).
    pub stratified: bool,
}

/// The kind of priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriorityKind {
    /// Proportional to the absolute TD error.
    #[default]
    Error,
    /// By the rank of the absolute TD error.
    Rank,
}

/// The transitions whose largest importance weight is scaled to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LargestOf {
    /// The sampled batch (DQN Zoo, Dopamine): the scale of an update varies from batch to batch.
    #[default]
    Batch,
    /// All transitions in the buffer (OpenAI Baselines): a constant scale, and smaller updates.
    Buffer,
}

impl Default for PriorityConfig {
    /// Proportional, as in the paper and DQN Zoo.
    fn default() -> Self {
        let (by, largest_weight_of) = (PriorityKind::default(), LargestOf::default());
        Self { by, exponent: 0.6, epsilon: 1e-6, uniform_share: 1e-3, largest_weight_of, stratified: false }
    }
}

/// The priorities of the transitions in a replay buffer, by index.
#[derive(Clone, Debug)]
pub struct Prioritized {
    config: PriorityConfig,
    order: Order,
    /// The transitions that can be sampled, for the uniform fraction.
    items: Vec<usize>,
    /// The position of each transition in `items`.
    place: Vec<usize>,
    /// The largest |δ| so far.
    largest: f64,
}

#[derive(Clone, Debug)]
enum Order {
    Tree(SumTree),
    Ranks(Ranks),
}

/// The place of a transition that cannot be sampled.
const NONE: usize = usize::MAX;

impl Prioritized {
    /// For a replay buffer of `capacity` slots.
    ///
    /// # Errors
    /// [`Error::Config`] for invalid settings.
    pub fn new(config: PriorityConfig, capacity: usize) -> Result<Self> {
        let wrong = |what: &str| Err(Error::config(format!("prioritized replay: {what}")));
        let order = match config.by {
            PriorityKind::Error => Order::Tree(SumTree::new(capacity)),
            PriorityKind::Rank => Order::Ranks(Ranks::new(capacity, config.exponent)),
        };
        match &config {
            c if !(0.0..=2.0).contains(&c.exponent) => wrong("`exponent` must lie between 0 and 2"),
            c if !(c.epsilon >= 0.0 && c.epsilon.is_finite()) => wrong("`epsilon` must not be negative"),
            c if !(0.0..=1.0).contains(&c.uniform_share) => wrong("`uniform_share` must lie between 0 and 1"),
            _ => Ok(Self { config, order, items: Vec::new(), place: vec![NONE; capacity], largest: 1.0 }),
        }
    }

    /// The number of transitions that can be sampled.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether no transition can be sampled.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The transitions that can be sampled, by index, in no particular order.
    pub fn items(&self) -> &[usize] {
        &self.items
    }

    /// Applies the changes of a replay buffer: added transitions get the largest priority so far.
    pub fn apply(&mut self, changes: &Changes) {
        for &item in &changes.removed {
            let place = std::mem::replace(&mut self.place[item], NONE);
            self.items.swap_remove(place);
            if let Some(&moved) = self.items.get(place) {
                self.place[moved] = place;
            }
        }
        for &item in &changes.added {
            self.place[item] = self.items.len();
            self.items.push(item);
        }
        let (largest, priority) = (self.largest, self.config.priority(self.largest));
        match &mut self.order {
            Order::Tree(tree) => {
                let added = changes.added.iter().map(|&item| (item, priority));
                tree.set(changes.removed.iter().map(|&item| (item, 0.0)).chain(added));
            }
            Order::Ranks(ranks) => {
                changes.removed.iter().for_each(|&item| ranks.remove(item));
                changes.added.iter().for_each(|&item| ranks.set(item, largest));
            }
        }
    }

    /// The probability of transition `item` in one sample.
    pub fn probability(&self, item: usize) -> f64 {
        let uniform = if self.place[item] == NONE { 0.0 } else { 1.0 / self.len() as f64 };
        let prioritized = match &self.order {
            Order::Tree(tree) if tree.total() == 0.0 => return uniform,
            Order::Tree(tree) => tree.get(item) / tree.total(),
            Order::Ranks(ranks) => ranks.probability(item),
        };
        self.mix(uniform, prioritized)
    }

    /// Samples the indices of `indices.len()` transitions, with replacement, [stratified](PriorityConfig::stratified) or
    /// independently, and their importance weights for `beta`.
    ///
    /// # Panics
    /// If no transition can be sampled: a bug of the caller.
    pub fn sample(&self, rng: &mut Rng, beta: f64, indices: &mut [usize], weights: &mut [f32]) {
        assert!(!self.is_empty(), "the replay buffer is empty");
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
            LargestOf::Buffer => weight(self.smallest_probability()),
        };
        for (w, &i) in weights.iter_mut().zip(indices.iter()) {
            *w = (weight(self.probability(i)) / largest) as f32;
        }
    }

    /// Sets the priorities of sampled transitions from the TD errors δ of an update. Transitions that have been overwritten since
    /// they were sampled are skipped.
    ///
    /// # Errors
    /// [`Error::Diverged`] for an error that is not finite: no priority is changed then.
    pub fn update(&mut self, indices: &[usize], errors: &[f32]) -> Result<()> {
        if let Some(error) = errors.iter().find(|e| !e.is_finite()) {
            return Err(Error::Diverged(format!("a temporal-difference error is {error}")));
        }
        let Self { config, order, place, largest, .. } = self;
        let errors = errors.iter().map(|e| f64::from(e.abs()));
        *largest = errors.clone().fold(*largest, f64::max);
        let present = indices.iter().copied().zip(errors).filter(|&(item, _)| place[item] != NONE);
        match order {
            Order::Tree(tree) => tree.set(present.map(|(item, error)| (item, config.priority(error)))),
            Order::Ranks(ranks) => present.for_each(|(item, error)| ranks.set(item, error)),
        }
        Ok(())
    }

    /// Saves the priorities into `snapshot`.
    pub fn save(&self, snapshot: &mut Snapshot) {
        let (values, changes): (Vec<f64>, _) = match &self.order {
            Order::Tree(tree) => (self.items.iter().map(|&i| tree.get(i)).collect(), 0),
            Order::Ranks(ranks) => (ranks.items().iter().map(|&i| ranks.error(i)).collect(), ranks.changes()),
        };
        let array = |items: &[usize]| Array::new(&[items.len()], &items.iter().map(|&i| i as u64).collect::<Vec<_>>());
        snapshot.put("priorities.largest", &self.largest);
        snapshot.put("priorities.changes", &changes);
        snapshot.arrays.insert("priorities.items".into(), array(&self.items));
        snapshot.arrays.insert("priorities.values".into(), Array::new(&[values.len()], &values));
        if let Order::Ranks(ranks) = &self.order {
            snapshot.arrays.insert("priorities.heap".into(), array(ranks.items()));
        }
    }

    /// Restores [`save`](Self::save) into a new instance.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing, damaged or of another buffer.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        let wrong = |what: &str| Error::checkpoint("priorities", what);
        let capacity = self.place.len();
        let items = |key: &str| -> Result<Vec<usize>> {
            let items = snapshot.array(key)?.values::<u64>().ok_or_else(|| wrong("of another type"))?;
            let items: Vec<usize> = items.into_iter().map(|i| i as usize).collect();
            let mut seen = vec![false; capacity];
            let fits = items.iter().all(|&i| i < capacity && !std::mem::replace(&mut seen[i], true));
            if fits { Ok(items) } else { Err(wrong("of another replay buffer")) }
        };
        self.items = items("priorities.items")?;
        self.items.iter().enumerate().for_each(|(place, &item)| self.place[item] = place);
        self.largest = snapshot.get("priorities.largest")?;
        if !(self.largest >= 0.0 && self.largest.is_finite()) {
            return Err(wrong("contains an invalid largest error"));
        }
        let values = snapshot.array("priorities.values")?.values::<f64>().ok_or_else(|| wrong("of another type"))?;
        let is_valid = values.iter().all(|n| *n >= 0.0) && values.iter().sum::<f64>().is_finite();
        if values.len() != self.items.len() || !is_valid {
            return Err(wrong("contains an invalid priority"));
        }
        match &mut self.order {
            Order::Tree(tree) => tree.set(self.items.iter().copied().zip(values)),
            Order::Ranks(ranks) => {
                let heap = items("priorities.heap")?;
                if heap.len() != values.len() {
                    return Err(wrong("of another replay buffer"));
                }
                ranks.restore_from(&heap, &values, snapshot.get("priorities.changes")?);
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
