//! A group of processes that train one policy together, each with a part of the environments (data-parallel training).
//!
//! Process `rank` of `world_size` joins the group. Every operation is collective: all ranks call the same operations in the same
//! order, and each call blocks until the data of the others has arrived. `crates/distributed` implements [`Group`] on libtorch's c10d;
//! [`SingleProcess`] is the group of a run in one process, in which nothing is exchanged.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

/// How [`Group::all_reduce`] combines the values of all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum.
    Sum,
    /// Their maximum.
    Max,
}

/// The `[distributed]` section: settings of training in several processes. One process ignores them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The precision in which the ranks exchange gradients.
    pub gradient_precision: GradientPrecision,
    /// Whether PAAC's ranks collect the next rollout while they exchange a gradient, and apply it after that. The actions of a rollout
    /// are then those of the parameters before the last update; no gradient is stale.
    pub overlap_exchange: bool,
    /// The rank of the approximation of large gradient matrices that the ranks exchange instead of them (ACP-SGD: Zhang et al. 2023,
    /// arXiv:2306.08881); 0: they exchange whole gradients, as they must with `overlap_exchange`.
    pub gradient_rank: usize,
}

impl Config {
    /// Refuses `overlap_exchange`, for algorithms with several updates per rollout. Their exchange could only overlap with the computation
    /// of the next gradient, which then is one update stale: measured to harm learning (docs/scale-out.md).
    ///
    /// # Errors
    /// [`Error::Config`] where it is set and `group` has several processes.
    pub fn refuse_overlap(&self, group: &dyn Group) -> Result<()> {
        match self.overlap_exchange && group.is_distributed() {
            true => Err(Error::config("`distributed.overlap_exchange` must be false: it is for PAAC only")),
            false => Ok(()),
        }
    }
}

/// The precision in which the ranks exchange gradients. Each keeps parameters, optimizer state and running statistics in fp32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GradientPrecision {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// bfloat16, half of the bytes, as PyTorch's `bf16_compress_hook`. Each rank's gradient is rounded, and so is the sum, which is
    /// computed in fp32: two relative errors of at most 2⁻⁸. No value overflows, because bfloat16 has the exponents of fp32.
    Bf16,
}

/// The processes that train together, as one of them sees it.
///
/// An operation fails where a rank has ended, or does not respond within the group's timeout. The group cannot be used afterwards.
pub trait Group: Debug + Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn world_size(&self) -> usize;

    /// Replaces each value by the sum or the maximum of that of all ranks. Every rank gets the same bits.
    ///
    /// # Errors
    /// [`Error::Group`].
    fn all_reduce(&self, values: &mut [f64], reduce: Reduce) -> Result<()>;

    /// Replaces each value by the sum of that of all ranks, exchanged in `precision`. Every rank gets the same bits.
    ///
    /// # Errors
    /// [`Error::Group`].
    fn sum(&self, values: &mut [f32], precision: GradientPrecision) -> Result<()>;

    /// Starts a [`sum`](Self::sum) in the background: this process may compute and call other operations meanwhile.
    /// [`finish_sum`](Self::finish_sum) returns it, and must be called before the next one is started. `values` are this rank's.
    ///
    /// # Errors
    /// [`Error::Group`].
    ///
    /// # Panics
    /// If the group has no such operation: a bug of the caller.
    fn start_sum(&self, _values: Vec<f32>, _precision: GradientPrecision) -> Result<()> {
        panic!("this group does not sum in the background")
    }

    /// Waits for the sum that was started, and returns it: as many values, the same bits on every rank.
    ///
    /// # Errors
    /// [`Error::Group`].
    ///
    /// # Panics
    /// If none was started: a bug of the caller.
    fn finish_sum(&self) -> Result<Vec<f32>> {
        panic!("no sum was started")
    }

    /// Tells the group that this rank's gradients lie in the memory of the CUDA device `cuda`, or, with `None`, in that of the host.
    /// Every rank calls it before training. Where each has a device of its own, their gradients can stay there:
    /// [`sums_on_device`](Self::sums_on_device).
    ///
    /// # Errors
    /// [`Error::Group`].
    fn set_device(&self, _cuda: Option<usize>) -> Result<()> {
        Ok(())
    }

    /// Whether [`sum_on_device`](Self::sum_on_device) takes gradients; else they go through the memory of the host. The same on all
    /// ranks.
    fn sums_on_device(&self) -> bool {
        false
    }

    /// [`sum`](Self::sum) of a contiguous fp32 `tch::Tensor` where it lies. (This crate does without libtorch; hence `Any`.)
    ///
    /// # Errors
    /// [`Error::Group`].
    ///
    /// # Panics
    /// If the group does not sum on devices, or for another type: a bug of the caller.
    fn sum_on_device(&self, _tensor: &mut dyn Any, _precision: GradientPrecision) -> Result<()> {
        panic!("this group sums in the memory of the host")
    }

    /// Replaces `bytes` by those of rank 0.
    ///
    /// # Errors
    /// [`Error::Group`].
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()>;

    /// Sends `bytes` to rank 0, which gets those of every rank, in order. The other ranks get an empty list.
    ///
    /// # Errors
    /// [`Error::Group`].
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// [`Error::Group`].
    fn barrier(&self) -> Result<()> {
        self.all_reduce(&mut [0.0], Reduce::Sum)
    }

    /// Tells the other ranks that this one ends because of an error, `reason`: it is part of the errors that they get.
    fn leave(&self, _reason: &str) {}
}

