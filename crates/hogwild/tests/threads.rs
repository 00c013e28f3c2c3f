//! The sharing on real threads; every interleaving of two is tried by `model.rs`.
#![cfg(not(loom))]

use playfield_hogwild::{Shared, Sharing, Stripe};
use std::thread;

/// Stripes cover the buffer once, from wherever one begins, with the statistics of the same numbers.
#[test]
fn every_number_is_visited_once() {
    for (sharing, share) in [Sharing::Lock, Sharing::Atomic].into_iter().flat_map(|s| [0.0, 0.3, 0.99].map(|x| (s, x)))
    {
        let numbers: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let shared = Shared::new(sharing, 4, &numbers, &numbers.iter().map(|x| -x).collect::<Vec<_>>(), &[]);
        let mut starts = Vec::new();
        shared.update(share, |Stripe { start, params, square, mean }| {
            assert_eq!(params, &numbers[start..start + params.len()]);
            assert!(mean.is_empty());
            params.iter_mut().zip(&mut *square).for_each(|(p, s)| (*p, *s) = (*p + 100.0, *s - 100.0));
            starts.push((start, params.len()));
        });
        starts.sort_unstable();
        assert_eq!(starts, [(0, 4), (4, 4), (8, 2)]);
        let [params, square, mean] = shared.copy();
        assert_eq!(params, numbers.iter().map(|x| x + 100.0).collect::<Vec<_>>());
        assert_eq!(square, numbers.iter().map(|x| -x - 100.0).collect::<Vec<_>>());
        assert!(mean.is_empty());
        shared.read(|start, seen| assert_eq!(seen, &params[start..start + seen.len()]));
    }
}

/// Behind locks eight threads lose nothing.
#[test]
fn locks_lose_no_update() {
    let shared = Shared::new(Sharing::Lock, 64, &[0.0; 1000], &[], &[]);
    thread::scope(|scope| {
        for i in 0..8 {
            let shared = &shared;
            scope.spawn(move || {
                for _ in 0..500 {
                    shared.update(f64::from(i) / 8.0, |s| s.params.iter_mut().for_each(|p| *p += 1.0));
                }
            });
        }
    });
    assert_eq!(shared.copy()[0], [4000.0; 1000]);
}

/// A thread that dies inside a stripe leaves the others at work.
#[test]
fn a_dead_thread_locks_nobody_out() {
    let shared = Shared::new(Sharing::Lock, 2, &[1.0; 4], &[], &[]);
    let died = thread::scope(|scope| scope.spawn(|| shared.update(0.0, |_| panic!("dies here"))).join().is_err());
    shared.update(0.0, |s| s.params.fill(2.0));
    assert!(died && shared.copy()[0] == [2.0; 4]);
}
