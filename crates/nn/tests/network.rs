//! Networks: their sizes, their initial values, and their forward and backward passes against PyTorch's modules
//! (`golden/network.py`) and libtorch's plain operators.

mod support;

use playfield_core::rng::{self, stream};
use playfield_core::{ActionSpace, Array, Dtype, EnvSpec, Obs, ObsRef, Snapshot};
use playfield_nn::Distribution;
use playfield_nn::config::{InitKind, Kernels, Precision, TorsoKind};
use playfield_nn::init::Init;
use playfield_nn::input::Input;
use playfield_nn::params::{Builder, Params, to_vec};
use playfield_nn::torso::Torso;
use playfield_nn::{ActorCritic, NetworkConfig, Pass, QConfig, QNetwork};
use serde::Deserialize;
use std::collections::BTreeMap;
use support::{difference, frames, logits, network, pong, spec};
use tch::{Device, Kind, Tensor, no_grad};

/// Sizes by hand: nature 32·(4·64)+32, 64·(32·16)+64, 64·(64·9)+64, 512·3136+512, then 6·512+6 and 512+1.
#[test]
fn networks_have_the_published_sizes() {
    for (torso, expected) in [(TorsoKind::Nature, 1_684_128 + 3_078 + 513), (TorsoKind::Nips, 676_144 + 1_542 + 257)] {
        let net = ActorCritic::new(&network(torso, Precision::Fp32), &pong(), "cpu", &mut stream(1, "init")).unwrap();
        assert_eq!(net.params.count(), expected, "{torso:?}");
    }
}

/// The results of `golden/network.py`; both sides generate the same weights and frames.
#[derive(Deserialize)]
struct Golden {
    torso: TorsoKind,
    logits: Vec<f64>,
    values: Vec<f64>,
    /// Of each parameter: the norm of its gradient, and its product with a sequence of `numbers`.
    gradients: BTreeMap<String, [f64; 2]>,
}

/// `n` numbers in [0, 1): the bits of a hashed counter, as in `golden/network.py`.
fn numbers(n: usize, seed: u32) -> impl Iterator<Item = f64> {
    (0..n as u32).map(move |i| {
        let h = i.wrapping_add(seed.wrapping_mul(1_000_003)).wrapping_mul(2_654_435_761);
        let h = (h ^ (h >> 15)).wrapping_mul(2_246_822_519);
        f64::from((h ^ (h >> 13)) >> 8) / f64::from(1 << 24)
    })
}

#[test]
fn the_published_networks_equal_pytorch() {
    let (spec, n) = (pong(), 3);
    let frames = Obs::U8(numbers(n * spec.obs_len(), 99).map(|u| (u * 256.0) as u8).collect());
    for golden in serde_json::from_str::<Vec<Golden>>(include_str!("golden/network.json")).unwrap() {
        let config = network(golden.torso, Precision::Fp32);
        let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(1, "init")).unwrap();
        let mut snapshot = Snapshot::default();
        net.params.save(&mut snapshot);
        let shapes: BTreeMap<_, _> = snapshot.params.iter().map(|(k, a)| (k.clone(), a.shape.clone())).collect();
        for (i, (name, array)) in snapshot.params.iter_mut().enumerate() {
            let weight = &shapes[&name.replace("bias", "weight")];
            let bound = 1.0 / (weight[1..].iter().product::<usize>() as f64).sqrt();
            let values = numbers(array.shape.iter().product(), i as u32).map(|u| ((2.0 * u - 1.0) * bound) as f32);
            *array = Array::new(&array.shape, &values.collect::<Vec<_>>());
        }
        net.params.load(&snapshot).unwrap();

        let (policy, value) = net.forward(frames.as_ref(), n, Pass::Train);
        let logits = logits(policy);
        net.backward(&(logits.square().sum(Kind::Float) + value.sum(Kind::Float)));
        for (actual, expected) in [(&logits, &golden.logits), (&value, &golden.values)] {
            assert!(difference(&actual.flatten(0, -1), &Tensor::from_slice(expected)) < 1e-5, "{:?}", golden.torso);
        }
        let gradients = net.params.named(&net.params.gradient());
        assert!(gradients.keys().eq(golden.gradients.keys()));
        for (i, (name, [norm, product])) in golden.gradients.iter().enumerate() {
            let g: Vec<f64> = gradients[name].values::<f32>().unwrap().into_iter().map(f64::from).collect();
            let actual_norm = g.iter().map(|x| x * x).sum::<f64>().sqrt();
            let actual_product: f64 =
                g.iter().zip(numbers(g.len(), 100 + i as u32)).map(|(g, u)| g * (2.0 * u - 1.0)).sum();
            let off = (actual_norm - norm).abs().max((actual_product - product).abs()) / norm;
            assert!(off < 1e-5, "{:?}, {name}: off by {off}", golden.torso);
        }
    }
}

