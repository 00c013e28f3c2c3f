//! Low-rank approximation of the gradients that ranks exchange, with error feedback: ACP-SGD (Zhang et al. 2023, *Evaluation and Optimization of
//! Gradient Compression for Distributed Deep Learning*, arXiv:2306.08881), which alternates the two halves of PowerSGD (Vogels, Karimireddy
//! and Jaggi 2019, arXiv:1905.13727).
//!
//! Instead of the gradient `G` of a large matrix, `[n, m]`, the ranks exchange a thin one: in one update `[n, r]`, in the next `[m, r]`.
//!
//! ```text
//! E ← E + G       this gradient, and what is left of earlier ones
//! F ← E·Q         Q, [m, r], is an orthonormal basis. In every other update: F ← Eᵀ·P, with a basis P, [n, r]
//! E ← E − F·Qᵀ    what is left of this rank's
//! F ← ∑ F         the sum over the ranks
//! G ← F·Qᵀ        the same on all ranks
//! P ← an orthonormal basis of the columns of F, for the next update
//! ```
//!
//! What `r` columns cannot express is left for later updates, and nothing is lost but by rounding. Biases and small matrices are exchanged as they
//! are. Every rank computes the bases itself, from the same bits: processors and devices of all ranks must be of one kind.

use super::step::both;
use crate::params::Params;
use crate::tensor::to_vec;
use playfield_core::rng::stream;
use playfield_core::{Array, Result, Snapshot};
use rand_distr::{Distribution as _, StandardNormal};
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Device, Kind, Tensor, no_grad};

/// The large matrices of a gradient, with what is left of this rank's.
#[derive(Debug)]
pub(super) struct LowRank {
    matrices: Vec<Matrix>,
    /// The ranges between them in the flat gradient.
    others: Vec<Range<usize>>,
}

/// A matrix of the gradient, `[n, m]`.
#[derive(Debug)]
struct Matrix {
    name: String,
    /// Its range in the flat gradient.
    range: Range<usize>,
    /// `E`, `[n, m]`.
    error: Tensor,
    side: Side,
    /// `Q`, `[m, r]`, or `P`, `[n, r]`.
    basis: Tensor,
    /// Small random numbers with the shapes of `P` and `Q`: they span a basis where the sum of the ranks is 0.
    noise: [Tensor; 2],
}

/// The basis of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    /// `P`.
    Left,
    /// `Q`.
    Right,
}

/// The prefix of the names of `E`, `P` and `Q` in a snapshot.
pub(super) const PREFIX: &str = "exchange.";

/// The elements of a gradient must be at least so many times those of two factors. Below, the exchange gains less than the products cost.
const LEAST_RATIO: usize = 4;

/// The size of [`Matrix::noise`]: far below that of gradients.
const NOISE: f64 = 1e-20;

impl LowRank {
    /// For gradients of `params` and factors with `r` columns, continuing from the arrays that [`save`](Self::save) wrote where `saved` has
    /// them.
    pub(super) fn new(params: &Params, r: usize, saved: &BTreeMap<String, Array>) -> Self {
        let (mut matrices, mut others, mut end) = (Vec::new(), Vec::new(), 0);
        for (name, range, n) in params.matrices() {
            let m = range.len() / n;
            if range.len() / LEAST_RATIO < r.saturating_mul(n + m) {
                continue;
            }
            others.push(end..range.start);
            end = range.end;
            matrices.push(Matrix::new(name, range, [n, m], r, saved, params.master().device()));
        }
        others.push(end..params.master().numel());
        Self { matrices, others }
    }

    /// Replaces the flat `gradient`, `[parameters]` in `f32`, by an approximation of its sum over the ranks. `sum` replaces a buffer by its sum
    /// over them.
    ///
    /// # Errors
    /// Those of `sum`.
    pub(super) fn sum(
        &mut self,
        gradient: &Tensor,
        pool: Option<&ThreadPool>,
        sum: impl FnOnce(&mut Tensor) -> Result<()>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let part = |range: &Range<usize>| gradient.narrow(0, range.start as i64, range.len() as i64);
        let own: Vec<_> = self.matrices.iter().map(|matrix| matrix.factor(&part(&matrix.range), pool)).collect();
        let parts: Vec<_> = self.others.iter().map(part).chain(own.iter().map(Tensor::copy)).collect();
        let mut flat = Tensor::cat(&parts.iter().map(|part| part.flatten(0, -1)).collect::<Vec<_>>(), 0);
        sum(&mut flat)?;
        let sizes: Vec<_> = parts.iter().map(|part| part.numel() as i64).collect();
        let sums = flat.split_with_sizes(&sizes[..], 0);
        parts.iter().zip(sums).for_each(|(part, sum)| part.shallow_clone().copy_(&sum.view_as(part)));
        let factors = own.iter().zip(&parts[self.others.len()..]);
        for (matrix, (own, sum)) in self.matrices.iter_mut().zip(factors) {
            matrix.expand(own, sum, &part(&matrix.range), pool);
        }
        Ok(())
    }

