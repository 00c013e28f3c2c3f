//! One update against PyTorch (`golden/update.py`) for each variant of DQN with importance weights: loss, TD errors, gradient norm
//! and parameters.

#[path = "../../test_fakes.rs"]
mod test_fakes;

use playfield_core::graph::Graph;
use playfield_core::group::{self, Group};
use playfield_core::rng::stream;
use playfield_core::{ActionSpace, Actions, Array, Dtype, EnvSpec, Mode, Obs, Policy, Schedule, Snapshot};
use playfield_dqn::actor::Actor;
use playfield_dqn::learner::{Learner, Losses};
use playfield_dqn::{Config, Distribution, Loss};
use playfield_nn::NetworkConfig;
use playfield_nn::config::Precision;
use playfield_nn::optim::{Adam, OptimizerConfig, RmsProp, Rule, Sgd};
use playfield_replay::Transitions;
use rand::RngExt as _;
use rand_distr::StandardNormal;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Kind, Tensor};
use test_fakes::Twin;

#[derive(Deserialize)]
struct Case {
    name: String,
    double: bool,
    dueling: bool,
    distribution: Distribution,
    atoms: i64,
    loss: Loss,
    sum_over_batch: bool,
    gradient_clip: f64,
    rule: Rule,
    /// Whether the torso has a layer before the streams.
    trunk: bool,
    kappa: f64,
    s_tm1: Vec<f32>,
    s_t: Vec<f32>,
    a_tm1: Vec<i64>,
    r_t: Vec<f32>,
    discount_t: Vec<f32>,
    weights: Vec<f32>,
    before: BTreeMap<String, Vec<f32>>,
    target: BTreeMap<String, Vec<f32>>,
    after: BTreeMap<String, Vec<f32>>,
    errors: Vec<f64>,
    results: [f64; 3],
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("golden/update.json")).unwrap()
}

fn spec() -> EnvSpec {
    let actions = ActionSpace::Discrete { n: 3 };
    EnvSpec::new("test", &[2], Dtype::F32, actions)
}

fn config(case: &Case) -> Config {
    let optimizer = match (case.rule, Config::default().optimizer) {
        (Rule::Adam, _) => Adam { eps: 1.5e-4, ..Adam::default() }.into(),
        (Rule::RmsProp, OptimizerConfig::RmsProp(own)) => RmsProp { eps_inside_root: false, ..own }.into(),
        (rule, _) => panic!("no golden case of {rule:?}"),
    };
    Config {
        learning_rate: Schedule::constant(0.01),
        double: case.double,
        dueling: case.dueling,
        distribution: case.distribution,
        atoms: case.atoms,
        value_min: -2.0,
        value_max: 2.0,
        loss: case.loss,
        huber_bound: case.kappa,
        sum_over_batch: case.sum_over_batch,
        gradient_clip: case.gradient_clip,
        batch_size: case.r_t.len(),
        num_threads: 1,
        optimizer,
        network: network(case.trunk),
        device: "cpu".into(),
        ..Config::default()
    }
}

fn learner(config: Config, seed: u64) -> Learner {
    over(false, config, seed)
}

fn network(trunk: bool) -> NetworkConfig {
    let hidden = if trunk { vec![6, 5] } else { vec![5] };
    NetworkConfig { hidden, precision: Precision::Fp32, ..NetworkConfig::default() }
}

fn over(trunk: bool, config: Config, seed: u64) -> Learner {
    Learner::new(Config { network: network(trunk), ..config }, &spec(), seed).unwrap()
}

fn golden(case: &Case) -> Learner {
    let mut learner = over(case.trunk, config(case), 1);
    let mut snapshot = Snapshot::default();
    learner.save(&mut snapshot);
    for (name, array) in &mut snapshot.params {
        *array = Array::new(&array.shape, &case.before[name]);
        let target = snapshot.arrays.get_mut(&format!("target.{name}")).unwrap();
        *target = Array::new(&target.shape, &case.target[name]);
    }
    learner.load(&snapshot).unwrap();
    learner
}

