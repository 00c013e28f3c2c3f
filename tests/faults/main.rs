//! A fault campaign: processes that end in the middle of a save, full disks, damaged and hostile files, extreme settings, signals,
//! closed descriptors, failing environments. Whatever happens, the program ends with an exit code that it documents and one sentence,
//! and what it had saved loads.
//!
//! `make faults` runs every try and prints a table; the other test runs a fixed selection of them. `docs/reliability.md` says what each
//! class promises. Faults in the file system are injected ([`playfield::core::files`], debug builds only).
#![cfg(target_os = "linux")]

mod campaign;
#[path = "../common/mod.rs"]
mod common;
mod corruption;
mod descriptors;
mod environments;
mod hostile;
mod saves;
mod settings;
mod signals;

use campaign::{Class, Size};

/// Every class of faults.
fn classes(size: Size) -> Vec<Class> {
    [
        saves::class(size),
        corruption::class(size),
        hostile::class(size),
        settings::class(size),
        signals::class(size),
        descriptors::class(size),
        environments::class(size),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A fixed selection, in less than a minute.
#[test]
fn selected_faults_are_survived() {
    campaign::run(classes(Size::Selection));
}

/// Every try: `make faults`.
#[test]
#[ignore = "takes most of an hour; `make faults` runs it"]
fn every_fault_is_survived() {
    campaign::run(classes(Size::Full));
}
