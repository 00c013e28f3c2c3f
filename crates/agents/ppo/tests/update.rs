//! The updates from one rollout against PyTorch (`golden/update.py`) for each form of the loss, on a rollout with a termination, a
//! lost life and a truncation: losses, gradient norms and parameters. Recurrent minibatches against whole rollouts.

use playfield_actor_critic::Actor;
use playfield_core::algorithm::Algorithm as _;
use playfield_core::{
    ActionSpace, Actions, Array, Dtype, EnvSpec, Error, FrameStack, Obs, ObsRef, Persist as _, Rollout,
    RolloutPolicy as _, Schedule, Snapshot, StepBatch, rng,
};
use playfield_nn::config::{Kernels, NormKind, Precision};
use playfield_nn::optim::Sgd;
use playfield_nn::{EvaluatedActions, NetworkConfig};
use playfield_ppo::learner::Learner;
use playfield_ppo::{Config, Ppo};
use serde::Deserialize;
use std::collections::BTreeMap;

const ENVS: usize = 3;
const STEPS: usize = 4;

#[derive(Deserialize)]
struct Case {
    name: String,
    continuous: bool,
    normalize_advantage: bool,
    value_clip_range: f64,
    order: Vec<Vec<Vec<usize>>>,
    obs: Vec<f32>,
    last: Vec<f32>,
    #[serde(rename = "final")]
    final_obs: Vec<f32>,
    actions: Vec<f32>,
    reward: Vec<f32>,
    log_probs: Vec<f32>,
    values: Vec<f32>,
    before: BTreeMap<String, Vec<f32>>,
    after: BTreeMap<String, Vec<f32>>,
    losses: [f64; 7],
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

fn config() -> Config {
    Config {
        rollout_steps: STEPS,
        minibatch_size: 5,
        epochs: 2,
        learning_rate: Schedule::constant(0.01),
        clip_range: Schedule::constant(0.2),
        gamma: 0.9,
        gae_lambda: 0.8,
        entropy_coefficient: Schedule::constant(0.02),
        num_threads: 1,
        network: NetworkConfig { hidden: vec![5], precision: Precision::Fp32, ..NetworkConfig::default() },
        device: "cpu".into(),
        ..Config::default()
    }
}

fn golden_config(case: &Case) -> Config {
    Config { normalize_advantage: case.normalize_advantage, value_clip_range: case.value_clip_range, ..config() }
}

fn golden_learner(config: &Config, case: &Case) -> Learner {
    let mut learner = Learner::new(config, &spec(case.continuous), ENVS, 1).unwrap();
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
fn golden_rollout(case: &Case, learner: &mut Learner, life_lost: bool) -> Rollout {
    let spec = spec(case.continuous);
    let (mut rollout, mut frames) = (Rollout::new(&spec, ENVS, STEPS, 0.9), FrameStack::new(&spec, ENVS));
    let mut batch = StepBatch::new(&spec, ENVS);
    let rows = |t: usize| if t < STEPS { &case.obs[t * ENVS * 2..(t + 1) * ENVS * 2] } else { &case.last };
    batch.obs = Obs::F32(rows(0).to_vec());
    frames.reset(&batch);
    for t in 0..STEPS {
        let now = t * ENVS..(t + 1) * ENVS;
        rollout.store_observations(0, &frames);
        rollout.decisions(0, ENVS).log_probs.copy_from_slice(&case.log_probs[now.clone()]);
        rollout.decisions(0, ENVS).values.copy_from_slice(&case.values[now.clone()]);
        batch.clear();
        batch.obs = Obs::F32(rows(t + 1).to_vec());
        batch.reward.copy_from_slice(&case.reward[now.clone()]);
        match life_lost {
            true => batch.life_lost[0] = t == 1,
            false => batch.terminated[0] = t == 1,
        }
        batch.truncated[1] = t == 2;
        batch.final_obs_row_mut(1).copy_from(ObsRef::F32(&case.final_obs));
        let actions = match case.continuous {
            true => Actions::Continuous { values: case.actions[now].to_vec(), dim: 1 },
            false => Actions::Discrete(case.actions[now].iter().map(|&a| a as i64).collect()),
        };
        frames.push(&batch);
        rollout.record(0, &actions, &batch, |i| learner.actor.final_value(frames.final_observation(i), &[], i));
    }
    rollout.store_observations(0, &frames);
    rollout
}

fn close(name: &str, actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 5e-6 * expected.abs().max(1.0), "{name}: {actual}, PyTorch has {expected}");
}

fn params(learner: &mut Learner) -> BTreeMap<String, Vec<f32>> {
    let mut snapshot = Snapshot::default();
    learner.save(&mut snapshot).unwrap();
    snapshot.params.iter().map(|(name, array)| (name.clone(), array.values().unwrap())).collect()
}

/// Two epochs of three minibatches, the last of each with two transitions.
#[test]
fn an_update_equals_pytorch() {
    assert_eq!(cases().len(), 5);
    for (case, life_lost) in cases().iter().flat_map(|case| [(case, false), (case, true)]) {
        let mut learner = golden_learner(&golden_config(case), case);
        let rollout = golden_rollout(case, &mut learner, life_lost);
        let mut stream = rng::stream(1, "ppo/minibatches");
        assert_eq!(case.order, [(); 2].map(|()| rollout.minibatches(5, &mut stream)));
        let report = learner.update(&rollout, 0).unwrap().report();
        for ((tag, actual), expected) in report.iter().zip(case.losses) {
            close(&format!("{}, {tag}", case.name), *actual, expected);
        }
        assert_eq!((report[1].0, report[6].0), ("train/policy_gradient_loss", "train/grad_norm"));
        assert_eq!(report.iter().any(|(tag, _)| *tag == "train/std"), case.continuous);
        assert_eq!(learner.updates(), 6);
        for (name, values) in params(&mut learner) {
            for (actual, expected) in values.iter().zip(&case.after[&name]) {
                close(&format!("{}, {name}", case.name), f64::from(*actual), f64::from(*expected));
            }
        }
    }
}

/// A rollout of `learner`'s own policy, with `n` steps of observations that depend on environment and step; an episode of
/// environment 1 ends at step 2.
fn own_rollout(learner: &mut Learner, spec: &EnvSpec, steps: usize) -> Rollout {
    own_rollout_with(learner, spec, steps, |_, _| ())
}

/// The same, where `change` changes the results of each step.
fn own_rollout_with(
    learner: &mut Learner,
    spec: &EnvSpec,
    steps: usize,
    change: impl Fn(usize, &mut StepBatch),
) -> Rollout {
    let (mut rollout, mut frames) = (Rollout::new(spec, ENVS, steps, 0.9), FrameStack::new(spec, ENVS));
    let (mut batch, mut actions) = (StepBatch::new(spec, ENVS), Actions::zeros(&spec.actions, ENVS));
    let observe = |obs: &mut Obs, t: usize| match obs {
        Obs::F32(values) => {
            values.iter_mut().enumerate().for_each(|(i, v)| *v = (((i + 5 * t) * 37 % 19) as f32) / 10.0 - 0.9);
        }
        Obs::U8(values) => values.iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 7 + 31 * t) % 251) as u8),
    };
    observe(&mut batch.obs, 0);
    frames.reset(&batch);
    for t in 0..steps {
        rollout.store_observations(0, &frames);
        let mask = frames.action_mask().to_vec();
        learner.actor.sample(frames.observations(), &mask, &mut actions, rollout.decisions(0, ENVS)).unwrap();
        if let (Some((indices, dim)), false) = (actions.indices(), mask.is_empty()) {
            for (i, row) in indices.chunks(dim).enumerate() {
                let mut valid = &mask[i * spec.mask_len()..];
                for (&index, &size) in row.iter().zip(spec.actions.sizes()) {
                    assert!(valid[index as usize], "an invalid action was sampled");
                    valid = &valid[size..];
                }
            }
        }
        batch.clear();
        observe(&mut batch.obs, t + 1);
        // Some choices are invalid, others at each step; the first of each component is always valid.
        for i in 0..ENVS {
            let mut valid = batch.mask_row_mut(i).iter_mut();
            for &size in spec.actions.sizes() {
                valid.by_ref().take(size).enumerate().for_each(|(c, valid)| *valid = c == 0 || (c + i + t) % 2 == 0);
            }
        }
        batch.reward.iter_mut().enumerate().for_each(|(i, r)| *r = (i as f32 - 1.0) * (t as f32 + 1.0) / 4.0);
        batch.terminated[1] = t == 2;
        change(t, &mut batch);
        frames.push(&batch);
        rollout.record(0, &actions, &batch, |_| unreachable!("nothing is truncated"));
        playfield_core::Policy::reset_states(&mut learner.actor, &batch.ended());
    }
    rollout.store_observations(0, &frames);
    rollout
}

