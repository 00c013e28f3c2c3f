//! What only a program, not a library, may do: how this process uses memory, and processes of its own.

use crate::signals::PARENT_ENDED;
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

/// The cores that this process may use, by number: fewer than the machine's under `taskset`, for example.
pub fn allowed_cores() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a set of cores is plain bits, which the call fills; `CPU_ISSET` stays inside them.
        let allowed = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let known = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0;
            let cores = 0..libc::CPU_SETSIZE as usize;
            cores.filter(|core| known && libc::CPU_ISSET(*core, &set)).collect::<Vec<_>>()
        };
        if !allowed.is_empty() {
            return allowed;
        }
    }
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}

/// Starts `command` on `cores` alone, where the system can confine a process, and in a process group of its own, where no signal of
/// the terminal reaches it. When this process ends, however it ends, the new one gets [`PARENT_ENDED`]. To be called on the main
/// thread: the system takes the thread's end for the process's.
///
/// # Errors
/// Where it cannot be started.
pub fn spawn_on(command: &mut Command, cores: &[usize]) -> io::Result<Child> {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id() as libc::pid_t;
        // SAFETY: a set of cores is plain bits, and `CPU_SET` stays inside them for numbers below `CPU_SETSIZE`.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            cores
                .iter()
                .filter(|core| **core < libc::CPU_SETSIZE as usize)
                .for_each(|core| libc::CPU_SET(*core, &mut set));
            set
        };
        // SAFETY: between fork and exec, system calls that take no lock and allocate nothing. Where the first is refused, all cores
        // are used.
        unsafe {
            command.pre_exec(move || {
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
                if libc::prctl(libc::PR_SET_PDEATHSIG, PARENT_ENDED) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The parent may have ended before the call.
                if libc::getppid() != parent { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
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
