//! Low-rank approximation of the gradients that ranks exchange, with error feedback: PowerSGD (Vogels, Karimireddy and Jaggi 2019,
//! arXiv:1905.13727, algorithms 1 and 2, with warm start), as PyTorch's `powerSGD_hook`.
//!
//! Instead of the gradient `G` of a large matrix, `[n, m]`, the ranks exchange two thin matrices, `[n, r]` and `[m, r]`:
//!
//! ```text
//! E ← E + G          this gradient, and what is left of earlier ones
//! P ← ∑ E·Q          the sum over the ranks; then an orthonormal basis of its columns
//! Q ← ∑ Eᵀ·P         the sum over the ranks; the next update begins with it
//! E ← E − P·Pᵀ·E     what is left of this rank's
//! G ← P·Qᵀ           the same on all ranks
//! ```
//!
//! What `r` columns cannot express is left for later updates, and nothing is lost. Biases and small matrices are exchanged as they are.

use super::step::both;
use crate::params::Params;
use crate::tensor::to_vec;
use playfield_core::rng::stream;
use playfield_core::{Array, Result, Snapshot};
use rand_distr::{Distribution as _, StandardNormal};
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Device, Tensor, no_grad};

/// The large matrices of a gradient, with what is left of this rank's.
#[derive(Debug)]
pub(super) struct LowRank {
    matrices: Vec<Matrix>,
    /// The ranges between them in the flat gradient.
    others: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Matrix {
    name: String,
    /// Its range in the flat gradient.
    range: Range<usize>,
    /// `E`, `[n, m]`.
    error: Tensor,
    /// `Q`, `[m, r]`.
    q: Tensor,
}

/// The prefix of the names of `E` and `Q` in a snapshot.
pub(super) const PREFIX: &str = "exchange.";

/// The elements of a gradient must be at least so many times those of its factors. Below, the exchange gains less than the products cost.
const LEAST_RATIO: usize = 3;

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
            let like = params.master();
            let restored = |kind: &str, shape: [usize; 2]| {
                let array = saved.get(&format!("{kind}.{name}")).filter(|array| array.shape == shape)?;
                Some(array.values::<f32>()?)
            };
            let matrix = |values: Vec<f32>, shape: [usize; 2]| {
                Tensor::from_slice(&values).view(shape.map(|d| d as i64)).to_device(like.device())
            };
            let error = restored("error", [n, m]).unwrap_or_else(|| vec![0.0; n * m]);
            // The same on all ranks.
            let random = || StandardNormal.sample_iter(stream(0, name)).take(m * r).collect();
            let q = restored("q", [m, r]).unwrap_or_else(random);
            others.push(end..range.start);
            end = range.end;
            let (error, q) = (matrix(error, [n, m]), matrix(q, [m, r]));
            matrices.push(Matrix { name: name.into(), range, error, q });
        }
        others.push(end..params.master().numel());
        Self { matrices, others }
    }

    /// Replaces the flat `gradient` by an approximation of its sum over the ranks, with two calls of `sum`, which replaces a buffer by its sum.
    pub(super) fn sum(
        &mut self,
        gradient: &Tensor,
        pool: Option<&ThreadPool>,
        sum: impl Fn(&mut Tensor) -> Result<()>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let part = |range: &Range<usize>| gradient.narrow(0, range.start as i64, range.len() as i64);
        let products = |Matrix { range, error, q, .. }: &Matrix| {
            let p = Tensor::empty([error.size()[0], q.size()[1]], (q.kind(), q.device()));
            halves(pool, [error, &part(range).view_as(error), &p], [q], |[mut e, g, p], [q]| {
                e += g;
                let _ = e.mm_out(&p, &q);
            });
            p
        };
        let others: Vec<_> = self.others.iter().map(part).collect();
        let products: Vec<_> = self.matrices.iter().map(products).collect();
        sum_all(&others.iter().chain(&products).collect::<Vec<_>>(), &sum)?;
        let bases: Vec<_> = products.iter().map(|p| Tensor::linalg_qr(p, "reduced").0.contiguous()).collect();

        let own = |(Matrix { error, q, .. }, p): (&Matrix, &Tensor)| {
            let [m, r] = q.size()[..] else { unreachable!("a matrix") };
            let parts = Tensor::empty([2 * m, r], (q.kind(), q.device()));
            halves(pool, [error, p, &parts], [], |[e, p, q], []| _ = e.tr().mm_out(&q, &p));
            parts.view([2, m, r]).sum_dim_intlist(0_i64, false, q.kind())
        };
        let own: Vec<_> = self.matrices.iter().zip(&bases).map(own).collect();
        let sums: Vec<_> = own.iter().map(Tensor::copy).collect();
        sum_all(&sums.iter().collect::<Vec<_>>(), &sum)?;

        for (i, Matrix { range, error, q, .. }) in self.matrices.iter_mut().enumerate() {
            halves(
                pool,
                [error, &bases[i], &part(range).view_as(error)],
                [&own[i], &sums[i]],
                |[mut e, p, g], [own, q]| {
                    let _ = e.addmm_(&p.neg(), &own.tr());
                    let _ = p.mm_out(&g, &q.tr());
                },
            );
            // No later update could begin with zeros.
            *q = sums[i].where_self(&sums[i].any(), q);
        }
        Ok(())
    }

    /// Writes what an exact resume needs.
    pub(super) fn save(&self, snapshot: &mut Snapshot) {
        for Matrix { name, error, q, .. } in &self.matrices {
            for (kind, matrix) in [("error", error), ("q", q)] {
                let shape: Vec<_> = matrix.size().iter().map(|&d| d as usize).collect();
                snapshot.arrays.insert(format!("{PREFIX}{kind}.{name}"), Array::new(&shape, &to_vec(matrix)));
            }
        }
    }
}

