//! Shapes of layers.

/// The shape of a layer: its outputs, and what a kernel reads at one position of the input. That is `kernel_rows` rows of `row_len`
/// adjacent elements (kernel width × channels), which start `row_stride` apart. A fully connected layer reads one row, all of its
/// input, at a single position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// Output channels.
    pub outputs: usize,
    /// Height of the kernel.
    pub kernel_rows: usize,
    /// Elements of a kernel row.
    pub row_len: usize,
    /// Elements of an image row.
    pub row_stride: usize,
}

impl LayerShape {
    /// Elements that a kernel reads: the inputs of one output.
    pub fn inputs(&self) -> usize {
        self.kernel_rows * self.row_len
    }
}
