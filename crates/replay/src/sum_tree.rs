//! A sum tree over priorities: sampling an item with probability proportional to its priority takes log₂ n steps, and so does
//! an update.
//!
//! ```text
//!            1: a+b+c+d            node i has children 2i and 2i+1; node 0 is not used
//!       2: a+b       3: c+d
//!      4: a  5: b   6: c  7: d     leaves are nodes `leaves..2·leaves`, a power of two
//! ```
//!
//! Sums are `f64`, and a parent is always recomputed from its children, so that no rounding error accumulates. In `f32`, sums
//! over a million priorities are so coarse that items of priority 0 are sampled.
//!
//! Each node also holds the smallest priority below it, which determines the largest importance weight.

/// Non-negative priorities of a fixed number of items, with their sum and the smallest above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct SumTree {
    nodes: Vec<Node>,
    leaves: usize,
    items: usize,
    /// The nodes above changed priorities, on one level: a reused buffer.
    path: Vec<usize>,
}

/// A node and its sibling are in one cache line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(align(16))]
struct Node {
    sum: f64,
    /// The smallest priority above 0; infinite where there is none.
    min: f64,
}

impl Node {
    const EMPTY: Self = Self { sum: 0.0, min: f64::INFINITY };

    fn leaf(priority: f64) -> Self {
        Self { sum: priority, min: if priority > 0.0 { priority } else { f64::INFINITY } }
    }
}

impl SumTree {
    /// `items` items of priority 0.
    pub fn new(items: usize) -> Self {
        let leaves = items.next_power_of_two();
        Self { nodes: vec![Node::EMPTY; 2 * leaves], leaves, items, path: Vec::new() }
    }

    /// The sum of all priorities.
    pub fn total(&self) -> f64 {
        self.nodes[1].sum
    }

    /// The smallest priority above 0, or `None` where there is none.
    pub fn smallest(&self) -> Option<f64> {
        Some(self.nodes[1].min).filter(|min| min.is_finite())
    }

    /// An item's priority.
    pub fn get(&self, item: usize) -> f64 {
        self.nodes[self.leaves + item].sum
    }

    /// Sets the priorities of `items`; for a repeated item the last one counts. Every node above them is updated once.
    ///
    /// # Panics
    /// If a priority is negative or not finite: the caller must check it.
    pub fn set(&mut self, items: impl IntoIterator<Item = (usize, f64)>) {
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        for (item, priority) in items {
            assert!(item < self.items && priority >= 0.0 && priority.is_finite(), "priority {priority} of item {item}");
            self.nodes[self.leaves + item] = Node::leaf(priority);
            path.push((self.leaves + item) / 2);
        }
        path.sort_unstable();
        while path.first().is_some_and(|&node| node > 0) {
            path.dedup();
            for node in &mut path {
                let (left, right) = (self.nodes[2 * *node], self.nodes[2 * *node + 1]);
                self.nodes[*node] = Node { sum: left.sum + right.sum, min: left.min.min(right.min) };
                *node /= 2;
            }
        }
        self.path = path;
    }

    /// The item whose interval of the cumulative sum contains `position`, `0 ≤ position <` [`total`](Self::total). It never has
    /// priority 0.
    ///
    /// # Panics
    /// If every priority is 0.
    pub fn find(&self, position: f64) -> usize {
        assert!(self.total() > 0.0, "every priority is 0");
        let (mut node, mut position) = (1, position);
        while node < self.leaves {
            let (left, right) = (self.nodes[2 * node].sum, self.nodes[2 * node + 1].sum);
            // Rounding may leave `position` at or beyond the left sum where the right one is 0.
            if position < left || right == 0.0 {
                node *= 2;
            } else {
                position -= left;
                node = 2 * node + 1;
            }
        }
        node - self.leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow definition of [`SumTree::find`].
    fn oracle(priorities: &[f64], mut position: f64) -> usize {
        for (item, &p) in priorities.iter().enumerate() {
            if position < p {
                return item;
            }
            position -= p;
        }
        priorities.iter().rposition(|&p| p > 0.0).unwrap()
    }

    proptest! {
        /// Integers, so that both sides are exact.
        #[test]
        fn equals_the_list_under_random_changes(
            items in 1_usize..70,
            changes in prop::collection::vec((0_usize..1000, 0_u32..5), 1..100),
            samples in prop::collection::vec(0.0_f64..1.0, 20),
        ) {
            let (mut tree, mut list) = (SumTree::new(items), vec![0.0; items]);
            for (item, priority) in changes {
                let pair = [(item % items, f64::from(priority)), ((item / 7) % items, f64::from(4 - priority))];
                tree.set(pair);
                pair.iter().for_each(|&(item, priority)| list[item] = priority);
                prop_assert_eq!(tree.total(), list.iter().sum::<f64>());
                prop_assert_eq!(tree.smallest(), list.iter().copied().filter(|p| *p > 0.0).reduce(f64::min));
            }
            if tree.total() > 0.0 {
                for sample in samples {
                    let position = (sample * tree.total()).floor();
                    prop_assert_eq!(tree.find(position), oracle(&list, position));
                }
            }
        }

        /// An item of priority 0 is never sampled, whatever the rounding.
        #[test]
        fn items_of_priority_0_are_never_sampled(
            priorities in prop::collection::vec(prop_oneof![Just(0.0), 1e-12..1e12_f64], 2..300),
            sample in 0.0_f64..=1.0,
        ) {
            let mut tree = SumTree::new(priorities.len());
            tree.set(priorities.iter().copied().enumerate());
            if tree.total() > 0.0 {
                prop_assert!(tree.get(tree.find(sample * tree.total())) > 0.0);
            }
        }
    }

    #[test]
    #[should_panic(expected = "priority NaN of item 1")]
    fn a_priority_of_nan_is_refused() {
        SumTree::new(3).set([(1, f64::NAN)]);
    }
}
