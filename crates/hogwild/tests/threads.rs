//! Real threads; `model.rs` checks every interleaving of two.
#![cfg(not(loom))]

use playfield_hogwild::{Shared, Sharing, Stripe};
use std::thread;

/// Stripes cover the buffer once from any starting position, with the state of the same elements.
#[test]
fn every_element_is_visited_once() {
    for (sharing, position) in
        [Sharing::Lock, Sharing::Atomic].into_iter().flat_map(|s| [0.0, 0.3, 0.99].map(|x| (s, x)))
    {
        let values: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let shared = Shared::new(sharing, 4, &values, &values.iter().map(|x| -x).collect::<Vec<_>>(), &[]);
        let mut starts = Vec::new();
        shared.update(position, |Stripe { start, params, state: [square, mean] }| {
            assert_eq!(params, &values[start..start + params.len()]);
            assert!(mean.is_empty());
            params.iter_mut().zip(&mut *square).for_each(|(p, s)| (*p, *s) = (*p + 100.0, *s - 100.0));
            starts.push((start, params.len()));
        });
        starts.sort_unstable();
        assert_eq!(starts, [(0, 4), (4, 4), (8, 2)]);
        let [params, square, mean] = shared.copy();
        assert_eq!(params, values.iter().map(|x| x + 100.0).collect::<Vec<_>>());
        assert_eq!(square, values.iter().map(|x| -x - 100.0).collect::<Vec<_>>());
        assert!(mean.is_empty());
        shared.read(|start, stripe| assert_eq!(stripe, &params[start..start + stripe.len()]));
    }
}

/// With locks eight threads lose no update.
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

/// A panic inside a stripe leaves it usable for other threads.
#[test]
fn a_panic_does_not_poison_a_stripe() {
    let shared = Shared::new(Sharing::Lock, 2, &[1.0; 4], &[], &[]);
    let panicked =
        thread::scope(|scope| scope.spawn(|| shared.update(0.0, |_| panic!("inside a stripe"))).join().is_err());
    shared.update(0.0, |s| s.params.fill(2.0));
    assert!(panicked && shared.copy()[0] == [2.0; 4]);
}
