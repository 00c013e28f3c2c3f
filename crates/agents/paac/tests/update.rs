//! One update against PyTorch (`golden/update.py`) for each form of the loss, on a rollout with a termination, a lost life and a
//! truncation: losses, gradient norm and parameters.

use playfield_core::{
    ActionSpace, Actions, Array, Dtype, EnvSpec, FrameStack, Mode, Obs, ObsRef, Persist as _, Policy, Rollout,
    RolloutPolicy as _, Schedule, Snapshot, StepBatch,
};
use playfield_nn::NetworkConfig;
use playfield_nn::config::Precision;
use playfield_nn::optim::{Adam, RmsProp, Rule};
use playfield_paac::Config;
use playfield_paac::learner::Learner;
use serde::Deserialize;
use std::collections::BTreeMap;

const ENVS: usize = 3;
const STEPS: usize = 4;

#[derive(Deserialize)]
struct Case {
    name: String,
    continuous: bool,
    gae_lambda: f64,
    sum_over_time: bool,
    normalize_advantage: bool,
    rule: Rule,
    obs: Vec<f32>,
    last: Vec<f32>,
    #[serde(rename = "final")]
    final_obs: Vec<f32>,
    actions: Vec<f32>,
    reward: Vec<f32>,
    before: BTreeMap<String, Vec<f32>>,
    after: BTreeMap<String, Vec<f32>>,
    losses: [f64; 6],
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("golden/update.json")).unwrap()
}

fn spec(continuous: bool) -> EnvSpec {
    let actions = match continuous {
        true => ActionSpace::Box { low: vec![-9.0], high: vec![9.0] },
        false => ActionSpace::Discrete { n: 3 },
    };
    EnvSpec::new("test", &[2], Dtype::F32, actions)
}

fn config(case: &Case) -> Config {
    let optimizer = match case.rule {
        Rule::RmsProp => RmsProp { eps_inside_root: false, initial_square: 0.0, ..RmsProp::tensorflow() }.into(),
        Rule::Adam => Adam { eps: 1e-5, ..Adam::default() }.into(),
        rule => panic!("no golden case of {rule:?}"),
    };
    Config {
        rollout_steps: STEPS,
        learning_rate: Schedule::constant(0.01),
        gamma: 0.9,
        gae_lambda: case.gae_lambda,
        sum_over_time: case.sum_over_time,
        normalize_advantage: case.normalize_advantage,
        gradient_clip: 0.5,
        num_threads: 1,
        optimizer,
        network: NetworkConfig { hidden: vec![5], precision: Precision::Fp32, ..NetworkConfig::default() },
        device: "cpu".into(),
        ..Config::default()
    }
}

fn learner(case: &Case) -> Learner {
    let mut learner = Learner::new(&config(case), &spec(case.continuous), ENVS, 1).unwrap();
    let mut snapshot = Snapshot::default();
    learner.save(&mut snapshot).unwrap();
    for (name, array) in &mut snapshot.params {
        *array = Array::new(&array.shape, &case.before[name]);
    }
    learner.load(&snapshot, false).unwrap();
    learner
}

/// The episodes of the golden file: environment 0 terminates at step 1, environment 1 is truncated at step 2. With `life_lost`,
/// environment 0 loses a life instead.
fn rollout(case: &Case, learner: &mut Learner, life_lost: bool) -> (Rollout, Obs) {
    rollout_of(case, learner, life_lost, false, false)
}

/// With `forced`, every action is marked as replaced by a wrapper, with the same action. With `ignored`, environment 0 ignores its action
/// in step 2.
fn rollout_of(case: &Case, learner: &mut Learner, life_lost: bool, forced: bool, ignored: bool) -> (Rollout, Obs) {
    let spec = spec(case.continuous);
    let mut rollout = Rollout::new(&spec, ENVS, STEPS, 0.9);
    let mut history = FrameStack::new(&spec, ENVS);
    let mut batch = StepBatch::new(&spec, ENVS);
    let rows = |t: usize| if t < STEPS { &case.obs[t * ENVS * 2..(t + 1) * ENVS * 2] } else { &case.last };
    batch.obs = Obs::F32(rows(0).to_vec());
    history.reset(&batch);
    for t in 0..STEPS {
        rollout.store_observations(0, &history);
        batch.clear();
        batch.obs = Obs::F32(rows(t + 1).to_vec());
        batch.reward.copy_from_slice(&case.reward[t * ENVS..(t + 1) * ENVS]);
        match life_lost {
            true => batch.life_lost[0] = t == 1,
            false => batch.terminated[0] = t == 1,
        }
        batch.truncated[1] = t == 2;
        batch.final_obs_row_mut(1).copy_from(ObsRef::F32(&case.final_obs));
        let actions = &case.actions[t * ENVS..(t + 1) * ENVS];
        let actions = match case.continuous {
            true => Actions::Continuous { values: actions.to_vec(), dim: 1 },
            false => Actions::Discrete(actions.iter().map(|&a| a as i64).collect()),
        };
        if let (true, Actions::Discrete(actions)) = (forced, &actions) {
            batch.forced = actions.iter().map(|&a| Some(a)).collect();
        }
        if ignored && t == 2 {
            batch.set_ignored(0);
        }
        history.push(&batch);
        rollout.record(0, &actions, &batch, |i| learner.actor.final_value(history.final_observation(i), &[], i));
    }
    rollout.store_observations(0, &history);
    (rollout, history.observations().clone())
}

