//! The kernels over emulated tiles, on every processor, and over the processor's where it has them.

use super::tiles::{Emulated, word};
use super::*;
use crate::conv::test_values::{bf16s, f32s, integers};
use crate::conv::{LayerKernels, floor};
use crate::frames::Scaling;
use crate::{Connection, ConvNet, Convolution, Layer};

/// Buffers that earlier calls have filled with NaN: their values must not matter.
fn used() -> Packed {
    let nan = || vec![Tile([[word(bf16::NAN, bf16::NAN); SIDE]; SIDE]); 400];
    Packed { weights: nan(), transposed: nan(), rows: nan(), columns: nan() }
}

/// Exact equality with naive loops: 3 × 3 kernels on images of 32 channels, one to four tiles of outputs, and numbers of positions that are
/// and are not multiples of 16 and 32. Rows of 11 positions are gathered, rows of 19 and 20 are not.
fn convolutions_equal_naive_loops<T: Tiles>() {
    for (outputs, width, stride) in [(16, 13, 1), (32, 13, 1), (48, 42, 2), (64, 40, 2)] {
        let columns = (width - 3) / stride + 1;
        let all: Vec<usize> =
            (0..4).flat_map(|y| (0..columns).map(move |x| (y * 2 * width + x * stride) * 32)).collect();
        let shape = LayerShape { outputs, kernel_rows: 3, row_len: 96, row_stride: width * 32 };
        assert!(supports(&shape));
        let inputs = shape.inputs();
        let (x, w, b) = (integers(9 * width * 32, 1), integers(outputs * inputs, 2), integers(outputs, 3));
        for count in [8, 15, 16, 17, 31, 32, 33, 2 * columns, all.len()] {
            let positions = &all[..count];
            let dy = integers(count * outputs, 4);
            let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.5; x.len()], vec![0.25; w.len()]);
            for (p, position) in positions.iter().enumerate() {
                let receptive_field = || (0..3).flat_map(|i| (0..96).map(move |j| position + i * shape.row_stride + j));
                for o in 0..outputs {
                    let (w, dw) = (&w[o * inputs..][..inputs], &mut dw[o * inputs..][..inputs]);
                    let dot: f32 = receptive_field().zip(w).map(|(i, w)| x[i] * w).sum();
                    y[p * outputs + o] = bf16::narrow((dot + b[o]).max(0.0)).widen();
                    for ((i, w), dw) in receptive_field().zip(w).zip(dw) {
                        dx[i] += dy[p * outputs + o] * w;
                        *dw += dy[p * outputs + o] * x[i];
                    }
                }
            }
            let (x, w, b, dy) = (bf16s(&x), bf16s(&w), bf16s(&b), bf16s(&dy));
            let (mut actual_y, mut actual_dx) = (vec![bf16::NAN; y.len()], vec![0.5; x.len()]);
            let (mut actual_dw, mut packed) = (vec![0.25; w.len()], used());
            pack(&shape, &w, &mut packed);
            pack_transposed(&shape, &w, &mut packed);
            convolve::<T>(&shape, &mut packed, (&b, 0.0), positions, &x, &mut actual_y);
            input_gradient::<T>(&shape, &mut packed, positions, &dy, &mut actual_dx);
            weight_gradient::<T>(&shape, &mut packed, positions, &x, &dy, &mut actual_dw);
            assert_eq!(f32s(&actual_y), y, "{outputs} outputs, {count} positions");
            assert_eq!(actual_dx, dx, "{outputs} outputs, {count} positions");
            assert_eq!(actual_dw, dw, "{outputs} outputs, {count} positions");
        }
    }
}

