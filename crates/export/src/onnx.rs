//! ONNX: <https://onnx.ai>, operator set 18.

use playfield_core::graph::{Graph, Node, Op, Reduction, Value};
use playfield_core::{Array, Dtype};
use prost::Message;

/// The version of the file format. 8 is the first with operator set 18 (ONNX 1.13, 2022), so that older runtimes read it, too.
const IR_VERSION: i64 = 8;
const OPERATOR_SET: i64 = 18;

/// The name of the batch axis.
const BATCH: &str = "n";

/// The file of `graph`, with the facts `metadata` about it.
pub fn encode(graph: &Graph, metadata: &[(&str, String)]) -> Vec<u8> {
    let mut file = GraphProto { name: "policy".into(), ..GraphProto::default() };
    let names: Vec<_> = (0..graph.nodes().len()).map(|index| name(graph, index)).collect();
    for (index, node) in graph.nodes().iter().enumerate() {
        match node {
            Node::Input { name, dtype, shape } => file.input.push(value(name, data_type(*dtype), shape)),
            Node::Constant { name, array } => file.initializer.push(tensor(name, array)),
            Node::Scalar(number) => file.initializer.push(tensor(&names[index], &Array::new(&[], &[*number]))),
            Node::Result { op, operands } => {
                let operands = operands.iter().map(|operand: &Value| names[operand.index()].clone()).collect();
                file.result(&names[index], op, operands);
            }
        }
    }
    for output in graph.outputs() {
        file.output.push(value(&output.name, FLOAT, &output.shape));
    }
    let entry = |(key, value): &(&str, String)| Entry { key: (*key).into(), value: value.clone() };
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "playfield".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(file),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPERATOR_SET }],
        metadata_props: metadata.iter().map(entry).collect(),
    };
    model.encode_to_vec()
}

/// The name of a value: that of an input, a constant or an output; else its number.
fn name(graph: &Graph, index: usize) -> String {
    match &graph.nodes()[index] {
        Node::Input { name, .. } | Node::Constant { name, .. } => name.clone(),
        _ => graph.outputs().iter().find(|o| o.value.index() == index).map_or(format!("v{index}"), |o| o.name.clone()),
    }
}

impl GraphProto {
    /// Adds the nodes of a result called `name`.
    fn result(&mut self, name: &str, op: &Op, mut operands: Vec<String>) {
        let mut attributes = Vec::new();
        let kind = match op {
            Op::Float => {
                attributes.push(Attribute::int("to", FLOAT.into()));
                "Cast"
            }
            Op::Linear => {
                attributes.push(Attribute::int("transB", 1));
                "Gemm"
            }
            Op::Conv { stride, padding } => {
                attributes.push(Attribute::ints("strides", &[*stride; 2]));
                attributes.push(Attribute::ints("pads", &[*padding; 4]));
                "Conv"
            }
            Op::MaxPool { size, stride, padding } => {
                attributes.push(Attribute::ints("kernel_shape", &[*size; 2]));
                attributes.push(Attribute::ints("strides", &[*stride; 2]));
                attributes.push(Attribute::ints("pads", &[*padding; 4]));
                "MaxPool"
            }
            Op::Relu => "Relu",
            Op::Tanh => "Tanh",
            Op::Sigmoid => "Sigmoid",
            Op::Exp => "Exp",
            Op::Sqrt => "Sqrt",
            Op::Softmax => {
                attributes.push(Attribute::int("axis", -1));
                "Softmax"
            }
            Op::Add => "Add",
            Op::Sub => "Sub",
            Op::Mul => "Mul",
            Op::Div => "Div",
            Op::Clip { min, max } => {
                for (key, bound) in [("min", min), ("max", max)] {
                    operands.push(self.initializer(name, key, tensor("", &Array::new(&[], &[*bound]))));
                }
                "Clip"
            }
            Op::Reduce { by, axes, keep } => {
                attributes.push(Attribute::int("keepdims", (*keep).into()));
                operands.push(self.integers(name, "axes", axes));
                match by {
                    Reduction::Mean => "ReduceMean",
                    Reduction::Sum => "ReduceSum",
                    Reduction::Max => "ReduceMax",
                }
            }
            Op::Columns { start, len } => {
                for (key, number) in [("starts", *start), ("ends", start + len), ("axes", 1)] {
                    operands.push(self.integers(name, key, &[number]));
                }
                "Slice"
            }
            Op::Reshape(shape) => {
                operands.push(self.integers(name, "shape", shape));
                "Reshape"
            }
            Op::Transpose(axes) => {
                attributes.push(Attribute::ints("perm", axes));
                "Transpose"
            }
            Op::ExpandAs => {
                let like = operands.pop().into_iter().collect();
                operands.push(format!("{name}_shape"));
                self.push("Shape", like, operands[1].clone(), Vec::new());
                "Expand"
            }
        };
        self.push(kind, operands, name.into(), attributes);
    }

