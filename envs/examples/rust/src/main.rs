//! Playfield's command line with one more environment and one more algorithm.

mod corridor;
mod hill_climb;

use corridor::Corridor;
use hill_climb::HillClimb;
use std::process::ExitCode;

fn main() -> ExitCode {
    playfield::Registry::standard()
        .env("Corridor", "walk right to the end of a corridor", |config| {
            config.refuse_kwargs()?; // Corridor has no settings in [env.kwargs]
            Ok(Corridor::new())
        })
        .algorithm::<HillClimb>()
        .run()
}
