//! Networks as graphs of operators, layer by layer: each layer has a method `export` beside its `forward`.
//!
//! Parameters are exported in `f32`, whatever the precision that the network computes in. Only layers of
//! [`networks`](crate::networks) have it: attention, embeddings, GRUs, Elman networks and local response normalization do not.

use crate::params::{Params, Running, Slot};
use playfield_core::graph::{Graph, Op, Reduction, Value};

/// A graph under construction, and the parameters of the network that is added to it.
#[derive(Debug)]
pub struct Exporter<'a> {
    /// The graph.
    pub graph: &'a mut Graph,
    params: &'a Params,
}

impl<'a> Exporter<'a> {
    /// Adds layers with the parameters `params` to `graph`.
    pub fn new(graph: &'a mut Graph, params: &'a Params) -> Self {
        Self { graph, params }
    }

    /// A parameter, as a constant with its name.
    pub fn param(&mut self, slot: Slot) -> Value {
        self.graph.constant(self.params.name(slot), || self.params.array(slot))
    }

    /// A running statistic, as a constant with its name.
    pub fn running(&mut self, running: Running) -> Value {
        self.graph.constant(self.params.running_name(running), || self.params.running_array(running))
    }

    /// The canonical shape of a parameter.
    pub fn shape(&self, slot: Slot) -> Vec<usize> {
        self.params.shape(slot)
    }

    /// `(x − mean)/√variance`.
    pub fn standardize(&mut self, x: Value, mean: Value, variance: Value) -> Value {
        let deviation = self.graph.op(Op::Sqrt, &[variance]);
        let centered = self.graph.op(Op::Sub, &[x, mean]);
        self.graph.op(Op::Div, &[centered, deviation])
    }

    /// The mean and the biased variance of `x` over `axes`, which remain with length 1.
    pub fn moments(&mut self, x: Value, axes: &[i64]) -> (Value, Value) {
        let mean = self.graph.reduce(Reduction::Mean, x, axes);
        let centered = self.graph.op(Op::Sub, &[x, mean]);
        let squares = self.graph.op(Op::Mul, &[centered, centered]);
        (mean, self.graph.reduce(Reduction::Mean, squares, axes))
    }
}
