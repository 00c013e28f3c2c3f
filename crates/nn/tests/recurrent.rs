//! Recurrent layers on padded batches against PyTorch (`golden/recurrent.py`), peepholes against the formula of ONNX, and the two
//! kinds of dropout.

use playfield_core::rng::{Rng, stream};
use playfield_core::{Array, Snapshot};
use playfield_nn::config::InitKind;
use playfield_nn::dropout::Dropout;
use playfield_nn::gru::Gru;
use playfield_nn::lstm::{Lstm, LstmConfig};
use playfield_nn::params::to_vec;
use playfield_nn::recurrent::CellKind;
use playfield_nn::rnn::Rnn;
use playfield_nn::sequence::Lengths;
use playfield_nn::skip::Connections;
use playfield_nn::stack::{Stack, StackConfig};
use playfield_nn::{Builder, Params, RecurrentState};
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, no_grad};

#[derive(Deserialize)]
struct Golden {
    x: Vec<f32>,
    weights_start: usize,
    cases: Vec<Case>,
    peephole: Peephole,
}

#[derive(Deserialize)]
struct Case {
    kind: CellKind,
    layers: i64,
    bidirectional: bool,
    params: BTreeMap<String, Vec<f32>>,
    grads: BTreeMap<String, Vec<f32>>,
    outputs: Vec<f32>,
    state: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Peephole {
    params: BTreeMap<String, Vec<f32>>,
    grads: BTreeMap<String, Vec<f32>>,
    outputs: Vec<f32>,
    state: Vec<Vec<f32>>,
}

const STEPS: i64 = 5;
const N: i64 = 3;
const INPUTS: i64 = 2;
const WIDTH: i64 = 4;

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/recurrent.json")).unwrap()
}

fn lengths() -> Lengths {
    Lengths::new(&[5, 2, 3], STEPS).unwrap()
}

/// The same sequence as `numbers` in the script.
fn numbers(n: usize, scale: f64, start: usize) -> Vec<f32> {
    (0..n).map(|i| (scale * (((i + start) * 7919 + 13) % 101) as f64 / 50.0 - scale) as f32).collect()
}

fn close(what: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (a, e) in actual.iter().zip(expected) {
        assert!((a - e).abs() < 5e-6, "{what}: {a}, expected {e}");
    }
}

fn set(params: &mut Params, values: impl Fn(&str) -> Vec<f32>) {
    let mut snapshot = Snapshot::default();
    params.save(&mut snapshot);
    for (name, array) in &mut snapshot.params {
        *array = Array::new(&array.shape, &values(name));
    }
    params.load(&snapshot).unwrap();
}

