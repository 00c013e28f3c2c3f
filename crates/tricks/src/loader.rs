//! Batches of examples in random order.
//!
//! With batch norm the output for an example depends on the other examples of its batch. Repeated batches always give the same
//! normalization. Ioffe and Szegedy (2015, section 4.2.1) therefore shuffle thoroughly and report about 1 % higher validation
//! accuracy. Stochastic gradient descent also assumes independent samples, and repeated batches are not independent.

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::seq::SliceRandom;
use std::collections::HashSet;

/// Composition of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// All examples are shuffled and no batch repeats: see [`Loader::epoch`].
    Thorough,
    /// The rows of one shard, as of one file that is read at a time: rows `0..shard`, `shard..2·shard`, and so on. Rows are
    /// shuffled within each shard, and shards among each other.
    WithinShards {
        /// Rows of a shard.
        shard: usize,
    },
    /// Batches of consecutive rows, the same in every epoch, in random order. For comparison.
    Never,
}

/// Splits the examples of a data set into batches.
#[derive(Clone, Debug)]
pub struct Loader {
    rows: usize,
    batch_size: usize,
    shuffle: Shuffle,
    rng: Rng,
    /// The batches of past epochs, each sorted.
    seen: HashSet<Vec<usize>>,
}

/// Number of shuffles tried before an epoch may repeat an earlier batch.
const MAX_SHUFFLES: usize = 100;

impl Loader {
    /// Splits `rows` examples into batches of `batch_size`.
    ///
    /// # Errors
    /// [`Error::Config`] if the number of rows, the batch size or the shard size is 0.
    pub fn new(rows: usize, batch_size: usize, shuffle: Shuffle, rng: Rng) -> Result<Self> {
        let counts = [("rows", rows), ("batch_size", batch_size)];
        let shard = if let Shuffle::WithinShards { shard } = shuffle { Some(("shard", shard)) } else { None };
        if let Some((what, _)) = counts.into_iter().chain(shard).find(|(_, count)| *count == 0) {
            return Err(Error::config(format!("a loader with {what} = 0: it must be at least 1")));
        }
        Ok(Self { rows, batch_size, shuffle, rng, seen: HashSet::new() })
    }

    /// One epoch: every row exactly once, in batches of `batch_size` (the last of an epoch, or of a shard, may be smaller).
    ///
    /// With [`Shuffle::Thorough`] no batch has the same rows as a batch of an earlier epoch. If a hundred shuffles of a small data
    /// set find no such epoch, the last shuffle is used. Batches of one row or of all rows always repeat.
    pub fn epoch(&mut self) -> Vec<Vec<usize>> {
        match self.shuffle {
            Shuffle::Thorough => self.new_batches(),
            Shuffle::WithinShards { shard } => {
                let mut shards: Vec<Vec<usize>> = chunks(&(0..self.rows).collect::<Vec<_>>(), shard);
                shards.shuffle(&mut self.rng);
                shards.iter_mut().for_each(|rows| rows.shuffle(&mut self.rng));
                shards.iter().flat_map(|rows| chunks(rows, self.batch_size)).collect()
            }
            Shuffle::Never => {
                let mut batches = chunks(&(0..self.rows).collect::<Vec<_>>(), self.batch_size);
                batches.shuffle(&mut self.rng);
                batches
            }
        }
    }

    fn new_batches(&mut self) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.rows).collect();
        let can_be_new = self.batch_size > 1 && self.batch_size < self.rows;
        for _ in 0..MAX_SHUFFLES {
            order.shuffle(&mut self.rng);
            let sorted = || {
                order.chunks(self.batch_size).map(|batch| {
                    let mut batch = batch.to_vec();
                    batch.sort_unstable();
                    batch
                })
            };
            if !can_be_new || !sorted().any(|batch| self.seen.contains(&batch)) {
                if can_be_new {
                    self.seen.extend(sorted().collect::<Vec<_>>());
                }
                break;
            }
        }
        chunks(&order, self.batch_size)
    }
}

fn chunks(rows: &[usize], size: usize) -> Vec<Vec<usize>> {
    rows.chunks(size).map(<[usize]>::to_vec).collect()
}
