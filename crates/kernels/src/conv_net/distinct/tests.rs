//! Convolutions over distinct windows against those over whole frames.

use super::super::test_frames::{CHANNELS, SIDE, frames, layers, layers_of, noise, split_frames};
use super::super::{ConvNet, WHOLE_PASSES};
use super::*;
use crate::bf16;
use crate::simd::{SimdLevel, level};

/// Rows and columns of the windows of three convolutions.
const COLUMNS: [usize; 3] = [18, 8, 6];

fn noisy(n: usize) -> Vec<u8> {
    (0..n * SIDE * SIDE * CHANNELS).map(|i| (noise(i) * 255.0 + 128.0) as u8).collect()
}

fn weights<T: LayerKernels>(parameters: usize) -> Vec<T> {
    (0..parameters).map(|i| T::narrow(noise(i) / 4.0)).collect()
}

/// A network that computes whole frames where distinct windows need more than `max_share` of their arithmetic.
fn net_of<T: LayerKernels>(layers: &[Layer], frame: [usize; 3], max_share: f64) -> ConvNet<T> {
    let mut net = ConvNet::new(layers, frame).expect("supported layers");
    net.distinct.as_mut().expect("convolutions over distinct windows").max_share = max_share;
    net
}

fn net<T: LayerKernels>(max_share: f64) -> ConvNet<T> {
    net_of(&layers(false).0, [SIDE, SIDE, CHANNELS], max_share)
}

fn known<T: LayerKernels>(net: &ConvNet<T>) -> Vec<usize> {
    let layers = &net.distinct.as_ref().expect("convolutions over distinct windows").layers;
    layers.iter().map(|layer| layer.windows.len()).collect()
}

fn supported() -> bool {
    level() != SimdLevel::Baseline || !cfg!(target_arch = "x86_64")
}

/// Features and gradient of a training pass.
fn pass<T: LayerKernels>(net: &mut ConvNet<T>, version: u64, frames: &[u8]) -> (Vec<f32>, Vec<f32>) {
    pass_of(net, &layers(false), version, frames)
}

/// The same of a network of `layers`.
fn pass_of<T: LayerKernels>(
    net: &mut ConvNet<T>,
    &(_, parameters): &(Vec<Layer>, usize),
    version: u64,
    frames: &[u8],
) -> (Vec<f32>, Vec<f32>) {
    let n = frames.len() / (SIDE * SIDE * CHANNELS);
    let weights = weights::<T>(parameters);
    let features = net.forward(&weights, version, Scaling::Unit, &split_frames(frames, n), true);
    let mut gradient = vec![T::default(); weights.len()];
    let of_features: Vec<f32> = (0..features.len()).map(noise).collect();
    net.backward(&weights, &mut gradient, Scaling::Unit, &of_features);
    (features, gradient.iter().map(|g| g.widen()).collect())
}

/// The same features, bit for bit, and the same gradient but for rounding.
fn assert_equal(actual: &(Vec<f32>, Vec<f32>), expected: &(Vec<f32>, Vec<f32>), tolerance: f32) {
    assert_equal_in(&layers(false).0, actual, expected, tolerance);
}

/// The same of a network of `layers`.
fn assert_equal_in(
    layers: &[Layer],
    (features, gradient): &(Vec<f32>, Vec<f32>),
    (expected, expected_gradient): &(Vec<f32>, Vec<f32>),
    tolerance: f32,
) {
    assert!(features == expected && expected_gradient.iter().any(|&g| g != 0.0));
    for Layer { weight, bias, .. } in layers {
        for range in [weight, bias] {
            let [actual, expected] = [gradient, expected_gradient].map(|g| &g[range.clone()]);
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
            let size = norm(&mut expected.iter().copied());
            let error = norm(&mut actual.iter().zip(expected).map(|(a, b)| a - b));
            assert!(error <= tolerance * size, "{error} of {size}");
        }
    }
}

