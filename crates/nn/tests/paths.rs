//! Each way to compute a torso gives the same results: playfield's kernels and libtorch's, one thread and several, frames of the host and of a
//! device.

mod support;

use playfield_core::rng::stream;
use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, Obs, ObsRef, Snapshot};
use playfield_nn::config::{Kernels, NormKind, Precision, TorsoKind};
use playfield_nn::observations::Indexed;
use playfield_nn::optim::{Norm, Optimizer, RmsProp, Sgd};
use playfield_nn::params::to_vec;
use playfield_nn::{ActorCritic, Distribution, NetworkConfig, Observations, Pass, QConfig, QNetwork};
use support::{difference, frames, logits, network, noise, pong, spec};
use tch::{Kind, Tensor};

/// A backward pass replaces the whole gradient, whatever it was: on both paths, of one torso and of two, on one thread and on two, and where the
/// loss does not depend on a torso.
#[test]
fn a_backward_pass_replaces_the_gradient() {
    let (spec, n) = (pong(), 9);
    let obs = frames(n, &spec);
    for (kernels, shared, threads) in [
        (Kernels::Own, true, 1),
        (Kernels::Own, true, 2),
        (Kernels::Own, false, 1),
        (Kernels::Libtorch, true, 1),
        (Kernels::Libtorch, true, 2),
    ] {
        let config = NetworkConfig { kernels, shared, ..network(TorsoKind::Nips, Precision::Auto) };
        for of_value in [true, false] {
            let gradient = |before: f64| {
                let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(2, "init")).unwrap();
                net.set_num_threads(threads);
                let flat = net.params.gradient();
                // The first pass leaves gradients in the other threads, too.
                for _ in 0..2 {
                    net.params.set_gradient(&flat.full_like(before));
                    let (policy, value) = net.forward(obs.as_ref(), n, Pass::Train);
                    let value = value.sum(Kind::Float);
                    net.backward(&if of_value { value } else { value + logits(policy).square().sum(Kind::Float) });
                }
                to_vec(&net.params.gradient())
            };
            let [expected, replaced] = [0.0, f64::NAN].map(gradient);
            assert!(expected.iter().any(|g| *g != 0.0));
            assert_eq!(replaced, expected, "{kernels:?}, shared = {shared}, {threads} threads, of_value = {of_value}");
        }
    }
}

/// Where the threads' parts of a batch are computed by different paths, a thread's gradient of the batch before does not count: of the calling
/// thread by libtorch and by the own kernels.
#[test]
fn a_batch_of_different_paths_leaves_no_gradient_behind() {
    let spec = pong();
    let obs = frames(13, &spec);
    let config = network(TorsoKind::Nips, Precision::Fp32);
    for (paths, threads, before, n) in [(["libtorch", "own"], 2, 10, 9), (["own", "libtorch"], 3, 12, 13)] {
        let mut choices = Snapshot::default();
        choices.put("network.kernels", &[(true, 4, paths[0]), (true, 5, paths[1])]);
        let norm = |batches: &[usize]| {
            let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(2, "init")).unwrap();
            net.set_num_threads(threads);
            net.dispatch().load(&choices).unwrap();
            for &n in batches {
                let (policy, value) = net.forward(obs.as_ref().slice(0, n * spec.obs_len()), n, Pass::Train);
                net.backward(&(logits(policy).square().sum(Kind::Float) + value.sum(Kind::Float)));
            }
            let mut optimizer = Optimizer::new(RmsProp::tensorflow(), &net.params);
            Norm::values(&[net.step(&mut optimizer, 0.0, 0.0).unwrap()])
        };
        let expected = norm(&[n]);
        assert!(expected[0] > 0.0);
        assert_eq!(norm(&[before, n]), expected, "{paths:?}");
    }
}