/// The reference implementation: contiguous tensors in PyTorch's layout, frames divided by 255 or standardized, parameters by
/// canonical name.
fn plain(params: &BTreeMap<String, Tensor>, obs: &[u8], n: i64, standardize: bool) -> (Tensor, Tensor) {
    let x = Tensor::from_slice(obs).view([n, 84, 84, 4]).permute([0, 3, 1, 2]).contiguous().to_kind(Kind::Float);
    let over = [1_i64, 2, 3];
    let mut x = match standardize {
        true => (&x - x.mean_dim(&over[..], true, Kind::Float)) / x.std_dim(&over[..], false, true),
        false => x / 255.0,
    };
    for (name, stride) in [("conv1", 4), ("conv2", 2), ("conv3", 1)] {
        let (w, b) = (&params[&format!("torso.{name}.weight")], &params[&format!("torso.{name}.bias")]);
        x = x.conv2d(w, Some(b), stride, 0, 1, 1).relu();
    }
    let linear =
        |x: &Tensor, name: &str| x.linear(&params[&format!("{name}.weight")], Some(&params[&format!("{name}.bias")]));
    // Flattened in the order height, width, channel.
    let x = linear(&x.permute([0, 2, 3, 1]).flatten(1, -1), "torso.fc").relu();
    (linear(&x, "policy"), linear(&x, "value").squeeze_dim(1))
}

fn canonical(net: &ActorCritic) -> BTreeMap<String, Tensor> {
    let named = net.params.named(net.params.master());
    let tensor = |a: &Array| {
        let shape: Vec<i64> = a.shape.iter().map(|&d| d as i64).collect();
        Tensor::from_slice(&a.values::<f32>().unwrap()).view(&shape[..]).set_requires_grad(true)
    };
    named.iter().map(|(name, array)| (name.clone(), tensor(array))).collect()
}

#[test]
fn the_initial_standard_deviation_is_that_of_the_configuration() {
    let actions = ActionSpace::Box { low: vec![-1.0; 2], high: vec![1.0; 2] };
    let spec = EnvSpec::new("test", &[3], Dtype::F32, actions);
    for (config, expected) in
        [(NetworkConfig::default(), 0.5_f32), (NetworkConfig { initial_std: 1.0, ..NetworkConfig::default() }, 1.0)]
    {
        let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(1, "init")).unwrap();
        let (policy, _) = net.forward(ObsRef::F32(&[0.0; 3]), 1, Pass::Infer);
        let Distribution::Gaussian { log_std, .. } = policy else { panic!("continuous actions") };
        assert_eq!(to_vec(&log_std), [expected.ln(); 2]);
    }
    for initial_std in [0.0, -1.0, 101.0, f64::NAN] {
        let message = NetworkConfig { initial_std, ..NetworkConfig::default() }.check().unwrap_err().to_string();
        assert!(message.contains(&format!("`initial_std` = {initial_std} must lie between")), "{message}");
    }
}

/// Both passes, in both precisions: the flat gradient must equal that of plain autograd.
/// bf16 rounds to 1 part in 256; a unit that crosses 0 by rounding gains or loses its gradient.
#[test]
fn forward_and_backward_equal_plain_operators() {
    let (spec, n) = (pong(), 5);
    let obs = frames(n, &spec);
    let Obs::U8(bytes) = &obs else { unreachable!() };
    let (fp32, bf16) = ((Precision::Fp32, 1e-5), (Precision::Bf16, 0.15));
    for ((precision, tolerance), standardize) in [(fp32, false), (fp32, true), (bf16, false), (bf16, true)] {
        let config = NetworkConfig { standardize, ..network(TorsoKind::Nature, precision) };
        let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(2, "init")).unwrap();
        let oracle = canonical(&net);
        let loss = |l: &Tensor, v: &Tensor| (l.square().sum(Kind::Float) + v.sum(Kind::Float)) * 0.1;
        // The second backward pass must not accumulate the gradient of the first.
        for _ in 0..2 {
            let (policy, value) = net.forward(obs.as_ref(), n, Pass::Train);
            let logits = logits(policy);
            net.backward(&loss(&logits, &value));
            let (expected_logits, expected_value) = plain(&oracle, bytes, n as i64, standardize);
            assert!(difference(&logits, &expected_logits) < tolerance);
            assert!(difference(&value, &expected_value) < tolerance);
        }
        let (l, v) = plain(&oracle, bytes, n as i64, standardize);
        loss(&l, &v).backward();
        let grads = net.params.named(&net.params.gradient());
        for (name, tensor) in &oracle {
            let grad = Tensor::from_slice(&grads[name].values::<f32>().unwrap()).view(&tensor.size()[..]);
            let difference = difference(&grad, &tensor.grad());
            assert!(difference < tolerance, "{name}: {difference} in {precision:?}, standardize = {standardize}");
        }
    }
}

