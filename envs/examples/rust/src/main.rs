//! Playfield's command line with one more environment.

mod corridor;

use corridor::Corridor;
use std::process::ExitCode;

fn main() -> ExitCode {
    playfield::Registry::standard()
        .env("Corridor", "walk right to the end of a corridor", |config| {
            config.refuse_kwargs()?; // Corridor has no settings in [env.kwargs]
            Ok(Corridor::new())
        })
        .run()
}
