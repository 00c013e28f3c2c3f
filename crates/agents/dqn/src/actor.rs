//! The actor: a copy of the online network, and ε.

use crate::config::Config;
use crate::learner::Values;
use playfield_core::graph::{Graph, Value};
use playfield_core::rng::Rng;
use playfield_core::space::random_action;
use playfield_core::{Actions, Mode, Obs, Outputs, Persist, Policy, Result, Snapshot};
use playfield_losses::q_learning as ql;
use playfield_nn::params::to_vec;
use playfield_nn::{Pass, QNetwork};
use rand::{RngExt as _, SeedableRng};
use tch::Device;

/// An ε-greedy policy on a copy of the online network, which acts while the [`Learner`](crate::learner::Learner) may be working
/// elsewhere.
#[derive(Debug)]
pub struct Actor {
    /// The network: exchanged for a newer copy after each chunk.
    pub network: QNetwork,
    /// ε of [`Mode::Sample`].
    pub epsilon: f64,
    values: Values,
    noisy: bool,
    rng: Rng,
}

impl Actor {
    /// An actor with `network`, which explores as in evaluation until [`epsilon`](Self::epsilon) is set.
    pub fn new(config: &Config, network: QNetwork, rng: Rng) -> Self {
        let noisy = config.noisy_sigma > 0.0;
        let epsilon = if noisy { 0.0 } else { config.exploration_evaluation };
        let values = Values::new(config, network.params.master().device());
        Self { network, epsilon, values, noisy, rng }
    }

    /// An actor with the ε of evaluation, `network`, and a copy of this one's random stream. `network` is the learner's: this one's may be a
    /// chunk older.
    pub fn evaluation_policy(&self, config: &Config, network: QNetwork) -> Self {
        Self::new(config, network, self.rng.clone())
    }

    /// Selects ε-greedily: each action at random from the valid ones with probability ε, else the best of them.
    fn explore(&mut self, obs: &Obs, mask: &[bool], actions: &mut [i64]) {
        if self.noisy {
            self.network.set_noise(self.network.sample_noise(&mut self.rng));
        }
        let random: Vec<bool> = actions.iter().map(|_| self.rng.random::<f64>() < self.epsilon).collect();
        // A batch of random actions needs no network.
        if !random.iter().all(|&r| r) {
            self.select_greedy(obs, mask, actions);
        }
        let k = self.network.actions();
        for (i, action) in actions.iter_mut().enumerate().filter(|(i, _)| random[*i]) {
            let valid = mask.get(i * k..(i + 1) * k).unwrap_or_default();
            *action = random_action(k, valid, &mut self.rng) as i64;
        }
    }

    /// The best valid action for each observation, with the current noise of the network.
    fn select_greedy(&mut self, obs: &Obs, mask: &[bool], actions: &mut [i64]) {
        let n = actions.len();
        let z = self.network.forward(obs.as_ref(), n, Pass::Infer);
        let best = ql::masked(&self.values.mean(&z), mask).argmax(1, false);
        best.to_device(Device::Cpu).copy_data(actions, n);
    }

    /// Restores what [`save`](Persist::save) wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where it is missing.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.rng = snapshot.get("dqn.actor.rng")?;
        Ok(())
    }
}

/// The random stream; the weights are the learner's.
impl Persist for Actor {
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.put("dqn.actor.rng", &self.rng);
        Ok(())
    }
}

impl Policy for Actor {
    /// [`Mode::Greedy`] also disables the noise of noisy layers.
    fn act(&mut self, obs: &Obs, action_mask: &[bool], mode: Mode, actions: &mut Actions) -> Result<()> {
        let Actions::Discrete(actions) = actions else { panic!("actions of another space than the network's") };
        match mode {
            Mode::Sample => self.explore(obs, action_mask, actions),
            Mode::Greedy => {
                self.network.disable_noise();
                self.select_greedy(obs, action_mask, actions);
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

    fn export(&self, graph: &mut Graph, obs: Value) -> Result<()> {
        self.network.export(graph, obs, self.values.support().as_deref())
    }

    fn seed(&mut self, seed: u64) {
        self.rng = Rng::seed_from_u64(seed);
    }
}
