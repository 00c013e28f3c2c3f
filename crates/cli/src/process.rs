//! How this process uses memory and threads: settings that only a program, not a library, may make.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// How long libgomp's threads spin before they sleep. By default they spin so long that they keep the cores from the
/// environments' threads; without any spinning each of the many short operations of an update has to wake them.
const SPIN: (&str, &str) = ("GOMP_SPINCOUNT", "20000");

/// To be called first: may start the program anew, with [`SPIN`] set, as libgomp reads it when it is loaded.
pub fn prepare() {
    keep_memory();
    if std::env::var_os(SPIN.0).is_none()
        && std::env::var_os("OMP_WAIT_POLICY").is_none()
        && let Ok(program) = std::env::current_exe()
    {
        // It returns only where it failed: then training is a little slower, and that is all.
        let _ = Command::new(program).args(std::env::args_os().skip(1)).env(SPIN.0, SPIN.1).exec();
    }
}

/// Has the allocator keep the buffers of an update rather than give them back: mapping and clearing fresh pages for them
/// costs some 5 ms of every update of the nature network at batch 160.
fn keep_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