    fn push(&mut self, op_type: &str, input: Vec<String>, output: String, attribute: Vec<Attribute>) {
        self.node.push(NodeProto {
            name: output.clone(),
            op_type: op_type.into(),
            input,
            output: vec![output],
            attribute,
        });
    }

    /// Adds a constant operand of the result `name`, and returns its name.
    fn initializer(&mut self, name: &str, key: &str, tensor: TensorProto) -> String {
        let name = format!("{name}_{key}");
        self.initializer.push(TensorProto { name: name.clone(), ..tensor });
        name
    }

    fn integers(&mut self, name: &str, key: &str, values: &[i64]) -> String {
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = TensorProto { dims: vec![values.len() as i64], data_type: INT64, raw_data, ..Default::default() };
        self.initializer(name, key, tensor)
    }
}

fn data_type(dtype: Dtype) -> i32 {
    match dtype {
        Dtype::U8 => UINT8,
        Dtype::F32 => FLOAT,
    }
}

/// An input or output `[n, shape…]`.
fn value(name: &str, elem_type: i32, shape: &[usize]) -> ValueInfo {
    let lengths = shape.iter().map(|&d| dimension::Value::Length(d as i64));
    let axes = [dimension::Value::Parameter(BATCH.into())].into_iter().chain(lengths);
    let dim = axes.map(|value| Dimension { value: Some(value) }).collect();
    let tensor_type = TensorType { elem_type, shape: Some(Shape { dim }) };
    ValueInfo { name: name.into(), r#type: Some(Type { tensor_type: Some(tensor_type) }) }
}

/// An `f32` array.
fn tensor(name: &str, array: &Array) -> TensorProto {
    let dims = array.shape.iter().map(|&d| d as i64).collect();
    TensorProto { dims, data_type: FLOAT, name: name.into(), raw_data: array.data.clone() }
}

// The messages of onnx.proto (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>), with the fields that are used.

/// `TensorProto.DataType`.
const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT64: i32 = 7;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<Entry>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

/// `AttributeProto`.
#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    /// Optional, because a 0 must be written, too.
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    /// `AttributeProto.AttributeType`.
    #[prost(int32, tag = "20")]
    r#type: i32,
}

impl Attribute {
    fn int(name: &str, i: i64) -> Self {
        Self { name: name.into(), i: Some(i), ints: Vec::new(), r#type: 2 }
    }

    fn ints(name: &str, ints: &[i64]) -> Self {
        Self { name: name.into(), i: None, ints: ints.to_vec(), r#type: 7 }
    }
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    /// The elements, little-endian and row-major.
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

/// `TypeProto`.
#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`.
#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(oneof = "dimension::Value", tags = "1, 2")]
    value: Option<dimension::Value>,
}

mod dimension {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        #[prost(int64, tag = "1")]
        Length(i64),
        #[prost(string, tag = "2")]
        Parameter(String),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes written by hand from onnx.proto: tag = field number · 8 + wire type (0: integer, 2: length and bytes).
    #[test]
    fn messages_have_the_public_field_numbers() {
        let attribute = Attribute::int("axis", 0).encode_to_vec();
        assert_eq!(attribute, [&[10, 4][..], b"axis", &[24, 0, 160, 1, 2]].concat());
        let tensor = tensor("w", &Array::new(&[1], &[1.0_f32])).encode_to_vec();
        assert_eq!(tensor, [&[10, 1, 1, 16, 1, 66, 1][..], b"w", &[74, 4, 0, 0, 0x80, 0x3f]].concat());
        let value = value("x", FLOAT, &[3]).encode_to_vec();
        let shape = [&[10, 3, 18, 1][..], b"n", &[10, 2, 8, 3]].concat();
        let kind = [&[10, 13, 8, 1, 18, 9][..], &shape].concat();
        assert_eq!(value, [&[10, 1][..], b"x", &[18, 15], &kind].concat());
    }
}
