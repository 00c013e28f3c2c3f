//! An actor and a critic: what A3C and PAAC share.
//!
//! Both act by a policy, remember a [`Rollout`](playfield_core::Rollout), and follow the gradient of one loss. They differ
//! in who plays, who waits for whom, and where the parameters lie: those are their own crates.

use playfield_core::rng::Rng;
use playfield_core::{Actions, Mode, Obs, ObsRef, Outputs, Policy, Result, Rollout, Snapshot};
use playfield_losses::{policy_gradient as pg, returns};
use playfield_nn::params::to_vec;
use playfield_nn::{ActorCritic, Distribution, Pass, RecurrentState};
use rand::SeedableRng;
use tch::{Kind, Tensor};

/// How the parts of the loss are made and weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// λ of generalized advantage estimation; 1: plain n-step returns.
    pub gae_lambda: f64,
    /// Weight of the policy's entropy.
    pub entropy_coefficient: f64,
    /// Weight of the squared error of the value.
    pub value_coefficient: f64,
    /// Whether the loss sums over a rollout's steps (and averages over environments) or averages over both.
    pub sum_over_time: bool,
    /// Whether advantages are scaled to mean 0 and deviation 1 over a batch.
    pub normalize_advantage: bool,
}

/// The parts of one update's loss, before weighting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// The whole, weighted.
    pub loss: f64,
    /// mean(−log π·A).
    pub policy_loss: f64,
    /// mean((G − V)²).
    pub value_loss: f64,
    /// −mean(H), as Stable-Baselines3 reports it.
    pub entropy_loss: f64,
    /// 1 − Var(G − V)/Var(G).
    pub explained_variance: f64,
}

impl Losses {
    /// As rows of a log.
    pub fn report(&self) -> [(&'static str, f64); 5] {
        [
            ("train/loss", self.loss),
            ("train/policy_loss", self.policy_loss),
            ("train/value_loss", self.value_loss),
            ("train/entropy_loss", self.entropy_loss),
            ("train/explained_variance", self.explained_variance),
        ]
    }
}

/// A network that plays `n` environments: with what it remembers of each, and its random stream.
#[derive(Debug)]
pub struct Player {
    /// The network.
    pub net: ActorCritic,
    /// Of a recurrent network: after the last observation that was acted on.
    memory: RecurrentState,
    /// The same where the rollout under way began.
    start: RecurrentState,
    rng: Rng,
}

impl Player {
    /// A player of `n` environments that all start now.
    pub fn new(net: ActorCritic, n: usize, rng: Rng) -> Self {
        Self { memory: net.initial_state(n), start: net.initial_state(n), net, rng }
    }

    /// Every environment starts an episode now: nothing is remembered of what came before.
    pub fn restart(&mut self) {
        self.memory = self.net.initial_state(self.memory.sequences());
        self.start = self.memory.shallow_clone();
    }

    /// The value of the last observation of an episode that was cut in environment `i`: to be asked before
    /// [`reset_states`](Policy::reset_states) makes the player forget that episode.
    pub fn final_value(&mut self, obs: ObsRef<'_>, i: usize) -> f32 {
        let memory = self.memory.row(i);
        to_vec(&self.net.forward_from(&memory, &[], obs, 1, Pass::Infer).1)[0]
    }

