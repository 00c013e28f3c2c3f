//! The graph as PyTorch code, for the weights of a safetensors file.

use playfield_core::graph::{Graph, Node, Op, Reduction};
use std::fmt::Write as _;

/// A function `policy(w, obs, …)`: from a dictionary of weights and the inputs, in their order, to a tuple of the outputs.
pub fn function(graph: &Graph) -> String {
    let inputs: Vec<_> = graph.inputs().map(|(name, ..)| name).collect();
    let mut code = format!("def policy(w, {}):\n", inputs.join(", "));
    let mut names = Vec::<String>::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        names.push(match node {
            Node::Input { name, .. } => name.clone(),
            Node::Constant { name, .. } => format!("w[\"{name}\"]"),
            Node::Scalar(number) => format!("{number:?}"),
            Node::Result { op, operands } => {
                let output = graph.outputs().iter().find(|output| output.value.index() == index);
                let name = output.map_or(format!("v{index}"), |output| output.name.clone());
                let operands: Vec<_> = operands.iter().map(|operand| names[operand.index()].as_str()).collect();
                let _ = writeln!(code, "    {name} = {}", expression(op, &operands));
                name
            }
        });
    }
    let outputs: Vec<_> = graph.outputs().iter().map(|output| output.name.as_str()).collect();
    let _ = writeln!(code, "    return {}", outputs.join(", "));
    code
}

fn expression(op: &Op, operands: &[&str]) -> String {
    let x = operands[0];
    let list = |values: &[i64]| values.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    match op {
        Op::Float => format!("{x}.float()"),
        Op::Linear => format!("F.linear({})", operands.join(", ")),
        Op::Conv { stride, padding } => {
            format!("F.conv2d({}, stride={stride}, padding={padding})", operands.join(", "))
        }
        Op::MaxPool { size, stride, padding } => format!("F.max_pool2d({x}, {size}, {stride}, {padding})"),
        Op::Relu => format!("torch.relu({x})"),
        Op::Tanh => format!("torch.tanh({x})"),
        Op::Sigmoid => format!("torch.sigmoid({x})"),
        Op::Exp => format!("torch.exp({x})"),
        Op::Sqrt => format!("torch.sqrt({x})"),
        Op::Softmax => format!("torch.softmax({x}, -1)"),
        Op::Add => operands.join(" + "),
        Op::Sub => operands.join(" - "),
        Op::Mul => operands.join(" * "),
        Op::Div => operands.join(" / "),
        Op::Clip { min, max } => format!("{x}.clamp({min:?}, {max:?})"),
        Op::Reduce { by, axes, keep } => {
            let method = match by {
                Reduction::Mean => "mean",
                Reduction::Sum => "sum",
                Reduction::Max => "amax",
            };
            format!("{x}.{method}(({},), keepdim={})", list(axes), if *keep { "True" } else { "False" })
        }
        Op::Columns { start, len } => format!("{x}[:, {start}:{}]", start + len),
        Op::Reshape(shape) => format!("{x}.reshape({})", list(shape)),
        Op::Transpose(axes) => format!("{x}.permute({})", list(axes)),
        Op::ExpandAs => format!("{x}.expand_as({})", operands[1]),
    }
}
