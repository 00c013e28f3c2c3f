//! Labeled data sets in RAM, and the two that playfield includes.

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use rand::seq::SliceRandom;
use tch::Tensor;

/// Feature vectors with their classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// All feature vectors, concatenated.
    pub inputs: Vec<f32>,
    /// The class of each example, from 0.
    pub labels: Vec<i64>,
    /// Features per example.
    pub features: usize,
    /// Number of classes.
    pub classes: usize,
}

/// Side of a [`digits`] image.
pub const DIGITS_SIDE: usize = 8;

/// 1797 handwritten digits, 8×8 pixels from 0 (paper) to 1 (ink), in scikit-learn's order: a **toy** data set on which even a
/// linear model has a high accuracy.
///
/// Alpaydin and Kaynak 1998, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository (CC BY 4.0), as
/// scikit-learn's `load_digits` provides it; `data/digits.py` creates the file. Both parts of a random split contain the same
/// writers.
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

/// The rated sentiment of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentiment {
    /// A mean rating of at least 1, on a scale from −4 to 4.
    Positive,
    /// A mean rating of at most −1.
    Negative,
    /// Any other rating.
    Mixed,
}

/// 3708 sentences of product reviews in ASCII, each with its sentiment: 1514 positive, 941 negative.
///
/// Hutto and Gilbert 2014, *VADER*, whose sentences are from the reviews of Hu and Liu 2004 (MIT); `data/reviews.py` creates the
/// file. Small and homogeneous for a language model.
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
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether the data set is empty.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The features of example `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.inputs[i * self.features..(i + 1) * self.features]
    }

    /// The examples `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            inputs: indices.iter().flat_map(|&i| self.row(i)).copied().collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            ..*self
        }
    }

    /// Splits the examples randomly into training and test set; `test` is the fraction of test examples.
    ///
    /// # Errors
    /// [`Error::Config`] if a part would be empty.
    pub fn split(&self, test: f64, rng: &mut Rng) -> Result<(Self, Self)> {
        let count = (self.len() as f64 * test).round() as usize;
        if !(0.0..=1.0).contains(&test) || count == 0 || count == self.len() {
            return Err(Error::config(format!(
                "a test fraction of {test}: the {} examples must include at least one for training and one for testing",
                self.len()
            )));
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(rng);
        let (test, train) = order.split_at(count);
        Ok((self.select(train), self.select(test)))
    }

    /// The complete data set: inputs `[n, features]` in `f32`, labels `[n]` in `i64`.
    pub fn tensors(&self) -> (Tensor, Tensor) {
        (Tensor::from_slice(&self.inputs).view([-1, self.features as i64]), Tensor::from_slice(&self.labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;

    /// Properties of `load_digits()` in scikit-learn 1.9.1: size, `bincount(target)`, `data.sum()` = 561718, `data[0][:8]`, and the
    /// first and last labels.
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
        let praise = reviews.iter().find(|(_, text)| text.contains("works great")).unwrap();
        assert_eq!(praise.0, Sentiment::Positive, "{}", praise.1);
    }

    #[test]
    fn a_split_without_a_test_is_refused() {
        for share in [0.0, 1.0, -0.5, 2.0, f64::NAN] {
            let refusal = digits().split(share, &mut stream(1, "split")).unwrap_err().to_string();
            assert!(refusal.contains(&format!("{share}")) && refusal.contains("1797"), "{refusal}");
        }
    }
}
