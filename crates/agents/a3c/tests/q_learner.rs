//! The three Q-learning methods against plain loops over a rollout, and the distribution of the exploration rates.

use playfield_a3c::learner::Learner;
use playfield_a3c::q_learner::{Explorer, QLearner, Target};
use playfield_a3c::{Config, Exploration, Method};
use playfield_core::graph::Graph;
use playfield_core::rng::stream;
use playfield_core::{
    ActionSpace, Actions, Dtype, EnvSpec, FrameStack, Mode, Obs, Policy, Rollout, RolloutPolicy as _, Snapshot,
    StepBatch,
};
use playfield_nn::NetworkConfig;
use playfield_nn::params::to_vec;
use std::sync::Arc;

const ENVS: usize = 2;
const STEPS: usize = 4;
const GAMMA: f32 = 0.9;

fn spec() -> EnvSpec {
    let actions = ActionSpace::Discrete { n: 3 };
    EnvSpec::new("test", &[2], Dtype::F32, actions)
}

fn learner(method: Method, target: &Arc<Target>) -> QLearner {
    let exploration =
        Exploration { anneal_steps: 0, final_epsilons: vec![0.0], probabilities: vec![1.0], ..Default::default() };
    let network = NetworkConfig { hidden: vec![], ..NetworkConfig::default() };
    let config = Config { method, exploration, network, ..Config::default() };
    QLearner::new(&config, &spec(), &mut stream(1, "init"), stream(2, "actions"), target.clone()).unwrap()
}

/// Q(s, ·) of the linear network whose parameters are `[weights 3 × 2, …, biases 3, …]` at the given offsets.
fn values(params: &[f32], s: &[f32]) -> [f32; 3] {
    // Segments are aligned to 64 bytes of bf16: the bias begins 32 elements after the weight.
    [0, 1, 2].map(|a| params[2 * a] * s[0] + params[2 * a + 1] * s[1] + params[32 + a])
}

fn max(values: [f32; 3]) -> (usize, f32) {
    values.into_iter().enumerate().fold((0, f32::MIN), |best, (a, v)| if v > best.1 { (a, v) } else { best })
}

