//! A recurrent network that predicts a text's next character, and the features that it learns (Sutskever, Martens and Hinton 2011;
//! Karpathy 2015; Radford, Józefowicz and Sutskever 2017).
//!
//! ```text
//! P(x_{t+1} | x_1 … x_t) = softmax(W stack(embed(x_t)))        characters are bytes
//! ```
//!
//! Its state after a text is a representation of the text, learned without labels. A [`crate::probe`] can be trained on it
//! where labels are few. The paper trained on 82 million reviews for a month; the lab measures a minute of training.
//!
//! Use a pre-trained language model instead if one is available.

use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use playfield_nn::embedding::Embedding;
use playfield_nn::init::Init;
use playfield_nn::linear::Linear;
use playfield_nn::lstm::RecurrentState;
use playfield_nn::optim::Optimizer;
use playfield_nn::params::{Builder, Params};
use playfield_nn::sequence::Lengths;
use playfield_nn::stack::{Stack, StackConfig};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

/// Characters are bytes.
const VOCABULARY: i64 = 256;

/// The settings of a [`CharRnn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CharRnnConfig {
    /// Dimensions of a character's embedding.
    pub embedding: i64,
    /// The recurrent layers, in one direction.
    pub stack: StackConfig,
}

impl Default for CharRnnConfig {
    fn default() -> Self {
        Self { embedding: 32, stack: StackConfig::default() }
    }
}

/// The network.
#[derive(Debug)]
pub struct CharRnn {
    /// Its parameters.
    pub params: Params,
    embed: Embedding,
    stack: Stack,
    output: Linear,
}

/// A text cut into streams that are read in parallel, `steps` characters at a time, cyclically.
///
/// ```text
/// text = abcdefghijkl, 2 streams, 3 steps:    abc then def then abc …
///                                             ghi then jkl then ghi …
/// ```
#[derive(Debug)]
pub struct Streams {
    /// `[length, streams]`.
    characters: Tensor,
    steps: i64,
    at: i64,
    /// Recurrent state of each layer after `at` characters; `None` before the first.
    state: Option<Vec<RecurrentState>>,
}

impl Streams {
    /// Reads `text` in `streams` streams, `steps` characters at a time.
    ///
    /// # Errors
    /// [`Error::Config`] if either is 0 or the text is too short.
    pub fn new(text: &[u8], streams: usize, steps: usize) -> Result<Self> {
        if streams == 0 || steps == 0 {
            return Err(Error::config(format!("`streams` = {streams} and `steps` = {steps} must be at least 1")));
        }
        let length = text.len() / streams;
        if length < steps + 1 {
            return Err(Error::config(format!(
                "a text of {} characters: {streams} streams of {steps} steps need at least {}",
                text.len(),
                streams * (steps + 1)
            )));
        }
        let characters = Tensor::from_slice(&text[..length * streams]).view([streams as i64, length as i64]);
        Ok(Self { characters: characters.tr().to_kind(Kind::Int64), steps: steps as i64, at: 0, state: None })
    }

    /// The next inputs and their targets, each `[steps, streams]`. Restarts at the end of the text.
    fn next(&mut self) -> (Tensor, Tensor) {
        if self.at + self.steps >= self.characters.size()[0] {
            (self.at, self.state) = (0, None);
        }
        let window = |at| self.characters.narrow(0, at, self.steps);
        let pair = (window(self.at), window(self.at + 1));
        self.at += self.steps;
        pair
    }
}

impl CharRnn {
    /// Builds the network of `config`, its parameters initialized from `rng`.
    ///
    /// # Errors
    /// [`Error::Config`] naming an invalid setting.
    pub fn new(config: &CharRnnConfig, rng: &mut Rng) -> Result<Self> {
        if config.stack.bidirectional {
            return Err(Error::config(
                "`bidirectional` = true: a bidirectional stack reads the character that it predicts",
            ));
        }
        if config.embedding < 1 {
            return Err(Error::config(format!("`embedding` = {} must be at least 1", config.embedding)));
        }
        let mut b = Builder::new(rng);
        let embed = Embedding::new(&mut b, "embed", VOCABULARY, config.embedding);
        let stack = Stack::new(&mut b, "stack", config.embedding, &config.stack)?;
        let width = stack.outputs();
        let uniform = Init::Uniform { fan_in: width };
        let output = Linear::new(&mut b, "output", width, VOCABULARY, uniform, Init::Constant(0.0));
        Ok(Self { params: b.finish(Device::Cpu, Kind::Float), embed, stack, output })
    }

