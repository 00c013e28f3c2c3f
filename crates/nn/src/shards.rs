//! The rows of a batch, shared out among threads.
//!
//! libtorch can share out the inside of each operation. On networks as small as Atari's agents have, threads then meet some
//! hundred times an update, and the cores wait for each other longer than they compute. Here they meet twice: each thread
//! takes some rows through the whole torso, forward and, later, backward, every operation on one core.
//!
//! ```text
//! rows ┬ torso, thread 0 ─┬ features ── heads, loss ── gradient of features ┬ torso backward, thread 0 ─┬ Σ gradients
//!      └ torso, thread 1 ─┘  (a leaf)                                       └ torso backward, thread 1 ─┘
//! ```
//!
//! All threads compute with the same parameters, in the same memory, and none changes them; each has a gradient of its own,
//! and the [optimizer](crate::optim::Optimizer::step_with) takes their sum. What autograd records inside the torso ends at
//! the features; the loss is recorded from there on, by whoever computes it.

use crate::encoder::Encoder;
use crate::norm::recording;
use crate::params::Params;
use playfield_core::ObsRef;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::{Kind, Tensor, no_grad};

/// How many rows make a thread worth its while.
const LEAST: usize = 4;

/// The threads beside the caller's, and what each needs to work on its rows.
#[derive(Debug)]
pub(crate) struct Shards {
    pool: ThreadPool,
    others: Vec<Shard>,
    /// What a forward pass recorded and no backward pass has used.
    recorded: Option<Recorded>,
    /// How many of the others took part in the last backward pass.
    took_part: usize,
}

#[derive(Debug)]
struct Shard {
    params: Params,
    torso: Encoder,
}

#[derive(Debug)]
struct Recorded {
    /// All features, as the loss sees them.
    leaf: Tensor,
    /// Each thread's, with their past; the caller's first.
    parts: Vec<Tensor>,
}

impl Shards {
    /// `threads` in all; `None` where there is nobody to share with.
    pub fn new(threads: usize, params: &Params, torso: &Encoder) -> Option<Self> {
        let shard = |params: Params| Shard { torso: torso.over(&params), params };
        let others: Vec<_> = (1..threads).map(|_| shard(params.share())).collect();
        let pool = ThreadPoolBuilder::new().num_threads(others.len()).build().ok()?;
        (!others.is_empty()).then_some(Self { pool, others, recorded: None, took_part: 0 })
    }

    /// The features of `n` observations, `[n, width]`.
    pub fn forward(&mut self, torso: &mut Encoder, params: &Params, obs: ObsRef<'_>, n: usize) -> Tensor {
        let count = (n / LEAST).clamp(1, 1 + self.others.len());
        let len = obs.len() / n;
        let rows = |i: usize| i * n / count..(i + 1) * n / count;
        let part = |i: usize| (obs.slice(rows(i).start * len, rows(i).len() * len), rows(i).len());
        // Threads do not inherit this.
        let recording = recording();
        let mut parts: Vec<_> = (0..count).map(|_| Tensor::new()).collect();
        let (first, others) = parts.split_first_mut().expect("one at least");
        self.pool.in_place_scope(|scope| {
            for (i, (features, shard)) in others.iter_mut().zip(&mut self.others).enumerate() {
                let (obs, n) = part(i + 1);
                scope.spawn(move |_| {
                    let mut forward = || shard.torso.forward(&shard.params, obs, n);
                    *features = if recording { forward() } else { no_grad(forward) };
                });
            }
            let (obs, n) = part(0);
            *first = torso.forward(params, obs, n);
        });
        let features = no_grad(|| Tensor::cat(&parts, 0));
        if !recording {
            return features;
        }
        let leaf = features.set_requires_grad(true);
        self.recorded = Some(Recorded { leaf: leaf.shallow_clone(), parts });
        leaf
    }

    /// After the backward pass of a loss of the features that were recorded last: the torso's own.
    pub fn backward(&mut self, torso: &mut Encoder, params: &mut Params) {
        let Some(Recorded { leaf, mut parts }) = self.recorded.take() else {
            self.took_part = 0;
            return;
        };
        self.took_part = parts.len() - 1;
        let sizes: Vec<_> = parts.iter().map(|p| p.size()[0]).collect();
        let gradients = leaf.grad().split_with_sizes(&sizes[..], 0);
        // The gradient of Σ features · g is g.
        let backward = |features: Tensor, g: &Tensor| (features * g).sum(Kind::Float).backward();
        self.pool.in_place_scope(|scope| {
            for (shard, (features, g)) in self.others.iter_mut().zip(parts.drain(1..).zip(&gradients[1..])) {
                let g = g.shallow_clone();
                scope.spawn(move |_| {
                    shard.params.zero_gradient();
                    backward(features, &g);
                    shard.torso.backward(&mut shard.params);
                });
            }
            backward(parts.remove(0), &gradients[0]);
            torso.backward(params);
        });
    }

    /// What holds the other threads' gradients of the last backward pass.
    pub fn params(&self) -> Vec<&Params> {
        self.others[..self.took_part].iter().map(|s| &s.params).collect()
    }
}
