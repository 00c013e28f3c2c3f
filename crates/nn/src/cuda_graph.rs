//! Captures operations as a CUDA graph and replays them, through a shim in C++ (`cuda_graph.cpp`).
//!
//! Launching a kernel costs the CPU some microseconds, and a small network consists of small kernels: the device waits for their launches. A
//! graph captures the kernels of some operations once, with the addresses that they read and write; then one launch replays all of them.

use std::fmt::Debug;
use tch::Device;

/// A value or a message.
pub type Result<T> = std::result::Result<T, String>;

/// Operations that are captured once and replayed.
pub trait Graph: Debug + Send {
    /// Captures `operations`, the first time, and replays them. They are called at least twice the first time and may not be called again, so they
    /// must read and write the same memory in every call.
    ///
    /// # Errors
    /// A message, where `operations` cannot be captured.
    fn run(&mut self, operations: &mut dyn FnMut()) -> Result<()>;
}

/// Makes an empty graph on a device.
pub type NewGraph = fn(Device) -> Result<Box<dyn Graph>>;

/// What makes graphs on `device`: `None` on a CPU, and where playfield is not built for CUDA.
pub fn on(device: Device) -> Option<NewGraph> {
    match device {
        #[cfg(cuda_graphs)]
        Device::Cuda(_) => Some(cuda::new_graph),
        _ => None,
    }
}

#[cfg(cuda_graphs)]
mod cuda {
    use super::{Graph, Result};
    use std::ffi::{CStr, c_char, c_int};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::ptr::null_mut;
    use std::sync::{Mutex, PoisonError};
    use tch::Device;

    #[repr(C)]
    struct Raw([u8; 0]);

    unsafe extern "C" {
        fn playfield_graph_free_message(message: *mut c_char);
        fn playfield_graph_new(device: c_int, graph: *mut *mut Raw) -> *mut c_char;
        fn playfield_graph_free(graph: *mut Raw);
        fn playfield_graph_enter(graph: *mut Raw) -> *mut c_char;
        fn playfield_graph_leave(graph: *mut Raw) -> *mut c_char;
        fn playfield_graph_begin(graph: *mut Raw) -> *mut c_char;
        fn playfield_graph_end(graph: *mut Raw) -> *mut c_char;
        fn playfield_graph_replay(graph: *mut Raw) -> *mut c_char;
    }

    /// A graph of libtorch's, which is freed with it.
    #[derive(Debug)]
    struct CudaGraph {
        raw: *mut Raw,
        is_captured: bool,
    }

    // SAFETY: CUDA's graphs belong to no thread, and `&mut` gives one thread at a time access.
    unsafe impl Send for CudaGraph {}

    /// An empty graph on `device`.
    pub fn new_graph(device: Device) -> Result<Box<dyn Graph>> {
        let Device::Cuda(index) = device else { unreachable!("`on` asks for CUDA devices only") };
        let mut raw = null_mut();
        // SAFETY: on success `raw` is a graph that is freed once, when the owner is dropped.
        check(unsafe { playfield_graph_new(index as c_int, &raw mut raw) })?;
        Ok(Box::new(CudaGraph { raw, is_captured: false }))
    }

    /// The result of a call that returned `message`, which is freed.
    fn check(message: *mut c_char) -> Result<()> {
        if message.is_null() {
            return Ok(());
        }
        // SAFETY: the shim returns a string of its own, which is freed once, here.
        unsafe {
            let text = CStr::from_ptr(message).to_string_lossy().into_owned();
            playfield_graph_free_message(message);
            Err(text)
        }
    }

    impl Graph for CudaGraph {
        fn run(&mut self, operations: &mut dyn FnMut()) -> Result<()> {
            if !self.is_captured {
                self.capture(operations)?;
                self.is_captured = true;
            }
            // SAFETY: a captured graph.
            check(unsafe { playfield_graph_replay(self.raw) })
        }
    }

    impl CudaGraph {
        /// Calls `operations` once on the stream of captures, so that libraries allocate their workspaces there, and captures them the second time.
        /// One thread at a time: CUDA forbids some calls while another thread captures.
        fn capture(&self, operations: &mut dyn FnMut()) -> Result<()> {
            static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
            let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            // An operation that cannot be captured unwinds; the stream must be left all the same.
            let mut call = || {
                catch_unwind(AssertUnwindSafe(&mut *operations)).map_err(|panic| {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    text.and_then(|text| text.lines().next()).unwrap_or("an operation failed").to_string()
                })
            };
            // SAFETY: calls on a valid graph; `leave` follows `enter`, and `end` follows `begin`, whatever happens between.
            unsafe {
                check(playfield_graph_enter(self.raw))?;
                let captured = call().and_then(|()| {
                    check(playfield_graph_begin(self.raw))?;
                    let called = call();
                    let ended = check(playfield_graph_end(self.raw));
                    called.and(ended)
                });
                let left = check(playfield_graph_leave(self.raw));
                captured.and(left)
            }
        }
    }

    impl Drop for CudaGraph {
        fn drop(&mut self) {
            // SAFETY: freed once.
            unsafe { playfield_graph_free(self.raw) }
        }
    }
}

#[cfg(all(test, cuda_graphs))]
mod tests {
    use super::*;
    use tch::{Cuda, Kind, Tensor};

    /// On a CUDA device a graph computes from what is in memory when it is replayed; without one the error is CUDA's.
    #[test]
    fn a_graph_replays_its_operations() {
        let device = Device::Cuda(0);
        let new_graph = on(device).expect("built for CUDA");
        if !Cuda::is_available() {
            assert!(!new_graph(device).unwrap_err().is_empty());
            return;
        }
        let (mut graph, [mut x, mut y]) =
            (new_graph(device).unwrap(), [(); 2].map(|()| Tensor::zeros([3], (Kind::Float, device))));
        let mut calls = 0;
        for value in [1.0, 2.0, 3.0] {
            let _ = x.fill_(value);
            let operations = &mut || {
                calls += 1;
                y.copy_(&(&x * 2.0 + 1.0));
            };
            graph.run(operations).unwrap();
            assert_eq!(Vec::<f32>::try_from(&y).unwrap(), [2.0 * value as f32 + 1.0; 3]);
        }
        assert_eq!(calls, 2);
        // Reading a value cannot be captured; the next graph can.
        let read = new_graph(device).unwrap().run(&mut || _ = x.double_value(&[0]));
        assert!(!read.unwrap_err().is_empty());
        new_graph(device).unwrap().run(&mut || y.copy_(&x)).unwrap();
        assert_eq!(Vec::<f32>::try_from(&y).unwrap(), [3.0; 3]);
    }
}
