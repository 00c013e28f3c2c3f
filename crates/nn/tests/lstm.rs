//! The LSTM against PyTorch's (`golden/lstm.py`), and the recurrent state of an actor-critic.

use playfield_core::rng::stream;
use playfield_core::{ActionSpace, Array, Dtype, EnvSpec, Graph, ObsRef, Snapshot};
use playfield_nn::config::InitKind;
use playfield_nn::export::Exporter;
use playfield_nn::lstm::{Lstm, LstmConfig};
use playfield_nn::params::to_vec;
use playfield_nn::{ActorCritic, Builder, NetworkConfig, Pass, RecurrentState};
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

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

/// A recurrent state with these values, loaded from a snapshot.
fn initial_state(start: &BTreeMap<String, Vec<f32>>) -> RecurrentState {
    let mut snapshot = Snapshot::default();
    for (name, values) in start {
        snapshot.arrays.insert(format!("recurrent_state.{name}"), Array::new(&[N, WIDTH as usize], values));
    }
    let mut state = RecurrentState::new(N, WIDTH, Device::Cpu);
    state.load(&snapshot).unwrap();
    state
}

/// Four steps of three sequences; the state of the second is reset before the third step.
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
        close(name, &after.arrays[&format!("recurrent_state.{name}")].values::<f32>().unwrap(), expected);
    }
    let loss = (y.flatten(0, -1) * Tensor::from_slice(&golden.weights)).sum(Kind::Float);
    params.zero_gradient();
    loss.backward();
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

/// One pass over three steps of two environments equals three passes of one step, including a reset. A reset state equals the
/// initial state.
#[test]
fn a_rollout_at_once_equals_step_by_step() {
    let mut net = network();
    let obs: Vec<f32> = (0..12).map(|i| (i * 5 % 7) as f32 / 3.0 - 1.0).collect();
    let first = ObsRef::F32(&[0.3, -0.4, 0.9, 0.1]);
    let start = net.forward_from(&net.initial_state(2), &[], first.into(), 2, Pass::Infer).2;
    let resets = [false, false, false, true, false, false];
    let (_, whole, end) = net.forward_from(&start, &resets, ObsRef::F32(&obs).into(), 6, Pass::Infer);
    let (mut state, mut values) = (start, Vec::new());
    for (t, ended) in resets.chunks(2).enumerate() {
        state.reset(ended);
        let obs = ObsRef::F32(&obs[t * 4..t * 4 + 4]);
        let (_, value, after) = net.forward_from(&state, &[], obs.into(), 2, Pass::Infer);
        values.extend(to_vec(&value));
        state = after;
    }
    close("values", &to_vec(&whole), &values);
    let saved = |state: &RecurrentState| {
        let mut snapshot = Snapshot::default();
        state.save(&mut snapshot);
        snapshot.arrays.values().flat_map(|a| a.values::<f32>().unwrap()).collect::<Vec<_>>()
    };
    close("state", &saved(&end), &saved(&state));
    state.reset(&[true, true]);
    assert_eq!(saved(&state), saved(&net.initial_state(2)));
}

/// Without an LSTM the state is empty, and nothing is saved.
#[test]
fn an_empty_state_saves_nothing() {
    let mut snapshot = Snapshot::default();
    let mut state = RecurrentState::new(4, 0, Device::Cpu);
    state.reset(&[true; 4]);
    state.save(&mut snapshot);
    assert_eq!(snapshot, Snapshot::default());
    state.load(&snapshot).unwrap();
    assert_eq!(state.sequences(), 4);
}

#[test]
fn an_lstm_with_peepholes_is_not_exported() {
    let mut rng = stream(1, "init");
    let mut b = Builder::new(&mut rng);
    let config = LstmConfig { peephole: true, ..LstmConfig::default() };
    let lstm = Lstm::with(&mut b, "lstm", (INPUTS, WIDTH), InitKind::FanIn, &config).unwrap();
    let (params, mut graph) = (b.finish(Device::Cpu, Kind::Float), Graph::default());
    let [x, h, c] = ["x", "hidden", "cell"].map(|name| graph.input(name, Dtype::F32, &[WIDTH as usize]));
    let error = lstm.export(&mut Exporter::new(&mut graph, &params), x, (h, c)).unwrap_err().to_string();
    assert!(error.contains("peepholes cannot be exported"), "{error}");
}