/// A Gaussian policy on frames: the standard deviations' gradient is autograd's, between those of means and value, which the own kernels set. A
/// loss that depends on no output has no other.
#[test]
fn a_gaussian_policy_has_the_gradient_of_libtorch() {
    let actions = ActionSpace::Box { low: vec![-1.0; 3], high: vec![1.0; 3] };
    let (spec, n) = (EnvSpec::new("frames", &[84, 84], Dtype::U8, actions).with_frame_stack(4), 9);
    let obs = frames(n, &spec);
    for entropy_alone in [false, true] {
        let gradient = |kernels| {
            let config = NetworkConfig { kernels, ..network(TorsoKind::Nips, Precision::Fp32) };
            let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(2, "init")).unwrap();
            for of_entropy in [false, entropy_alone] {
                let (policy, value) = net.forward(obs.as_ref(), n, Pass::Train);
                let entropy = policy.entropy().mean(Kind::Float);
                let Distribution::Gaussian { mean, .. } = policy else { unreachable!("continuous actions") };
                let outputs = mean.square().sum(Kind::Float) + value.sum(Kind::Float);
                net.backward(&if of_entropy { entropy } else { entropy + outputs });
            }
            net.params.gradient()
        };
        let [own, libtorch] = [Kernels::Own, Kernels::Libtorch].map(gradient);
        assert!(difference(&own, &libtorch) < 1e-5);
        let others = to_vec(&own).iter().filter(|g| **g != 0.0).count();
        assert!(if entropy_alone { others == 3 } else { others > 1_000 }, "{others} elements");
    }
}

/// Log-probabilities, entropies, values and the gradient of a loss on some of them are libtorch's where the own kernels compute the heads, on one
/// thread and on two: of one component and of two, masked (where invalid actions are evaluated, too) and unmasked. Passes before, and an inference
/// before the backward pass, change nothing; only the first five observations are used.
#[test]
fn evaluated_actions_have_the_gradient_of_libtorch() {
    let n = 9;
    let mask: Vec<bool> = (0..n * 5).map(|i| i % 3 != 1).collect();
    let spaces = [
        (ActionSpace::Discrete { n: 5 }, Actions::Discrete((0..n as i64).map(|i| 2 * i % 5).collect())),
        (
            ActionSpace::MultiDiscrete { sizes: vec![2, 3] },
            Actions::MultiDiscrete { indices: (0..n as i64).flat_map(|i| [i % 2, 2 * i % 3]).collect(), dim: 2 },
        ),
    ];
    let used = Tensor::from_slice(&[0_i64, 1, 2, 3, 4]);
    let weights = Tensor::from_slice(&[-3.0_f32, 1.0, 2.0, 0.5, -1.0]);
    for ((space, actions), mask) in spaces.iter().flat_map(|space| [(space, &[][..]), (space, &mask)]) {
        let spec = EnvSpec::new("frames", &[84, 84], Dtype::U8, space.clone()).with_frame_stack(4);
        let obs = frames(n, &spec);
        for uses in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, -2.0, 0.5]] {
            let results = |kernels, threads| {
                let config = NetworkConfig { kernels, ..network(TorsoKind::Nips, Precision::Fp32) };
                let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(2, "init")).unwrap();
                net.set_num_threads(threads);
                let start = net.initial_state(n);
                let _ = net.forward(obs.as_ref(), n, Pass::Train);
                net.evaluate_actions(&start, &[], obs.as_ref().into(), actions, mask);
                let evaluated = net.evaluate_actions(&start, &[], obs.as_ref().into(), actions, mask);
                assert_eq!(evaluated.log_probs.is_leaf(), kernels == Kernels::Own);
                let evaluated = evaluated.select(&used);
                let parts = [evaluated.log_probs, evaluated.entropies.square(), evaluated.values];
                let used = parts.iter().zip(uses).filter(|(_, weight)| *weight != 0.0);
                let losses: Vec<_> = used.map(|(part, weight)| (part * &weights).sum(Kind::Float) * weight).collect();
                let _ = net.forward(obs.as_ref(), n, Pass::Infer);
                net.backward(&Tensor::stack(&losses, 0).sum(Kind::Float));
                // The gradients of all threads, by what a step changes.
                let before = net.params.master().copy();
                net.step(&mut Optimizer::new(Sgd::default(), &net.params), 1.0, 0.0).unwrap();
                (parts.map(|part| to_vec(&part.detach())), net.params.master() - before)
            };
            let (expected, expected_step) = results(Kernels::Libtorch, 1);
            for threads in [1, 2] {
                let (parts, step) = results(Kernels::Own, threads);
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
                assert!(
                    parts.iter().zip(&expected).all(|(a, b)| a.iter().zip(b).all(close)),
                    "{parts:?}: {expected:?}"
                );
                let difference = difference(&step, &expected_step);
                assert!(difference < 1e-4, "{space:?}, {mask:?}, {uses:?}, {threads} threads: {difference}");
            }
        }
    }
}