/// Layers with initial parameters from `seed`.
fn build<T>(seed: u64, part: impl FnOnce(&mut Builder<'_>) -> T) -> (T, Params) {
    let mut rng = stream(seed, "layers");
    let mut b = Builder::new(&mut rng);
    let built = part(&mut b);
    (built, b.finish(Device::Cpu, Kind::Float))
}

fn random(seed: u64, shape: &[i64]) -> Tensor {
    use rand::RngExt as _;
    let mut rng: Rng = stream(seed, "input");
    let len: i64 = shape.iter().product();
    Tensor::from_slice(&(0..len).map(|_| rng.random_range(-1.0_f32..1.0)).collect::<Vec<_>>()).view(shape)
}

/// PyTorch's name of a parameter: `weight_ih_l0_reverse` for `stack.layer0_reverse.weight_ih`.
fn pytorch(name: &str) -> String {
    let (layer, param) = name.strip_prefix("stack.layer").unwrap().split_once('.').unwrap();
    format!("{}_l{layer}", if param == "bias" { "bias_ih" } else { param })
}

/// Tricks 2 and 14: three cells, one and two layers, one and both directions, on sequences of 5, 2 and 3 steps.
#[test]
fn cells_and_their_gradients_equal_pytorch() {
    let golden = golden();
    for case in golden.cases {
        let what = format!("{:?}, {} layers, bidirectional: {}", case.kind, case.layers, case.bidirectional);
        let width = if case.bidirectional { 2 * WIDTH } else { WIDTH };
        let (cell, layers, bidirectional) = (case.kind, case.layers, case.bidirectional);
        let config = StackConfig { cell, width, layers, bidirectional, ..StackConfig::default() };
        let (stack, mut params) = build(1, |b| Stack::new(b, "stack", INPUTS, &config).unwrap());
        set(&mut params, |name| case.params[&pytorch(name)].clone());
        let x = Tensor::from_slice(&golden.x).view([STEPS, N, INPUTS]);
        let start = stack.initial_state(N as usize, Device::Cpu);
        let (y, end) = stack.forward(params.weights(), &x, &start, &lengths(), None).unwrap();
        close(&what, &to_vec(&y.detach()), &case.outputs);
        let of = |part: fn(&RecurrentState) -> &Tensor| {
            end.iter().flat_map(|m| to_vec(&part(m).detach())).collect::<Vec<_>>()
        };
        close(&format!("{what}: h"), &of(RecurrentState::h), &case.state[0]);
        if let Some(c) = case.state.get(1) {
            close(&format!("{what}: c"), &of(RecurrentState::c), c);
        }
        let weights = Tensor::from_slice(&numbers(y.numel(), 1.0, golden.weights_start)).view_as(&y);
        params.zero_gradient();
        (y * weights).sum(Kind::Float).backward();
        for (name, array) in params.named(&params.gradient()) {
            close(&format!("{what}: {name}"), &array.values::<f32>().unwrap(), &case.grads[&pytorch(&name)]);
        }
    }
}

/// Trick 11.
#[test]
fn peepholes_equal_onnx() {
    let Golden { x, weights_start, peephole: golden, .. } = golden();
    let config = LstmConfig { peephole: true, ..LstmConfig::default() };
    let (lstm, mut params) = build(1, |b| Lstm::with(b, "lstm", (INPUTS, WIDTH), InitKind::FanIn, &config).unwrap());
    set(&mut params, |name| golden.params[name.strip_prefix("lstm.").unwrap()].clone());
    let x = Tensor::from_slice(&x).view([STEPS, N, INPUTS]);
    let start = RecurrentState::new(N as usize, WIDTH, Device::Cpu);
    let (y, end) = lstm.sequence(params.weights(), &x, &start, &lengths(), None).unwrap();
    close("outputs", &to_vec(&y.detach()), &golden.outputs);
    close("h", &to_vec(&end.h().detach()), &golden.state[0]);
    close("c", &to_vec(&end.c().detach()), &golden.state[1]);
    let weights = Tensor::from_slice(&numbers(y.numel(), 1.0, weights_start)).view_as(&y);
    params.zero_gradient();
    (y * weights).sum(Kind::Float).backward();
    for (name, array) in params.named(&params.gradient()) {
        close(&name, &array.values::<f32>().unwrap(), &golden.grads[name.strip_prefix("lstm.").unwrap()]);
    }
}

/// Peepholes start at 0, where they change nothing: libtorch's fused operation equals the step-by-step form.
#[test]
fn own_cells_equal_the_fused_operation() {
    let x = random(3, &[STEPS, N, INPUTS]);
    let start = RecurrentState::new(N as usize, WIDTH, Device::Cpu);
    let run = |peephole: bool, lengths: &Lengths| {
        let config = LstmConfig { peephole, ..LstmConfig::default() };
        let (lstm, params) = build(7, |b| Lstm::with(b, "lstm", (INPUTS, WIDTH), InitKind::FanIn, &config).unwrap());
        let (y, end) = no_grad(|| lstm.sequence(params.weights(), &x, &start, lengths, None).unwrap());
        [to_vec(&y), to_vec(end.h()), to_vec(end.c())].concat()
    };
    for lengths in [lengths(), Lengths::full(N, STEPS).unwrap()] {
        close("fused", &run(false, &lengths), &run(true, &lengths));
    }
}

/// The output after the end of a sequence is 0 for any padding, and the final state equals that of the sequence alone.
#[test]
fn padding_is_ignored() {
    let x = random(5, &[STEPS, N, INPUTS]);
    let garbage = x.where_self(&lengths().mask(Device::Cpu).unsqueeze(-1), &(&x * 0.0 + 1e3));
    for cell in [CellKind::Rnn, CellKind::Gru, CellKind::Lstm] {
        for connections in [Connections::Plain, Connections::InputOutput, Connections::Residual, Connections::Dense] {
            for peephole in [false, cell == CellKind::Lstm] {
                let config = StackConfig { cell, width: 6, layers: 3, connections, peephole, ..StackConfig::default() };
                let (stack, params) = build(2, |b| Stack::new(b, "stack", INPUTS, &config).unwrap());
                let run = |x: &Tensor, lengths: &Lengths| {
                    let start = stack.initial_state(lengths.n() as usize, Device::Cpu);
                    no_grad(|| stack.forward(params.weights(), x, &start, lengths, None).unwrap())
                };
                let (y, end) = run(&x, &lengths());
                let (same, _) = run(&garbage, &lengths());
                assert_eq!(y, same, "{config:?}");
                for (i, &length) in lengths().each().iter().enumerate() {
                    let i = i as i64;
                    let (alone, last) =
                        run(&x.narrow(1, i, 1).narrow(0, 0, length), &Lengths::full(1, length).unwrap());
                    let own = y.narrow(1, i, 1);
                    close("outputs", &to_vec(&own.narrow(0, 0, length)), &to_vec(&alone));
                    assert_eq!(own.narrow(0, length, STEPS - length).abs().sum(Kind::Float).double_value(&[]), 0.0);
                    for (end, last) in end.iter().zip(&last) {
                        close("recurrent state", &to_vec(&end.h().get(i)), &to_vec(last.h()));
                        close("cell", &to_vec(&end.c().get(i)), &to_vec(last.c()));
                    }
                }
            }
        }
    }
}

/// Trick 6 (Zaremba): dropout masks the input, not the recurrent connections. The state of a layer with dropout equals, bit for bit,
/// that of a layer without dropout on the masked input; with an input of 0, dropout has no effect.
#[test]
fn dropout_does_not_affect_recurrent_connections() {
    let (shape, full) = ([40, 3, INPUTS], Lengths::full(3, 40).unwrap());
    let x = random(6, &shape);
    let build = |dropout: f64| {
        let config = StackConfig { width: WIDTH, dropout, ..StackConfig::default() };
        build(4, |b| Stack::new(b, "stack", INPUTS, &config).unwrap())
    };
    let ((wet, params), (dry, _)) = (build(0.5), build(0.0));
    no_grad(|| {
        let w = params.weights();
        let start = wet.initial_state(3, Device::Cpu);
        let (y, end) = wet.forward(w, &x, &start, &full, Some(&mut stream(9, "dropout"))).unwrap();
        let (mut rng, half) = (stream(9, "dropout"), Dropout::new("dropout", 0.5).unwrap());
        let masked = half.apply(&x, Some(&mut rng));
        assert_ne!(masked, x);
        let (below, expected) = dry.forward(w, &masked, &start, &full, None).unwrap();
        assert_eq!((end[0].h(), end[0].c()), (expected[0].h(), expected[0].c()));
        assert_eq!(y, half.apply(&below, Some(&mut rng)), "the output is masked once");

        let (nothing, mut rng) = (x.zeros_like(), stream(9, "dropout"));
        let (_, with) = wet.forward(w, &nothing, &expected, &full, Some(&mut rng)).unwrap();
        let (_, without) = dry.forward(w, &nothing, &expected, &full, None).unwrap();
        assert_eq!((with[0].h(), with[0].c()), (without[0].h(), without[0].c()));
    });
}

/// Trick 7 (Semeniuta): with input gate 0 and forget gate 1, a cell keeps its value exactly over 1000 steps of dropout. Dropout of the
/// cell state itself loses it within a few steps.
#[test]
fn recurrent_dropout_preserves_the_cell_state() {
    const LONG: i64 = 1000;
    let config = LstmConfig { recurrent_dropout: 0.5, ..LstmConfig::default() };
    let (lstm, mut params) = build(1, |b| Lstm::with(b, "lstm", (INPUTS, WIDTH), InitKind::FanIn, &config).unwrap());
    let gates = |i: usize| [-1e4, 1e4, 1.0, 0.0][i / WIDTH as usize]; // i = 0, f = 1, a candidate far from 0
    set(&mut params, |name| match name {
        "lstm.bias" => (0..4 * WIDTH as usize).map(gates).collect(),
        "lstm.weight_ih" => vec![0.0; (4 * WIDTH * INPUTS) as usize],
        _ => vec![0.0; (4 * WIDTH * WIDTH) as usize],
    });
    let values = [0.3_f32, -1.7, 2.0, 0.01];
    let mut snapshot = Snapshot::default();
    snapshot.arrays.insert("recurrent_state.h".into(), Array::new(&[1, 4], &[0.0_f32; 4]));
    snapshot.arrays.insert("recurrent_state.c".into(), Array::new(&[1, 4], &values));
    let mut start = RecurrentState::new(1, WIDTH, Device::Cpu);
    start.load(&snapshot).unwrap();
    let full = Lengths::full(1, LONG).unwrap();
    let x = random(1, &[LONG, 1, INPUTS]);
    let mut rng = stream(2, "dropout");
    let (_, end) = no_grad(|| lstm.sequence(params.weights(), &x, &start, &full, Some(&mut rng)).unwrap());
    assert_eq!(to_vec(end.c()), values);

    let half = Dropout::new("dropout", 0.5).unwrap();
    let mut c = start.c().shallow_clone();
    for _ in 0..100 {
        c = half.apply(&c, Some(&mut rng));
    }
    assert_eq!(to_vec(&c), [0.0; 4], "dropout of the cell state loses its value");
}

/// The mean over many dropout masks equals inference, for LSTM and GRU.
#[test]
fn recurrent_dropout_is_unbiased() {
    let n = 20_000;
    let x = random(8, &[1, 1, INPUTS]).expand([1, n, INPUTS], false).contiguous();
    let full = Lengths::full(n, 1).unwrap();
    let config = LstmConfig { recurrent_dropout: 0.4, ..LstmConfig::default() };
    let (lstm, params) = build(3, |b| Lstm::with(b, "lstm", (INPUTS, WIDTH), InitKind::FanIn, &config).unwrap());
    let (gru, gru_params) = build(3, |b| Gru::new(b, "gru", INPUTS, WIDTH, InitKind::FanIn, 0.4).unwrap());
    let gru_start = gru_state(n);
    no_grad(|| {
        let start = RecurrentState::new(n as usize, WIDTH, Device::Cpu);
        let c = |rng: Option<&mut Rng>| {
            lstm.sequence(params.weights(), &x, &start, &full, rng).unwrap().1.c().mean_dim(
                [0_i64].as_slice(),
                false,
                Kind::Float,
            )
        };
        let off = (c(Some(&mut stream(1, "dropout"))) - c(None)).abs().max().double_value(&[]);
        assert!(off > 0.0 && off < 0.01, "{off}");
        let h = |rng: Option<&mut Rng>| {
            gru.sequence(gru_params.weights(), &x, &gru_start, &full, rng).unwrap().1.h().mean_dim(
                [0_i64].as_slice(),
                false,
                Kind::Float,
            )
        };
        let off = (h(Some(&mut stream(1, "dropout"))) - h(None)).abs().max().double_value(&[]);
        assert!(off > 0.0 && off < 0.01, "{off}");
    });
}

/// The state of a GRU for n sequences, created by a stack.
fn gru_state(n: i64) -> RecurrentState {
    let config = StackConfig { cell: CellKind::Gru, width: WIDTH, ..StackConfig::default() };
    build(1, |b| Stack::new(b, "stack", INPUTS, &config).unwrap()).0.initial_state(n as usize, Device::Cpu).remove(0)
}

/// Tricks 10 and 15: shapes, and gradients against finite differences in f64, for each kind of connection, cell and direction.
#[test]
fn stack_gradients_equal_finite_differences() {
    let all = [Connections::Plain, Connections::InputOutput, Connections::Residual, Connections::Dense];
    for (connections, cell, bidirectional, peephole) in [
        (all[0], CellKind::Lstm, true, true),
        (all[1], CellKind::Lstm, false, true),
        (all[1], CellKind::Gru, true, false),
        (all[2], CellKind::Rnn, true, false),
        (all[2], CellKind::Lstm, false, false),
        (all[3], CellKind::Gru, false, false),
        (all[3], CellKind::Lstm, true, true),
    ] {
        let config =
            StackConfig { cell, width: 4, layers: 3, connections, bidirectional, peephole, ..StackConfig::default() };
        let mut rng = stream(5, "layers");
        let mut b = Builder::new(&mut rng);
        let stack = Stack::new(&mut b, "stack", INPUTS, &config).unwrap();
        let mut params = b.finish(Device::Cpu, Kind::Double);
        let x = random(4, &[STEPS, N, INPUTS]).to_kind(Kind::Double);
        let outputs = if connections == Connections::InputOutput { 12 } else { 4 };
        assert_eq!(stack.outputs(), outputs);
        let weights = random(2, &[STEPS, N, outputs]).to_kind(Kind::Double);
        let loss = |params: &Params| {
            let start = stack.initial_state(N as usize, Device::Cpu);
            let (y, _) = stack.forward(params.weights(), &x, &start, &lengths(), None).unwrap();
            assert_eq!(y.size(), [STEPS, N, outputs]);
            (y * &weights).sum(Kind::Double)
        };
        let l = loss(&params);
        params.zero_gradient();
        l.backward();
        let flat = params.flat().shallow_clone();
        let grads = params.gradient();
        let mut checked = 0;
        for i in (0..flat.size()[0]).step_by(7) {
            let gradient = grads.double_value(&[i]);
            let at = |delta: f64| {
                no_grad(|| {
                    let _ = flat.narrow(0, i, 1).g_add_scalar_(delta);
                    let l = loss(&params).double_value(&[]);
                    let _ = flat.narrow(0, i, 1).g_add_scalar_(-delta);
                    l
                })
            };
            let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((gradient - difference).abs() < 1e-7, "{config:?}, {i}: {gradient}, expected {difference}");
            checked += i32::from(gradient != 0.0);
        }
        assert!(checked > 10, "{config:?}: only {checked} gradients are not 0");
    }
}

#[test]
fn invalid_settings_and_shapes_are_refused() {
    let error = |config: StackConfig| {
        build(1, |b| Stack::new(b, "stack", INPUTS, &config).map(|_| ())).0.unwrap_err().to_string()
    };
    let default = StackConfig::default;
    for (config, expected) in [
        (StackConfig { dropout: 1.0, ..default() }, "`dropout` = 1 must be at least 0 and less than 1"),
        (StackConfig { recurrent_dropout: -0.5, ..default() }, "`recurrent_dropout` = -0.5 must be at least 0"),
        (StackConfig { width: 0, ..default() }, "`width` = 0 must be at least 1"),
        (StackConfig { layers: 0, ..default() }, "`layers` = 0 must be at least 1"),
        (StackConfig { width: 5, bidirectional: true, ..default() }, "`width` = 5 must be even"),
        (StackConfig { cell: CellKind::Gru, peephole: true, ..default() }, "`peephole` = true needs cell = \"lstm\""),
        (StackConfig { cell: CellKind::Rnn, recurrent_dropout: 0.5, ..default() }, "must be 0 with cell = \"rnn\""),
    ] {
        let error = error(config);
        assert!(error.contains(expected), "{error}");
    }
    let (stack, params) = build(1, |b| Stack::new(b, "stack", INPUTS, &default()).unwrap());
    let run = |x: &Tensor, state: &[RecurrentState]| {
        stack.forward(params.weights(), x, state, &lengths(), None).map(|_| ()).unwrap_err().to_string()
    };
    let x = random(1, &[STEPS, N, INPUTS]);
    let wrong = run(&random(1, &[STEPS, N + 1, INPUTS]), &stack.initial_state(3, Device::Cpu));
    assert!(wrong.contains("shape [5, 4, 2] where [steps, n, features] = [5, 3, 2]"), "{wrong}");
    assert!(run(&x, &[]).contains("recurrent states of 0 layers where 1"));
    let wrong = run(&x, &stack.initial_state(2, Device::Cpu));
    assert!(wrong.contains("[2, 128]") && wrong.contains("[3, 128]"), "{wrong}");
    let rnn = build(1, |b| Rnn::new(b, "rnn", INPUTS, WIDTH, InitKind::Orthogonal));
    let state = RecurrentState::new(3, WIDTH, Device::Cpu);
    let wrong = rnn.0.sequence(rnn.1.weights(), &x, &state, &lengths()).unwrap_err().to_string();
    assert!(wrong.contains("[3, 0]"), "an Elman network has no cell: {wrong}");
}