fn batch(case: &Case) -> Transitions {
    Transitions {
        s_tm1: Obs::F32(case.s_tm1.clone()),
        a_tm1: case.a_tm1.clone(),
        r_t: case.r_t.clone(),
        discount_t: case.discount_t.clone(),
        s_t: Obs::F32(case.s_t.clone()),
        mask_t: vec![],
    }
}

fn actor(learner: &Learner) -> Actor {
    Actor::new(learner.config(), learner.online().deep_clone(), stream(1, "actions"))
}

fn update(learner: &mut Learner, case: &Case) -> Losses {
    let all = batch(case);
    let losses = learner.update(learner.config().learning_rate.at(0), |rows, part, weights| {
        part.a_tm1.copy_from_slice(&all.a_tm1[rows.clone()]);
        part.r_t.copy_from_slice(&all.r_t[rows.clone()]);
        part.discount_t.copy_from_slice(&all.discount_t[rows.clone()]);
        part.s_tm1.as_mut().copy_from(all.s_tm1.slice(rows.start * 2, rows.len() * 2));
        part.s_t.as_mut().copy_from(all.s_t.slice(rows.start * 2, rows.len() * 2));
        weights.copy_from_slice(&case.weights[rows]);
    });
    losses.unwrap()
}

fn close(what: &str, actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 4e-6 * expected.abs().max(1.0), "{what}: {actual}, PyTorch has {expected}");
}

#[test]
fn an_update_equals_pytorch() {
    let cases = cases();
    assert_eq!(cases.len(), 12);
    for case in &cases {
        let mut learner = golden(case);
        let l = update(&mut learner, case);
        let results = [("loss", l.loss), ("mean Q", l.q_mean), ("gradient norm", l.grad_norm)];
        for ((what, actual), expected) in results.into_iter().zip(case.results) {
            close(&format!("{}, {what}", case.name), actual, expected);
        }
        for (actual, expected) in l.errors.iter().zip(&case.errors) {
            close(&format!("{}, error", case.name), f64::from(*actual), *expected);
        }
        let mut snapshot = Snapshot::default();
        learner.save(&mut snapshot);
        for (name, array) in &snapshot.params {
            for (actual, expected) in array.values::<f32>().unwrap().iter().zip(&case.after[name]) {
                close(&format!("{}, {name}", case.name), f64::from(*actual), f64::from(*expected));
            }
        }
    }
}

/// A batch split among threads gives the same update up to rounding: losses, errors in order, parameters.
#[test]
fn a_sharded_batch_equals_an_unsharded_one() {
    for case in &cases() {
        let mut whole = golden(case);
        let mut snapshot = Snapshot::default();
        whole.save(&mut snapshot);
        let mut shared = over(case.trunk, Config { num_threads: 3, ..config(case) }, 1);
        shared.load(&snapshot).unwrap();
        for _ in 0..3 {
            let (a, b) = (update(&mut whole, case), update(&mut shared, case));
            for (what, a, b) in
                [("loss", a.loss, b.loss), ("mean Q", a.q_mean, b.q_mean), ("norm", a.grad_norm, b.grad_norm)]
            {
                close(what, b, a);
            }
            a.errors.iter().zip(&b.errors).for_each(|(a, b)| close("error", f64::from(*b), f64::from(*a)));
            whole.update_target(1.0);
            shared.update_target(1.0);
        }
        let [a, b] = [&whole, &shared].map(|learner| {
            let mut snapshot = Snapshot::default();
            learner.save(&mut snapshot);
            snapshot.params
        });
        for (name, array) in &a {
            let (a, b) = (array.values::<f32>().unwrap(), b[name].values::<f32>().unwrap());
            a.iter().zip(&b).for_each(|(a, b)| close(name, f64::from(*b), f64::from(*a)));
        }
    }
}

