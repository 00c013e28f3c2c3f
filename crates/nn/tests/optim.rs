//! Optimizers against PyTorch (`golden/optim.py`), and the formula with ε inside the root by hand.

use playfield_core::Snapshot;
use playfield_core::rng::stream;
use playfield_nn::init::Init;
use playfield_nn::optim::{Adam, AdamW, Optimizer, OptimizerConfig, RAdam, RmsProp, Rule, Sgd};
use playfield_nn::params::to_vec;
use playfield_nn::{Builder, Params};
use serde::Deserialize;
use tch::{Device, Kind, Tensor, no_grad};

#[derive(Deserialize)]
struct Golden {
    start: Vec<f32>,
    gradients: Vec<Vec<f32>>,
    rmsprop: Vec<Vec<f32>>,
    rmsprop_clipped: Vec<Vec<f32>>,
    rmsprop_centred: Vec<Vec<f32>>,
    adam: Vec<Vec<f32>>,
    sgd: Vec<Vec<f32>>,
    sgd_decayed: Vec<Vec<f32>>,
    adam_decayed: Vec<Vec<f32>>,
    rmsprop_decayed_clipped: Vec<Vec<f32>>,
    adamw: Vec<Vec<f32>>,
    radam: Vec<Vec<f32>>,
    radam_decayed: Vec<Vec<f32>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/optim.json")).unwrap()
}

fn params(start: &[f32]) -> Params {
    let mut rng = stream(1, "test");
    let mut b = Builder::new(&mut rng);
    b.param("p", &[start.len() as i64], Init::Constant(0.0));
    let mut params = b.finish(Device::Cpu, Kind::Float);
    no_grad(|| params.master().narrow(0, 0, start.len() as i64).copy_(&Tensor::from_slice(start)));
    params.mark_updated();
    params
}

fn step(optimizer: &mut Optimizer, params: &mut Params, gradient: &[f32], learning_rate: f64, clip: f64) -> Vec<f32> {
    let mut all = vec![0.0; params.master().numel()];
    all[..gradient.len()].copy_from_slice(gradient);
    params.set_gradient(&Tensor::from_slice(&all));
    optimizer.step(params, learning_rate, clip);
    to_vec(params.master())[..gradient.len()].to_vec()
}

fn assert_close(actual: &[f32], expected: &[f32]) {
    for (a, e) in actual.iter().zip(expected) {
        assert!((a - e).abs() <= 1e-6 * e.abs().max(1.0), "{actual:?} is not {expected:?}");
    }
}

fn check(config: impl Into<OptimizerConfig>, clip: f64, expected: &[Vec<f32>]) {
    let g = golden();
    let mut params = params(&g.start);
    let mut optimizer = Optimizer::new(config, &params);
    for (gradient, expected) in g.gradients.iter().cycle().zip(expected) {
        assert_close(&step(&mut optimizer, &mut params, gradient, 0.01, clip), expected);
    }
}

fn torch_rmsprop(eps: f64) -> RmsProp {
    RmsProp { eps, ..RmsProp::default() }
}

#[test]
fn rmsprop_equals_pytorch() {
    check(torch_rmsprop(1e-5), 0.0, &golden().rmsprop);
}

#[test]
fn centered_rmsprop_equals_pytorch() {
    let config = RmsProp { centered: true, decay: 0.95, ..torch_rmsprop(0.01) };
    check(config, 0.0, &golden().rmsprop_centred);
}

/// Nature's form, ε inside the root: s₁ = .05·4 + .95·0, m₁ = .05·2, p₁ = 1 − .1·2/√(.2 − .01 + .01).
#[test]
fn natures_rmsprop_by_hand() {
    let config = RmsProp { centered: true, decay: 0.95, eps: 0.01, initial_square: 0.0, ..RmsProp::tensorflow() };
    let mut params = params(&[1.0]);
    let mut optimizer = Optimizer::new(config, &params);
    assert_close(&step(&mut optimizer, &mut params, &[2.0], 0.1, 0.0), &[1.0 - 0.2 / 0.2_f32.sqrt()]);
}

#[test]
fn clipping_by_global_norm_equals_pytorch() {
    check(torch_rmsprop(0.1), 0.5, &golden().rmsprop_clipped);
}

#[test]
fn adam_equals_pytorch() {
    check(Adam { eps: 1e-5, ..Adam::default() }, 0.0, &golden().adam);
}

#[test]
fn sgd_equals_pytorch() {
    check(Sgd::default(), 0.0, &golden().sgd);
}

/// AdamW's decay is decoupled, and .01 by default.
#[test]
fn adamw_equals_pytorch() {
    check(AdamW::default(), 0.0, &golden().adamw);
}

/// Includes the first updates, which are not rectified, and later ones.
#[test]
fn radam_equals_pytorch() {
    assert!(golden().radam.len() > 6);
    check(RAdam::default(), 0.0, &golden().radam);
}

/// L2 regularization: added to the gradient after clipping, before the rule.
#[test]
fn weight_decay_equals_pytorch() {
    let weight_decay = 0.1;
    check(Sgd { weight_decay, ..Sgd::default() }, 0.0, &golden().sgd_decayed);
    check(Adam { eps: 1e-5, weight_decay, ..Adam::default() }, 0.0, &golden().adam_decayed);
    check(RAdam { weight_decay, ..RAdam::default() }, 0.0, &golden().radam_decayed);
    check(RmsProp { weight_decay, ..torch_rmsprop(0.1) }, 0.5, &golden().rmsprop_decayed_clipped);
}

/// TensorFlow's form: s starts at 1, ε inside the root. s₁ = .99 + .01·4 = 1.03, p₁ = 1 − .1·2/√(1.03 + .1); with a
/// zero gradient then, s₂ = .99·1.03 and p stays.
#[test]
fn rmsprop_with_epsilon_inside_the_root_by_hand() {
    let mut params = params(&[1.0]);
    let mut optimizer = Optimizer::new(RmsProp::tensorflow(), &params);
    assert_close(&step(&mut optimizer, &mut params, &[2.0], 0.1, 0.0), &[1.0 - 0.2 / 1.13_f32.sqrt()]);
    assert_close(&step(&mut optimizer, &mut params, &[0.0], 0.1, 0.0), &[1.0 - 0.2 / 1.13_f32.sqrt()]);
    let before = 1.0 - 0.2 / 1.13_f32.sqrt();
    let square = 0.99 * 0.99 * 1.03 + 0.01;
    assert_close(&step(&mut optimizer, &mut params, &[1.0], 0.1, 0.0), &[before - 0.1 / (square + 0.1_f32).sqrt()]);
}

#[test]
fn a_restored_optimizer_continues_bit_for_bit() {
    for rule in [Rule::Sgd, Rule::RmsProp, Rule::Adam, Rule::AdamW, Rule::RAdam] {
        let g = golden();
        let mut a = params(&g.start);
        let config = OptimizerConfig::of(rule);
        let mut first = Optimizer::new(config.clone(), &a);
        step(&mut first, &mut a, &g.gradients[0], 0.01, 0.0);
        let mut snapshot = Snapshot::default();
        a.save(&mut snapshot);
        first.save(&a, &mut snapshot);

        let mut b = params(&[9.0; 4]);
        b.load(&snapshot).unwrap();
        let mut second = Optimizer::new(config, &b);
        second.load(&b, &snapshot).unwrap();
        let expected = step(&mut first, &mut a, &g.gradients[1], 0.01, 0.0);
        assert_eq!(step(&mut second, &mut b, &g.gradients[1], 0.01, 0.0), expected, "{rule:?}");
    }
}
