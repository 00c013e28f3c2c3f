use super::*;
use crate::normalize;
use playfield_core::group::Reduce;
use playfield_core::{ActionSpace, Dtype, StepBatch};
use playfield_nn::config::{Precision, TorsoKind};
use playfield_nn::optim::Sgd;
use tch::Kind;

/// One of two ranks; the other one has the advantages 5 and 8.
#[derive(Debug)]
struct Rank;

impl Group for Rank {
    fn rank(&self) -> usize {
        0
    }
    fn world_size(&self) -> usize {
        2
    }
    fn all_reduce(&self, values: &mut [f64], reduce: Reduce) -> Result<()> {
        assert_eq!(reduce, Reduce::Sum);
        values.iter_mut().zip([2.0, 13.0, 89.0]).for_each(|(x, other)| *x += other);
        Ok(())
    }
    fn sum(&self, _: &mut [f32], _: group::GradientPrecision) -> Result<()> {
        unreachable!()
    }
    fn broadcast(&self, _: &mut Vec<u8>) -> Result<()> {
        unreachable!()
    }
    fn gather(&self, _: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        unreachable!()
    }
}

/// Of 1, 2, 5 and 8 the mean is 4 and the variance 7.5; of 1 and 2 alone they are 1.5 and .25.
#[test]
fn advantages_are_normalized_over_all_ranks() {
    let normalized = |group: &dyn Group| {
        let values = normalize(&Tensor::from_slice(&[1.0_f32, 2.0]), group).unwrap();
        Vec::<f32>::try_from(values).unwrap()
    };
    let deviation = 7.5_f32.sqrt();
    for (value, expected) in normalized(&Rank).into_iter().zip([-3.0 / deviation, -2.0 / deviation]) {
        assert!((value - expected).abs() < 1e-6, "{value}, {expected}");
    }
    for (value, expected) in normalized(&*SingleProcess::shared()).into_iter().zip([-1.0, 1.0]) {
        assert!((value - expected).abs() < 1e-6, "{value}, {expected}");
    }
}

/// Step `t` of environments of 2 × 3 pixels with two colors: every byte is different. In each rollout of five steps environment 1 ends an
/// episode at step 2 and ignores the action of step 4; environment 2 ends one at step 5.
fn push(t: usize, first: usize, frames: &mut FrameStack, batch: &mut StepBatch) {
    batch.clear();
    for i in 0..batch.num_envs() {
        let byte = |p: usize| (100 * (first + i) + 7 * t + p) as u8;
        batch.obs_row_mut(i).u8().iter_mut().enumerate().for_each(|(p, to)| *to = byte(p));
        batch.terminated[i] = matches!((first + i, t % 5), (1, 2)) || first + i == 2 && t == 5;
        batch.ignored[i] = first + i == 1 && t % 5 == 4;
    }
    if t == 0 { frames.reset(batch) } else { frames.push(batch) }
}

fn spec(frame_stack: usize) -> EnvSpec {
    EnvSpec::new("t", &[2, 3, 2], Dtype::U8, ActionSpace::Discrete { n: 3 }).with_frame_stack(frame_stack)
}