/// Frames in the memory of a device are computed as those of the host are by libtorch: bit for bit, and but for rounding where they are
/// standardized, which a device does in `f32`. Observation 2 is uniform.
#[test]
fn frames_on_a_device_equal_those_of_the_host() {
    let (spec, n) = (pong(), 3);
    let Obs::U8(mut bytes) = frames(n, &spec) else { unreachable!() };
    bytes[2 * spec.obs_len()..].fill(7);
    let on_device = Tensor::from_slice(&bytes).view([n as i64, 84, 84, 4]);
    for (torso, precision, standardize) in [
        (TorsoKind::Nature, Precision::Fp32, false),
        (TorsoKind::Nips, Precision::Bf16, false),
        (TorsoKind::Impala, Precision::Fp32, false),
        (TorsoKind::Nips, Precision::Fp32, true),
    ] {
        let config = NetworkConfig { standardize, kernels: Kernels::Libtorch, ..network(torso, precision) };
        let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(2, "init")).unwrap();
        net.set_num_threads(2);
        let mut results = |device: bool, pass: Pass| {
            let obs = if device { Observations::Device(&on_device) } else { ObsRef::U8(&bytes).into() };
            let (policy, value, _) = net.forward_from(&net.initial_state(n), &[], obs, n, pass);
            let logits = logits(policy);
            if pass == Pass::Train {
                net.backward(&(logits.square().sum(Kind::Float) + value.sum(Kind::Float)));
            }
            [to_vec(&logits), to_vec(&value), to_vec(&net.params.gradient())].concat()
        };
        for pass in [Pass::Infer, Pass::Train] {
            let [host, device] = [false, true].map(|device| results(device, pass));
            let bound = if standardize { 1e-4 } else { 0.0 };
            let largest = host.iter().map(|x| x.abs()).fold(0.0, f32::max);
            let close = host.iter().zip(&device).all(|(a, b)| (a - b).abs() <= bound * largest);
            assert!(close && largest > 0.0, "{torso:?}, {pass:?}, standardize = {standardize}");
        }
    }
}

/// Indexed observations give what the same observations give one after the other, bit for bit: by libtorch and by the own kernels, on one thread and on
/// two, frames and vectors, with a batch of another size between.
#[test]
fn indexed_observations_are_a_batch() {
    for (spec, torso, kernels, threads) in [
        (pong(), TorsoKind::Nips, Kernels::Own, 1),
        (pong(), TorsoKind::Nips, Kernels::Own, 2),
        (pong(), TorsoKind::Nips, Kernels::Libtorch, 2),
        (spec(&[3], Dtype::U8, 1), TorsoKind::Auto, Kernels::Auto, 2),
    ] {
        let (all, len) = (frames(12, &spec), spec.obs_len());
        let config = NetworkConfig { kernels, ..network(torso, Precision::Fp32) };
        let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(2, "init")).unwrap();
        net.set_num_threads(threads);
        for indices in [&[7, 0, 11, 3, 3, 9, 1, 10][..], &[5], &[0, 1, 2, 3, 4, 5, 6, 8]] {
            let mut batch = Obs::default();
            batch.gather(all.as_ref(), len, indices);
            let expected: Vec<_> = indices.iter().map(|&i| all.slice(i * len, len)).collect();
            assert!(expected.into_iter().enumerate().all(|(k, row)| batch.slice(k * len, len) == row));
            let mut results = |obs: Observations<'_>| {
                let n = indices.len();
                let (policy, value, _) = net.forward_from(&net.initial_state(n), &[], obs, n, Pass::Train);
                let logits = logits(policy);
                net.backward(&(logits.square().sum(Kind::Float) + value.sum(Kind::Float)));
                [to_vec(&logits), to_vec(&value), to_vec(&net.params.gradient())].concat()
            };
            let indexed = results(Observations::Indexed(Indexed { buffer: all.as_ref(), obs_len: len, indices }));
            assert!(indexed == results(batch.as_ref().into()) && indexed.iter().any(|x| *x != 0.0));
        }
    }
}

/// The torsos with own kernels and frames for them, without norm and with layer norm. IMPALA's stages have images of odd and even sides.
fn own_torsos() -> impl Iterator<Item = (TorsoKind, NormKind, EnvSpec)> {
    let torsos = [TorsoKind::Nips, TorsoKind::Nature, TorsoKind::Small].map(|torso| (torso, pong()));
    let torsos = torsos.into_iter().chain([(TorsoKind::Impala, spec(&[42, 37], Dtype::U8, 4))]);
    torsos.flat_map(|(torso, spec)| [NormKind::None, NormKind::Layer].map(|norm| (torso, norm, spec.clone())))
}

