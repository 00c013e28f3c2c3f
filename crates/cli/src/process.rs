//! What only a program, not a library, may do: how this process uses memory, and processes of its own.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// To be called first. Has the allocator keep the buffers of an update rather than give them back: mapping and clearing fresh
/// pages for them costs some 5 ms of every update of the nature network at batch 160.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Starts `command` on `cores` alone, where the system can confine a process, and in a process group of its own, where no signal of
/// the terminal reaches it.
///
/// # Errors
/// Where it cannot be started.
pub fn spawn_on(command: &mut Command, cores: &[usize]) -> io::Result<Child> {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a set of cores is plain bits, and `CPU_SET` stays inside them for numbers below `CPU_SETSIZE`.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            cores
                .iter()
                .filter(|core| **core < libc::CPU_SETSIZE as usize)
                .for_each(|core| libc::CPU_SET(*core, &mut set));
            set
        };
        // SAFETY: between fork and exec, one system call that takes no lock and allocates nothing. Where it is refused, all cores
        // are used.
        unsafe {
            command.pre_exec(move || {
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
                Ok(())
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = cores;
    command.spawn()
}

/// Sends Ctrl-C's signal.
pub fn interrupt(child: &Child) {
    // SAFETY: a child that was not waited for keeps its number.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
}