/// Frames that are stacked on a device are the host's, over two rollouts in two batches of environments. Sampled actions, values,
/// minibatches and gradients are the same although only the host's policy can see the host's observations.
#[test]
fn a_rollout_on_a_device_is_that_of_the_host() {
    for (depth, standardize, lstm) in [(1, false, 0), (2, false, 0), (4, false, 0), (4, true, 0), (2, false, 5)] {
        let spec = spec(depth);
        let network = NetworkConfig {
            torso: TorsoKind::Mlp,
            precision: Precision::Fp32,
            standardize,
            lstm,
            hidden: vec![8],
            ..NetworkConfig::default()
        };
        let actor = || {
            let net = ActorCritic::new(&network, &spec, "cpu", &mut rng::stream(1, "init")).unwrap();
            Actor::new(net, 3, rng::stream(1, "actions"))
        };
        let (mut host, mut device) = (actor(), actor());
        device.device_rollout = DeviceRollout::new(&spec, 3, 5, Device::Cpu).unwrap();
        // A recurrent policy needs all environments in one batch.
        let batches = if lstm > 0 { vec![(0, 3)] } else { vec![(0, 2), (2, 1)] };
        let mut splits: Vec<_> = batches
            .into_iter()
            .map(|(first, n)| (first, FrameStack::new(&spec, n), StepBatch::new(&spec, n)))
            .collect();
        for start in [0, 5] {
            // The second has the same steps, and zeros as observations.
            let (mut rollout, mut blank) = (Rollout::new(&spec, 3, 5, 0.9), Rollout::new(&spec, 3, 5, 0.9));
            for t in 0..=5 {
                for (first, frames, batch) in &mut splits {
                    let n = batch.num_envs();
                    if t > 0 || start == 0 {
                        push(start + t, *first, frames, batch);
                        [&mut host, &mut device].into_iter().for_each(|actor| actor.reset_states(&batch.starts()));
                    }
                    rollout.store_observations(*first, frames);
                    blank.store_observations(*first, &FrameStack::new(&spec, n));
                    device.store_observations(t, *first, frames, &batch.obs);
                    let stored = device.device_rollout.as_ref().unwrap().at(t, *first, n).to_kind(Kind::Float);
                    let bytes = frames.observations().as_ref().u8();
                    assert!(
                        bytes.iter().map(|&p| f32::from(p)).eq(to_vec(&stored)),
                        "depth {depth}, step {}",
                        start + t
                    );
                    if t == 5 {
                        continue;
                    }
                    let expected = sample(&mut host, frames.observations(), n);
                    let zeros = Obs::zeros(Dtype::U8, bytes.len());
                    assert_close(&expected, &sample(&mut device, &zeros, n));
                    for rollout in [&mut rollout, &mut blank] {
                        rollout.record(*first, &expected.0, batch, |_| 0.0);
                    }
                }
            }
            close(&host.bootstrap(&rollout), &device.bootstrap(&blank));
            close(&host.evaluate_rollout(&rollout).values, &device.evaluate_rollout(&blank).values);
            let minibatch: Vec<usize> =
                if lstm > 0 { (0..5).flat_map(|t| [3 * t + 2, 3 * t]).collect() } else { vec![14, 0, 7] };
            let [expected, computed] = [(&mut host, &rollout), (&mut device, &blank)].map(|(actor, rollout)| {
                let (EvaluatedActions { log_probs, entropies, values }, _) =
                    actor.evaluate_minibatch(rollout, minibatch.clone());
                actor.net.backward(&(&values + log_probs + entropies).sum(Kind::Float));
                let gradient = actor.net.params.gradient();
                actor.next_rollout();
                (values, gradient)
            });
            close(&expected.0, &computed.0);
            close(&expected.1, &computed.1);
        }
    }
}

/// An update from a rollout whose observations were not stored on the device reads those of the host.
#[test]
fn a_device_rollout_that_is_not_full_is_not_used() {
    let spec = spec(2);
    let network = NetworkConfig { torso: TorsoKind::Mlp, precision: Precision::Fp32, ..NetworkConfig::default() };
    let net = ActorCritic::new(&network, &spec, "cpu", &mut rng::stream(1, "init")).unwrap();
    let mut actor = Actor::new(net, 3, rng::stream(1, "actions"));
    let (mut frames, mut batch) = (FrameStack::new(&spec, 3), StepBatch::new(&spec, 3));
    let mut rollout = Rollout::new(&spec, 3, 1, 0.9);
    for t in 0..2 {
        push(t, 0, &mut frames, &mut batch);
        rollout.store_observations(0, &frames);
        if t == 0 {
            rollout.record(0, &Actions::Discrete(vec![0; 3]), &batch, |_| 0.0);
        }
    }
    let expected = [actor.bootstrap(&rollout), actor.evaluate_rollout(&rollout).values];
    actor.device_rollout = DeviceRollout::new(&spec, 3, 1, Device::Cpu).unwrap();
    for (a, b) in expected.iter().zip([actor.bootstrap(&rollout), actor.evaluate_rollout(&rollout).values]) {
        close(a, &b);
    }
    // Full, with other observations; and the next rollout again without.
    (0..2).for_each(|t| actor.store_observations(t, 0, &FrameStack::new(&spec, 3), &Obs::zeros(Dtype::U8, 36)));
    assert!((to_vec(&actor.bootstrap(&rollout))[1] - to_vec(&expected[0])[1]).abs() > 1e-3);
    actor.next_rollout();
    close(&expected[0], &actor.bootstrap(&rollout));
    let vectors = EnvSpec::new("t", &[2], Dtype::F32, ActionSpace::Discrete { n: 3 });
    assert!(DeviceRollout::new(&vectors, 1, 1, Device::Cpu).unwrap().is_none());
}