/// The parts cover the batch. Without overlap they have equal sizes; with overlap the actor's part is smaller.
#[test]
fn parts_cover_the_batch() {
    let parts = |overlap, threads, batch_size, actor_share| {
        let config = Config { overlap, batch_size, actor_share, ..Config::default() };
        config.parts(threads).iter().map(ExactSizeIterator::len).collect::<Vec<_>>()
    };
    assert_eq!(parts(false, 3, 32, 0.35), [10, 11, 11]);
    assert_eq!(parts(true, 1, 32, 0.35), [32]);
    assert_eq!(parts(true, 2, 32, 0.35), [21, 11]);
    assert_eq!(parts(true, 3, 32, 0.25), [12, 12, 8]);
    assert_eq!(parts(true, 2, 32, 0.0), [31, 1]);
    assert_eq!(parts(true, 2, 2, 1.0), [1, 1]);
    assert_eq!(parts(true, 8, 3, 1.0), [1, 1, 1]);
}

/// Only `update_target` changes the target network, by a copy or a soft update.
#[test]
fn the_target_network_changes_only_by_its_updates() {
    let case = &cases()[1];
    for (rate, expected) in [(1.0, 1.0), (0.25, 0.25)] {
        let mut learner = golden(case);
        let mut snapshot = Snapshot::default();
        learner.save(&mut snapshot);
        let before = snapshot.arrays["target.q.out.weight"].values::<f32>().unwrap();
        update(&mut learner, case);
        let read = |learner: &Learner| {
            let mut snapshot = Snapshot::default();
            learner.save(&mut snapshot);
            let online = snapshot.params["q.out.weight"].values::<f32>().unwrap();
            (snapshot.arrays["target.q.out.weight"].values::<f32>().unwrap(), online)
        };
        assert_eq!(read(&learner).0, before);
        learner.update_target(rate);
        let (after, online) = read(&learner);
        for ((after, before), online) in after.iter().zip(&before).zip(&online) {
            assert!((after - (before + expected * (online - before))).abs() < 1e-6);
        }
    }
}

/// ε = 1: uniform actions; ε = .3: the greedy one with probability 1 − ε + ε/3; greedy mode: always.
/// Neither a greedy nor a random action is invalid, and the target takes the best of the *valid* next actions, which double Q-learning
/// selects, too.
#[test]
fn invalid_actions_are_neither_chosen_nor_bootstrapped_from() {
    for double in [false, true] {
        let case = &cases()[0];
        let config = Config { double, ..config(case) };
        let masked = spec().with_action_mask();
        let mut learner = Learner::new(Config { network: network(false), ..config }, &masked, 1).unwrap();
        let mut actor = actor(&learner);
        let n = case.r_t.len();
        let obs = Obs::F32(case.s_t.clone());
        let q = actor.outputs(&obs, n).unwrap().preferences;
        let k = q.len() / n;
        let argmax = |row: usize, valid: &dyn Fn(usize) -> bool| {
            let of_row = |a: &usize| q[row * k + a];
            (0..k).filter(|&a| valid(a)).max_by(|a, b| of_row(a).total_cmp(&of_row(b))).unwrap()
        };
        // The best action of each row is invalid.
        let best: Vec<_> = (0..n).map(|row| argmax(row, &|_| true)).collect();
        let second: Vec<_> = (0..n).map(|row| argmax(row, &|a| a != best[row])).collect();
        let mask: Vec<bool> = (0..n * k).map(|i| i % k != best[i / k]).collect();
        let mut actions = Actions::Discrete(vec![0; n]);
        actor.act(&obs, &mask, Mode::Greedy, &mut actions).unwrap();
        assert_eq!(actions, Actions::Discrete(second.iter().map(|&a| a as i64).collect()));
        actor.epsilon = 1.0;
        for _ in 0..200 {
            actor.act(&obs, &mask, Mode::Sample, &mut actions).unwrap();
            let Actions::Discrete(random) = &actions else { unreachable!() };
            assert!(random.iter().zip(&best).all(|(&a, &best)| a as usize != best));
        }

        let before = actor.outputs(&Obs::F32(case.s_tm1.clone()), n).unwrap().preferences;
        let all = batch(case);
        let losses = learner.update(0.01, |rows, part, weights| {
            assert_eq!(rows, 0..n);
            *part = Transitions { mask_t: mask.clone(), ..all.clone() };
            weights.fill(1.0);
        });
        let losses = losses.unwrap();
        for row in 0..n {
            let target = case.r_t[row] + case.discount_t[row] * q[row * k + second[row]];
            let error = target - before[row * k + case.a_tm1[row] as usize];
            assert!((losses.errors[row] - error).abs() < 1e-5, "{error}, {}", losses.errors[row]);
        }
    }
}

