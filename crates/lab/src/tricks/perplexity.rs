//! Trick 3: t-SNE maps at several perplexities.

use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_tricks::data::digits;
use playfield_tricks::tsne::{Map, TsneConfig, tsne};

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 3,
    name: "perplexity",
    about: "t-SNE with a perplexity between 5 and 50, larger for more data, less than the number of points",
    source: "van der Maaten and Hinton 2008; Wattenberg, Viégas and Johnson 2016",
    data: "300 digits (toy). Cluster sizes and distances between clusters are not meaningful: compare the two initializations of each perplexity",
    verified_by: "crates/tricks/src/tsne.rs: every_row_has_the_perplexity; crates/tricks/tests/tsne.rs: maps_match_the_divergence_of_scikit_learn",
    metric: "share of points whose nearest neighbor on the map has the same class",
    better: Better::Higher,
    baseline: "2",
    with: &["5", "30", "50"],
    timed: false,
    run,
};

const POINTS: usize = 300;

fn run(trial: &mut Trial) -> Result<()> {
    let (data, _) = digits().split(1.0 - POINTS as f64 / 1797.0, &mut trial.rng("split"))?;
    let classes: Vec<u8> = data.labels.iter().map(|&label| label as u8).collect();
    for start in ["one start", "another start"] {
        for perplexity in [2, 5, 30, 50, 150, 299] {
            let config = TsneConfig { perplexity: f64::from(perplexity), ..TsneConfig::default() };
            let map = tsne(&data.inputs, data.features, &config, &mut trial.rng(start))?;
            if start == "one start" {
                trial.record(&perplexity.to_string(), kindred(&map, &classes));
            }
            if [2, 30, 150].contains(&perplexity) {
                trial.scatter(&format!("perplexity {perplexity}, {start}"), &map.points, &classes);
            }
        }
    }
    Ok(())
}

/// The share of points whose nearest neighbor has the same class.
fn kindred(map: &Map, classes: &[u8]) -> f64 {
    let points = &map.points;
    let distance = |i: usize, j: usize| (points[i][0] - points[j][0]).powi(2) + (points[i][1] - points[j][1]).powi(2);
    let nearest = |i: usize| {
        (0..points.len()).filter(|&j| j != i).min_by(|&a, &b| distance(i, a).total_cmp(&distance(i, b))).unwrap_or(i)
    };
    (0..points.len()).filter(|&i| classes[nearest(i)] == classes[i]).count() as f64 / points.len() as f64
}
