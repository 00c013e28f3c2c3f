//! The LSTM against PyTorch's (`golden/lstm.py`), and what an actor-critic with one remembers.

use playfield_core::rng::stream;
use playfield_core::{ActionSpace, Array, Dtype, EnvSpec, ObsRef, Snapshot};
use playfield_nn::config::InitKind;
use playfield_nn::lstm::Lstm;
use playfield_nn::params::to_vec;
use playfield_nn::{ActorCritic, Builder, NetworkConfig, RecurrentState};
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, no_grad};

#[derive(Deserialize)]
struct Golden {
    params: BTreeMap<String, Vec<f32>>,
    x: Vec<f32>,
    start: BTreeMap<String, Vec<f32>>,
    outputs: Vec<f32>,
    end: BTreeMap<String, Vec<f32>>,
    weights: Vec<f32>,
    grads: BTreeMap<String, Vec<f32>>,
}

const N: usize = 3;
const INPUTS: i64 = 2;
const WIDTH: i64 = 5;

fn close(what: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (a, e) in actual.iter().zip(expected) {
        assert!((a - e).abs() < 2e-6, "{what}: {a}, PyTorch has {e}");
    }
}

/// A memory of these numbers, through what a checkpoint holds.
fn initial_state(start: &BTreeMap<String, Vec<f32>>) -> RecurrentState {
    let mut snapshot = Snapshot::default();
    for (name, values) in start {
        snapshot.arrays.insert(format!("memory.{name}"), Array::new(&[N, WIDTH as usize], values));
    }
    let mut memory = RecurrentState::new(N, WIDTH, Device::Cpu);
    memory.load(&snapshot).unwrap();
    memory
}

/// Four steps of three sequences, of which the second starts anew before the third step.
#[test]
fn forward_and_backward_equal_pytorch() {
    let golden: Golden = serde_json::from_str(include_str!("golden/lstm.json")).unwrap();
    let mut rng = stream(1, "lstm");
    let mut b = Builder::new(&mut rng);
    let lstm = Lstm::new(&mut b, "lstm", INPUTS, WIDTH, InitKind::FanIn);
    let mut params = b.finish(Device::Cpu, Kind::Float);
    let mut snapshot = Snapshot::default();
    params.save(&mut snapshot);
    for (name, array) in &mut snapshot.params {
        *array = Array::new(&array.shape, &golden.params[name.strip_prefix("lstm.").unwrap()]);
    }
    params.load(&snapshot).unwrap();

    let x = Tensor::from_slice(&golden.x).view([-1, INPUTS]);
    let mut resets = [false; 12];
    resets[2 * N + 1] = true;
    let (y, end) = lstm.forward(params.weights(), &x, &initial_state(&golden.start), &resets);
    close("outputs", &to_vec(&y.detach()), &golden.outputs);
    let mut after = Snapshot::default();
    end.save(&mut after);
    for (name, expected) in &golden.end {
        close(name, &after.arrays[&format!("memory.{name}")].values::<f32>().unwrap(), expected);
    }
    let loss = (y.flatten(0, -1) * Tensor::from_slice(&golden.weights)).sum(Kind::Float);
    params.backward(&loss);
    for (name, array) in params.named(&params.gradient()) {
        close(&name, &array.values::<f32>().unwrap(), &golden.grads[name.strip_prefix("lstm.").unwrap()]);
    }
}

#[test]
fn the_forget_gate_starts_open() {
    let mut rng = stream(1, "lstm");
    let mut b = Builder::new(&mut rng);
    Lstm::new(&mut b, "lstm", INPUTS, WIDTH, InitKind::Orthogonal);
    let params = b.finish(Device::Cpu, Kind::Float);
    let bias = params.named(params.master())["lstm.bias"].values::<f32>().unwrap();
    let expected: Vec<f32> = (0..20).map(|i| if (5..10).contains(&i) { 1.0 } else { 0.0 }).collect();
    assert_eq!(bias, expected);
}

fn network() -> ActorCritic {
    let actions = ActionSpace::Discrete { n: 3 };
    let spec = EnvSpec::new("test", &[2], Dtype::F32, actions);
    let config = NetworkConfig { hidden: vec![4], lstm: 5, ..NetworkConfig::default() };
    ActorCritic::new(&config, &spec, "cpu", &mut stream(3, "init")).unwrap()
}

/// Three steps of two environments at once say what three steps one after the other say, where one of the episodes ends on
/// the way; and a sequence that is forgotten is a new one.
#[test]
fn a_rollout_at_once_equals_step_by_step() {
    let mut net = network();
    let obs: Vec<f32> = (0..12).map(|i| (i * 5 % 7) as f32 / 3.0 - 1.0).collect();
    no_grad(|| {
        let start = net.forward_from(&net.initial_state(2), &[], ObsRef::F32(&[0.3, -0.4, 0.9, 0.1]), 2).2;
        let resets = [false, false, false, true, false, false];
        let (_, whole, end) = net.forward_from(&start, &resets, ObsRef::F32(&obs), 6);
        let (mut memory, mut values) = (start, Vec::new());
        for (t, ended) in resets.chunks(2).enumerate() {
            memory.forget(ended);
            let (_, value, after) = net.forward_from(&memory, &[], ObsRef::F32(&obs[t * 4..t * 4 + 4]), 2);
            values.extend(to_vec(&value));
            memory = after;
        }
        close("values", &to_vec(&whole), &values);
        let saved = |memory: &RecurrentState| {
            let mut snapshot = Snapshot::default();
            memory.save(&mut snapshot);
            snapshot.arrays.values().flat_map(|a| a.values::<f32>().unwrap()).collect::<Vec<_>>()
        };
        close("memory", &saved(&end), &saved(&memory));
        memory.forget(&[true, true]);
        assert_eq!(saved(&memory), saved(&net.initial_state(2)));
    });
}

/// Without an LSTM there is nothing to remember, and nothing is saved.
#[test]
fn a_network_without_memory_saves_none() {
    let mut snapshot = Snapshot::default();
    let mut memory = RecurrentState::new(4, 0, Device::Cpu);
    memory.forget(&[true; 4]);
    memory.save(&mut snapshot);
    assert_eq!(snapshot, Snapshot::default());
    memory.load(&snapshot).unwrap();
    assert_eq!(memory.sequences(), 4);
}
