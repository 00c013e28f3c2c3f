//! Training in several processes: updates, determinism, resuming, and failures.
#![cfg(target_os = "linux")] // finds processes in /proc

use crate::common::{CARTPOLE, checkpoints, copy, file, files, playfield, refuses, stderr, succeeds};
use playfield::core::checkpoint::read_with_parts;
use playfield::core::files::TEMPORARY;
use playfield::core::group::{self, GradientPrecision};
use playfield::core::{
    ActionSpace, Actions, Dtype, EnvSpec, Error, FrameStack, Group, Obs, Persist as _, Rollout, Schedule, Snapshot,
    StepBatch,
};
use playfield::distributed;
use playfield::nn::NetworkConfig;
use playfield::nn::config::Precision;
use playfield::nn::optim::Sgd;
use playfield::{dqn, paac, ppo};
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

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
    group::Config { gradient_precision: GradientPrecision::Fp32, overlap_exchange: false, local_updates: false };
const BF16: group::Config = group::Config { gradient_precision: GradientPrecision::Bf16, ..FP32 };
const OVERLAP: group::Config = group::Config { overlap_exchange: true, ..FP32 };
const LOCAL: group::Config = group::Config { local_updates: true, ..FP32 };

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
    rollout_with_rewards(update, rank, ranks, 1.0)
}

