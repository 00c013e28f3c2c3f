//! The embedded interpreter: started once, with the packages of `.venv`, and its exceptions as [`Error`]s.
//!
//! It is started as if it were `.venv/bin/python`: the standard library, `sys.path` and `sys.executable` are then those
//! of that program, whatever stands in `PATH`; and `multiprocessing` starts *it* as its child, where an interpreter
//! that knew only the running program would start that over and over. Python installs no signal handlers: Ctrl-C
//! belongs to the Rust program. A Python that cannot start is an error here (through `PyConfig`) and not an abort.

use crate::venv::{self, Venv};
use playfield_core::{Error, Result};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyModule;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

const SETUP: &str = "run `make setup`";

/// Why a piece of work in Python failed: an exception, or a sentence of our own.
pub(crate) enum Failure {
    /// A Python exception.
    Exception(PyErr),
    /// An error that is already fit to be read.
    Said(Error),
}

impl<E: Into<PyErr>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Exception(error.into())
    }
}

/// For `?` after something that returns playfield's own error.
pub(crate) fn said(error: Error) -> Failure {
    Failure::Said(error)
}

/// Does `work` for environment `id` while holding the interpreter, which is started where it has not been.
pub(crate) fn with<T>(id: &str, work: impl FnOnce(Python<'_>) -> std::result::Result<T, Failure>) -> Result<T> {
    start()?;
    Python::attach(|py| {
        work(py).map_err(|failure| match failure {
            Failure::Said(error) => error,
            Failure::Exception(exception) => explain(py, id, &exception),
        })
    })
}

/// This crate's own few lines of Python that need no package (`helper.py`).
pub(crate) fn helper(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    const CODE: &CStr = code(concat!(include_str!("helper.py"), "\0"));
    let make = || PyModule::from_code(py, CODE, c"playfield/helper.py", c"playfield_helper").map(Bound::unbind);
    Ok(MODULE.get_or_try_init(py, make)?.bind(py).clone())
}

/// Gymnasium's environments (`environments.py`).
pub(crate) fn environments(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    const CODE: &CStr = code(concat!(include_str!("environments.py"), "\0"));
    let (file, name) = (c"playfield/environments.py", c"playfield_environments");
    let make = || helper(py).and_then(|_| PyModule::from_code(py, CODE, file, name)).map(Bound::unbind);
    Ok(MODULE.get_or_try_init(py, make)?.bind(py).clone())
}

const fn code(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(code) => code,
        Err(_) => panic!("the code holds a NUL byte"),
    }
}

/// Starts the interpreter; later calls only say again how that went.
///
/// # Errors
/// [`Error::Env`] where Python cannot start or is of another version than the one this program was built for.
pub(crate) fn start() -> Result<()> {
    static STARTED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(first_start).clone().map_err(|message| Error::env("Python", message))
}

fn first_start() -> std::result::Result<(), String> {
    let venv = venv::find();
    if let Some(Venv { root, version: Some(found) }) = &venv
        && *found != built_for()
    {
        let ((major, minor), (ours, our_minor)) = (*found, built_for());
        return Err(format!(
            "{} holds Python {major}.{minor}, and this program was built for {ours}.{our_minor}: {SETUP} and build again",
            root.display()
        ));
    }
    // SAFETY: called once, by `OnceLock`, and nothing of Python has been touched before.
    unsafe { initialize(venv.as_ref().map(Venv::python).as_deref())? };
    Python::attach(|py| -> PyResult<()> {
        let here = std::env::current_dir().unwrap_or_default();
        helper(py)?.call_method1("prepare", (here, venv.map(|v| v.python())))?;
        Ok(())
    })
    .map_err(|exception| format!("Python started and cannot be used ({exception}): {SETUP}"))
}

