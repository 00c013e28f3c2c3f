//! Attention against naive loops, with padding; its gradient against finite differences; invalid shapes.

use playfield_core::rng::stream;
use playfield_nn::attention::{Attention, AttentionKind};
use playfield_nn::params::to_vec;
use playfield_nn::sequence::Lengths;
use playfield_nn::{Builder, Params};
use rand::RngExt as _;
use tch::{Device, Kind, Tensor, no_grad};

const N: usize = 3;
const STEPS: usize = 4;
const QUERIES: usize = 2;
const QUERY: usize = 5;
const KEYS: usize = 3;
const LENGTHS: [i64; N] = [4, 1, 3];

fn build(kind: AttentionKind, precision: Kind) -> (Attention, Params) {
    let mut rng = stream(1, "attention");
    let mut b = Builder::new(&mut rng);
    let attention = Attention::new(&mut b, "attention", kind, QUERY as i64, KEYS as i64);
    (attention, b.finish(Device::Cpu, precision))
}

fn random(name: &str, shape: [usize; 3]) -> (Vec<f32>, Tensor) {
    let mut rng = stream(2, name);
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|_| rng.random_range(-2.0..2.0)).collect();
    let tensor = Tensor::from_slice(&values).view(shape.map(|d| d as i64));
    (values, tensor)
}

/// Trick 17.
#[test]
fn both_scores_equal_plain_loops() {
    let ((keys, key_tensor), (queries, query_tensor)) =
        (random("keys", [STEPS, N, KEYS]), random("queries", [N, QUERIES, QUERY]));
    let lengths = Lengths::new(&LENGTHS, STEPS as i64).unwrap();
    for kind in [AttentionKind::Additive, AttentionKind::Multiplicative] {
        let (attention, params) = build(kind, Kind::Float);
        let w = params.weights();
        let (context, weights) = no_grad(|| {
            let ready = attention.keys(w, &key_tensor, &lengths).unwrap();
            attention.forward(w, &ready, &query_tensor).unwrap()
        });
        assert_eq!(context.size(), [N as i64, QUERIES as i64, KEYS as i64]);
        let (context, weights) = (to_vec(&context), to_vec(&weights));
        let named = params.named(params.master());
        let matrix = |name: &str| named[&format!("attention.{name}")].values::<f32>().unwrap();
        let u = matrix("weight_key");
        for i in 0..N {
            for t in 0..QUERIES {
                let q = &queries[(i * QUERIES + t) * QUERY..][..QUERY];
                let key = |s: usize| &keys[(s * N + i) * KEYS..][..KEYS];
                let dot =
                    |row: &[f32], x: &[f32]| row.iter().zip(x).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
                let score = |s: usize| match kind {
                    AttentionKind::Multiplicative => {
                        (0..QUERY).map(|j| f64::from(q[j]) * dot(&u[j * KEYS..][..KEYS], key(s))).sum::<f64>()
                    }
                    AttentionKind::Additive => {
                        let (a, v) = (matrix("weight_query"), matrix("weight_score"));
                        let hidden = |j: usize| dot(&a[j * QUERY..][..QUERY], q) + dot(&u[j * KEYS..][..KEYS], key(s));
                        (0..QUERY).map(|j| f64::from(v[j]) * hidden(j).tanh()).sum::<f64>()
                    }
                };
                let exps: Vec<f64> = (0..LENGTHS[i] as usize).map(|s| score(s).exp()).collect();
                let sum: f64 = exps.iter().sum();
                for s in 0..STEPS {
                    let expected = exps.get(s).map_or(0.0, |e| e / sum);
                    let actual = f64::from(weights[(i * QUERIES + t) * STEPS + s]);
                    assert!((actual - expected).abs() < 3e-6, "{kind:?} {i} {t} {s}: {actual}, expected {expected}");
                    assert!(s < LENGTHS[i] as usize || actual == 0.0, "padding has no weight");
                }
                for k in 0..KEYS {
                    let expected: f64 = exps.iter().enumerate().map(|(s, e)| e / sum * f64::from(key(s)[k])).sum();
                    let actual = f64::from(context[(i * QUERIES + t) * KEYS + k]);
                    assert!((actual - expected).abs() < 3e-6, "{kind:?} {i} {t}: {actual}, expected {expected}");
                }
            }
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let double = |name, shape| random(name, shape).1.to_kind(Kind::Double);
    let (keys, queries) = (double("keys", [STEPS, N, KEYS]), double("queries", [N, QUERIES, QUERY]));
    let weighting = double("weights", [N, QUERIES, KEYS]);
    let lengths = Lengths::new(&LENGTHS, STEPS as i64).unwrap();
    for kind in [AttentionKind::Additive, AttentionKind::Multiplicative] {
        let (attention, mut params) = build(kind, Kind::Double);
        let loss = |params: &Params| {
            let w = params.weights();
            let ready = attention.keys(w, &keys, &lengths).unwrap();
            (attention.forward(w, &ready, &queries).unwrap().0 * &weighting).sum(Kind::Double)
        };
        let l = loss(&params);
        params.zero_gradient();
        l.backward();
        let flat = params.flat().shallow_clone();
        let grads = params.gradient();
        for i in 0..flat.size()[0] {
            let at = |delta: f64| {
                no_grad(|| {
                    let _ = flat.narrow(0, i, 1).g_add_scalar_(delta);
                    let l = loss(&params).double_value(&[]);
                    let _ = flat.narrow(0, i, 1).g_add_scalar_(-delta);
                    l
                })
            };
            let (gradient, difference) = (grads.double_value(&[i]), (at(1e-5) - at(-1e-5)) / 2e-5);
            assert!((gradient - difference).abs() < 1e-7, "{kind:?}, {i}: {gradient}, expected {difference}");
        }
        assert!(grads.norm().double_value(&[]) > 0.1);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let (attention, params) = build(AttentionKind::Additive, Kind::Float);
    let (w, lengths) = (params.weights(), Lengths::new(&LENGTHS, STEPS as i64).unwrap());
    let wrong = attention.keys(w, &random("keys", [STEPS, N, KEYS + 1]).1, &lengths).unwrap_err().to_string();
    assert!(wrong.contains("[4, 3, 4]") && wrong.contains("[4, 3, 3]"), "{wrong}");
    let ready = attention.keys(w, &random("keys", [STEPS, N, KEYS]).1, &lengths).unwrap();
    let wrong = attention.forward(w, &ready, &random("queries", [N, QUERIES, 4]).1).unwrap_err().to_string();
    assert!(wrong.contains("[3, 2, 4] where [n, t, query] = [3, t, 5]"), "{wrong}");
}