/// The same with rewards that are multiplied by `scale`.
fn rollout_with_rewards(update: usize, rank: usize, ranks: usize, scale: f32) -> Rollout {
    let (spec, n) = (spec(), ENVS / ranks);
    let envs = rank * n..(rank + 1) * n;
    let (mut rollout, mut frames, mut batch) =
        (Rollout::new(&spec, n, STEPS, 0.9), FrameStack::new(&spec, n), StepBatch::new(&spec, n));
    let place = |t: usize, env: usize| (update * (STEPS + 1) + t) * ENVS + env;
    let obs = |t: usize| {
        Obs::F32(envs.clone().flat_map(|env| [noise(place(t, env)), noise(9 * place(t, env) + 5)]).collect())
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

/// With local updates, each rank makes the updates of one process with its environments, and parameters and optimizer state are the means
/// of both afterwards: the same bits on both ranks. In bf16 the changes are rounded, which is less than a twentieth of them.
#[test]
fn ppo_with_local_updates_averages_what_each_rank_computes() {
    let learner = || ppo::learner::Learner::new(&ppo_config(2), &spec(), ENVS / 2, 1).unwrap();
    // Parameters, and all arrays of the optimizer.
    let values = |learner: &mut ppo::learner::Learner| {
        let mut snapshot = Snapshot::default();
        learner.save(&mut snapshot).unwrap();
        let state = snapshot.arrays.iter().filter(|(name, _)| name.starts_with("optimizer."));
        let arrays: Vec<_> = snapshot.params.values().chain(state.map(|(_, array)| array)).collect();
        arrays.iter().flat_map(|array| array.values::<f32>().unwrap()).collect::<Vec<_>>()
    };
    let alone = [0, 1].map(|rank| {
        let mut learner = learner();
        learner.update(&rollout(0, rank, 2), 0).unwrap();
        values(&mut learner)
    });
    let mean: Vec<f32> = alone[0].iter().zip(&alone[1]).map(|(a, b)| (a + b) / 2.0).collect();
    let change = difference(&mean, &values(&mut learner()));
    assert!(difference(&mean, &alone[0]) > 1e-3 && change > 1e-3, "{change}");
    for (exchange, error) in
        [(LOCAL, 0.0..=1e-6), (group::Config { local_updates: true, ..BF16 }, 1e-6..=change / 20.0)]
    {
        let ranks = |rollouts: usize| {
            two_ranks(|group| {
                let mut learner = learner();
                learner.join(&group, exchange).unwrap();
                (0..rollouts).for_each(|i| _ = learner.update(&rollout(i, group.rank(), 2), 0).unwrap());
                values(&mut learner)
            })
        };
        let (first, third) = (ranks(1), ranks(3));
        assert!(first[0] == first[1] && third[0] == third[1] && first[0] != third[0]);
        let off = difference(&first[0], &mean);
        assert!(error.contains(&off), "{exchange:?}: {off}, change {change}");
    }
}

/// A rank whose gradient is not finite stops, and so does the other one.
#[test]
fn a_rank_that_diverges_in_a_local_update_stops_all() {
    let config = ppo::Config { normalize_advantage: false, ..ppo_config(2) };
    let errors = two_ranks(|group| {
        let mut learner = ppo::learner::Learner::new(&config, &spec(), ENVS / 2, 1).unwrap();
        learner.join(&group, LOCAL).unwrap();
        let scale = if group.rank() == 1 { f32::NAN } else { 1.0 };
        learner.update(&rollout_with_rewards(0, group.rank(), 2, scale), 0).unwrap_err()
    });
    assert!(matches!(&errors[..], [Error::Group { .. }, Error::Diverged(_)]), "{errors:?}");
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

/// The settings of a short run of each algorithm that trains in several processes.
fn experiments() -> [(&'static str, String); 4] {
    let paac = CARTPOLE.replace("num_envs = 4", "num_envs = 4\nnormalize_obs = true\nnormalize_reward = true");
    let paac = paac.replace("[env]", "[distributed]\noverlap_exchange = true\n[env]");
    let ppo = "algorithm = 'ppo'\n[distributed]\ngradient_precision = 'bf16'\n[env]\nid = 'Catch'\nnum_envs = 4\n[ppo]\nnum_threads = 1\nrollout_steps = 20\nminibatch_size = 40\n\
               learning_rate.steps = 4000\nclip_range.steps = 4000\n";
    let dqn = "algorithm = 'dqn'\n[env]\nid = 'CartPole'\nnum_envs = 4\nnormalize_obs = true\n[dqn]\nnum_threads = 1\nprioritized = true\n\
               beta.steps = 4000\nlearning_starts = 200\nbuffer_size = 1000\nnoisy_sigma = 0.5\n";
    [
        ("paac", paac.replace("steps = 4000\n", "") + "learning_rate.steps = 4000\n"),
        ("ppo", ppo.into()),
        ("ppo, local updates", ppo.replace("[env]", "local_updates = true\n[env]")),
        ("dqn", dqn.into()),
    ]
}

/// The last checkpoint of a run, without the time that it took: of all ranks.
fn last(run: &Path) -> Vec<Snapshot> {
    let (first, parts) = read_with_parts(checkpoints(run).last().unwrap()).unwrap();
    let mut all: Vec<_> = [vec![first], parts].concat();
    for snapshot in &mut all {
        snapshot.state.remove("run.elapsed_seconds");
        // Files of frames are per session.
        snapshot.state.remove("replay.segments");
    }
    all
}

/// The signal of `PLAYFIELD_FAULT=kill`: the process aborts.
const SIGABRT: i32 = 6;

const LAUNCH: [&str; 6] = ["launch", "--processes", "2", "--timeout", "60", "--"];

/// The settings reach the optimizer: other ones end with other parameters.
#[test]
fn the_exchange_of_gradients_changes_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let [(_, paac), ..] = experiments();
    file(dir, "a.toml", &paac);
    let run = |name: &str, precision: &str, overlap: &str| {
        let args = ["train", "a.toml", "--steps", "80", "--run-dir", name];
        let set = [
            "--set",
            &format!("gradient_precision={precision}"),
            "--set",
            &format!("distributed.overlap_exchange={overlap}"),
        ];
        succeeds(dir, &[&LAUNCH[..], &args, &set].concat());
        last(&dir.join(name)).remove(0)
    };
    let (bf16, fp32, overlap) = (run("a", "bf16", "false"), run("b", "fp32", "false"), run("c", "fp32", "true"));
    assert!(bf16.params != fp32.params && overlap.params != fp32.params);
    let pending = |snapshot: &Snapshot| snapshot.arrays.keys().any(|name| name.contains("pending_gradient"));
    assert!(pending(&overlap) && !pending(&fp32), "a checkpoint contains the gradient that has not been applied");
    let [_, (_, synchronous), (_, local), _] = experiments();
    let [synchronous, local] = [("synchronous", synchronous), ("local", local)].map(|(name, text)| {
        file(dir, "a.toml", &text);
        succeeds(dir, &[&LAUNCH[..], &["train", "a.toml", "--steps", "160", "--run-dir", name]].concat());
        last(&dir.join(name)).remove(0)
    });
    assert!(synchronous.params != local.params && synchronous.step == local.step);
}

/// Only PAAC overlaps the exchange with a rollout, and only PPO has local updates. One process ignores both settings.
#[test]
fn settings_of_the_exchange_that_an_algorithm_does_not_have_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [paac, ppo, _, dqn] = &experiments();
    let without = |text: &str| text.replace("overlap_exchange = true", "");
    for ((name, text), key) in [
        (ppo, "distributed.overlap_exchange"),
        (dqn, "distributed.overlap_exchange"),
        (paac, "distributed.local_updates"),
        (dqn, "distributed.local_updates"),
    ] {
        file(dir.path(), "a.toml", &without(text));
        let args = ["train", "a.toml", "--steps", "100", "--set", &format!("{key}=true")];
        let said = refuses(dir.path(), &[&LAUNCH[..], &args].concat());
        assert!(said.contains(&format!("`{key}` must be false")), "{name}: {said}");
        succeeds(dir.path(), &args);
    }
}

/// With local updates each of two processes would normalize one advantage by itself.
#[test]
fn a_local_minibatch_of_one_transition_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [_, _, (_, local), _] = experiments();
    file(dir.path(), "a.toml", &local.replace("minibatch_size = 40", "minibatch_size = 2"));
    let said = refuses(dir.path(), &[&LAUNCH[..], &["train", "a.toml", "--steps", "100"]].concat());
    assert!(said.contains("set minibatch_size to at least 4"), "{said}");
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
        learner.update(&rollout_with_rewards(0, group.rank(), 2, scale), 0).unwrap();
        let before = parameters(&mut |snapshot| learner.save(snapshot).unwrap());
        let error = learner.update(&rollout(1, group.rank(), 2), 0).unwrap_err();
        (matches!(error, Error::Diverged(_)), before == parameters(&mut |snapshot| learner.save(snapshot).unwrap()))
    });
    assert_eq!(ranks, [(true, true), (true, true)]);
}