/// A network over distinct windows computes what one over whole frames does: for noise, whose windows differ, and for frames that repeat
/// some, or all, in other frames; once more with windows that are known from inference, and with others beside them.
fn assert_as_over_whole_frames<T: LayerKernels>(tolerance: f32) {
    let layers = layers(false).0;
    let (mut distinct, mut whole) = (net::<T>(1.0), ConvNet { distinct: None, ..net::<T>(1.0) });
    whole.whole.finds_repeats = false;
    let moving = frames(9);
    let frame_len = moving.len() / 9;
    let noisy = noisy(2);
    let repeated = [&moving[..2 * frame_len], &noisy, &moving[..frame_len]].concat();
    let mut version = 0;
    for (i, frames) in [&moving[..], &noisy, &repeated, &vec![7; 2 * frame_len]].into_iter().enumerate() {
        version += 1;
        let expected = pass(&mut whole, version, frames);
        assert_equal(&pass(&mut distinct, version, frames), &expected, tolerance);
        let windows = known(&distinct);
        // One color: each window is the same.
        assert!(if i == 3 { windows == [1; 3] } else { windows[0] > 1 }, "{windows:?}");
        assert_equal(&pass(&mut distinct, version, frames), &expected, tolerance);
        assert_eq!(known(&distinct), windows, "all were known");
        let inferred =
            distinct.forward(&weights(layers[3].bias.end), version, Scaling::Unit, &split_frames(&repeated, 5), false);
        assert!(
            inferred
                == whole.forward(
                    &weights(layers[3].bias.end),
                    version,
                    Scaling::Unit,
                    &split_frames(&repeated, 5),
                    false
                )
        );
        assert_equal(&pass(&mut distinct, version, frames), &expected, tolerance);
    }
    // Other weights: nothing is known.
    pass(&mut distinct, version + 1, &moving[..frame_len]);
    assert_eq!(known(&distinct), DISTINCT);
}

/// Of the first of [`frames`].
const DISTINCT: [usize; 3] = [18, 11, 14];

#[test]
fn distinct_windows_give_the_results_of_whole_frames() {
    if !supported() {
        return;
    }
    assert_as_over_whole_frames::<f32>(1e-5);
    #[cfg(target_arch = "x86_64")]
    if level() >= SimdLevel::Avx512Bf16 {
        assert_as_over_whole_frames::<bf16>(2e-2);
    }
}

/// Summing the output gradients of frames with equal windows at a position changes nothing but rounding: positions with fewer distinct windows
/// than kernels support, and with more. Few frames, and noise, are computed as before.
fn assert_summed_as_separate<T: LayerKernels>(tolerance: f32) {
    let (moving, noisy) = (frames(12), noisy(48));
    for channels in [16, 32, 64] {
        let layers = layers_of(false, channels);
        let net = || net_of::<T>(&layers.0, [SIDE, SIDE, CHANNELS], 1.0);
        let mut all_windows = Vec::new();
        let (many, few) = (moving.repeat(4), moving[..moving.len() / 4].repeat(16));
        for (frames, is_summed) in [(&many, true), (&few, true), (&moving, false), (&noisy, false)] {
            let (mut summed, mut separate) = (net(), ConvNet { dense_positions: None, ..net() });
            let expected = pass_of(&mut separate, &layers, 1, frames);
            assert_equal_in(&layers.0, &pass_of(&mut summed, &layers, 1, frames), &expected, tolerance);
            let windows = summed.dense_positions.expect("a supported layer").windows_per_position();
            assert_eq!(!windows.is_empty(), is_summed);
            all_windows.extend(windows);
        }
        let has = |range: std::ops::RangeInclusive<usize>| all_windows.iter().any(|n| range.contains(n));
        assert!(has(1..=1) && has(2..=4) && has(MIN_POSITIONS + 1..=48), "{all_windows:?}");
    }
}

#[test]
fn equal_inputs_of_a_fully_connected_layer_are_summed() {
    if !supported() {
        return;
    }
    assert_summed_as_separate::<f32>(1e-5);
    #[cfg(target_arch = "x86_64")]
    if level() >= SimdLevel::Avx512Bf16 {
        assert_summed_as_separate::<bf16>(2e-2);
    }
}

/// Inference between a training pass and its backward pass, of more windows than are kept, does not disturb it; then they are forgotten.
#[test]
fn many_windows_are_forgotten_after_the_backward_pass() {
    if !supported() {
        return;
    }
    let (mut net, parameters) = (net::<f32>(1.0), layers(false).1);
    let weights = weights::<f32>(parameters);
    let frames = frames(12).repeat(4);
    let noisy = noisy(80);
    let mut expected = vec![0.0; parameters];
    let n = net.forward(&weights, 1, Scaling::Unit, &split_frames(&frames, 48), true).len();
    net.backward(&weights, &mut expected, Scaling::Unit, &vec![1.0; n]);
    let mut gradient = vec![0.0; parameters];
    net.forward(&weights, 2, Scaling::Unit, &split_frames(&frames, 48), true);
    for _ in 0..2 {
        net.forward(&weights, 2, Scaling::Unit, &split_frames(&noisy, 80), false);
        assert!(known(&net)[0] > MAX_KNOWN, "{:?}", known(&net));
    }
    net.backward(&weights, &mut gradient, Scaling::Unit, &vec![1.0; n]);
    assert!(gradient == expected);
    net.forward(&weights, 2, Scaling::Unit, &split_frames(&frames[..frames.len() / 48], 1), false);
    assert_eq!(known(&net), DISTINCT);
}

