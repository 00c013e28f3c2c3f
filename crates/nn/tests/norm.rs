//! Normalization layers against PyTorch's (`golden/norm.py`), folding, and the running statistics of copies and checkpoints.

use playfield_core::rng::stream;
use playfield_core::{ActionSpace, Dtype, EnvSpec, Obs, ObsRef, Snapshot};
use playfield_nn::config::{NormKind, Precision, TorsoKind};
use playfield_nn::init::Init;
use playfield_nn::linear::Linear;
use playfield_nn::norm::{BatchNorm, LayerNorm, LocalResponseNorm, fold};
use playfield_nn::optim::{Optimizer, RmsProp};
use playfield_nn::params::to_vec;
use playfield_nn::{ActorCritic, Builder, Distribution, NetworkConfig, Params, Pass, QConfig, QNetwork, Weights};
use rand::Rng as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

#[derive(Deserialize)]
struct Golden {
    batch_1d: Batches,
    batch_2d: Batches,
    layer: Expected,
    layer_images: Expected,
    local_response: Expected,
    local_response_even: Expected,
    fused_conv: Fused,
    fused_linear: Fused,
}

#[derive(Deserialize)]
struct Batches {
    shape: Vec<i64>,
    steps: Vec<Expected>,
    acting: Expected,
}

#[derive(Deserialize)]
struct Expected {
    #[serde(default)]
    shape: Vec<i64>,
    x: Vec<f64>,
    y: Vec<f64>,
    grad: Vec<f64>,
    params: BTreeMap<String, Vec<f64>>,
    /// Running statistics after the forward pass.
    #[serde(default)]
    mean: Vec<f64>,
    #[serde(default)]
    var: Vec<f64>,
}

#[derive(Deserialize)]
struct Fused {
    shape: Vec<i64>,
    kernel: Vec<i64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    y: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/norm.json")).unwrap()
}

/// The sequence of `golden/norm.py`.
fn numbers(n: i64, scale: f64, shift: f64) -> Tensor {
    let number = |i: i64| scale * (((i * 7919 + 13) % 101) as f64 / 50.0 - 1.0) + shift;
    Tensor::from_slice(&(0..n).map(number).collect::<Vec<_>>())
}

fn assert_close(actual: &Tensor, expected: &[f64], tolerance: f64, what: &str) {
    let difference = (actual.to_kind(Kind::Double).flatten(0, -1) - Tensor::from_slice(expected)).abs().max();
    let difference = difference.double_value(&[]);
    assert!(difference < tolerance, "{what}: off by {difference}");
}

