//! A small classifier and its training loop, for experiments with tricks. It includes all parts that the authors of batch norm add
//! or remove.
//!
//! ```text
//! image ─ [conv 3×3 ─ norm ─ activation ─ local response norm]* ─ [linear ─ norm ─ activation ─ dropout]* ─ linear ─ logits
//! ```
//!
//! For small data only: the data set is held in RAM, and training uses one thread.

use crate::data::Dataset;
use crate::distortion::Photometric;
use crate::loader::{Loader, Shuffle};
use playfield_core::rng::{self, Rng};
use playfield_core::{Error, Result};
use playfield_losses::softmax;
use playfield_nn::config::{Activation, InitKind, NormKind};
use playfield_nn::conv::Conv;
use playfield_nn::dropout::Dropout;
use playfield_nn::init::{Init, hidden_init};
use playfield_nn::linear::Linear;
use playfield_nn::norm::{LocalResponseNorm, Norm};
use playfield_nn::optim::{Optimizer, OptimizerConfig, Sgd};
use playfield_nn::{Builder, Params, Pass, Weights};
use tch::{Device, Kind, Tensor, no_grad};

/// Architecture and training of a classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Channels of each 3×3 convolution with zero padding; empty: none, and inputs need not be images.
    pub channels: Vec<i64>,
    /// Widths of the hidden fully connected layers.
    pub hidden: Vec<i64>,
    /// Activation of each layer except the last.
    pub activation: Activation,
    /// Normalization of each layer before its activation.
    pub norm: NormKind,
    /// Local response normalization after each convolution's activation.
    pub local_response: bool,
    /// Initial weights.
    pub init: Start,
    /// Dropout probability of the outputs of fully connected layers.
    pub dropout: f64,
    /// The optimizer; its `weight_decay` is the L2 penalty.
    pub optimizer: OptimizerConfig,
    /// The learning rate of the first epoch.
    pub learning_rate: f64,
    /// Factor of the learning rate after each epoch.
    pub learning_rate_decay: f64,
    /// Examples per batch.
    pub batch_size: usize,
    /// Composition of batches.
    pub shuffle: Shuffle,
    /// Strength of the photometric distortion of training images, 0 to 1.
    pub distortion: f64,
}

/// A rule for initial weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Depends on the size of each layer.
    Rule(InitKind),
    /// U(−bound, bound) in every layer, independent of its size; biases 0. For comparison.
    Same {
        /// The largest weight.
        bound: f32,
    },
}

impl Default for Config {
    /// A sigmoid network without tricks, trained by stochastic gradient descent with momentum .9.
    fn default() -> Self {
        let optimizer = Sgd::default().into();
        Self {
            channels: vec![],
            hidden: vec![64],
            activation: Activation::Sigmoid,
            norm: NormKind::None,
            local_response: false,
            init: Start::Rule(InitKind::FanIn),
            dropout: 0.0,
            optimizer,
            learning_rate: 0.05,
            learning_rate_decay: 1.0,
            batch_size: 32,
            shuffle: Shuffle::Thorough,
            distortion: 0.0,
        }
    }
}

/// The changes of Ioffe and Szegedy (2015, section 4.2.1) to the training of a network with batch norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Companion {
    /// A learning rate five times as high.
    Rate,
    /// No dropout.
    Dropout,
    /// A fifth of the L2 penalty.
    WeightDecay,
    /// A learning rate that falls six times as fast.
    RateDecay,
    /// No local response normalization.
    LocalResponse,
    /// Thorough shuffling.
    Shuffling,
    /// Half the photometric distortion (the paper reduces it, but gives no number).
    Distortion,
}

impl Companion {
    /// All seven, in the paper's order.
    pub const ALL: [Self; 7] = [
        Self::Rate,
        Self::Dropout,
        Self::WeightDecay,
        Self::RateDecay,
        Self::LocalResponse,
        Self::Shuffling,
        Self::Distortion,
    ];

    /// Makes this change.
    pub fn apply(self, config: &mut Config) {
        match self {
            Self::Rate => config.learning_rate *= 5.0,
            Self::Dropout => config.dropout = 0.0,
            Self::WeightDecay => {
                let weight_decay = config.optimizer.weight_decay() / 5.0;
                config.optimizer = config.optimizer.clone().with_weight_decay(weight_decay);
            }
            Self::RateDecay => config.learning_rate_decay = config.learning_rate_decay.powi(6),
            Self::LocalResponse => config.local_response = false,
            Self::Shuffling => config.shuffle = Shuffle::Thorough,
            Self::Distortion => config.distortion /= 2.0,
        }
    }
}

