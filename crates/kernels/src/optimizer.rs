//! Optimizer steps in one pass over memory.
//!
//! A step written as tensor operations passes over every parameter some ten times; on a network of DQN's size that took half as
//! long as the backward pass. These kernels read and write each element once, and convert bf16 weights in the same pass.
//!
//! The scalars of a step (bias corrections included) come from the caller, so that one kernel serves several rules: AdamW and RAdam
//! run Adam's.

use crate::simd::multiversion;
use crate::{Element, bf16};
use std::ops::Range;

/// The buffers of one step.
#[derive(Debug)]
pub struct Buffers<'a> {
    /// The `f32` parameters.
    pub params: &'a mut [f32],
    /// The gradient is the sum of these.
    pub gradients: Vec<Gradient<'a>>,
    /// The rule's state, in the order that [`Update`] states; empty where the rule has none.
    pub state: [&'a mut [f32]; 2],
    /// The bf16 copy of the parameters that layers compute with; empty where layers compute in `f32`.
    pub weights: &'a mut [bf16],
}

/// A gradient, in the precision of the layers.
#[derive(Clone, Copy, Debug)]
pub enum Gradient<'a> {
    /// In `f32`.
    F32(&'a [f32]),
    /// In bf16.
    Bf16(&'a [bf16]),
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The rule.
    pub update: Update,
    /// Factor of the gradient: less than 1 where it is clipped.
    pub scale: f32,
    /// λ of L2 regularization: λp is added to the scaled gradient g.
    pub weight_decay: f32,
}

/// A rule with the scalars of one step. p: parameter, g: gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// State m: `m ← momentum·m + g`, `p ← p − learning_rate·m`.
    Sgd {
        /// η.
        learning_rate: f32,
        /// μ.
        momentum: f32,
    },
    /// State s and, where centered, m: `s ← s + rate·(g² − s)`, `m ← m + rate·(g − m)`, `p ← p − learning_rate·g/root(s − m²)`.
    RmsProp {
        /// η.
        learning_rate: f32,
        /// 1 − α.
        rate: f32,
        /// Whether m² is subtracted.
        centered: bool,
        /// ε.
        eps: f32,
        /// root(x) = √(x + ε) rather than √x + ε.
        eps_inside_root: bool,
    },
    /// State s, m: `s ← s + rates[1]·(g² − s)`, `m ← m + rates[0]·(g − m)`, `p ← shrink·p + step·m/(root·√s + ε)`.
    Adam {
        /// 1 − β₁ and 1 − β₂.
        rates: [f32; 2],
        /// −η, divided by the bias correction of m.
        step: f32,
        /// Factor of √s; 0: the step is `step·m`, whatever s and ε are.
        root: f32,
        /// ε.
        eps: f32,
        /// Decoupled weight decay; 1: none.
        shrink: f32,
    },
}

/// Elements per pass: they stay in the first-level cache. With 1,024 (4 KiB of each buffer) a step took 1.3 times as long on a Zen 4 EPYC, and with
/// 256 as long as with these.
/// [`Buffers::split`] cuts at multiples.
const CHUNK: usize = 512;

impl Buffers<'_> {
    /// The first and the second half.
    pub fn split(self) -> (Self, Self) {
        let Self { params, gradients, state: [first, second], weights } = self;
        let middle = params.len() / 2 / CHUNK * CHUNK;
        let at = |len: usize| middle.min(len);
        let params = params.split_at_mut(middle);
        let (first, second) = (first.split_at_mut(at(first.len())), second.split_at_mut(at(second.len())));
        let weights = weights.split_at_mut(at(weights.len()));
        let gradients: (Vec<_>, Vec<_>) = gradients.into_iter().map(|g| g.split_at(middle)).unzip();
        (
            Self { params: params.0, gradients: gradients.0, state: [first.0, second.0], weights: weights.0 },
            Self { params: params.1, gradients: gradients.1, state: [first.1, second.1], weights: weights.1 },
        )
    }
}

impl Gradient<'_> {
    fn split_at(self, middle: usize) -> (Self, Self) {
        match self {
            Self::F32(g) => (Self::F32(&g[..middle]), Self::F32(&g[middle..])),
            Self::Bf16(g) => (Self::Bf16(&g[..middle]), Self::Bf16(&g[middle..])),
        }
    }
}