#[test]
fn exploration_has_the_stated_probability() {
    let case = &cases()[0];
    let mut actor = actor(&golden(case));
    let n = 30_000;
    let obs = Obs::F32([0.4, -0.9].repeat(n));
    let mut actions = Actions::Discrete(vec![0; n]);
    actor.act(&obs, &[], Mode::Greedy, &mut actions).unwrap();
    let Actions::Discrete(greedy) = actions.clone() else { unreachable!() };
    assert!(greedy.iter().all(|a| *a == greedy[0]));
    for (epsilon, expected) in [(1.0, 1.0 / 3.0), (0.3, 0.8), (0.0, 1.0)] {
        actor.epsilon = epsilon;
        actor.act(&obs, &[], Mode::Sample, &mut actions).unwrap();
        let Actions::Discrete(chosen) = &actions else { unreachable!() };
        let share = chosen.iter().filter(|a| **a == greedy[0]).count() as f64 / n as f64;
        assert!((share - expected).abs() < 0.012, "ε = {epsilon}: {share}");
    }
}

/// Evaluation uses `exploration_evaluation` as ε.
#[test]
fn evaluation_has_its_own_epsilon() {
    let case = &cases()[0];
    let n = 30_000;
    let obs = Obs::F32([0.4, -0.9].repeat(n));
    for (epsilon, expected) in [(0.05, 1.0 - 0.05 * 2.0 / 3.0), (0.3, 0.8), (0.0, 1.0)] {
        let config = Config { exploration_evaluation: epsilon, ..config(case) };
        let mut actor = actor(&learner(config, 1));
        let choose = |actor: &mut Actor, mode| {
            let mut actions = Actions::Discrete(vec![0; n]);
            actor.act(&obs, &[], mode, &mut actions).unwrap();
            let Actions::Discrete(actions) = actions else { unreachable!() };
            actions
        };
        let greedy = choose(&mut actor, Mode::Greedy)[0];
        let share = choose(&mut actor, Mode::Sample).iter().filter(|a| **a == greedy).count() as f64 / n as f64;
        assert!((share - expected).abs() < 0.006, "ε = {epsilon}: {share}");
    }
}

/// A copy in training's ε evaluates with its own; the random stream is restored, and starts anew from a seed.
#[test]
fn an_actor_keeps_its_random_stream() {
    let config = Config { exploration_evaluation: 0.25, ..config(&cases()[0]) };
    let learner = learner(config.clone(), 1);
    let obs = Obs::F32([0.4, -0.9].repeat(50));
    let choose = |actor: &mut Actor| {
        let mut actions = Actions::Discrete(vec![0; 50]);
        actor.act(&obs, &[], Mode::Sample, &mut actions).unwrap();
        actions
    };
    let mut first = actor(&learner);
    first.epsilon = 1.0;
    let (mut saved, begun) = (Snapshot::default(), choose(&mut first));
    playfield_core::Persist::save(&mut first, &mut saved).unwrap();
    let continued = choose(&mut first);
    let mut restored = actor(&learner);
    restored.epsilon = 1.0;
    restored.load(&saved).unwrap();
    assert_eq!(choose(&mut restored), continued);
    assert_ne!(begun, continued);
    let of_seed = |actor: &mut Actor, seed| {
        actor.seed(seed);
        choose(actor)
    };
    assert_eq!(of_seed(&mut first, 7), of_seed(&mut restored, 7));
    assert_ne!(of_seed(&mut first, 7), of_seed(&mut restored, 8));
    let evaluated = first.evaluation_policy(&config, learner.online().deep_clone());
    assert_eq!((first.epsilon, evaluated.epsilon), (1.0, 0.25));
}

