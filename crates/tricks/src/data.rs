//! Labeled data sets that fit in RAM, and the two that playfield ships.

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::seq::SliceRandom;
use tch::Tensor;

/// Feature vectors with their classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// All rows, one after the other.
    pub inputs: Vec<f32>,
    /// The class of each row, from 0.
    pub labels: Vec<i64>,
    /// Numbers a row.
    pub features: usize,
    /// How many classes there are.
    pub classes: usize,
}

/// Side of a [`digits`] image.
pub const DIGITS_SIDE: usize = 8;

/// 1797 handwritten digits, 8×8 pixels from 0 (paper) to 1 (ink), in scikit-learn's order: a **toy**, on which even a linear
/// model does well.
///
/// Alpaydin and Kaynak 1998, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository (CC BY 4.0), as
/// scikit-learn's `load_digits` has it; `data/digits.py` wrote the file and says how. The same writers are in both parts of a
/// random split.
pub fn digits() -> Dataset {
    const FEATURES: usize = DIGITS_SIDE * DIGITS_SIDE;
    let records = include_bytes!("../data/digits.bin").chunks_exact(FEATURES + 1);
    let (mut inputs, mut labels) = (Vec::new(), Vec::new());
    for record in records {
        inputs.extend(record[..FEATURES].iter().map(|&ink| f32::from(ink) / 16.0));
        labels.push(i64::from(record[FEATURES]));
    }
    Dataset { inputs, labels, features: FEATURES, classes: 10 }
}

/// What people heard in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentiment {
    /// Praise: a mean rating of 1 or more, of −4 to 4.
    Positive,
    /// Blame: −1 or less.
    Negative,
    /// Neither, or not clear.
    Mixed,
}

/// 3708 sentences of product reviews in ASCII, each with its sentiment: 1514 positive, 941 negative.
///
/// Hutto and Gilbert 2014, *VADER*, whose sentences are from the reviews of Hu and Liu 2004 (MIT); `data/reviews.py` wrote the
/// file and says how. Small for a language model, and all of one kind.
pub fn reviews() -> Vec<(Sentiment, &'static str)> {
    let line = |line: &'static str| match line.split_once('\t') {
        Some(("+", text)) => (Sentiment::Positive, text),
        Some(("-", text)) => (Sentiment::Negative, text),
        Some((_, text)) => (Sentiment::Mixed, text),
        None => (Sentiment::Mixed, line),
    };
    include_str!("../data/reviews.txt").lines().map(line).collect()
}

impl Dataset {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// One row.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.inputs[i * self.features..(i + 1) * self.features]
    }

    /// The rows `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            inputs: indices.iter().flat_map(|&i| self.row(i)).copied().collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            ..*self
        }
    }

    /// Rows to learn from and rows to test on, drawn by `rng`: the share `test` of them is tested on.
    ///
    /// # Errors
    /// [`Error::Config`] unless both parts get a row at least.
    pub fn split(&self, test: f64, rng: &mut Rng) -> Result<(Self, Self)> {
        let count = (self.len() as f64 * test).round() as usize;
        if !(0.0..=1.0).contains(&test) || count == 0 || count == self.len() {
            return Err(Error::config(format!(
                "a test share of {test}: of {} rows, at least one must be tested on and one learned from",
                self.len()
            )));
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(rng);
        let (test, train) = order.split_at(count);
        Ok((self.select(train), self.select(test)))
    }

    /// All of it: inputs `[n, features]` in `f32`, labels `[n]` in `i64`.
    pub fn tensors(&self) -> (Tensor, Tensor) {
        (Tensor::from_slice(&self.inputs).view([-1, self.features as i64]), Tensor::from_slice(&self.labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;

    /// Facts of scikit-learn 1.9.1's `load_digits()`: its size, `bincount(target)`, `data.sum()` = 561718, `data[0][:8]`, and the
    /// label and sum of the last row.
    #[test]
    fn digits_equal_those_of_scikit_learn() {
        let digits = digits();
        assert_eq!((digits.len(), digits.inputs.len()), (1797, 1797 * 64));
        let counts: Vec<_> = (0..10).map(|c| digits.labels.iter().filter(|&&l| l == c).count()).collect();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        let ink = |row: &[f32]| row.iter().map(|x| (x * 16.0) as u32).collect::<Vec<_>>();
        assert_eq!(ink(&digits.inputs).iter().sum::<u32>(), 561_718);
        assert_eq!(ink(digits.row(0))[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
        assert_eq!((digits.labels[0], digits.labels[1796]), (0, 8));
    }

    #[test]
    fn a_split_is_a_deterministic_partition() {
        let digits = digits();
        let split = |seed| digits.split(0.2, &mut stream(seed, "split")).unwrap();
        let (train, test) = split(1);
        assert_eq!((train.len(), test.len()), (1438, 359));
        assert_eq!((train.clone(), test.clone()), split(1));
        assert_ne!(train, split(2).0);
        let rows = |d: &Dataset| {
            (0..d.len())
                .map(|i| (d.labels[i], d.row(i).iter().map(|x| x.to_bits()).collect()))
                .collect::<Vec<(i64, Vec<u32>)>>()
        };
        let mut both = [rows(&train), rows(&test)].concat();
        let mut all = rows(&digits);
        both.sort();
        all.sort();
        assert_eq!(both, all);
    }

    #[test]
    fn the_reviews_are_complete() {
        let reviews = reviews();
        let count = |wanted| reviews.iter().filter(|(sentiment, _)| *sentiment == wanted).count();
        let counts = [Sentiment::Positive, Sentiment::Negative, Sentiment::Mixed].map(count);
        assert_eq!(counts, [1514, 941, 1253]);
        assert!(reviews.iter().all(|(_, text)| !text.is_empty() && text.is_ascii()));
        let heard = reviews.iter().find(|(_, text)| text.contains("works great")).unwrap();
        assert_eq!(heard.0, Sentiment::Positive, "{}", heard.1);
    }

    #[test]
    fn a_split_without_a_test_is_refused() {
        for share in [0.0, 1.0, -0.5, 2.0, f64::NAN] {
            let refusal = digits().split(share, &mut stream(1, "split")).unwrap_err().to_string();
            assert!(refusal.contains(&format!("{share}")) && refusal.contains("1797"), "{refusal}");
        }
    }
}
