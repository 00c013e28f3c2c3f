//! Gymnasium's spaces as playfield's, and actions on their way to Python.

use crate::python::{self, Failure};
use numpy::{PyArray1, PyArrayMethods};
use playfield_core::{Action, ActionSpace, Actions, Dtype, EnvConfig, EnvSpec};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

/// How an action becomes a Python object.
#[derive(Clone, Debug)]
pub(crate) enum Codec {
    /// Gymnasium's first action has the number `start`.
    Discrete { start: i64 },
    /// An array of `shape`, its numbers clipped to the bounds of each dimension.
    Box { low: Vec<f32>, high: Vec<f32>, shape: Vec<usize>, dtype: String },
}

/// Reads the spaces of one environment; `named` is asked for its actions' names.
pub(crate) fn read(
    id: &str,
    config: &EnvConfig,
    (observations, actions): (Bound<'_, PyAny>, Bound<'_, PyAny>),
    named: Option<&Bound<'_, PyAny>>,
) -> std::result::Result<(EnvSpec, Codec), Failure> {
    let helper = python::helper(actions.py())?;
    let (shape, bytes): (Vec<usize>, bool) = helper.call_method1("observation_space", (observations,))?.extract()?;
    let described = helper.call_method1("action_space", (&actions,))?;
    let (space, codec, mut names) = if let Ok((n, start)) = described.extract::<(usize, i64)>() {
        let names = match named {
            Some(env) => helper.call_method1("action_names", (env, n))?.extract()?,
            None => Vec::new(),
        };
        (ActionSpace::Discrete { n }, Codec::Discrete { start }, names)
    } else {
        let (low, high, shape, dtype): (Vec<f32>, Vec<f32>, Vec<usize>, String) = described.extract()?;
        let space = ActionSpace::Box { low: low.clone(), high: high.clone() };
        (space, Codec::Box { low, high, shape, dtype }, Vec::new())
    };
    let spec = EnvSpec {
        id: id.into(),
        shape: if shape.is_empty() { vec![1] } else { shape },
        dtype: if bytes { Dtype::U8 } else { Dtype::F32 },
        history: config.history,
        actions: space,
        action_names: std::mem::take(&mut names),
    };
    Ok((spec, codec))
}

impl Codec {
    /// One action, that has been checked to be of the space.
    pub(crate) fn one<'py>(&self, py: Python<'py>, action: Action<'_>) -> PyResult<Bound<'py, PyAny>> {
        match (self, action) {
            (Self::Discrete { start }, Action::Discrete(a)) => (start + a as i64).into_bound_py_any(py),
            (Self::Box { shape, .. }, Action::Continuous(values)) => self.array(py, values, shape.clone()),
            _ => unreachable!("actions are checked against the space first"),
        }
    }

    /// A batch of actions, that have been checked to be of the space.
    pub(crate) fn many<'py>(&self, py: Python<'py>, actions: &Actions) -> PyResult<Bound<'py, PyAny>> {
        match (self, actions) {
            (Self::Discrete { start }, Actions::Discrete(actions)) => {
                Ok(PyArray1::from_iter(py, actions.iter().map(|a| start + a)).into_any())
            }
            (Self::Box { shape, .. }, Actions::Continuous { values, .. }) => {
                self.array(py, values, [&[actions.len()], shape.as_slice()].concat())
            }
            _ => unreachable!("actions are checked against the space first"),
        }
    }

    fn array<'py>(&self, py: Python<'py>, values: &[f32], shape: Vec<usize>) -> PyResult<Bound<'py, PyAny>> {
        let Self::Box { low, high, dtype, .. } = self else { unreachable!("only a Box takes arrays") };
        let bounds = low.iter().zip(high).cycle();
        let clipped = values.iter().zip(bounds).map(|(v, (low, high))| v.max(*low).min(*high));
        let array = PyArray1::from_iter(py, clipped).reshape(shape)?.into_any();
        if dtype == "float32" { Ok(array) } else { array.call_method1("astype", (dtype,)) }
    }
}