impl Config {
    /// The `bn` preset: this network with batch norm, trained with all seven [`Companion`]s.
    pub fn bn(&self) -> Self {
        self.bn_with(&Companion::ALL)
    }

    /// This network with batch norm, trained with some of its companions.
    pub fn bn_with(&self, companions: &[Companion]) -> Self {
        let mut config = Self { norm: NormKind::Batch, ..self.clone() };
        companions.iter().for_each(|companion| companion.apply(&mut config));
        config
    }

    /// Rejects invalid values. The parts validate their own configurations.
    fn check(&self) -> Result<()> {
        if let Some(width) = self.channels.iter().chain(&self.hidden).find(|&&width| width < 1) {
            return Err(Error::config(format!("a layer of width {width}: it must be at least 1")));
        }
        for (name, value) in [("learning_rate", self.learning_rate), ("weight_decay", self.optimizer.weight_decay())] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::config(format!("a {name} of {value}: it must not be negative")));
            }
        }
        if !(self.learning_rate_decay > 0.0 && self.learning_rate_decay <= 1.0) {
            let decay = self.learning_rate_decay;
            return Err(Error::config(format!("a learning_rate_decay of {decay}: it must be above 0 and at most 1")));
        }
        Ok(())
    }
}

/// A classifier.
#[derive(Debug)]
pub struct Classifier {
    /// Its parameters.
    pub params: Params,
    layers: Layers,
    optimizer: Optimizer,
    /// Random stream of dropout.
    rng: Rng,
}

#[derive(Clone, Debug)]
struct Layers {
    /// Side of the square images; unused without convolutions.
    side: i64,
    convs: Vec<(Conv, Norm)>,
    hidden: Vec<(Linear, Norm)>,
    out: Linear,
    activation: Activation,
    local_response: Option<LocalResponseNorm>,
    dropout: Dropout,
}

impl Classifier {
    /// A new network for inputs with the given number of `features` and `classes`.
    ///
    /// # Errors
    /// [`Error::Config`] if a value is invalid, or the inputs of a convolution are not square images.
    pub fn new(config: &Config, features: usize, classes: usize, seed: u64) -> Result<Self> {
        config.check()?;
        let side = (features as f64).sqrt() as i64;
        if !config.channels.is_empty() && side * side != features as i64 {
            return Err(Error::config(format!("rows of {features} numbers are no square images: set channels = []")));
        }
        let mut init = rng::stream(seed, "classifier/init");
        let mut b = Builder::new(&mut init);
        let start = |fan_in: i64| match config.init {
            Start::Rule(kind) => hidden_init(kind, fan_in, std::f64::consts::SQRT_2),
            Start::Same { bound } => (Init::Bounded { bound }, Init::Constant(0.0)),
        };
        let (mut convs, mut hidden, mut inputs) = (Vec::new(), Vec::new(), 1);
        for (i, &outputs) in config.channels.iter().enumerate() {
            let name = format!("conv{}", i + 1);
            let conv = Conv::new(&mut b, &name, (inputs, outputs), (3, 1), start(inputs * 9)).padded(1);
            convs.push((conv, Norm::new(&mut b, &format!("{name}_norm"), config.norm, outputs)));
            inputs = outputs;
        }
        inputs = if convs.is_empty() { features as i64 } else { inputs * side * side };
        for (i, &outputs) in config.hidden.iter().enumerate() {
            let (name, (weight, bias)) = (format!("fc{}", i + 1), start(inputs));
            let layer = Linear::new(&mut b, &name, inputs, outputs, weight, bias);
            hidden.push((layer, Norm::new(&mut b, &format!("{name}_norm"), config.norm, outputs)));
            inputs = outputs;
        }
        let (weight, bias) = start(inputs);
        let out = Linear::new(&mut b, "out", inputs, classes as i64, weight, bias);
        let layers = Layers {
            side,
            convs,
            hidden,
            out,
            activation: config.activation,
            local_response: config.local_response.then(LocalResponseNorm::default),
            dropout: Dropout::new("dropout", config.dropout)?,
        };
        let params = b.finish(Device::Cpu, Kind::Float);
        let optimizer = Optimizer::new(config.optimizer.clone(), &params);
        Ok(Self { params, layers, optimizer, rng: rng::stream(seed, "classifier/dropout") })
    }

    /// Logits `[n, classes]` of `x` `[n, features]` in inference: without dropout, with running statistics.
    pub fn logits(&self, x: &Tensor) -> Tensor {
        no_grad(|| self.layers.forward(self.params.weights(), x, None, &mut |_| {}))
    }