impl dyn Group + '_ {
    /// Whether there are several processes.
    pub fn is_distributed(&self) -> bool {
        self.world_size() > 1
    }

    /// Whether `value` is true on some rank.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub fn any(&self, value: bool) -> Result<bool> {
        let mut flag = [f64::from(u8::from(value))];
        self.all_reduce(&mut flag, Reduce::Max)?;
        Ok(flag[0] > 0.0)
    }

    /// The mean of `value` over the ranks.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub fn mean(&self, value: f64) -> Result<f64> {
        let mut sum = [value];
        self.all_reduce(&mut sum, Reduce::Sum)?;
        Ok(sum[0] / self.world_size() as f64)
    }

    /// This rank's part of `total`, the value of the setting `key` for the whole group.
    ///
    /// # Errors
    /// [`Error::Config`] if the ranks cannot get equal parts.
    pub fn share(&self, key: &str, total: usize) -> Result<usize> {
        let ranks = self.world_size();
        match total % ranks {
            0 if total > 0 => Ok(total / ranks),
            _ => Err(Error::config(format!(
                "`{key}` = {total} must be a multiple of the number of processes, {ranks}: it is divided among them"
            ))),
        }
    }

    /// The seed of this rank's random streams in a run with seed `seed`; rank 0 has the run's own.
    pub fn seed(&self, seed: u64) -> u64 {
        match self.rank() {
            0 => seed,
            rank => crate::rng::derive(seed, "rank", rank as u64),
        }
    }
}

/// The group of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProcess;

impl SingleProcess {
    /// The group as it is shared by the parts of a run.
    pub fn shared() -> Arc<dyn Group> {
        Arc::new(Self)
    }
}

impl Group for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _values: &mut [f64], _reduce: Reduce) -> Result<()> {
        Ok(())
    }

    fn sum(&self, _values: &mut [f32], _precision: GradientPrecision) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _bytes: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The rank whose operations fail.
    const FAILING: usize = 7;

    /// A rank and the number of ranks of a group without connections.
    #[derive(Debug)]
    pub(crate) struct Rank(pub usize, pub usize);

    impl Group for Rank {
        fn rank(&self) -> usize {
            self.0
        }
        fn world_size(&self) -> usize {
            self.1
        }
        /// Every other rank has the value 2.
        fn all_reduce(&self, values: &mut [f64], reduce: Reduce) -> Result<()> {
            if self.0 == FAILING {
                return Err(Error::other("the connection is lost"));
            }
            let others = (self.1 - 1) as f64;
            values.iter_mut().for_each(|x| match reduce {
                Reduce::Sum => *x += 2.0 * others,
                Reduce::Max if self.1 > 1 => *x = x.max(0.0),
                Reduce::Max => {}
            });
            Ok(())
        }
        fn sum(&self, _: &mut [f32], _: GradientPrecision) -> Result<()> {
            unreachable!()
        }
        fn broadcast(&self, _: &mut Vec<u8>) -> Result<()> {
            unreachable!()
        }
        fn gather(&self, _: Vec<u8>) -> Result<Vec<Vec<u8>>> {
            unreachable!()
        }
    }

    #[test]
    fn totals_are_divided_into_equal_parts() {
        let share = |total, ranks| (&Rank(0, ranks) as &dyn Group).share("env.num_envs", total);
        assert_eq!((share(8, 2).unwrap(), share(8, 1).unwrap()), (4, 8));
        for (total, ranks) in [(9, 2), (0, 2), (1, 2)] {
            let message = share(total, ranks).unwrap_err().to_string();
            assert!(message.contains("`env.num_envs`") && message.contains("processes, 2"), "{message}");
        }
    }

    #[test]
    fn ranks_have_different_seeds_and_rank_0_that_of_the_run() {
        let seed = |rank| (&Rank(rank, 4) as &dyn Group).seed(7);
        assert_eq!(seed(0), 7);
        assert!(seed(1) != 7 && seed(1) != seed(2));
    }

    /// This rank has 5, each of the three others 2: a mean of 11/4. No other rank has a true flag.
    #[test]
    fn flags_and_means_of_all_ranks() {
        let (four, one) = (Rank(0, 4), Rank(0, 1));
        let (four, one): (&dyn Group, &dyn Group) = (&four, &one);
        assert_eq!((four.is_distributed(), one.is_distributed()), (true, false));
        assert_eq!((four.mean(5.0).unwrap(), one.mean(5.0).unwrap()), (2.75, 5.0));
        assert_eq!([true, false].map(|flag| four.any(flag).unwrap()), [true, false]);
        assert!(four.barrier().is_ok() && Rank(FAILING, 8).barrier().is_err());
        assert!(!four.sums_on_device() && four.set_device(Some(1)).is_ok());
    }

    #[test]
    fn one_process_exchanges_nothing() {
        let alone = SingleProcess::shared();
        assert_eq!((alone.rank(), alone.world_size()), (0, 1));
        assert_eq!(alone.gather(vec![3, 4]).unwrap(), [[3, 4]]);
        let (mut values, mut gradient, mut bytes) = ([1.0, 2.0], [3.0_f32], vec![5]);
        alone.all_reduce(&mut values, Reduce::Max).unwrap();
        alone.sum(&mut gradient, GradientPrecision::Bf16).unwrap();
        alone.broadcast(&mut bytes).unwrap();
        assert_eq!((values, gradient, bytes), ([1.0, 2.0], [3.0], vec![5]));
    }
}
