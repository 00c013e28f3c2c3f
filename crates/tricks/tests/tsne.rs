//! t-SNE against scikit-learn's exact method (`golden/tsne.py`).

use playfield_core::rng::stream;
use playfield_tricks::data::digits;
use playfield_tricks::tsne::{TsneConfig, tsne};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    perplexity: f64,
    divergences: Vec<f64>,
}

/// The smallest divergence of five maps is within 5 % of scikit-learn's, and the largest is below 1.2 times scikit-learn's.
#[test]
fn maps_match_the_divergence_of_scikit_learn() {
    let data = digits();
    let rows = &data.inputs[..150 * data.features];
    for golden in serde_json::from_str::<Vec<Golden>>(include_str!("golden/tsne.json")).unwrap() {
        let config = TsneConfig { perplexity: golden.perplexity, ..TsneConfig::default() };
        let ours = (0..5).map(|seed| tsne(rows, data.features, &config, &mut stream(seed, "map")).unwrap().divergence);
        let ours: Vec<f64> = ours.collect();
        let best = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
        let worst = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
        let message = format!("perplexity {}: {ours:?}, scikit-learn {:?}", golden.perplexity, golden.divergences);
        assert!((best(&ours) / best(&golden.divergences) - 1.0).abs() < 0.05, "{message}");
        assert!(worst(&ours) < 1.2 * worst(&golden.divergences), "{message}");
    }
}
