//! Networks on observations with several parts, against libtorch's plain operators.

use playfield_core::rng::stream;
use playfield_core::{ActionSpace, Array, Dtype, EnvSpec, Graph, ObsMut, ObsRef, Part};
use playfield_nn::config::TorsoKind;
use playfield_nn::params::Params;
use playfield_nn::{ActorCritic, Distribution, NetworkConfig, Pass, QConfig, QNetwork};
use rand::RngExt as _;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Two images with torsos, one that is too small, and two vectors.
fn spec(frame_stack: usize) -> EnvSpec {
    let parts = vec![
        Part::vector("position", 3),
        Part::image("camera", 36, 40, 1),
        Part::image("icon", 10, 5, 1),
        Part::image("map", 44, 36, 3),
        Part::vector("speed", 1),
    ];
    EnvSpec::of_parts("test", parts, ActionSpace::Discrete { n: 4 }).with_frame_stack(frame_stack)
}

/// `n` random observations, and the values of each part, `[n, elements, frame_stack]`.
fn observations(spec: &EnvSpec, n: usize) -> (Vec<u8>, Vec<Tensor>) {
    let (mut rng, k) = (stream(5, "parts"), spec.frame_stack);
    let mut observations = vec![0; n * spec.obs_len()];
    let mut values: Vec<Vec<f32>> = spec.parts.iter().map(|part| vec![0.0; n * part.elements() * k]).collect();
    for (i, row) in observations.chunks_mut(spec.obs_len()).enumerate() {
        for frame in 0..k {
            let mut write = |part: &Part, values: &mut Vec<f32>| {
                let sample: Vec<f32> = match part.dtype {
                    Dtype::U8 => (0..part.elements()).map(|_| f32::from(rng.random::<u8>())).collect(),
                    Dtype::F32 => (0..part.elements()).map(|_| rng.random_range(-2.0..2.0)).collect(),
                };
                for (e, value) in sample.iter().enumerate() {
                    values[(i * part.elements() + e) * k + frame] = *value;
                }
                (part.dtype, sample)
            };
            let parts: Vec<_> = spec.parts.iter().zip(&mut values).map(|(part, values)| write(part, values)).collect();
            let pixels: Vec<Vec<u8>> = parts.iter().map(|(_, v)| v.iter().map(|&p| p as u8).collect()).collect();
            let parts = parts.iter().zip(&pixels).map(|((dtype, values), pixels)| match dtype {
                Dtype::U8 => ObsRef::U8(pixels),
                Dtype::F32 => ObsRef::F32(values),
            });
            let mut bytes = vec![0; spec.frame_len()];
            ObsMut::U8(&mut bytes).write_parts(&parts.collect::<Vec<_>>());
            bytes.iter().enumerate().for_each(|(j, byte)| row[j * k + frame] = *byte);
        }
    }
    let tensor = |v: &Vec<f32>| Tensor::from_slice(v).view([n as i64, -1]);
    (observations, values.iter().map(tensor).collect())
}

/// The master parameters by canonical name, contiguous, with gradients.
fn canonical(params: &Params) -> BTreeMap<String, Tensor> {
    let tensor = |a: &Array| {
        let shape: Vec<i64> = a.shape.iter().map(|&d| d as i64).collect();
        Tensor::from_slice(&a.values::<f32>().unwrap()).view(&shape[..]).set_requires_grad(true)
    };
    params.named(params.master()).iter().map(|(name, array)| (name.clone(), tensor(array))).collect()
}

fn linear(params: &BTreeMap<String, Tensor>, x: &Tensor, name: &str) -> Tensor {
    x.linear(&params[&format!("{name}.weight")], Some(&params[&format!("{name}.bias")]))
}

/// The concatenated features: those of `camera` and `map` by Nature's torso, then the other parts.
fn features(params: &BTreeMap<String, Tensor>, spec: &EnvSpec, parts: &[Tensor]) -> Tensor {
    let image = |part: usize, torso: &str| {
        let [h, w] = [0, 1].map(|d| spec.parts[part].shape[d] as i64);
        let mut x =
            parts[part].view([-1, h, w, parts[part].size()[1] / (h * w)]).permute([0, 3, 1, 2]).contiguous() / 255.0;
        for (conv, stride) in [("conv1", 4), ("conv2", 2), ("conv3", 1)] {
            let [weight, bias] = ["weight", "bias"].map(|name| &params[&format!("torso.{torso}.{conv}.{name}")]);
            x = x.conv2d(weight, Some(bias), stride, 0, 1, 1).relu();
        }
        linear(params, &x.permute([0, 2, 3, 1]).flatten(1, -1), &format!("torso.{torso}.fc")).relu()
    };
    let icon = &parts[2] / 255.0;
    Tensor::cat(&[&image(1, "image0"), &image(3, "image1"), &parts[0], &icon, &parts[4]], 1)
}

/// The norm of the difference, relative to `b`'s.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).norm().double_value(&[]) / b.norm().double_value(&[])
}

