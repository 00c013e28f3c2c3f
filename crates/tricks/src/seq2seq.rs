//! Sequence to sequence (Sutskever, Vinyals and Le 2014; Cho et al. 2014): an encoder and a decoder.
//!
//! ```text
//! encoder   h_s = stack(embed(x_s)),  s = 1 … S          forwards, back to front, or both
//! decoder   g_t = stack(embed(y_{t−1})),  g_0 = h_S      y_0 is START
//! answer    P(y_t) = softmax(W g_t)                      without attention
//!           P(y_t) = softmax(W tanh(V [g_t; c_t]))       c_t: attention's context vector for g_t over h_1 … h_S
//! ```
//!
//! * Reversing the source ("reversed") brings the first words of source and target close together, which improved training for
//!   Sutskever et al.; the target is not reversed. It helps if both have the same order, without attention and with one direction.
//! * Encoder and decoder have separate weights unless `shared`, which halves the parameters.
//! * The attention query is the decoder's output of the same step (Luong, Pham and Manning 2015), with either score, so that with
//!   teacher forcing all steps of a batch are one operation. Bahdanau's query is the previous state.
//!
//! For outputs of the same length and order as the input use a tagger instead; if a pre-trained Transformer is available, use that.

use crate::beam::{self, BeamConfig, Hypothesis};
use crate::scheduled_sampling::coins;
use playfield_core::rng::Rng;
use playfield_core::{Error, Result};
use playfield_nn::attention::{Attention, AttentionKind, Keys};
use playfield_nn::embedding::Embedding;
use playfield_nn::init::Init;
use playfield_nn::linear::Linear;
use playfield_nn::lstm::RecurrentState;
use playfield_nn::params::{Builder, Params, Weights};
use playfield_nn::sequence::Lengths;
use playfield_nn::stack::{Stack, StackConfig};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

/// The first input of the decoder. It is part of neither sources nor targets.
pub const START: i64 = 0;
/// The token that ends every target.
pub const END: i64 = 1;

/// Direction of the encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// First token first.
    #[default]
    Forward,
    /// Last token first.
    Reversed,
    /// Both, each with half of the width.
    Bidirectional,
}

/// The settings of a [`Seq2Seq`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seq2SeqConfig {
    /// Number of different tokens, including [`START`] and [`END`]; words begin at 2.
    pub vocabulary: i64,
    /// Dimensions of a token's embedding.
    pub embedding: i64,
    /// The recurrent layers of encoder and decoder; `bidirectional` must be false: set `reading` instead.
    pub stack: StackConfig,
    /// Direction of the encoder.
    pub reading: Reading,
    /// Attention of the decoder over the source; `None`: no attention.
    pub attention: Option<AttentionKind>,
    /// Whether encoder and decoder have the same weights.
    pub shared: bool,
}

impl Default for Seq2SeqConfig {
    fn default() -> Self {
        Self {
            vocabulary: 12,
            embedding: 32,
            stack: StackConfig::default(),
            reading: Reading::Forward,
            attention: None,
            shared: false,
        }
    }
}

/// Pairs of sequences, padded. Tokens are `i64`, time first.
#[derive(Debug)]
pub struct Pairs {
    /// `[S, n]`.
    source: Tensor,
    source_lengths: Lengths,
    /// `[T, n]`, each with [`END`] at its end.
    target: Tensor,
    target_lengths: Lengths,
}

impl Pairs {
    /// A batch of sources and targets, both without [`END`].
    ///
    /// # Errors
    /// [`Error::Config`] if the numbers of sources and targets differ or a source is empty.
    pub fn new(sources: &[Vec<i64>], targets: &[Vec<i64>]) -> Result<Self> {
        if sources.len() != targets.len() {
            return Err(Error::config(format!("{} sources and {} targets", sources.len(), targets.len())));
        }
        let ended: Vec<Vec<i64>> = targets.iter().map(|t| [t.as_slice(), &[END]].concat()).collect();
        let (source, source_lengths) = pad(sources)?;
        let (target, target_lengths) = pad(&ended)?;
        Ok(Self { source, source_lengths, target, target_lengths })
    }
}

