//! Attention: a weighted mean of what was read, the weights chosen by what is asked.
//!
//! ```text
//! additive         e_ts = vᵀ tanh(W q_t + U k_s)      Bahdanau, Cho and Bengio 2015
//! multiplicative   e_ts = q_tᵀ W k_s                  Luong, Pham and Manning 2015, "general"
//! α_t = softmax_s(e_t), 0 where s is padding          c_t = Σ_s α_ts k_s
//! ```
//!
//! Keys and values are the same here, as in both papers: the encoder's outputs. The additive form costs units × queries × keys
//! numbers in memory, the multiplicative one none of that; neither scales the score, so wide multiplicative keys saturate the
//! softmax (what Vaswani et al. 2017 divide by √d for).
//!
//! Not where order is all that matters and lengths are fixed: neither form knows where a key stands.

use crate::init::Init;
use crate::params::{Builder, Slot, Weights};
use crate::sequence::Lengths;
use playfield_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// How a query and a key make a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKind {
    /// Through a small network of as many units as the query has numbers.
    Additive,
    /// Through a matrix.
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

/// What was read, made ready to be asked many times.
#[derive(Debug)]
pub struct Keys {
    /// What the score needs, `[n, s, units]`.
    projected: Tensor,
    /// What the mean is of, `[n, s, keys]`.
    values: Tensor,
    /// Whether a key is padding, `[n, 1, s]`.
    padding: Tensor,
}

impl Keys {
    /// Those of the sequences `rows` (`i64`, any number of times each).
    pub fn rows(&self, rows: &Tensor) -> Self {
        let [projected, values, padding] =
            [&self.projected, &self.values, &self.padding].map(|tensor| tensor.index_select(0, rows));
        Self { projected, values, padding }
    }
}

impl Attention {
    /// An attention called `name`: W `weight_query` `[query, query]`, U `weight_key` `[query, keys]`, v `weight_score`
    /// `[1, query]`; the multiplicative one has `weight_key` alone.
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

    /// Makes the encoder's outputs `[s, n, keys]` ready to be asked.
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

    /// Asks `keys` by `queries` `[n, t, query]`. Returns the contexts `[n, t, keys]` and the weights `[n, t, s]`, of which
    /// those of a query sum to 1.
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