/// An interrupted and resumed run of two processes equals an uninterrupted one, bit for bit. With another number of processes it
/// resumes, too, and a warning says that it is not exact.
#[test]
fn a_run_of_two_processes_is_deterministic_and_resumes_exactly() {
    for (name, text) in experiments() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        file(dir, "a.toml", &text);
        let launch = |args: &[&str]| succeeds(dir, &[&LAUNCH, args].concat());
        let said = launch(&["train", "a.toml", "--steps", "1200", "--run-dir", "whole"]);
        assert!(said.contains("1,200 of 1,200") && said.matches("\ncheckpoint ").count() == 1, "{name}: {said}");
        launch(&["train", "a.toml", "--steps", "600", "--run-dir", "halves"]);
        launch(&["train", "--resume", "halves", "--steps", "1200"]);
        let (whole, halves) = (last(&dir.join("whole")), last(&dir.join("halves")));
        assert_eq!(whole.len(), 2);
        assert_ne!(whole[0].state, whole[1].state, "{name}: ranks have their own random streams");
        for (rank, (whole, halves)) in whole.iter().zip(&halves).enumerate() {
            assert_eq!((whole.step, &whole.params), (halves.step, &halves.params), "{name}, rank {rank}");
            assert!(whole.arrays == halves.arrays && whole.state == halves.state, "{name}, rank {rank}");
        }
        let episodes = fs::read_to_string(dir.join("whole/episodes.csv")).unwrap();
        let steps: Vec<u64> = episodes.lines().skip(1).map(|l| l.split(',').next().unwrap().parse().unwrap()).collect();
        assert!(steps.is_sorted() && *steps.last().unwrap() > 1000, "{name}: {steps:?}");

        let output = playfield(dir, &["train", "--resume", "halves", "--steps", "1600"]).output().unwrap();
        let said = stderr(&output);
        let warning = |from: usize, to: usize| format!("the checkpoint is of {from} processes, and this run has {to}");
        assert!(output.status.success() && said.contains(&warning(2, 1)), "{name}: {said}");
        assert_eq!(last(&dir.join("halves")).len(), 1);
        let resume = [&LAUNCH[..], &["train", "--resume", "halves", "--steps", "2000"]].concat();
        let output = playfield(dir, &resume).output().unwrap();
        assert!(output.status.success() && stderr(&output).contains(&warning(1, 2)), "{name}: {}", stderr(&output));
        let all = last(&dir.join("halves"));
        assert_eq!((all.len(), all[0].step), (2, 2000), "{name}");
    }
}