/// playfield's own kernels, in `f32` and, where supported, bf16, equal libtorch in `f32`, forward and
/// backward, before a step and after, for frames that an inference pass has computed and for others. A step gives each norm
/// its own γ and β.
#[test]
fn own_kernels_equal_libtorch() {
    for (torso, norm, spec) in own_torsos() {
        let every_size = norm == NormKind::None && torso != TorsoKind::Impala;
        let batch_sizes: Vec<_> = if every_size { (1..=12).collect() } else { vec![2, 1, 5, 32] };
        let many = *batch_sizes.last().unwrap();
        let obs = frames(many, &spec);
        // IMPALA's fifteen convolutions add up more rounding errors than two or three. In `f32` one of its many rectifiers may have an
        // input so close to 0 that rounding decides, which changes the gradient in the fourth digit: in one pass of four at most.
        let deep = torso == TorsoKind::Impala;
        for (precision, tolerance) in [(Precision::Fp32, 1e-5), (Precision::Bf16, if deep { 0.2 } else { 0.1 })] {
            let mut undecided = usize::from(!(deep && precision == Precision::Fp32));
            let [mut own, mut libtorch] =
                [(precision, Kernels::Own), (Precision::Fp32, Kernels::Libtorch)].map(|(p, kernels)| {
                    let config = NetworkConfig { kernels, norm, ..network(torso, p) };
                    ActorCritic::new(&config, &spec, "cpu", &mut stream(4, "init")).unwrap()
                });
            let mut optimizer = Optimizer::new(RmsProp::tensorflow(), &libtorch.params);
            for &rows in &batch_sizes {
                let pass = |net: &mut ActorCritic, n: usize| {
                    let (policy, value) = net.forward(obs.as_ref().slice(0, n * spec.obs_len()), n, Pass::Train);
                    let (logits, value) = (logits(policy).narrow(0, 0, rows as i64), value.narrow(0, 0, rows as i64));
                    net.backward(&(logits.square().sum(Kind::Float) + value.sum(Kind::Float)));
                    [logits, value, net.params.gradient()]
                };
                if rows % 2 == 1 {
                    let _ = own.forward(obs.as_ref().slice(0, rows * spec.obs_len()), rows, Pass::Infer);
                }
                let (few, all) = (pass(&mut own, rows), pass(&mut libtorch, many));
                for (i, (own, libtorch)) in few.iter().zip(&all).enumerate() {
                    let off = difference(own, libtorch);
                    if i == 2 && undecided == 0 && (tolerance..1e-3).contains(&off) {
                        undecided = 1;
                        continue;
                    }
                    assert!(off < tolerance, "{torso:?}, {norm:?}, {precision:?}, {rows} rows: off by {off}");
                }
                // The step must update packed weights.
                libtorch.step(&mut optimizer, 0.01, 0.0).unwrap();
                own.params.load_state(&libtorch.params.state()).unwrap();
                let logits = logits(own.forward(obs.as_ref().slice(0, rows * spec.obs_len()), rows, Pass::Infer).0);
                assert!(difference(&logits, &few[0]) > 1e-3);
            }
        }
    }
}

/// The same for a Q-network, whose single hidden layer is part of the torso; of 6, 18 and 42 outputs, the last too many for kernels of their own.
#[test]
fn own_kernels_of_a_q_network_equal_libtorch() {
    let (spec, many, rows) = (pong(), 12, 5);
    let obs = frames(many, &spec);
    for (dueling, atoms, norm) in [
        (false, 1, NormKind::None),
        (false, 3, NormKind::None),
        (false, 7, NormKind::None),
        (true, 1, NormKind::None),
        (true, 3, NormKind::None),
        (false, 1, NormKind::Layer),
    ] {
        for (precision, tolerance) in [(Precision::Fp32, 1e-5), (Precision::Bf16, 0.1)] {
            let q = QConfig { dueling, noisy_sigma: 0.0, atoms };
            let pass = |precision, kernels, n: usize| {
                let config = NetworkConfig { kernels, norm, ..network(TorsoKind::Nature, precision) };
                let mut net = QNetwork::new(&config, q, &spec, "cpu", &mut stream(4, "init")).unwrap();
                let values = net.forward(obs.as_ref().slice(0, n * spec.obs_len()), n, Pass::Train).narrow(0, 0, rows);
                net.backward(&values.square().sum(Kind::Float));
                [values, net.params.gradient()]
            };
            let own = pass(precision, Kernels::Own, rows as usize);
            let libtorch = pass(Precision::Fp32, Kernels::Libtorch, many);
            for (own, libtorch) in own.iter().zip(&libtorch) {
                let off = difference(own, libtorch);
                assert!(off < tolerance, "dueling {dueling}, {atoms} atoms, {norm:?}, {precision:?}: off by {off}");
            }
        }
    }
}

