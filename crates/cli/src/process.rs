//! Process-wide settings and child processes: memory allocation, scheduling, CPU affinity, signals.

use crate::signals::PARENT_ENDED;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// Call this first, before other threads exist:
///
/// - The allocator keeps the buffers of an update instead of returning them to the system: mapping and clearing new pages costs about 5 ms
///   per update of the nature network at batch size 160.
/// - On Linux a waking thread does not preempt a running one (`SCHED_BATCH`, which threads and processes inherit; another policy than the default is
///   kept). After sending actions, the policy's thread continues with the next batch instead of yielding its core to the environments' threads: on
///   two cores PPO then collects a rollout from Pong in 6 % less time.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
    #[cfg(target_os = "linux")]
    // SAFETY: these calls read and set parameters of the calling thread. Where the second one is refused, the policy stays as it was.
    unsafe {
        if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &std::mem::zeroed());
        }
    }
}

/// Indices of the cores in this process's affinity mask, which `taskset`, for example, restricts.
pub fn allowed_cores() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: `cpu_set_t` is plain data that the call fills; `CPU_ISSET` only gets numbers below `CPU_SETSIZE`.
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

/// Starts `command` in its own process group, which receives no signals from the terminal; on Linux, with its affinity restricted
/// to `cores`, and with the signal [`PARENT_ENDED`] when this process ends for any reason. Call this on the main thread: Linux sends
/// the signal when the calling thread ends.
///
/// # Errors
/// If the process cannot be started.
pub fn spawn_on(command: &mut Command, cores: &[usize]) -> io::Result<Child> {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id() as libc::pid_t;
        // SAFETY: `cpu_set_t` is plain data, and `CPU_SET` only gets numbers below `CPU_SETSIZE`.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            cores
                .iter()
                .filter(|core| **core < libc::CPU_SETSIZE as usize)
                .for_each(|core| libc::CPU_SET(*core, &mut set));
            set
        };
        // SAFETY: between fork and exec, the closure only makes system calls that neither lock nor allocate. If
        // `sched_setaffinity` fails, the process uses all cores.
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

/// The `slot`-th of `slots` equal shares of `cores`. With more slots than cores several slots share one.
pub fn share_of_cores(cores: &[usize], slot: usize, slots: usize) -> Vec<usize> {
    let n = cores.len();
    let own = cores.iter().enumerate().filter(|(i, _)| i % slots.min(n) == slot % n);
    own.map(|(_, core)| *core).collect()
}

/// Sends SIGINT to `child`.
pub fn interrupt(child: &Child) {
    // SAFETY: the process id stays valid until the child is waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Threads inherit the batch policy, and a policy that the user has chosen stays. (A sandbox may refuse the system call.)
    #[test]
    fn threads_are_scheduled_as_batch_jobs() {
        // SAFETY: the calls read and set parameters of the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        // SAFETY: as above.
        let set_policy = |policy: libc::c_int| unsafe { libc::sched_setscheduler(0, policy, &std::mem::zeroed()) == 0 };
        let prepared = |chosen: libc::c_int| {
            let policies = move || {
                assert!(set_policy(chosen));
                prepare();
                (policy(), std::thread::spawn(policy).join().unwrap())
            };
            std::thread::spawn(policies).join().unwrap()
        };
        if !std::thread::spawn(move || set_policy(libc::SCHED_BATCH)).join().unwrap() {
            return;
        }
        assert_eq!(prepared(libc::SCHED_OTHER), (libc::SCHED_BATCH, libc::SCHED_BATCH));
        assert_eq!(prepared(libc::SCHED_IDLE), (libc::SCHED_IDLE, libc::SCHED_IDLE));
    }
}