fn value(report: &[(&'static str, f64)], tag: &str) -> f64 {
    report.iter().find(|(t, _)| *t == tag).unwrap().1
}

/// Before the first gradient step the ratio is 1 up to rounding: the policy that learns is the one that acted. A policy of frames in
/// its default precision, too, whose batch of acting differs from that of learning (with the same kernels). With an LSTM, whatever
/// ended.
#[test]
fn the_ratio_is_1_on_the_first_minibatch() {
    let frames = EnvSpec::new("test", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 3 }).with_frame_stack(4);
    let network = NetworkConfig { hidden: vec![5], lstm: 4, ..NetworkConfig::default() };
    let lstm = Config { network, ..config() };
    let several = ActionSpace::MultiDiscrete { sizes: vec![3, 2, 4] };
    let several = EnvSpec { actions: several, ..spec(false) };
    let own = NetworkConfig { kernels: Kernels::Own, ..NetworkConfig::default() };
    for (name, spec, config) in [
        ("discrete", &spec(false), config()),
        ("continuous", &spec(true), config()),
        ("masks", &spec(false).with_action_mask(), config()),
        ("several components", &several, config()),
        ("several components with masks and an LSTM", &several.clone().with_action_mask(), lstm.clone()),
        ("an LSTM", &spec(false), lstm),
        ("frames", &frames, Config { network: own, ..config() }),
    ] {
        let config = Config { epochs: 1, minibatch_size: ENVS * STEPS, ..config };
        let mut learner = Learner::new(&config, spec, ENVS, 1).unwrap();
        // The second rollout starts inside episodes.
        for _ in 0..2 {
            let rollout = own_rollout(&mut learner, spec, STEPS);
            let report = learner.update(&rollout, 0).unwrap().report();
            assert!(value(&report, "train/approx_kl") < 1e-12, "{name}: {report:?}");
            assert_eq!(value(&report, "train/clip_fraction"), 0.0);
        }
        let again = own_rollout(&mut learner, spec, STEPS);
        let config = Config { epochs: 3, ..config };
        let mut longer = Learner::new(&config, spec, ENVS, 1).unwrap();
        let moved = longer.update(&again, 0).unwrap().report();
        assert!(value(&moved, "train/approx_kl") > 1e-9, "{name}: {moved:?}");
    }
}

/// Updates by the own kernels, which evaluate actions without autograd, and by libtorch, from the same rollouts: frames, with masks, an invalid action
/// that a wrapper executed in the policy's place, and a step that is no transition.
#[test]
fn an_update_by_the_own_kernels_is_that_of_libtorch() {
    let spec = EnvSpec::new("test", &[84, 84], Dtype::U8, ActionSpace::Discrete { n: 5 });
    let spec = spec.with_frame_stack(4).with_action_mask();
    let learner = |kernels| {
        let network = NetworkConfig { kernels, precision: Precision::Fp32, ..NetworkConfig::default() };
        let optimizer = Sgd::default().into();
        let config = Config { network, optimizer, entropy_coefficient: Schedule::constant(1.0), ..config() };
        Learner::new(&config, &spec, ENVS, 1).unwrap()
    };
    let [mut own, mut libtorch] = [Kernels::Own, Kernels::Libtorch].map(learner);
    for _ in 0..2 {
        let rollout = own_rollout_with(&mut own, &spec, STEPS, |t, batch| {
            batch.forced[0] = (t == 2).then_some(2);
            batch.ignored[2] = t == 1;
        });
        assert_eq!(
            (rollout.forced()[6], rollout.action_masks()[6 * 5 + 2], rollout.transitions()),
            (true, false, Some((0..12).filter(|&i| i != 5).collect()))
        );
        let [own, libtorch] = [&mut own, &mut libtorch].map(|learner| learner.update(&rollout, 0).unwrap().report());
        for ((tag, own), (_, libtorch)) in own.iter().zip(&libtorch) {
            close(tag, *own, *libtorch);
        }
    }
    for ((name, own), libtorch) in params(&mut own).iter().zip(params(&mut libtorch).values()) {
        own.iter().zip(libtorch).for_each(|(a, b)| close(name, f64::from(*a), f64::from(*b)));
    }
}

/// Log-probabilities and values of a minibatch of whole sequences are those of the whole rollout, with the recurrent state of its
/// start and the episode that ended inside it.
#[test]
fn recurrent_minibatches_equal_the_unrolled_sequence() {
    let spec = spec(false);
    let network = NetworkConfig { hidden: vec![5], lstm: 4, precision: Precision::Fp32, ..NetworkConfig::default() };
    let mut learner = Learner::new(&Config { minibatch_size: STEPS, network, ..config() }, &spec, ENVS, 1).unwrap();
    let rollout = own_rollout(&mut learner, &spec, STEPS);
    learner.update(&rollout, 0).unwrap();
    let rollout = own_rollout(&mut learner, &spec, STEPS);
    let outputs =
        |evaluated: EvaluatedActions| [evaluated.log_probs, evaluated.values].map(|t| Vec::<f32>::try_from(t).unwrap());
    let whole = outputs(learner.actor.evaluate_rollout(&rollout));
    for (part, expected) in whole.iter().zip([rollout.log_probs(), rollout.values()]) {
        assert!(part.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{part:?}, while acting {expected:?}");
    }
    for size in [STEPS, 2 * STEPS] {
        for indices in rollout.sequence_minibatches(size, &mut rng::stream(1, "minibatches")) {
            let (evaluated, indices) = learner.actor.evaluate_minibatch(&rollout, indices);
            let part = outputs(evaluated);
            for (part, whole) in part.iter().zip(&whole) {
                let expected = indices.iter().map(|&i| whole[i]);
                assert!(part.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{part:?} of {whole:?}");
            }
        }
    }
}

/// A rollout of equal steps with action 0, which had the log-probability −3; `write` writes their results.
fn equal_steps(spec: &EnvSpec, write: impl Fn(&mut StepBatch)) -> Rollout {
    let (mut rollout, mut frames) = (Rollout::new(spec, ENVS, STEPS, 0.9), FrameStack::new(spec, ENVS));
    let mut batch = StepBatch::new(spec, ENVS);
    frames.reset(&batch);
    for _ in 0..STEPS {
        rollout.store_observations(0, &frames);
        rollout.decisions(0, ENVS).log_probs.fill(-3.0);
        batch.clear();
        write(&mut batch);
        frames.push(&batch);
        rollout.record(0, &Actions::Discrete(vec![0; ENVS]), &batch, |_| 0.0);
    }
    rollout.store_observations(0, &frames);
    rollout
}

/// A replaced action contributes to the value loss but not to the policy gradient, whatever its log-probability.
#[test]
fn a_replaced_action_has_no_policy_gradient() {
    let spec = spec(false);
    let config = Config { entropy_coefficient: Schedule::constant(0.0), gradient_clip: 0.0, ..config() };
    let mut learner = Learner::new(&config, &spec, ENVS, 1).unwrap();
    let rollout = equal_steps(&spec, |batch| {
        batch.reward.copy_from_slice(&[1.0, 2.0, -1.0]);
        batch.forced = vec![Some(2); ENVS];
    });
    let before = params(&mut learner);
    let report = learner.update(&rollout, 0).unwrap().report();
    let after = params(&mut learner);
    assert_eq!(before["policy.weight"], after["policy.weight"]);
    assert_ne!(before["value.bias"], after["value.bias"]);
    assert_eq!([value(&report, "train/approx_kl"), value(&report, "train/clip_fraction")], [0.0, 0.0]);
}

/// All observations and actions are the same, so that the divergence is that of any transition; the replaced ones of environment 0 do not
/// count.
#[test]
fn the_divergence_is_a_mean_over_sampled_actions() {
    let spec = spec(false);
    let config = Config { epochs: 1, minibatch_size: 12, ..config() };
    let [all, sampled] = [None, Some(0)].map(|forced| {
        let mut learner = Learner::new(&config, &spec, ENVS, 1).unwrap();
        let rollout = equal_steps(&spec, |batch| batch.forced[0] = forced);
        let report = learner.update(&rollout, 0).unwrap().report();
        ["train/approx_kl", "train/clip_fraction"].map(|tag| value(&report, tag))
    });
    assert!((all[0] / sampled[0] - 1.0).abs() < 1e-6 && all[0] > 0.1, "{all:?}, {sampled:?}");
    assert!((all[1] - 1.0).abs() < 1e-6 && (sampled[1] - 1.0).abs() < 1e-6, "{all:?}, {sampled:?}");
}

/// Updates stop before the first minibatch whose KL divergence is above 1.5 times the target.
#[test]
fn updates_stop_at_the_target_kl() {
    let case = &cases()[0];
    let updates_of = |config: Config, target_kl| {
        let mut learner = golden_learner(&Config { target_kl, ..config }, case);
        let rollout = golden_rollout(case, &mut learner, false);
        let report = learner.update(&rollout, 0).unwrap().report();
        (learner.updates(), value(&report, "train/n_updates"))
    };
    let updates = |target_kl| updates_of(golden_config(case), target_kl);
    assert_eq!([updates(0.0), updates(100.0)], [(6, 6.0); 2]);
    assert_eq!(updates(1e-6), (0, 0.0));
    // One minibatch, of the whole rollout.
    let whole = || Config { minibatch_size: 12, epochs: 1, ..golden_config(case) };
    let mut learner = golden_learner(&whole(), case);
    let rollout = golden_rollout(case, &mut learner, false);
    let kl = value(&learner.update(&rollout, 0).unwrap().report(), "train/approx_kl");
    assert_eq!([0.999, 1.001].map(|factor| updates_of(whole(), kl / 1.5 * factor).0), [0, 1], "{kl}");
}

/// With `learning_rate_target_kl` the learning rate of the next update follows the KL divergence of this one, and a resumed learner has it.
#[test]
fn the_learning_rate_adapts_and_is_saved() {
    let case = &cases()[0];
    for (learning_rate_target_kl, expected) in [(100.0, 0.0015), (1e-6, 0.001 / 1.5)] {
        let config =
            Config { learning_rate_target_kl, learning_rate: Schedule::constant(0.001), ..golden_config(case) };
        let mut learner = golden_learner(&config, case);
        let rollout = golden_rollout(case, &mut learner, false);
        assert_eq!(value(&learner.update(&rollout, 0).unwrap().report(), "train/learning_rate"), 0.001);
        let mut snapshot = Snapshot::default();
        learner.save(&mut snapshot).unwrap();
        let mut resumed = Learner::new(&config, &spec(false), ENVS, 2).unwrap();
        resumed.load(&snapshot, false).unwrap();
        for learner in [&mut learner, &mut resumed] {
            let rate = value(&learner.update(&rollout, 0).unwrap().report(), "train/learning_rate");
            assert!((rate - expected).abs() < 1e-9, "{rate}");
        }
        assert_eq!(params(&mut learner), params(&mut resumed));
    }
}

/// An update uses learning rate, clip range and entropy coefficient at its step.
#[test]
fn schedules_are_read_at_the_step_of_the_update() {
    let case = &cases()[0];
    let config = Config {
        learning_rate: Schedule::linear(0.4, 0.1, 100),
        clip_range: Schedule::linear(0.25, 0.0, 100),
        ..golden_config(case)
    };
    let mut learner = golden_learner(&config, case);
    let rollout = golden_rollout(case, &mut learner, false);
    let mut seen = |step| {
        let report = learner.update(&rollout, step).unwrap().report();
        [value(&report, "train/learning_rate"), value(&report, "train/clip_range")]
    };
    assert_eq!([0, 50, 100].map(&mut seen), [[0.4, 0.25], [0.25, 0.125], [0.1, 0.0]]);
}

/// A gradient that is not finite leaves the parameters as they were.
#[test]
fn a_ratio_that_is_not_finite_changes_nothing() {
    let mut case = cases().swap_remove(0);
    case.log_probs = vec![-1e30; ENVS * STEPS];
    let mut learner = golden_learner(&golden_config(&case), &case);
    let rollout = golden_rollout(&case, &mut learner, false);
    let before = params(&mut learner);
    assert!(matches!(learner.update(&rollout, 0).unwrap_err(), Error::Diverged(_)));
    assert_eq!(params(&mut learner), before);
}

#[test]
fn values_that_cannot_work_are_refused_with_their_bounds() {
    let refused = |config: &Config, n| {
        let checked = Ppo::check(config).and_then(|()| config.check_minibatch(n));
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    };
    let recurrent = NetworkConfig { lstm: 4, ..NetworkConfig::default() };
    let layer_norm = NetworkConfig { norm: NormKind::Layer, ..NetworkConfig::default() };
    let batch_norm = NetworkConfig { norm: NormKind::Batch, ..NetworkConfig::default() };
    for (config, message) in [
        (Config { minibatch_size: 13, ..config() }, "`minibatch_size` = 13 must be at most the 12 transitions"),
        (Config { epochs: 0, ..config() }, "`epochs` must be at least 1"),
        (Config { epochs: 1001, ..config() }, "`epochs` = 1001 must be at most 1000"),
        (Config { clip_range: Schedule::constant(-0.1), ..config() }, "`clip_range` = -0.1 must not be negative"),
        (Config { target_kl: -1.0, ..config() }, "`target_kl` = -1 must not be negative"),
        (
            Config { learning_rate_target_kl: f64::NAN, ..config() },
            "`learning_rate_target_kl` = NaN must not be negative",
        ),
        (Config { minibatch_size: 6, network: recurrent.clone(), ..config() }, "a multiple of rollout_steps = 4"),
        (Config { minibatch_size: 1, ..config() }, "set minibatch_size to at least 2"),
        (Config { clip_range: Schedule::constant(0.0), ..config() }, "`clip_range` must start above 0"),
        (Config { target_kl: 0.01, network: batch_norm.clone(), ..config() }, "set target_kl = 0, or norm = \"layer\""),
        (Config { gae_lambda: 1.1, ..config() }, "`gae_lambda` = 1.1 must lie between 0 and 1"),
    ] {
        let said = refused(&config, ENVS);
        assert!(said.contains(message), "{said}");
    }
    for config in [
        config(),
        Config { minibatch_size: 12, ..config() },
        Config { epochs: 1000, ..config() },
        Config { target_kl: 0.0, network: batch_norm, ..config() },
        Config { target_kl: 0.01, network: layer_norm, ..config() },
        Config { minibatch_size: 8, network: recurrent, ..config() },
        Config { minibatch_size: 1, normalize_advantage: false, ..config() },
    ] {
        assert_eq!(refused(&config, ENVS), "");
    }
}

/// Equal seeds give equal actions and parameters bit for bit, and a resumed learner equals an uninterrupted one.
#[test]
fn equal_seeds_and_resumed_learners_are_equal_bit_for_bit() {
    let spec = spec(true);
    let make = |seed| Learner::new(&config(), &spec, ENVS, seed).unwrap();
    let advance = |learner: &mut Learner| {
        let rollout = own_rollout(learner, &spec, STEPS);
        learner.update(&rollout, 0).unwrap();
        let mut snapshot = Snapshot::default();
        learner.save(&mut snapshot).unwrap();
        snapshot
    };
    let (mut a, mut b) = (make(4), make(4));
    let first = advance(&mut a);
    assert_eq!(first, advance(&mut b));
    assert_ne!(first.params, advance(&mut make(5)).params);
    let mut resumed = make(6);
    resumed.load(&first, true).unwrap();
    assert_eq!(advance(&mut a), advance(&mut resumed));
    let evaluated = Actor::for_evaluation(&config().network, &spec, "cpu", &first);
    assert!(evaluated.is_ok());
}
