//! TorchScript: the graph computed by libtorch, recorded by tracing.
//!
//! A traced method has one result: the outputs side by side, `[n, columns]` ([`columns`]).

use playfield_core::graph::{Graph, Node, Op, Output, Reduction};
use playfield_core::{Array, Dtype, Error, Result};
use std::path::Path;
use tch::{CModule, Device, Kind, Tensor};

/// The number of columns of each output in the result of `forward`.
pub fn columns(graph: &Graph) -> Vec<usize> {
    graph.outputs().iter().map(|output| output.shape.iter().product()).collect()
}

/// Writes `graph` to `path`. The method `forward` of the module maps the inputs, in their order, to the outputs side by side.
///
/// # Errors
/// Where libtorch cannot write the file.
pub fn save(graph: &Graph, path: &Path) -> Result<()> {
    let constants = constants(graph);
    let example = |(_, dtype, shape): (&str, Dtype, &[usize])| {
        // A batch of two: tracing treats an axis of length 1 as any other, but broadcasting does not.
        let shape: Vec<i64> = [2].into_iter().chain(shape.iter().map(|&d| d as i64)).collect();
        Tensor::zeros(&shape[..], (if dtype == Dtype::U8 { Kind::Uint8 } else { Kind::Float }, Device::Cpu))
    };
    let examples: Vec<_> = graph.inputs().map(example).collect();
    let mut forward = |inputs: &[Tensor]| vec![evaluate(graph, &constants, inputs)];
    let module = tch::no_grad(|| CModule::create_by_tracing("Policy", "forward", &examples, &mut forward));
    module.and_then(|module| module.save(path)).map_err(Error::other)
}

/// The constants and scalars of `graph` at their positions; undefined tensors elsewhere.
fn constants(graph: &Graph) -> Vec<Tensor> {
    let tensor = |array: &Array| {
        let shape: Vec<i64> = array.shape.iter().map(|&d| d as i64).collect();
        Tensor::from_slice(&array.values::<f32>().expect("constants are f32")).view(&shape[..])
    };
    let constant = |node: &Node| match node {
        Node::Constant { array, .. } => tensor(array),
        Node::Scalar(number) => Tensor::from(*number),
        _ => Tensor::new(),
    };
    graph.nodes().iter().map(constant).collect()
}

/// The outputs at `inputs`, `[n, columns]`.
fn evaluate(graph: &Graph, constants: &[Tensor], inputs: &[Tensor]) -> Tensor {
    let (mut inputs, mut values) = (inputs.iter(), Vec::<Tensor>::new());
    for (node, constant) in graph.nodes().iter().zip(constants) {
        values.push(match node {
            Node::Input { .. } => inputs.next().expect("one tensor per input").shallow_clone(),
            Node::Constant { .. } | Node::Scalar(_) => constant.shallow_clone(),
            Node::Result { op, operands } => {
                let operands: Vec<_> = operands.iter().map(|operand| &values[operand.index()]).collect();
                apply(op, &operands)
            }
        });
    }
    let output = |(output, columns): (&Output, usize)| values[output.value.index()].reshape([-1, columns as i64]);
    Tensor::cat(&graph.outputs().iter().zip(columns(graph)).map(output).collect::<Vec<_>>(), 1)
}

fn apply(op: &Op, operands: &[&Tensor]) -> Tensor {
    let x = operands[0];
    match op {
        Op::Float => x.to_kind(Kind::Float),
        Op::Linear => x.linear(operands[1], operands.get(2).copied()),
        Op::Conv { stride, padding } => x.conv2d(operands[1], Some(operands[2]), *stride, *padding, 1, 1),
        Op::MaxPool { size, stride, padding } => {
            x.max_pool2d([*size; 2], [*stride; 2], [*padding; 2], [1_i64, 1], false)
        }
        Op::Relu => x.relu(),
        Op::Tanh => x.tanh(),
        Op::Sigmoid => x.sigmoid(),
        Op::Exp => x.exp(),
        Op::Sqrt => x.sqrt(),
        Op::Softmax => x.softmax(-1, None::<Kind>),
        Op::Add => x + operands[1],
        Op::Sub => x - operands[1],
        Op::Mul => x * operands[1],
        Op::Div => x / operands[1],
        Op::Clip { min, max } => x.clamp(f64::from(*min), f64::from(*max)),
        Op::Reduce { by: Reduction::Mean, axes, keep } => x.mean_dim(&axes[..], *keep, None::<Kind>),
        Op::Reduce { by: Reduction::Sum, axes, keep } => x.sum_dim_intlist(&axes[..], *keep, None::<Kind>),
        Op::Reduce { by: Reduction::Max, axes, keep } => x.amax(&axes[..], *keep),
        Op::Columns { start, len } => x.narrow(1, *start, *len),
        Op::Reshape(shape) => x.reshape(&shape[..]),
        Op::Transpose(axes) => x.permute(&axes[..]),
        Op::ExpandAs => x.expand_as(operands[1]),
    }
}
