//! Conversion of Gymnasium's spaces to playfield's, and of actions to Python.

use crate::python::Failure;
use numpy::{PyArray1, PyArrayMethods};
use playfield_core::{Action, ActionSpace, Actions, Dtype, EnvConfig, EnvSpec, Part};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

/// The spec of an environment from the description in `environments.py`: `(shape, is bytes, parts, action space, action names,
/// has a mask)`.
pub(crate) fn spec(
    id: &str,
    config: &EnvConfig,
    description: &Bound<'_, PyAny>,
) -> std::result::Result<EnvSpec, Failure> {
    type Parts = Vec<(String, Vec<usize>, bool)>;
    type Description<'py> = (Vec<usize>, bool, Parts, Bound<'py, PyAny>, Vec<String>, bool);
    let (shape, is_bytes, parts, actions, action_names, has_mask) = description.extract::<Description<'_>>()?;
    let dtype = |is_bytes| if is_bytes { Dtype::U8 } else { Dtype::F32 };
    let part = |(name, shape, is_image)| Part { name, shape, dtype: dtype(is_image) };
    let actions = if let Ok((_box, low, high)) = actions.extract::<(String, _, _)>() {
        ActionSpace::Box { low, high }
    } else {
        let (kind, sizes) = actions.extract::<(String, Vec<usize>)>()?;
        if kind == "discrete" { ActionSpace::Discrete { n: sizes[0] } } else { ActionSpace::MultiDiscrete { sizes } }
    };
    let spec = match parts.is_empty() {
        true => EnvSpec::new(id, &shape, dtype(is_bytes), actions),
        false => EnvSpec::of_parts(id, parts.into_iter().map(part).collect(), actions),
    };
    let spec = spec.with_frame_stack(config.frame_stack).with_action_names(action_names);
    Ok(if has_mask { spec.with_action_mask() } else { spec })
}

/// Copies an action mask, one byte per choice, into `mask`.
pub(crate) fn copy_mask(bytes: Option<&[u8]>, mask: &mut [bool]) {
    for (valid, &byte) in mask.iter_mut().zip(bytes.unwrap_or_default()) {
        *valid = byte != 0;
    }
}

/// One action: an index from 0, or an array of indices or of `f32`.
pub(crate) fn one<'py>(py: Python<'py>, action: Action<'_>) -> PyResult<Bound<'py, PyAny>> {
    match action {
        Action::Discrete(a) => a.into_bound_py_any(py),
        Action::MultiDiscrete(indices) => Ok(PyArray1::from_slice(py, indices).into_any()),
        Action::Continuous(values) => Ok(PyArray1::from_slice(py, values).into_any()),
    }
}

/// A batch of actions: indices from 0, `[n]` or `[n, dim]`, or `f32[n, dim]`.
pub(crate) fn many<'py>(py: Python<'py>, actions: &Actions) -> PyResult<Bound<'py, PyAny>> {
    match actions {
        Actions::Discrete(actions) => Ok(PyArray1::from_slice(py, actions).into_any()),
        Actions::MultiDiscrete { indices, dim } => {
            Ok(PyArray1::from_slice(py, indices).reshape([actions.len(), *dim])?.into_any())
        }
        Actions::Continuous { values, dim } => {
            Ok(PyArray1::from_slice(py, values).reshape([actions.len(), *dim])?.into_any())
        }
    }
}