/// Two windows have the same id only where all that they cover is equal, and always then.
#[test]
fn ids_are_those_of_equal_windows() {
    if !supported() {
        return;
    }
    let (mut net, parameters) = (net::<f32>(1.0), layers(false).1);
    let noisy: Vec<u8> = (0..SIDE * SIDE * CHANNELS).map(|i| (noise(i / 2) * 4.0) as u8).collect();
    let frames = [frames(3), noisy, vec![7; SIDE * SIDE * CHANNELS], frames(1)].concat();
    let mut seen = [(); 3].map(|()| rustc_hash::FxHashMap::<Vec<u8>, Id>::default());
    for pixels in frames.chunks_exact(SIDE * SIDE * CHANNELS) {
        net.forward(&weights(parameters), 1, Scaling::Unit, &split_frames(pixels, 1), false);
        let layers = &net.distinct.as_ref().unwrap().layers;
        for (i, (stride, side)) in [(4, 8), (8, 20), (8, 36)].into_iter().enumerate() {
            let ids = &layers[i].windows.grid.ids;
            assert_eq!(ids.len(), COLUMNS[i] * COLUMNS[i]);
            for (place, &id) in ids.iter().enumerate() {
                let first = (place / COLUMNS[i] * SIDE + place % COLUMNS[i]) * stride * CHANNELS;
                let row = |y: usize| &pixels[first + y * SIDE * CHANNELS..][..side * CHANNELS];
                let window = (0..side).flat_map(row).copied().collect();
                let next = seen[i].len() as Id;
                assert_eq!(*seen[i].entry(window).or_insert(next), id);
            }
        }
    }
}

/// Whole frames are computed for noise: in a training pass by itself, in inference for some passes after one over distinct windows, unless
/// that knew none. Training passes do not count.
#[test]
fn noise_is_computed_as_whole_frames() {
    if !supported() {
        return;
    }
    let (moving, noise) = (frames(2), noisy(4));
    let (noisy, other) = noise.split_at(noise.len() / 2);
    let mut net = net::<f32>(MAX_SHARE);
    for (version, frames, whole) in [(1, &moving[..], false), (2, noisy, true), (3, &moving, false)] {
        pass(&mut net, version, frames);
        assert_eq!(net.trained_whole, whole);
    }
    let weights = weights(layers(false).1);
    net.forward(&weights, 3, Scaling::Standardize, &split_frames(&moving, 2), true);
    assert!(net.trained_whole, "standardized frames");
    let infer =
        |net: &mut ConvNet<f32>, frames| _ = net.forward(&weights, 4, Scaling::Unit, &split_frames(frames, 2), false);
    infer(&mut net, noisy);
    assert_eq!(net.whole_passes, 0, "nothing was known");
    infer(&mut net, noisy);
    assert_eq!(net.whole_passes, 0, "all was known");
    infer(&mut net, other);
    assert_eq!(net.whole_passes, WHOLE_PASSES);
    let known_before = known(&net);
    pass(&mut net, 4, &moving);
    (0..WHOLE_PASSES).for_each(|_| infer(&mut net, &noise[noise.len() / 4..][..noisy.len()]));
    assert_eq!(net.whole_passes, 0);
    assert!(
        known(&net).iter().zip(known_before).all(|(known, before)| *known < before + 50),
        "only what was trained on"
    );
}