fn close(name: &str, actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 2e-6 * expected.abs().max(1.0), "{name}: {actual}, PyTorch has {expected}");
}

fn check(case: &Case, life_lost: bool) {
    let mut learner = learner(case);
    let (rollout, _) = rollout(case, &mut learner, life_lost);
    let report = learner.update(&rollout, 0).unwrap().report();
    for ((tag, actual), expected) in report.iter().zip(case.losses) {
        close(&format!("{}, {tag}", case.name), *actual, expected);
    }
    assert_eq!(report[5].0, "train/grad_norm");
    let mut snapshot = Snapshot::default();
    learner.save(&mut snapshot).unwrap();
    for (name, array) in &snapshot.params {
        for (actual, expected) in array.values::<f32>().unwrap().iter().zip(&case.after[name]) {
            close(&format!("{}, {name}", case.name), f64::from(*actual), f64::from(*expected));
        }
    }
}

#[test]
fn an_update_equals_pytorch() {
    assert_eq!(cases().len(), 5);
    for case in cases() {
        check(&case, false);
    }
}

/// A replaced action contributes to the value loss but not to the policy gradient.
#[test]
fn a_replaced_action_has_no_policy_gradient() {
    let cases = cases();
    let case = cases.iter().find(|case| !case.continuous).unwrap();
    let gradient = |forced| {
        let config = Config { entropy_coefficient: Schedule::constant(0.0), ..config(case) };
        let mut learner = Learner::new(&config, &spec(false), ENVS, 1).unwrap();
        let (rollout, _) = rollout_of(case, &mut learner, false, forced, false);
        learner.actor.compute_gradients(&rollout, &config.objective(0)).unwrap();
        let params = &learner.actor.net.params;
        params.named(&params.gradient())
    };
    let size = |gradient: &std::collections::BTreeMap<String, Array>, name: &str| {
        gradient[name].values::<f32>().unwrap().iter().map(|x| x.abs()).sum::<f32>()
    };
    let (chosen, forced) = (gradient(false), gradient(true));
    assert!(size(&chosen, "policy.weight") > 1e-3);
    assert_eq!(size(&forced, "policy.weight"), 0.0);
    assert_eq!(forced["value.weight"], chosen["value.weight"]);
}

/// The observation, action and reward of an ignored step change no gradient, in a feed-forward network and in a recurrent one.
#[test]
fn an_ignored_step_has_no_gradient() {
    for case in &mut cases() {
        let gradient = |case: &Case, ignored| {
            let mut learner = learner(case);
            let (rollout, _) = rollout_of(case, &mut learner, false, false, ignored);
            learner.actor.compute_gradients(&rollout, &config(case).objective(0)).unwrap();
            let params = &learner.actor.net.params;
            params.named(&params.gradient())
        };
        let before = [true, false].map(|ignored| gradient(case, ignored));
        case.obs[2 * ENVS * 2] += 1.0;
        case.actions[2 * ENVS] = 1.0 - case.actions[2 * ENVS];
        case.reward[2 * ENVS] += 1.0;
        assert_eq!(gradient(case, true), before[0], "{}", case.name);
        assert!(gradient(case, false) != before[1] && before[0] != before[1], "{}", case.name);
    }
}

/// An update uses the learning rate and entropy coefficient at its step.
#[test]
fn schedules_are_read_at_the_step_of_the_update() {
    let case = &cases()[2];
    let learning_rate = Schedule::linear(0.4, 0.1, 100);
    let entropy_coefficient = Schedule::linear(0.02, 0.0, 200);
    let config = Config { learning_rate, entropy_coefficient, ..config(case) };
    assert_eq!([0, 50, 200].map(|step| config.objective(step).entropy_coefficient), [0.02, 0.015, 0.0]);
    let mut learner = Learner::new(&config, &spec(case.continuous), ENVS, 1).unwrap();
    let (rollout, _) = rollout(case, &mut learner, false);
    assert_eq!(
        [0, 50, 100, 200].map(|step| learner.update(&rollout, step).unwrap().learning_rate),
        [0.4, 0.25, 0.1, 0.1]
    );
}

/// A lost life ends the episode for the learner as a termination does.
#[test]
fn a_lost_life_counts_as_a_termination() {
    for case in cases() {
        check(&case, true);
    }
}

/// Equal seeds give equal actions and parameters bit for bit, and a resumed learner equals an uninterrupted one.
#[test]
fn equal_seeds_and_resumed_learners_are_equal_bit_for_bit() {
    let case = &cases()[2];
    let make = |seed| Learner::new(&config(case), &spec(false), ENVS, seed).unwrap();
    let advance = |learner: &mut Learner| {
        let (rollout, last) = rollout(case, learner, false);
        learner.update(&rollout, 0).unwrap();
        let mut actions = Actions::Discrete(vec![0; ENVS]);
        learner.actor.act(&last, &[], Mode::Sample, &mut actions).unwrap();
        let mut snapshot = Snapshot::default();
        learner.save(&mut snapshot).unwrap();
        (actions, snapshot)
    };
    let (mut a, mut b) = (make(4), make(4));
    let first = advance(&mut a);
    assert_eq!(first, advance(&mut b));
    assert_ne!(first.1.params, advance(&mut make(5)).1.params);
    let mut resumed = make(6);
    resumed.load(&first.1, true).unwrap();
    assert_eq!(advance(&mut a), advance(&mut resumed));
    assert_eq!(a.updates(), 2);
}
