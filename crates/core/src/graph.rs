//! A network as a graph of operators: how a policy is described to other programs.
//!
//! A [`Graph`] is a list of values in the order of their computation: inputs, constants, and results of an [`Op`] on earlier values.
//! The first axis of inputs and outputs is the batch; its size is open. Operators have the meaning and the layouts of PyTorch:
//! images are `[n, channels, height, width]`, weights `[outputs, inputs, …]`. All arithmetic is in `f32`.
//!
//! Policies build it ([`Policy::export`](crate::Policy::export)), the layers of `crates/nn` one operator or a few each; `crates/export`
//! converts it to ONNX, TorchScript and PyTorch code.

use crate::{Array, Dtype};

/// A value of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(usize);

/// An operator on values.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Conversion to `f32`.
    Float,
    /// x Wᵀ + b. Operands: x `[n, inputs]`, W `[outputs, inputs]`, and b `[outputs]`, which may be left out.
    Linear,
    /// A two-dimensional convolution. Operands: x `[n, inputs, h, w]`, W `[outputs, inputs, size, size]`, b `[outputs]`.
    Conv {
        /// Stride in both directions.
        stride: i64,
        /// Zero padding on each side.
        padding: i64,
    },
    /// The maximum of each `size`×`size` window of `[n, c, h, w]`. Padding does not count.
    MaxPool {
        /// Side of the window.
        size: i64,
        /// Stride in both directions.
        stride: i64,
        /// Padding on each side.
        padding: i64,
    },
    /// max(x, 0).
    Relu,
    /// tanh.
    Tanh,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
    /// eˣ.
    Exp,
    /// √x.
    Sqrt,
    /// Softmax over the last axis.
    Softmax,
    /// x + y, broadcast.
    Add,
    /// x − y, broadcast.
    Sub,
    /// x · y, broadcast.
    Mul,
    /// x / y, broadcast.
    Div,
    /// x, limited to an interval.
    Clip {
        /// The lower bound.
        min: f32,
        /// The upper bound.
        max: f32,
    },
    /// A reduction over `axes`.
    Reduce {
        /// How elements are combined.
        by: Reduction,
        /// The axes.
        axes: Vec<i64>,
        /// Whether the axes remain, with length 1.
        keep: bool,
    },
    /// Columns `start..start + len` of `[n, columns]`.
    Columns {
        /// The first column.
        start: i64,
        /// The number of columns.
        len: i64,
    },
    /// The same elements in another shape; −1 once: the length that fits.
    Reshape(Vec<i64>),
    /// A permutation of the axes.
    Transpose(Vec<i64>),
    /// x, broadcast to the shape of y.
    ExpandAs,
}

/// How a reduction combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// Their maximum.
    Max,
}

/// The definition of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// An input `[n, shape…]`.
    Input {
        /// Its name.
        name: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape without the batch axis.
        shape: Vec<usize>,
    },
    /// A constant.
    Constant {
        /// Its name: that of a parameter, as in a checkpoint.
        name: String,
        /// Its elements, `f32`.
        array: Array,
    },
    /// A number.
    Scalar(f32),
    /// The result of an operator.
    Result {
        /// The operator.
        op: Op,
        /// Its operands.
        operands: Vec<Value>,
    },
}

/// An output `[n, shape…]`, `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Its shape without the batch axis.
    pub shape: Vec<usize>,
}

/// A graph of operators.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    outputs: Vec<Output>,
}