/// With separate torsos, a loss of the policy gives the value's torso no gradient, and vice versa.
#[test]
fn separate_torsos_have_separate_gradients() {
    let spec = pong();
    let obs = frames(3, &spec);
    for precision in [Precision::Fp32, Precision::Auto] {
        let config = NetworkConfig { shared: false, ..network(TorsoKind::Nips, precision) };
        let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(4, "init")).unwrap();
        let norms = [true, false].map(|of_policy| {
            let (policy, value) = net.forward(obs.as_ref(), 3, Pass::Train);
            let loss = if of_policy { logits(policy).square() } else { value };
            net.backward(&loss.sum(Kind::Float));
            let named = net.params.named(&net.params.gradient());
            let none = named.values().filter(|g| g.values::<f32>().unwrap().iter().all(|g| *g == 0.0)).count();
            (none, named.len())
        });
        let [(by_policy, all), (by_value, _)] = norms;
        assert_eq!(by_policy + by_value, all, "a parameter has a gradient from one of the losses");
    }
}

#[test]
fn initial_weights_have_the_stated_bounds_and_variance() {
    let draw = |init: Init, shape: &[i64]| init.sample(shape, &mut stream(3, "init"));
    let w = draw(Init::Uniform { fan_in: 256 }, &[64, 256]);
    let variance = w.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / w.len() as f64;
    assert!(w.iter().all(|x| x.abs() <= 1.0 / 16.0));
    assert!((variance * 3.0 * 256.0 - 1.0).abs() < 0.03, "Var(w)·3·fan_in = {}", variance * 768.0);
    for shape in [[8_i64, 3], [3, 8], [5, 5]] {
        let w = Tensor::from_slice(&draw(Init::Orthogonal { gain: 2.0 }, &shape)).view(shape);
        let gram = if shape[0] <= shape[1] { w.matmul(&w.tr()) } else { w.tr().matmul(&w) };
        let identity = Tensor::eye(gram.size()[0], (Kind::Float, tch::Device::Cpu)) * 4.0;
        assert!((gram - identity).abs().max().double_value(&[]) < 1e-5);
    }
}

/// PyTorch samples a layer's weights from kaiming_uniform_(a = √5), whose bound √(6/((1 + a²)·fan_in)) is 1/√fan_in, and its
/// biases from the same U(±1/√fan_in). Orthogonal: QᵀQ = gain²·I for each layer, and no biases.
#[test]
fn a_fresh_network_has_pytorchs_bounds_or_orthogonal_layers() {
    let fresh = |init| {
        let config = NetworkConfig { init, ..network(TorsoKind::Nature, Precision::Fp32) };
        canonical(&ActorCritic::new(&config, &pong(), "cpu", &mut stream(6, "init")).unwrap())
    };
    let params = fresh(InitKind::FanIn);
    for (name, p) in &params {
        let fan_in = params[&name.replace("bias", "weight")].get(0).numel() as f64;
        let largest = p.abs().max().double_value(&[]) * fan_in.sqrt();
        assert!(largest <= 1.0 + 1e-6 && (largest > 0.9 || p.numel() < 32), "{name}: {largest} of the bound");
        // The variance of n uniform samples has a relative standard deviation of √(.8/n): five of them.
        let n = p.numel() as f64;
        let variance = p.square().mean(Kind::Double).double_value(&[]) * 3.0 * fan_in;
        assert!((variance - 1.0).abs() < 5.0 * (0.8 / n).sqrt(), "{name}: Var·3·fan_in = {variance}");
    }
    for (name, p) in fresh(InitKind::Orthogonal) {
        let gain = match name.split('.').next() {
            Some("policy") => 0.01,
            Some("value") => 1.0,
            _ => 2_f64.sqrt(),
        };
        if name.ends_with("bias") {
            assert_eq!(p.abs().max().double_value(&[]), 0.0, "{name}");
            continue;
        }
        let w = p.detach().flatten(1, -1).to_kind(Kind::Double);
        let gram = if w.size()[0] <= w.size()[1] { w.matmul(&w.tr()) } else { w.tr().matmul(&w) };
        let identity = Tensor::eye(gram.size()[0], (Kind::Double, tch::Device::Cpu));
        let off = (gram / (gain * gain) - identity).abs().max().double_value(&[]);
        assert!(off < 1e-5, "{name}: QᵀQ is off by {off}");
    }
}

