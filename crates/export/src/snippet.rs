//! Python code that runs a model.

use crate::{Format, Head, Model, python, shape, torchscript};
use playfield_core::{ActionSpace, Dtype};
use std::fmt::Write as _;

impl Model<'_> {
    /// Python code that computes the outputs for one observation of zeros, from the file `file`, and selects the greedy action.
    pub fn snippet(&self, format: Format, file: &str) -> String {
        let prefix = if format == Format::Onnx { "np" } else { "torch" };
        let mut code = String::new();
        let mut line = |text: String| _ = writeln!(code, "{text}");
        match format {
            Format::Onnx => {
                line("import numpy as np\nimport onnxruntime\n".into());
                line(format!("policy = onnxruntime.InferenceSession({file:?})"));
            }
            Format::TorchScript => {
                line("import torch\n".into());
                line(format!("policy = torch.jit.load({file:?})"));
            }
            Format::SafeTensors => {
                line(
                    "import torch\nimport torch.nn.functional as F\nfrom safetensors.torch import load_file\n\n".into(),
                );
                line(python::function(&self.graph));
                line(format!("\nweights = load_file({file:?})"));
            }
        }
        for (name, dtype, shape) in self.graph.inputs() {
            let sizes = [1].iter().chain(shape).map(usize::to_string).collect::<Vec<_>>().join(", ");
            let dtype = if dtype == Dtype::U8 { "uint8" } else { "float32" };
            let note = if name == "obs" { "one observation" } else { "at the start of an episode" };
            line(format!("{name} = {prefix}.zeros(({sizes}), dtype={prefix}.{dtype})  # {note}"));
        }
        let inputs: Vec<_> = self.graph.inputs().map(|(name, ..)| name).collect();
        // The next recurrent state replaces the one before.
        let outputs: Vec<_> = self.graph.outputs().iter().map(|o| o.name.trim_start_matches("next_")).collect();
        let outputs = outputs.join(", ");
        match format {
            Format::Onnx => {
                let feed: Vec<_> = inputs.iter().map(|name| format!("{name:?}: {name}")).collect();
                line(format!("{outputs} = policy.run(None, {{{}}})", feed.join(", ")));
            }
            Format::TorchScript => {
                let columns: Vec<_> = torchscript::columns(&self.graph).iter().map(usize::to_string).collect();
                line("with torch.no_grad():".into());
                line(format!("    {outputs} = policy({}).split([{}], 1)", inputs.join(", "), columns.join(", ")));
            }
            Format::SafeTensors => line(format!("{outputs} = policy(weights, {})", inputs.join(", "))),
        }
        line(self.greedy(prefix));
        line("print(action)".into());
        code
    }

    /// The selection of greedy actions by NumPy (`np`) or PyTorch (`torch`).
    pub(crate) fn greedy(&self, prefix: &str) -> String {
        match self.head() {
            Head::Logits => {
                format!("{}{}  # the most probable", self.mask("logits", prefix), self.argmax("logits", prefix))
            }
            Head::QValues => {
                format!("{}{}  # the most valuable", self.mask("q_values", prefix), self.argmax("q_values", prefix))
            }
            Head::Gaussian => format!("action = mean\n{}", self.to_bounds(prefix)),
        }
    }

    /// The selection of the action with the largest element of `x`, for each component of an action.
    pub(crate) fn argmax(&self, x: &str, prefix: &str) -> String {
        let sizes = self.origin.spec.actions.sizes();
        if sizes.len() == 1 {
            return format!("action = {x}.argmax(1)");
        }
        let ends: Vec<_> =
            sizes.iter().scan(0, |end, size| Some(std::mem::replace(end, *end + size))).skip(1).collect();
        let parts =
            if prefix == "np" { format!("np.split({x}, {ends:?}, 1)") } else { format!("{x}.split({sizes:?}, 1)") };
        format!("action = {prefix}.stack([part.argmax(1) for part in {parts}], 1)")
    }

    /// Excludes invalid actions from `x`; empty where the environment has no action masks.
    pub(crate) fn mask(&self, x: &str, prefix: &str) -> String {
        match self.origin.spec.action_mask {
            true => format!(
                "mask = {prefix}.ones({x}.shape, dtype=bool)  # the valid actions\n\
                 {x} = {prefix}.where(mask, {x}, -{prefix}.inf)\n"
            ),
            false => String::new(),
        }
    }

    /// The mapping of continuous actions to the bounds of the environment: [`ActionSpace::to_bounds`].
    pub(crate) fn to_bounds(&self, prefix: &str) -> String {
        let ActionSpace::Box { low, high } = &self.origin.spec.actions else { return String::new() };
        let make = if prefix == "np" { "np.array" } else { "torch.tensor" };
        let list = |values: &[f32]| {
            let number = |v: &f32| if v.is_finite() { format!("{v:?}") } else { format!("float(\"{v}\")") };
            format!("{make}([{}])", values.iter().map(number).collect::<Vec<_>>().join(", "))
        };
        let mut code = format!("low, high = {}, {}\n", list(low), list(high));
        let scaled = format!("low + ({prefix}.clip(action, -1, 1) + 1) / 2 * (high - low)");
        let finite = low.iter().zip(high).all(|(low, high)| low.is_finite() && high.is_finite());
        code += &match finite {
            true => format!("action = {scaled}  # mapped to the bounds"),
            false => format!(
                "finite = {prefix}.isfinite(low) & {prefix}.isfinite(high)\n\
                 action = {prefix}.where(finite, {scaled}, {prefix}.clip(action, low, high))  # mapped to the bounds"
            ),
        };
        code
    }

    /// The shape of one observation.
    pub(crate) fn obs_shape(&self) -> Vec<usize> {
        shape(self.origin.spec)
    }
}