/// The version of Python whose headers and library this program was built with.
fn built_for() -> (u32, u32) {
    // SAFETY: `Py_GetVersion` may be called before initialization and returns a static string.
    let text = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) }.to_string_lossy();
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Starts Python as if it were `program`, or as the system finds it, and lets go of the interpreter's lock.
///
/// # Safety
/// Only once a process.
unsafe fn initialize(program: Option<&Path>) -> std::result::Result<(), String> {
    // SAFETY: the documented order of calls; `config` is initialized by the first and cleared by the last.
    unsafe {
        if ffi::Py_IsInitialized() != 0 {
            return Ok(());
        }
        let mut config = MaybeUninit::<ffi::PyConfig>::zeroed();
        ffi::PyConfig_InitPythonConfig(config.as_mut_ptr());
        let mut config = config.assume_init();
        config.install_signal_handlers = 0;
        config.parse_argv = 0;
        config.configure_c_stdio = 0;
        // What an environment prints is not lost: nothing flushes Python's buffers when this program ends.
        config.buffered_stdio = 0;
        config.pathconfig_warnings = 0;
        let mut status = ffi::PyStatus_Ok();
        if let Some(program) = program {
            let bytes = CString::new(program.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
            let field = &raw mut config.program_name;
            status = ffi::PyConfig_SetBytesString(&raw mut config, field, bytes.as_ptr());
        }
        if ffi::PyStatus_Exception(status) == 0 {
            status = ffi::Py_InitializeFromConfig(&raw const config);
        }
        ffi::PyConfig_Clear(&raw mut config);
        if ffi::PyStatus_Exception(status) != 0 {
            let said = if status.err_msg.is_null() { c"no reason given" } else { CStr::from_ptr(status.err_msg) };
            return Err(format!("Python cannot start ({}): {SETUP}", said.to_string_lossy()));
        }
        ffi::PyEval_SaveThread();
        Ok(())
    }
}

/// An exception as one sentence, with the traceback as its detail.
pub(crate) fn explain(py: Python<'_>, id: &str, exception: &PyErr) -> Error {
    type Description = (String, String, String, String, String);
    // Before Python 3.12 an exception's value knows its traceback only after `into_value`.
    let value = exception.clone_ref(py).into_value(py);
    let described = helper(py).and_then(|h| h.call_method1("describe", (value,))?.extract::<Description>());
    let Ok((kind, text, traceback, missing, place)) = described else {
        return Error::env(id, format!("{exception}"));
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let package = missing.split('.').next().unwrap_or_default();
    let ours = ["numpy", "gymnasium", "ale_py", "cloudpickle", "typing_extensions", "farama_notifications"];
    let message = match (kind.as_str(), text.as_str()) {
        ("ModuleNotFoundError", _) if ours.contains(&package) => {
            format!("the Python package `{package}` is missing: {SETUP}")
        }
        ("ModuleNotFoundError", _) if !package.is_empty() => format!(
            "the Python module `{missing}` cannot be found: install it into .venv, or start in the folder that holds it"
        ),
        ("ImportError" | "OSError", text) if text.contains("libcudnn") || text.contains("libtorch") => format!(
            "the Python package `torch` cannot be imported ({text}): .venv holds it for this program alone, without the \
             packages that it depends on; `.venv/bin/pip install torch` adds them"
        ),
        (_, _) if ours.contains(&package) => {
            format!("the Python package `{package}` cannot be loaded ({text}): {SETUP}")
        }
        ("", text) => text.into(),
        (kind, "") => kind.into(),
        (kind, text) => format!("{kind}: {text}"),
    };
    let message = if place.is_empty() { message } else { format!("{place}: {message}") };
    Error::Env { id: id.into(), message, detail: Some(traceback) }
}

/// A seed as Python's libraries take it: 31 bits. It is hashed, as some of them count a batch's one seed up by one from
/// environment to environment. Public, so that an episode can be played again in plain Python.
pub fn python_seed(seed: u64) -> i32 {
    (playfield_core::rng::derive(seed, "python", 0) >> 33) as i32
}
