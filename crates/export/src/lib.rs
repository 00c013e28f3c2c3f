//! Trained policies for other programs: ONNX, TorchScript and safetensors files, each with Python code that runs it and a model card.
//!
//! A policy describes its network as a [`Graph`] ([`Policy::export`]). A [`Model`] is that graph behind the preprocessing that depends on
//! the run, the normalization of observations. The graph is converted operator by operator: to ONNX ([`onnx`]), to libtorch's
//! functions under tracing ([`torchscript`]), and to PyTorch code ([`python`]) for the weights of a safetensors file.

mod card;
pub mod onnx;
pub mod python;
mod snippet;
pub mod torchscript;

use playfield_core::graph::{Graph, Op, Value};
use playfield_core::normalize::{LIMIT, Moments};
use playfield_core::{Array, EnvConfig, EnvSpec, Error, Normalizer, Policy, Result, files};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ONNX, operator set 18.
    Onnx,
    /// TorchScript.
    TorchScript,
    /// Weights with the names of the checkpoint.
    SafeTensors,
}

/// The origin of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The name of the algorithm.
    pub algorithm: &'a str,
    /// Agent steps of training.
    pub step: u64,
    /// The score of the checkpoint.
    pub score: Option<f64>,
    /// The settings of the environments.
    pub env: &'a EnvConfig,
    /// Their spaces.
    pub spec: &'a EnvSpec,
    /// The running statistics of observations, where they are normalized.
    pub normalizer: Option<&'a Normalizer>,
}

/// A policy as a graph, from observations as the environments return them.
#[derive(Debug)]
pub struct Model<'a> {
    graph: Graph,
    origin: Origin<'a>,
}

/// What selects an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Logits,
    Gaussian,
    QValues,
}

impl Format {
    /// The suffix of its files.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::TorchScript => "pt",
            Self::SafeTensors => "safetensors",
        }
    }
}

impl<'a> Model<'a> {
    /// The model of `policy`.
    ///
    /// # Errors
    /// [`Error::Config`] where the policy cannot be exported.
    pub fn new(policy: &dyn Policy, origin: Origin<'a>) -> Result<Self> {
        let mut graph = Graph::default();
        let obs = graph.input("obs", origin.spec.dtype, &shape(origin.spec));
        let moments = origin.normalizer.and_then(|normalizer| normalizer.observations.as_ref());
        let obs = moments.map_or(obs, |moments| normalize(&mut graph, obs, moments, origin.spec));
        policy.export(&mut graph, obs)?;
        Ok(Self { graph, origin })
    }

    /// Writes the model to `path`, and its card beside it: `path` with `.md` appended.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be written.
    pub fn write(&self, format: Format, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let write = |bytes: Vec<u8>| files::atomic_write(path, |file| file.write_all(&bytes));
        match format {
            Format::Onnx => write(onnx::encode(&self.graph, &self.metadata()))?,
            Format::TorchScript => {
                let temporary = files::temporary(path);
                torchscript::save(&self.graph, &temporary)?;
                files::rename(&temporary, path).map_err(Error::io("write", path))?;
            }
            Format::SafeTensors => {
                let weights: BTreeMap<_, _> = self.graph.constants().collect();
                let metadata = self.metadata().into_iter().map(|(key, value)| (key.to_string(), value));
                let metadata = Some(metadata.collect());
                write(safetensors::serialize(weights, metadata).map_err(Error::other)?)?;
            }
        }
        let card = path.with_file_name(format!("{name}.md"));
        files::atomic_write(&card, |file| file.write_all(self.card(format, &name).as_bytes()))
    }

    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        self.graph.constants().map(|(_, array)| array.shape.iter().product::<usize>()).sum()
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        let Origin { algorithm, step, env, spec, .. } = self.origin;
        let mut metadata =
            vec![("algorithm", algorithm.into()), ("environment", env.id.clone()), ("steps", step.to_string())];
        if !spec.action_names.is_empty() {
            metadata.push(("actions", spec.action_names.join(",")));
        }
        metadata
    }

    fn head(&self) -> Head {
        let has = |name: &str| self.graph.outputs().iter().any(|output| output.name == name);
        match () {
            () if has("mean") => Head::Gaussian,
            () if has("q_values") => Head::QValues,
            () => Head::Logits,
        }
    }
}

/// The shape of one observation: a frame's or vector's, and the stack where frames are stacked.
fn shape(spec: &EnvSpec) -> Vec<usize> {
    spec.shape.iter().copied().chain((spec.frame_stack > 1).then_some(spec.frame_stack)).collect()
}

