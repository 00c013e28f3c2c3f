//! Attention: a mean of keys, weighted by their scores with a query.
//!
//! ```text
//! additive         e_ts = vᵀ tanh(W q_t + U k_s)      Bahdanau, Cho and Bengio 2015
//! multiplicative   e_ts = q_tᵀ W k_s                  Luong, Pham and Manning 2015, "general"
//! α_t = softmax_s(e_t), 0 where s is padding          c_t = Σ_s α_ts k_s
//! ```
//!
//! Keys and values are the same here, as in both papers: the encoder's outputs. The additive form needs units × queries × keys
//! elements of memory, the multiplicative one none; neither scales the score, so wide multiplicative keys saturate the
//! softmax (which is why Vaswani et al. 2017 divide by √d).
//!
//! Not for tasks that depend on order alone with fixed lengths: neither form encodes the position of a key.

use crate::init::Init;
use crate::layers::recurrent::sequence::Lengths;
use crate::params::{Builder, Slot, Weights};
use playfield_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The score of a query and a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKind {
    /// By a network with one hidden layer of the query's width.
    Additive,
    /// By a matrix.
    Multiplicative,
}

/// Queries `[n, t, query]` and keys `[s, n, keys]` to contexts `[n, t, keys]`.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    score: Score,
    query: i64,
    keys: i64,
}

#[derive(Clone, Copy, Debug)]
enum Score {
    Additive { query: Slot, key: Slot, v: Slot },
    Multiplicative { key: Slot },
}

/// Projected keys, for any number of queries.
#[derive(Debug)]
pub struct Keys {
    /// The keys' part of the score, `[n, s, units]`.
    projected: Tensor,
    /// The values of the mean, `[n, s, keys]`.
    values: Tensor,
    /// Whether a key is padding, `[n, 1, s]`.
    padding: Tensor,
}

impl Keys {
    /// Those of the sequences `rows` (`i64`, repeats allowed).
    pub fn rows(&self, rows: &Tensor) -> Self {
        let [projected, values, padding] =
            [&self.projected, &self.values, &self.padding].map(|tensor| tensor.index_select(0, rows));
        Self { projected, values, padding }
    }
}

impl Attention {
    /// An attention called `name`: W `weight_query` `[query, query]`, U `weight_key` `[query, keys]`, v `weight_score`
    /// `[1, query]`; the multiplicative one has only `weight_key`.
    pub fn new(b: &mut Builder<'_>, name: &str, kind: AttentionKind, query: i64, keys: i64) -> Self {
        let score = b.scope(name, |b| match kind {
            AttentionKind::Additive => Score::Additive {
                query: b.param("weight_query", &[query, query], Init::Uniform { fan_in: query }),
                key: b.param("weight_key", &[query, keys], Init::Uniform { fan_in: keys }),
                v: b.param("weight_score", &[1, query], Init::Uniform { fan_in: query }),
            },
            AttentionKind::Multiplicative => {
                Score::Multiplicative { key: b.param("weight_key", &[query, keys], Init::Uniform { fan_in: keys }) }
            }
        });
        Self { score, query, keys }
    }

    /// Projects the encoder's outputs `[s, n, keys]`.
    ///
    /// # Errors
    /// [`Error::Config`] where their shape and the lengths do not fit.
    pub fn keys(&self, w: &Weights, outputs: &Tensor, lengths: &Lengths) -> Result<Keys> {
        lengths.check(outputs, self.keys)?;
        let values = outputs.transpose(0, 1).contiguous();
        let projected = match self.score {
            Score::Additive { key, .. } | Score::Multiplicative { key } => values.linear(&w[key], None::<&Tensor>),
        };
        let padding = lengths.mask(outputs.device()).tr().unsqueeze(1).logical_not();
        Ok(Keys { projected, values, padding })
    }

    /// Attends to `keys` with `queries` `[n, t, query]`. Returns the contexts `[n, t, keys]` and the weights `[n, t, s]`, which
    /// sum to 1 for each query.
    ///
    /// # Errors
    /// [`Error::Config`] where the shape of the queries does not fit.
    pub fn forward(&self, w: &Weights, keys: &Keys, queries: &Tensor) -> Result<(Tensor, Tensor)> {
        let n = keys.values.size()[0];
        match queries.size()[..] {
            [rows, _, width] if rows == n && width == self.query => {}
            _ => {
                return Err(Error::config(format!(
                    "queries of shape {:?} where [n, t, query] = [{n}, t, {}] is needed",
                    queries.size(),
                    self.query
                )));
            }
        }
        let scores = match self.score {
            Score::Additive { query, v, .. } => {
                let query = queries.linear(&w[query], None::<&Tensor>).unsqueeze(2);
                (query + keys.projected.unsqueeze(1)).tanh().linear(&w[v], None::<&Tensor>).squeeze_dim(-1)
            }
            Score::Multiplicative { .. } => queries.bmm(&keys.projected.transpose(1, 2)),
        };
        let weights = scores.masked_fill(&keys.padding, f64::NEG_INFINITY).softmax(-1, None::<Kind>);
        Ok((weights.bmm(&keys.values), weights))
    }
}
