//! Conversion of Gymnasium's spaces to playfield's, and of actions to Python.

use crate::python::Failure;
use numpy::{PyArray1, PyArrayMethods};
use playfield_core::{Action, ActionSpace, Actions, Dtype, EnvConfig, EnvSpec};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

/// The spec of an environment from the description in `environments.py`: `(shape, is an image, action space, action names)`.
pub(crate) fn spec(
    id: &str,
    config: &EnvConfig,
    description: &Bound<'_, PyAny>,
) -> std::result::Result<EnvSpec, Failure> {
    type Description<'py> = (Vec<usize>, bool, Bound<'py, PyAny>, Vec<String>);
    let (shape, is_image, actions, action_names) = description.extract::<Description<'_>>()?;
    let actions = if let Ok((n, _start)) = actions.extract::<(usize, i64)>() {
        ActionSpace::Discrete { n }
    } else {
        let (low, high) = actions.extract()?;
        ActionSpace::Box { low, high }
    };
    let dtype = if is_image { Dtype::U8 } else { Dtype::F32 };
    let spec = EnvSpec::new(id, &shape, dtype, actions);
    Ok(spec.with_frame_stack(config.frame_stack).with_action_names(action_names))
}

/// One action: an index from 0, or an array of `f32`.
pub(crate) fn one<'py>(py: Python<'py>, action: Action<'_>) -> PyResult<Bound<'py, PyAny>> {
    match action {
        Action::Discrete(a) => a.into_bound_py_any(py),
        Action::Continuous(values) => Ok(PyArray1::from_slice(py, values).into_any()),
    }
}

/// A batch of actions: an array of indices from 0, or `f32[n, dim]`.
pub(crate) fn many<'py>(py: Python<'py>, actions: &Actions) -> PyResult<Bound<'py, PyAny>> {
    match actions {
        Actions::Discrete(actions) => Ok(PyArray1::from_slice(py, actions).into_any()),
        Actions::Continuous { values, dim } => {
            Ok(PyArray1::from_slice(py, values).reshape([actions.len(), *dim])?.into_any())
        }
    }
}
