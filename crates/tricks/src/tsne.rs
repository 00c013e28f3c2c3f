//! t-SNE: a two-dimensional map of feature vectors that preserves neighborhoods (van der Maaten and Hinton 2008).
//!
//! ```text
//! p_{j|i} ∝ exp(−‖x_i − x_j‖² / 2σ_i²)      σ_i gives row i the configured perplexity, 2^entropy
//! p_ij = (p_{j|i} + p_{i|j}) / 2n
//! q_ij ∝ 1 / (1 + ‖y_i − y_j‖²)             neighborhoods in the map, heavy-tailed
//! ∂KL(P‖Q)/∂y_i = 4 Σ_j (p_ij − q_ij)(y_i − y_j) / (1 + ‖y_i − y_j‖²)
//! ```
//!
//! The perplexity is roughly the number of neighbors of a point: 5 to 50, larger for more data, and less than the number of points.
//! Gradient descent, early exaggeration and gains are those of scikit-learn, and a test compares the divergence with it.
//!
//! **How to read a map.** Only local neighborhoods are meaningful. Sizes of clusters, distances between them and the orientation are
//! not, and at a low perplexity even random data has clusters. Compare several perplexities and seeds (Wattenberg, Viégas and
//! Johnson 2016, *How to Use t-SNE Effectively*).
//!
//! This is the exact algorithm: time and memory grow quadratically, which limits it to a few thousand points. A map cannot be used as
//! features: t-SNE does not map new points.

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::RngExt as _;
use rand_distr::StandardNormal;

/// The settings of [`tsne`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TsneConfig {
    /// Roughly the number of neighbors of a point.
    pub perplexity: f64,
    /// Steps of gradient descent.
    pub iterations: usize,
    /// Number of initial steps with exaggerated affinities, which form clusters early …
    pub exaggerated: usize,
    /// … and the factor of exaggeration.
    pub exaggeration: f64,
    /// The learning rate; 0: max(n / exaggeration / 4, 50), as recommended by Belkina et al. 2019.
    pub learning_rate: f64,
}

impl Default for TsneConfig {
    fn default() -> Self {
        Self { perplexity: 30.0, iterations: 1000, exaggerated: 250, exaggeration: 12.0, learning_rate: 0.0 }
    }
}

/// The result of [`tsne`].
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// A point for each row.
    pub points: Vec<[f64; 2]>,
    /// The final KL(P‖Q), in nats.
    pub divergence: f64,
    /// A warning about unusual settings.
    pub warning: Option<String>,
}

/// A map of `rows`, concatenated vectors with the given number of `features`.
///
/// # Errors
/// [`Error::Config`] if there are fewer than two rows, a row is incomplete, a number is not finite, or the perplexity is less than 1
/// or not less than the number of rows.
pub fn tsne(rows: &[f32], features: usize, config: &TsneConfig, rng: &mut Rng) -> Result<Map> {
    tsne_unless(rows, features, config, rng, || false).map(|map| map.expect("it is never stopped"))
}

/// The same unless `stop` returns true, which is asked before each point's affinities and each iteration: then `None`.
///
/// # Errors
/// As [`tsne`].
pub fn tsne_unless(
    rows: &[f32],
    features: usize,
    config: &TsneConfig,
    rng: &mut Rng,
    stop: impl Fn() -> bool,
) -> Result<Option<Map>> {
    let TsneConfig { perplexity, iterations, exaggerated, exaggeration, learning_rate } = *config;
    let Some((p, n)) = affinities(rows, features, perplexity, &stop)? else { return Ok(None) };
    let warning = (!(5.0..=50.0).contains(&perplexity))
        .then(|| format!("a perplexity of {perplexity} is outside 5 to 50: consider {}", perplexity.clamp(5.0, 50.0)));
    let learning_rate = if learning_rate > 0.0 { learning_rate } else { (n as f64 / exaggeration / 4.0).max(50.0) };
    let mut y: Vec<[f64; 2]> = (0..n).map(|_| [0, 1].map(|_| 1e-4 * rng.sample::<f64, _>(StandardNormal))).collect();
    let (mut velocity, mut gains) = (vec![[0.0_f64; 2]; n], vec![[1.0_f64; 2]; n]);
    let mut near = vec![0.0; n * n];
    for iteration in 0..iterations {
        if stop() {
            return Ok(None);
        }
        let (factor, momentum) = if iteration < exaggerated { (exaggeration, 0.5) } else { (1.0, 0.8) };
        let sum = neighborhoods(&y, &mut near);
        let mut moved = y.clone();
        for i in 0..n {
            let mut gradient = [0.0; 2];
            let (p, near) = (&p[i * n..(i + 1) * n], &near[i * n..(i + 1) * n]);
            for ((p, near), other) in p.iter().zip(near).zip(&y) {
                let pull = (factor * p - near / sum) * near;
                gradient[0] += pull * (y[i][0] - other[0]);
                gradient[1] += pull * (y[i][1] - other[1]);
            }
            for k in 0..2 {
                let (gradient, gain, velocity) = (4.0 * gradient[k], &mut gains[i][k], &mut velocity[i][k]);
                *gain = (if gradient * *velocity < 0.0 { *gain + 0.2 } else { *gain * 0.8 }).max(0.01);
                *velocity = momentum * *velocity - learning_rate * *gain * gradient;
                moved[i][k] += *velocity;
            }
        }
        y = moved;
    }
    let sum = neighborhoods(&y, &mut near);
    let terms = p.iter().zip(&near).filter(|(p, _)| **p > 0.0);
    let divergence = terms.map(|(p, near)| p * (p / (near / sum).max(f64::MIN_POSITIVE)).ln()).sum();
    Ok(Some(Map { points: y, divergence, warning }))
}

