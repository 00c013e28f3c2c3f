//! The sharing under every interleaving that two threads can have, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p playfield-hogwild --release --target-dir target/loom`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use playfield_hogwild::{Shared, Sharing, Stripe};

/// Two threads add 1 and 10 to each of two stripes of one number, and each takes what it finds there.
fn both_add(sharing: Sharing, check: fn(&[f32], &[f32], &[f32])) {
    loom::model(move || {
        let shared = Arc::new(Shared::new(sharing, 1, &[0.0, 0.0], &[5.0, 5.0], &[]));
        let add = |shared: &Shared, number: f32, share: f64| {
            let mut mine = vec![0.0; 2];
            shared.update(share, |Stripe { start, params, square, mean }| {
                assert!(mean.is_empty() && square == [5.0]);
                params[0] += number;
                mine[start] = params[0];
            });
            mine
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || add(&shared, 10.0, 0.5))
        };
        let (one, ten) = (add(&shared, 1.0, 0.0), other.join().unwrap());
        check(&shared.copy()[0], &one, &ten);
    });
}

/// Behind a lock no update is lost, and a thread takes its own with or without the other's.
#[test]
fn a_lock_loses_nothing() {
    both_add(Sharing::Lock, |end, one, ten| {
        assert_eq!(end, [11.0, 11.0]);
        assert!(one.iter().all(|x| [1.0, 11.0].contains(x)), "{one:?}");
        assert!(ten.iter().all(|x| [10.0, 11.0].contains(x)), "{ten:?}");
    });
}

/// Lock-free, one of two updates at the same moment may be lost, and nothing else: no other number ever appears.
#[test]
fn atomics_lose_an_update_at_worst() {
    both_add(Sharing::Atomic, |end, one, ten| {
        assert!(end.iter().all(|x| [1.0, 10.0, 11.0].contains(x)), "{end:?}");
        assert!(one.iter().all(|x| [1.0, 11.0].contains(x)), "{one:?}");
        assert!(ten.iter().all(|x| [10.0, 11.0].contains(x)), "{ten:?}");
    });
}

/// The model does try what loses an update: otherwise the test above would not say much.
#[test]
#[should_panic(expected = "lost")]
fn the_model_finds_the_lost_update() {
    both_add(Sharing::Atomic, |end, _, _| assert_eq!(end, [11.0, 11.0], "lost"));
}

/// Someone who looks while another updates sees each stripe before or after it.
#[test]
fn a_look_sees_whole_numbers() {
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
