//! Approximate ranks of items by error: a binary heap, read as if it were a sorted array (Schaul et al. 2016, appendix B.2.1).
//! The item at index k of the heap has rank k + 1.
//!
//! A heap only orders parents before children. To keep the ranks approximately correct it is sorted each time that as many
//! errors have changed as there are items.

use std::cmp::Ordering;

/// Up to a fixed number of items, sampled with probability ∝ rank^−α.
#[derive(Clone, Debug)]
pub struct Ranks {
    heap: Vec<usize>,
    /// The index of each item in the heap.
    place: Vec<usize>,
    errors: Vec<f64>,
    /// Σ_{k ≤ r} k^−α for every rank r so far.
    cumulative: Vec<f64>,
    exponent: f64,
    changes: usize,
}

const NONE: usize = usize::MAX;

impl Ranks {
    /// An empty heap of at most `capacity` items; α is `exponent`.
    pub fn new(capacity: usize, exponent: f64) -> Self {
        let (place, errors) = (vec![NONE; capacity], vec![0.0; capacity]);
        Self { heap: Vec::new(), place, errors, cumulative: Vec::new(), exponent, changes: 0 }
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// An item's error.
    pub fn error(&self, item: usize) -> f64 {
        self.errors[item]
    }

    /// Sets the error of an item, and adds the item if it is missing.
    pub fn set(&mut self, item: usize, error: f64) {
        self.errors[item] = error;
        if self.place[item] == NONE {
            self.place[item] = self.heap.len();
            self.heap.push(item);
            let (n, total) = (self.heap.len(), self.cumulative.last().copied().unwrap_or(0.0));
            if n > self.cumulative.len() {
                self.cumulative.push(total + (n as f64).powf(-self.exponent));
            }
        }
        self.restore(self.place[item]);
        self.count_change();
    }

    /// Removes an item.
    ///
    /// # Panics
    /// If it is missing: a bug of the caller.
    pub fn remove(&mut self, item: usize) {
        let place = std::mem::replace(&mut self.place[item], NONE);
        self.heap.swap_remove(place);
        if let Some(&moved) = self.heap.get(place) {
            self.place[moved] = place;
            self.restore(place);
        }
    }

    /// The item whose interval of the cumulative distribution contains `position`, `0 ≤ position < 1`.
    ///
    /// # Panics
    /// If there is no item.
    pub fn find(&self, position: f64) -> usize {
        let ranks = &self.cumulative[..self.len()];
        let reached = position * ranks[ranks.len() - 1];
        self.heap[ranks.partition_point(|&c| c <= reached).min(ranks.len() - 1)]
    }

    /// The probability of an item, 0 if it is missing.
    pub fn probability(&self, item: usize) -> f64 {
        match self.place[item] {
            NONE => 0.0,
            place => self.at_rank(place + 1),
        }
    }

    /// The probability of the last rank: the smallest.
    pub fn smallest(&self) -> f64 {
        self.at_rank(self.len())
    }

    /// The items in the order of the heap, for [`restore_from`](Self::restore_from).
    pub fn items(&self) -> &[usize] {
        &self.heap
    }

    /// Restores saved items, in the order of the heap, and their errors.
    pub fn restore_from(&mut self, items: &[usize], errors: &[f64], changes: usize) {
        for (&item, &error) in items.iter().zip(errors) {
            self.set(item, error);
        }
        // Setting one by one may have ordered equals in another way.
        self.heap.copy_from_slice(items);
        items.iter().enumerate().for_each(|(place, &item)| self.place[item] = place);
        self.changes = changes.min(items.len());
    }

    /// Changes since the heap was last sorted.
    pub fn changes(&self) -> usize {
        self.changes
    }

    fn at_rank(&self, rank: usize) -> f64 {
        (rank as f64).powf(-self.exponent) / self.cumulative[self.len() - 1]
    }

    fn count_change(&mut self) {
        self.changes += 1;
        if self.changes >= self.len() {
            let errors = &self.errors;
            self.heap.sort_unstable_by(|&a, &b| errors[b].total_cmp(&errors[a]).then(a.cmp(&b)));
            self.heap.iter().enumerate().for_each(|(place, &item)| self.place[item] = place);
            self.changes = 0;
        }
    }

    /// Moves the item at `place` up or down until parents are above children again.
    fn restore(&mut self, mut place: usize) {
        while place > 0 && self.above(place, (place - 1) / 2) {
            place = self.swap(place, (place - 1) / 2);
        }
        loop {
            let children = [2 * place + 1, 2 * place + 2].into_iter().filter(|&c| c < self.heap.len());
            let largest = children.reduce(|a, b| if self.above(b, a) { b } else { a });
            match largest.filter(|&child| self.above(child, place)) {
                Some(child) => place = self.swap(place, child),
                None => return,
            }
        }
    }

    fn above(&self, a: usize, b: usize) -> bool {
        self.errors[self.heap[a]].total_cmp(&self.errors[self.heap[b]]) == Ordering::Greater
    }

    fn swap(&mut self, a: usize, b: usize) -> usize {
        self.heap.swap(a, b);
        (self.place[self.heap[a]], self.place[self.heap[b]]) = (a, b);
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// After any changes: parents above children, places right, probabilities that sum to 1; sorted, the ranks are
        /// those of the list.
        #[test]
        fn is_a_heap_and_ranks_are_near_the_sorted_list(
            changes in prop::collection::vec((0_usize..30, 0_u32..9, any::<bool>()), 1..150),
        ) {
            let (mut ranks, mut list) = (Ranks::new(30, 0.7), vec![None; 30]);
            for (item, error, remove) in changes {
                if remove && list[item].is_some() {
                    ranks.remove(item);
                    list[item] = None;
                } else {
                    ranks.set(item, f64::from(error));
                    list[item] = Some(f64::from(error));
                }
                prop_assert_eq!(ranks.len(), list.iter().flatten().count());
                for (place, &item) in ranks.heap.iter().enumerate() {
                    prop_assert_eq!(ranks.place[item], place);
                    prop_assert_eq!(Some(ranks.error(item)), list[item]);
                    prop_assert!(place == 0 || ranks.error(item) <= ranks.error(ranks.heap[(place - 1) / 2]));
                }
                let sum: f64 = (0..30).map(|i| ranks.probability(i)).sum();
                prop_assert!(ranks.len() == 0 || (sum - 1.0).abs() < 1e-12);
            }
            if ranks.len() > 0 {
                ranks.changes = ranks.len();
                ranks.count_change();
                let errors: Vec<f64> = ranks.heap.iter().map(|&i| ranks.error(i)).collect();
                prop_assert!(errors.windows(2).all(|w| w[0] >= w[1]), "{errors:?}");
            }
        }
    }

    /// Three items, α = 1: 1/rank over 1 + ½ + ⅓ = 11/6, once as many changes as items have had it sorted.
    #[test]
    fn probabilities_and_draws_by_hand() {
        let mut ranks = Ranks::new(5, 1.0);
        for (item, error) in [(4, 0.1), (0, 9.0), (2, 5.0), (2, 3.0)] {
            ranks.set(item, error);
        }
        for (item, expected) in [(0, 6.0 / 11.0), (2, 3.0 / 11.0), (4, 2.0 / 11.0), (1, 0.0)] {
            assert!((ranks.probability(item) - expected).abs() < 1e-12, "{item}");
        }
        let found = [0.0, 0.54, 0.55, 0.81, 0.82, 0.999_999].map(|u| ranks.find(u));
        assert_eq!(found, [0, 0, 2, 2, 4, 4]);
        assert!((ranks.smallest() - 2.0 / 11.0).abs() < 1e-12);
        // Sorted by the first change and by the fourth: as many as items since. Now changed once more.
        ranks.set(2, 4.0);
        assert_eq!(ranks.changes(), 1);
        let mut restored = Ranks::new(5, 1.0);
        restored.restore_from(&[0, 2, 4], &[9.0, 3.0, 0.1], 2);
        assert_eq!((restored.items(), restored.changes()), ([0, 2, 4].as_slice(), 2));
    }
}
