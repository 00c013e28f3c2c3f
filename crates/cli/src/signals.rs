//! Ctrl-C and SIGTERM: the first finishes the update and saves, the second ends at once.

use playfield_core::run::Stop;
use playfield_core::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Listens, on a thread of its own, from now on.
///
/// # Errors
/// Where the system refuses the handlers.
pub fn listen() -> Result<Stop> {
    let stop = Stop::default();
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Error::other)?;
    let asked = stop.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if asked.requested().is_some() {
                signal_hook::low_level::exit(128 + signal);
            }
            asked.request(signal);
            eprintln!("\nstopping: finishing the update and saving (once more ends at once, without saving)");
        }
    });
    Ok(stop)
}
