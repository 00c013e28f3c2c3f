//! Copies of NumPy arrays into the caller's buffers.

use crate::python::{Failure, reported};
use numpy::{Element, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use playfield_core::{Error, ObsMut};
use pyo3::prelude::*;

/// A contiguous array of `T`: borrowed, or converted by NumPy where `object` is something else.
pub(crate) fn contiguous<'py, T: Element>(
    object: &Bound<'py, PyAny>,
) -> std::result::Result<PyReadonlyArrayDyn<'py, T>, Failure> {
    if let Ok(array) = object.cast::<PyArrayDyn<T>>()
        && array.is_c_contiguous()
    {
        return Ok(array.readonly());
    }
    let py = object.py();
    let array = py.import("numpy")?.call_method1("ascontiguousarray", (object, T::get_dtype(py)))?;
    Ok(array.cast_into::<PyArrayDyn<T>>().map_err(PyErr::from)?.readonly())
}

/// Copies an observation (or a batch of them) of environment `id` to `to`.
pub(crate) fn copy_observation(
    id: &str,
    object: &Bound<'_, PyAny>,
    to: ObsMut<'_>,
) -> std::result::Result<(), Failure> {
    fn copy<T: Element + Copy>(id: &str, object: &Bound<'_, PyAny>, to: &mut [T]) -> std::result::Result<(), Failure> {
        let from = contiguous::<T>(object)?;
        let (from, expected) = (from.as_slice()?, to.len());
        if from.len() != expected {
            let message = format!("it returned {} elements where its space has {expected}", from.len());
            return Err(reported(Error::env(id, message)));
        }
        to.copy_from_slice(from);
        Ok(())
    }
    match to {
        ObsMut::U8(to) => copy(id, object, to),
        ObsMut::F32(to) => copy(id, object, to),
    }
}
