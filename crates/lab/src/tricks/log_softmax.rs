//! Trick 12: softmax and logarithm as one operation or as two: the error of the cross-entropy's gradient by the scale of the logits.
//!
//! The gradient with respect to the logits is π − onehot at every scale. The reference is computed in `f64` in one operation, exact to
//! 16 digits. A gradient that is not finite counts as an error of 1, the same as a missing gradient.

use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_losses::softmax;
use rand::RngExt as _;
use rand_distr::StandardNormal;
use tch::{Kind, Tensor};

const NAIVE: &str = "log(eᶻ/Σeᶻ)";
const TWO_STEPS: &str = "log(softmax)";
const EPSILON: &str = "log(softmax + 1e-6)";
const FUSED: &str = "log-softmax";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 12,
    name: "log-softmax",
    about: "log-softmax and softmax cross-entropy as one operation; ε inside the logarithm",
    source: "numerical folklore; softmax_cross_entropy_with_logits of TensorFlow, LogSoftMax of Torch",
    data: "random logits of 10 classes, scaled by 1 to 10,000 (toy)",
    verified_by: "crates/losses/src/softmax.rs: large_logits_stay_finite",
    metric: "error of the gradient, mean over scales of the logits",
    better: Better::Lower,
    baseline: TWO_STEPS,
    with: &[EPSILON, FUSED],
    timed: false,
    run,
};

const ROWS: i64 = 1000;
const CLASSES: i64 = 10;

/// −log π(label) of logits `[n, classes]`.
type Loss = fn(&Tensor, &Tensor) -> Tensor;

fn run(trial: &mut Trial) -> Result<()> {
    let mut rng = trial.rng("logits");
    let z: Vec<f32> = (0..ROWS * CLASSES).map(|_| rng.sample(StandardNormal)).collect();
    let labels: Vec<i64> = (0..ROWS).map(|_| rng.random_range(0..CLASSES)).collect();
    let (z, labels) = (Tensor::from_slice(&z).view([ROWS, CLASSES]), Tensor::from_slice(&labels));
    trial.axes("log₁₀ of the scale of logits", "largest error of a row's gradient, mean over rows");
    let losses: [(&str, Loss); 4] = [
        (TWO_STEPS, |z, labels| of_labels(&z.softmax(-1, Kind::Float).log(), labels)),
        (EPSILON, |z, labels| of_labels(&softmax::log_plus(&z.softmax(-1, Kind::Float), 1e-6), labels)),
        (FUSED, softmax::cross_entropy),
        (NAIVE, |z, labels| {
            let e = z.exp();
            of_labels(&(&e / e.sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float)).log(), labels)
        }),
    ];
    let scales = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0];
    for (variant, loss) in losses {
        let mut total = 0.0;
        for &scale in &scales {
            let z = &z * 10_f64.powf(scale);
            let exact = gradient(softmax::cross_entropy, &z.to_kind(Kind::Double), &labels);
            let actual = gradient(loss, &z, &labels).to_kind(Kind::Double);
            let off = (actual - exact).abs().nan_to_num(1.0, 1.0, 1.0).amax([1_i64].as_slice(), false);
            let error = off.mean(Kind::Double).double_value(&[]);
            trial.point(variant, scale, error);
            total += error;
        }
        trial.record(variant, total / scales.len() as f64);
    }
    Ok(())
}

fn of_labels(log_pi: &Tensor, labels: &Tensor) -> Tensor {
    -log_pi.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1)
}

fn gradient(loss: Loss, z: &Tensor, labels: &Tensor) -> Tensor {
    let z = z.detach().copy().set_requires_grad(true);
    loss(&z, labels).sum(z.kind()).backward();
    z.grad()
}