/// Exact equality with naive loops, for multiples of 16, 32 and 128 batch rows and for other numbers.
fn fully_connected_layers_equal_naive_loops<T: Tiles>() {
    for (outputs, inputs) in [(16, 96), (48, 64), (64, 32)] {
        let shape = LayerShape { outputs, kernel_rows: 1, row_len: inputs, row_stride: inputs };
        let (w, b) = (integers(outputs * inputs, 1), integers(outputs, 2));
        for rows in [1, 2, 15, 16, 17, 31, 32, 33, 128, 129, 2048] {
            let (x, dy) = (integers(rows * inputs, 3), integers(rows * outputs, 4));
            let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
            for (i, g) in dy.iter().enumerate() {
                let (row, o) = (i / outputs, i % outputs);
                let (x, w) = (&x[row * inputs..][..inputs], &w[o * inputs..][..inputs]);
                let dot: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                y[i] = bf16::narrow((dot + b[o]).max(0.0)).widen();
                dx[row * inputs..][..inputs].iter_mut().zip(w).for_each(|(dx, w)| *dx += g * w);
                dw[o * inputs..][..inputs].iter_mut().zip(x).for_each(|(dw, x)| *dw += g * x);
            }
            let (x, w, b, dy) = (bf16s(&x), bf16s(&w), bf16s(&b), bf16s(&dy));
            let (mut actual_y, mut actual_dx) = (vec![bf16::NAN; y.len()], vec![f32::NAN; x.len()]);
            let (mut actual_dw, mut packed) = (vec![bf16::NAN; w.len()], used());
            linear::<T>(&shape, &mut packed, &w, (&b, 0.0), &x, &mut actual_y);
            linear_input_gradient::<T>(&shape, &mut packed, &w, &dy, &mut actual_dx);
            linear_weight_gradient::<T>(&shape, &mut packed, &x, &dy, &mut actual_dw);
            assert_eq!(f32s(&actual_y), y, "{outputs} outputs, {rows} rows");
            assert_eq!(actual_dx, dx, "{outputs} outputs, {rows} rows");
            assert_eq!(f32s(&actual_dw), f32s(&bf16s(&dw)), "{outputs} outputs, {rows} rows");
        }
    }
}

#[test]
fn kernels_over_emulated_tiles_equal_naive_loops() {
    convolutions_equal_naive_loops::<Emulated>();
    fully_connected_layers_equal_naive_loops::<Emulated>();
}

#[test]
#[cfg(target_arch = "x86_64")]
#[allow(clippy::print_stderr)]
fn kernels_over_the_tiles_of_the_processor_equal_naive_loops() {
    if crate::simd::level() < crate::simd::SimdLevel::Amx {
        eprintln!("skipped: this processor has no AMX");
        return;
    }
    convolutions_equal_naive_loops::<Amx>();
    fully_connected_layers_equal_naive_loops::<Amx>();
}

/// All layers of `nature`, but for a fully connected one with few rows; no shape that does not fill tiles. Weights are packed for the
/// fewest positions of a convolution: more positions never change the choice.
#[test]
fn shapes_that_suit_tiles() {
    let shape = |outputs, kernel_rows, row_len| LayerShape { outputs, kernel_rows, row_len, row_stride: 0 };
    for convolution in [shape(32, 8, 32), shape(64, 4, 128), shape(64, 3, 192)] {
        assert!([crate::conv::MIN_POSITIONS, 49, 400].into_iter().all(|positions| suits(&convolution, positions)));
    }
    assert_eq!([1, 4, 5, 2048].map(|rows| suits(&shape(512, 1, 3136), rows)), [false, false, true, true]);
    assert!(!suits(&shape(40, 3, 96), 49) && !suits(&shape(64, 3, 48), 49));
}