/// A network of one layer with the γ and β of `golden/norm.py`.
fn alone<T>(layer: impl FnOnce(&mut Builder<'_>) -> T) -> (T, Params) {
    let mut rng = stream(1, "test");
    let mut b = Builder::new(&mut rng);
    let layer = layer(&mut b);
    let mut params = b.finish(Device::Cpu, Kind::Float);
    let mut state = params.state();
    for (name, scale, shift) in [("norm.weight", 0.7, 1.1), ("norm.bias", 0.4, 0.1)] {
        let array = state.get_mut(name).unwrap();
        *array = playfield_core::Array::new(&array.shape, &to_vec(&numbers(array.shape[0] as i64, scale, shift)));
    }
    params.load_state(&state).unwrap();
    (layer, params)
}

/// Forward and backward: y, the gradient of x, the gradients of γ and β.
fn check(
    pass: &Expected,
    shape: &[i64],
    params: &mut Params,
    forward: impl Fn(&Weights, &Tensor) -> Tensor,
    what: &str,
) {
    let x = Tensor::from_slice(&pass.x).to_kind(Kind::Float).view(shape).set_requires_grad(true);
    let y = forward(params.weights(), &x);
    let loss = (&y * numbers(y.numel() as i64, 1.0, 0.0).to_kind(Kind::Float).view_as(&y)).sum(Kind::Float);
    params.zero_gradient();
    loss.backward();
    assert_close(&y, &pass.y, 2e-5, &format!("{what}, forward"));
    assert_close(&x.grad(), &pass.grad, 2e-5, &format!("{what}, gradient"));
    for (name, expected) in &pass.params {
        let gradients = params.named(&params.gradient());
        let actual = Tensor::from_slice(&gradients[&format!("norm.{name}")].values::<f32>().unwrap());
        assert_close(&actual, expected, 5e-5, &format!("{what}, gradient of {name}"));
    }
}

/// Two training passes and one inference pass: values, gradients, and running statistics, whose variance is unbiased.
#[test]
fn batch_norm_equals_pytorch() {
    let golden = golden();
    for (batches, what) in [(golden.batch_1d, "1d"), (golden.batch_2d, "2d")] {
        let (norm, mut params) = alone(|b| BatchNorm::new(b, "norm", 3));
        let state = |params: &Params, name: &str| {
            Tensor::from_slice(&params.state()[&format!("norm.{name}")].values::<f32>().unwrap())
        };
        for step in &batches.steps {
            check(step, &batches.shape, &mut params, |w, x| norm.forward(w, x, Pass::Train), what);
            assert_close(&state(&params, "running_mean"), &step.mean, 1e-6, what);
            assert_close(&state(&params, "running_var"), &step.var, 1e-6, what);
        }
        let before = to_vec(params.running_stats());
        check(&batches.acting, &batches.shape, &mut params, |w, x| norm.forward(w, x, Pass::Infer), what);
        assert_eq!(to_vec(params.running_stats()), before, "inference changes nothing");
    }
}

/// The variance of 1 and 3 is 1 (biased) for normalization and 2 (unbiased) for the running statistics.
#[test]
fn batch_norm_by_hand() {
    let mut rng = stream(1, "test");
    let mut b = Builder::new(&mut rng);
    let norm = BatchNorm::new(&mut b, "norm", 1);
    let params = b.finish(Device::Cpu, Kind::Float);
    let x = Tensor::from_slice2(&[[1.0_f32], [3.0]]);
    let y = norm.forward(params.weights(), &x, Pass::Train);
    assert_close(&y.detach(), &[-1.0, 1.0], 1e-5, "(x − 2)/√1");
    let state = params.state();
    let value = |name: &str| state[name].values::<f32>().unwrap()[0];
    assert!((value("norm.running_mean") - 0.2).abs() < 1e-6 && (value("norm.running_var") - 1.1).abs() < 1e-6);
}

/// A batch of one has no variance: it is normalized by the running statistics, which stay finite.
#[test]
fn a_batch_of_one_uses_the_running_statistics() {
    let (norm, params) = alone(|b| BatchNorm::new(b, "norm", 3));
    let x = Tensor::from_slice2(&[[1.0_f32, -2.0, 3.0]]);
    let [train, infer] = [Pass::Train, Pass::Infer].map(|pass| norm.forward(params.weights(), &x, pass));
    assert_eq!(train, infer);
    assert_eq!(to_vec(&params.running_stats().narrow(0, 0, 3)), [0.0; 3]);
}

#[test]
fn layer_norm_equals_pytorch() {
    let golden = golden();
    for (pass, features, what) in [(golden.layer, 5, "rows"), (golden.layer_images, 3, "images")] {
        let (norm, mut params) = alone(|b| LayerNorm::new(b, "norm", features));
        check(&pass, &pass.shape, &mut params, |w, x| norm.forward(w, x), what);
    }
}

#[test]
fn local_response_normalization_equals_pytorch() {
    let golden = golden();
    let odd = LocalResponseNorm { size: 5, alpha: 0.3, beta: 0.75, k: 2.0 };
    let even = LocalResponseNorm { size: 4, k: 1.0, ..odd };
    for (norm, pass) in [(odd, golden.local_response), (even, golden.local_response_even)] {
        let x = Tensor::from_slice(&pass.x).view(&pass.shape[..]).set_requires_grad(true);
        let y = norm.forward(&x);
        (&y * numbers(y.numel() as i64, 1.0, 0.0).view_as(&y)).sum(Kind::Double).backward();
        assert_close(&y.detach(), &pass.y, 1e-12, "forward");
        assert_close(&x.grad(), &pass.grad, 1e-12, "gradient");
    }
}

/// A folded layer equals the layer followed by batch norm in both precisions, with statistics far from 0 and 1, and PyTorch's
/// `fuse_conv_bn_eval` and `fuse_linear_bn_eval`.
#[test]
fn a_folded_layer_equals_the_two() {
    let golden = golden();
    for golden in [golden.fused_conv, golden.fused_linear] {
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5)] {
            let (outputs, images) = (golden.kernel[0], golden.kernel.len() == 4);
            let of = |n: i64, scale, shift| numbers(n, scale, shift).to_kind(kind);
            let (gamma, beta) = (of(outputs, 0.7, 1.1), of(outputs, 0.4, 0.1));
            let (mean, variance) = (of(outputs, 0.9, 0.3), of(outputs, 0.5, 1.7));
            let weight = of(golden.kernel.iter().product(), 0.8, 0.0).view(&golden.kernel[..]);
            let bias = of(outputs, 0.2, 0.0);
            let x = of(golden.shape.iter().product(), 1.0, 0.0).view(&golden.shape[..]);
            let layer = |w: &Tensor, b: &Tensor| match images {
                true => x.conv2d(w, Some(b), 1, 0, 1, 1),
                false => x.linear(w, Some(b)),
            };
            let two = layer(&weight, &bias).batch_norm(
                Some(&gamma),
                Some(&beta),
                Some(&mean),
                Some(&variance),
                false,
                0.1,
                1e-5,
                false,
            );
            let (folded, shifted) = fold((&weight, &bias), (&gamma, &beta), (&mean, &variance), 1e-5);
            let one = layer(&folded, &shifted);
            let off = (&one - &two).abs().max().double_value(&[]);
            assert!(off <= tolerance, "{kind:?}: off by {off}");
            for (actual, expected) in [(&folded, &golden.weight), (&shifted, &golden.bias), (&one, &golden.y)] {
                assert_close(actual, expected, tolerance, "PyTorch's");
            }
        }
    }
}