#[test]
fn a_loaded_network_computes_the_same_and_a_mismatch_names_the_tensor() {
    let (spec, obs) = (spec(&[3], Dtype::F32, 1), [0.1, -0.2, 0.3]);
    let config = NetworkConfig { init: InitKind::Orthogonal, ..NetworkConfig::default() };
    let make =
        |config: &NetworkConfig, seed| ActorCritic::new(config, &spec, "cpu", &mut rng::stream(seed, "init")).unwrap();
    let mut a = make(&config, 1);
    let mut snapshot = Snapshot::default();
    a.params.save(&mut snapshot);
    let mut b = make(&config, 2);
    b.params.load(&snapshot).unwrap();
    let evaluate = |net: &mut ActorCritic| to_vec(&logits(net.forward(ObsRef::F32(&obs), 1, Pass::Infer).0));
    assert_eq!(evaluate(&mut a), evaluate(&mut b));

    let wider = NetworkConfig { hidden: vec![64, 32], ..config.clone() };
    let error = make(&wider, 1).params.load(&snapshot).unwrap_err().to_string();
    assert!(error.contains("torso.fc2") && error.contains("another network"), "{error}");
    let separate = NetworkConfig { shared: false, ..config };
    let error = make(&separate, 1).params.load(&snapshot).unwrap_err().to_string();
    assert!(error.contains("value_torso.fc1"), "{error}");
}

/// (pixel − mean)/standard deviation of each observation, in both precisions.
#[test]
fn frames_are_standardized_each_by_itself() {
    let spec = spec(&[37, 41], Dtype::U8, 3);
    let n = 5;
    let Obs::U8(mut pixels) = frames(n, &spec) else { panic!("frames") };
    // Dark and bright observations, with different statistics.
    pixels.chunks_mut(spec.obs_len()).enumerate().for_each(|(i, obs)| obs.iter_mut().for_each(|p| *p /= i as u8 + 1));
    let config = NetworkConfig { standardize: true, ..NetworkConfig::default() };
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 1.0 / 256.0)] {
        let mut input = Input::new(&config, &spec, true, Device::Cpu, kind).unwrap();
        let loaded = input.load(ObsRef::U8(&pixels).into(), n, Pass::Infer).remove(0);
        assert_eq!(loaded.size(), [n as i64, 3, 37, 41]);
        let rows = to_vec(&loaded.permute([0, 2, 3, 1]));
        for (actual, obs) in rows.chunks(spec.obs_len()).zip(pixels.chunks(spec.obs_len())) {
            let mean = obs.iter().map(|&p| f64::from(p)).sum::<f64>() / obs.len() as f64;
            let square = obs.iter().map(|&p| (f64::from(p) - mean).powi(2)).sum::<f64>() / obs.len() as f64;
            for (a, &p) in actual.iter().zip(obs) {
                let expected = (f64::from(p) - mean) / square.sqrt();
                assert!((f64::from(*a) - expected).abs() <= tolerance * expected.abs().max(1.0), "{a}, {expected}");
            }
        }
    }
}

/// Two torsos may share an input: a torso must not scale it in place.
#[test]
fn a_torso_does_not_change_its_input() {
    for torso in [TorsoKind::Mlp, TorsoKind::Nips] {
        let (spec, config) = (pong(), network(torso, Precision::Fp32));
        let mut rng = stream(1, "init");
        let mut b = Builder::new(&mut rng);
        let torso = Torso::new(&mut b, &config, &spec).unwrap();
        let params = b.finish(Device::Cpu, Kind::Float);
        let mut input = Input::new(&config, &spec, torso.is_convolutional(), Device::Cpu, Kind::Float).unwrap();
        let x = input.load(frames(2, &spec).as_ref().into(), 2, Pass::Infer);
        let [first, second] = [0, 1].map(|_| no_grad(|| torso.forward(params.weights(), &x, Pass::Infer)));
        assert_eq!(first, second, "{:?}", config.torso);
    }
}