    /// Sets the network's gradient to that of the loss on a full rollout, at whose end the player stands.
    pub fn learn(&mut self, rollout: &Rollout, objective: &Objective) -> Losses {
        let (o, n, net) = (objective, rollout.envs(), &mut self.net);
        // What a recurrent network remembers is not moved on by looking ahead.
        let bootstrap = net.forward_from(&self.memory, &[], rollout.last(), n, Pass::Infer).1;
        let (s_tm1, all) = (rollout.s_tm1(), rollout.capacity());
        let (policy, value, _) = net.forward_from(&self.start, rollout.resets(), s_tm1, all, Pass::Train);
        let column = |v: &[f32]| Tensor::from_slice(v).view([-1, n as i64]).to_device(bootstrap.device());
        let (r_t, discount_t) = (column(rollout.r_t()), column(rollout.discount_t()));

        let v_tm1 = value.detach().view([-1, n as i64]);
        let advantage = match o.gae_lambda {
            1.0 => returns::n_step(&r_t, &discount_t, &bootstrap) - &v_tm1,
            lambda => returns::gae(&r_t, &discount_t, &v_tm1, &bootstrap, lambda),
        };
        let g = (&advantage + &v_tm1).flatten(0, 1);
        let mut advantage = advantage.flatten(0, 1);
        if o.normalize_advantage {
            advantage = (&advantage - advantage.mean(Kind::Float)) / (advantage.std(false) + 1e-8);
        }
        if rollout.forced().contains(&true) {
            // What a wrapper did in the policy's place says nothing of the policy.
            let chosen: Vec<f32> = rollout.forced().iter().map(|&forced| if forced { 0.0 } else { 1.0 }).collect();
            advantage *= Tensor::from_slice(&chosen).to_device(advantage.device());
        }
        let entropy = policy.entropy();
        let policy_loss = pg::policy_loss(&policy.log_prob(rollout.actions()), &advantage);
        let value_loss = pg::value_loss(&value, &g);
        let scale = if o.sum_over_time { (rollout.capacity() / n) as f64 } else { 1.0 };
        let loss = (&policy_loss - &entropy * o.entropy_coefficient + &value_loss * o.value_coefficient) * scale;
        self.net.backward(&loss);
        self.start = self.memory.shallow_clone();
        Losses {
            loss: loss.double_value(&[]),
            policy_loss: policy_loss.double_value(&[]),
            value_loss: value_loss.double_value(&[]),
            entropy_loss: -entropy.double_value(&[]),
            explained_variance: pg::explained_variance(&value.detach(), &g),
        }
    }

    /// Writes what goes on beside the parameters: memory and random stream. To be called between two rollouts.
    pub fn save(&self, snapshot: &mut Snapshot) {
        self.memory.save(snapshot);
        self.net.dispatch().save(snapshot);
        snapshot.put("player.rng", &self.rng);
    }

    /// Takes what [`save`](Self::save) wrote. Where the environments could not be restored, their episodes start anew, and
    /// so does the memory: `with_memory` is false then.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](playfield_core::Error::Checkpoint) where it is missing or of another network.
    pub fn load(&mut self, snapshot: &Snapshot, with_memory: bool) -> Result<()> {
        self.rng = snapshot.get("player.rng")?;
        self.net.dispatch().load(snapshot)?;
        if with_memory {
            self.memory.load(snapshot)?;
            self.start = self.memory.shallow_clone();
        }
        Ok(())
    }
}

impl Policy for Player {
    fn act(&mut self, obs: &Obs, mode: Mode, actions: &mut Actions) -> Result<()> {
        if self.memory.sequences() != actions.len() {
            self.memory = self.net.initial_state(actions.len());
            self.start = self.memory.shallow_clone();
        }
        let n = actions.len();
        let (policy, _, memory) = self.net.forward_from(&self.memory, &[], obs.as_ref(), n, Pass::Infer);
        self.memory = memory;
        policy.choose(mode, &mut self.rng, actions);
        Ok(())
    }

    fn reset_states(&mut self, ended: &[bool]) {
        self.memory.reset(ended);
    }

    fn outputs(&mut self, obs: &Obs, n: usize) -> Result<Outputs> {
        if self.memory.sequences() != n {
            self.memory = self.net.initial_state(n);
        }
        let (policy, value, _, features) =
            self.net.forward_with_features(&self.memory, &[], obs.as_ref(), n, Pass::Infer);
        let preferences = match &policy {
            Distribution::Categorical(logits) => to_vec(logits),
            Distribution::Gaussian { .. } => Vec::new(),
        };
        Ok(Outputs { preferences, are_values: false, values: to_vec(&value), features: to_vec(&features) })
    }

    fn seed(&mut self, seed: u64) {
        self.rng = Rng::seed_from_u64(seed);
    }
}