fn spec(shape: &[usize], dtype: Dtype) -> EnvSpec {
    let actions = ActionSpace::Discrete { n: 3 };
    EnvSpec::new("test", shape, dtype, actions)
}

fn config(torso: TorsoKind, norm: NormKind) -> NetworkConfig {
    NetworkConfig { torso, norm, precision: Precision::Fp32, ..NetworkConfig::default() }
}

fn random_frames(n: usize, spec: &EnvSpec) -> Obs {
    let mut rng = stream(5, "frames");
    Obs::U8((0..n * spec.obs_len()).map(|_| (rng.next_u64() >> 56) as u8).collect())
}

fn outputs(net: &mut ActorCritic, obs: ObsRef<'_>, n: usize, pass: Pass) -> Tensor {
    let (policy, value) = net.forward(obs, n, pass);
    let Distribution::Categorical { logits, .. } = policy else { panic!("the space is discrete") };
    Tensor::cat(&[logits, value.unsqueeze(1)], 1)
}

/// A network after three updates, so that γ, β and running statistics differ from their initial values.
fn trained(config: &NetworkConfig, spec: &EnvSpec, obs: ObsRef<'_>, n: usize) -> ActorCritic {
    let mut net = ActorCritic::new(config, spec, "cpu", &mut stream(1, "init")).unwrap();
    let mut optimizer = Optimizer::new(RmsProp::tensorflow(), &net.params);
    for _ in 0..3 {
        let loss = (outputs(&mut net, obs, n, Pass::Train) - 1.0).square().sum(Kind::Float);
        net.backward(&loss);
        net.step(&mut optimizer, 0.01, 1.0).unwrap();
    }
    net
}