/// bf16 against libtorch *in bf16*, where rounding differs only by the order of sums: outputs within 2 %, and each layer's
/// gradient within 2 % of the norm and with a cosine above .999.
#[test]
fn own_bf16_kernels_equal_libtorch_in_bf16() {
    let n = 32;
    let deep = |torso, norm| torso == TorsoKind::Impala && norm == NormKind::Layer;
    for (torso, norm, spec) in own_torsos().filter(|(torso, norm, _)| !deep(*torso, *norm)) {
        // A norm's gradient from frames of half one color is less exact on both paths.
        let obs = if norm == NormKind::None { frames(n, &spec) } else { noise(n, &spec) };
        let pass = |kernels| {
            let config = NetworkConfig { kernels, norm, ..network(torso, Precision::Bf16) };
            let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(4, "init")).unwrap();
            let (policy, value) = net.forward(obs.as_ref(), n, Pass::Train);
            let logits = logits(policy);
            net.backward(&(logits.square().sum(Kind::Float) + value.square().sum(Kind::Float)));
            ([logits.detach(), value.detach()], net.params.named(&net.params.gradient()))
        };
        let ((own, own_gradient), (libtorch, libtorch_gradient)) = (pass(Kernels::Own), pass(Kernels::Libtorch));
        for (own, libtorch) in own.iter().zip(&libtorch) {
            assert!(difference(own, libtorch) < 0.02, "{torso:?}, {norm:?}: off by {}", difference(own, libtorch));
        }
        for (name, expected) in &libtorch_gradient {
            let [a, b] =
                [&own_gradient[name], expected].map(|array| Tensor::from_slice(&array.values::<f32>().unwrap()));
            let norms = [&a, &b].map(|t| t.norm().double_value(&[]));
            let cosine = (&a * &b).sum(Kind::Float).double_value(&[]) / (norms[0] * norms[1]);
            assert!((norms[0] / norms[1] - 1.0).abs() < 0.02, "{torso:?}, {norm:?}, {name}: norms {norms:?}");
            assert!(cosine > 0.999, "{torso:?}, {norm:?}, {name}: cosine {cosine}");
        }
    }
}

/// IMPALA's fifteen convolutions with layer norm, in bf16: both paths differ from `f32` by several percent, since rounding errors add
/// up over the layers. The own kernels' difference, as a mean over parameters and networks, exceeds libtorch's by at most a third.
#[test]
fn own_bf16_kernels_of_a_deep_network_round_as_libtorch() {
    let (spec, n) = (spec(&[42, 37], Dtype::U8, 4), 8);
    let obs = frames(n, &spec);
    let mut sums = [0.0; 2];
    for seed in 1..=3 {
        let pass = |kernels, precision| {
            let config = NetworkConfig { kernels, norm: NormKind::Layer, ..network(TorsoKind::Impala, precision) };
            let mut net = ActorCritic::new(&config, &spec, "cpu", &mut stream(seed, "init")).unwrap();
            let (policy, value) = net.forward(obs.as_ref(), n, Pass::Train);
            net.backward(&(logits(policy).square().sum(Kind::Float) + value.square().sum(Kind::Float)));
            net.params.named(&net.params.gradient())
        };
        let exact = pass(Kernels::Libtorch, Precision::Fp32);
        for (sum, kernels) in sums.iter_mut().zip([Kernels::Own, Kernels::Libtorch]) {
            for (name, gradient) in pass(kernels, Precision::Bf16) {
                let [a, b] = [&gradient, &exact[&name]].map(|a| Tensor::from_slice(&a.values::<f32>().unwrap()));
                *sum += difference(&a, &b) / exact.len() as f64 / 3.0;
            }
        }
    }
    let [own, libtorch] = sums;
    assert!(own < libtorch * 4.0 / 3.0 && own < 0.15, "own kernels: {own}, libtorch: {libtorch}");
}

