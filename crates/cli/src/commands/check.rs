use crate::Registry;
use crate::args::Check;
use crate::experiment;
use crate::output::{hanging, is_terminal, note, out};
use playfield_core::check::{Finding, Level};
use playfield_core::{Error, Result};
use playfield_wrappers::check_env;
use serde::Serialize;
use std::process::ExitCode;

/// The JSON object of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    env: &'a str,
    steps: u64,
    errors: usize,
    warnings: usize,
    findings: &'a [Finding],
}

/// `playfield check`: exit code 2 if there is an error.
pub fn check(registry: &Registry, args: &Check, verbose: bool) -> Result<ExitCode> {
    let (config, source) = experiment::checked_environment(&args.env, &args.set, registry)?;
    let findings = check_env(&source, &config, args.steps);
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    if args.json {
        let report = Report { env: &config.id, steps: args.steps, errors, warnings, findings: &findings };
        out!("{}", serde_json::to_string(&report).map_err(Error::other)?);
    } else {
        for Finding { check, level, found, advice, detail } in &findings {
            let level = match level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Error => "error",
            };
            // Each finding is one line in a file or a pipe.
            let row = |head: String, text: &str| match is_terminal() {
                true => out!("{}", hanging(&head, text)),
                false => out!("{head}{text}"),
            };
            row(format!("{level:<8} {check:<12} "), found);
            if let Some(advice) = advice {
                row(format!("{:21} -> ", ""), advice);
            }
            if let (true, Some(detail)) = (verbose, detail) {
                note!("\n{}\n", detail.trim_end());
            }
        }
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        out!("{}, {}", plural(errors, "error"), plural(warnings, "warning"));
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}
