//! Trick 22: features of a character model trained without labels, for a task with few labels.

use super::sequences::adam;
use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::stack::StackConfig;
use playfield_tricks::char_rnn::{CharRnn, CharRnnConfig, Streams};
use playfield_tricks::data::{Sentiment, reviews};
use playfield_tricks::probe::Probe;
use rand::seq::SliceRandom as _;
use tch::Tensor;

const RANDOM: &str = "random LSTM";
const TRAINED: &str = "pre-trained";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 22,
    name: "char-features",
    about: "features of a character model pre-trained on unlabeled text, for a linear probe",
    source: "Radford, Józefowicz and Sutskever 2017, Learning to Generate Reviews and Discovering Sentiment",
    data: "2455 sentences of product reviews, positive or negative (vaderSentiment 3.3.2's); pre-trained on all 3708 except the test set",
    verified_by: "crates/tricks/tests/char_rnn.rs: the_loss_decreases_and_features_are_deterministic",
    metric: "accuracy of the probe on 500 held-out sentences, %",
    better: Better::Higher,
    baseline: RANDOM,
    with: &[TRAINED],
    timed: false,
    run,
};

const UPDATES: u64 = 1500;

fn run(trial: &mut Trial) -> Result<()> {
    let mut all = reviews();
    all.shuffle(&mut trial.rng("split"));
    let (mut test, mut rest) = (Vec::new(), Vec::new());
    for review in all {
        let into = if review.0 != Sentiment::Mixed && test.len() < 500 { &mut test } else { &mut rest };
        into.push(review);
    }
    let text: String = rest.iter().map(|(_, text)| format!("{text}\n")).collect();
    rest.retain(|(sentiment, _)| *sentiment != Sentiment::Mixed);
    let labels = |of: &[(Sentiment, &str)]| of.iter().map(|r| i64::from(r.0 == Sentiment::Positive)).collect();
    let (learn, judge): (Vec<i64>, Vec<i64>) = (labels(&rest), labels(&test));
    // The accuracy of always predicting the majority class.
    let positive = judge.iter().sum::<i64>() as f64 / judge.len() as f64;
    trial.record("majority class", 100.0 * positive.max(1.0 - positive));

    let stack = StackConfig { width: 128, ..StackConfig::default() };
    let mut network = CharRnn::new(&CharRnnConfig { stack, ..CharRnnConfig::default() }, &mut trial.rng("init"))?;
    let probed = |network: &CharRnn| -> Result<f64> {
        let probe = Probe::fit(&features(network, &rest)?, &learn, 2, 1e-2, 300)?;
        Ok(100.0 * probe.accuracy(&features(network, &test)?, &judge))
    };
    trial.axes("updates of the character model", "accuracy of the probe, %");
    let at_random = probed(&network)?;
    trial.record(RANDOM, at_random);
    trial.point(TRAINED, 0.0, at_random);
    let (mut optimizer, mut streams) = (adam(&network.params), Streams::new(text.as_bytes(), 32, 50)?);
    let mut rng = trial.rng("dropout");
    for update in 1..=UPDATES {
        let left = 1.0 - update as f64 / UPDATES as f64;
        network.train(&mut streams, &mut optimizer, 4e-3 * left, 1.0, &mut rng)?;
        if update % (UPDATES / 5) == 0 {
            let accuracy = probed(&network)?;
            trial.point(TRAINED, update as f64, accuracy);
            if update == UPDATES {
                trial.record(TRAINED, accuracy);
            }
        }
    }
    Ok(())
}

/// The features of each sentence, computed a few hundred at a time, sorted by length.
fn features(network: &CharRnn, reviews: &[(Sentiment, &str)]) -> Result<Tensor> {
    let mut order: Vec<usize> = (0..reviews.len()).collect();
    order.sort_by_key(|&i| reviews[i].1.len());
    let mut parts = Vec::new();
    for some in order.chunks(256) {
        let texts: Vec<&[u8]> = some.iter().map(|&i| reviews[i].1.as_bytes()).collect();
        parts.push(network.features(&texts)?);
    }
    let mut place = vec![0_i64; order.len()];
    order.iter().zip(0..).for_each(|(&i, at)| place[i] = at);
    Ok(Tensor::cat(&parts, 0).index_select(0, &Tensor::from_slice(&place)))
}
