//! What learners compute as one of two ranks: the updates of one process, rounding, divergence. The ranks are threads.
#![cfg(target_os = "linux")] // as the tests of processes

use crate::common::free_port;
use playfield::core::group::{self, GradientPrecision};
use playfield::core::{
    ActionSpace, Actions, Dtype, EnvSpec, Error, FrameStack, Group, Obs, Persist as _, Rollout, Schedule, Snapshot,
    StepBatch,
};
use playfield::distributed;
use playfield::nn::NetworkConfig;
use playfield::nn::config::{Kernels, Precision, TorsoKind};
use playfield::nn::optim::Sgd;
use playfield::{dqn, paac, ppo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The results of `rank` on two threads, each of which has joined a group as one of two ranks.
fn two_ranks<T: Send>(rank: impl Fn(Arc<dyn Group>) -> T + Sync) -> Vec<T> {
    let port = free_port();
    thread::scope(|scope| {
        let start = |i: usize| {
            let rank = &rank;
            scope.spawn(move || {
                let config = distributed::Config {
                    rank: i,
                    world_size: 2,
                    master_address: "127.0.0.1".into(),
                    master_port: port,
                    interface: None,
                    timeout: Duration::from_secs(60),
                    agent_attempt: None,
                };
                rank(Arc::new(distributed::Group::join(&config).unwrap()))
            })
        };
        let threads = [0, 1].map(start);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The network's parameters, as one list.
fn parameters(learner: &mut impl FnMut(&mut Snapshot)) -> Vec<f32> {
    let mut snapshot = Snapshot::default();
    learner(&mut snapshot);
    snapshot.params.values().flat_map(|array| array.values::<f32>().unwrap()).collect()
}

/// The largest difference between two elements.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

const FP32: group::Config =
    group::Config { gradient_precision: GradientPrecision::Fp32, overlap_exchange: false, gradient_rank: 0 };
const BF16: group::Config = group::Config { gradient_precision: GradientPrecision::Bf16, ..FP32 };
const OVERLAP: group::Config = group::Config { overlap_exchange: true, ..FP32 };

/// What `train` computes on two ranks after three updates equals what it computes in one process: both ranks have the same parameters,
/// bit for bit, and those of one process to rounding. They have changed by more.
fn check(train: impl Fn(Option<(Arc<dyn Group>, group::Config)>, usize) -> Vec<f32> + Sync) {
    let (one, before) = (train(None, 3), train(None, 0));
    let change = difference(&one, &before);
    let ranks = |exchange| two_ranks(|group| train(Some((group, exchange)), 3));
    let (fp32, bf16) = (ranks(FP32), ranks(BF16));
    assert!(fp32[0] == fp32[1] && bf16[0] == bf16[1]);
    let (fp32, bf16) = (difference(&fp32[0], &one), difference(&bf16[0], &one));
    assert!(fp32 < 1e-5 && change > 1e-3, "rounding {fp32}, change {change}");
    assert!(bf16 > 1e-6 && bf16 < change / 20.0, "bf16: rounding {bf16}, change {change}");
}

const ENVS: usize = 4;
const STEPS: usize = 3;

fn spec() -> EnvSpec {
    EnvSpec::new("test", &[2], Dtype::F32, ActionSpace::Discrete { n: 3 })
}

fn network() -> NetworkConfig {
    NetworkConfig { hidden: vec![6], precision: Precision::Fp32, ..NetworkConfig::default() }
}

/// Numbers in −1 to 1 that look random.
fn noise(i: usize) -> f32 {
    (i as f32 * 12.9898).sin()
}

/// Update `update`'s rollout in the environments of `rank` of `ranks`. Environment 1 terminates at step 1.
fn rollout(update: usize, rank: usize, ranks: usize) -> Rollout {
    rollout_of(&spec(), update, rank, ranks, 1.0)
}

/// The same of environments with other observations, and with rewards that are multiplied by `scale`.
fn rollout_of(spec: &EnvSpec, update: usize, rank: usize, ranks: usize, scale: f32) -> Rollout {
    let n = ENVS / ranks;
    let envs = rank * n..(rank + 1) * n;
    let (mut rollout, mut frames, mut batch) =
        (Rollout::new(spec, n, STEPS, 0.9), FrameStack::new(spec, n), StepBatch::new(spec, n));
    let place = |t: usize, env: usize| (update * (STEPS + 1) + t) * ENVS + env;
    let obs = |t: usize| match spec.dtype {
        Dtype::F32 => {
            Obs::F32(envs.clone().flat_map(|env| [noise(place(t, env)), noise(9 * place(t, env) + 5)]).collect())
        }
        _ => {
            let pixel = |env, i| (128.0 + 127.0 * noise(place(t, env) * 10_000 + i)) as u8;
            Obs::U8(envs.clone().flat_map(|env| (0..spec.obs_len()).map(move |i| pixel(env, i))).collect())
        }
    };
    batch.obs = obs(0);
    frames.reset(&batch);
    for t in 0..STEPS {
        rollout.store_observations(0, &frames);
        for (i, env) in envs.clone().enumerate() {
            let decisions = rollout.decisions(0, n);
            (decisions.log_probs[i], decisions.values[i]) =
                (-1.0 + 0.1 * noise(place(t, env)), noise(7 * place(t, env)));
        }
        batch.clear();
        batch.obs = obs(t + 1);
        for (i, env) in envs.clone().enumerate() {
            batch.reward[i] = scale * noise(3 * place(t, env) + 1);
            batch.terminated[i] = env == 1 && t == 1;
        }
        let actions = Actions::Discrete(envs.clone().map(|env| (place(t, env) % 3) as i64).collect());
        frames.push(&batch);
        rollout.record(0, &actions, &batch, |_| 0.0);
    }
    rollout.store_observations(0, &frames);
    rollout
}

/// Two ranks with half of the environments each compute the updates of one process with all: the gradient's norm is clipped and
/// advantages are normalized, both over all environments. Ranks start with different parameters and take those of rank 0. With an exchange
/// that overlaps with the rollout the same updates are made, each with the next rollout.
#[test]
fn paac_on_two_ranks_computes_the_update_of_one_process() {
    let config = paac::Config {
        rollout_steps: STEPS,
        learning_rate: Schedule::constant(0.01),
        normalize_advantage: true,
        gradient_clip: 0.5,
        num_threads: 1,
        network: network(),
        device: "cpu".into(),
        ..paac::Config::default()
    };
    let train = |group: Option<(Arc<dyn Group>, group::Config)>, updates| {
        let (rank, ranks) = group.as_ref().map_or((0, 1), |(group, _)| (group.rank(), group.world_size()));
        let mut learner = paac::learner::Learner::new(&config, &spec(), ENVS / ranks, 1 + rank as u64).unwrap();
        group.iter().for_each(|(group, exchange)| learner.join(group, *exchange).unwrap());
        (0..updates).for_each(|i| _ = learner.update(&rollout(i, rank, ranks), 0).unwrap());
        parameters(&mut |snapshot| learner.save(snapshot).unwrap())
    };
    check(train);
    let overlapped = two_ranks(|group| train(Some((group, OVERLAP)), 4));
    let off = difference(&overlapped[0], &train(None, 3));
    assert!(overlapped[0] == overlapped[1] && off < 1e-5, "rounding {off}");
}

/// The mean of two gradients g and h in bf16, whose unit roundoff u is 2⁻⁸: each is rounded, and so is their sum, so that the error
/// of an element is at most u (1 + u) (|g| + |h|), and nothing is added to it.
#[test]
fn a_gradient_in_bf16_has_the_error_of_rounding() {
    let config = paac::Config {
        rollout_steps: STEPS,
        // With SGD and a learning rate of 1 a step is the gradient.
        optimizer: Sgd::default().into(),
        learning_rate: Schedule::constant(1.0),
        gradient_clip: 0.0,
        num_threads: 1,
        network: network(),
        device: "cpu".into(),
        ..paac::Config::default()
    };
    // The gradient of `part` of `parts` of the environments, or that of a group.
    let gradient = |part: usize, parts: usize, group: Option<(Arc<dyn Group>, group::Config)>| {
        let mut learner = paac::learner::Learner::new(&config, &spec(), ENVS / parts, 1).unwrap();
        group.iter().for_each(|(group, exchange)| learner.join(group, *exchange).unwrap());
        let before = parameters(&mut |snapshot| learner.save(snapshot).unwrap());
        learner.update(&rollout(0, part, parts), 0).unwrap();
        let after = parameters(&mut |snapshot| learner.save(snapshot).unwrap());
        before.into_iter().zip(after).map(|(before, after)| before - after).collect::<Vec<_>>()
    };
    let (g, h, exact) = (gradient(0, 2, None), gradient(1, 2, None), gradient(0, 1, None));
    let ranks = || two_ranks(|group| gradient(group.rank(), 2, Some((group, BF16))));
    let (first, second) = (ranks(), ranks());
    assert!(first == second && first[0] == first[1], "every rank and every run has the same bits");
    let unit = 2_f32.powi(-8);
    for (i, ((g, h), exact)) in g.iter().zip(&h).zip(&exact).enumerate() {
        let (error, bound) = ((first[0][i] - exact).abs(), unit * (1.0 + unit) * (g.abs() + h.abs()));
        assert!(error <= bound + 1e-6, "element {i}: error {error}, bound {bound}");
    }
    assert!(difference(&first[0], &exact) > 1e-4, "nothing is rounded");
}

/// Three epochs of one minibatch each, for one of `ranks` ranks.
fn ppo_config(ranks: usize) -> ppo::Config {
    ppo::Config {
        rollout_steps: STEPS,
        minibatch_size: STEPS * ENVS / ranks,
        epochs: 3,
        learning_rate: Schedule::constant(0.01),
        network: network(),
        num_threads: 1,
        device: "cpu".into(),
        ..ppo::Config::default()
    }
}

#[test]
fn ppo_on_two_ranks_computes_the_update_of_one_process() {
    check(|group, updates| {
        let (rank, ranks) = group.as_ref().map_or((0, 1), |(group, _)| (group.rank(), group.world_size()));
        let mut learner =
            ppo::learner::Learner::new(&ppo_config(ranks), &spec(), ENVS / ranks, 1 + rank as u64).unwrap();
        group.iter().for_each(|(group, exchange)| learner.join(group, *exchange).unwrap());
        (0..updates).for_each(|i| _ = learner.update(&rollout(i, rank, ranks), 0).unwrap());
        parameters(&mut |snapshot| learner.save(snapshot).unwrap())
    });
}

/// The same with frames and convolutions that compute in bf16, to its rounding: the changes of all parameters point into the same direction.
/// With approximated gradients the ranks have the same parameters, too.
#[test]
fn convolutions_on_two_ranks_learn_as_in_one_process() {
    let spec = EnvSpec::new("test", &[36, 36], Dtype::U8, ActionSpace::Discrete { n: 3 });
    for kernels in [Kernels::Own, Kernels::Libtorch] {
        let precision = Precision::Bf16;
        let network = NetworkConfig { torso: TorsoKind::Nips, kernels, precision, ..NetworkConfig::default() };
        let train = |group: Option<(Arc<dyn Group>, group::Config)>, updates| {
            let (rank, ranks) = group.as_ref().map_or((0, 1), |(group, _)| (group.rank(), group.world_size()));
            let config =
                ppo::Config { network: network.clone(), learning_rate: Schedule::constant(1e-4), ..ppo_config(ranks) };
            let mut learner = ppo::learner::Learner::new(&config, &spec, ENVS / ranks, 1 + rank as u64).unwrap();
            group.iter().for_each(|(group, exchange)| learner.join(group, *exchange).unwrap());
            (0..updates).for_each(|i| _ = learner.update(&rollout_of(&spec, i, rank, ranks, 1.0), 0).unwrap());
            parameters(&mut |snapshot| learner.save(snapshot).unwrap())
        };
        let before = train(None, 0);
        let change = |after: &[f32]| after.iter().zip(&before).map(|(a, b)| a - b).collect::<Vec<_>>();
        let one = change(&train(None, 3));
        let both = two_ranks(|group| train(Some((group, FP32)), 3));
        assert!(both[0] == both[1]);
        let approximated = two_ranks(|group| train(Some((group, group::Config { gradient_rank: 2, ..BF16 })), 3));
        assert!(approximated[0] == approximated[1] && approximated[0] != both[0]);
        let two = change(&both[0]);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(&one, &two) / (dot(&one, &one) * dot(&two, &two)).sqrt();
        assert!(cosine > 0.99, "{kernels:?}: {cosine}");
    }
}

/// Both forms of the loss: a sum over the batch and a mean.
#[test]
fn dqn_on_two_ranks_computes_the_update_of_one_process() {
    const BATCH: usize = 6;
    for sum_over_batch in [true, false] {
        let config = |ranks: usize| dqn::Config {
            batch_size: BATCH / ranks,
            sum_over_batch,
            learning_rate: Schedule::constant(0.01),
            gradient_clip: 0.5,
            overlap: false,
            num_threads: 1,
            network: network(),
            device: "cpu".into(),
            ..dqn::Config::default()
        };
        check(|group, updates| {
            let (rank, ranks) = group.as_ref().map_or((0, 1), |(group, _)| (group.rank(), group.world_size()));
            let mut learner = dqn::learner::Learner::new(config(ranks), &spec(), 1 + rank as u64).unwrap();
            group.iter().for_each(|(group, exchange)| learner.join(group, *exchange).unwrap());
            for update in 0..updates {
                let losses = learner.update(0.01, |rows, batch, weights| {
                    let first = update * BATCH + rank * (BATCH / ranks) + rows.start;
                    let places = first..first + rows.len();
                    let floats = |k: usize| places.clone().map(|i| noise(i * 11 + k)).collect::<Vec<_>>();
                    let pairs =
                        |k: usize| places.clone().flat_map(|i| [noise(i * 13 + k), noise(i * 17 + k)]).collect();
                    (batch.s_tm1, batch.s_t) = (Obs::F32(pairs(1)), Obs::F32(pairs(2)));
                    batch.a_tm1 = places.clone().map(|i| (i % 3) as i64).collect();
                    batch.r_t = floats(3);
                    batch.discount_t = vec![0.9; rows.len()];
                    weights.copy_from_slice(&floats(4).iter().map(|x| x.abs()).collect::<Vec<_>>());
                });
                assert!(losses.unwrap().is_finite());
            }
            parameters(&mut |snapshot| learner.save(snapshot))
        });
    }
}

/// A rank whose loss is not finite stops the update of all.
#[test]
fn a_loss_that_is_not_finite_on_one_rank_changes_no_rank() {
    let config = dqn::Config {
        batch_size: 2,
        overlap: false,
        num_threads: 1,
        network: network(),
        device: "cpu".into(),
        ..dqn::Config::default()
    };
    let ranks = two_ranks(|group| {
        let mut learner = dqn::learner::Learner::new(config.clone(), &spec(), 1).unwrap();
        learner.join(&group, BF16).unwrap();
        let before = parameters(&mut |snapshot| learner.save(snapshot));
        let losses = learner.update(0.01, |_, batch, weights| {
            batch.r_t.fill(if group.rank() == 1 { f32::NAN } else { 1.0 });
            weights.fill(1.0);
        });
        (losses.unwrap().is_finite(), before == parameters(&mut |snapshot| learner.save(snapshot)))
    });
    assert_eq!(ranks, [(false, true), (false, true)]);
}

/// With overlap, a gradient that is not finite on one rank ends the training of all, and the parameters stay.
#[test]
fn a_pending_gradient_that_is_not_finite_changes_no_rank() {
    let config = paac::Config { rollout_steps: STEPS, num_threads: 1, network: network(), ..paac::Config::default() };
    let ranks = two_ranks(|group| {
        let config = paac::Config { device: "cpu".into(), ..config.clone() };
        let mut learner = paac::learner::Learner::new(&config, &spec(), ENVS / 2, 1).unwrap();
        learner.join(&group, OVERLAP).unwrap();
        let scale = if group.rank() == 1 { f32::NAN } else { 1.0 };
        learner.update(&rollout_of(&spec(), 0, group.rank(), 2, scale), 0).unwrap();
        let before = parameters(&mut |snapshot| learner.save(snapshot).unwrap());
        let error = learner.update(&rollout(1, group.rank(), 2), 0).unwrap_err();
        (matches!(error, Error::Diverged(_)), before == parameters(&mut |snapshot| learner.save(snapshot).unwrap()))
    });
    assert_eq!(ranks, [(true, true), (true, true)]);
}