/// Replaces all `parts` by their sums, with one call of `sum`.
fn sum_all(parts: &[&Tensor], sum: impl Fn(&mut Tensor) -> Result<()>) -> Result<()> {
    let mut flat = Tensor::cat(&parts.iter().map(|part| part.flatten(0, -1)).collect::<Vec<_>>(), 0);
    sum(&mut flat)?;
    let sizes: Vec<_> = parts.iter().map(|part| part.numel() as i64).collect();
    let sums = flat.split_with_sizes(&sizes[..], 0);
    parts.iter().zip(sums).for_each(|(part, sum)| part.shallow_clone().copy_(&sum.view_as(part)));
    Ok(())
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
        let ranks = two_ranks(1, 0..3, 1, [&Snapshot::default(); 2]);
        let params = params();
        let low_rank = LowRank::new(&params, 1, &BTreeMap::new());
        let [Matrix { range, q, .. }] = &low_rank.matrices[..] else { panic!("one large matrix") };
        let (n, m) = (8, 12);
        assert_eq!(range.len(), n * m);
        let mut q: Vec<f64> = to_vec(q).into_iter().map(f64::from).collect();
        let mut errors = [vec![0.0; n * m], vec![0.0; n * m]];
        for update in 0..3 {
            let gradients = [0, 1].map(|rank| gradient(rank, update, params.master().numel()));
            for (error, gradient) in errors.iter_mut().zip(&gradients) {
                error.iter_mut().zip(&gradient[range.clone()]).for_each(|(e, g)| *e += f64::from(*g));
            }
            let sum = |i: usize| errors[0][i] + errors[1][i];
            let mut p: Vec<f64> = (0..n).map(|i| (0..m).map(|j| sum(i * m + j) * q[j]).sum()).collect();
            let norm = p.iter().map(|x| x * x).sum::<f64>().sqrt();
            p.iter_mut().for_each(|x| *x /= norm);
            q = (0..m).map(|j| (0..n).map(|i| sum(i * m + j) * p[i]).sum()).collect();
            for error in &mut errors {
                let own: Vec<f64> = (0..m).map(|j| (0..n).map(|i| error[i * m + j] * p[i]).sum()).collect();
                (0..n * m).for_each(|k| error[k] -= p[k / m] * own[k % m]);
            }
            for (sums, _) in &ranks {
                for k in 0..params.master().numel() {
                    let expected = match k.checked_sub(range.start).filter(|k| *k < n * m) {
                        Some(k) => p[k / m] * q[k % m],
                        None => f64::from(gradients[0][k] + gradients[1][k]),
                    };
                    let found = f64::from(sums[update][k]);
                    assert!((found - expected).abs() < 1e-4, "update {update}, {k}: {found}, {expected}");
                }
            }
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
        let other = LowRank::new(&params(), 1, &BTreeMap::from([("q.large".into(), Array::new(&[1], &[1.0_f32]))]));
        assert_eq!(to_vec(&other.matrices[0].q), to_vec(&LowRank::new(&params(), 1, &BTreeMap::new()).matrices[0].q));
    }

    /// A gradient of 0 gives 0, and does not end the approximation of later ones. One that is not finite is not hidden.
    #[test]
    fn zeros_and_nan() {
        let mut low_rank = LowRank::new(&params(), 1, &BTreeMap::new());
        let len = params().master().numel();
        let mut sum = |values: Vec<f32>| {
            let flat = Tensor::from_slice(&values);
            low_rank.sum(&flat, None, |_| Ok(())).unwrap();
            to_vec(&flat)
        };
        assert_eq!(sum(vec![0.0; len]), vec![0.0; len]);
        let rank_one = vec![2.0; len];
        assert!(sum(rank_one.clone()).iter().zip(&rank_one).all(|(a, b)| (a - b).abs() < 1e-4));
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