/// 1/(1 + ‖y_i − y_j‖²) of all pairs, 0 of a point with itself; returns their sum.
fn neighborhoods(y: &[[f64; 2]], near: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    for (i, (a, row)) in y.iter().zip(near.chunks_exact_mut(y.len())).enumerate() {
        for (b, near) in y.iter().zip(&mut *row) {
            *near = 1.0 / (1.0 + (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2));
        }
        row[i] = 0.0;
        sum += row.iter().sum::<f64>();
    }
    sum
}

/// p_ij, `[n, n]`, and n; `None` once `stop` returns true.
fn affinities(
    rows: &[f32],
    features: usize,
    perplexity: f64,
    stop: impl Fn() -> bool,
) -> Result<Option<(Vec<f64>, usize)>> {
    if features == 0 || !rows.len().is_multiple_of(features) || rows.len() < 2 * features {
        let numbers = rows.len();
        return Err(Error::config(format!("t-SNE: {numbers} numbers are not two or more rows of {features}")));
    }
    let n = rows.len() / features;
    if !(perplexity >= 1.0 && perplexity < n as f64) {
        return Err(Error::config(format!(
            "t-SNE: `perplexity` = {perplexity} must be at least 1 and less than the number of points, {n}"
        )));
    }
    if let Some(x) = rows.iter().find(|x| !x.is_finite()) {
        return Err(Error::config(format!("t-SNE: {x} among the numbers: all must be finite")));
    }
    let mut conditional = vec![0.0; n * n];
    for (i, p) in conditional.chunks_exact_mut(n).enumerate() {
        if stop() {
            return Ok(None);
        }
        let row = |i: usize| &rows[i * features..(i + 1) * features];
        let distance = |j| row(i).iter().zip(row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let distances: Vec<f64> = (0..n).map(distance).collect();
        neighbors(&distances, i, perplexity, p);
    }
    let mut joint = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            joint[i * n + j] = (conditional[i * n + j] + conditional[j * n + i]) / (2 * n) as f64;
        }
    }
    Ok(Some((joint, n)))
}