/// A uniform frame has a standard deviation of 0: the result is zeros, not NaN, for any brightness.
#[test]
fn a_uniform_frame_is_standardized_to_zeros() {
    let config = NetworkConfig { standardize: true, ..network(TorsoKind::Nips, Precision::Fp32) };
    let mut net = ActorCritic::new(&config, &pong(), "cpu", &mut stream(4, "init")).unwrap();
    let mut evaluate =
        |pixel: u8| to_vec(&logits(net.forward(ObsRef::U8(&vec![pixel; pong().obs_len()]), 1, Pass::Infer).0));
    assert!(evaluate(0).iter().all(|l| l.is_finite()));
    assert_eq!(evaluate(0), evaluate(200));
}

#[test]
fn mismatches_of_config_and_environment_are_errors() {
    let small = spec(&[10, 5], Dtype::U8, 1);
    let make = |torso, device| {
        ActorCritic::new(&network(torso, Precision::Fp32), &small, device, &mut stream(1, "init")).map(|_| ())
    };
    let error = make(TorsoKind::Nature, "cpu").unwrap_err().to_string();
    assert!(error.contains("mlp"), "{error}");
    assert!(make(TorsoKind::Auto, "cpu").is_ok(), "small frames get fully connected layers");
    let config = NetworkConfig { standardize: true, ..NetworkConfig::default() };
    let vectors = ActorCritic::new(&config, &spec(&[3], Dtype::F32, 1), "cpu", &mut stream(1, "init"));
    assert!(vectors.unwrap_err().to_string().contains("env.normalize_obs"));
    assert!(make(TorsoKind::Auto, "gpu").unwrap_err().to_string().contains("cpu, cuda, cuda:N or auto"));
}

/// Dueling by hand, from the outputs of the streams: Q = V + A − mean A, for distributions per atom.
#[test]
fn a_dueling_network_adds_value_and_centered_advantage() {
    let spec = spec(&[3], Dtype::F32, 1);
    let config = NetworkConfig { hidden: vec![8, 5], ..NetworkConfig::default() };
    for atoms in [1, 4] {
        let q = QConfig { dueling: true, noisy_sigma: 0.0, atoms };
        let mut net = QNetwork::new(&config, q, &spec, "cpu", &mut stream(6, "init")).unwrap();
        let params = net.params.named(net.params.master());
        let tensor = |name: &str| {
            let array = &params[name];
            let shape: Vec<i64> = array.shape.iter().map(|&d| d as i64).collect();
            Tensor::from_slice(&array.values::<f32>().unwrap()).view(&shape[..])
        };
        let linear = |x: &Tensor, name: &str| {
            x.linear(&tensor(&format!("{name}.weight")), Some(&tensor(&format!("{name}.bias"))))
        };
        let obs = [0.3_f32, -0.7, 1.1, 0.0, 2.0, -1.0];
        let x = linear(&Tensor::from_slice(&obs).view([2, 3]), "torso.fc1").tanh();
        let stream = |name: &str| linear(&linear(&x, &format!("{name}.hidden")).tanh(), &format!("{name}.out"));
        let advantage = stream("advantage").view([2, 6, atoms]);
        let expected = stream("value").view([2, 1, atoms]) + &advantage
            - advantage.mean_dim([1_i64].as_slice(), true, Kind::Float);
        let actual = net.forward(ObsRef::F32(&obs), 2, Pass::Infer);
        assert_eq!(actual.size(), [2, 6, atoms]);
        assert!(difference(&actual, &expected) < 1e-6);
    }
}

