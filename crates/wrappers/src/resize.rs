//! A frame in gray and reduced by area interpolation, to the last bit as OpenCV does it (`cv2.resize`, `INTER_AREA`), on
//! which ALE's vector environment, Gymnasium and Baselines rely.
//!
//! ```text
//! inner     [210, 160] u8  (or [210, 160, 3]: red, green, blue)
//! obs       [84, 84]   u8
//! ```
//!
//! OpenCV has three ways to reduce a frame, which round differently, and all three are here: by 2 in both directions
//! (integers, halves up), by other whole numbers (a sum of integers, halves to even), and by any other factor (weights in
//! `f32`, in its order of summation). Source: `modules/imgproc/src/resize.cpp`, `computeResizeAreaTab`,
//! `ResizeArea_Invoker`, `resizeAreaFast_Invoker`. Enlarging, which OpenCV does by another method under the same name, is
//! refused.

use playfield_core::{Action, Dtype, Env, EnvSpec, Error, Image, ObsMut, Result, State, Step};

/// Turns the frames of an environment into gray ones of another size.
pub struct Resize {
    inner: Box<dyn Env>,
    spec: EnvSpec,
    /// The inner environment's frame.
    raw: Vec<u8>,
    /// The same in gray, where it comes in colors.
    gray: Option<Vec<u8>>,
    resize: Area,
}

impl Resize {
    /// Frames of `inner` in gray, `height` × `width`.
    ///
    /// # Errors
    /// [`Error::Config`] where `inner` observes no frames (`u8`, `[height, width]` or `[height, width, 1 or 3]`), or smaller
    /// ones.
    pub fn new(inner: Box<dyn Env>, height: usize, width: usize) -> Result<Self> {
        let mut spec = inner.spec().clone();
        let (h, w) = match (spec.dtype, spec.shape.as_slice()) {
            (Dtype::U8, &[h, w] | &[h, w, 1 | 3]) => (h, w),
            (_, shape) => {
                return Err(Error::config(format!(
                    "[env]: `resize` is for frames, [height, width] or [height, width, 3] pixels: {} observes {shape:?}",
                    spec.id
                )));
            }
        };
        if height == 0 || width == 0 || height > h || width > w {
            return Err(Error::config(format!(
                "[env]: `resize` can only reduce a frame: {} has {h} × {w} pixels, not {height} × {width} or more",
                spec.id
            )));
        }
        let raw = vec![0; spec.frame_len()];
        let gray = (spec.shape.get(2) == Some(&3)).then(|| vec![0; h * w]);
        spec.shape = vec![height, width];
        Ok(Self { inner, spec, raw, gray, resize: Area::new([h, w], [height, width]) })
    }

    fn show(&mut self, mut obs: ObsMut<'_>) {
        let frame = match &mut self.gray {
            Some(gray) => {
                luma(&self.raw, gray);
                gray
            }
            None => &self.raw,
        };
        self.resize.apply(frame, obs.u8());
    }
}

impl Env for Resize {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        let start = self.inner.reset(seed, ObsMut::U8(&mut self.raw))?;
        self.show(obs);
        Ok(start)
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let step = self.inner.step(action, ObsMut::U8(&mut self.raw))?;
        self.show(obs);
        Ok(step)
    }

    fn save_state(&self) -> Option<State> {
        self.inner.save_state()
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.inner.load_state(state)
    }

    fn render(&mut self) -> Result<Option<Image>> {
        self.inner.render()
    }

    fn lives(&self) -> u32 {
        self.inner.lives()
    }
}

/// The brightness of red-green-blue pixels: ITU-R BT.601, in OpenCV's fixed-point form (`cv2.COLOR_RGB2GRAY`).
fn luma(rgb: &[u8], gray: &mut [u8]) {
    for (gray, &[r, g, b]) in gray.iter_mut().zip(rgb.as_chunks::<3>().0) {
        *gray = ((u32::from(r) * 9798 + u32::from(g) * 19235 + u32::from(b) * 3735 + (1 << 14)) >> 15) as u8;
    }
}

/// A reduction between two fixed sizes.
struct Area {
    from: [usize; 2],
    way: Way,
}

/// Which of OpenCV's ways it takes.
enum Way {
    /// Nothing changes.
    Copy,
    /// By these whole numbers (rows, columns).
    Whole([usize; 2]),
    /// By fractions.
    Weighted {
        rows: Vec<Cell>,
        columns: Vec<Cell>,
        /// One row of the source, reduced in width.
        row: Vec<f32>,
        /// The weighted sum of such rows.
        sum: Vec<f32>,
    },
}

/// What goes into one cell of a reduced row or column: so much of source cell `first`, so much of the next, …
struct Cell {
    first: usize,
    weights: Vec<f32>,
}

impl Area {
    fn new(from: [usize; 2], to: [usize; 2]) -> Self {
        let whole = [0, 1].map(|axis| from[axis].is_multiple_of(to[axis]).then(|| from[axis] / to[axis]));
        let way = match whole {
            [Some(1), Some(1)] => Way::Copy,
            [Some(rows), Some(columns)] => Way::Whole([rows, columns]),
            _ => Way::Weighted {
                rows: cells(from[0], to[0]),
                columns: cells(from[1], to[1]),
                row: vec![0.0; to[1]],
                sum: vec![0.0; to[1]],
            },
        };
        Self { from, way }
    }

    fn apply(&mut self, from: &[u8], to: &mut [u8]) {
        let width = self.from[1];
        match &mut self.way {
            Way::Copy => to.copy_from_slice(from),
            Way::Whole([rows, columns]) => whole(from, to, width, *rows, *columns),
            Way::Weighted { rows, columns, row, sum } => {
                // Where two cells share a source row, it is reduced once.
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

/// By whole numbers: means of blocks of `rows` × `columns` pixels.
fn whole(from: &[u8], to: &mut [u8], width: usize, rows: usize, columns: usize) {
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

/// What goes into each of the `to` cells that take the place of `from`: OpenCV's `computeResizeAreaTab`.
fn cells(from: usize, to: usize) -> Vec<Cell> {
    let scale = from as f64 / to as f64;
    let cell = |i: usize| {
        let start = i as f64 * scale;
        let end = start + scale;
        let width = scale.min(from as f64 - start);
        // Source cells `first..last` lie inside; those before and after only if they overlap by more than rounding.
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
