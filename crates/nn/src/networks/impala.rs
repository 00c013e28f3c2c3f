//! The residual network of IMPALA (Espeholt et al. 2018, figure 3, right), up to its fully connected layer.
//!
//! ```text
//! 16, 32, 32 channels:   conv 3×3 ─ max 3×3/2 ─ block ─ block
//! block:                 x ┬ relu ─ conv 3×3 ─ relu ─ conv 3×3 ┬ +       (He et al. 2016)
//!                          └───────────────────────────────────┘
//! ```
//!
//! Fifteen convolutions (DQN's network has three), and 54 million multiplications for an observation of four 84×84 frames (DQN: 9
//! million). Not for tasks that a smaller network learns.

use super::config::NetworkConfig;
use super::own_kernels::kernel_layer;
use crate::export::Exporter;
use crate::init::{RECTIFIER_GAIN, hidden_init};
use crate::layers::conv::Conv;
use crate::layers::norm::Norm;
use crate::params::{Builder, Params, Weights};
use crate::pass::Pass;
use playfield_core::graph::{Op, Value};
use playfield_kernels::{Connection, Layer};
use tch::Tensor;

/// Channels of the three stages.
const CHANNELS: [i64; 3] = [16, 32, 32];

/// `[n, inputs, h, w]` to `[n, 32, ⌈h/8⌉, ⌈w/8⌉]`.
#[derive(Clone, Debug)]
pub struct Impala {
    stages: Vec<Stage>,
}

#[derive(Clone, Debug)]
struct Stage {
    entry: Normed,
    blocks: [[Normed; 2]; 2],
}

/// A convolution that keeps an image's size, and its normalization.
#[derive(Clone, Copy, Debug)]
struct Normed {
    conv: Conv,
    norm: Norm,
}

impl Impala {
    /// The stages on images of `channels` channels.
    pub fn new(b: &mut Builder<'_>, config: &NetworkConfig, channels: i64) -> Self {
        let mut inputs = channels;
        let stages = CHANNELS.iter().enumerate().map(|(i, &outputs)| {
            let stage = b.scope(&format!("stage{}", i + 1), |b| Stage {
                entry: Normed::new(b, "conv", config, inputs, outputs),
                blocks: ["block1", "block2"].map(|block| {
                    b.scope(block, |b| ["conv1", "conv2"].map(|name| Normed::new(b, name, config, outputs, outputs)))
                }),
            });
            inputs = outputs;
            stage
        });
        Self { stages: stages.collect() }
    }

    /// Size of the result on `h`×`w` images: height, width, channels.
    pub fn size(h: i64, w: i64) -> (i64, i64, i64) {
        let [h, w] = [h, w].map(|side| CHANNELS.iter().fold(side, |side, _| (side - 1) / 2 + 1));
        (h, w, CHANNELS[2])
    }

    /// Applies the stages to `x · scale`.
    pub fn forward(&self, w: &Weights, x: &Tensor, scale: f64, pass: Pass) -> Tensor {
        let (mut x, mut scale) = (x.shallow_clone(), scale);
        for stage in &self.stages {
            x = stage.entry.forward(w, &x, scale, pass).max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
            for [first, second] in &stage.blocks {
                x = &x + second.forward(w, &first.forward(w, &x.relu(), 1.0, pass).relu_(), 1.0, pass);
            }
            scale = 1.0;
        }
        x.relu_()
    }

    /// Adds the stages to a graph, on scaled images.
    pub fn export(&self, e: &mut Exporter<'_>, mut x: Value) -> Value {
        for stage in &self.stages {
            let entry = stage.entry.export(e, x);
            x = e.graph.op(Op::MaxPool { size: 3, stride: 2, padding: 1 }, &[entry]);
            for [first, second] in &stage.blocks {
                let mut y = x;
                for layer in [first, second] {
                    y = e.graph.op(Op::Relu, &[y]);
                    y = layer.export(e, y);
                }
                x = e.graph.op(Op::Add, &[x, y]);
            }
        }
        e.graph.op(Op::Relu, &[x])
    }

    /// The convolutions as playfield's own kernels have them. A stage's convolution reads the sum of the stage before without a
    /// rectifier.
    pub(super) fn kernel_layers(&self, params: &Params) -> Vec<Layer> {
        let mut layers: Vec<Layer> = Vec::new();
        for stage in &self.stages {
            if let Some(sum) = layers.last_mut() {
                sum.rectifier = false;
            }
            layers.push(Layer { connection: Connection::MaxPool, ..stage.entry.kernel_layer(params) });
            for [first, second] in &stage.blocks {
                layers.push(first.kernel_layer(params));
                layers.push(Layer { connection: Connection::Residual, ..second.kernel_layer(params) });
            }
        }
        layers
    }

    /// Folds every batch norm into the convolution before it.
    pub fn fold(&mut self, params: &mut Params) {
        for stage in &mut self.stages {
            for layer in [&mut stage.entry].into_iter().chain(stage.blocks.iter_mut().flatten()) {
                layer.norm.fold(params, layer.conv.slots());
            }
        }
    }
}

impl Normed {
    fn new(b: &mut Builder<'_>, name: &str, config: &NetworkConfig, inputs: i64, outputs: i64) -> Self {
        let init = hidden_init(config.init, inputs * 9, RECTIFIER_GAIN);
        let conv = Conv::new(b, name, (inputs, outputs), (3, 1), init).padded(1);
        Self { conv, norm: Norm::new(b, &format!("{name}_norm"), config.norm, outputs) }
    }

    fn forward(&self, w: &Weights, x: &Tensor, scale: f64, pass: Pass) -> Tensor {
        self.norm.forward(w, self.conv.forward_scaled(w, x, scale), pass)
    }

    fn kernel_layer(&self, params: &Params) -> Layer {
        kernel_layer(params, self.conv.slots(), Some(&self.conv), &self.norm)
    }

    fn export(&self, e: &mut Exporter<'_>, x: Value) -> Value {
        let x = self.conv.export(e, x);
        self.norm.export(e, x, true)
    }
}