/// The actor of a noisy network samples new noise at each step, and does not use ε in evaluation.
#[test]
fn a_noisy_actor_samples_new_noise_at_each_step() {
    let case = &cases()[6];
    let config = Config { noisy_sigma: 20.0, exploration_evaluation: 0.5, ..config(case) };
    let mut actor = actor(&learner(config, 4));
    let obs = Obs::F32([0.4, -0.9].repeat(50));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let mut actions = Actions::Discrete(vec![0; 50]);
        actor.act(&obs, &[], Mode::Sample, &mut actions).unwrap();
        let Actions::Discrete(actions) = actions else { unreachable!() };
        assert!(actions.iter().all(|a| *a == actions[0]), "one noise sample for the batch, no ε");
        seen.insert(actions[0]);
    }
    assert_eq!(seen.len(), 3, "40 noise samples select every action");
}

/// All threads use the same noise sample: the update is independent of the number of threads up to rounding. Each update uses a new
/// sample: losses differ even with a learning rate of 0.
#[test]
fn noise_is_independent_of_threads_and_new_for_each_update() {
    for case in &cases() {
        let noisy = |threads| Config {
            noisy_sigma: 0.5,
            num_threads: threads,
            learning_rate: Schedule::constant(0.0),
            ..config(case)
        };
        let (mut whole, mut shared) = (learner(noisy(1), 4), learner(noisy(3), 4));
        let mut last = f64::INFINITY;
        for _ in 0..3 {
            let (a, b) = (update(&mut whole, case), update(&mut shared, case));
            close(&case.name, b.loss, a.loss);
            close(&case.name, b.grad_norm, a.grad_norm);
            a.errors.iter().zip(&b.errors).for_each(|(a, b)| close(&case.name, f64::from(*b), f64::from(*a)));
            assert!((a.loss - last).abs() > 1e-6, "{}: repeated noise", case.name);
            last = a.loss;
        }
    }
}

