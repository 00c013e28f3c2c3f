//! A tree of sums over priorities: drawing an item in proportion to its priority takes log₂ n steps, and so does a change.
//!
//! ```text
//!            1: a+b+c+d            node i has children 2i and 2i+1; node 0 is not used
//!       2: a+b       3: c+d
//!      4: a  5: b   6: c  7: d     leaves stand at `leaves..2·leaves`, a power of two
//! ```
//!
//! Sums are `f64`, and a parent is always the sum of its children, computed anew: nothing drifts. In `f32`, sums over a
//! million priorities are so coarse that a draw ends at items of priority 0.

/// Priorities of a fixed number of items, not negative, with their sum.
#[derive(Clone, Debug, PartialEq)]
pub struct SumTree {
    nodes: Vec<f64>,
    leaves: usize,
    items: usize,
}

impl SumTree {
    /// `items` items of priority 0.
    pub fn new(items: usize) -> Self {
        let leaves = items.next_power_of_two();
        Self { nodes: vec![0.0; 2 * leaves], leaves, items }
    }

    /// How many items.
    pub fn len(&self) -> usize {
        self.items
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// The sum of all priorities.
    pub fn total(&self) -> f64 {
        self.nodes[1]
    }

    /// An item's priority.
    pub fn get(&self, item: usize) -> f64 {
        self.nodes[self.leaves + item]
    }

    /// Changes one priority.
    ///
    /// # Panics
    /// If the priority is negative or not finite: who takes priorities from outside checks them first.
    pub fn set(&mut self, item: usize, priority: f64) {
        assert!(item < self.items && priority >= 0.0 && priority.is_finite(), "priority {priority} of item {item}");
        let mut node = self.leaves + item;
        self.nodes[node] = priority;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1];
        }
    }

    /// The item at `position` of the priorities laid end to end, `0 ≤ position <` [`total`](Self::total). Items of
    /// priority 0 are never found.
    ///
    /// # Panics
    /// If every priority is 0.
    pub fn find(&self, position: f64) -> usize {
        assert!(self.total() > 0.0, "a draw from nothing");
        let (mut node, mut position) = (1, position);
        while node < self.leaves {
            let (left, right) = (self.nodes[2 * node], self.nodes[2 * node + 1]);
            // Rounding may leave a position at or beyond the left sum where the right one is 0.
            if position < left || right == 0.0 {
                node *= 2;
            } else {
                position -= left;
                node = 2 * node + 1;
            }
        }
        node - self.leaves
    }

    /// The smallest priority above 0, or `None` where there is none. Visits every item.
    pub fn smallest(&self) -> Option<f64> {
        let priorities = &self.nodes[self.leaves..self.leaves + self.items];
        priorities.iter().copied().filter(|&p| p > 0.0).reduce(f64::min)
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
        /// Whole numbers, so that both sides are exact.
        #[test]
        fn equals_the_list_under_random_changes(
            items in 1_usize..70,
            changes in prop::collection::vec((0_usize..1000, 0_u32..5), 1..100),
            draws in prop::collection::vec(0.0_f64..1.0, 20),
        ) {
            let (mut tree, mut list) = (SumTree::new(items), vec![0.0; items]);
            for (item, priority) in changes {
                tree.set(item % items, f64::from(priority));
                list[item % items] = f64::from(priority);
                prop_assert_eq!(tree.total(), list.iter().sum::<f64>());
                prop_assert_eq!(tree.smallest(), list.iter().copied().filter(|p| *p > 0.0).reduce(f64::min));
            }
            if tree.total() > 0.0 {
                for draw in draws {
                    let position = (draw * tree.total()).floor();
                    prop_assert_eq!(tree.find(position), oracle(&list, position));
                }
            }
        }

        /// Whatever the rounding, an item of priority 0 is never drawn.
        #[test]
        fn items_of_priority_0_are_never_found(
            priorities in prop::collection::vec(prop_oneof![Just(0.0), 1e-12..1e12_f64], 2..300),
            draw in 0.0_f64..=1.0,
        ) {
            let mut tree = SumTree::new(priorities.len());
            for (item, p) in priorities.iter().enumerate() {
                tree.set(item, *p);
            }
            if tree.total() > 0.0 {
                prop_assert!(tree.get(tree.find(draw * tree.total())) > 0.0);
            }
        }
    }

    #[test]
    #[should_panic(expected = "priority NaN of item 1")]
    fn a_priority_that_is_no_number_is_refused() {
        SumTree::new(3).set(1, f64::NAN);
    }
}