/// The torso's gradient is scaled by 1/√2 (Wang et al. 2016, section 4.2), that of the streams is not.
#[test]
fn the_torso_of_a_dueling_network_has_a_scaled_gradient() {
    let spec = spec(&[3], Dtype::F32, 1);
    let config = NetworkConfig { hidden: vec![8, 5], ..NetworkConfig::default() };
    let q = QConfig { dueling: true, noisy_sigma: 0.0, atoms: 1 };
    let mut net = QNetwork::new(&config, q, &spec, "cpu", &mut stream(6, "init")).unwrap();
    let leaf = |(name, a): (String, Array)| {
        let shape: Vec<i64> = a.shape.iter().map(|&d| d as i64).collect();
        (name, Tensor::from_slice(&a.values::<f32>().unwrap()).view(&shape[..]).set_requires_grad(true))
    };
    let leaves: BTreeMap<_, _> = net.params.named(net.params.master()).into_iter().map(leaf).collect();
    let linear =
        |x: &Tensor, name: &str| x.linear(&leaves[&format!("{name}.weight")], Some(&leaves[&format!("{name}.bias")]));
    let obs = [0.3_f32, -0.7, 1.1, 0.0, 2.0, -1.0];
    let x = linear(&Tensor::from_slice(&obs).view([2, 3]), "torso.fc1").tanh();
    let branch = |name: &str| linear(&linear(&x, &format!("{name}.hidden")).tanh(), &format!("{name}.out"));
    let advantage = branch("advantage");
    let expected = branch("value") + &advantage - advantage.mean_dim([1_i64].as_slice(), true, Kind::Float);
    let loss = |q: &Tensor| q.square().sum(Kind::Float);
    loss(&expected).backward();
    let actual = net.forward(ObsRef::F32(&obs), 2, Pass::Train).squeeze_dim(2);
    net.backward(&loss(&actual));
    let gradients = net.params.named(&net.params.gradient());
    for (name, leaf) in &leaves {
        let scale = if name.starts_with("torso") { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
        let actual = Tensor::from_slice(&gradients[name].values::<f32>().unwrap()).view(&leaf.size()[..]);
        assert!(difference(&actual, &(leaf.grad() * scale)) < 1e-6, "{name}");
    }
}

/// The last layers compute in `f32` from the master weights in every precision: with values around 24, where bf16 has steps of 1/8,
/// outputs and the last layers' gradient are exact to 1e-5 and 1e-6.
#[test]
fn the_last_layers_compute_in_f32() {
    let (spec, n) = (pong(), 7);
    let obs = frames(n, &spec);
    // A path that is timed may be another in training than in inference.
    let config = |kernels| NetworkConfig { kernels, ..network(TorsoKind::Nips, Precision::Bf16) };
    let product = |x: &Tensor, params: &BTreeMap<String, Array>, name: &str| {
        let tensor = |part: &str| Tensor::from_slice(&params[&format!("{name}.{part}")].values::<f32>().unwrap());
        let bias = tensor("bias");
        x.to_kind(Kind::Float).linear(&tensor("weight").view([bias.size()[0], -1]), Some(&bias))
    };
    let raise = |params: &mut Params, name: &str| {
        let mut state = params.state();
        let bias = state.get_mut(&format!("{name}.bias")).unwrap();
        let raised: Vec<f32> = bias.values::<f32>().unwrap().iter().map(|b| b + 24.0).collect();
        *bias = Array::new(&[raised.len()], &raised);
        params.load_state(&state).unwrap();
        state
    };
    let close = |what: &str, a: &Tensor, b: &Tensor| {
        let off = (a - b).abs().max().double_value(&[]);
        assert!(off < 1e-5, "{what}: off by {off}");
    };
    let kinds = [Kernels::Own, Kernels::Libtorch];
    for (dueling, kernels) in kinds.into_iter().flat_map(|kernels| [(false, kernels), (true, kernels)]) {
        let q = QConfig { dueling, noisy_sigma: 0.0, atoms: 1 };
        let mut net = QNetwork::new(&config(kernels), q, &spec, "cpu", &mut stream(8, "init")).unwrap();
        let name = if dueling { "value.out" } else { "q.out" };
        let state = raise(&mut net.params, name);
        let features = net.features(obs.as_ref(), n);
        let z = net.forward(obs.as_ref(), n, Pass::Train).squeeze_dim(2);
        let expected = product(&features, &state, name);
        match dueling {
            // Q's mean over actions is V.
            true => close("V", &z.mean_dim([1_i64].as_slice(), true, Kind::Float), &expected),
            false => close("Q", &z, &expected),
        }
        net.backward(&z.sum(Kind::Float));
        let gradient = net.params.named(&net.params.gradient())[&format!("{name}.weight")].values::<f32>().unwrap();
        let expected =
            features.to_kind(Kind::Float).sum_dim_intlist(0, false, Kind::Float) * if dueling { 6.0 } else { 1.0 };
        let rows = Tensor::from_slice(&gradient).view([-1, features.size()[1]]);
        assert!(difference(&rows.get(0), &expected) < 1e-6, "{name}'s gradient");
    }
    for kernels in kinds {
        let mut net = ActorCritic::new(&config(kernels), &spec, "cpu", &mut stream(8, "init")).unwrap();
        raise(&mut net.params, "value");
        let state = raise(&mut net.params, "policy");
        let start = net.initial_state(n);
        let (policy, value, features) = net.infer_with_features(&start, obs.as_ref(), n);
        for (policy, value) in [(policy, value), net.forward(obs.as_ref(), n, Pass::Infer)] {
            close("logits", &logits(policy), &product(&features, &state, "policy"));
            close("V", &value, &product(&features, &state, "value").squeeze_dim(1));
        }
        let (policy, value) = net.forward(obs.as_ref(), n, Pass::Train);
        net.backward(&(logits(policy).sum(Kind::Float) + value.sum(Kind::Float)));
        let gradients = net.params.named(&net.params.gradient());
        let expected = features.sum_dim_intlist(0, false, Kind::Float);
        for name in ["policy", "value"] {
            let gradient = gradients[&format!("{name}.weight")].values::<f32>().unwrap();
            let rows = Tensor::from_slice(&gradient).view([-1, features.size()[1]]);
            assert!(difference(&rows.get(0), &expected) < 1e-6, "{name}'s gradient");
        }
    }
}

/// A sample of the noise applies until it is replaced or disabled; a network without noisy layers ignores it.
#[test]
fn noise_applies_until_it_is_disabled() {
    let spec = spec(&[3], Dtype::F32, 1);
    let obs = [0.3_f32, -0.7, 1.1];
    for (noisy_sigma, noisy) in [(0.5, true), (0.0, false)] {
        let q = QConfig { dueling: true, noisy_sigma, atoms: 1 };
        let mut net = QNetwork::new(&NetworkConfig::default(), q, &spec, "cpu", &mut stream(7, "init")).unwrap();
        let evaluate = |net: &mut QNetwork| to_vec(&net.forward(ObsRef::F32(&obs), 1, Pass::Infer));
        let without = evaluate(&mut net);
        net.set_noise(net.sample_noise(&mut stream(1, "noise")));
        let first = evaluate(&mut net);
        assert_eq!(first, evaluate(&mut net), "a sample lasts until the next");
        net.set_noise(net.sample_noise(&mut stream(2, "noise")));
        assert_eq!(first != evaluate(&mut net), noisy);
        assert_eq!(first != without, noisy);
        net.disable_noise();
        assert_eq!(evaluate(&mut net), without);
    }
}

/// An actor's network, whose weights were copied from the learner's, and a deep clone of it compute what the learner's does.
#[test]
fn a_clone_of_an_actors_network_computes_the_same() {
    let (spec, n) = (pong(), 5);
    let obs = frames(n, &spec);
    for precision in [Precision::Fp32, Precision::Bf16] {
        let q = QConfig { dueling: false, noisy_sigma: 0.0, atoms: 1 };
        let new = |seed: u64| {
            QNetwork::new(&network(TorsoKind::Nips, precision), q, &spec, "cpu", &mut stream(seed, "init")).unwrap()
        };
        let (mut learner, mut actor) = (new(1), new(2));
        let values = |net: &mut QNetwork| to_vec(&net.forward(obs.as_ref(), n, Pass::Infer));
        assert_ne!(values(&mut learner), values(&mut actor));
        actor.copy_from(&learner);
        let expected = values(&mut learner);
        assert_eq!(values(&mut actor), expected, "{precision:?}");
        assert_eq!(values(&mut actor.deep_clone()), expected, "{precision:?}");
    }
}

#[test]
fn a_q_network_refuses_continuous_actions() {
    let actions = ActionSpace::Box { low: vec![-1.0], high: vec![1.0] };
    let spec = EnvSpec { actions, ..spec(&[3], Dtype::F32, 1) };
    let q = QConfig { dueling: false, noisy_sigma: 0.0, atoms: 1 };
    let error = QNetwork::new(&NetworkConfig::default(), q, &spec, "cpu", &mut stream(1, "init")).unwrap_err();
    assert!(error.to_string().contains("needs discrete ones"));
}
