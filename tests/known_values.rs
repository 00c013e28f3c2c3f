//! Every algorithm finds the known values of a chain of five states, which needs bootstrapping, n-step returns and a target
//! network.
//!
//! ```text
//! left (stays at 0) ←  0 ─ 1 ─ 2 ─ 3 ─ 4  → right: reward 1, terminates
//! ```
//!
//! Episodes start in a random state and are truncated after eight steps. With γ = .9: Q*(s, right) = .9⁴⁻ˢ, Q*(s, left) = .9 · V*(s − 1).

use playfield::a3c::A3c;
use playfield::collect::{Collector, evaluate};
use playfield::core::algorithm::Entry;
use playfield::core::env::source;
use playfield::core::run::{Intervals, Stop};
use playfield::core::{Action, Checkpoints, Configured, EnvFactory as _, Mode, State};
use playfield::core::{
    ActionSpace, Dtype, Env, EnvConfig, EnvSpec, Error, Obs, ObsMut, Policy, Result, Run, Step, rng,
};
use playfield::dqn::Dqn;
use playfield::paac::Paac;
use playfield::ppo::Ppo;
use playfield::wrappers::Factory;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::Arc;

const STATES: usize = 5;
const GAMMA: f64 = 0.9;

struct Chain {
    spec: EnvSpec,
    state: usize,
    rng: rng::Rng,
}

impl Chain {
    fn new() -> Self {
        let actions = ActionSpace::Discrete { n: 2 };
        let spec = EnvSpec::new("Chain", &[STATES], Dtype::F32, actions);
        Self { spec, state: 0, rng: rng::stream(0, "chain") }
    }

    fn observe(&self, mut obs: ObsMut<'_>) {
        obs.f32().fill(0.0);
        if let Some(cell) = obs.f32().get_mut(self.state) {
            *cell = 1.0;
        }
    }
}

impl Env for Chain {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        if let Some(seed) = seed {
            self.rng = rng::Rng::seed_from_u64(seed);
        }
        self.state = self.rng.random_range(0..STATES);
        self.observe(obs);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let Action::Discrete(action) = action else { return Err(Error::config("discrete actions")) };
        let ends = action == 1 && self.state == STATES - 1;
        self.state = if action == 1 { self.state + 1 } else { self.state.saturating_sub(1) };
        self.observe(obs);
        Ok(Step { reward: if ends { 1.0 } else { 0.0 }, terminated: ends, ..Step::default() })
    }
}

/// V*(s).
fn value(state: usize) -> f64 {
    GAMMA.powi((STATES - 1 - state) as i32)
}

/// Q*(s, ·) for each state.
fn optimal() -> Vec<[f64; 2]> {
    (0..STATES).map(|s| [GAMMA * value(s.saturating_sub(1)), value(s)]).collect()
}

/// Merges sections: later keys replace earlier ones.
fn table(sections: &[&str]) -> toml::Table {
    sections.iter().flat_map(|text| text.parse::<toml::Table>().unwrap()).collect()
}

fn env() -> EnvConfig {
    EnvConfig { id: "Chain".into(), num_envs: 4, num_threads: 1, max_episode_steps: 8, ..EnvConfig::default() }
}

fn factory(env: EnvConfig) -> Factory {
    Factory::new(Arc::new(source(|_| Ok(Chain::new()))), env).unwrap()
}

