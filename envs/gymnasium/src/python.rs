//! The embedded interpreter: it is started once, with the packages of `.venv`, and its exceptions become [`Error`]s.
//!
//! It is started as `.venv/bin/python`, so the standard library, `sys.path` and `sys.executable` are those of that program,
//! independently of `PATH`. `multiprocessing` starts `sys.executable` as its child processes; otherwise it would start the
//! running program again and again. Python installs no signal handlers: Ctrl-C belongs to the Rust program. A Python that
//! cannot start is an error (through `PyConfig`), not an abort.

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

/// The reason why a call into Python failed.
pub(crate) enum Failure {
    /// A Python exception.
    Exception(PyErr),
    /// An error of this crate.
    Reported(Error),
}

impl<E: Into<PyErr>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Exception(error.into())
    }
}

/// For `?` on playfield's own error.
pub(crate) fn reported(error: Error) -> Failure {
    Failure::Reported(error)
}

/// Calls `work` for environment `id` with the GIL held. Starts the interpreter, if it is not running.
pub(crate) fn with<T>(id: &str, work: impl FnOnce(Python<'_>) -> std::result::Result<T, Failure>) -> Result<T> {
    start()?;
    Python::attach(|py| {
        work(py).map_err(|failure| match failure {
            Failure::Reported(error) => error,
            Failure::Exception(exception) => explain(py, id, &exception),
        })
    })
}

/// The Python module that needs no package (`helper.py`).
pub(crate) fn helper(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    const CODE: &CStr = code(concat!(include_str!("helper.py"), "\0"));
    let make = || PyModule::from_code(py, CODE, c"playfield/helper.py", c"playfield_helper").map(Bound::unbind);
    Ok(MODULE.get_or_try_init(py, make)?.bind(py).clone())
}

/// The Python module that steps Gymnasium's environments (`environments.py`).
pub(crate) fn environments(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    const CODE: &CStr = code(concat!(include_str!("environments.py"), "\0"));
    let (file, name) = (c"playfield/environments.py", c"playfield_environments");
    let make = || helper(py).and_then(|_| PyModule::from_code(py, CODE, file, name)).map(Bound::unbind);
    Ok(MODULE.get_or_try_init(py, make)?.bind(py).clone())
}

/// The Python module that creates batches of environments (`vector.py`).
pub(crate) fn vector(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    const CODE: &CStr = code(concat!(include_str!("vector.py"), "\0"));
    let (file, name) = (c"playfield/vector.py", c"playfield_vector");
    let make = || environments(py).and_then(|_| PyModule::from_code(py, CODE, file, name)).map(Bound::unbind);
    Ok(MODULE.get_or_try_init(py, make)?.bind(py).clone())
}

/// The Python module that examines environments (`inspection.py`).
pub(crate) fn inspection(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    const CODE: &CStr = code(concat!(include_str!("inspection.py"), "\0"));
    let (file, name) = (c"playfield/inspection.py", c"playfield_inspection");
    let make = || environments(py).and_then(|_| PyModule::from_code(py, CODE, file, name)).map(Bound::unbind);
    Ok(MODULE.get_or_try_init(py, make)?.bind(py).clone())
}

const fn code(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(code) => code,
        Err(_) => panic!("the code holds a NUL byte"),
    }
}

/// Starts the interpreter. Later calls return the result of the first.
///
/// # Errors
/// [`Error::Env`] where Python cannot start or has another version than the one that this program was built for.
pub(crate) fn start() -> Result<()> {
    static STARTED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(first_start).clone().map_err(|message| Error::env("Python", message))
}

fn first_start() -> std::result::Result<(), String> {
    let venv = venv::find()?;
    if let Some(Venv { root, version: Some(found) }) = &venv
        && *found != built_for()
    {
        let ((major, minor), (ours, our_minor)) = (*found, built_for());
        return Err(format!(
            "{} holds Python {major}.{minor}, and this program was built for {ours}.{our_minor}: {SETUP} and build again",
            root.display()
        ));
    }
    // SAFETY: called once, by `OnceLock`, before any other use of Python.
    unsafe { initialize(venv.as_ref().map(Venv::python).as_deref())? };
    Python::attach(|py| -> PyResult<()> {
        let here = std::env::current_dir().unwrap_or_default();
        helper(py)?.call_method1("prepare", (here, venv.map(|v| v.python())))?;
        Ok(())
    })
    .map_err(|exception| format!("Python started and cannot be used ({exception}): {SETUP}"))
}

/// The version of Python that this program was built with.
fn built_for() -> (u32, u32) {
    // SAFETY: `Py_GetVersion` may be called before initialization and returns a static string.
    let text = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) }.to_string_lossy();
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Starts Python as `program`, or as the system finds it, and releases the GIL.
///
/// # Safety
/// At most once per process.
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
        // Unbuffered: nothing flushes Python's buffers when this program ends.
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
            let reason = if status.err_msg.is_null() { c"no reason given" } else { CStr::from_ptr(status.err_msg) };
            let advice = match std::env::var_os("PYTHONHOME") {
                Some(home) => format!("PYTHONHOME={} is set: unset it", home.display()),
                None => SETUP.into(),
            };
            return Err(format!("Python cannot start ({}): {advice}", reason.to_string_lossy()));
        }
        ffi::PyEval_SaveThread();
        Ok(())
    }
}

/// Converts an exception into a one-line error, with the traceback as its detail.
pub(crate) fn explain(py: Python<'_>, id: &str, exception: &PyErr) -> Error {
    type Description = (String, String, String, String, String);
    // Before Python 3.12 an exception's value has its traceback only after `into_value`.
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
            "the Python package `torch` cannot be imported ({text}): .venv has it without the packages that it depends on, as \
             this program needs only its libraries; `.venv/bin/pip install torch` adds them"
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

/// A seed for Python's libraries: 31 bits. It is hashed, as some libraries seed the environments of a batch with consecutive
/// numbers. Public, so that an episode can be reproduced in plain Python.
pub fn python_seed(seed: u64) -> i32 {
    (playfield_core::rng::derive(seed, "python", 0) >> 33) as i32
}
