//! Max pooling of channels-last images with 3 × 3 windows, stride 2 and a padding of 1: `[h, w, c]` to `[⌈h/2⌉, ⌈w/2⌉, c]`.
//!
//! Forward keeps which of the nine taps of a window is the maximum. As in PyTorch that is the first one of several, and a NaN counts as a
//! maximum. Backward gathers: each input sums the gradients of the up to four windows whose maximum it is, so that every element is
//! written once.

use crate::Element;
use crate::simd::multiversion;

/// Channels that loops process at a time. Divides the number of channels.
pub(crate) const CHANNELS: usize = 16;

/// Height and width after pooling.
pub(crate) fn pooled([height, width]: [usize; 2]) -> [usize; 2] {
    [height.div_ceil(2), width.div_ceil(2)]
}

multiversion! {
    /// Pools `x` of `[height, width]` into `y`, and the index of each maximum (3 · row + column of its window) into `taps`.
    pub(crate) fn max_pool<T: Element>(x: &[T], size: [usize; 2], y: &mut [T], taps: &mut [u8]) {
        let ([height, width], [rows, columns]) = (size, pooled(size));
        let channels = x.len() / (height * width);
        for row in 0..rows {
            for column in 0..columns {
                // Taps inside the image.
                let [first_i, first_j] = [usize::from(row == 0), usize::from(column == 0)];
                let (last_i, last_j) = (3.min(height + 1 - 2 * row), 3.min(width + 1 - 2 * column));
                for channel in (0..channels).step_by(CHANNELS) {
                    let mut largest = [f32::NEG_INFINITY; CHANNELS];
                    let mut largest_tap = [(3 * first_i + first_j) as u32; CHANNELS];
                    for i in first_i..last_i {
                        for j in first_j..last_j {
                            let pixel = (2 * row + i - 1) * width + 2 * column + j - 1;
                            let x: &[T; CHANNELS] = x[pixel * channels + channel..].first_chunk().expect("16 divides the channels");
                            for c in 0..CHANNELS {
                                let x = x[c].widen();
                                let larger = x > largest[c] || x.is_nan();
                                largest[c] = if larger { x } else { largest[c] };
                                largest_tap[c] = if larger { (3 * i + j) as u32 } else { largest_tap[c] };
                            }
                        }
                    }
                    let to = (row * columns + column) * channels + channel;
                    let y: &mut [T; CHANNELS] = y[to..].first_chunk_mut().expect("16 divides the channels");
                    let taps: &mut [u8; CHANNELS] = taps[to..].first_chunk_mut().expect("16 divides the channels");
                    for c in 0..CHANNELS {
                        y[c] = T::narrow(largest[c]);
                        taps[c] = largest_tap[c] as u8;
                    }
                }
            }
        }
    }
}

multiversion! {
    /// The gradient `dx` of images of `[height, width]` from that of the pooled ones.
    pub(crate) fn max_pool_gradient<T: Element>(dy: &[f32], taps: &[u8], size: [usize; 2], dx: &mut [T]) {
        let ([height, width], [rows, columns]) = (size, pooled(size));
        let channels = dy.len() / (rows * columns);
        // An even row or column lies in one window, as its middle; an odd one in two, as the last of one and the first of the next.
        for y in 0..height {
            for x in 0..width {
                for channel in (0..channels).step_by(CHANNELS) {
                    let mut sums = [0.0; CHANNELS];
                    for row in y / 2..rows.min(y.div_ceil(2) + 1) {
                        for column in x / 2..columns.min(x.div_ceil(2) + 1) {
                            let tap = (3 * (y + 1 - 2 * row) + x + 1 - 2 * column) as u8;
                            let from = (row * columns + column) * channels + channel;
                            let dy: &[f32; CHANNELS] = dy[from..].first_chunk().expect("16 divides the channels");
                            let taps: &[u8; CHANNELS] = taps[from..].first_chunk().expect("16 divides the channels");
                            for c in 0..CHANNELS {
                                // Without a branch: all bits of `dy` or none.
                                let mask = u32::from(taps[c] == tap).wrapping_neg();
                                sums[c] += f32::from_bits(dy[c].to_bits() & mask);
                            }
                        }
                    }
                    let to = (y * width + x) * channels + channel;
                    let dx: &mut [T; CHANNELS] = dx[to..].first_chunk_mut().expect("16 divides the channels");
                    for c in 0..CHANNELS {
                        dx[c] = T::narrow(sums[c]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// The maximum of each window and the position of its first occurrence, by definition.
    fn naive(x: &[f32], [h, w]: [usize; 2], c: usize) -> Vec<(f32, usize)> {
        let [rows, columns] = pooled([h, w]);
        let window = |row: usize, column: usize, channel: usize| {
            let inside = move |&(y, x): &(usize, usize)| (1..=h).contains(&y) && (1..=w).contains(&x);
            let taps = (0..9).map(move |tap| (2 * row + tap / 3, 2 * column + tap % 3)).filter(inside);
            let at = taps.map(move |(y, x)| ((y - 1) * w + x - 1) * c + channel);
            at.fold((f32::NEG_INFINITY, usize::MAX), |best, at| if x[at] > best.0 { (x[at], at) } else { best })
        };
        (0..rows * columns * c).map(|i| window(i / c / columns, i / c % columns, i % c)).collect()
    }

    /// Even and odd sides, one and several vectors of channels, values with many ties.
    #[test]
    fn pooling_and_its_gradient_equal_naive_loops() {
        for ([h, w], c) in [([7, 5], 16), ([6, 8], 32), ([1, 2], 16), ([11, 4], 48)] {
            let x: Vec<f32> = (0..h * w * c).map(|i| ((i * 7919) % 2003 % 5) as f32 - 2.0).collect();
            let expected = naive(&x, [h, w], c);
            let (mut y, mut taps) = (vec![f32::NAN; expected.len()], vec![u8::MAX; expected.len()]);
            max_pool(&x, [h, w], &mut y, &mut taps);
            assert_eq!(y, expected.iter().map(|(largest, _)| *largest).collect::<Vec<_>>());
            let dy: Vec<f32> = (0..y.len()).map(|i| (i % 23) as f32 - 11.0).collect();
            let (mut dx, mut expected_dx) = (vec![f32::NAN; x.len()], vec![0.0; x.len()]);
            max_pool_gradient(&dy, &taps, [h, w], &mut dx);
            expected.iter().zip(&dy).for_each(|((_, at), dy)| expected_dx[*at] += dy);
            assert_eq!(dx, expected_dx, "{h} × {w} × {c}");
            let narrow = |x: &[f32]| x.iter().map(|x| bf16::narrow(*x)).collect::<Vec<_>>();
            let (mut narrow_y, mut narrow_taps) = (narrow(&y), vec![0; y.len()]);
            max_pool(&narrow(&x), [h, w], &mut narrow_y, &mut narrow_taps);
            assert_eq!((narrow_y, narrow_taps), (narrow(&y), taps));
        }
    }

    #[test]
    fn a_nan_is_a_maximum() {
        let mut x = [1.0; 3 * 3 * CHANNELS];
        x[4 * CHANNELS] = f32::NAN;
        let (mut y, mut taps) = ([0.0; 4 * CHANNELS], [0; 4 * CHANNELS]);
        max_pool(&x, [3, 3], &mut y, &mut taps);
        assert!((0..4).all(|i| y[i * CHANNELS].is_nan() && y[i * CHANNELS + 1] == 1.0));
        assert_eq!([0, 1, 2, 3].map(|i| taps[i * CHANNELS]), [8, 6, 2, 0]);
    }
}