/// The measured or restored path is used: outputs are bit for bit those of a network with that path fixed.
#[test]
fn a_restored_choice_of_kernels_is_used() {
    let (spec, n) = (pong(), 6);
    let obs = frames(n, &spec);
    let net = |kernels| {
        let config = NetworkConfig { kernels, ..network(TorsoKind::Nature, Precision::Fp32) };
        ActorCritic::new(&config, &spec, "cpu", &mut stream(4, "init")).unwrap()
    };
    let evaluate = |mut net: ActorCritic| to_vec(&logits(net.forward(obs.as_ref(), n, Pass::Infer).0));
    let fixed = [Kernels::Own, Kernels::Libtorch].map(|kernels| evaluate(net(kernels)));
    for (path, expected) in ["own", "libtorch"].into_iter().zip(&fixed) {
        let restored = net(Kernels::Auto);
        let mut snapshot = Snapshot::default();
        snapshot.put("network.kernels", &[(false, n, path)]);
        restored.dispatch().load(&snapshot).unwrap();
        assert_eq!(&evaluate(restored), expected, "{path}");
    }
    assert!(fixed.contains(&evaluate(net(Kernels::Auto))));
}

/// A batch split among three threads has the outputs, gradient norms and steps of an unsplit one, with and without an LSTM or norms,
/// including a batch that is too small for all threads, frames that were inferred before by another thread, and an inference pass between
/// forward and backward pass.
#[test]
fn a_sharded_batch_equals_an_unsharded_one() {
    let spec = spec(&[36, 36], Dtype::U8, 4);
    // bf16 has 8 significant bits, and split sums round differently.
    let nips = NetworkConfig { torso: TorsoKind::Nips, ..NetworkConfig::default() };
    let impala =
        NetworkConfig { torso: TorsoKind::Impala, norm: NormKind::Layer, kernels: Kernels::Own, ..nips.clone() };
    let cases = [
        (&nips, 0, Precision::Fp32, 1e-4),
        (&nips, 8, Precision::Fp32, 1e-4),
        (&nips, 0, Precision::Auto, 0.03),
        (&nips, 8, Precision::Auto, 0.03),
        (&impala, 0, Precision::Fp32, 1e-4),
    ];
    for (config, lstm, precision, tolerance) in cases {
        let config = NetworkConfig { lstm, precision, ..config.clone() };
        let [mut whole, mut shared] =
            [1, 3].map(|_| ActorCritic::new(&config, &spec, "cpu", &mut stream(1, "init")).unwrap());
        shared.set_num_threads(3);
        let rule = RmsProp { eps: 1e-3, ..RmsProp::tensorflow() };
        let [mut one, mut other] = [&whole, &shared].map(|net| Optimizer::new(rule.clone(), &net.params));
        for n in [13, 2, 18, 9] {
            let obs = frames(n, &spec);
            let step = |net: &mut ActorCritic, optimizer: &mut Optimizer| {
                // As in acting, in two batches, the second one first.
                for (first, len) in [(n / 2, n - n / 2), (0, n / 2)] {
                    let _ = net.forward(obs.slice(first * spec.obs_len(), len * spec.obs_len()), len, Pass::Infer);
                }
                let (policy, value) = net.forward(obs.as_ref(), n, Pass::Train);
                let logits = logits(policy);
                let loss = logits.square().mean(Kind::Float) + value.square().sum(Kind::Float);
                // On one thread or on several, with other observations than the training pass.
                for ahead in [n.min(4), n - 1] {
                    let (start, len) = ((n - ahead) * spec.obs_len(), ahead * spec.obs_len());
                    let _ = net.forward(obs.slice(start, len), ahead, Pass::Infer);
                }
                net.backward(&loss);
                (to_vec(&logits), net.step(optimizer, 0.01, 0.5).unwrap().value())
            };
            let ((a, norm), (b, other_norm)) = (step(&mut whole, &mut one), step(&mut shared, &mut other));
            assert!(
                a.iter().zip(&b).all(|(a, b)| (a - b).abs() < tolerance as f32),
                "{n} rows, LSTM {lstm}: {a:?}, {b:?}"
            );
            assert!((norm / other_norm - 1.0).abs() < tolerance, "{n} rows, LSTM {lstm}: norms {norm}, {other_norm}");
        }
        let apart = difference(whole.params.master(), shared.params.master());
        assert!(apart < tolerance, "LSTM {lstm}: after four steps parameters are {apart} apart");
    }
}
