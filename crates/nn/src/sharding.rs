//! Splits a batch among threads.
//!
//! libtorch can parallelize within each operation. On networks as small as Atari's, threads then synchronize some hundred times an
//! update, and the cores wait longer than they compute. Here each thread computes some elements of the batch from end to end, every
//! operation on one core, and threads synchronize once a pass.
//!
//! A new thread must be told so: without it, libtorch's operations there start a team of OpenMP threads each, which spin while they wait for
//! each other. On a busy machine one of them is often not running, and an update takes up to 40 times as long.
//!
//! All threads read the same parameters, in the same memory ([`Params::shallow_clone`](crate::Params::shallow_clone)); each has its own
//! gradient, and the optimizer steps by their sum
//! ([`Optimizer::step_sharded`](crate::optim::Optimizer::step_sharded)).

use rayon::{ThreadPool, ThreadPoolBuilder};
use std::ops::Range;

/// What each thread beside the caller's works with, and these threads.
#[derive(Debug)]
pub struct Shards<S> {
    shards: Vec<S>,
    pool: Option<ThreadPool>,
}

/// Makes every operation of libtorch on the calling thread use one core. OpenMP keeps this number for each thread.
pub fn use_one_core() {
    tch::set_num_threads(1);
}

impl<S: Send> Shards<S> {
    /// One thread for each of `shards`, kept alive; none where there are none.
    ///
    /// # Panics
    /// If the operating system refuses a thread.
    pub fn new(shards: Vec<S>) -> Self {
        let builder = ThreadPoolBuilder::new().num_threads(shards.len()).start_handler(|_| use_one_core());
        let pool = || builder.build().expect("threads");
        Self { pool: (!shards.is_empty()).then(pool), shards }
    }

    /// Runs `own` on the calling thread, and `other` on each of the first `count` shards, with its index from 0, on another thread
    /// at the same time.
    ///
    /// # Panics
    /// If one of them does.
    pub fn run(&mut self, count: usize, own: impl FnOnce(), other: impl Fn(usize, &mut S) + Sync) {
        match &self.pool {
            Some(pool) if count > 0 => pool.in_place_scope(|scope| {
                for (i, shard) in self.shards.iter_mut().take(count).enumerate() {
                    let other = &other;
                    scope.spawn(move |_| other(i, shard));
                }
                own();
            }),
            _ => own(),
        }
    }

    /// The shards.
    pub fn as_slice(&self) -> &[S] {
        &self.shards
    }

    /// The shards, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [S] {
        &mut self.shards
    }

    /// Removes the last shard.
    pub fn pop(&mut self) -> Option<S> {
        self.shards.pop()
    }
}

/// Contiguous ranges that cover 0 to `n` in `parts` parts, whose sizes differ by at most 1.
pub fn split(n: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |i| i * n / parts..(i + 1) * n / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_batch_evenly() {
        for (n, parts) in [(13, 3), (4, 4), (2, 1), (0, 2)] {
            let ranges: Vec<_> = split(n, parts).collect();
            assert_eq!(ranges.iter().cloned().flatten().collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
            assert!(ranges.iter().all(|r| (n / parts..=n.div_ceil(parts)).contains(&r.len())), "{ranges:?}");
        }
    }

    /// Each of the first shards runs once, on a thread that is not the caller's; the rest do not run.
    #[test]
    fn the_first_shards_run_on_other_threads() {
        let caller = std::thread::current().id();
        let mut shards = Shards::new(vec![0; 3]);
        for count in 0..=3 {
            let mut own = 0;
            shards.as_mut_slice().fill(0);
            shards.run(
                count,
                || own += 1,
                |i, shard| {
                    assert_ne!(std::thread::current().id(), caller);
                    *shard += i + 1;
                },
            );
            assert_eq!(own, 1);
            assert_eq!(shards.as_slice(), &[1, 2, 3].map(|i| if i <= count { i } else { 0 }));
        }
    }
}