/// Environment 0 terminates at step 1, environment 1 is truncated at step 2.
#[test]
fn an_update_equals_plain_loops() {
    for method in [Method::NStepQ, Method::OneStepQ, Method::OneStepSarsa] {
        let target = Arc::new(Target::default());
        let mut learner = learner(method, &target);
        let online = to_vec(learner.params().master());
        let old: Vec<f32> = online.iter().enumerate().map(|(i, p)| p * -0.5 - 0.1 * (i % 3) as f32).collect();
        target.update(old.clone());
        learner.begin_rollout(0);
        let greedy = [&online, &old].map(|params| max(values(params, &[0.7, -0.4])).0);
        assert_ne!(greedy[0], greedy[1], "a Sarsa target after the last observation is no maximum");

        let s = |t: usize, i: usize| [0.3 * t as f32 - 0.5 * i as f32, 1.0 - 0.2 * t as f32];
        let last = [0.7, -0.4];
        let observed = |t: usize| Obs::F32((0..ENVS).flat_map(|i| s(t, i)).collect());
        let reward = |t: usize, i: usize| (t as f32 - 1.0) * 0.5 + i as f32;
        let action = |t: usize, i: usize| (t + 2 * i) % 3;
        let (mut history, mut batch) = (FrameStack::new(&spec(), ENVS), StepBatch::new(&spec(), ENVS));
        let mut rollout = Rollout::new(&spec(), ENVS, STEPS, f64::from(GAMMA));
        batch.obs = observed(0);
        history.reset(&batch);
        for t in 0..STEPS {
            rollout.store_observations(0, &history);
            batch.clear();
            batch.obs = observed(t + 1);
            batch.reward = (0..ENVS).map(|i| reward(t, i)).collect();
            batch.terminated[0] = t == 1;
            batch.truncated[1] = t == 2;
            batch.final_obs_row_mut(1).copy_from(Obs::F32(last.to_vec()).as_ref());
            history.push(&batch);
            let actions = Actions::Discrete((0..ENVS).map(|i| action(t, i) as i64).collect());
            rollout.record(0, &actions, &batch, |i| learner.final_value(history.final_observation(i), &[], i));
        }
        rollout.store_observations(0, &history);
        let report = learner.compute_gradients(&rollout, 0).unwrap()();

        let (mut loss, mut gradient) = (0.0, vec![0.0; online.len()]);
        for i in 0..ENVS {
            let mut following = max(values(&old, &s(STEPS, i))).1;
            for t in (0..STEPS).rev() {
                let ended = (i == 0 && t == 1) || (i == 1 && t == 2);
                let next = match method {
                    // ε is 0: the last action of Sarsa is the greedy one of the online network.
                    Method::OneStepSarsa if t + 1 == STEPS => {
                        values(&old, &s(STEPS, i))[max(values(&online, &s(STEPS, i))).0]
                    }
                    Method::OneStepSarsa => values(&old, &s(t + 1, i))[action(t + 1, i)],
                    Method::OneStepQ => max(values(&old, &s(t + 1, i))).1,
                    _ => following,
                };
                let cut = match method {
                    Method::OneStepSarsa => values(&old, &last)[max(values(&online, &last)).0],
                    _ => max(values(&old, &last)).1,
                };
                let next = if !ended {
                    next
                } else if i == 1 {
                    cut
                } else {
                    0.0
                };
                following = reward(t, i) + GAMMA * next;
                let (a, seen) = (action(t, i), s(t, i));
                let error = following - values(&online, &seen)[a];
                loss += 0.5 * error * error / ENVS as f32;
                for (at, x) in [(2 * a, seen[0]), (2 * a + 1, seen[1]), (32 + a, 1.0)] {
                    gradient[at] -= error * x / ENVS as f32;
                }
            }
        }
        assert_eq!(report[0].0, "train/loss");
        assert!((report[0].1 - f64::from(loss)).abs() < 1e-5, "{method:?}: {report:?}, {loss}");
        for (actual, expected) in to_vec(&learner.params().gradient()).iter().zip(&gradient) {
            assert!((actual - expected).abs() < 1e-5, "{method:?}: {actual}, {expected}");
        }
        // The next action equals the one that the last Sarsa target used.
        let mut actions = Actions::Discrete(vec![9; ENVS]);
        learner.act(history.observations(), &[], Mode::Sample, &mut actions).unwrap();
        let best: Vec<_> = (0..ENVS).map(|i| max(values(&online, &s(STEPS, i))).0 as i64).collect();
        assert_eq!(actions, Actions::Discrete(best));
    }
}

/// The frequencies of the final ε over 20,000 threads are within 4 standard deviations of their probabilities.
#[test]
fn final_epsilons_have_the_published_probabilities() {
    let (law, n) = (Exploration::default(), 20_000);
    let mut counts = [0; 3];
    for i in 0..n {
        let rng = &mut stream(i, "actions");
        let mut explorer = Explorer::new(law.clone(), rng);
        assert_eq!(explorer.at(0, rng), 1.0);
        let end = explorer.at(1_000_000, rng);
        assert!((explorer.at(250_000, rng) - (0.75 + 0.25 * end)).abs() < 1e-12, "a quarter of the way");
        assert_eq!(explorer.at(40_000_000, rng), end);
        counts[law.final_epsilons.iter().position(|&e| e == end).unwrap()] += 1;
    }
    for (count, p) in counts.iter().zip(&law.probabilities) {
        let (expected, deviation) = (n as f64 * p, (n as f64 * p * (1.0 - p)).sqrt());
        assert!((f64::from(*count) - expected).abs() < 4.0 * deviation, "{counts:?}");
    }
}

/// ε is uniform in the range and resampled every `resample_steps` steps.
#[test]
fn epsilon_is_resampled_from_a_range() {
    let law = Exploration { range: vec![0.2, 0.6], resample_steps: 100, ..Exploration::default() };
    let rng = &mut stream(3, "actions");
    let mut explorer = Explorer::new(law, rng);
    let epsilons: Vec<f64> = (0..40_000).step_by(50).map(|steps| explorer.at(steps, rng)).collect();
    assert!(epsilons.iter().all(|e| (0.2..=0.6).contains(e)));
    for pair in epsilons.chunks_exact(2) {
        assert_eq!(pair[0], pair[1], "constant between two samples");
    }
    let means: f64 = epsilons.iter().sum::<f64>() / epsilons.len() as f64;
    assert!((means - 0.4).abs() < 0.03, "{means}");
    let below = epsilons.iter().filter(|&&e| e < 0.3).count() as f64 / epsilons.len() as f64;
    assert!((below - 0.25).abs() < 0.08, "{below}");
    let mut distinct: Vec<_> = epsilons.iter().map(|e| e.to_bits()).collect();
    distinct.dedup();
    assert_eq!(distinct.len(), 400);
}

