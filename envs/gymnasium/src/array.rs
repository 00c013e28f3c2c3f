//! From numpy arrays to the caller's buffers: one copy where the types agree, one conversion where they do not.

use crate::python::{Failure, said};
use numpy::{Element, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use playfield_core::{Error, ObsMut};
use pyo3::prelude::*;

/// A contiguous array of `T`, borrowed, or converted where `object` is something else that numpy understands.
pub(crate) fn numbers<'py, T: Element>(
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

/// Copies an observation (or a batch of them) of environment `id` to `to`; `f64` becomes `f32`.
pub(crate) fn observe(id: &str, object: &Bound<'_, PyAny>, to: ObsMut<'_>) -> std::result::Result<(), Failure> {
    let check = |found: usize, expected: usize| {
        let message = || format!("it returned an observation of {found} numbers where its space has {expected}");
        if found == expected { Ok(()) } else { Err(said(Error::env(id, message()))) }
    };
    match to {
        ObsMut::U8(to) => {
            let from = numbers::<u8>(object)?;
            check(from.as_slice()?.len(), to.len())?;
            to.copy_from_slice(from.as_slice()?);
        }
        ObsMut::F32(to) if object.cast::<PyArrayDyn<f64>>().is_ok() => {
            let from = numbers::<f64>(object)?;
            check(from.as_slice()?.len(), to.len())?;
            for (to, from) in to.iter_mut().zip(from.as_slice()?) {
                *to = *from as f32;
            }
        }
        ObsMut::F32(to) => {
            let from = numbers::<f32>(object)?;
            check(from.as_slice()?.len(), to.len())?;
            to.copy_from_slice(from.as_slice()?);
        }
    }
    Ok(())
}
