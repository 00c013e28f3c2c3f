//! Parameters that many threads update without synchronization (Niu et al. 2011, *Hogwild!*; Mnih et al. 2016).
//!
//! Each of A3C's threads computes a gradient on its own copy of the parameters, applies it to the shared parameters and the shared
//! optimizer state, and copies the new values. The buffer is processed in *stripes*; an update changes a stripe and copies it
//! in one pass over memory. A thread accesses one stripe at a time, and each thread starts at another one.
//!
//! Two ways to share a stripe, both without undefined behavior:
//!
//! * [`Sharing::Atomic`], lock-free: every element is an atomic, loaded and stored with relaxed ordering. Concurrent updates
//!   of one stripe may lose part of one of them, as in the papers. No element is ever torn.
//! * [`Sharing::Lock`]: a lock per stripe. No update is lost, and a stripe is plain memory, which compilers vectorize; atomics are
//!   accessed one at a time.
//!
//! The default is the lock: see `benches/sharing.rs` and the table in `docs/a3c.md`.
//!
//! This crate does not depend on tensors, so that `tests/model.rs` can check every interleaving of a few threads
//! (`RUSTFLAGS="--cfg loom" cargo test -p playfield-hogwild --release`).

#[cfg(loom)]
use loom::sync::{Mutex, atomic::AtomicU32, atomic::Ordering::Relaxed};
use serde::{Deserialize, Serialize};
#[cfg(not(loom))]
use std::sync::{Mutex, atomic::AtomicU32, atomic::Ordering::Relaxed};

/// How threads access a stripe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Behind a lock.
    #[default]
    Lock,
    /// Lock-free, element by element.
    Atomic,
}

/// A stripe during an update: parameters, and the optimizer's state of the same elements.
#[derive(Debug)]
pub struct Stripe<'a> {
    /// The index of its first element in the whole buffer.
    pub start: usize,
    /// The parameters.
    pub params: &'a mut [f32],
    /// The optimizer's state (mean squares and means, for example); empty where it has none.
    pub state: [&'a mut [f32]; 2],
}

/// The shared parameters and optimizer state.
#[derive(Debug)]
pub struct Shared {
    stripes: Stripes,
    /// Elements of a stripe; the last may have fewer.
    len: usize,
}

/// Parameters, and both parts of the state.
type Elements<T> = [Vec<T>; 3];

#[derive(Debug)]
enum Stripes {
    Locked(Vec<Mutex<Elements<f32>>>),
    Atomic(Vec<Elements<AtomicU32>>),
}

impl Shared {
    /// Shares `params` and the two parts of the optimizer's state (as long as `params`, or empty), in stripes of `len` elements.
    ///
    /// # Panics
    /// If `len` is 0, or a part of the state has another length: bugs of the caller.
    pub fn new(sharing: Sharing, len: usize, params: &[f32], first: &[f32], second: &[f32]) -> Self {
        assert!(
            [first, second].iter().all(|s| s.is_empty() || s.len() == params.len()),
            "optimizer state and parameters must have equal lengths"
        );
        let cuts = (0..params.len()).step_by(len).map(|from| {
            let to = (from + len).min(params.len());
            [params, first, second].map(|v| v.get(from..to).unwrap_or_default().to_vec())
        });
        let atomic = |v: Vec<f32>| v.into_iter().map(|x| AtomicU32::new(x.to_bits())).collect();
        let stripes = match sharing {
            Sharing::Lock => Stripes::Locked(cuts.map(Mutex::new).collect()),
            Sharing::Atomic => Stripes::Atomic(cuts.map(|elements| elements.map(atomic)).collect()),
        };
        Self { stripes, len }
    }

    /// Changes every stripe once, starting with the one at the fraction `position` (0 to 1) of the buffer.
    pub fn update(&self, position: f64, mut change: impl FnMut(Stripe<'_>)) {
        let count = self.count();
        let first = ((count as f64 * position) as usize).min(count);
        let mut copy = Elements::default();
        for i in (first..count).chain(0..first) {
            let start = i * self.len;
            match &self.stripes {
                Stripes::Locked(stripes) => {
                    let [params, first, second] = &mut *lock(&stripes[i]);
                    change(Stripe { start, params, state: [first, second] });
                }
                Stripes::Atomic(stripes) => {
                    read(&stripes[i], &mut copy);
                    let [params, first, second] = &mut copy;
                    change(Stripe { start, params, state: [first, second] });
                    for (to, from) in stripes[i].iter().zip(&copy) {
                        to.iter().zip(from).for_each(|(to, from)| to.store(from.to_bits(), Relaxed));
                    }
                }
            }
        }
    }

    /// Passes every stripe to `visit` once: the index of its first element, and its parameters.
    pub fn read(&self, mut visit: impl FnMut(usize, &[f32])) {
        let mut copy = Elements::default();
        for i in 0..self.count() {
            match &self.stripes {
                Stripes::Locked(stripes) => visit(i * self.len, &lock(&stripes[i])[0]),
                Stripes::Atomic(stripes) => {
                    read(&stripes[i], &mut copy);
                    visit(i * self.len, &copy[0]);
                }
            }
        }
    }

    /// Copies of the parameters and both parts of the state; consistent only while no thread updates.
    pub fn copy(&self) -> [Vec<f32>; 3] {
        let mut all = Elements::default();
        self.update(0.0, |stripe| {
            let Stripe { params, state: [first, second], .. } = stripe;
            all.iter_mut().zip([params, first, second]).for_each(|(all, part)| all.extend_from_slice(part));
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

/// Ignores poisoning: a panic inside a stripe leaves valid elements.
fn lock(stripe: &Mutex<Elements<f32>>) -> impl std::ops::DerefMut<Target = Elements<f32>> + '_ {
    stripe.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn read(from: &Elements<AtomicU32>, to: &mut Elements<f32>) {
    for (to, from) in to.iter_mut().zip(from) {
        to.clear();
        to.extend(from.iter().map(|x| f32::from_bits(x.load(Relaxed))));
    }
}
