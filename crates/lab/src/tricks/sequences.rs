//! Toy sequence-to-sequence tasks and their training loop, shared by the experiments of tricks 13 to 21.

use crate::Trial;
use playfield_core::Result;
use playfield_core::rng::Rng;
use playfield_nn::optim::{Adam, Optimizer};
use playfield_nn::params::Params;
use playfield_tricks::scheduled_sampling::Decay;
use playfield_tricks::seq2seq::{Pairs, Seq2Seq, Seq2SeqConfig};
use rand::RngExt as _;
use tch::no_grad;

/// Adam with the settings of Kingma and Ba.
pub(super) fn adam(params: &Params) -> Optimizer {
    Optimizer::new(Adam::default(), params)
}

/// The target of a task.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// The source.
    Copy,
    /// The reversed source.
    Reversed,
}

/// Random sources and their targets.
#[derive(Clone, Copy)]
pub(super) struct Task {
    /// The size of the vocabulary.
    pub words: i64,
    /// The minimum and maximum length of a source.
    pub length: (usize, usize),
    /// The target.
    pub target: Target,
}

impl Task {
    /// `n` sources with their targets.
    pub fn draw(&self, n: usize, rng: &mut Rng) -> (Vec<Vec<i64>>, Vec<Vec<i64>>) {
        let source = |rng: &mut Rng| -> Vec<i64> {
            let length = rng.random_range(self.length.0..=self.length.1);
            (0..length).map(|_| rng.random_range(2..2 + self.words)).collect()
        };
        let sources: Vec<Vec<i64>> = (0..n).map(|_| source(rng)).collect();
        let target = |source: &Vec<i64>| match self.target {
            Target::Copy => source.clone(),
            Target::Reversed => source.iter().rev().copied().collect(),
        };
        let targets = sources.iter().map(target).collect();
        (sources, targets)
    }

    /// The test set, from its own random stream, the same for every variant.
    pub fn test(&self, trial: &Trial) -> (Vec<Vec<i64>>, Vec<Vec<i64>>) {
        self.draw(200, &mut trial.rng("test"))
    }
}

/// The training schedule.
#[derive(Clone, Copy)]
pub(super) struct Schedule {
    /// Updates, each of 32 pairs.
    pub updates: u64,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// The probability of feeding the decoder the target's tokens.
    pub decay: Decay,
}

/// Trains a network of `config` on `task`, all variants of a trial on the same pairs in the same order. Records the
/// test loss as the curve of `variant`.
pub(super) fn train(
    trial: &mut Trial,
    variant: &str,
    config: &Seq2SeqConfig,
    task: &Task,
    schedule: Schedule,
) -> Result<Seq2Seq> {
    schedule.decay.check()?;
    let config = Seq2SeqConfig { vocabulary: task.words + 2, ..config.clone() };
    let mut network = Seq2Seq::new(&config, &mut trial.rng("init"))?;
    let mut optimizer = adam(&network.params);
    let (mut pairs, mut coins) = (trial.rng("pairs"), trial.rng("coins"));
    let (sources, targets) = task.test(trial);
    let test = Pairs::new(&sources, &targets)?;
    trial.axes("updates", "test loss, nats per token");
    for update in 0..schedule.updates {
        if update % (schedule.updates / 20).max(1) == 0 {
            trial.point(variant, update as f64, test_loss(&network, &test)?);
        }
        let (sources, targets) = task.draw(32, &mut pairs);
        let epsilon = schedule.decay.epsilon(update);
        let loss = network.loss(&Pairs::new(&sources, &targets)?, epsilon, Some(&mut coins))?;
        network.params.zero_gradient();
        loss.backward();
        optimizer.step(&mut network.params, schedule.learning_rate, 1.0);
    }
    trial.point(variant, schedule.updates as f64, test_loss(&network, &test)?);
    Ok(network)
}

/// The teacher-forced cross-entropy of `pairs`, in nats a token.
pub(super) fn test_loss(network: &Seq2Seq, pairs: &Pairs) -> Result<f64> {
    no_grad(|| Ok(network.loss(pairs, 1.0, None)?.double_value(&[])))
}

/// The same for the trial's test set.
pub(super) fn final_loss(trial: &Trial, network: &Seq2Seq, task: &Task) -> Result<f64> {
    let (sources, targets) = task.test(trial);
    test_loss(network, &Pairs::new(&sources, &targets)?)
}

/// The share of correct words in free-running decoding of the test set.
pub(super) fn accuracy(trial: &Trial, network: &Seq2Seq, task: &Task) -> Result<f64> {
    let (sources, targets) = task.test(trial);
    Ok(network.accuracy(&sources, &targets)?.1)
}