impl Value {
    /// Its position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

impl Graph {
    /// Adds an input `[n, shape…]`.
    pub fn input(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Value {
        self.push(Node::Input { name: name.into(), dtype, shape: shape.to_vec() })
    }

    /// Adds a constant, or returns the one of that name.
    pub fn constant(&mut self, name: &str, array: impl FnOnce() -> Array) -> Value {
        let same = |node: &Node| matches!(node, Node::Constant { name: other, .. } if other == name);
        match self.nodes.iter().position(same) {
            Some(index) => Value(index),
            None => self.push(Node::Constant { name: name.into(), array: array() }),
        }
    }

    /// Adds the result of `op` on `operands`.
    pub fn op(&mut self, op: Op, operands: &[Value]) -> Value {
        self.push(Node::Result { op, operands: operands.to_vec() })
    }

    /// Adds the result of `op` on `x` and a number.
    pub fn op_scalar(&mut self, op: Op, x: Value, number: f32) -> Value {
        let number = self.push(Node::Scalar(number));
        self.op(op, &[x, number])
    }

    /// Adds the reduction of `x` over `axes`, which remain with length 1.
    pub fn reduce(&mut self, by: Reduction, x: Value, axes: &[i64]) -> Value {
        self.op(Op::Reduce { by, axes: axes.to_vec(), keep: true }, &[x])
    }

    /// `x` as `f32`.
    pub fn float(&mut self, x: Value) -> Value {
        match &self.nodes[x.0] {
            Node::Input { dtype: Dtype::U8, .. } => self.op(Op::Float, &[x]),
            _ => x,
        }
    }

    /// `x` in the shape `[n, shape…]`.
    pub fn reshape(&mut self, x: Value, shape: &[usize]) -> Value {
        match self.input_shape(x) {
            Some(current) if current == shape => x,
            _ => self.op(Op::Reshape([-1].into_iter().chain(shape.iter().map(|&d| d as i64)).collect()), &[x]),
        }
    }

    /// The shape of an input, converted or not.
    fn input_shape(&self, x: Value) -> Option<&[usize]> {
        match &self.nodes[x.0] {
            Node::Input { shape, .. } => Some(shape),
            Node::Result { op: Op::Float, operands } => self.input_shape(operands[0]),
            _ => None,
        }
    }

    /// Declares `value`, the result of an operator, as an output `[n, shape…]`.
    ///
    /// # Panics
    /// If it is not the result of an operator, or an output already: a bug of the caller.
    pub fn output(&mut self, name: &str, value: Value, shape: &[usize]) {
        let is_new = self.outputs.iter().all(|output| output.value != value);
        assert!(is_new && matches!(self.nodes[value.0], Node::Result { .. }), "`{name}` must be a new result");
        self.outputs.push(Output { name: name.into(), value, shape: shape.to_vec() });
    }

    /// The definitions of all values, in the order of their computation.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The outputs.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The inputs: name, element type, and shape without the batch axis.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, Dtype, &[usize])> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Input { name, dtype, shape } => Some((name.as_str(), *dtype, shape.as_slice())),
            _ => None,
        })
    }

    /// The constants by name.
    pub fn constants(&self) -> impl Iterator<Item = (&str, &Array)> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Constant { name, array } => Some((name.as_str(), array)),
            _ => None,
        })
    }

    fn push(&mut self, node: Node) -> Value {
        self.nodes.push(node);
        Value(self.nodes.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_constants_and_shapes_add_nothing() {
        let mut graph = Graph::default();
        let obs = graph.input("obs", Dtype::U8, &[2, 3]);
        let x = graph.float(obs);
        assert_eq!(graph.reshape(x, &[2, 3]), x);
        assert_eq!(graph.float(x), x);
        let w = graph.constant("w", || Array::new(&[2], &[1.0_f32, 2.0]));
        assert_eq!(graph.constant("w", || unreachable!()), w);
        let flat = graph.reshape(x, &[6]);
        assert_eq!(graph.nodes()[flat.index()], Node::Result { op: Op::Reshape(vec![-1, 6]), operands: vec![x] });
        graph.output("flat", flat, &[6]);
        assert_eq!((graph.nodes().len(), graph.inputs().count(), graph.constants().count()), (4, 1, 1));
    }

    #[test]
    #[should_panic(expected = "`again` must be a new result")]
    fn a_value_is_one_output() {
        let mut graph = Graph::default();
        let obs = graph.input("obs", Dtype::F32, &[1]);
        let x = graph.op(Op::Relu, &[obs]);
        graph.output("once", x, &[1]);
        graph.output("again", x, &[1]);
    }

    #[test]
    fn outputs_keep_their_order() {
        let mut graph = Graph::default();
        let obs = graph.input("obs", Dtype::F32, &[3]);
        for name in ["policy", "value"] {
            let x = graph.op(if name == "policy" { Op::Relu } else { Op::Tanh }, &[obs]);
            graph.output(name, x, &[3]);
        }
        let names: Vec<_> = graph.outputs().iter().map(|output| output.name.as_str()).collect();
        assert_eq!((names, graph.outputs()[1].shape.as_slice()), (vec!["policy", "value"], &[3][..]));
    }
}
