//! Ctrl-C, SIGTERM and SIGHUP (the terminal is closed): the first signal finishes the update and saves, the second ends at
//! once.

use crate::output::note;
use playfield_core::run::Stop;
use playfield_core::{Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a trial of a sweep gets when the sweep's process has ended, perhaps several times over (once for every thread that ends
/// there): it stops as after SIGTERM, and a second one changes nothing.
pub const PARENT_ENDED: i32 = SIGUSR1;

/// Listens, on a thread of its own, from now on. SIGHUP stays ignored where it is ignored already, as under `nohup`.
///
/// # Errors
/// Where the system refuses the handlers.
pub fn listen() -> Result<Stop> {
    let (stop, stopping) = (Stop::default(), Arc::new(AtomicBool::new(false)));
    let signals: Vec<_> = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|s| *s != SIGHUP || !is_ignored(*s)).collect();
    for &signal in &signals {
        // The second signal ends the process inside its handler, whatever its threads wait for, and so it must come first:
        // the first signal finds the flag down.
        flag::register_conditional_shutdown(signal, 128 + signal, stopping.clone()).map_err(Error::other)?;
        flag::register(signal, stopping.clone()).map_err(Error::other)?;
    }
    let mut signals = Signals::new(signals.into_iter().chain([PARENT_ENDED])).map_err(Error::other)?;
    let asked = stop.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            match (signal, asked.requested()) {
                (PARENT_ENDED, None) => asked.request(SIGTERM),
                (PARENT_ENDED, Some(_)) => continue,
                (signal, None) => asked.request(signal),
                // Two that came at the same moment, so that neither handler saw the other.
                (signal, Some(_)) => signal_hook::low_level::exit(128 + signal),
            }
            note!("\nstopping: finishing the update and saving (a second signal ends at once, without saving)");
        }
    });
    Ok(stop)
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: with no new action, `sigaction` only writes the present one, which is plain data.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