    /// The outputs of each layer except the last for `x`, after its activation, in inference.
    pub fn activations(&self, x: &Tensor) -> Vec<Tensor> {
        let mut seen = Vec::new();
        let _ = no_grad(|| self.layers.forward(self.params.weights(), x, None, &mut |y| seen.push(y.copy())));
        seen
    }

    /// One optimizer step on the batch `x` `[n, features]`, `labels` `[n]`. Returns the mean cross-entropy before the step.
    pub fn step(&mut self, x: &Tensor, labels: &Tensor, learning_rate: f64) -> f64 {
        self.step_by(x, learning_rate, |logits| softmax::cross_entropy(logits, labels))
    }

    /// One optimizer step on an arbitrary loss of the logits, `[n, classes]` to `[n]`. Returns the mean loss.
    pub fn step_by(&mut self, x: &Tensor, learning_rate: f64, loss: impl FnOnce(&Tensor) -> Tensor) -> f64 {
        let Self { params, layers, optimizer, rng } = self;
        let loss = loss(&layers.forward(params.weights(), x, Some(rng), &mut |_| {})).mean(Kind::Float);
        params.zero_gradient();
        loss.backward();
        optimizer.step(params, learning_rate, 0.0);
        loss.double_value(&[])
    }

    /// The fraction of correctly classified examples.
    pub fn accuracy(&self, data: &Dataset) -> f64 {
        let (x, labels) = data.tensors();
        self.logits(&x).argmax(1, false).eq_tensor(&labels).to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    }

    /// Folds batch norm into the preceding layers, after training.
    pub fn fold(&mut self) {
        let Self { params, layers, .. } = self;
        layers.convs.iter_mut().for_each(|(conv, norm)| norm.fold(params, conv.slots()));
        layers.hidden.iter_mut().for_each(|(layer, norm)| norm.fold(params, layer.slots()));
    }
}

impl Layers {
    fn forward(&self, w: &Weights, x: &Tensor, mut dropout: Option<&mut Rng>, seen: &mut dyn FnMut(&Tensor)) -> Tensor {
        let pass = if dropout.is_some() { Pass::Train } else { Pass::Infer };
        let mut x = x.shallow_clone();
        if !self.convs.is_empty() {
            x = x.view([-1, 1, self.side, self.side]);
            for (conv, norm) in &self.convs {
                x = self.activation.apply(norm.forward(w, conv.forward(w, &x), pass));
                if let Some(norm) = &self.local_response {
                    x = norm.forward(&x);
                }
                seen(&x);
            }
            x = x.permute([0, 2, 3, 1]).flatten(1, -1);
        }
        for (layer, norm) in &self.hidden {
            x = self.activation.apply(norm.forward(w, layer.forward(w, &x), pass));
            seen(&x);
            x = self.dropout.apply(&x, dropout.as_deref_mut());
        }
        self.out.forward(w, &x)
    }
}

/// The progress of training after a step.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Steps so far.
    pub steps: u64,
    /// Whole epochs so far.
    pub epochs: u64,
    /// Mean cross-entropy of the batch.
    pub loss: f64,
    /// The network.
    pub classifier: &'a Classifier,
}

/// Trains a new network on `data` until `stop` returns true. All random streams are derived from `seed`.
///
/// # Errors
/// [`Error::Config`] if a value of `config` is invalid or there is no data.
pub fn train(
    config: &Config,
    data: &Dataset,
    seed: u64,
    mut stop: impl FnMut(Progress<'_>) -> bool,
) -> Result<Classifier> {
    let mut classifier = Classifier::new(config, data.features, data.classes, seed)?;
    let mut loader =
        Loader::new(data.len(), config.batch_size, config.shuffle, rng::stream(seed, "classifier/loader"))?;
    let (distortion, mut noise) = (Photometric::new(config.distortion)?, rng::stream(seed, "classifier/distortion"));
    let (mut steps, mut learning_rate) = (0, config.learning_rate);
    for epochs in 0.. {
        for rows in loader.epoch() {
            let mut batch = data.select(&rows);
            batch.inputs.chunks_exact_mut(data.features).for_each(|image| distortion.apply(image, &mut noise));
            let (x, labels) = batch.tensors();
            let loss = classifier.step(&x, &labels, learning_rate);
            steps += 1;
            if stop(Progress { steps, epochs, loss, classifier: &classifier }) {
                return Ok(classifier);
            }
        }
        learning_rate *= config.learning_rate_decay;
    }
    unreachable!("epochs have no end")
}
