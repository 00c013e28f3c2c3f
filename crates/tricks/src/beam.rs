//! Beam search: approximates a decoder's most probable sequence.
//!
//! Greedy decoding takes the best token at each step and may miss the best sequence. A beam keeps the `width` best prefixes,
//! extends each by every token, and keeps the `width` best of the extensions.
//!
//! ```text
//! score(Y) = log P(Y) / lp(Y),   lp(Y) = ((5 + |Y|) / (5 + 1))^α        Wu et al. 2016, equation 14
//! ```
//!
//! Every further token makes a sequence less probable, so without a penalty (α = 0) short ones win; Britz et al. 2017 found
//! width 10 and α = 1 best for translation. |Y| counts the end token.
//!
//! With a width of at least V^(T−1), for V tokens and at most T steps, the search is exhaustive and finds the best
//! sequence. Not for tasks that *sample* (text generation, an exploring policy): the most probable text
//! is repetitive.

use playfield_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A decoder with batched states: one row per prefix.
pub trait Decoder {
    /// The decoder's state after each prefix.
    type State;

    /// The state of one empty prefix.
    fn start(&self) -> Self::State;

    /// Appends `tokens`, one per row. Returns the log-probabilities of the next token for each row, and the new
    /// state.
    ///
    /// # Errors
    /// Errors of the model.
    fn step(&self, state: &Self::State, tokens: &[i64]) -> Result<(Vec<Vec<f64>>, Self::State)>;

    /// The rows `rows` of `state`, in this order, any number of times each.
    fn select(&self, state: &Self::State, rows: &[usize]) -> Self::State;
}

/// The settings of a search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BeamConfig {
    /// Number of prefixes kept; 1 is greedy decoding, except for the length penalty.
    pub width: usize,
    /// α of the length penalty; 0: none.
    pub length_penalty: f64,
    /// The maximum number of tokens of a sequence, including the end token.
    pub max_steps: usize,
}

impl Default for BeamConfig {
    /// Width and penalty of Britz et al. 2017.
    fn default() -> Self {
        Self { width: 10, length_penalty: 1.0, max_steps: 100 }
    }
}

/// A sequence found by the search.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Its tokens; the last is the end token, unless `max_steps` was reached.
    pub tokens: Vec<i64>,
    /// log P of the sequence, in nats.
    pub log_prob: f64,
    /// log P divided by the length penalty, which the search maximizes.
    pub score: f64,
}

/// (5 + length)^α / 6^α.
pub fn length_penalty(length: usize, alpha: f64) -> f64 {
    ((5.0 + length as f64) / 6.0).powf(alpha)
}

/// The best sequences of `decoder` after the token `begin`, best first, at most `width`. They end with `end`; if no sequence ends
/// within `max_steps`, unfinished sequences are returned.
///
/// # Errors
/// [`Error::Config`] if the width or the steps are 0 or the penalty is negative; errors of the decoder.
pub fn search<D: Decoder>(decoder: &D, begin: i64, end: i64, config: &BeamConfig) -> Result<Vec<Hypothesis>> {
    let BeamConfig { width, length_penalty: alpha, max_steps } = *config;
    for (name, value) in [("width", width), ("max_steps", max_steps)] {
        if value == 0 {
            return Err(Error::config(format!("beam search: `{name}` = 0 must be at least 1")));
        }
    }
    if !(alpha >= 0.0 && alpha.is_finite()) {
        return Err(Error::config(format!("beam search: `length_penalty` = {alpha} must be at least 0")));
    }
    let hypothesis = |tokens: Vec<i64>, log_prob: f64| {
        let score = log_prob / length_penalty(tokens.len(), alpha);
        Hypothesis { tokens, log_prob, score }
    };
    let mut state = decoder.start();
    let mut live = vec![hypothesis(Vec::new(), 0.0)];
    let mut finished: Vec<Hypothesis> = Vec::new();
    for _ in 0..max_steps {
        let tokens: Vec<i64> = live.iter().map(|h| *h.tokens.last().unwrap_or(&begin)).collect();
        let (log_probs, after) = decoder.step(&state, &tokens)?;
        let mut longer = Vec::new();
        for (row, (prefix, log_probs)) in live.iter().zip(&log_probs).enumerate() {
            for (token, log_prob) in (0..).zip(log_probs) {
                let mut tokens = prefix.tokens.clone();
                tokens.push(token);
                let next = hypothesis(tokens, prefix.log_prob + log_prob);
                if token == end { finished.push(next) } else { longer.push((row, next)) }
            }
        }
        keep(&mut finished, width, |h| h.score);
        // All have the same length, so scores and log-probabilities have the same order.
        keep(&mut longer, width, |(_, h)| h.log_prob);
        let rows;
        (rows, live) = longer.into_iter().unzip::<_, _, Vec<usize>, Vec<_>>();
        // Log-probabilities only decrease and penalties only increase, so no unfinished sequence can exceed this bound.
        let bound = live.first().map_or(f64::NEG_INFINITY, |h| h.log_prob / length_penalty(max_steps, alpha));
        if finished.len() == width && finished[width - 1].score >= bound || live.is_empty() {
            break;
        }
        state = decoder.select(&after, &rows);
    }
    Ok(if finished.is_empty() { live } else { finished })
}