/// Divergence is detected by a NaN in the output.
#[test]
fn nan_is_not_rectified() {
    let mut sums = Sums::ZERO;
    (sums.0[0][0], sums.0[0][1], sums.0[1][0]) = (f32::NAN, -1.0, 2.0);
    let (bias, mut y, mut transposed) = ([bf16::ZERO; SIDE], [bf16::ONE; BLOCK], [bf16::ONE; BLOCK]);
    finish(&sums.0[..2], &bias, 0.0, SIDE, &mut y);
    finish_transposed(&sums, &bias, 0.0, SIDE, &mut transposed, 0);
    assert!(y[0].is_nan() && transposed[0].is_nan());
    assert_eq!((f32s(&y[1..3]), y[SIDE].widen()), (vec![0.0, 0.0], 2.0));
    assert_eq!((f32s(&transposed[1..3]), transposed[SIDE].widen()), (vec![2.0, 0.0], 0.0));
    // Without a rectifier.
    finish(&sums.0[..2], &bias, f32::NEG_INFINITY, SIDE, &mut y);
    finish_transposed(&sums, &bias, f32::NEG_INFINITY, SIDE, &mut transposed, 0);
    assert_eq!((y[1].widen(), transposed[SIDE].widen()), (-1.0, -1.0));
}

/// bf16 whose layers are computed over emulated tiles.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
struct OverEmulatedTiles(bf16);

impl Element for OverEmulatedTiles {
    fn widen(self) -> f32 {
        self.0.widen()
    }
    fn narrow(x: f32) -> Self {
        Self(bf16::narrow(x))
    }
}

fn inner(slice: &[OverEmulatedTiles]) -> &[bf16] {
    // SAFETY: `OverEmulatedTiles` is transparent.
    unsafe { std::slice::from_raw_parts(slice.as_ptr().cast(), slice.len()) }
}

fn inner_mut(slice: &mut [OverEmulatedTiles]) -> &mut [bf16] {
    // SAFETY: `OverEmulatedTiles` is transparent.
    unsafe { std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast(), slice.len()) }
}

impl LayerKernels for OverEmulatedTiles {
    type Packed = Packed;

    fn supports(shape: &LayerShape) -> bool {
        supports(shape)
    }

    fn scale(frame: &[u8], mean: f32, factor: f32, to: &mut [Self]) {
        crate::frames::scale(frame, mean, factor, to);
    }

    fn pack(shape: &LayerShape, weights: &[Self], packed: &mut Packed) {
        pack(shape, inner(weights), packed);
    }

    fn pack_transposed(shape: &LayerShape, weights: &[Self], packed: &mut Packed) {
        pack_transposed(shape, inner(weights), packed);
    }

    fn convolve(
        shape: &LayerShape,
        packed: &mut Packed,
        bias: &[Self],
        rectify: bool,
        positions: &[usize],
        x: &[Self],
        y: &mut [Self],
    ) {
        convolve::<Emulated>(shape, packed, (inner(bias), floor(rectify)), positions, inner(x), inner_mut(y));
    }

    fn input_gradient(
        shape: &LayerShape,
        packed: &mut Packed,
        _: &[Self],
        positions: &[usize],
        dy: &[Self],
        dx: &mut [f32],
    ) {
        input_gradient::<Emulated>(shape, packed, positions, inner(dy), dx);
    }

    fn weight_gradient(shape: &LayerShape, packed: &mut Packed, at: &[usize], x: &[Self], dy: &[Self], dw: &mut [f32]) {
        weight_gradient::<Emulated>(shape, packed, at, inner(x), inner(dy), dw);
    }

    fn linear(
        shape: &LayerShape,
        packed: &mut Packed,
        weights: &[Self],
        bias: &[Self],
        rectify: bool,
        x: &[Self],
        y: &mut [Self],
    ) {
        linear::<Emulated>(shape, packed, inner(weights), (inner(bias), floor(rectify)), inner(x), inner_mut(y));
    }

    fn linear_input_gradient(shape: &LayerShape, packed: &mut Packed, w: &[Self], dy: &[Self], dx: &mut [f32]) {
        linear_input_gradient::<Emulated>(shape, packed, inner(w), inner(dy), dx);
    }

    fn linear_weight_gradient(shape: &LayerShape, packed: &mut Packed, x: &[Self], dy: &[Self], dw: &mut [Self]) {
        linear_weight_gradient::<Emulated>(shape, packed, inner(x), inner(dy), inner_mut(dw));
    }
}

/// `‖actual − expected‖ / ‖expected‖`
fn relative_error(actual: &[f32], expected: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut actual.iter().zip(expected).map(|(a, e)| a - e)) / norm(&mut expected.iter().copied())
}