/// Sequences side by side, `[steps, n]`, with [`END`] after each.
fn pad(sequences: &[Vec<i64>]) -> Result<(Tensor, Lengths)> {
    let each: Vec<i64> = sequences.iter().map(|s| s.len() as i64).collect();
    let steps = each.iter().copied().max().unwrap_or(0);
    let lengths = Lengths::new(&each, steps)?;
    let row = |t: usize| sequences.iter().map(move |s| s.get(t).copied().unwrap_or(END));
    let tokens: Vec<i64> = (0..steps as usize).flat_map(row).collect();
    Ok((Tensor::from_slice(&tokens).view([steps, lengths.n()]), lengths))
}

/// The network.
#[derive(Debug)]
pub struct Seq2Seq {
    /// Its parameters.
    pub params: Params,
    layers: Layers,
    reading: Reading,
    vocabulary: i64,
}

#[derive(Debug)]
struct Layers {
    encoder: (Embedding, Stack),
    decoder: (Embedding, Stack),
    attention: Option<(Attention, Linear)>,
    output: Linear,
}

/// The encoder's output for n sources.
#[derive(Debug)]
struct Read {
    state: Vec<RecurrentState>,
    keys: Option<Keys>,
}

impl Seq2Seq {
    /// Builds the network of `config`, its parameters initialized from `rng`.
    ///
    /// # Errors
    /// [`Error::Config`] naming an invalid setting.
    pub fn new(config: &Seq2SeqConfig, rng: &mut Rng) -> Result<Self> {
        let Seq2SeqConfig { vocabulary, embedding, reading, shared, .. } = *config;
        if vocabulary < 3 {
            return Err(Error::config(format!(
                "`vocabulary` = {vocabulary} must be at least 3: START, END and a word"
            )));
        }
        if embedding < 1 {
            return Err(Error::config(format!("`embedding` = {embedding} must be at least 1")));
        }
        if config.stack.bidirectional {
            return Err(Error::config(
                "`bidirectional` = true: set reading = \"bidirectional\", which applies to the encoder only",
            ));
        }
        if shared && reading == Reading::Bidirectional {
            return Err(Error::config(
                "`shared` = true needs reading = \"forward\" or \"reversed\": a decoder has one direction",
            ));
        }
        let mut b = Builder::new(rng);
        let part = |b: &mut Builder<'_>, name: &str, bidirectional: bool| {
            let stack = StackConfig { bidirectional, ..config.stack.clone() };
            b.scope(name, |b| {
                let embed = Embedding::new(b, "embed", vocabulary, embedding);
                Ok::<_, Error>((embed, Stack::new(b, "stack", embedding, &stack)?))
            })
        };
        let encoder = part(&mut b, "encoder", reading == Reading::Bidirectional)?;
        let decoder = if shared { encoder.clone() } else { part(&mut b, "decoder", false)? };
        let (query, key) = (decoder.1.outputs(), encoder.1.outputs());
        let linear = |b: &mut Builder<'_>, name: &str, inputs: i64, outputs: i64| {
            Linear::new(b, name, inputs, outputs, Init::Uniform { fan_in: inputs }, Init::Constant(0.0))
        };
        let attention = config.attention.map(|kind| {
            let attention = Attention::new(&mut b, "attention", kind, query, key);
            (attention, linear(&mut b, "combine", query + key, query))
        });
        let output = linear(&mut b, "output", query, vocabulary);
        let layers = Layers { encoder, decoder, attention, output };
        Ok(Self { params: b.finish(Device::Cpu, Kind::Float), layers, reading, vocabulary })
    }

    /// Rejects tokens outside the vocabulary.
    fn check(&self, tokens: &Tensor) -> Result<()> {
        let (least, most) = (tokens.min().int64_value(&[]), tokens.max().int64_value(&[]));
        if least < 0 || most >= self.vocabulary {
            let token = if least < 0 { least } else { most };
            return Err(Error::config(format!("token {token} must be at least 0 and less than {}", self.vocabulary)));
        }
        Ok(())
    }

    /// Encodes the sources `[S, n]`.
    fn read(&self, source: &Tensor, lengths: &Lengths, rng: Option<&mut Rng>) -> Result<Read> {
        self.check(source)?;
        let w = self.params.weights();
        let (embed, stack) = &self.layers.encoder;
        let source = match self.reading {
            Reading::Reversed => lengths.reverse(&source.unsqueeze(-1)).squeeze_dim(-1),
            _ => source.shallow_clone(),
        };
        let start = stack.initial_state(lengths.n() as usize, Device::Cpu);
        let (outputs, mut state) = stack.forward(w, &embed.forward(w, &source), &start, lengths, rng)?;
        if self.reading == Reading::Bidirectional {
            state = state.chunks(2).map(|pair| pair[0].concat(&pair[1])).collect();
        }
        let keys = match &self.layers.attention {
            Some((attention, _)) => Some(attention.keys(w, &outputs, lengths)?),
            None => None,
        };
        Ok(Read { state, keys })
    }

    /// Decodes `tokens` `[t, n]`: the logits of each next token, `[t, n, vocabulary]`, and the recurrent state after the last.
    fn write(
        &self,
        w: &Weights,
        tokens: &Tensor,
        state: &[RecurrentState],
        keys: Option<&Keys>,
        lengths: &Lengths,
        rng: Option<&mut Rng>,
    ) -> Result<(Tensor, Vec<RecurrentState>)> {
        let Layers { decoder: (embed, stack), attention, output, .. } = &self.layers;
        let (mut y, state) = stack.forward(w, &embed.forward(w, tokens), state, lengths, rng)?;
        if let (Some((attention, combine)), Some(keys)) = (attention, keys) {
            let (context, _) = attention.forward(w, keys, &y.transpose(0, 1))?;
            y = combine.forward(w, &Tensor::cat(&[y, context.transpose(0, 1)], -1)).tanh();
        }
        Ok((output.forward(w, &y), state))
    }

    /// The mean cross-entropy of a target's token, in nats (a scalar). The decoder receives the true previous token with probability
    /// `epsilon` (see [`crate::scheduled_sampling`]; 1: teacher forcing) and its own most probable one otherwise. `rng`
    /// samples between the two and samples dropout masks; `None` (evaluation) means teacher forcing.
    ///
    /// # Errors
    /// [`Error::Config`] if a token is not in the vocabulary.
    pub fn loss(&self, pairs: &Pairs, epsilon: f64, mut rng: Option<&mut Rng>) -> Result<Tensor> {
        self.check(&pairs.target)?;
        let Pairs { source, source_lengths, target, target_lengths } = pairs;
        let read = self.read(source, source_lengths, rng.as_deref_mut())?;
        let w = self.params.weights();
        let (n, keys) = (target_lengths.n(), read.keys.as_ref());
        let start = Tensor::full([1, n], START, (Kind::Int64, Device::Cpu));
        let logits = match rng {
            Some(rng) if epsilon < 1.0 => {
                let one = Lengths::full(n, 1)?;
                let (mut token, mut state, mut all) = (start, read.state, Vec::new());
                for t in 0..target_lengths.steps() {
                    let (logits, after) = self.write(w, &token, &state, keys, &one, Some(&mut *rng))?;
                    state = after;
                    let teacher = Tensor::from_slice(&coins(epsilon, n as usize, rng)).unsqueeze(0);
                    let own = logits.detach().argmax(-1, false);
                    token = target.narrow(0, t, 1).where_self(&teacher, &own);
                    all.push(logits);
                }
                Tensor::cat(&all, 0)
            }
            rng => {
                let seen = Tensor::cat(&[start, target.narrow(0, 0, target_lengths.steps() - 1)], 0);
                self.write(w, &seen, &read.state, keys, target_lengths, rng)?.0
            }
        };
        let log_prob = logits.log_softmax(-1, None::<Kind>).gather(-1, &target.unsqueeze(-1), false).squeeze_dim(-1);
        let mask = target_lengths.mask(Device::Cpu);
        Ok(-(log_prob * mask.to_kind(Kind::Float)).sum(Kind::Float) / mask.sum(Kind::Float))
    }

    /// Greedy decoding of each source without [`END`], at most `max_steps` tokens.
    ///
    /// # Errors
    /// [`Error::Config`] if a source is empty or has a token that is not in the vocabulary.
    pub fn greedy(&self, sources: &[Vec<i64>], max_steps: usize) -> Result<Vec<Vec<i64>>> {
        let (source, lengths) = pad(sources)?;
        no_grad(|| {
            let read = self.read(&source, &lengths, None)?;
            let (w, n, one) = (self.params.weights(), sources.len(), Lengths::full(lengths.n(), 1)?);
            let mut token = Tensor::full([1, n as i64], START, (Kind::Int64, Device::Cpu));
            let (mut state, mut answers, mut ended) = (read.state, vec![Vec::new(); n], vec![false; n]);
            for _ in 0..max_steps {
                let (logits, after) = self.write(w, &token, &state, read.keys.as_ref(), &one, None)?;
                (state, token) = (after, logits.argmax(-1, false));
                for (i, answer) in answers.iter_mut().enumerate() {
                    let next = token.int64_value(&[0, i as i64]);
                    ended[i] |= next == END;
                    if !ended[i] {
                        answer.push(next);
                    }
                }
                if ended.iter().all(|&e| e) {
                    break;
                }
            }
            Ok(answers)
        })
    }

    /// The fraction of sources whose [`greedy`](Self::greedy) output equals the target, and the fraction of target tokens without
    /// [`END`] that are correct.
    ///
    /// # Errors
    /// As [`greedy`](Self::greedy).
    pub fn accuracy(&self, sources: &[Vec<i64>], targets: &[Vec<i64>]) -> Result<(f64, f64)> {
        let longest = targets.iter().map(Vec::len).max().unwrap_or(0);
        let answers = self.greedy(sources, longest + 1)?;
        let whole = answers.iter().zip(targets).filter(|(a, t)| a == t).count();
        let right: usize =
            answers.iter().zip(targets).map(|(a, t)| a.iter().zip(t).filter(|(a, t)| a == t).count()).sum();
        let tokens: usize = targets.iter().map(Vec::len).sum();
        Ok((whole as f64 / targets.len() as f64, right as f64 / tokens.max(1) as f64))
    }

    /// The best outputs for `source` found by beam search, best first; their tokens end with [`END`].
    ///
    /// # Errors
    /// As [`greedy`](Self::greedy), and for invalid settings of the search.
    pub fn beam(&self, source: &[i64], config: &BeamConfig) -> Result<Vec<Hypothesis>> {
        let (source, lengths) = pad(&[source.to_vec()])?;
        no_grad(|| {
            let read = self.read(&source, &lengths, None)?;
            beam::search(&Answer { network: self, read: &read }, START, END, config)
        })
    }
}