#[test]
fn settings_that_cannot_be_divided_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    let refuses = |args: &[&str]| refuses(dir, &[&LAUNCH, args].concat());
    let said = refuses(&["train", "a.toml", "--set", "num_envs=3"]);
    assert!(said.contains("error: `env.num_envs` = 3 must be a multiple of the number of processes, 2"), "{said}");
    file(dir, "a3c.toml", "algorithm = 'a3c'\nsteps = 100\n[env]\nid = 'CartPole'\nnum_envs = 4\n");
    let said = refuses(&["train", "a3c.toml"]);
    assert!(said.contains("algorithm = \"a3c\" trains in one process") && said.contains("use paac or ppo"), "{said}");
    assert!(!dir.join("runs").exists() || fs::read_dir(dir.join("runs")).unwrap().count() == 0, "nothing remains");
    for (args, expected) in [
        (&["eval", "x"][..], "the command must be `train`"),
        (&["train", "a.toml", "--seeds", "2"], "--seeds and --gif are for training in one process"),
        (&["train", "a.toml", "--stepz", "2"], "unexpected argument '--stepz'"),
    ] {
        assert!(refuses(args).contains(expected), "{}", refuses(args));
    }
}

/// Starts `rank` of two without the launcher.
fn start_rank(dir: &Path, rank: usize, port: u16, args: &[&str], variables: &[(&str, &str)]) -> Child {
    let mut command = playfield(dir, args);
    command.env("RANK", rank.to_string()).env("WORLD_SIZE", "2").env("PLAYFIELD_GROUP_TIMEOUT", "60");
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string()).envs(variables.iter().copied());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Different settings: both ranks end, and the second names the key.
#[test]
fn ranks_with_different_settings_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "a.toml", CARTPOLE);
    let port = free_port();
    let args = |set| ["train", "a.toml", "--run-dir", "run", "--set", set];
    let ranks = [(0, "gamma=0.99"), (1, "gamma=0.9")];
    let ranks = ranks.map(|(rank, set)| start_rank(dir.path(), rank, port, &args(set), &[]));
    let [first, second] = ranks.map(|rank| rank.wait_with_output().unwrap());
    assert_eq!((first.status.code(), second.status.code()), (Some(2), Some(2)));
    assert!(stderr(&first).contains("another rank has other settings"), "{}", stderr(&first));
    assert!(stderr(&second).contains("rank 1 has another value of `paac.gamma` than rank 0"), "{}", stderr(&second));
    assert!(!dir.path().join("run").exists());
}

/// A launched run that takes long, and saves often.
struct Launched {
    launcher: Child,
    dir: tempfile::TempDir,
}