/// A noisy dueling double DQN with a layer before the streams against explicit formulas: each of the three networks has its own noise
/// sample, in the order online, target, selection, layer by layer (value before advantage, hidden before last).
#[test]
fn a_noisy_update_has_a_sample_for_each_network() {
    let case = &cases()[0];
    let config = Config {
        double: true,
        dueling: true,
        noisy_sigma: 0.5,
        loss: Loss::Squared,
        sum_over_batch: true,
        optimizer: Sgd { momentum: 0.0, ..Sgd::default() }.into(),
        ..config(case)
    };
    let mut learner = over(true, config, 4);
    let mut snapshot = Snapshot::default();
    learner.save(&mut snapshot);
    // The target differs from the online network.
    for (name, array) in &snapshot.params {
        let other: Vec<f32> = array.values::<f32>().unwrap().iter().map(|x| 0.7 * x - 0.05).collect();
        snapshot.arrays.insert(format!("target.{name}"), Array::new(&array.shape, &other));
    }
    learner.load(&snapshot).unwrap();
    let tensors = |prefix: &str, arrays: &BTreeMap<String, Array>| -> BTreeMap<String, Tensor> {
        let own = arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?, array)));
        own.map(|(name, array)| {
            let shape: Vec<i64> = array.shape.iter().map(|&d| d as i64).collect();
            (
                name.to_string(),
                Tensor::from_slice(&array.values::<f32>().unwrap()).view(&shape[..]).set_requires_grad(true),
            )
        })
        .collect()
    };
    let (online, target) = (tensors("", &snapshot.params), tensors("target.", &snapshot.arrays));
    let mut rng = stream(4, "dqn/noise");
    let mut draw = |n: usize| {
        let sample = |_| rng.sample::<f32, _>(StandardNormal);
        Tensor::from_slice(&(0..n).map(sample).map(|x| x.abs().sqrt().copysign(x)).collect::<Vec<_>>())
    };
    let layers = [("value.hidden", 6, 5), ("value.out", 5, 1), ("advantage.hidden", 6, 5), ("advantage.out", 5, 3)];
    let mut sample = || layers.map(|(name, inputs, outputs)| (name, draw(inputs), draw(outputs)));
    let (for_online, for_target, for_selection) = (sample(), sample(), sample());
    let forward = |p: &BTreeMap<String, Tensor>, noise: &[(&str, Tensor, Tensor); 4], x: &[f32]| {
        let noisy = |x: &Tensor, name: &str| {
            let (_, input, output) = noise.iter().find(|(n, ..)| *n == name).unwrap();
            let weight = &p[&format!("{name}.weight")] + &p[&format!("{name}.weight_sigma")] * output.outer(input);
            x.linear(&weight, Some(&p[&format!("{name}.bias")] + &p[&format!("{name}.bias_sigma")] * output))
        };
        let x = Tensor::from_slice(x).view([-1, 2]);
        let trunk = x.linear(&p["torso.fc1.weight"], Some(&p["torso.fc1.bias"])).tanh();
        let branch = |name: &str| noisy(&noisy(&trunk, &format!("{name}.hidden")).tanh(), &format!("{name}.out"));
        let advantage = branch("advantage");
        branch("value") + &advantage - advantage.mean_dim([1_i64].as_slice(), true, Kind::Float)
    };
    let best = forward(&online, &for_selection, &case.s_t).argmax(1, false).unsqueeze(1);
    let q_t = forward(&target, &for_target, &case.s_t).gather(1, &best, false).squeeze_dim(1);
    let a = Tensor::from_slice(&case.a_tm1).unsqueeze(1);
    let q_tm1 = forward(&online, &for_online, &case.s_tm1).gather(1, &a, false).squeeze_dim(1);
    let column = |v: &[f32]| Tensor::from_slice(v);
    let error = (column(&case.r_t) + column(&case.discount_t) * q_t).detach() - &q_tm1;
    let loss = (error.square() * 0.5 * column(&case.weights)).sum(Kind::Float);
    loss.backward();
    let losses = update(&mut learner, case);
    close("loss", losses.loss, loss.double_value(&[]));
    for (actual, expected) in losses.errors.iter().zip(Vec::<f32>::try_from(&error.detach()).unwrap()) {
        close("error", f64::from(*actual), f64::from(expected));
    }
    // Gradient descent with learning rate .01 reveals the gradient. That of the torso is scaled by 1/√2.
    let mut after = Snapshot::default();
    learner.save(&mut after);
    for (name, before) in &online {
        let scale = if name.starts_with("torso") { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
        let expected = before.detach() - before.grad() * (0.01 * scale);
        let expected = Vec::<f32>::try_from(&expected.flatten(0, -1)).unwrap();
        for (actual, expected) in after.params[name].values::<f32>().unwrap().iter().zip(expected) {
            close(name, f64::from(*actual), f64::from(expected));
        }
    }
}

/// A loss or gradient that is not finite leaves all parameters unchanged, also for the clipped loss, whose gradient at NaN is finite.
#[test]
fn a_loss_that_is_not_finite_changes_nothing() {
    for case in &cases() {
        let mut learner = golden(case);
        update(&mut learner, case);
        let save = |learner: &Learner| {
            let mut snapshot = Snapshot::default();
            learner.save(&mut snapshot);
            (snapshot.params, snapshot.arrays)
        };
        let before = save(&learner);
        let all = batch(case);
        let losses = learner.update(learner.config().learning_rate.at(0), |rows, part, weights| {
            part.s_tm1.as_mut().copy_from(all.s_tm1.slice(rows.start * 2, rows.len() * 2));
            part.r_t.fill(f32::NAN);
            weights.fill(1.0);
        });
        assert!(!losses.unwrap().is_finite(), "{}", case.name);
        assert_eq!(save(&learner), before, "{}", case.name);
    }
}