/// Actions 0 and 2 are valid in even rows, 1 and 2 in odd ones. In evaluation each valid action is sampled with ε/2 beside the best one.
#[test]
fn the_policy_is_greedy_or_explores_among_valid_actions() {
    let exploration = Exploration { evaluation: 0.4, ..Exploration::default() };
    let network = NetworkConfig { hidden: vec![], ..NetworkConfig::default() };
    let config = Config { method: Method::OneStepQ, exploration, network, ..Config::default() };
    let target = Arc::new(Target::default());
    let mut policy = QLearner::new(&config, &spec(), &mut stream(1, "init"), stream(2, "actions"), target)
        .unwrap()
        .into_evaluation_policy();
    let n = 8_000;
    let obs = Obs::F32([0.4, -0.9].repeat(n));
    let mask: Vec<bool> =
        (0..n).flat_map(|i| if i % 2 == 0 { [true, false, true] } else { [false, true, true] }).collect();
    let choose = |policy: &mut QLearner, mode| {
        let mut actions = Actions::Discrete(vec![0; n]);
        policy.act(&obs, &mask, mode, &mut actions).unwrap();
        let Actions::Discrete(actions) = actions else { unreachable!() };
        assert!(actions.iter().enumerate().all(|(i, &a)| mask[3 * i + a as usize]), "an invalid action");
        actions
    };
    let q = values(&to_vec(policy.params().master()), &[0.4, -0.9]);
    let best = [if q[0] > q[2] { 0 } else { 2 }, if q[1] > q[2] { 1 } else { 2 }];
    let greedy = choose(&mut policy, Mode::Greedy);
    assert!(greedy.iter().enumerate().all(|(i, &a)| a == best[i % 2]), "{q:?}");
    policy.seed(5);
    let sampled = choose(&mut policy, Mode::Sample);
    let share = sampled.iter().zip(&greedy).filter(|(a, b)| a == b).count() as f64 / n as f64;
    assert!((share - 0.8).abs() < 0.02, "{share}");
    assert_ne!(choose(&mut policy, Mode::Sample), sampled);
    policy.seed(5);
    assert_eq!(choose(&mut policy, Mode::Sample), sampled);
}

/// The random stream, the sampled ε and Sarsa's next actions are restored; without the environments' state the next actions are not.
#[test]
fn a_learner_is_restored_with_its_exploration() {
    let network = NetworkConfig { hidden: vec![], ..NetworkConfig::default() };
    let config = Config { method: Method::OneStepSarsa, network, ..Config::default() };
    let target = Arc::new(Target::default());
    let new = |seed| {
        QLearner::new(&config, &spec(), &mut stream(1, "init"), stream(seed, "actions"), target.clone()).unwrap()
    };
    let (mut learner, mut saved) = (new(2), Snapshot::default());
    target.update(to_vec(learner.params().master()));
    learner.begin_rollout(1_000_000);
    let last = learner.epsilon().unwrap();
    assert!(Exploration::default().final_epsilons.contains(&last), "{last}");
    learner.save(&mut saved);
    let choose = |learner: &mut QLearner| {
        let mut actions = Actions::Discrete(vec![0; 40]);
        learner.act(&Obs::F32([0.4, -0.9].repeat(40)), &[], Mode::Sample, &mut actions).unwrap();
        actions
    };
    let expected = choose(&mut learner);
    // Of ten other streams one at least has sampled another ε.
    for seed in 3..13 {
        let mut restored = new(seed);
        restored.load(&saved, true).unwrap();
        restored.begin_rollout(1_000_000);
        assert_eq!((restored.epsilon(), choose(&mut restored)), (Some(last), expected.clone()));
    }
    let next = vec![2_i64; 40];
    saved.put("next_actions", &Some(&next));
    for (restored, is_next) in [(true, true), (false, false)] {
        let mut learner = new(2);
        learner.load(&saved, restored).unwrap();
        assert_eq!(choose(&mut learner) == Actions::Discrete(next.clone()), is_next);
    }
    saved.put("next_actions", &Some(vec![0_i64, 2]));
    new(2).load(&saved, true).unwrap();
    for wrong in [3_i64, -1] {
        saved.put("next_actions", &Some(vec![2, wrong]));
        let message = new(2).load(&saved, true).unwrap_err().to_string();
        assert!(message.contains("of another environment"), "{message}");
    }
}

