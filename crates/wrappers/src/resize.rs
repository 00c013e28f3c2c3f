//! Conversion of a frame to gray and reduction by area interpolation, bit for bit as in OpenCV (`cv2.resize`, `INTER_AREA`),
//! which ALE's vector environment, Gymnasium and Baselines use.
//!
//! ```text
//! environment  u8[210, 160]  (or u8[210, 160, 3]: red, green, blue)
//! obs          u8[84, 84]
//! ```
//!
//! OpenCV has three methods of reduction, which round differently, and all three are implemented: by 2 in both directions
//! (integers, halves up), by other integer factors (a sum of integers, halves to even), and by any other factor (weights in
//! `f32`, in its order of summation). Source: `modules/imgproc/src/resize.cpp`, `computeResizeAreaTab`,
//! `ResizeArea_Invoker`, `resizeAreaFast_Invoker`. Enlarging, for which OpenCV uses another method under the same name, is an
//! error.

use crate::EnvWrapper;
use playfield_core::{Action, Dtype, Env, EnvSpec, Error, ObsMut, Result, Step};

/// Converts frames to gray and reduces them to another size.
pub struct Resize {
    /// Height and width of a resized frame.
    size: [usize; 2],
    /// The frame of the environment inside.
    raw: Vec<u8>,
    /// The same in gray, where it is in color.
    gray: Option<Vec<u8>>,
    area: Area,
}

impl Resize {
    /// Resizes the frames of an environment of `spec` to `height` × `width`.
    ///
    /// # Errors
    /// [`Error::Config`] where it observes something else than frames (`u8`, `[height, width]` or `[height, width, 1 or 3]`), or
    /// smaller frames.
    pub fn new(spec: &EnvSpec, height: usize, width: usize) -> Result<Self> {
        let (h, w) = match (spec.dtype, spec.shape.as_slice()) {
            (Dtype::U8, &[h, w] | &[h, w, 1 | 3]) => (h, w),
            _ => {
                return Err(Error::config(format!(
                    "[env]: `resize` is for frames, [height, width] or [height, width, 3] pixels: {} observes {}",
                    spec.id,
                    spec.observation_text()
                )));
            }
        };
        if height == 0 || width == 0 || height > h || width > w {
            return Err(Error::config(format!(
                "[env]: `resize` can only reduce a frame: {} has {h} × {w} pixels, not {height} × {width} or more",
                spec.id
            )));
        }
        let gray = (spec.shape.get(2) == Some(&3)).then(|| vec![0; h * w]);
        let size = [height, width];
        Ok(Self { size, raw: vec![0; spec.frame_len()], gray, area: Area::new([h, w], size) })
    }

    /// Resizes `raw` into `obs`.
    fn apply(&mut self, mut obs: ObsMut<'_>) {
        let frame = match &mut self.gray {
            Some(gray) => {
                luma(&self.raw, gray);
                gray
            }
            None => &self.raw,
        };
        self.area.apply(frame, obs.u8());
    }
}

impl EnvWrapper for Resize {
    const NAME: &'static str = "resizing";

    fn spec(&self, inner: &EnvSpec) -> EnvSpec {
        EnvSpec { shape: self.size.to_vec(), ..inner.clone() }
    }

    fn reset(&mut self, env: &mut dyn Env, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        let start = env.reset(seed, ObsMut::U8(&mut self.raw))?;
        self.apply(obs);
        Ok(start)
    }

    fn step(&mut self, env: &mut dyn Env, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let step = env.step(action, ObsMut::U8(&mut self.raw))?;
        self.apply(obs);
        Ok(step)
    }
}

/// The luma of RGB pixels: ITU-R BT.601, in OpenCV's fixed-point form (`cv2.COLOR_RGB2GRAY`).
fn luma(rgb: &[u8], gray: &mut [u8]) {
    for (gray, &[r, g, b]) in gray.iter_mut().zip(rgb.as_chunks::<3>().0) {
        *gray = ((u32::from(r) * 9798 + u32::from(g) * 19235 + u32::from(b) * 3735 + (1 << 14)) >> 15) as u8;
    }
}

/// Area interpolation between two fixed sizes.
struct Area {
    from: [usize; 2],
    method: Method,
}