/// The algorithm with these sections of a configuration.
fn settings(algorithm: Entry, sections: &[&str]) -> Box<dyn Configured> {
    let section = table(
        &[
            &["num_threads = 1
gamma = 0.9"],
            sections,
        ]
        .concat(),
    );
    let mut table = table(&["device = 'cpu'
network = { hidden = [32] }"]);
    table.insert(algorithm.name.into(), section.into());
    algorithm.parse(&table).unwrap()
}

/// What `algorithm` has learned after `steps` steps: the network's outputs for each state and its values.
fn learned(algorithm: Entry, steps: u64, section: &[&str], seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut run = Run::new(seed, steps);
    outputs(&mut *settings(algorithm, section).train(&factory(env()), &mut run).unwrap())
}

fn outputs(policy: &mut dyn Policy) -> (Vec<f32>, Vec<f32>) {
    let states: Vec<f32> = (0..STATES).flat_map(|s| (0..STATES).map(move |i| if i == s { 1.0 } else { 0.0 })).collect();
    let outputs = policy.outputs(&Obs::F32(states), STATES).unwrap();
    (outputs.preferences, outputs.values)
}

/// The largest difference of `q` from Q*.
fn largest_error(q: &[f32]) -> f64 {
    let distance = |(q, expected): (&f32, f64)| (f64::from(*q) - expected).abs();
    q.iter().zip(optimal().into_iter().flatten()).map(distance).fold(0.0, f64::max)
}

/// Agent steps of a run of DQN.
const STEPS: u64 = 8_000;

const DQN: &str = "target_update_interval = 100
learning_rate = 2e-3
learning_starts = 200
buffer_size = 2_000
train_interval = 4
exploration_epsilon = { start = 1.0, end = 0.1, steps = 2_000 }
sum_over_batch = false
overlap = false
optimizer = { rule = 'adam' }
";

/// The settings of each refinement.
const REFINEMENTS: &[(&str, &str)] = &[
    ("plain", ""),
    ("overlap", "overlap = true\nnum_threads = 2"),
    ("double", "double = true"),
    ("dueling", "dueling = true"),
    ("n-step", "n_step = 3\nexploration_epsilon = { start = 1.0, end = 0.04, steps = 2_000 }"),
    ("prioritized", "prioritized = true"),
    ("stratified", "prioritized = true\npriority = { stratified = true }"),
    ("by rank", "prioritized = true\npriority = { by = 'rank' }"),
    ("C51", "distribution = 'categorical'\natoms = 31\nvalue_min = -0.5\nvalue_max = 1.5"),
    ("QR", "distribution = 'quantile'\natoms = 11"),
    ("soft target", "target_update_interval = 4\ntau = 0.05"),
    ("squared", "loss = 'squared'\ngradient_clip = 10.0"),
];

/// Q* within .05 from each of three seeds, with each refinement alone: those that change the target,
#[test]
fn dqn_and_each_refinement_find_the_values_of_a_chain() {
    find_values(&REFINEMENTS[..6]);
}

/// and those that change sampling, the loss or target updates.
#[test]
fn dqn_and_further_refinements_find_the_values_of_a_chain() {
    find_values(&REFINEMENTS[6..]);
}

fn find_values(refinements: &[(&str, &str)]) {
    for (name, settings) in refinements {
        for seed in 1..=3 {
            let (q, _) = learned(Entry::of::<Dqn>(), STEPS, &[DQN, settings], seed);
            assert!(largest_error(&q) < 0.05, "{name}, seed {seed}: error {:.3}, {q:?}", largest_error(&q));
        }
    }
}

/// Exploration by noisy layers alone: the greedy actions are correct, and their values within .05.
#[test]
fn noisy_networks_and_rainbow_find_the_best_values_of_a_chain() {
    let rainbow = "double = true\ndueling = true\nn_step = 3\nprioritized = true\ndistribution = 'categorical'\natoms = 31\nvalue_min = -0.5\nvalue_max = 1.5\n";
    for (name, settings) in [("noisy", ""), ("Rainbow", rainbow)] {
        for seed in 1..=3 {
            let (q, values) = learned(Entry::of::<Dqn>(), STEPS, &[DQN, settings, "noisy_sigma = 0.5"], seed);
            for (s, (q, found)) in q.as_chunks::<2>().0.iter().zip(values).enumerate() {
                assert!(q[1] > q[0], "{name}, seed {seed}, state {s}: {q:?}");
                assert!((f64::from(found) - value(s)).abs() < 0.05, "{name}, seed {seed}, state {s}: {found}");
            }
        }
    }
}

/// One thread, so that the seed determines the run. Sarsa's values are those of its ε-greedy policy, and approach Q* as ε falls.
#[test]
fn asynchronous_methods_find_the_values_of_a_chain() {
    for (method, tolerance) in [("n_step_q", 0.05), ("one_step_q", 0.05), ("one_step_sarsa", 0.08)] {
        for seed in 1..=3 {
            let section = format!(
                "method = '{method}'\nlearning_rate.start = 2e-3\ntarget_update_interval = 200\nsum_over_time = false\n\
                 exploration = {{ final_epsilons = [0.1], probabilities = [1.0], anneal_steps = 10_000 }}\n\
                 optimizer = {{ rule = 'adam' }}"
            );
            let (q, _) = learned(Entry::of::<A3c>(), 20_000, &[&section], seed);
            assert!(largest_error(&q) < tolerance, "{method}, seed {seed}: error {:.3}, {q:?}", largest_error(&q));
        }
    }
}

/// V of the learned policy, which is the optimal one: .9⁴⁻ˢ, and π(right) above .95 in every state.
#[test]
fn actor_critics_find_policy_and_values_of_a_chain() {
    const ONE_UPDATE: &str = "rollout_steps = 5\nsum_over_time = false\nlearning_rate.start = 5e-3";
    const EPOCHS: &str =
        "rollout_steps = 32\nminibatch_size = 64\nepochs = 4\nclip_range = 0.2\nvalue_clip_range = 0.5";
    for (algorithm, own) in
        [(Entry::of::<Paac>(), ONE_UPDATE), (Entry::of::<A3c>(), ONE_UPDATE), (Entry::of::<Ppo>(), EPOCHS)]
    {
        for (gae_lambda, seed) in [(1.0, 1), (1.0, 2), (0.9, 3)] {
            let section = format!(
                "{own}\ngae_lambda = {gae_lambda}\nentropy_coefficient = 0.0\nvalue_coefficient = 0.5\n\
                 gradient_clip = 0.5\noptimizer = {{ rule = 'adam' }}"
            );
            let (logits, values) = learned(algorithm, 40_000, &[&section], seed);
            for (s, (logits, found)) in logits.as_chunks::<2>().0.iter().zip(values).enumerate() {
                let right = 1.0 / (1.0 + (logits[0] - logits[1]).exp());
                assert!(right > 0.95, "{}, seed {seed}, state {s}: π(right) = {right}", algorithm.name);
                let error = (f64::from(found) - value(s)).abs();
                assert!(error < 0.05, "{}, seed {seed}, state {s}: V = {found}, not {}", algorithm.name, value(s));
            }
        }
    }
}

/// With normalized observations and rewards the replay buffer holds raw values, and the best actions are found.
#[test]
fn dqn_finds_the_best_actions_of_a_chain_with_normalized_observations_and_rewards() {
    let env = EnvConfig { normalize_obs: true, normalize_reward: true, normalize_gamma: GAMMA, ..env() };
    for seed in 1..=3 {
        let factory = factory(env.clone());
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path(), 1);
        let mut run = Run::new(seed, STEPS).with_checkpoints(checkpoints.clone(), Intervals::default());
        let mut policy = settings(Entry::of::<Dqn>(), &[DQN]).train(&factory, &mut run).unwrap();
        let statistics: State = checkpoints.latest().unwrap().snapshot.get("env.statistics").unwrap();
        let mut env = factory.vec(&[1]).unwrap();
        env.load_statistics(&statistics, true).unwrap();
        let mut collector = Collector::new(env, None).unwrap();
        let ends = evaluate(&mut collector, &mut *policy, Mode::Greedy, 20, &Stop::default(), || {});
        // Whatever it starts from, five steps lead to the end.
        let steps: Vec<u64> = ends.unwrap().iter().map(|end| end.length).collect();
        assert!(steps.iter().all(|&length| length <= 5), "seed {seed}: {steps:?}");
    }
}
