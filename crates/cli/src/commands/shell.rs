//! Shell completions and man pages, generated from the arguments.

use crate::args::Cli;
use crate::output::{self, out};
use crate::paths;
use clap::CommandFactory as _;
use clap_complete::Shell;
use playfield_core::{Error, Result};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// `playfield completions`.
pub fn completions(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "playfield", &mut script);
    output::write(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

/// `playfield man`: the page of the program, or into `folder` those of all commands.
pub fn man(folder: Option<&Path>) -> Result<ExitCode> {
    // Gives each command the complete name that its page has.
    let mut command = Cli::command();
    command.build();
    let Some(folder) = folder else {
        output::write(&String::from_utf8_lossy(&page(command)?));
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let mut open = vec![command];
    while let Some(command) = open.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_string();
        open.extend(command.get_subcommands().filter(|command| command.get_name() != "help").cloned());
        let path = folder.join(format!("{name}.1"));
        fs::write(&path, page(command)?).map_err(Error::io("write", &path))?;
        out!("{}", paths::shown(&path));
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: clap::Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text).map_err(Error::other)?;
    Ok(text)
}
