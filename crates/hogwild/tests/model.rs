//! Every interleaving of two threads, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p playfield-hogwild --release --target-dir target/loom`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use playfield_hogwild::{Shared, Sharing, Stripe};

/// Two threads add 1 and 10 to each of two stripes of one element, and each copies the results.
fn both_add(sharing: Sharing, check: fn(&[f32], &[f32], &[f32])) {
    loom::model(move || {
        let shared = Arc::new(Shared::new(sharing, 1, &[0.0, 0.0], &[5.0, 5.0], &[]));
        let add = |shared: &Shared, summand: f32, position: f64| {
            let mut copy = vec![0.0; 2];
            shared.update(position, |Stripe { start, params, state }| {
                assert!(state[1].is_empty() && state[0] == [5.0]);
                params[0] += summand;
                copy[start] = params[0];
            });
            copy
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || add(&shared, 10.0, 0.5))
        };
        let (one, ten) = (add(&shared, 1.0, 0.0), other.join().unwrap());
        check(&shared.copy()[0], &one, &ten);
    });
}

/// With locks no update is lost, and a thread copies its own update with or without the other.
#[test]
fn locks_lose_no_update() {
    both_add(Sharing::Lock, |end, one, ten| {
        assert_eq!(end, [11.0, 11.0]);
        assert!(one.iter().all(|x| [1.0, 11.0].contains(x)), "{one:?}");
        assert!(ten.iter().all(|x| [10.0, 11.0].contains(x)), "{ten:?}");
    });
}

/// Without locks one of two concurrent updates may be lost; no other value appears.
#[test]
fn atomics_lose_at_most_one_update() {
    both_add(Sharing::Atomic, |end, one, ten| {
        assert!(end.iter().all(|x| [1.0, 10.0, 11.0].contains(x)), "{end:?}");
        assert!(one.iter().all(|x| [1.0, 11.0].contains(x)), "{one:?}");
        assert!(ten.iter().all(|x| [10.0, 11.0].contains(x)), "{ten:?}");
    });
}

/// The model includes the interleaving that loses an update, so that the test above can fail.
#[test]
#[should_panic(expected = "lost")]
fn the_model_finds_the_lost_update() {
    both_add(Sharing::Atomic, |end, _, _| assert_eq!(end, [11.0, 11.0], "lost"));
}

/// A concurrent reader reads each stripe before or after an update.
#[test]
fn reads_are_not_torn() {
    for sharing in [Sharing::Lock, Sharing::Atomic] {
        loom::model(move || {
            let shared = Arc::new(Shared::new(sharing, 1, &[1.0, 2.0], &[], &[]));
            let writer = {
                let shared = shared.clone();
                thread::spawn(move || shared.update(0.0, |stripe| stripe.params[0] *= 3.0))
            };
            shared
                .read(|start, params| assert!([(0, 1.0), (0, 3.0), (1, 2.0), (1, 6.0)].contains(&(start, params[0]))));
            writer.join().unwrap();
        });
    }
}