    /// Writes what an exact resume needs.
    pub(super) fn save(&self, snapshot: &mut Snapshot) {
        for Matrix { name, error, side, basis, .. } in &self.matrices {
            for (kind, matrix) in [("error", error), (side.name(), basis)] {
                let shape: Vec<_> = matrix.size().iter().map(|&d| d as usize).collect();
                snapshot.arrays.insert(format!("{PREFIX}{kind}.{name}"), Array::new(&shape, &to_vec(matrix)));
            }
        }
    }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

impl Matrix {
    fn new(
        name: &str,
        range: Range<usize>,
        shape: [usize; 2],
        r: usize,
        saved: &BTreeMap<String, Array>,
        device: Device,
    ) -> Self {
        let tensor = |values: &[f32], shape: [usize; 2]| {
            Tensor::from_slice(values).view(shape.map(|d| d as i64)).to_device(device)
        };
        let restored = |kind: &str, shape: [usize; 2]| {
            let array = saved.get(&format!("{kind}.{name}")).filter(|array| array.shape == shape)?;
            Some(tensor(&array.values()?, shape))
        };
        // The same on all ranks.
        let noise = |side: Side, rows: usize| {
            let normal = StandardNormal.sample_iter(stream(0, &format!("{} {name}", side.name())));
            tensor(&normal.take(rows * r).collect::<Vec<_>>(), [rows, r]) * NOISE
        };
        let [n, m] = shape;
        let noise = [noise(Side::Left, n), noise(Side::Right, m)];
        let error =
            restored("error", shape).unwrap_or_else(|| Tensor::zeros(shape.map(|d| d as i64), (Kind::Float, device)));
        let left = restored(Side::Left.name(), [n, r]).map(|basis| (Side::Left, basis));
        let (side, basis) = left.unwrap_or_else(|| {
            (Side::Right, restored(Side::Right.name(), [m, r]).unwrap_or_else(|| orthonormal(&noise[1])))
        });
        Self { name: name.into(), range, error, side, basis, noise }
    }

    /// Adds `gradient` to what is left, and returns `F`.
    fn factor(&self, gradient: &Tensor, pool: Option<&ThreadPool>) -> Tensor {
        let Self { error, side, basis, .. } = self;
        let ([n, m], r) = ([error.size()[0], error.size()[1]], basis.size()[1]);
        let (gradient, options) = (gradient.view_as(error), (error.kind(), error.device()));
        if *side == Side::Right {
            let factor = Tensor::empty([n, r], options);
            halves(pool, [error, &gradient, &factor], [basis], |[mut e, g, f], [q]| {
                e += g;
                let _ = e.mm_out(&f, &q);
            });
            return factor;
        }
        let parts = Tensor::empty([2 * m, r], options);
        halves(pool, [error, &gradient, basis, &parts], [], |[mut e, g, p, f], []| {
            e += g;
            let _ = e.tr().mm_out(&f, &p);
        });
        parts.view([2, m, r]).sum_dim_intlist(0_i64, false, error.kind())
    }