/// What suits a training pass depends on its frames, whatever is known; the share of inference counts what is new.
#[test]
fn shares_of_the_arithmetic() {
    if !supported() {
        return;
    }
    let (mut net, weights) = (net::<f32>(1.0), weights(layers(false).1));
    let (one_color, noisy) = (vec![7; SIDE * SIDE * CHANNELS], noisy(2));
    let distinct = net.distinct.as_mut().unwrap();
    let costs = [16 * 256, 32 * 256, 16 * 288];
    let all: usize = costs.iter().zip(COLUMNS).map(|(cost, columns)| cost * columns * columns).sum();
    let of_frames = |n: usize| costs.iter().sum::<usize>() as f64 / (n * all) as f64;
    let [one, three, noisy] = [vec![&one_color[..]], vec![&one_color[..]; 3], split_frames(&noisy, 2)];
    for (frames, share) in [(&one, of_frames(1)), (&three, of_frames(3)), (&noisy, 1.0)].repeat(2) {
        for (max_share, suit) in [(share * 0.999, false), (share * 1.001, true)] {
            distinct.max_share = max_share;
            assert_eq!(distinct.suit_training(&weights, 1, frames), suit);
        }
    }
    distinct.forget();
    let mut compute = |frames: &[&[u8]]| distinct.compute(&weights, frames, &mut Buffer::default());
    assert_eq!([compute(&one), compute(&one), compute(&noisy), compute(&noisy)], [of_frames(1), 0.0, 1.0, 0.0]);
    assert_eq!(compute(&[]), 0.0);
}

/// A gradient does not depend on what was known before the training pass, so that a resumed run is exact.
#[test]
fn gradients_do_not_depend_on_known_windows() {
    if !supported() {
        return;
    }
    let (weights, noisy) = (weights::<f32>(layers(false).1), noisy(1));
    // Few frames, and so many that output gradients of the fully connected layer are summed.
    for frames in [frames(6), frames(12).repeat(4)] {
        let expected = pass(&mut net::<f32>(1.0), 1, &frames);
        let last = &frames[noisy.len() * 5..noisy.len() * 6];
        for before in [vec![&noisy[..]], vec![last, &noisy], vec![&frames[..]]] {
            let mut net = net::<f32>(1.0);
            for frames in before {
                net.forward(&weights, 1, Scaling::Unit, &split_frames(frames, frames.len() / noisy.len()), false);
            }
            assert!(pass(&mut net, 1, &frames) == expected);
        }
    }
}

/// Frames of other shapes: 1 or 3 channels, a height that is no multiple of the stride, 64 columns, windows of one cell. More columns, larger
/// windows, or a size that is no multiple of the stride, are not supported.
#[test]
fn frames_of_other_shapes() {
    if !supported() {
        return;
    }
    for (frame, size, stride, distinct) in [
        ([30, 44, 1], 8, 4, true),
        ([21, 36, 3], 8, 4, true),
        ([12, 64, 4], 3, 1, true),
        ([12, 65, 4], 3, 1, false),
        ([16, 16, 4], 4, 4, true),
        ([12, 40, 4], 5, 1, false),
        ([30, 30, 4], 6, 4, false),
    ] {
        let [height, width, channels] = frame;
        let (inputs, positions) =
            (size * size * channels, ((height - size) / stride + 1) * ((width - size) / stride + 1));
        let convolution = Layer {
            outputs: 16,
            convolution: Some(Convolution { size, stride, padding: 0 }),
            weight: 0..16 * inputs,
            bias: 16 * inputs..16 * inputs + 16,
            norm: None,
            connection: Connection::Direct,
            rectifier: true,
        };
        let (from, weights) = (convolution.bias.end, 8 * 16 * positions);
        let dense = Layer {
            outputs: 8,
            convolution: None,
            weight: from..from + weights,
            bias: from + weights..from + weights + 8,
            ..convolution.clone()
        };
        let layers = [convolution, dense];
        let mut whole = ConvNet { distinct: None, ..ConvNet::<f32>::new(&layers, frame).expect("supported layers") };
        assert_eq!(ConvNet::<f32>::new(&layers, frame).unwrap().distinct.is_some(), distinct, "{frame:?}");
        if !distinct {
            continue;
        }
        let pixels: Vec<u8> = (0..3 * height * width * channels).map(|i| (noise(i / 40) * 9.0) as u8 * 20).collect();
        let weights: Vec<f32> = (0..layers[1].bias.end).map(|i| noise(i) / 8.0).collect();
        let gradient = |net: &mut ConvNet<f32>| {
            let features = net.forward(&weights, 1, Scaling::Unit, &split_frames(&pixels, 3), true);
            let mut gradient = vec![0.0; weights.len()];
            net.backward(&weights, &mut gradient, Scaling::Unit, &vec![1.0; features.len()]);
            (features, gradient)
        };
        let (features, actual) = gradient(&mut net_of(&layers, frame, 1.0));
        let (expected_features, expected) = gradient(&mut whole);
        assert!(features == expected_features && features.iter().any(|&x| x > 0.0), "{frame:?}");
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * (1.0 + b.abs());
        assert!(actual.iter().zip(&expected).all(close), "{frame:?}");
    }
}
