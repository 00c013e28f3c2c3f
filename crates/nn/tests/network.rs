//! Networks: their sizes, their initial values, and their forward and backward passes against libtorch's plain operators.

use playfield_core::rng::{self, stream};
use playfield_core::{ActionSpace, Dtype, EnvSpec, Obs, ObsRef, Snapshot};
use playfield_nn::config::{InitKind, Precision, TorsoKind};
use playfield_nn::heads::Distribution;
use playfield_nn::init::Init;
use playfield_nn::params::to_vec;
use playfield_nn::{ActorCritic, NetworkConfig};
use rand::Rng as _;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

fn spec(shape: &[usize], dtype: Dtype, history: usize) -> EnvSpec {
    let actions = ActionSpace::Discrete { n: 6 };
    EnvSpec { id: "test".into(), shape: shape.to_vec(), dtype, history, actions, action_names: vec![] }
}

fn pong() -> EnvSpec {
    spec(&[84, 84], Dtype::U8, 4)
}

fn network(torso: TorsoKind, precision: Precision) -> NetworkConfig {
    NetworkConfig { torso, precision, ..NetworkConfig::default() }
}

fn frames(n: usize, spec: &EnvSpec) -> Obs {
    let mut rng = stream(5, "frames");
    Obs::U8((0..n * spec.obs_len()).map(|_| (rng.next_u64() >> 56) as u8).collect())
}

fn logits(policy: Distribution) -> Tensor {
    match policy {
        Distribution::Categorical(logits) => logits,
        Distribution::Gaussian { .. } => panic!("the space is discrete"),
    }
}

/// Sizes by hand: nature 32·(4·64)+32, 64·(32·16)+64, 64·(64·9)+64, 512·3136+512, then 6·512+6 and 512+1.
#[test]
fn networks_have_the_published_sizes() {
    for (torso, expected) in [(TorsoKind::Nature, 1_684_128 + 3_078 + 513), (TorsoKind::Nips, 676_144 + 1_542 + 257)] {
        let net = ActorCritic::new(&network(torso, Precision::Fp32), &pong(), "cpu", &mut stream(1, "init")).unwrap();
        assert_eq!(net.params.count(), expected, "{torso:?}");
    }
}

/// The oracle: PyTorch's layout, contiguous, frames divided by 255 or standardised first, parameters by their canonical
/// names.
fn plain(params: &BTreeMap<String, Tensor>, obs: &[u8], n: i64, standardise: bool) -> (Tensor, Tensor) {
    let x = Tensor::from_slice(obs).view([n, 84, 84, 4]).permute([0, 3, 1, 2]).contiguous().to_kind(Kind::Float);
    let over = [1_i64, 2, 3];
    let mut x = match standardise {
        true => (&x - x.mean_dim(&over[..], true, Kind::Float)) / x.std_dim(&over[..], false, true),
        false => x / 255.0,
    };
    for (name, stride) in [("conv1", 4), ("conv2", 2), ("conv3", 1)] {
        let (w, b) = (&params[&format!("torso.{name}.weight")], &params[&format!("torso.{name}.bias")]);
        x = x.conv2d(w, Some(b), stride, 0, 1, 1).relu();
    }
    let linear =
        |x: &Tensor, name: &str| x.linear(&params[&format!("{name}.weight")], Some(&params[&format!("{name}.bias")]));
    // The flattened features lie as (height, width, channel).
    let x = linear(&x.permute([0, 2, 3, 1]).flatten(1, -1), "torso.fc").relu();
    (linear(&x, "policy"), linear(&x, "value").squeeze_dim(1))
}

fn canonical(net: &ActorCritic) -> BTreeMap<String, Tensor> {
    let named = net.params.named(net.params.master());
    let tensor = |a: &playfield_core::Array| {
        let shape: Vec<i64> = a.shape.iter().map(|&d| d as i64).collect();
        Tensor::from_slice(&a.to_f32().unwrap()).view(&shape[..]).set_requires_grad(true)
    };
    named.iter().map(|(name, array)| (name.clone(), tensor(array))).collect()
}

/// The norm of the difference, relative to `b`'s.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).norm().double_value(&[]) / b.norm().double_value(&[])
}

