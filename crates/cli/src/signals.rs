//! Ctrl-C, SIGTERM and SIGHUP (closed terminal). After the first signal the command stops at its next opportunity; a run finishes its
//! update and saves a checkpoint. A second signal ends the process immediately.

use crate::output::note;
use playfield_core::run::Stop;
use playfield_core::{Error, Result, calls};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The signal to a trial when the process of its sweep ends, possibly repeated (once per ending thread). The first one acts like
/// SIGTERM; further ones are ignored.
pub const PARENT_ENDED: i32 = SIGUSR1;

/// What `train` does after a signal.
pub const SAVES: &str = "finishing the update and saving";

/// Starts a thread that handles signals. After the first it shows `stopping`, what the command does then. SIGHUP stays ignored if it already is, for example under `nohup`.
///
/// # Errors
/// If a handler cannot be registered.
pub fn listen(stopping: &'static str) -> Result<Stop> {
    let (stop, received) = (Stop::default(), Arc::new(AtomicBool::new(false)));
    let signals: Vec<_> = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|s| *s != SIGHUP || !is_ignored(*s)).collect();
    for &signal in &signals {
        // The second signal exits inside the handler, even if all threads are blocked. This handler is registered before the one
        // that sets the flag, so the first signal does not exit.
        flag::register_conditional_shutdown(signal, 128 + signal, received.clone()).map_err(Error::other)?;
        flag::register(signal, received.clone()).map_err(Error::other)?;
    }
    let mut signals = Signals::new(signals.into_iter().chain([PARENT_ENDED])).map_err(Error::other)?;
    let requested = stop.clone();
    std::thread::spawn(move || {
        // Another process of the run may request the stop, too: its request is no signal.
        let mut is_second = false;
        for signal in signals.forever() {
            match (signal, std::mem::replace(&mut is_second, true)) {
                (PARENT_ENDED, false) => requested.request(SIGTERM),
                (PARENT_ENDED, true) => continue,
                (signal, false) => requested.request(signal),
                // Two simultaneous signals: neither handler found the flag set.
                (signal, true) => exit(signal),
            }
            note!("\nstopping: {stopping} (a second signal exits immediately)");
        }
    });
    let requested = stop.clone();
    std::thread::spawn(move || watch_environments(&requested));
    Ok(stop)
}

/// A call of an environment that takes longer than this is reported.
const SLOW: Duration = Duration::from_secs(60);
/// After a signal, a call of an environment that takes longer than this ends the process.
const HANGING: Duration = Duration::from_secs(10);

/// Warns once about an environment that hangs. After a signal, ends the process if the environment still hangs: the thread that
/// would save the run waits for it.
fn watch_environments(stop: &Stop) {
    let mut warned = false;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let longest = calls::longest().unwrap_or_default();
        if longest > SLOW && !warned {
            warned = true;
            let seconds = longest.as_secs();
            note!("warning: an environment has not returned for {seconds} s; env.step_timeout_seconds limits a step");
        }
        if let Some(signal) = stop.requested().filter(|_| longest > HANGING) {
            let seconds = longest.as_secs();
            note!(
                "an environment has not returned for {seconds} s: stopping without saving (env.step_timeout_seconds limits a step)"
            );
            exit(signal);
        }
    }
}

/// Ends the process at once, with the exit code of `signal`. Threads that still compute are not waited for, and no destructor runs.
pub fn exit(signal: i32) -> ! {
    signal_hook::low_level::exit(128 + signal)
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action, `sigaction` only writes the current one, which is plain data.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