/// Adds the normalization of `obs`: see [`Normalizer`].
fn normalize(graph: &mut Graph, obs: Value, moments: &Moments, spec: &EnvSpec) -> Value {
    let mut shape = spec.shape.clone();
    shape.extend((spec.frame_stack > 1).then_some(1));
    let mut constant = |name: &str, values: &[f64]| {
        let values: Vec<_> = values.iter().map(|&v| v as f32).collect();
        graph.constant(name, || Array::new(&shape, &values))
    };
    let mean = constant("normalize_obs.mean", moments.means());
    let deviation = constant("normalize_obs.std", &moments.deviations());
    let obs = graph.float(obs);
    let centered = graph.op(Op::Sub, &[obs, mean]);
    let normalized = graph.op(Op::Div, &[centered, deviation]);
    graph.op(Op::Clip { min: -LIMIT as f32, max: LIMIT as f32 }, &[normalized])
}

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::{ActionSpace, Actions, Dtype, Mode, Obs};

    /// A policy whose logits are twice its observation.
    struct Twice;

    impl Policy for Twice {
        fn act(&mut self, _obs: &Obs, _mask: &[bool], _mode: Mode, _actions: &mut Actions) -> Result<()> {
            Ok(())
        }

        fn export(&self, graph: &mut Graph, obs: Value) -> Result<()> {
            let flat = graph.reshape(obs, &[4]);
            let logits = graph.op_scalar(Op::Mul, flat, 2.0);
            graph.output("logits", logits, &[4]);
            Ok(())
        }

        fn seed(&mut self, _seed: u64) {}
    }

    /// A policy without a network.
    struct Random;

    impl Policy for Random {
        fn act(&mut self, _obs: &Obs, _mask: &[bool], _mode: Mode, _actions: &mut Actions) -> Result<()> {
            Ok(())
        }

        fn seed(&mut self, _seed: u64) {}
    }

    /// Calls `test` with an environment of two elements, two of which are stacked, and statistics of its observations.
    fn with_origin(test: impl FnOnce(Origin<'_>)) {
        let spec = EnvSpec::new("Test", &[2], Dtype::F32, ActionSpace::Discrete { n: 4 }).with_frame_stack(2);
        let mut moments = Moments::new(2);
        moments.update(&[0.0_f32, 10.0, 2.0, 30.0, 4.0, 50.0]);
        let normalizer = Normalizer { observations: Some(moments), returns: None };
        let env = EnvConfig { id: "Test".into(), frame_stack: 2, ..EnvConfig::default() };
        test(Origin { algorithm: "ppo", step: 7, score: None, env: &env, spec: &spec, normalizer: Some(&normalizer) });
    }

    #[test]
    fn stacked_frames_are_normalized_by_the_statistics_of_one_frame() {
        with_origin(|origin| {
            let model = Model::new(&Twice, origin).unwrap();
            // Two observations of two elements with two frames each; the last is beyond the limit.
            let mut values = [2.0_f32, 4.0, 30.0, 10.0, 0.0, 1.0, 7.0, 1e6];
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("policy.pt");
            model.write(Format::TorchScript, &path).unwrap();
            let obs = tch::Tensor::from_slice(&values).view([2, 2, 2]);
            let module = tch::CModule::load(&path).unwrap();
            let logits: Vec<f32> = module.forward_ts(&[obs]).unwrap().view(-1).try_into().unwrap();
            origin.normalizer.unwrap().observations(&mut values, 2);
            for (logit, value) in logits.iter().zip(values) {
                assert!((logit - 2.0 * value).abs() < 1e-5, "{logits:?} {values:?}");
            }
            assert_eq!(logits[7], 20.0);
        });
    }

    #[test]
    fn the_graph_as_pytorch_code() {
        with_origin(|origin| {
            let code = python::function(&Model::new(&Twice, origin).unwrap().graph);
            let expected = "def policy(w, obs):\n    v3 = obs - w[\"normalize_obs.mean\"]\n    v4 = v3 / w[\"normalize_obs.std\"]\n    \
                            v5 = v4.clamp(-10.0, 10.0)\n    v6 = v5.reshape(-1, 4)\n    logits = v6 * 2.0\n    return logits\n";
            assert_eq!(code, expected);
        });
    }

    /// As [`ActionSpace::to_bounds`] maps them: scaled between finite bounds, else clipped.
    #[test]
    fn infinite_bounds_are_not_scaled() {
        with_origin(|origin| {
            let actions = ActionSpace::Box { low: vec![-2.0, f32::NEG_INFINITY], high: vec![4.0, 3.0] };
            let spec = EnvSpec { actions, ..origin.spec.clone() };
            let code = Model::new(&Twice, Origin { spec: &spec, ..origin }).unwrap().to_bounds("np");
            let expected = "low, high = np.array([-2.0, float(\"-inf\")]), np.array([4.0, 3.0])\n\
                            finite = np.isfinite(low) & np.isfinite(high)\n\
                            action = np.where(finite, low + (np.clip(action, -1, 1) + 1) / 2 * (high - low), \
                            np.clip(action, low, high))  # mapped to the bounds";
            assert_eq!(code, expected);
        });
    }

    #[test]
    fn a_policy_without_a_graph_is_refused() {
        with_origin(|origin| {
            let error = Model::new(&Random, origin).unwrap_err().to_string();
            assert!(error.contains("cannot be exported: it does not implement `Policy::export`"), "{error}");
        });
    }
}