/// The decoder of one source, for beam search.
struct Answer<'a> {
    network: &'a Seq2Seq,
    read: &'a Read,
}

impl beam::Decoder for Answer<'_> {
    type State = Vec<RecurrentState>;

    fn start(&self) -> Self::State {
        self.read.state.iter().map(RecurrentState::shallow_clone).collect()
    }

    fn step(&self, state: &Self::State, tokens: &[i64]) -> Result<(Vec<Vec<f64>>, Self::State)> {
        let n = tokens.len() as i64;
        // All hypotheses attend to the one source.
        let keys = self.read.keys.as_ref().map(|keys| keys.rows(&Tensor::zeros([n], (Kind::Int64, Device::Cpu))));
        let (w, one) = (self.network.params.weights(), Lengths::full(n, 1)?);
        let tokens = Tensor::from_slice(tokens).unsqueeze(0);
        let (logits, after) = self.network.write(w, &tokens, state, keys.as_ref(), &one, None)?;
        let log_probs = logits.get(0).log_softmax(-1, Kind::Double);
        let row = |i: i64| {
            let mut row = vec![0.0; self.network.vocabulary as usize];
            log_probs.get(i).copy_data(&mut row, self.network.vocabulary as usize);
            row
        };
        Ok(((0..n).map(row).collect(), after))
    }

    fn select(&self, state: &Self::State, rows: &[usize]) -> Self::State {
        let rows = Tensor::from_slice(&rows.iter().map(|&r| r as i64).collect::<Vec<_>>());
        state.iter().map(|state| state.rows(&rows)).collect()
    }
}
