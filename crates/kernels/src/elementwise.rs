//! Loops over elements between the products of layers.

use crate::Element;
use crate::conv::at_least;
use crate::simd::multiversion;

multiversion! {
    /// `y = max(floor, x)`.
    pub(crate) fn raise<T: Element>(x: &[T], floor: f32, y: &mut [T]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = T::narrow(at_least(floor, x.widen())));
    }
}

multiversion! {
    /// `sum += x`.
    pub(crate) fn add<T: Element>(x: &[T], sum: &mut [T]) {
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum = T::narrow(sum.widen() + x.widen()));
    }
}

multiversion! {
    /// The gradient of [`raise`], added to `dx`: `dy` where the output `y` is above `floor`.
    pub(crate) fn raise_gradient<T: Element>(y: &[T], floor: f32, dy: &[f32], dx: &mut [f32]) {
        for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
            *dx += if y.widen() <= floor { 0.0 } else { *dy };
        }
    }
}

multiversion! {
    /// Adds up rows: `sums += Σ x`, `x` `[rows, columns]`.
    pub(crate) fn add_rows(x: &[f32], sums: &mut [f32]) {
        for x in x.chunks_exact(sums.len()) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
    }
}

multiversion! {
    /// Rounds to `y`.
    pub(crate) fn narrow<T: Element>(x: &[f32], y: &mut [T]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = T::narrow(*x));
    }
}
