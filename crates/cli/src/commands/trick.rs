use crate::args::{Trick as Args, TrickCommand};
use crate::output::{hanging, out};
use crate::{machine, paths, signals, suggest};
use indicatif::{ProgressBar, ProgressStyle};
use playfield_core::run::Stop;
use playfield_core::{Error, Result};
use playfield_lab::chart;
use playfield_lab::page::{Circumstances, page};
use playfield_lab::tricks::ALL;
use playfield_lab::{Better, Outcome, Trick};
use playfield_report::format::number;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// `playfield trick`.
pub fn trick(args: &Args) -> Result<ExitCode> {
    match &args.command {
        TrickCommand::List => {
            for trick in ALL {
                let head = format!("{:>2}  {:<19}", trick.number, trick.name);
                out!("{}", hanging(&head, trick.about));
            }
            let program = paths::program();
            out!("\n{program} trick show NAME   print details\n{program} trick run NAME    measure the effect");
            Ok(ExitCode::SUCCESS)
        }
        TrickCommand::Show { name } => {
            show(find(name)?);
            Ok(ExitCode::SUCCESS)
        }
        TrickCommand::Run { name, seeds, json, out } => match name.as_str() {
            "all" => all(*seeds, *json, &out.clone().unwrap_or_else(|| paths::absolute("docs"))),
            name => one(find(name)?, *seeds, *json, &out.clone().unwrap_or_else(|| paths::absolute("tricks"))),
        },
    }
}

fn find(name: &str) -> Result<&'static Trick> {
    ALL.iter().find(|trick| trick.name == name).ok_or_else(|| {
        let hint = suggest::hint(name, ALL.iter().map(|t| t.name));
        Error::config(format!("unknown trick '{name}'{hint} (`{} trick list` shows them all)", paths::program()))
    })
}

fn show(trick: &Trick) {
    let Trick { number, name, about, source, data, verified_by, metric, better, baseline, with, .. } = trick;
    let better = if *better == Better::Lower { "lower" } else { "higher" };
    out!("{}\n", hanging(&format!("{name}, trick {number}: "), about));
    let row = |key: &str, text: &str| out!("{}", hanging(&format!("{key:<11}"), text));
    row("source", source);
    verified_by.split("; ").enumerate().for_each(|(i, test)| row(if i == 0 { "tests" } else { "" }, test));
    row("data", data);
    row("measured", &format!("{metric} ({better} is better)"));
    row("compared", &format!("{baseline}, with: {}", with.join(", ")));
    out!("measure    {} trick run {name}", paths::program());
}

fn one(trick: &Trick, seeds: u64, json: bool, out: &Path) -> Result<ExitCode> {
    let stop = signals::listen("the measurement is incomplete and not saved")?;
    let Some(outcome) = measure(trick, seeds, json, &stop)? else { stopped(&stop) };
    let charts = write(&outcome, out)?;
    if json {
        out!("{}", serde_json::to_string(&outcome).map_err(Error::other)?);
    } else {
        report(trick, &outcome);
        out!("plot       {charts}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures every trick. After Ctrl-C, the results so far are still written.
fn all(seeds: u64, json: bool, out: &Path) -> Result<ExitCode> {
    let stop = signals::listen("writing the results of the complete measurements")?;
    let mut outcomes = Vec::new();
    for trick in ALL {
        let Some(outcome) = measure(trick, seeds, json, &stop)? else { break };
        write(&outcome, &out.join("tricks"))?;
        if !json {
            report(trick, &outcome);
            out!("");
        }
        outcomes.push((trick, outcome));
    }
    if json {
        let outcomes: Vec<_> = outcomes.iter().map(|(_, outcome)| outcome).collect();
        out!("{}", serde_json::to_string(&outcomes).map_err(Error::other)?);
    }
    let path = out.join("tricks.md");
    if !outcomes.is_empty() {
        let command = format!("playfield trick run all --seeds {seeds}");
        let at = Circumstances { command: &command, date: &today(), machine: &machine::processor() };
        fs::write(&path, page(&outcomes, "tricks", &at)).map_err(Error::io("write", &path))?;
        if !json {
            out!("page       {}, {} of {} tricks", paths::shown(&path), outcomes.len(), ALL.len());
        }
    }
    if outcomes.len() < ALL.len() {
        stopped(&stop);
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the process: experiments may still compute in other threads, and libtorch must not be destroyed while they do.
fn stopped(stop: &Stop) -> ! {
    signals::exit(stop.requested().unwrap_or(0))
}

fn measure(trick: &Trick, seeds: u64, json: bool, stop: &Stop) -> Result<Option<Outcome>> {
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(seeds) };
    let style = ProgressStyle::with_template("{msg:20} {bar:30} {pos}/{len} seeds, {elapsed} elapsed, {eta} left");
    bar.set_style(style.map_err(Error::other)?);
    bar.set_message(trick.name);
    bar.enable_steady_tick(Duration::from_millis(500));
    let outcome = playfield_lab::run(trick, seeds, stop, &|_| bar.inc(1));
    bar.finish_and_clear();
    outcome
}

/// Writes the charts and the values, and returns the paths of the charts.
fn write(outcome: &Outcome, out: &Path) -> Result<String> {
    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let put = |extension: &str, bytes: &[u8]| {
        let path = out.join(format!("{}.{extension}", outcome.name));
        fs::write(&path, bytes).map_err(Error::io("write", &path)).map(|()| paths::shown(&path))
    };
    put("json", &serde_json::to_vec(outcome).map_err(Error::other)?)?;
    Ok(format!("{}, {}", put("svg", chart::svg(outcome)?.as_bytes())?, put("png", &chart::png(outcome)?)?))
}

fn report(trick: &Trick, outcome: &Outcome) {
    let better = if outcome.better == Better::Lower { "lower" } else { "higher" };
    out!("{}", hanging(&format!("{}: ", trick.name), trick.about));
    let metric = format!("{} ({better} is better)", outcome.metric);
    out!("{}", hanging(&format!("{} seeds in {:.0} s; ", outcome.seeds, outcome.seconds), &metric));
    let width = outcome.variants.iter().map(|v| v.name.chars().count()).max().unwrap_or(0).max(7);
    out!("{:width$}  {:>8}  {:>19}  verdict", "variant", "median", "quartiles");
    for (i, variant) in outcome.variants.iter().enumerate() {
        let quartiles = format!("{} to {}", number(variant.quartiles.0), number(variant.quartiles.1));
        let verdict = match (i, variant.verdict) {
            (0, _) => "baseline".into(),
            (_, Some((verdict, p))) => format!("{verdict} (p = {p:.3})"),
            (_, None) => String::new(),
        };
        out!("{:width$}  {:>8}  {quartiles:>19}  {verdict}", variant.name, number(variant.median));
    }
    if outcome.seeds < 4 {
        out!("fewer than 4 seeds: no difference can be significant at the 5 % level");
    }
}

/// The date in UTC, formatted as `2026-01-31`.
pub fn today() -> String {
    time::UtcDateTime::now().date().to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_date_equals_that_of_the_date_command() {
        let (today, expected) = (super::today(), std::process::Command::new("date").args(["-u", "+%F"]).output());
        if let Ok(output) = expected {
            assert_eq!(today, String::from_utf8_lossy(&output.stdout).trim());
        }
    }
}