/// A network's features and gradients equal those of `f32` kernels within bf16's rounding: three convolutions and two fully connected
/// layers, for less than a tile of frames and for more. The gradients of the first layers differ by up to 6 % of their norm: rounding
/// turns the sign of a few outputs near zero, and the rectifier then passes or blocks a gradient.
#[test]
fn a_network_over_emulated_tiles_equals_that_in_f32() {
    let (image, scaling) = ([44, 44, 4], Scaling::Unit);
    let sizes =
        [(16, 256, Some((8, 4))), (48, 256, Some((4, 2))), (32, 192, Some((2, 1))), (64, 288, None), (48, 64, None)];
    let mut end = 0;
    let mut next = |len| {
        end += len;
        end - len..end
    };
    let layers: Vec<_> = sizes
        .map(|(outputs, inputs, convolution)| {
            let (weight, bias) = (next(outputs * inputs), next(outputs));
            let convolution = convolution.map(|(size, stride)| Convolution { size, stride, padding: 0 });
            let (norm, connection, rectifier) = (None, Connection::Direct, true);
            Layer { outputs, convolution, weight, bias, norm, connection, rectifier }
        })
        .into();
    let Some(mut reference) = ConvNet::<f32>::new(&layers, image) else { return };
    let mut net = ConvNet::<OverEmulatedTiles>::new(&layers, image).expect("supported shapes");
    let hash = |i: usize, seed: u64| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed << 40).rotate_left(29);
    let hash = |i: usize, seed: u64| hash(hash(i, seed) as usize, seed) >> 40;
    let noise = |i: usize, seed: u64| hash(i, seed) as f32 / (1 << 23) as f32 - 1.0;
    let mut weights = vec![OverEmulatedTiles::default(); end];
    for (seed, (layer, (_, inputs, _))) in (0..).zip(layers.iter().zip(sizes)) {
        for (i, w) in weights[layer.weight.start..layer.bias.end].iter_mut().enumerate() {
            *w = Element::narrow(noise(i, seed) * (6.0 / inputs as f32).sqrt());
        }
    }
    let wide: Vec<f32> = weights.iter().map(|w| w.widen()).collect();
    for n in [3, 17, 64] {
        // Noise, or of one color above, where equal windows are computed once; 64 frames are of three kinds.
        let frame_len = 44 * 44 * 4;
        let rows_of_one_color = [(17, 22), (64, 36)].into_iter().find(|rows| rows.0 == n).map_or(0, |rows| rows.1);
        let pixel = |i: usize| match i % frame_len {
            place if place < rows_of_one_color * 44 * 4 => 40,
            place => hash(if n == 64 { i / frame_len % 3 * frame_len + place } else { i }, 8) as u8,
        };
        let frames: Vec<u8> = (0..n * frame_len).map(pixel).collect();
        let frames: Vec<&[u8]> = frames.chunks_exact(frame_len).collect();
        let features = net.forward(&weights, 1, scaling, &frames, true);
        let expected = reference.forward(&wide, 1, scaling, &frames, true);
        assert_eq!(features.len(), n * 48);
        assert!(relative_error(&features, &expected) < 0.01, "{}", relative_error(&features, &expected));
        let loss: Vec<f32> = (0..features.len()).map(|i| noise(i, 9)).collect();
        let (mut gradient, mut expected) = (vec![OverEmulatedTiles::default(); end], vec![0.0; end]);
        net.backward(&weights, &mut gradient, scaling, &loss);
        reference.backward(&wide, &mut expected, scaling, &loss);
        for (i, layer) in layers.iter().enumerate() {
            for range in [&layer.weight, &layer.bias] {
                let actual: Vec<f32> = gradient[range.clone()].iter().map(|g| g.widen()).collect();
                let error = relative_error(&actual, &expected[range.clone()]);
                assert!(error < 0.1, "layer {i}: {error}");
            }
        }
    }
}
