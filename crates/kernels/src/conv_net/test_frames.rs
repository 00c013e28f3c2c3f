//! A network and frames for tests.

use super::layer::{Connection, Convolution, Layer};

/// Not a multiple of the first stride.
pub(super) const SIDE: usize = 78;
pub(super) const CHANNELS: usize = 4;

/// Each of `n` frames.
pub(super) fn split_frames(frames: &[u8], n: usize) -> Vec<&[u8]> {
    frames.chunks_exact(frames.len() / n).collect()
}

/// Convolutions of 8 × 8 and 4 × 4, as in Atari networks, one of 3 × 3, and a fully connected layer; each convolution with a norm if `norm`. The number of parameters.
pub(super) fn layers(norm: bool) -> (Vec<Layer>, usize) {
    layers_of(norm, 16)
}

/// The same, with `last` outputs of the last convolution.
pub(super) fn layers_of(norm: bool, last: usize) -> (Vec<Layer>, usize) {
    let mut used = 0;
    let mut range = |len: usize| {
        used += len;
        used - len..used
    };
    let mut layer = |outputs: usize, inputs: usize, convolution: Option<(usize, usize)>| Layer {
        outputs,
        convolution: convolution.map(|(size, stride)| Convolution { size, stride, padding: 0 }),
        weight: range(outputs * inputs),
        bias: range(outputs),
        norm: (norm && convolution.is_some()).then(|| [range(outputs), range(outputs)]),
        connection: Connection::Direct,
        rectifier: true,
    };
    let layers = vec![
        layer(16, 8 * 8 * CHANNELS, Some((8, 4))),
        layer(32, 4 * 4 * 16, Some((4, 2))),
        layer(last, 3 * 3 * 32, Some((3, 1))),
        layer(16, 6 * 6 * last, None),
    ];
    (layers, used)
}

pub(super) fn noise(i: usize) -> f32 {
    (i.wrapping_mul(2_654_435_761) >> 8 & 0xffff) as f32 / 65_536.0 - 0.5
}

/// Background, a band, and a sprite that moves: its rows are as wide as the frame's last columns.
pub(super) fn frames(n: usize) -> Vec<u8> {
    let pixel = |t: usize, y: usize, x: usize| match (y, x) {
        (4..7, _) => 200,
        (y, x) if (20..26).contains(&y) && (10 + 3 * t..14 + 3 * t).contains(&x) => (y * 7 + x * 3) as u8,
        _ => 80,
    };
    let at = |i: usize| (i / CHANNELS / SIDE / SIDE, i / CHANNELS / SIDE % SIDE, i / CHANNELS % SIDE);
    (0..n * SIDE * SIDE * CHANNELS).map(|i| (at(i), i % CHANNELS)).map(|((t, y, x), c)| pixel(t + c, y, x)).collect()
}