/// p_{j|i} by the squared `distances` from point `i`: the precision 1/2σ² is found by bisection.
fn neighbors(distances: &[f64], i: usize, perplexity: f64, p: &mut [f64]) {
    let target = perplexity.ln();
    // The subtracted minimum, 0 for duplicates, cancels in the normalization.
    let others = distances.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, d)| *d);
    let nearest = others.fold(f64::INFINITY, f64::min);
    let (mut low, mut high, mut precision) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..200 {
        for (j, (p, d)) in p.iter_mut().zip(distances).enumerate() {
            *p = if j == i { 0.0 } else { (-precision * (d - nearest)).exp() };
        }
        let sum: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
        let entropy: f64 = -p.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
        if (entropy - target).abs() < 1e-10 {
            break;
        }
        if entropy > target {
            low = precision
        } else {
            high = precision
        }
        precision = if high.is_finite() { (low + high) / 2.0 } else { 2.0 * precision };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;

    fn random(n: usize, features: usize) -> Vec<f32> {
        let mut rng = stream(3, "rows");
        (0..n * features).map(|_| rng.sample::<f32, _>(StandardNormal)).collect()
    }

    /// 2^entropy of each row equals the configured perplexity.
    #[test]
    fn every_row_has_the_perplexity() {
        let (n, features) = (60, 5);
        let rows = random(n, features);
        for perplexity in [2.0, 10.0, 30.0, 55.0] {
            for i in 0..n {
                let row = |i: usize| &rows[i * features..(i + 1) * features];
                let distance = |j| row(i).iter().zip(row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                let (distances, mut p) = ((0..n).map(distance).collect::<Vec<_>>(), vec![0.0; n]);
                neighbors(&distances, i, perplexity, &mut p);
                let bits: f64 = -p.iter().filter(|p| **p > 0.0).map(|p| p * p.log2()).sum::<f64>();
                assert!((bits - perplexity.log2()).abs() < 1e-8, "{perplexity}: {bits} bits");
                assert!(p[i] == 0.0 && (p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn affinities_are_symmetric_and_sum_to_one() {
        let (p, n) = affinities(&random(40, 3), 3, 8.0, || false).unwrap().unwrap();
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((0..n).all(|i| (0..n).all(|j| p[i * n + j] == p[j * n + i])));
    }

    /// Optimization halves the divergence, and the nearest neighbor of each point is from its own cluster.
    #[test]
    fn the_divergence_decreases_and_clusters_separate() {
        let mut rows = random(90, 4);
        rows.chunks_exact_mut(4).enumerate().for_each(|(i, row)| row[i % 3] += 12.0);
        let config = TsneConfig { perplexity: 10.0, iterations: 500, ..TsneConfig::default() };
        let map = tsne(&rows, 4, &config, &mut stream(1, "map")).unwrap();
        let early = TsneConfig { iterations: 0, ..config };
        assert!(map.divergence < 0.5 * tsne(&rows, 4, &early, &mut stream(1, "map")).unwrap().divergence);
        let square = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2);
        for (i, a) in map.points.iter().enumerate() {
            let others = map.points.iter().enumerate().filter(|(j, _)| *j != i);
            let nearest = others.min_by(|x, y| square(*a, *x.1).total_cmp(&square(*a, *y.1))).unwrap().0;
            assert_eq!(nearest % 3, i % 3, "the neighbor of {i} is of its cluster");
        }
        assert_eq!(map, tsne(&rows, 4, &config, &mut stream(1, "map")).unwrap(), "the same seed, the same map");
    }

    /// It is asked 20 times for the affinities of 20 points, and then once per iteration.
    #[test]
    fn a_stopped_map_is_none() {
        let (rows, config) = (random(20, 3), TsneConfig { perplexity: 5.0, ..TsneConfig::default() });
        for (after, expected) in [(0, 1), (10, 11), (30, 31)] {
            let calls = std::cell::Cell::new(0);
            let stop = || calls.replace(calls.get() + 1) == after;
            let map = tsne_unless(&rows, 3, &config, &mut stream(1, "map"), stop).unwrap();
            assert_eq!((map, calls.get()), (None, expected));
        }
    }

    #[test]
    fn duplicate_points_give_a_finite_map() {
        let map = tsne(&[1.0; 40], 2, &TsneConfig { perplexity: 5.0, ..TsneConfig::default() }, &mut stream(1, "map"));
        assert!(map.unwrap().points.iter().flatten().all(|x| x.is_finite()));
    }

    #[test]
    fn invalid_settings_are_errors_and_unusual_ones_give_a_warning() {
        let rows = random(20, 3);
        let at =
            |perplexity| tsne(&rows, 3, &TsneConfig { perplexity, ..TsneConfig::default() }, &mut stream(1, "map"));
        for perplexity in [20.0, 100.0, 0.5, f64::NAN] {
            let error = at(perplexity).unwrap_err().to_string();
            assert!(error.contains(&format!("`perplexity` = {perplexity}")) && error.contains("20"), "{error}");
        }
        assert!(at(3.0).unwrap().warning.unwrap().contains("outside 5 to 50"));
        assert_eq!(at(10.0).unwrap().warning, None);
        let config = TsneConfig { perplexity: 2.0, ..TsneConfig::default() };
        assert!(tsne(&rows[..7], 3, &config, &mut stream(1, "map")).is_err());
        assert!(tsne(&[f32::NAN; 30], 3, &config, &mut stream(1, "map")).unwrap_err().to_string().contains("NaN"));
    }
}
