//! The loader: composition of batches.

use playfield_core::rng::stream;
use playfield_tricks::loader::{Loader, Shuffle};
use proptest::prelude::*;
use std::collections::BTreeSet;

const EPOCHS: usize = 6;

fn epochs(rows: usize, batch_size: usize, shuffle: Shuffle, seed: u64) -> Vec<Vec<Vec<usize>>> {
    let mut loader = Loader::new(rows, batch_size, shuffle, stream(seed, "loader")).unwrap();
    (0..EPOCHS).map(|_| loader.epoch()).collect()
}

fn sets(epoch: &[Vec<usize>]) -> BTreeSet<BTreeSet<usize>> {
    epoch.iter().map(|batch| batch.iter().copied().collect()).collect()
}

proptest! {
    /// In every mode an epoch contains each row exactly once, and no batch exceeds the batch size.
    #[test]
    fn an_epoch_contains_every_row_once(rows in 1_usize..200, batch in 1_usize..40, mode in 0..3, shard in 1_usize..50, seed: u64) {
        let shuffle = [Shuffle::Thorough, Shuffle::WithinShards { shard }, Shuffle::Never][mode as usize];
        for epoch in epochs(rows, batch, shuffle, seed) {
            let mut all = epoch.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..rows).collect::<Vec<_>>());
            prop_assert!(epoch.iter().all(|b| (1..=batch).contains(&b.len())));
        }
    }

    /// With thorough shuffling no two epochs share a batch, even for 15 rows in batches of 3, where six independent shuffles
    /// probably repeat one.
    #[test]
    fn no_two_epochs_share_a_batch(batches in 5_usize..12, batch in 3_usize..20, seed: u64) {
        let epochs = epochs(batches * batch, batch, Shuffle::Thorough, seed);
        for (i, a) in epochs.iter().enumerate().skip(1) {
            for b in &epochs[..i] {
                prop_assert!(sets(a).is_disjoint(&sets(b)));
            }
        }
    }

    /// A batch contains rows of a single shard.
    #[test]
    fn batches_stay_within_shards(shards in 1_usize..8, shard in 2_usize..30, batch in 2_usize..16, seed: u64) {
        for epoch in epochs(shards * shard, batch, Shuffle::WithinShards { shard }, seed) {
            for batch in epoch {
                let first = batch[0] / shard;
                prop_assert!(batch.iter().all(|row| row / shard == first), "{:?}", batch);
            }
        }
    }
}

/// Without shuffling the batches are the same each epoch, in another order.
#[test]
fn unshuffled_batches_repeat() {
    let epochs = epochs(100, 10, Shuffle::Never, 1);
    assert!(epochs.iter().all(|epoch| sets(epoch) == sets(&epochs[0])));
    assert_ne!(epochs[0], epochs[1]);
}

#[test]
fn equal_seeds_give_equal_orders() {
    assert_eq!(epochs(50, 7, Shuffle::Thorough, 3), epochs(50, 7, Shuffle::Thorough, 3));
    assert_ne!(epochs(50, 7, Shuffle::Thorough, 3), epochs(50, 7, Shuffle::Thorough, 4));
}

#[test]
fn an_empty_loader_is_an_error() {
    let shard = Shuffle::WithinShards { shard: 0 };
    for (rows, batch, shuffle, what) in
        [(0, 1, Shuffle::Never, "rows"), (1, 0, Shuffle::Thorough, "batch_size"), (1, 1, shard, "shard")]
    {
        let refusal = Loader::new(rows, batch, shuffle, stream(1, "loader")).unwrap_err().to_string();
        assert!(refusal.contains(what) && refusal.contains("at least 1"), "{refusal}");
    }
}