multiversion! {
    /// The squared norm of the elements `range` of the sum of `gradients`.
    pub fn square_norm(gradients: &[Gradient<'_>], range: Range<usize>) -> f64 {
        let (mut work, mut total) = ([0.0; CHUNK], 0.0);
        for start in range.clone().step_by(CHUNK) {
            let chunk = &mut work[..CHUNK.min(range.end - start)];
            read(gradients, start, 1.0, chunk);
            // Sixteen partial sums fill a register of any level.
            let mut sums = [0.0_f32; 16];
            let (lines, rest) = chunk.as_chunks::<16>();
            for line in lines {
                sums.iter_mut().zip(line).for_each(|(sum, g)| *sum += g * g);
            }
            let rest = rest.iter().map(|g| f64::from(g * g)).sum::<f64>();
            total += sums.iter().map(|&s| f64::from(s)).sum::<f64>() + rest;
        }
        total
    }
}

multiversion! {
    /// Writes the sum of `gradients` from element `start` on.
    pub fn sum(gradients: &[Gradient<'_>], start: usize, to: &mut [f32]) {
        for (i, chunk) in to.chunks_mut(CHUNK).enumerate() {
            read(gradients, start + i * CHUNK, 1.0, chunk);
        }
    }
}

multiversion! {
    /// Makes the step.
    pub fn step(buffers: Buffers<'_>, step: Step) {
        let Buffers { params, gradients, state: [first, second], weights } = buffers;
        let mut work = [0.0; CHUNK];
        for start in (0..params.len()).step_by(CHUNK) {
            let end = params.len().min(start + CHUNK);
            let g = &mut work[..end - start];
            read(&gradients, start, step.scale, g);
            let p = &mut params[start..end];
            if step.weight_decay > 0.0 {
                g.iter_mut().zip(&*p).for_each(|(g, p)| *g += step.weight_decay * p);
            }
            match step.update {
                Update::Sgd { learning_rate, momentum } => {
                    let m = &mut first[start..end];
                    m.iter_mut().zip(&*g).for_each(|(m, g)| *m = momentum * *m + g);
                    p.iter_mut().zip(m).for_each(|(p, m)| *p -= learning_rate * *m);
                }
                Update::RmsProp { learning_rate, rate, centered: false, eps, eps_inside_root } => {
                    let s = &mut first[start..end];
                    s.iter_mut().zip(&*g).for_each(|(s, g)| *s += rate * (g * g - *s));
                    let update = p.iter_mut().zip(s).zip(&*g);
                    if eps_inside_root {
                        update.for_each(|((p, s), g)| *p += g * -learning_rate / (*s + eps).sqrt());
                    } else {
                        update.for_each(|((p, s), g)| *p += g * -learning_rate / (s.sqrt() + eps));
                    }
                }
                Update::RmsProp { learning_rate, rate, centered: true, eps, eps_inside_root } => {
                    let (s, m) = (&mut first[start..end], &mut second[start..end]);
                    s.iter_mut().zip(&*g).for_each(|(s, g)| *s += rate * (g * g - *s));
                    m.iter_mut().zip(&*g).for_each(|(m, g)| *m += rate * (g - *m));
                    for (((p, s), m), g) in p.iter_mut().zip(s).zip(m).zip(&*g) {
                        // Rounding may leave a variance slightly below 0.
                        let variance = (*s - *m * *m).max(0.0);
                        let root = if eps_inside_root { (variance + eps).sqrt() } else { variance.sqrt() + eps };
                        *p += g * -learning_rate / root;
                    }
                }
                Update::Adam { rates, step, root, eps, shrink } => {
                    let (s, m) = (&mut first[start..end], &mut second[start..end]);
                    s.iter_mut().zip(&*g).for_each(|(s, g)| *s += rates[1] * (g * g - *s));
                    m.iter_mut().zip(&*g).for_each(|(m, g)| *m += rates[0] * (g - *m));
                    if root == 0.0 {
                        p.iter_mut().zip(m).for_each(|(p, m)| *p = *p * shrink + *m * step);
                    } else {
                        for ((p, s), m) in p.iter_mut().zip(s).zip(m) {
                            *p = *p * shrink + *m * step / (s.sqrt() * root + eps);
                        }
                    }
                }
            }
            if !weights.is_empty() {
                weights[start..end].iter_mut().zip(p).for_each(|(w, p)| *w = bf16::narrow(*p));
            }
        }
    }
}

/// The gradient from `start` on, scaled, as `f32`: in one pass over `to` for one gradient, or two of the same type.
#[inline(always)]
fn read(gradients: &[Gradient<'_>], start: usize, scale: f32, to: &mut [f32]) {
    #[inline(always)]
    fn one<T: Element>(a: &[T], scale: f32, to: &mut [f32]) {
        to.iter_mut().zip(a).for_each(|(to, a)| *to = a.widen() * scale);
    }
    #[inline(always)]
    fn two<T: Element>(a: &[T], b: &[T], scale: f32, to: &mut [f32]) {
        to.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = (a.widen() + b.widen()) * scale);
    }
    match *gradients {
        [Gradient::F32(a)] => one(&a[start..], scale, to),
        [Gradient::Bf16(a)] => one(&a[start..], scale, to),
        [Gradient::F32(a), Gradient::F32(b)] => two(&a[start..], &b[start..], scale, to),
        [Gradient::Bf16(a), Gradient::Bf16(b)] => two(&a[start..], &b[start..], scale, to),
        _ => {
            to.fill(0.0);
            for gradient in gradients {
                match gradient {
                    Gradient::F32(from) => to.iter_mut().zip(&from[start..]).for_each(|(to, g)| *to += g),
                    Gradient::Bf16(from) => to.iter_mut().zip(&from[start..]).for_each(|(to, g)| *to += g.widen()),
                }
            }
            to.iter_mut().for_each(|g| *g *= scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both halves of a split step equal the whole step, in every buffer; the norm is that of the sum.
    #[test]
    fn a_split_step_equals_the_whole_step() {
        let n = 3 * CHUNK + 100;
        let wave = |k: usize| (0..n).map(|i| ((i * 31 + k * 17) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>();
        let (g, h) = (wave(1), wave(2).into_iter().map(bf16::narrow).collect::<Vec<_>>());
        let step = Step {
            update: Update::RmsProp {
                learning_rate: 0.1,
                rate: 0.05,
                centered: true,
                eps: 0.01,
                eps_inside_root: false,
            },
            scale: 0.5,
            weight_decay: 0.1,
        };
        let run = |split: bool| {
            let (mut p, mut s, mut m, mut w) = (wave(3), vec![1.0; n], vec![0.0; n], vec![bf16::ZERO; n]);
            let gradients = vec![Gradient::F32(&g), Gradient::Bf16(&h)];
            let buffers = Buffers { params: &mut p, gradients, state: [&mut s, &mut m], weights: &mut w };
            if split {
                let (one, other) = buffers.split();
                super::step(other, step);
                super::step(one, step);
            } else {
                super::step(buffers, step);
            }
            (p, s, m, w)
        };
        assert_eq!(run(true), run(false));
        let sum = g.iter().zip(&h).map(|(g, h)| f64::from(g + h.widen()).powi(2)).sum::<f64>().sqrt();
        let gradients = [Gradient::F32(&g), Gradient::Bf16(&h)];
        let [f32s, bf16s] = gradients;
        for gradients in [&[f32s, bf16s][..], &[f32s], &[bf16s], &[f32s; 2], &[bf16s; 2], &[f32s, bf16s, f32s], &[]] {
            let mut part = vec![7.0; CHUNK + 50];
            super::sum(gradients, 30, &mut part);
            let at = |gradient: &Gradient<'_>, i: usize| match gradient {
                Gradient::F32(g) => g[i],
                Gradient::Bf16(g) => g[i].widen(),
            };
            let expected = (30..).map(|i| gradients.iter().map(|gradient| at(gradient, i)).sum::<f32>());
            assert!(part.iter().zip(expected.clone()).all(|(sum, expected)| *sum == expected));
            read(gradients, 30, 0.75, &mut part);
            assert!(part.iter().zip(expected).all(|(sum, expected)| *sum == expected * 0.75));
        }
        let actual = (square_norm(&gradients, 0..700) + square_norm(&gradients, 700..n)).sqrt();
        assert!((actual / sum - 1.0).abs() < 1e-6, "{actual}, {sum}");
    }
}