impl Launched {
    fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let often = "steps = 400_000_000\n[run]\ncheckpoint_seconds = 0.2\n";
        file(
            dir.path(),
            "a.toml",
            &CARTPOLE.replace("steps = 4000\n", "").replacen("[env]", &format!("{often}[env]"), 1),
        );
        let args = [&["launch", "--processes", "2"], options, &["--", "train", "a.toml", "--run-dir", "run"]].concat();
        let mut command = playfield(dir.path(), &args);
        let launcher = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self { launcher, dir }
    }

    /// The process ids of the ranks: children of the launcher with the variable RANK.
    fn ranks(&self) -> Vec<i32> {
        let parent = format!("PPid:\t{}", self.launcher.id());
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let rank = |id: i32| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            status.lines().find(|line| *line == parent)?;
            let variables = fs::read(format!("/proc/{id}/environ")).ok()?;
            let of = |variable: &[u8]| String::from_utf8_lossy(variable.strip_prefix(b"RANK=")?).parse::<usize>().ok();
            Some((variables.split(|byte| *byte == 0).find_map(of)?, id))
        };
        let mut found: Vec<_> = ids.filter_map(rank).collect();
        found.sort();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Waits until `count` checkpoints have been written, and returns the last one's step.
    fn wait_for_checkpoint(&self, after: u64) -> u64 {
        let started = Instant::now();
        loop {
            let steps = checkpoints(&self.dir.path().join("run"));
            let steps = steps.iter().filter_map(|path| path.file_name()?.to_str()?.parse::<u64>().ok());
            if let Some(step) = steps.max().filter(|step| *step > after) {
                return step;
            }
            assert!(started.elapsed() < Duration::from_secs(120), "no checkpoint");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end; no process is left then.
    fn end(self, ranks: &[i32]) -> (Output, tempfile::TempDir) {
        let output = self.launcher.wait_with_output().unwrap();
        assert!(ranks.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists()), "{ranks:?}: {}", stderr(&output));
        (output, self.dir)
    }
}

fn signal(id: i32, name: &str) {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Whichever rank is killed, the other ends, the error names the rank, and the last checkpoint is undamaged.
#[test]
fn a_killed_rank_ends_the_run() {
    for killed in [0, 1] {
        let run = Launched::start(&["--timeout", "30"]);
        run.wait_for_checkpoint(0);
        let ranks = run.ranks();
        assert_eq!(ranks.len(), 2);
        signal(ranks[killed], "KILL");
        let (output, dir) = run.end(&ranks);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("error: rank {killed} was ended by signal 9")), "{said}");
        let other = format!("error: rank {}: ", 1 - killed);
        assert!(said.contains(&other) && said.contains(&format!("rank {killed} has ended")), "{said}");
        assert_eq!(last(&dir.path().join("run")).len(), 2);
    }
}

/// A rank ends in the middle of a save: rank 0 while it writes the checkpoint, rank 1 while it writes the frames of its replay buffer.
/// The other ends and names it. The run resumes from the last complete checkpoint, bit for bit as if it had not been interrupted.
#[test]
fn a_rank_that_ends_in_a_save_leaves_a_complete_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let [.., (_, dqn)] = experiments();
    // Few operations on files beside the checkpoint.
    let text = dqn.replacen("[env]", "[run]\nlog_seconds = 1e6\nlog_steps = 1_000_000\n[env]", 1);
    file(dir, "a.toml", &text);
    let train = |args: &[&str]| succeeds(dir, &[&LAUNCH[..], &["train"], args].concat());
    train(&["a.toml", "--steps", "400", "--run-dir", "run"]);
    copy(&dir.join("run"), &dir.join("saved"));
    let resume = ["train", "--resume", "run", "--steps", "800"];
    train(&resume[1..]);
    let uninterrupted = last(&dir.join("run"));
    let unfinished = || files(&dir.join("run")).into_iter().filter(|name| name.contains(TEMPORARY)).collect::<Vec<_>>();
    for (killed, operation, file) in [(0, 30, "state.safetensors"), (0, 40, "rank-1.json"), (1, 3, "rank-1/replay/")] {
        fs::remove_dir_all(dir.join("run")).unwrap();
        copy(&dir.join("saved"), &dir.join("run"));
        let port = free_port();
        let fault = format!("kill:{operation}");
        let start = |rank| {
            let variables = [("PLAYFIELD_FAULT", fault.as_str())];
            start_rank(dir, rank, port, &resume, if rank == killed { &variables } else { &[] })
        };
        let ranks = [start(0), start(1)].map(|rank| rank.wait_with_output().unwrap());
        let (ended, said) = (&ranks[killed], stderr(&ranks[1 - killed]));
        assert_eq!(ended.status.signal(), Some(SIGABRT), "rank {killed}, {fault}: {}", stderr(ended));
        assert_eq!(ranks[1 - killed].status.code(), Some(3), "rank {killed}, {fault}: {said}");
        assert!(said.contains(&format!("rank {killed} has ended")), "rank {killed}, {fault}: {said}");
        assert!(unfinished().iter().any(|name| name.contains(file)), "{fault} is not in {file}: {:?}", unfinished());
        train(&resume[1..]);
        assert!(unfinished().is_empty(), "{:?}", unfinished());
        let resumed = last(&dir.join("run"));
        assert_eq!(resumed.len(), uninterrupted.len());
        for (resumed, uninterrupted) in resumed.iter().zip(&uninterrupted) {
            assert_eq!((resumed.step, &resumed.params), (uninterrupted.step, &uninterrupted.params));
            assert!(resumed.arrays == uninterrupted.arrays && resumed.state == uninterrupted.state);
        }
    }
}