/// Which of OpenCV's methods applies.
enum Method {
    /// Both sizes are equal.
    Copy,
    /// By integer factors (rows, columns).
    Integer([usize; 2]),
    /// By other factors.
    Weighted {
        rows: Vec<Cell>,
        columns: Vec<Cell>,
        /// One source row, reduced in width.
        row: Vec<f32>,
        /// The weighted sum of reduced rows.
        sum: Vec<f32>,
    },
}

/// The weights of source cells `first`, `first + 1`, … in one cell of a reduced row or column.
struct Cell {
    first: usize,
    weights: Vec<f32>,
}

impl Area {
    fn new(from: [usize; 2], to: [usize; 2]) -> Self {
        let factors = [0, 1].map(|axis| from[axis].is_multiple_of(to[axis]).then(|| from[axis] / to[axis]));
        let method = match factors {
            [Some(1), Some(1)] => Method::Copy,
            [Some(rows), Some(columns)] => Method::Integer([rows, columns]),
            _ => Method::Weighted {
                rows: cells(from[0], to[0]),
                columns: cells(from[1], to[1]),
                row: vec![0.0; to[1]],
                sum: vec![0.0; to[1]],
            },
        };
        Self { from, method }
    }

    fn apply(&mut self, from: &[u8], to: &mut [u8]) {
        let width = self.from[1];
        match &mut self.method {
            Method::Copy => to.copy_from_slice(from),
            Method::Integer([rows, columns]) => reduce_blocks(from, to, width, *rows, *columns),
            Method::Weighted { rows, columns, row, sum } => {
                // A source row that two cells share is reduced once.
                let mut reduced = usize::MAX;
                for (cell, to) in rows.iter().zip(to.chunks_exact_mut(columns.len())) {
                    sum.fill(0.0);
                    for (source, weight) in (cell.first..).zip(&cell.weights) {
                        if source != reduced {
                            reduce(&from[source * width..(source + 1) * width], columns, row);
                            reduced = source;
                        }
                        sum.iter_mut().zip(row.iter()).for_each(|(sum, row)| *sum += weight * row);
                    }
                    to.iter_mut().zip(sum.iter()).for_each(|(to, sum)| *to = sum.round_ties_even() as u8);
                }
            }
        }
    }
}

/// Reduces one row of pixels in width.
fn reduce(pixels: &[u8], columns: &[Cell], row: &mut [f32]) {
    for (sum, cell) in row.iter_mut().zip(columns) {
        let parts = cell.weights.iter().zip(&pixels[cell.first..]);
        *sum = parts.fold(0.0, |sum, (weight, &pixel)| sum + f32::from(pixel) * weight);
    }
}

/// By integer factors: means of blocks of `rows` × `columns` pixels.
fn reduce_blocks(from: &[u8], to: &mut [u8], width: usize, rows: usize, columns: usize) {
    let across = width / columns;
    for (i, to) in to.iter_mut().enumerate() {
        let (top, left) = (i / across * rows, i % across * columns);
        let block = (top..top + rows).flat_map(|y| &from[y * width + left..][..columns]);
        let sum: u32 = block.map(|&p| u32::from(p)).sum();
        *to = match (rows, columns) {
            (2, 2) => ((sum + 2) >> 2) as u8,
            _ => (sum as f32 * (1.0 / (rows * columns) as f32)).round_ties_even() as u8,
        };
    }
}

/// The weights of each of `to` cells that replace `from` cells: OpenCV's `computeResizeAreaTab`.
fn cells(from: usize, to: usize) -> Vec<Cell> {
    let scale = from as f64 / to as f64;
    let cell = |i: usize| {
        let start = i as f64 * scale;
        let end = start + scale;
        let width = scale.min(from as f64 - start);
        // Source cells `first..last` are inside. Those before and after count if they overlap by more than rounding.
        let last = (end.floor() as usize).min(from - 1);
        let first = (start.ceil() as usize).min(last);
        let before = first as f64 - start;
        let after = end - last as f64;
        let before = (before > 1e-3).then(|| before / width);
        let after = (after > 1e-3).then(|| after.min(1.0).min(width) / width);
        let inside = std::iter::repeat_n(1.0 / width, last - first);
        let weights = before.into_iter().chain(inside).chain(after).map(|w| w as f32).collect();
        Cell { first: first - usize::from(before.is_some()), weights }
    };
    (0..to).map(cell).collect()
}