/// Sorts by decreasing score and keeps the first `width`. Ties are ordered by tokens.
fn keep<T>(items: &mut Vec<T>, width: usize, score: impl Fn(&T) -> f64) {
    items.sort_by(|a, b| score(b).total_cmp(&score(a)));
    items.truncate(width);
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;
    use rand::RngExt as _;
    use std::collections::BTreeMap;

    const END: i64 = 0;

    /// A language given by a table: the log-probabilities after every prefix.
    struct Table {
        after: BTreeMap<Vec<i64>, Vec<f64>>,
    }

    impl Table {
        /// `vocabulary` tokens at random after every prefix of fewer than `steps`.
        fn random(seed: u64, vocabulary: usize, steps: usize) -> Self {
            let mut rng = stream(seed, "table");
            let mut after = BTreeMap::new();
            let mut open = vec![Vec::new()];
            while let Some(prefix) = open.pop() {
                let weights: Vec<f64> = (0..vocabulary).map(|_| rng.random::<f64>().powi(3) + 1e-3).collect();
                let sum: f64 = weights.iter().sum();
                after.insert(prefix.clone(), weights.iter().map(|w| (w / sum).ln()).collect());
                if prefix.len() + 1 < steps {
                    open.extend((1..vocabulary as i64).map(|t| [prefix.as_slice(), &[t]].concat()));
                }
            }
            Self { after }
        }

        /// The best of all finished sequences, by exhaustive search.
        fn best(&self, alpha: f64) -> (Vec<i64>, f64) {
            let log_prob =
                |prefix: &[i64]| (0..prefix.len()).map(|i| self.after[&prefix[..i]][prefix[i] as usize]).sum::<f64>();
            let all = self.after.iter().map(|(prefix, after)| {
                let score = (log_prob(prefix) + after[END as usize]) / length_penalty(prefix.len() + 1, alpha);
                ([prefix.as_slice(), &[END]].concat(), score)
            });
            all.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
        }
    }

    impl Decoder for Table {
        type State = Vec<Vec<i64>>;

        fn start(&self) -> Self::State {
            vec![Vec::new()]
        }

        fn step(&self, state: &Self::State, tokens: &[i64]) -> Result<(Vec<Vec<f64>>, Self::State)> {
            let extended = |(prefix, &token): (&Vec<i64>, &i64)| {
                if token < 0 { prefix.clone() } else { [prefix.as_slice(), &[token]].concat() }
            };
            let state: Vec<Vec<i64>> = state.iter().zip(tokens).map(extended).collect();
            Ok((state.iter().map(|prefix| self.after[prefix].clone()).collect(), state))
        }

        fn select(&self, state: &Self::State, rows: &[usize]) -> Self::State {
            rows.iter().map(|&row| state[row].clone()).collect()
        }
    }

    #[test]
    fn a_wide_beam_equals_exhaustive_search() {
        let (vocabulary, steps) = (4, 4);
        let mut greedy_misses = 0;
        for seed in 0..40 {
            let table = Table::random(seed, vocabulary, steps);
            for alpha in [0.0, 0.6, 1.0, 2.0] {
                let width = vocabulary.pow(steps as u32 - 1);
                let config = BeamConfig { width, length_penalty: alpha, max_steps: steps };
                let found = search(&table, -1, END, &config).unwrap();
                let (tokens, score) = table.best(alpha);
                assert_eq!(found[0].tokens, tokens, "seed {seed}, α = {alpha}");
                assert!((found[0].score - score).abs() < 1e-12);
                assert!(found.windows(2).all(|w| w[0].score >= w[1].score));
                let narrow = &search(&table, -1, END, &BeamConfig { width: 1, ..config }).unwrap()[0];
                assert!(narrow.score <= score + 1e-12);
                greedy_misses += i32::from(narrow.tokens != tokens);
            }
        }
        assert!(greedy_misses > 20, "greedy search missed only {greedy_misses} of 160, so the test is too easy");
    }

    /// The sequence "end" has P = .4, "1 end" has .6 · .6 = .36, "1 1 end" less: the length penalty changes the best sequence.
    #[test]
    fn the_length_penalty_favors_longer_sequences() {
        let ln = |p: [f64; 2]| p.map(f64::ln).to_vec();
        let after = BTreeMap::from([(vec![], ln([0.4, 0.6])), (vec![1], ln([0.6, 0.4])), (vec![1, 1], ln([0.5, 0.5]))]);
        let table = Table { after };
        let best = |alpha| {
            let config = BeamConfig { width: 10, length_penalty: alpha, max_steps: 3 };
            search(&table, -1, END, &config).unwrap().remove(0)
        };
        assert_eq!(best(0.0).tokens, [END]);
        let longer = best(1.0);
        assert_eq!(longer.tokens, [1, END]);
        assert!((longer.score - 0.36_f64.ln() / (7.0 / 6.0)).abs() < 1e-12);
        assert!((longer.log_prob - 0.36_f64.ln()).abs() < 1e-12);
    }

    /// The end token has negligible probability, so no sequence ends within `max_steps`.
    #[test]
    fn unfinished_sequences_are_returned_if_none_ends() {
        let after = BTreeMap::from([(vec![], vec![-1e9, 0.0]), (vec![1], vec![-1e9, 0.0])]);
        let config = BeamConfig { width: 1, length_penalty: 0.0, max_steps: 2 };
        let found = search(&Table { after }, -1, 7, &config);
        assert_eq!(found.unwrap()[0].tokens, [1, 1]);
    }

    #[test]
    fn invalid_settings_are_errors() {
        let table = Table::random(1, 2, 2);
        for (config, expected) in [
            (BeamConfig { width: 0, ..BeamConfig::default() }, "`width` = 0 must be at least 1"),
            (BeamConfig { max_steps: 0, ..BeamConfig::default() }, "`max_steps` = 0 must be at least 1"),
            (BeamConfig { length_penalty: -1.0, ..BeamConfig::default() }, "`length_penalty` = -1 must be at least 0"),
        ] {
            let error = search(&table, -1, END, &config).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