/// A rank that is stopped for longer than the timeout is killed.
#[test]
fn a_rank_that_does_not_respond_ends_the_run() {
    for stopped in [0, 1] {
        let run = Launched::start(&["--timeout", "4"]);
        run.wait_for_checkpoint(0);
        let ranks = run.ranks();
        signal(ranks[stopped], "STOP");
        let (output, _) = run.end(&ranks);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("error: rank {stopped} does not respond")), "{said}");
    }
}

/// A request to one rank, and then the launcher's, stop all: the run is saved.
#[test]
fn an_interrupted_rank_stops_and_saves_the_run() {
    for to_launcher in [false, true] {
        let run = Launched::start(&[]);
        let step = run.wait_for_checkpoint(0);
        let ranks = run.ranks();
        signal(if to_launcher { run.launcher.id() as i32 } else { ranks[1] }, "INT");
        let (output, dir) = run.end(&ranks);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(130), "{said}");
        let all = last(&dir.path().join("run"));
        assert!(all.len() == 2 && all[0].step >= step, "{said}");
    }
}

/// After a restart the run resumes from its last checkpoint.
#[test]
fn a_failed_run_restarts_from_its_last_checkpoint() {
    let run = Launched::start(&["--timeout", "30", "--max-restarts", "1"]);
    let step = run.wait_for_checkpoint(0);
    signal(run.ranks()[1], "KILL");
    let sessions = run.dir.path().join("run/command.txt");
    let started = Instant::now();
    while fs::read_to_string(&sessions).unwrap().lines().count() < 2 {
        assert!(started.elapsed() < Duration::from_secs(120), "no restart");
        thread::sleep(Duration::from_millis(20));
    }
    run.wait_for_checkpoint(step + 1);
    let ranks = run.ranks();
    signal(run.launcher.id() as i32, "INT");
    let (output, dir) = run.end(&ranks);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("rank 1 was ended by signal 9; restart 1 of 1"), "{said}");
    assert!(fs::read_to_string(dir.path().join("run/command.txt")).unwrap().contains("train --resume"));
}

/// `torchrun` starts two ranks, for which it serves the store, and a second call resumes their run. Skipped where no Python imports
/// PyTorch: that of `make setup` has only the half of its wheel that playfield links.
#[test]
fn torchrun_starts_the_ranks() {
    let torchrun = |python: &str| {
        let mut command = Command::new(python);
        // Another libtorch than that of the wheel.
        command.env_remove("LD_LIBRARY_PATH").args(["-m", "torch.distributed.run"]);
        command
    };
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/python");
    let imports = |python: &&str| torchrun(python).arg("--help").output().is_ok_and(|output| output.status.success());
    let Some(python) = [own, "python3"].into_iter().find(imports) else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    file(dir, "a.toml", CARTPOLE);
    for (args, steps) in [(&["train", "a.toml", "--run-dir", "run"][..], 400), (&["train", "--resume", "run"], 800)] {
        let mut command = torchrun(python);
        command.args(["--no-python", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]);
        command.args(["--master-port", &free_port().to_string(), env!("CARGO_BIN_EXE_playfield")]);
        let output = command.args(args).args(["--steps", &steps.to_string()]).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let ranks = last(&dir.join("run"));
        assert_eq!((ranks.len(), ranks[0].step), (2, steps));
    }
}
