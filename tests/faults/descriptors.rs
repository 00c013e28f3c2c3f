//! Closed and full standard descriptors.

use crate::campaign::{ALGORITHMS, Class, Finding, Group, LIMIT, Running, Size, program};
use crate::common::{checkpoints, file};
use std::fs;
use std::process::Command;

/// Redirections of a shell, and whether results can be written.
const REDIRECTIONS: [(&str, bool); 8] = [
    ("<&-", true),
    (">&-", true),
    ("2>&-", true),
    (">&- 2>&-", true),
    ("<&- >&- 2>&-", true),
    ("</dev/full", true),
    (">/dev/full", false),
    ("2>/dev/full", true),
];

/// The row of the table.
pub fn class(size: Size) -> Vec<Class> {
    let count = if size == Size::Full { 4 } else { 1 };
    let groups = ALGORITHMS[..count].iter().map(move |(name, config)| {
        Group::new(*name, move |folder, tally| {
            file(folder, "a.toml", config);
            program(folder, &["train", "a.toml", "--run-dir", "saved"]).has_code(&[0]).unwrap();
            let commands = ["train a.toml --run-dir run", "eval saved --episodes 1", "runs .", "envs"];
            let tries = REDIRECTIONS.iter().flat_map(|redirection| commands.map(|command| (redirection, command)));
            for (_, ((redirection, writes), command)) in
                tries.enumerate().filter(|(i, _)| size == Size::Full || i % 10 == 0)
            {
                let mut bash = Command::new("bash");
                let line = format!("exec {} {command} {redirection}", env!("CARGO_BIN_EXE_playfield"));
                bash.args(["-c", &line]).current_dir(folder);
                let ended = Running::start(folder, bash).wait(LIMIT);
                let check = || -> Finding {
                    // The error cannot be written where stderr is closed.
                    ended.has_code(if *writes { &[0] } else { &[2] })?;
                    let run = folder.join("run");
                    if command.starts_with("train") {
                        let saved = checkpoints(&run).len();
                        fs::remove_dir_all(&run).map_err(|error| error.to_string())?;
                        return if saved == 1 { Ok(()) } else { Err(format!("{saved} checkpoints")) };
                    }
                    Ok(())
                };
                tally.add(format!("{command} {redirection}"), check());
            }
        })
    });
    vec![Class { name: "a standard descriptor is closed or full", groups: groups.collect() }]
}
