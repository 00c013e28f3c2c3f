//! The whole of playfield's command line, with one environment more.

mod corridor;

use corridor::Corridor;
use std::process::ExitCode;

fn main() -> ExitCode {
    playfield::Registry::standard()
        .env("Corridor", "walk right to the end of a corridor", |_config| Ok(Corridor::new()))
        .run()
}