    /// The mean cross-entropy of `next` after `characters`, both `[steps, n]`, in nats, and the recurrent state after them.
    fn loss(
        &self,
        characters: &Tensor,
        next: &Tensor,
        state: &[RecurrentState],
        rng: Option<&mut Rng>,
    ) -> Result<(Tensor, Vec<RecurrentState>)> {
        let w = self.params.weights();
        let (steps, n) = characters.size2().expect("[steps, n]");
        let x = self.embed.forward(w, characters);
        let (y, state) = self.stack.forward(w, &x, state, &Lengths::full(n, steps)?, rng)?;
        let logits = self.output.forward(w, &y).view([-1, VOCABULARY]);
        Ok((logits.cross_entropy_for_logits(&next.reshape(-1)), state))
    }

    /// One update by truncated backpropagation through time: the next steps of `streams`, whose recurrent state is carried over
    /// without its gradient. `rng` samples dropout masks. Returns the loss, in nats per character.
    ///
    /// # Errors
    /// [`Error::Config`] if the recurrent state of `streams` is from another network.
    pub fn train(
        &mut self,
        streams: &mut Streams,
        optimizer: &mut Optimizer,
        learning_rate: f64,
        max_norm: f64,
        rng: &mut Rng,
    ) -> Result<f64> {
        let (characters, next) = streams.next();
        let n = characters.size()[1] as usize;
        let state = streams.state.take().unwrap_or_else(|| self.stack.initial_state(n, Device::Cpu));
        let (loss, after) = self.loss(&characters, &next, &state, Some(rng))?;
        self.params.zero_gradient();
        loss.backward();
        optimizer.step(&mut self.params, learning_rate, max_norm);
        streams.state = Some(after.iter().map(RecurrentState::detached).collect());
        Ok(loss.double_value(&[]))
    }

    /// The mean cross-entropy of `text` from its second character on, in nats per character, read in `streams` streams,
    /// each from the initial state.
    ///
    /// # Errors
    /// As [`Streams::new`].
    pub fn evaluate(&self, text: &[u8], streams: usize) -> Result<f64> {
        let length = text.len() / streams.max(1);
        let mut whole = Streams::new(text, streams, length.saturating_sub(1).max(1))?;
        let (characters, next) = whole.next();
        no_grad(|| {
            let (loss, _) = self.loss(&characters, &next, &self.stack.initial_state(streams, Device::Cpu), None)?;
            Ok(loss.double_value(&[]))
        })
    }

    /// The state of the top layer after each text, `[n, width]`, in [−1, 1]: tanh of an LSTM's cell (as Radford et al. did), or
    /// the output of a layer without one. Deterministic; no parameter changes.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no text or a text is empty.
    pub fn features(&self, texts: &[&[u8]]) -> Result<Tensor> {
        let each: Vec<i64> = texts.iter().map(|t| t.len() as i64).collect();
        let steps = each.iter().copied().max().unwrap_or(0);
        let lengths = Lengths::new(&each, steps)?;
        let row = |t: usize| texts.iter().map(move |text| i64::from(text.get(t).copied().unwrap_or(0)));
        let characters: Vec<i64> = (0..steps as usize).flat_map(row).collect();
        let characters = Tensor::from_slice(&characters).view([steps, lengths.n()]);
        no_grad(|| {
            let w = self.params.weights();
            let start = self.stack.initial_state(texts.len(), Device::Cpu);
            let (_, state) = self.stack.forward(w, &self.embed.forward(w, &characters), &start, &lengths, None)?;
            let top = state.last().expect("at least one layer");
            Ok(if top.c().numel() > 0 { top.c().tanh() } else { top.h().shallow_clone() })
        })
    }
}
