//! The actor: a copy of the online network's weights, and ε-greedy exploration.

use crate::learner::{Learner, Values};
use playfield_core::rng::Rng;
use playfield_core::{Actions, Mode, Obs, Outputs, Policy, Result, Snapshot};
use playfield_nn::params::to_vec;
use playfield_nn::{Pass, QNetwork};
use rand::{RngExt as _, SeedableRng};
use tch::Device;

/// Selects actions, independent of the thread of the [`Learner`].
#[derive(Debug)]
pub struct Actor {
    /// Its network, replaced by a newer one after each round.
    pub network: QNetwork,
    values: Values,
    noisy: bool,
    actions: usize,
    /// ε of an evaluation; 0 for noisy networks.
    evaluation_epsilon: f64,
    rng: Rng,
}

impl Actor {
    /// An actor with the current weights of `learner`.
    pub fn new(learner: &Learner, rng: Rng) -> Self {
        let config = learner.config();
        let noisy = config.noisy_sigma > 0.0;
        let evaluation_epsilon = if noisy { 0.0 } else { config.exploration_evaluation };
        let (network, actions) = (learner.online().deep_clone(), learner.online().actions());
        Self { network, values: learner.values(), noisy, actions, evaluation_epsilon, rng }
    }

    /// Selects ε-greedily: for each observation a random action with probability `epsilon`, else the greedy one.
    pub fn explore(&mut self, obs: &Obs, epsilon: f64, actions: &mut Actions) {
        let Actions::Discrete(actions) = actions else { panic!("actions of another space than the network's") };
        if self.noisy {
            self.network.set_noise(self.network.sample_noise(&mut self.rng));
        }
        let random: Vec<bool> = actions.iter().map(|_| self.rng.random::<f64>() < epsilon).collect();
        // A batch of random actions needs no forward pass.
        if !random.iter().all(|&r| r) {
            self.select_greedy(obs, actions);
        }
        for (action, _) in actions.iter_mut().zip(random).filter(|(_, random)| *random) {
            *action = self.rng.random_range(0..self.actions) as i64;
        }
    }

    /// Selects the action of the greatest value for each observation, with the network's current noise.
    fn select_greedy(&mut self, obs: &Obs, actions: &mut [i64]) {
        let n = actions.len();
        let z = self.network.forward(obs.as_ref(), n, Pass::Infer);
        let best = self.values.mean(&z).argmax(1, false);
        best.to_device(Device::Cpu).copy_data(actions, n);
    }

    /// Writes the random stream; the weights are the learner's.
    pub fn save(&self, snapshot: &mut Snapshot) {
        snapshot.put("dqn.actor.rng", &self.rng);
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where it is missing.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.rng = snapshot.get("dqn.actor.rng")?;
        Ok(())
    }
}

impl Policy for Actor {
    /// [`Mode::Sample`] explores with the evaluation's ε; [`Mode::Greedy`] also omits the noise of noisy layers.
    fn act(&mut self, obs: &Obs, mode: Mode, actions: &mut Actions) -> Result<()> {
        match mode {
            Mode::Sample => self.explore(obs, self.evaluation_epsilon, actions),
            Mode::Greedy => {
                let Actions::Discrete(actions) = actions else { panic!("actions of another space than the network's") };
                self.network.disable_noise();
                self.select_greedy(obs, actions);
            }
        }
        Ok(())
    }

    fn outputs(&mut self, obs: &Obs, n: usize) -> Result<Outputs> {
        self.network.disable_noise();
        let z = self.network.forward(obs.as_ref(), n, Pass::Infer);
        let features = self.network.features(obs.as_ref(), n);
        Ok(Outputs::of_values(to_vec(&self.values.mean(&z)), n, to_vec(&features)))
    }

    fn seed(&mut self, seed: u64) {
        self.rng = Rng::seed_from_u64(seed);
    }
}