    /// Replaces `gradient` by the approximation that follows from `sum`, the sum of `F` over the ranks, subtracts from what is left the one that
    /// follows from this rank's `own`, and turns to the other basis.
    fn expand(&mut self, own: &Tensor, sum: &Tensor, gradient: &Tensor, pool: Option<&ThreadPool>) {
        let Self { error, side, basis, noise, .. } = self;
        let (left, right) = match side {
            Side::Left => ([&*basis; 2], [own, sum]),
            Side::Right => ([own, sum], [&*basis; 2]),
        };
        halves(
            pool,
            [error, &gradient.view_as(error), left[0], left[1]],
            right,
            |[mut e, g, own, left], [own_right, right]| {
                let _ = e.addmm_(&own.neg(), &own_right.tr());
                let _ = left.mm_out(&g, &right.tr());
            },
        );
        let next = match side {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        };
        (*side, *basis) = (next, orthonormal(&(sum + &noise[next as usize])));
    }
}

/// An orthonormal basis of the columns of a matrix, and of others where they depend on each other.
fn orthonormal(matrix: &Tensor) -> Tensor {
    Tensor::linalg_qr(matrix, "reduced").0.contiguous()
}

/// Calls `f` with the upper and with the lower half of the rows of `matrices`, and with `whole`; on the CPU at the same time where there is
/// a pool.
fn halves<const N: usize, const M: usize>(
    pool: Option<&ThreadPool>,
    matrices: [&Tensor; N],
    whole: [&Tensor; M],
    f: fn([Tensor; N], [Tensor; M]),
) {
    let half = |i: i64| {
        let rows = |matrix: &Tensor| {
            let (n, middle) = (matrix.size()[0], matrix.size()[0] / 2);
            let (start, end) = [(0, middle), (middle, n)][i as usize];
            matrix.narrow(0, start, end - start)
        };
        let arguments = (matrices.map(rows), whole.map(Tensor::shallow_clone));
        move || no_grad(|| f(arguments.0, arguments.1))
    };
    let pool = pool.filter(|_| matrices[0].device() == Device::Cpu);
    both(pool, half(0), half(1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Init;
    use crate::params::Builder;
    use rayon::ThreadPoolBuilder;
    use std::sync::Barrier;
    use std::sync::Mutex;
    use std::thread;
    use tch::Kind;

    /// A matrix that is approximated by one column, between others that are not.
    const SHAPES: [(&str, &[i64]); 4] =
        [("bias", &[7]), ("large", &[8, 2, 3, 2]), ("small", &[4, 4]), ("vector", &[40])];

    fn params() -> Params {
        let mut rng = stream(1, "start");
        let mut b = Builder::new(&mut rng);
        SHAPES.iter().for_each(|(name, shape)| _ = b.param(name, shape, Init::Uniform { fan_in: 3 }));
        b.finish(Device::Cpu, Kind::Float)
    }

    fn gradient(rank: usize, update: usize, len: usize) -> Vec<f32> {
        StandardNormal.sample_iter(stream((rank * 100 + update) as u64, "gradient")).take(len).collect()
    }

    /// The sums of the gradients of `updates` on each of two ranks, and the state after them. It continues from `start`.
    fn two_ranks(
        r: usize,
        updates: Range<usize>,
        threads: usize,
        start: [&Snapshot; 2],
    ) -> [(Vec<Vec<f32>>, LowRank); 2] {
        let (slots, barrier) = (Mutex::new([Vec::new(), Vec::new()]), Barrier::new(2));
        let run = |rank: usize| {
            let params = params();
            let pool = (threads > 1).then(|| ThreadPoolBuilder::new().num_threads(1).build().unwrap());
            let mut low_rank = LowRank::new(&params, r, &super::super::arrays_below(PREFIX, start[rank]));
            let sum = |values: &mut Tensor| {
                slots.lock().unwrap()[rank] = to_vec(values);
                barrier.wait();
                let sum: Vec<f32> = {
                    let slots = slots.lock().unwrap();
                    slots[0].iter().zip(&slots[1]).map(|(a, b)| a + b).collect()
                };
                barrier.wait();
                values.copy_(&Tensor::from_slice(&sum));
                Ok(())
            };
            let sums = updates.clone().map(|update| {
                let flat = Tensor::from_slice(&gradient(rank, update, params.master().numel()));
                low_rank.sum(&flat, pool.as_ref(), sum).unwrap();
                to_vec(&flat)
            });
            let sums = sums.collect();
            (sums, low_rank)
        };
        thread::scope(|scope| [0, 1].map(|rank| scope.spawn(move || run(rank))).map(|rank| rank.join().unwrap()))
    }

    fn snapshots(ranks: &[(Vec<Vec<f32>>, LowRank); 2]) -> [Snapshot; 2] {
        ranks.each_ref().map(|(_, low_rank)| {
            let mut snapshot = Snapshot::default();
            low_rank.save(&mut snapshot);
            snapshot
        })
    }

    /// The algorithm in plain loops, for one column: normalizing it is all there is of an orthonormal basis.
    #[test]
    fn one_column_equals_plain_loops() {
        const UPDATES: usize = 4;
        let ranks = two_ranks(1, 0..UPDATES, 1, [&Snapshot::default(); 2]);
        let params = params();
        let low_rank = LowRank::new(&params, 1, &BTreeMap::new());
        let [Matrix { range, basis, .. }] = &low_rank.matrices[..] else { panic!("one large matrix") };
        let (n, m) = (8, 12);
        assert_eq!(range.len(), n * m);
        // The columns of the basis of an update: m elements on the right, n on the left.
        let mut basis: Vec<f64> = to_vec(basis).into_iter().map(f64::from).collect();
        let mut errors = [vec![0.0; n * m], vec![0.0; n * m]];
        for update in 0..UPDATES {
            let is_right = update % 2 == 0;
            // The places of an element in the factor and in the basis.
            let places = |k: usize| if is_right { (k / m, k % m) } else { (k % m, k / m) };
            let gradients = [0, 1].map(|rank| gradient(rank, update, params.master().numel()));
            let mut sum = vec![0.0; if is_right { n } else { m }];
            for (error, gradient) in errors.iter_mut().zip(&gradients) {
                error.iter_mut().zip(&gradient[range.clone()]).for_each(|(e, g)| *e += f64::from(*g));
                let mut own = vec![0.0; sum.len()];
                (0..n * m).for_each(|k| own[places(k).0] += error[k] * basis[places(k).1]);
                (0..n * m).for_each(|k| error[k] -= own[places(k).0] * basis[places(k).1]);
                sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
            }
            for (sums, _) in &ranks {
                for k in 0..params.master().numel() {
                    let expected = match k.checked_sub(range.start).filter(|k| *k < n * m) {
                        Some(k) => sum[places(k).0] * basis[places(k).1],
                        None => f64::from(gradients[0][k] + gradients[1][k]),
                    };
                    let found = f64::from(sums[update][k]);
                    assert!((found - expected).abs() < 1e-4, "update {update}, {k}: {found}, {expected}");
                }
            }
            let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
            basis = sum.iter().map(|x| x / norm).collect();
        }
        for (error, (_, low_rank)) in errors.iter().zip(&ranks) {
            let found = to_vec(&low_rank.matrices[0].error);
            assert!(found.iter().zip(error).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4));
        }
    }

    /// What the ranks have not exchanged is kept: all sums and what is left are all gradients.
    #[test]
    fn nothing_is_lost() {
        let updates = 20;
        let ranks = two_ranks(1, 0..updates, 1, [&Snapshot::default(); 2]);
        assert_eq!(ranks[0].0, ranks[1].0, "the same on both ranks");
        let range = ranks[0].1.matrices[0].range.clone();
        let left = ranks.each_ref().map(|(_, low_rank)| to_vec(&low_rank.matrices[0].error));
        let len = params().master().numel();
        for k in range.clone() {
            let all: f32 = (0..updates).flat_map(|update| [0, 1].map(|rank| gradient(rank, update, len)[k])).sum();
            let exchanged: f32 = ranks[0].0.iter().map(|sum| sum[k]).sum();
            let i = k - range.start;
            assert!((exchanged + left[0][i] + left[1][i] - all).abs() < 1e-3, "{k}");
        }
        let norm = |values: &[f32]| values.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(norm(&left[0]) > 1.0 && norm(&left[0]) < norm(&gradient(0, 0, range.len())) * 10.0, "bounded");
    }

    /// A resumed run, and one with another number of threads, computes the same, bit for bit. Arrays of another shape are not used.
    #[test]
    fn threads_and_a_resume_change_nothing() {
        let none = Snapshot::default();
        let whole = two_ranks(1, 0..6, 1, [&none; 2]);
        let first = snapshots(&two_ranks(1, 0..3, 2, [&none; 2]));
        let second = two_ranks(1, 3..6, 2, first.each_ref());
        for rank in 0..2 {
            assert_eq!(whole[rank].0[3..], second[rank].0);
        }
        assert_eq!(snapshots(&whole), snapshots(&second));
        let other = LowRank::new(&params(), 1, &BTreeMap::from([("right.large".into(), Array::new(&[1], &[1.0_f32]))]));
        assert_eq!(
            to_vec(&other.matrices[0].basis),
            to_vec(&LowRank::new(&params(), 1, &BTreeMap::new()).matrices[0].basis)
        );
    }

    /// A gradient of 0 gives 0, and does not end the approximation of later ones. One that is not finite is not hidden.
    #[test]
    fn zeros_and_nan() {
        let mut low_rank = LowRank::new(&params(), 1, &BTreeMap::new());
        let len = params().master().numel();
        let range = low_rank.matrices[0].range.clone();
        let mut sum = |values: Vec<f32>| {
            let flat = Tensor::from_slice(&values);
            low_rank.sum(&flat, None, |_| Ok(())).unwrap();
            to_vec(&flat)
        };
        assert_eq!(sum(vec![0.0; len]), vec![0.0; len]);
        // Row and column 0 stay 0: no basis that begins with them would find the others.
        let m = 12;
        let is_edge = |k: usize| range.contains(&k) && ((k - range.start) < m || (k - range.start).is_multiple_of(m));
        let rank_one: Vec<f32> = (0..len).map(|k| if is_edge(k) { 0.0 } else { 2.0 }).collect();
        let first = sum(rank_one.clone());
        let second = sum(rank_one.clone());
        let pairs = first.iter().zip(second).zip(&rank_one);
        assert!(pairs.into_iter().all(|((a, b), expected)| (a + b - 2.0 * expected).abs() < 1e-4));
        let mut broken = rank_one;
        broken[60] = f32::NAN;
        assert!(sum(broken).iter().any(|x| x.is_nan()));
    }

    #[test]
    fn factors_that_save_little_are_not_used() {
        let names =
            |r| LowRank::new(&params(), r, &BTreeMap::new()).matrices.into_iter().map(|m| m.name).collect::<Vec<_>>();
        assert_eq!(names(1), ["large"]);
        assert!(names(2).is_empty() && names(usize::MAX).is_empty());
    }
}
