//! Policy distillation: a small network imitates the policy of a large one (Rusu et al. 2015).
//!
//! ```text
//! loss = KL(softmax(teacher / τ) ‖ π) + ½ (v − v_teacher)²
//! ```
//!
//! For a teacher policy τ is 1. Q-values of different actions are similar, so the paper sharpens them with τ = .01: the student
//! learns the best action instead of the values. The student in the paper is a Q-network; here it is an actor-critic for every kind
//! of teacher.

use crate::distill::kl;
use playfield_core::rng::Rng;
use playfield_core::{EnvSpec, Error, Obs, Outputs, Result, Snapshot};
use playfield_losses::softmax::log_softmax;
use playfield_nn::optim::{Adam, Optimizer};
use playfield_nn::{ActorCritic, Distribution, NetworkConfig, Pass};
use tch::{Kind, Tensor};

/// τ for a teacher of action values, from the paper.
pub const SHARP: f64 = 0.01;

/// The student network and its optimizer (Adam).
#[derive(Debug)]
pub struct Student {
    net: ActorCritic,
    optimizer: Optimizer,
    temperature: f64,
}

impl Student {
    /// A new student for environments of `spec`, distilled at `temperature`.
    ///
    /// # Errors
    /// [`Error::Config`] if the temperature is not greater than 0, or network, observation space and device are incompatible.
    pub fn new(network: &NetworkConfig, spec: &EnvSpec, device: &str, temperature: f64, rng: &mut Rng) -> Result<Self> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::config(format!("`temperature` = {temperature} must be greater than 0")));
        }
        let net = ActorCritic::new(network, spec, device, rng)?;
        let adam = Adam { eps: 1e-5, ..Adam::default() };
        let optimizer = Optimizer::new(adam, &net.params);
        Ok(Self { net, optimizer, temperature })
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.net.params.count()
    }

    /// One update towards the teacher's outputs for `n` observations. Returns the mean KL divergence before it, in
    /// nats.
    ///
    /// # Errors
    /// [`Error::Config`] if the actions are not discrete.
    pub fn learn(&mut self, obs: &Obs, n: usize, teacher: &Outputs, learning_rate: f64) -> Result<f64> {
        let (policy, value) = self.net.forward(obs.as_ref(), n, Pass::Train);
        let Distribution::Categorical { logits, sizes } = policy else {
            return Err(Error::config("policy distillation needs discrete actions"));
        };
        if sizes.len() > 1 || teacher.preferences.is_empty() {
            return Err(Error::config("policy distillation needs discrete actions"));
        }
        let column = |v: &[f32]| Tensor::from_slice(v).to_device(logits.device());
        let preferences = column(&teacher.preferences).view_as(&logits) / self.temperature;
        let divergence = kl(&log_softmax(&preferences), &log_softmax(&logits)).mean(Kind::Float);
        let error = (value - column(&teacher.values)).square().mean(Kind::Float);
        self.net.backward(&(&divergence + error * 0.5));
        self.net.step(&mut self.optimizer, learning_rate, 1.0)?;
        Ok(divergence.double_value(&[]))
    }

    /// Saves the parameters, named as those of an actor-critic.
    pub fn save(&self, snapshot: &mut Snapshot) {
        self.net.params.save(snapshot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::rng::stream;
    use playfield_core::{ActionSpace, Dtype};

    fn spec(actions: ActionSpace) -> EnvSpec {
        EnvSpec::new("t", &[2], Dtype::F32, actions)
    }

    /// The sign of the first feature determines the best action; the teacher's Q-values differ by .01.
    #[test]
    fn a_student_learns_the_policy_of_the_teacher() {
        let spec = spec(ActionSpace::Discrete { n: 2 });
        let mut student = Student::new(&NetworkConfig::default(), &spec, "cpu", SHARP, &mut stream(1, "init")).unwrap();
        let obs = Obs::F32(vec![1.0, 0.3, -1.0, 0.2, 0.5, -0.9, -0.7, 0.1]);
        let q = vec![0.51, 0.5, 0.5, 0.51, 0.51, 0.5, 0.5, 0.51];
        let teacher = Outputs::of_values(q, 4, vec![]);
        assert_eq!(teacher.values, [0.51; 4]);
        let first = student.learn(&obs, 4, &teacher, 1e-2).unwrap();
        let last = (0..300).map(|_| student.learn(&obs, 4, &teacher, 1e-2).unwrap()).last().unwrap();
        assert!(first > 0.05 && last < 1e-3, "{first}, {last}");
        let (policy, value) = student.net.forward(obs.as_ref(), 4, Pass::Infer);
        let Distribution::Categorical { logits, .. } = policy else { panic!("discrete") };
        // softmax(.51/.01, .50/.01) = (.731, .269).
        let p = f64::try_from(logits.softmax(-1, Kind::Float).get(0).get(0)).unwrap();
        assert!((p - 0.731).abs() < 0.02, "{p}");
        assert!((value.double_value(&[0]) - 0.51).abs() < 0.05);
    }

    #[test]
    fn continuous_actions_are_an_error() {
        let new =
            |actions, t| Student::new(&NetworkConfig::default(), &spec(actions), "cpu", t, &mut stream(1, "init"));
        let error = new(ActionSpace::Discrete { n: 2 }, 0.0).unwrap_err().to_string();
        assert!(error.contains("`temperature` = 0") && error.contains("greater than 0"), "{error}");
        let mut student = new(ActionSpace::Discrete { n: 2 }, 1.0).unwrap();
        let continuous = Outputs { values: vec![0.0], ..Outputs::default() };
        let error = student.learn(&Obs::F32(vec![0.0; 2]), 1, &continuous, 0.1).unwrap_err().to_string();
        assert!(error.contains("discrete"), "{error}");
    }
}
