//! Trick 5: random search compared with grid search.

use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::config::{Activation, InitKind};
use playfield_tricks::classifier::{Config, Start, train};
use playfield_tricks::data::digits;
use playfield_tricks::lr_search::{Range, Scale};
use rand::RngExt as _;

const GRID: &str = "grid, 4 × 4";
const RANDOM: &str = "random, 16";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 5,
    name: "random-search",
    about: "learning rate and other hyperparameters are sampled on a log scale and compared after a few epochs",
    source: "Bergstra and Bengio 2012",
    data: "digits (toy): learning rate 1e-4 to 10 and weight decay 1e-7 to 1e-3, 16 trials of two epochs",
    verified_by: "crates/tricks/src/lr_search.rs: samples_follow_their_distribution",
    metric: "test error of the trial with the best validation error, %",
    better: Better::Lower,
    baseline: GRID,
    with: &[RANDOM],
    timed: false,
    run,
};

fn run(trial: &mut Trial) -> Result<()> {
    let (learn, test) = digits().split(0.3, &mut trial.rng("split"))?;
    let (data, validation) = learn.split(0.3, &mut trial.rng("validation"))?;
    let (rates, decays) = (Range::new(1e-4, 10.0, Scale::Log, false)?, Range::new(1e-7, 1e-3, Scale::Log, false)?);
    let mut rng = trial.rng("search");
    let random: Vec<_> = (0..16).map(|_| (rates.sample(&mut rng), decays.sample(&mut rng))).collect();
    // The grid is shifted randomly, so that its position does not decide the comparison.
    let shift = |range: &Range, i: usize, by: f64| range.at((i as f64 + by) / 4.0);
    let (by_rate, by_decay) = (rng.random(), rng.random());
    let grid: Vec<_> = (0..16).map(|i| (shift(&rates, i / 4, by_rate), shift(&decays, i % 4, by_decay))).collect();
    trial.axes("trials", "error on the validation set, best so far, %");
    for (variant, settings) in [(GRID, grid), (RANDOM, random)] {
        let mut best = (f64::INFINITY, f64::INFINITY);
        for (i, (learning_rate, weight_decay)) in settings.into_iter().enumerate() {
            let plain = Config::default();
            let config = Config {
                hidden: vec![64],
                activation: Activation::Relu,
                init: Start::Rule(InitKind::He),
                optimizer: plain.optimizer.with_weight_decay(weight_decay),
                learning_rate,
                ..plain
            };
            let net = train(&config, &data, trial.seed(), |p| p.epochs >= 2)?;
            let [on_validation, on_test] = [&validation, &test].map(|part| 100.0 * (1.0 - net.accuracy(part)));
            if on_validation < best.0 {
                best = (on_validation, on_test);
            }
            trial.point(variant, i as f64 + 1.0, best.0);
        }
        trial.record(variant, best.1);
    }
    Ok(())
}