/// Folding leaves inference unchanged, for every torso, shared or not.
#[test]
fn a_folded_network_infers_the_same() {
    for (torso, side) in [
        (TorsoKind::Nature, 44),
        (TorsoKind::Nips, 36),
        (TorsoKind::Impala, 11),
        (TorsoKind::Mlp, 5),
        (TorsoKind::Lstm, 5),
    ] {
        for shared in [true, false] {
            let config = NetworkConfig { shared, ..config(torso, NormKind::Batch) };
            if torso == TorsoKind::Lstm && !shared {
                continue;
            }
            let (spec, n) = (spec(&[side, side], Dtype::U8), 6);
            let obs = random_frames(n, &spec);
            let mut net = trained(&config, &spec, obs.as_ref(), n);
            let before = outputs(&mut net, obs.as_ref(), n, Pass::Infer);
            let train = outputs(&mut net.deep_clone(), obs.as_ref(), n, Pass::Train);
            let differs = (&before - &train).abs().max().double_value(&[]);
            assert!(differs > 1e-3, "{torso:?}: batch and running statistics differ by {differs} only");
            net.fold();
            let after = outputs(&mut net, obs.as_ref(), n, Pass::Infer);
            let off = (&before - &after).abs().max().double_value(&[]);
            assert!(off <= 1e-5, "{torso:?}, shared {shared}: off by {off}");
            // A folded network has no batch norm: both passes compute the same.
            assert_eq!(outputs(&mut net, obs.as_ref(), n, Pass::Train).detach(), after);
        }
    }
}

/// The same for Q-networks, dueling or not, and with noisy layers, whose norm is not folded.
#[test]
fn a_folded_q_network_infers_the_same() {
    for (dueling, noisy_sigma) in [(false, 0.0), (true, 0.0), (true, 0.5)] {
        let (spec, n) = (spec(&[12, 12], Dtype::U8), 6);
        let obs = random_frames(n, &spec);
        let q = QConfig { dueling, noisy_sigma, atoms: 2 };
        let config = config(TorsoKind::Impala, NormKind::Batch);
        let mut net = QNetwork::new(&config, q, &spec, "cpu", &mut stream(1, "init")).unwrap();
        for _ in 0..3 {
            let _ = net.forward(obs.as_ref(), n, Pass::Train);
        }
        net.set_noise(net.sample_noise(&mut stream(2, "noise")));
        let before = net.forward(obs.as_ref(), n, Pass::Infer);
        net.fold();
        let off = (before - net.forward(obs.as_ref(), n, Pass::Infer)).abs().max().double_value(&[]);
        assert!(off <= 1e-5, "dueling {dueling}, σ₀ {noisy_sigma}: off by {off}");
    }
}

/// Checkpoints, copies, target networks and actors include the running statistics; an optimizer does not change them, and bf16
/// does not round them.
#[test]
fn copies_and_checkpoints_include_running_statistics() {
    let (spec, n) = (spec(&[40, 40], Dtype::U8), 6);
    let obs = random_frames(n, &spec);
    for precision in [Precision::Fp32, Precision::Bf16] {
        let config = NetworkConfig { precision, ..config(TorsoKind::Nips, NormKind::Batch) };
        let net = trained(&config, &spec, obs.as_ref(), n);
        let running = to_vec(net.params.running_stats());
        assert_eq!(net.params.running_stats().kind(), Kind::Float);
        assert!(running.iter().any(|x| x.to_bits() & 0xffff != 0), "they are not rounded to bf16");

        let fresh = || ActorCritic::new(&config, &spec, "cpu", &mut stream(2, "init")).unwrap();
        let mut snapshot = Snapshot::default();
        net.params.save(&mut snapshot);
        let mut loaded = fresh();
        assert_ne!(to_vec(loaded.params.running_stats()), running);
        loaded.params.load(&snapshot).unwrap();
        assert_eq!(to_vec(loaded.params.running_stats()), running);
        snapshot.params.remove("torso.conv1_norm.running_var").unwrap();
        let refusal = fresh().params.load(&snapshot).unwrap_err().to_string();
        assert!(refusal.contains("torso.conv1_norm.running_var"), "{refusal}");

        assert_eq!(to_vec(net.deep_clone().params.running_stats()), running);
        let (mut target, mut actor) = (fresh(), fresh());
        target.params.polyak_update(&net.params, 1.0);
        actor.params.copy_from(&net.params);
        assert_eq!(
            (to_vec(target.params.running_stats()), to_vec(actor.params.running_stats())),
            (running.clone(), running.clone())
        );
        let mut soft = fresh();
        let old = to_vec(soft.params.running_stats());
        soft.params.polyak_update(&net.params, 0.25);
        for ((new, old), online) in to_vec(soft.params.running_stats()).iter().zip(old).zip(&running) {
            assert!((new - (0.75 * old + 0.25 * online)).abs() < 1e-6);
        }

        let mut net = net;
        let mut optimizer = Optimizer::new(RmsProp { weight_decay: 0.1, ..RmsProp::tensorflow() }, &net.params);
        net.step(&mut optimizer, 0.5, 0.0).unwrap();
        assert_eq!(to_vec(net.params.running_stats()), running, "a step changes parameters only");
        let named: Vec<_> = net.params.named(net.params.master()).into_keys().collect();
        assert!(named.iter().all(|name| !name.contains("running")), "{named:?}");
    }
}