fn sample(actor: &mut Actor, obs: &Obs, n: usize) -> Sample {
    let (mut actions, mut log_probs, mut values) = (Actions::Discrete(vec![0; n]), vec![0.0; n], vec![0.0; n]);
    let decisions = Decisions { log_probs: &mut log_probs, values: &mut values };
    actor.sample(obs, &[], &mut actions, decisions).unwrap();
    (actions, log_probs, values)
}

fn close(a: &Tensor, b: &Tensor) {
    let (a, b) = (to_vec(a), to_vec(b));
    assert!(!a.is_empty() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}, {b:?}");
}

type Sample = (Actions, Vec<f32>, Vec<f32>);

fn assert_close(a: &Sample, b: &Sample) {
    let floats = |s: &Sample| [&s.1[..], &s.2].concat();
    assert_eq!(a.0, b.0);
    assert!(floats(a).iter().zip(floats(b)).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}, {b:?}");
}

/// A transfer of policy and values changes neither.
#[test]
fn policy_and_values_are_read_at_once() {
    let (values, logits) =
        (Tensor::from_slice(&[7.0_f32, 8.0]), Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let logits = logits.view([2, 3]);
    let categorical = Distribution::Categorical { logits: logits.shallow_clone(), sizes: vec![1, 2] };
    let gaussian = Distribution::Gaussian { mean: logits.shallow_clone(), log_std: Tensor::from_slice(&[0.5_f32; 3]) };
    for policy in [categorical, gaussian] {
        let (read, read_values) = policy.to_host(&values);
        assert_eq!(to_vec(&read_values), [7.0, 8.0]);
        match &read {
            Distribution::Categorical { logits: l, sizes } => assert_eq!((l, &sizes[..]), (&logits, &[1, 2][..])),
            Distribution::Gaussian { mean, log_std } => {
                assert_eq!((mean, to_vec(log_std)), (&logits, vec![0.5; 3]));
            }
        }
    }
}

/// The norm of the second of three gradients is not finite.
#[test]
fn the_first_norm_that_is_not_finite_is_an_error() {
    let mut params = {
        let mut rng = rng::stream(1, "init");
        let mut b = playfield_nn::Builder::new(&mut rng);
        b.param("p", &[2], playfield_nn::init::Init::Constant(0.0));
        b.finish(Device::Cpu, Kind::Float)
    };
    let mut optimizer = Optimizer::new(Sgd::default(), &params);
    (0..3).for_each(|_| _ = optimizer.step(&mut params, 0.1, 0.0));
    let scalar = |value: f32| Norm::OnDevice(Tensor::from(value));
    let norms = [Norm::Known(1.0), scalar(f32::NAN), scalar(2.0)];
    let message = check_norms(&norms, &optimizer).unwrap_err().to_string();
    assert!(message.contains("NaN at update 2"), "{message}");
    assert_eq!(check_norms(&[scalar(3.0), Norm::Known(4.0), scalar(5.0)], &optimizer).unwrap(), [3.0, 4.0, 5.0]);
    assert!(check_norms(&[], &optimizer).unwrap().is_empty());
}

/// Of two environments and two steps, environment 1 ignored its action at step 0: row 1 is no transition.
#[test]
fn steps_without_an_action_are_left_out() {
    let spec = EnvSpec::new("t", &[1], Dtype::F32, ActionSpace::Discrete { n: 2 });
    let mut rollout = Rollout::new(&spec, 2, 2, 0.9);
    for ignored in [true, false] {
        let mut batch = StepBatch::new(&spec, 2);
        batch.ignored[1] = ignored;
        rollout.record(0, &Actions::Discrete(vec![0, 1]), &batch, |_| 0.0);
    }
    for (minibatch, expected) in [(vec![0, 1, 2, 3], vec![0, 2, 3]), (vec![3, 0], vec![3, 0]), (vec![1], vec![])] {
        let floats = |indices: &[usize]| indices.iter().map(|&i| i as f32).collect::<Vec<_>>();
        let values = Tensor::from_slice(&floats(&minibatch));
        let (log_probs, entropies) = (&values + 10.0, &values + 20.0);
        let evaluated = EvaluatedActions { log_probs, entropies, values };
        let (evaluated, indices) = transitions_of(&rollout, evaluated, minibatch);
        assert_eq!((&indices, to_vec(&evaluated.values)), (&expected, floats(&expected)));
        assert_eq!(to_vec(&(evaluated.log_probs - 10.0)), floats(&expected));
        assert_eq!(to_vec(&(evaluated.entropies - 20.0)), floats(&expected));
    }
}