/// Both passes, in both precisions: the flat gradient must hold what plain autograd finds.
/// bf16 rounds to 1 part in 256, and where that moves a unit across its rectifier's corner its gradient comes or goes.
#[test]
fn forward_and_backward_equal_plain_operators() {
    let (spec, n) = (pong(), 5);
    let obs = frames(n, &spec);
    let Obs::U8(bytes) = &obs else { unreachable!() };
    let (fp32, bf16) = ((Precision::Fp32, 1e-5), (Precision::Bf16, 0.15));
    for ((precision, tolerance), standardise) in [(fp32, false), (fp32, true), (bf16, false), (bf16, true)] {
        let config = NetworkConfig { standardise, ..network(TorsoKind::Nature, precision) };
        let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(2, "init")).unwrap();
        let oracle = canonical(&net);
        let loss = |l: &Tensor, v: &Tensor| (l.square().sum(Kind::Float) + v.sum(Kind::Float)) * 0.1;
        // Twice, as the second backward pass must not add to the first.
        for _ in 0..2 {
            let (policy, value) = net.forward(obs.as_ref(), n);
            let logits = logits(policy);
            net.params.backward(&loss(&logits, &value));
            let (expected_logits, expected_value) = plain(&oracle, bytes, n as i64, standardise);
            assert!(difference(&logits, &expected_logits) < tolerance);
            assert!(difference(&value, &expected_value) < tolerance);
        }
        let (l, v) = plain(&oracle, bytes, n as i64, standardise);
        loss(&l, &v).backward();
        let grads = net.params.named(&net.params.grads().to_kind(Kind::Float));
        for (name, tensor) in &oracle {
            let grad = Tensor::from_slice(&grads[name].to_f32().unwrap()).view(&tensor.size()[..]);
            let difference = difference(&grad, &tensor.grad());
            assert!(difference < tolerance, "{name}: {difference} in {precision:?}, standardise = {standardise}");
        }
    }
}

#[test]
fn initial_weights_have_the_stated_bounds_and_variance() {
    let draw = |init: Init, shape: &[i64]| init.draw(shape, &mut stream(3, "init"));
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

#[test]
fn saved_and_loaded_the_network_says_the_same_and_another_one_is_refused_by_name() {
    let (spec, obs) = (spec(&[3], Dtype::F32, 1), [0.1, -0.2, 0.3]);
    let config = NetworkConfig { init: InitKind::Orthogonal, ..NetworkConfig::default() };
    let make =
        |config: &NetworkConfig, seed| ActorCritic::new(config, &spec, "cpu", &mut rng::stream(seed, "init")).unwrap();
    let mut a = make(&config, 1);
    let mut snapshot = Snapshot::default();
    a.params.save(&mut snapshot);
    let mut b = make(&config, 2);
    b.params.load(&snapshot).unwrap();
    let say = |net: &mut ActorCritic| to_vec(&logits(net.forward(ObsRef::F32(&obs), 1).0));
    assert_eq!(say(&mut a), say(&mut b));

    let wider = NetworkConfig { hidden: vec![64, 32], ..config.clone() };
    let error = make(&wider, 1).params.load(&snapshot).unwrap_err().to_string();
    assert!(error.contains("torso.fc2") && error.contains("another network"), "{error}");
    let separate = NetworkConfig { shared: false, ..config };
    let error = make(&separate, 1).params.load(&snapshot).unwrap_err().to_string();
    assert!(error.contains("value_torso.fc1"), "{error}");
}

/// A uniform frame has no deviation: it becomes zeros, not NaN, and says what a black one says.
#[test]
fn a_uniform_frame_is_standardised_to_zeros() {
    let config = NetworkConfig { standardise: true, ..network(TorsoKind::Nips, Precision::Fp32) };
    let mut net = ActorCritic::new(&config, &pong(), "cpu", &mut stream(4, "init")).unwrap();
    let mut say = |pixel: u8| to_vec(&logits(net.forward(ObsRef::U8(&vec![pixel; pong().obs_len()]), 1).0));
    assert!(say(0).iter().all(|l| l.is_finite()));
    assert_eq!(say(0), say(200));
}

#[test]
fn what_does_not_fit_is_an_error_that_says_what_to_do() {
    let small = spec(&[10, 5], Dtype::U8, 1);
    let make = |torso, device| {
        ActorCritic::new(&network(torso, Precision::Fp32), &small, device, &mut stream(1, "init")).map(|_| ())
    };
    let error = make(TorsoKind::Nature, "cpu").unwrap_err().to_string();
    assert!(error.contains("mlp"), "{error}");
    assert!(make(TorsoKind::Auto, "cpu").is_ok(), "small frames get fully connected layers by themselves");
    let config = NetworkConfig { standardise: true, ..NetworkConfig::default() };
    let vectors = ActorCritic::new(&config, &spec(&[3], Dtype::F32, 1), "cpu", &mut stream(1, "init"));
    assert!(vectors.unwrap_err().to_string().contains("env.normalise_obs"));
    assert!(make(TorsoKind::Auto, "gpu").unwrap_err().to_string().contains("cpu, cuda, cuda:N or auto"));
}
