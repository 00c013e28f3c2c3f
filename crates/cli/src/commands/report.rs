use crate::args::Report;
use crate::commands::selection;
use crate::commands::trick::today;
use crate::output::{note, out};
use crate::paths;
use playfield_core::{Error, Result};
use playfield_report::format;
use playfield_report::html::{Options, html};
use std::fs;
use std::process::ExitCode;

/// `playfield report`.
pub fn report(args: &Report) -> Result<ExitCode> {
    let groups = selection::groups(&args.selection.runs)?;
    let options = Options { date: today(), window: args.window, levels: args.level.clone() };
    let (page, left_out) = html(&groups, &options)?;
    left_out.iter().for_each(|path| note!("warning: {} is too large for the report and left out", path.display()));
    if let Some(parent) = args.out.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    fs::write(&args.out, &page).map_err(Error::io("write", &args.out))?;
    let runs = groups.iter().map(|group| group.runs.len()).sum::<usize>();
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    out!("report     {}, {}", paths::shown(&args.out), format::bytes(page.len() as u64));
    out!("content    {runs} run{} in {} group{}", plural(runs), groups.len(), plural(groups.len()));
    Ok(ExitCode::SUCCESS)
}