/// Equal seeds give equal parameters bit for bit, and a resumed learner equals an uninterrupted one, including its noise.
#[test]
fn equal_seeds_and_resumed_learners_are_equal_bit_for_bit() {
    let case = &cases()[6];
    let config = Config { noisy_sigma: 0.5, ..config(case) };
    let advance = |learner: &mut Learner| {
        let losses = update(learner, case);
        let mut snapshot = Snapshot::default();
        learner.save(&mut snapshot);
        (losses, snapshot)
    };
    let (mut a, mut b) = (learner(config.clone(), 4), learner(config.clone(), 4));
    let first = advance(&mut a);
    assert_eq!(first, advance(&mut b));
    assert_ne!(first.1.params, advance(&mut learner(config.clone(), 5)).1.params);
    let mut resumed = learner(config, 6);
    resumed.load(&first.1).unwrap();
    assert_eq!(advance(&mut a), advance(&mut resumed));
}

#[test]
fn invalid_settings_are_named() {
    for (config, expected) in [
        (Config { buffer_size: 10, ..Config::default() }, "`buffer_size` = 10 is smaller than `batch_size` = 32"),
        (Config { train_interval: 0, ..Config::default() }, "`train_interval` must be at least 1"),
        (Config { gamma: 1.5, ..Config::default() }, "`gamma` = 1.5 must lie between 0 and 1"),
        (
            Config { learning_rate: Schedule::constant(f64::NAN), ..Config::default() },
            "`learning_rate` = NaN must not be negative",
        ),
        (Config { distribution: Distribution::Categorical, atoms: 1, ..Config::default() }, "`atoms` ≥ 2"),
    ] {
        let said = config.check().unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

/// |−1|, |3| and |0| have the mean 4/3.
#[test]
fn the_mean_error_is_of_absolute_values() {
    let losses = Losses { errors: vec![-1.0, 3.0, 0.0], ..Losses::default() };
    assert!((losses.mean_error() - 4.0 / 3.0).abs() < 1e-12);
}

/// A policy is exported with the values of its atoms, where it has atoms.
#[test]
fn a_policy_is_exported_with_its_support() {
    for (distribution, atoms, support) in
        [(Distribution::Categorical, 5, Some([-2.0, -1.0, 0.0, 1.0, 2.0])), (Distribution::None, 1, None)]
    {
        let config = Config { distribution, atoms, value_min: -2.0, value_max: 2.0, ..config(&cases()[0]) };
        let actor = actor(&learner(config, 1));
        let mut graph = Graph::default();
        let input = graph.input("obs", Dtype::F32, &[2]);
        actor.export(&mut graph, input).unwrap();
        assert!(!graph.outputs().is_empty());
        let constants: Vec<Vec<f32>> = graph.constants().map(|(_, array)| array.values().unwrap()).collect();
        let has = |values: [f32; 5]| constants.iter().any(|constant| *constant == values);
        assert_eq!(has([-2.0, -1.0, 0.0, 1.0, 2.0]), support.is_some());
    }
}

/// Two ranks with the same batch step by its gradient, the mean of both; where a loss is not finite, neither makes a step.
#[test]
fn ranks_with_equal_batches_make_the_update_of_one() {
    let case = &Case { sum_over_batch: false, ..cases().remove(0) };
    let saved = |learner: &Learner| {
        let mut snapshot = Snapshot::default();
        learner.save(&mut snapshot);
        snapshot
    };
    let (mut alone, mut twin) = (golden(case), golden(case));
    let group: Arc<dyn Group> = Arc::new(Twin);
    twin.join(&group, group::Config::default()).unwrap();
    let (expected, losses) = (update(&mut alone, case), update(&mut twin, case));
    assert!(losses.is_finite() && losses == expected);
    let after = saved(&twin);
    assert!(after.params == saved(&alone).params && after.params != saved(&golden(case)).params);
    let losses = twin.update(0.1, |_, batch, weights| {
        batch.r_t.fill(f32::NAN);
        weights.fill(1.0);
    });
    assert!(!losses.unwrap().is_finite() && saved(&twin).params == after.params);
}
