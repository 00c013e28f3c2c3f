//! Parameters that many threads update without waiting for each other (Niu et al. 2011, *Hogwild!*; Mnih et al. 2016).
//!
//! Each of A3C's threads computes a gradient on its own copy of the parameters, applies it to the shared ones together with
//! the shared statistics of RMSProp, and takes the new values. The buffer is visited in *stripes*; an update changes a
//! stripe and copies it out in one pass over memory. No thread ever holds more than one stripe, and each begins at another.
//!
//! Two ways to share a stripe, both without undefined behavior:
//!
//! * [`Sharing::Atomic`], lock-free: every number is an atomic that is read and written with relaxed ordering. Two updates
//!   of one stripe at the same time may lose part of one of them, as in the papers. No number is ever torn.
//! * [`Sharing::Lock`]: a lock per stripe. Nothing is lost, and a stripe is plain memory, which compilers turn into vector
//!   instructions; what they may do with atomics is a number at a time.
//!
//! The default is the lock: see `benches/sharing.rs` and the table in `docs/a3c.md`.
//!
//! This crate knows no tensors, so that `tests/model.rs` can check every interleaving of a few threads
//! (`RUSTFLAGS="--cfg loom" cargo test -p playfield-hogwild --release`).

#[cfg(loom)]
use loom::sync::{Mutex, atomic::AtomicU32, atomic::Ordering::Relaxed};
use serde::{Deserialize, Serialize};
#[cfg(not(loom))]
use std::sync::{Mutex, atomic::AtomicU32, atomic::Ordering::Relaxed};

/// How threads share a stripe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Behind a lock.
    #[default]
    Lock,
    /// Lock-free, number by number.
    Atomic,
}

/// A stripe at hand: parameters, and the optimizer's statistics of the same numbers (empty where it has none).
#[derive(Debug)]
pub struct Stripe<'a> {
    /// Where in the whole buffer it begins.
    pub start: usize,
    /// The parameters.
    pub params: &'a mut [f32],
    /// RMSProp's or Adam's mean square.
    pub square: &'a mut [f32],
    /// The mean of a centered RMSProp or Adam.
    pub mean: &'a mut [f32],
}

/// The shared parameters and statistics.
#[derive(Debug)]
pub struct Shared {
    stripes: Stripes,
    /// How many numbers a stripe has; the last may have fewer.
    len: usize,
}

/// Parameters, mean squares, means.
type Numbers<T> = [Vec<T>; 3];

#[derive(Debug)]
enum Stripes {
    Locked(Vec<Mutex<Numbers<f32>>>),
    Atomic(Vec<Numbers<AtomicU32>>),
}

impl Shared {
    /// Shares `params` with their statistics (as many as parameters, or none), in stripes of `len` numbers.
    ///
    /// # Panics
    /// If `len` is 0 or a statistic of another length: bugs of the caller.
    pub fn new(sharing: Sharing, len: usize, params: &[f32], square: &[f32], mean: &[f32]) -> Self {
        assert!(
            [square, mean].iter().all(|s| s.is_empty() || s.len() == params.len()),
            "statistics of other parameters"
        );
        let cuts = (0..params.len()).step_by(len).map(|from| {
            let to = (from + len).min(params.len());
            [params, square, mean].map(|v| v.get(from..to).unwrap_or_default().to_vec())
        });
        let atomic = |v: Vec<f32>| v.into_iter().map(|x| AtomicU32::new(x.to_bits())).collect();
        let stripes = match sharing {
            Sharing::Lock => Stripes::Locked(cuts.map(Mutex::new).collect()),
            Sharing::Atomic => Stripes::Atomic(cuts.map(|numbers| numbers.map(atomic)).collect()),
        };
        Self { stripes, len }
    }

    /// Changes every stripe once, beginning with the one that lies at `share` (0 to 1) of the way.
    pub fn update(&self, share: f64, mut change: impl FnMut(Stripe<'_>)) {
        let count = self.count();
        let first = ((count as f64 * share) as usize).min(count);
        let mut copy = Numbers::default();
        for i in (first..count).chain(0..first) {
            let start = i * self.len;
            match &self.stripes {
                Stripes::Locked(stripes) => {
                    let [params, square, mean] = &mut *lock(&stripes[i]);
                    change(Stripe { start, params, square, mean });
                }
                Stripes::Atomic(stripes) => {
                    read(&stripes[i], &mut copy);
                    let [params, square, mean] = &mut copy;
                    change(Stripe { start, params, square, mean });
                    for (to, from) in stripes[i].iter().zip(&copy) {
                        to.iter().zip(from).for_each(|(to, from)| to.store(from.to_bits(), Relaxed));
                    }
                }
            }
        }
    }

    /// Shows every stripe once: where it begins, and its parameters.
    pub fn read(&self, mut show: impl FnMut(usize, &[f32])) {
        let mut copy = Numbers::default();
        for i in 0..self.count() {
            match &self.stripes {
                Stripes::Locked(stripes) => show(i * self.len, &lock(&stripes[i])[0]),
                Stripes::Atomic(stripes) => {
                    read(&stripes[i], &mut copy);
                    show(i * self.len, &copy[0]);
                }
            }
        }
    }

    /// Copies of parameters, mean squares and means. Consistent only while nobody updates.
    pub fn copy(&self) -> [Vec<f32>; 3] {
        let mut all = Numbers::default();
        self.update(0.0, |stripe| {
            let Stripe { params, square, mean, .. } = stripe;
            all.iter_mut().zip([params, square, mean]).for_each(|(all, part)| all.extend_from_slice(part));
        });
        all
    }

    fn count(&self) -> usize {
        match &self.stripes {
            Stripes::Locked(stripes) => stripes.len(),
            Stripes::Atomic(stripes) => stripes.len(),
        }
    }
}

/// A thread that panicked inside a stripe has left numbers there, as whole as any.
fn lock(stripe: &Mutex<Numbers<f32>>) -> impl std::ops::DerefMut<Target = Numbers<f32>> + '_ {
    stripe.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn read(from: &Numbers<AtomicU32>, to: &mut Numbers<f32>) {
    for (to, from) in to.iter_mut().zip(from) {
        to.clear();
        to.extend(from.iter().map(|x| f32::from_bits(x.load(Relaxed))));
    }
}