fn compare_gradients(net: &Params, params: &BTreeMap<String, Tensor>) {
    for (name, gradient) in net.named(&net.gradient()) {
        let actual = Tensor::from_slice(&gradient.values::<f32>().unwrap()).view_as(&params[&name]);
        let off = difference(&actual, &params[&name].grad());
        assert!(off < 1e-4, "the gradient of {name} is off by {off}");
    }
}

/// For one frame and for two; on two threads, which split the batch, the values.
#[test]
fn an_actor_critic_equals_the_plain_computation() {
    let (n, config) = (9, NetworkConfig { hidden: vec![16, 8], ..NetworkConfig::default() });
    for (frame_stack, threads) in [(1, 1), (2, 1), (2, 2)] {
        let spec = spec(frame_stack);
        let (obs, parts) = observations(&spec, n);
        let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(1, "init")).unwrap();
        net.set_num_threads(threads);
        let params = canonical(&net.params);
        let (policy, value) = net.forward(ObsRef::U8(&obs), n, Pass::Train);
        let Distribution::Categorical { logits, .. } = policy else { panic!("the space is discrete") };
        net.backward(&(logits.square().sum(Kind::Float) + value.sum(Kind::Float)));

        let x = features(&params, &spec, &parts);
        let x = linear(&params, &linear(&params, &x, "torso.fc1").tanh(), "torso.fc2").tanh();
        let (expected, values) = (linear(&params, &x, "policy"), linear(&params, &x, "value").squeeze_dim(1));
        assert!(difference(&logits, &expected) < 1e-5 && difference(&value, &values) < 1e-5);
        (expected.square().sum(Kind::Float) + values.sum(Kind::Float)).backward();
        if threads == 1 {
            compare_gradients(&net.params, &params);
        }
    }
}

/// The last hidden layer belongs to the head.
#[test]
fn a_q_network_equals_the_plain_computation() {
    let (n, spec, config) = (3, spec(2), NetworkConfig { hidden: vec![16, 8], ..NetworkConfig::default() });
    let (obs, parts) = observations(&spec, n);
    let q = QConfig { dueling: false, noisy_sigma: 0.0, atoms: 1 };
    let mut net = QNetwork::new(&config, q, &spec, "cpu", &mut stream(2, "init")).unwrap();
    let params = canonical(&net.params);
    let values = net.forward(ObsRef::U8(&obs), n, Pass::Train).squeeze_dim(2);
    net.backward(&values.square().sum(Kind::Float));
    let x = features(&params, &spec, &parts);
    let x = linear(&params, &linear(&params, &x, "torso.fc1").tanh(), "q.hidden").tanh();
    let expected = linear(&params, &x, "q.out");
    assert!(difference(&values, &expected) < 1e-5);
    expected.square().sum(Kind::Float).backward();
    compare_gradients(&net.params, &params);
}

/// With `mlp` every part is flattened: one layer on all elements, pixels divided by 255.
#[test]
fn an_mlp_flattens_images() {
    let (n, spec) = (2, spec(1));
    let config = NetworkConfig { hidden: vec![8], torso: TorsoKind::Mlp, ..NetworkConfig::default() };
    let (obs, parts) = observations(&spec, n);
    let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(1, "init")).unwrap();
    let params = canonical(&net.params);
    let (_, value) = net.forward(ObsRef::U8(&obs), n, Pass::Infer);
    let scaled: Vec<_> = parts
        .iter()
        .zip(&spec.parts)
        .map(|(x, p)| if p.dtype == Dtype::U8 { x / 255.0 } else { x.shallow_clone() })
        .collect();
    let x = linear(&params, &Tensor::cat(&scaled, 1), "torso.fc1").tanh();
    assert!(difference(&value, &linear(&params, &x, "value").squeeze_dim(1)) < 1e-5);
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let make = |config: NetworkConfig, parts| {
        let spec = EnvSpec::of_parts("test", parts, ActionSpace::Discrete { n: 2 });
        ActorCritic::new(&config, &spec, "cpu", &mut stream(1, "init"))
    };
    let small = || vec![Part::image("icon", 10, 5, 1), Part::vector("speed", 1)];
    let nature = NetworkConfig { torso: TorsoKind::Nature, ..NetworkConfig::default() };
    let message = make(nature, small()).unwrap_err().to_string();
    assert!(message.contains("icon u8[10, 5] + speed f32[1]") && message.contains("torso = \"mlp\""), "{message}");
    let standardize = NetworkConfig { standardize: true, ..NetworkConfig::default() };
    let message = make(standardize, small()).unwrap_err().to_string();
    assert!(message.contains("`standardize` is for frames alone"), "{message}");
    let net = make(NetworkConfig::default(), small()).unwrap();
    let mut graph = Graph::default();
    let obs = graph.input("obs", Dtype::U8, &[54]);
    assert!(net.export(&mut graph, obs).unwrap_err().to_string().contains("cannot be exported"));
}