/// With batch norm a batch is not split among threads, since each shard would have its own statistics.
#[test]
fn batch_norm_uses_the_whole_batch() {
    let (spec, n) = (spec(&[40, 40], Dtype::U8), 16);
    let obs = random_frames(n, &spec);
    let config = config(TorsoKind::Nips, NormKind::Batch);
    let net = || ActorCritic::new(&config, &spec, "cpu", &mut stream(1, "init")).unwrap();
    let (mut alone, mut shared) = (net(), net());
    shared.set_num_threads(2);
    assert_eq!(outputs(&mut alone, obs.as_ref(), n, Pass::Train), outputs(&mut shared, obs.as_ref(), n, Pass::Train));
    assert_eq!(to_vec(alone.params.running_stats()), to_vec(shared.params.running_stats()));
}

/// With each norm, bf16 equals f32 up to bf16's rounding, forward and backward.
#[test]
fn norms_in_bf16() {
    let (spec, n) = (spec(&[40, 40], Dtype::U8), 16);
    let obs = random_frames(n, &spec);
    for norm in [NormKind::Batch, NormKind::Layer] {
        let results = [Precision::Fp32, Precision::Bf16].map(|precision| {
            let config = NetworkConfig { precision, ..config(TorsoKind::Nips, norm) };
            let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(1, "init")).unwrap();
            let y = outputs(&mut net, obs.as_ref(), n, Pass::Train);
            net.backward(&y.square().sum(Kind::Float));
            (y.detach(), net.params.gradient())
        });
        let [(y, grads), (rounded, rounded_grads)] = results;
        let off = |a: &Tensor, b: &Tensor| (a - b).norm().double_value(&[]) / b.norm().double_value(&[]);
        let off = (off(&rounded, &y), off(&rounded_grads, &grads));
        assert!(off.0 < 0.05 && off.1 < 0.25, "{norm:?}: {off:?}");
    }
}

/// A network without norm has no running statistics.
#[test]
fn a_network_without_norm_has_no_running_statistics() {
    let net = ActorCritic::new(
        &config(TorsoKind::Mlp, NormKind::None),
        &spec(&[4], Dtype::F32),
        "cpu",
        &mut stream(1, "init"),
    );
    assert_eq!(net.unwrap().params.running_stats().numel(), 0);
}

/// Batch norm is invariant to scale and shift of its input.
#[test]
fn batch_norm_is_invariant_to_scale_and_shift() {
    let mut rng = stream(1, "test");
    let mut b = Builder::new(&mut rng);
    let layer = Linear::new(&mut b, "fc", 8, 5, Init::He { gain: 1.0 }, Init::Constant(0.0));
    let norm = BatchNorm::new(&mut b, "norm", 5);
    let params = b.finish(Device::Cpu, Kind::Float);
    let x = numbers(16 * 8, 1.0, 0.2).to_kind(Kind::Float).view([16, 8]);
    let y = layer.forward(params.weights(), &x);
    let [plain, moved] = [&y, &(&y * 30.0 + 7.0)].map(|y| norm.forward(params.weights(), y, Pass::Train));
    assert!((plain - moved).abs().max().double_value(&[]) < 1e-3);
}
