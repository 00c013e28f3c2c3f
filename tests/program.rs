//! Tests of the whole program. They are one binary, since cargo runs binaries one after another: in one binary a test that waits
//! does not leave a processor idle. `cargo test --workspace --test program learning::` runs those of one file.

mod add_a_layer_or_a_trick;
mod add_an_environment;
mod architecture;
mod bad_input;
mod check;
mod commands;
mod common;
mod distill_embed;
mod distributed;
mod distributed_updates;
mod environments;
mod evaluation;
mod export;
mod failing_environments;
mod known_values;
mod lab;
mod learning;
mod networks;
mod output;
mod reports;
mod runs;
mod sweep;
mod tensorboard;
mod training;
