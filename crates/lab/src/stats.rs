//! Statistics of a few repetitions: medians, quantiles, and an exact test.
//!
//! Five values cannot be assumed to be normally distributed, and one failed run can dominate a mean, so values are compared by
//! rank (Mann and Whitney 1947). The test is exact, including ties: it counts the splits of the pooled values into two groups
//! that are at least as extreme as the observed one. Variants share seeds (data, initial weights); the test does not use the
//! pairing and is therefore conservative. Variants of one trick are tested separately, without correction for their number.

use crate::Better;
pub use playfield_report::stats::{median, quantile};
use serde::{Deserialize, Serialize};

/// The significance level.
pub const LEVEL: f64 = 0.05;

/// The result of a comparison with the baseline, on this data and at this scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better than the baseline.
    Helps,
    /// No significant difference.
    NoEffectSeen,
    /// Worse than the baseline.
    Hurts,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Helps => "helps, here",
            Self::NoEffectSeen => "no effect seen, here",
            Self::Hurts => "hurts, here",
        })
    }
}

/// The p-value of the exact two-sided Mann-Whitney test: the probability that the rank sum of a random split of all values into
/// groups of these sizes is at least as far from its mean as the observed one. 1 if a group is empty.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let mut pooled: Vec<f64> = a.iter().chain(b).copied().collect();
    pooled.sort_by(f64::total_cmp);
    // Twice the rank, so that the mean rank of tied values is whole.
    let rank = |v: f64| pooled.partition_point(|p| *p < v) + pooled.partition_point(|p| *p <= v) + 1;
    let ranks: Vec<usize> = pooled.iter().map(|v| rank(*v)).collect();
    let (n, total) = (a.len(), ranks.iter().sum::<usize>());
    // ways[k][s]: in how many ways k of the values so far have twice the rank sum s.
    let mut ways = vec![vec![0.0_f64; total + 1]; n + 1];
    ways[0][0] = 1.0;
    for (seen, &r) in ranks.iter().enumerate() {
        for k in (1..=n.min(seen + 1)).rev() {
            for s in (r..=total).rev() {
                ways[k][s] += ways[k - 1][s - r];
            }
        }
    }
    // Distances from the mean n/(n + m) of the total, times n + m, so that all is whole.
    let uneven = |sum: usize| (sum * pooled.len()).abs_diff(total * n);
    let seen = uneven(a.iter().map(|v| rank(*v)).sum());
    let (all, extreme) = (ways[n].iter().sum::<f64>(), ways[n].iter().enumerate());
    extreme.filter(|(s, _)| uneven(*s) >= seen).map(|(_, w)| w).sum::<f64>() / all
}

/// Compares `with` with `baseline`: the verdict and its p-value.
pub fn verdict(baseline: &[f64], with: &[f64], better: Better) -> (Verdict, f64) {
    let p = mann_whitney(with, baseline);
    // The number of pairs in which the value with the trick is larger, minus the number in which it is smaller.
    let pairs = with.iter().flat_map(|w| baseline.iter().map(move |b| w.partial_cmp(b)));
    let larger: i64 = pairs.map(|order| order.map_or(0, |o| o as i64)).sum();
    let verdict = match (p <= LEVEL, (larger > 0) == (better == Better::Higher)) {
        (false, _) => Verdict::NoEffectSeen,
        (true, true) => Verdict::Helps,
        (true, false) => Verdict::Hurts,
    };
    (verdict, p)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition by exhaustive enumeration of all splits.
    fn enumerated(a: &[f64], b: &[f64]) -> f64 {
        let pooled: Vec<f64> = a.iter().chain(b).copied().collect();
        let half_pairs = |inside: &dyn Fn(usize) -> bool| -> i64 {
            let pairs = (0..pooled.len()).flat_map(|i| (0..pooled.len()).map(move |j| (i, j)));
            let compared = pairs.filter(|&(i, j)| inside(i) && !inside(j));
            compared.map(|(i, j)| pooled[i].total_cmp(&pooled[j]) as i64).sum()
        };
        let seen = half_pairs(&|i| i < a.len()).abs();
        let splits = (0_u32..1 << pooled.len()).filter(|s| s.count_ones() as usize == a.len());
        let uneven: Vec<bool> = splits.map(|s| half_pairs(&|i| s >> i & 1 == 1).abs() >= seen).collect();
        uneven.iter().filter(|u| **u).count() as f64 / uneven.len() as f64
    }

    #[test]
    fn the_p_value_equals_exhaustive_enumeration() {
        let groups: [(&[f64], &[f64]); 6] = [
            (&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]),
            (&[1.0, 3.0, 5.0, 7.0, 9.0], &[2.0, 4.0, 6.0, 8.0, 10.0]),
            (&[1.0, 1.0, 2.0, 2.0], &[2.0, 2.0, 3.0]),
            (&[5.0, 5.0, 5.0], &[5.0, 5.0]),
            (&[1.0, f64::INFINITY, 2.0], &[f64::INFINITY, f64::INFINITY, 7.0, 3.0]),
            (&[4.0], &[1.0, 2.0, 3.0]),
        ];
        for (a, b) in groups {
            let (exact, slow) = (mann_whitney(a, b), enumerated(a, b));
            assert!((exact - slow).abs() < 1e-12, "{a:?}, {b:?}: {exact}, {slow}");
            assert!((exact - mann_whitney(b, a)).abs() < 1e-12, "the test is symmetric");
        }
        // Published: two groups of five that don't overlap have p = 2/252.
        assert!((mann_whitney(groups[0].0, groups[0].1) - 2.0 / 252.0).abs() < 1e-12);
    }

    #[test]
    fn the_verdict_depends_on_the_direction_of_the_metric() {
        let (low, high) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        assert_eq!(verdict(&low, &high, Better::Higher).0, Verdict::Helps);
        assert_eq!(verdict(&low, &high, Better::Lower).0, Verdict::Hurts);
        assert_eq!(verdict(&high, &low, Better::Lower).0, Verdict::Helps);
        assert_eq!(verdict(&low, &low, Better::Lower), (Verdict::NoEffectSeen, 1.0));
        // Three seeds can't show anything at this level: 2/20.
        assert_eq!(verdict(&low[..3], &high[..3], Better::Higher).0, Verdict::NoEffectSeen);
    }
}
