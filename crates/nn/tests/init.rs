//! Initial values: the bounds and variances that each rule's paper states, for linear layers and convolutions.

use playfield_core::rng::stream;
use playfield_nn::config::InitKind;
use playfield_nn::init::{Init, hidden_init};

/// Mean, variance and largest absolute value of a parameter.
fn moments(init: Init, shape: &[i64]) -> (f64, f64, f64) {
    let values = init.sample(shape, &mut stream(1, "init"));
    assert_eq!(values.len() as i64, shape.iter().product::<i64>());
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    (mean, variance, values.iter().fold(0.0, |max, x| f64::from(x.abs()).max(max)))
}

/// A linear layer of 300 inputs and 500 outputs, and a convolution of 20 channels to 400, 3×3: fan_in 300 and 180, fan_out 500
/// and 3600. With 72,000 samples or more, tolerances are 4 standard deviations of the mean and 3 % of the variance.
#[test]
fn each_rule_has_its_papers_variance_and_bound() {
    for (shape, fan_in, fan_out) in [(&[500_i64, 300][..], 300.0_f64, 500.0_f64), (&[400, 20, 3, 3], 180.0, 3600.0)] {
        let uniform = |bound: f64| (bound * bound / 3.0, Some(bound));
        for (init, (variance, bound)) in [
            (Init::Uniform { fan_in: fan_in as i64 }, uniform(1.0 / fan_in.sqrt())),
            (Init::He { gain: 2.0_f64.sqrt() }, (2.0 / fan_in, None)),
            (Init::Glorot { gain: 1.0 }, uniform((6.0 / (fan_in + fan_out)).sqrt())),
            (Init::Bounded { bound: 0.5 }, uniform(0.5)),
        ] {
            let (mean, actual, largest) = moments(init, shape);
            let n = shape.iter().product::<i64>() as f64;
            assert!(mean.abs() < 4.0 * (variance / n).sqrt(), "{init:?}: mean {mean}");
            assert!((actual / variance - 1.0).abs() < 0.03, "{init:?}: variance {actual}, not {variance}");
            if let Some(bound) = bound {
                assert!(largest <= bound * (1.0 + 1e-6) && largest > bound * 0.99, "{init:?}: {largest}, {bound}");
            }
        }
    }
}

/// The bound 1/√fan_in implies Var(w) = 1/(3·fan_in).
#[test]
fn the_default_has_a_third_of_one_over_fan_in() {
    let (_, variance, _) = moments(hidden_init(InitKind::FanIn, 64, 1.0).0, &[4000, 64]);
    assert!((variance * 3.0 * 64.0 - 1.0).abs() < 0.02, "{variance}");
}

/// Biases: sampled like the weights by Torch's default, 0 by the others.
#[test]
fn biases_follow_the_rule() {
    let bias = |kind| moments(hidden_init(kind, 64, 1.0).1, &[1000]);
    assert!(bias(InitKind::FanIn).2 > 0.1);
    for kind in [InitKind::Orthogonal, InitKind::He, InitKind::Glorot] {
        assert_eq!(bias(kind), (0.0, 0.0, 0.0), "{kind:?}");
    }
}

/// He's rule preserves the second moment through 20 layers with rectifiers within a factor of 3; a fixed bound does not.
#[test]
fn he_preserves_the_second_moment_through_rectifiers() {
    use tch::{Kind, Tensor};
    let signal = |init: Init| {
        let mut rng = stream(2, "weights");
        let weight = |rng: &mut _| Tensor::from_slice(&init.sample(&[256, 256], rng)).view([256, 256]);
        let input = Init::He { gain: 16.0 }.sample(&[256, 256], &mut stream(3, "input"));
        let mut x = Tensor::from_slice(&input).view([256, 256]);
        let before = x.square().mean(Kind::Float).double_value(&[]);
        for _ in 0..20 {
            x = x.matmul(&weight(&mut rng).tr()).relu();
        }
        // A rectifier halves the second moment; the next layer's weights double it.
        2.0 * x.square().mean(Kind::Float).double_value(&[]) / before
    };
    let (he, same) = (signal(Init::He { gain: 2.0_f64.sqrt() }), signal(Init::Bounded { bound: 0.05 }));
    assert!((1.0 / 3.0..3.0).contains(&he), "{he}");
    assert!(same < 1e-3, "{same}");
}