/// Sarsa's next action is used once: when the same number of environments is sampled for next.
#[test]
fn the_next_actions_are_used_only_by_the_next_sample() {
    let config = Config {
        method: Method::OneStepSarsa,
        exploration: Exploration { evaluation: 0.0, ..Exploration::default() },
        network: NetworkConfig { hidden: vec![], ..NetworkConfig::default() },
        ..Config::default()
    };
    let new = || QLearner::new(&config, &spec(), &mut stream(1, "init"), stream(2, "actions"), Arc::default()).unwrap();
    let q = values(&to_vec(new().params().master()), &[0.4, -0.9]);
    let best = max(q).0 as i64;
    let next = (best + 1) % 3;
    let mut saved = Snapshot::default();
    new().save(&mut saved);
    saved.put("next_actions", &Some(vec![next; 2]));
    let loaded = || {
        let mut learner = new();
        learner.load(&saved, true).unwrap();
        learner
    };
    let act = |policy: &mut dyn Policy, mode, n: usize| {
        let mut actions = Actions::Discrete(vec![9; n]);
        policy.act(&Obs::F32([0.4, -0.9].repeat(n)), &[], mode, &mut actions).unwrap();
        let Actions::Discrete(actions) = actions else { unreachable!() };
        actions
    };
    let mut learner = loaded();
    let (sampled, mut actions) = (vec![next; 2], Actions::Discrete(vec![9; 2]));
    let mut rollout = Rollout::new(&spec(), 2, 1, 0.9);
    let obs = Obs::F32([0.4, -0.9].repeat(2));
    learner.sample(&obs, &[], &mut actions, rollout.decisions(0, 2)).unwrap();
    assert_eq!(actions, Actions::Discrete(sampled));
    assert_eq!(act(&mut loaded(), Mode::Greedy, 2), [best; 2]);
    assert_eq!(act(&mut loaded(), Mode::Sample, 5).len(), 5);
    assert_eq!(act(&mut loaded().into_evaluation_policy(), Mode::Sample, 2), [best; 2], "its ε is 0");
    assert_eq!(act(&mut *loaded().evaluation_policy(), Mode::Sample, 2), [best; 2]);
}

#[test]
fn a_policy_reports_its_values_and_is_exported() {
    let mut learner = learner(Method::OneStepQ, &Arc::default());
    let q = values(&to_vec(learner.params().master()), &[0.4, -0.9]);
    let outputs = learner.outputs(&Obs::F32(vec![0.4, -0.9]), 1).unwrap();
    assert!(outputs.are_values && outputs.values.len() == 1);
    assert!(outputs.preferences.iter().zip(q).all(|(a, b)| (a - b).abs() < 1e-6) && outputs.preferences.len() == 3);
    let mut graph = Graph::default();
    let input = graph.input("obs", Dtype::F32, &[2]);
    learner.export(&mut graph, input).unwrap();
    assert!(!graph.outputs().is_empty());
}

/// Only Q-learning explores by ε.
#[test]
fn an_actor_critic_has_no_epsilon() {
    for (method, has_epsilon) in [(Method::ActorCritic, false), (Method::NStepQ, true)] {
        let network = NetworkConfig { hidden: vec![], ..NetworkConfig::default() };
        let config = Config { method, network, ..Config::default() };
        let learner = playfield_a3c::learner::learner(&config, &spec(), 1, 1, stream(2, "actions"), &Arc::default());
        assert_eq!(learner.unwrap().epsilon().is_some(), has_epsilon);
    }
}
