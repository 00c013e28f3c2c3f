//! Distillation: a student trains on a teacher's softened outputs and the labels (Hinton, Vinyals and Dean 2015).
//!
//! ```text
//! p_T = softmax(teacher / T),  q_T = softmax(student / T)
//! loss = w · T² · KL(p_T ‖ q_T) + (1 − w) · −log q_1(label)
//! ```
//!
//! A temperature above 1 softens both distributions, which reveals the relative probabilities that the teacher assigns to wrong
//! classes. The gradient of the soft loss is proportional to 1/T², and the factor T² compensates, so w is independent of the
//! temperature. Typical temperatures are 1 to 10, lower for smaller students. Without labels w is 1.
//!
//! For policies the temperature is often below 1: Q-values of different actions are similar, and Rusu et al. 2015 sharpen them with
//! .01.
//!
//! If the student can fit the labels as well, train on the labels only: a student also copies the errors of its teacher.

use playfield_core::{Error, Result};
use playfield_losses::softmax::{cross_entropy, log_softmax};
use tch::{Kind, Tensor};

/// The combination of soft and hard targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    temperature: f64,
    soft_weight: f64,
}

impl Distillation {
    /// The loss weights the teacher's outputs at `temperature` by `soft_weight` and the labels by 1 − `soft_weight`.
    ///
    /// # Errors
    /// [`Error::Config`] if the temperature is not greater than 0 or the weight is not between 0 and 1.
    pub fn new(temperature: f64, soft_weight: f64) -> Result<Self> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::config(format!("`temperature` = {temperature} must be greater than 0")));
        }
        if !(0.0..=1.0).contains(&soft_weight) {
            return Err(Error::config(format!("`soft_weight` = {soft_weight} must lie between 0 and 1")));
        }
        Ok(Self { temperature, soft_weight })
    }

    /// The loss of each row. `student` and `teacher` are logits `[n, classes]`, of which the teacher's get no gradient; `labels` `[n]`
    /// in `i64`. Returns `[n]`.
    pub fn loss(&self, student: &Tensor, teacher: &Tensor, labels: &Tensor) -> Tensor {
        self.soft(student, teacher) * self.soft_weight + cross_entropy(student, labels) * (1.0 - self.soft_weight)
    }

    /// T² · KL(p_T ‖ q_T) of each row, `[n]`: for data without labels.
    pub fn soft(&self, student: &Tensor, teacher: &Tensor) -> Tensor {
        kl(&log_softmax(&(teacher.detach() / self.temperature)), &log_softmax(&(student / self.temperature)))
            * self.temperature.powi(2)
    }
}

/// KL(p ‖ q) of each row by the logarithms of both, `[n, classes]`; returns `[n]`, in nats.
pub fn kl(log_p: &Tensor, log_q: &Tensor) -> Tensor {
    (log_p.exp() * (log_p - log_q)).sum_dim_intlist([-1_i64].as_slice(), false, None::<Kind>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Reduction;

    fn logits() -> (Tensor, Tensor, Tensor) {
        let student = Tensor::from_slice2(&[[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [0.2, 0.1, 0.0], [5.0, -5.0, 0.0]]);
        let teacher = Tensor::from_slice2(&[[2.0, -1.0, 0.0], [1.0, 2.0, -3.0], [0.0, 0.0, 4.0], [-6.0, 6.0, 1.0]]);
        (student.to_kind(Kind::Double), teacher.to_kind(Kind::Double), Tensor::from_slice(&[0_i64, 1, 2, 0]))
    }

    fn value(t: &Tensor) -> f64 {
        t.double_value(&[])
    }

    /// PyTorch's `F.kl_div(log_softmax(s/T), softmax(t/T), reduction="batchmean") * T**2`.
    #[test]
    fn equals_kl_div_of_pytorch() {
        let (student, teacher, _) = logits();
        for t in [0.5, 1.0, 4.0, 10.0] {
            let soft = Distillation::new(t, 1.0).unwrap().soft(&student, &teacher).mean(Kind::Double);
            let (q, p) = ((&student / t).log_softmax(-1, Kind::Double), (&teacher / t).softmax(-1, Kind::Double));
            let pytorch = q.kl_div(&p, Reduction::Sum, false) / 4.0 * t * t;
            assert!((value(&soft) - value(&pytorch)).abs() < 1e-12, "T = {t}");
        }
    }

    /// For large T the gradient of the soft part is (s − t, each centered) / classes, independent of T (Hinton et al., equation 4).
    #[test]
    fn the_gradient_tends_to_a_constant_as_the_temperature_grows() {
        let (student, teacher, _) = logits();
        let centered = |z: &Tensor| z - z.mean_dim([-1_i64].as_slice(), true, Kind::Double);
        let limit = (centered(&student) - centered(&teacher)) / 3.0;
        let distance = |t: f64| {
            let s = student.detach().copy().set_requires_grad(true);
            Distillation::new(t, 1.0).unwrap().soft(&s, &teacher).sum(Kind::Double).backward();
            value(&(s.grad() - &limit).abs().max())
        };
        let distances = [1.0, 10.0, 100.0, 1000.0].map(distance);
        assert!(distances.is_sorted_by(|a, b| a > b) && distances[3] < 0.02, "{distances:?}");
    }

    #[test]
    fn soft_weight_interpolates_the_losses() {
        let (student, teacher, labels) = logits();
        let of = |weight| Distillation::new(2.0, weight).unwrap().loss(&student, &teacher, &labels);
        assert_eq!(of(0.0), cross_entropy(&student, &labels));
        let half = (of(0.0) + of(1.0)) / 2.0;
        assert!(value(&(of(0.5) - half).abs().max()) < 1e-12);
        assert!(value(&Distillation::new(2.0, 1.0).unwrap().soft(&teacher, &teacher).abs().max()) < 1e-12);
    }

    #[test]
    fn invalid_settings_are_errors() {
        for t in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = Distillation::new(t, 0.5).unwrap_err().to_string();
            assert!(error.contains(&format!("`temperature` = {t}")) && error.contains("greater than 0"), "{error}");
        }
        assert!(Distillation::new(1.0, 1.5).unwrap_err().to_string().contains("`soft_weight` = 1.5"));
    }
}
