//! Updates per second of A3C's parameters by 1 to 16 threads, with locks and lock-free: RMSProp and the copy, on as many
//! parameters as the nips network has for Pong. `cargo bench -p playfield-hogwild`.
#![allow(clippy::print_stdout, missing_docs)]

use playfield_hogwild::{Shared, Sharing, Stripe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const LEN: usize = 677_686;
const STRIPE: usize = 8192;

fn main() {
    let params = vec![0.1; LEN];
    for sharing in [Sharing::Lock, Sharing::Atomic] {
        for threads in [1, 2, 4, 8, 16] {
            let shared = Shared::new(sharing, STRIPE, &params, &params, &[]);
            let (count, start) = (AtomicU64::new(0), Instant::now());
            thread::scope(|scope| {
                for i in 0..threads {
                    let (shared, count) = (&shared, &count);
                    scope.spawn(move || {
                        let (grads, mut copy) = (vec![1e-3_f32; LEN], vec![0.0_f32; LEN]);
                        while start.elapsed() < Duration::from_secs(1) {
                            shared.update(f64::from(i) / f64::from(threads), |s| rmsprop(s, &grads, &mut copy));
                            count.fetch_add(1, Relaxed);
                        }
                    });
                }
            });
            let rate = count.into_inner() as f64 / start.elapsed().as_secs_f64();
            println!("{sharing:?}, {threads:2} threads: {rate:7.0} updates/s");
        }
    }
}

fn rmsprop(stripe: Stripe<'_>, grads: &[f32], copy: &mut [f32]) {
    let Stripe { start, params, state: [square, _] } = stripe;
    let (grads, copy) = (&grads[start..], &mut copy[start..]);
    for (((p, s), g), copy) in params.iter_mut().zip(square).zip(grads).zip(copy) {
        *s += 0.01 * (g * g - *s);
        *p -= 1e-4 * g / (*s + 0.1).sqrt();
        *copy = *p;
    }
}
