use crate::args::Plot as Args;
use crate::commands::selection;
use crate::output::{note, out};
use crate::{paths, suggest};
use playfield_core::{Error, Result};
use playfield_report::curve::{Axis, Curve, Quantity};
use playfield_report::plot::Plot;
use playfield_report::{Group, RunFolder};
use std::fs;
use std::process::ExitCode;

/// `playfield plot`.
pub fn plot(args: &Args) -> Result<ExitCode> {
    let extension = args.out.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    let is_png = match extension.as_deref() {
        Some("svg") => false,
        Some("png") => true,
        _ => {
            let out = paths::shown(&args.out);
            return Err(Error::config(format!("--out {out}: the name of a plot must end in .svg or .png")));
        }
    };
    let groups = selection::groups(&args.selection.runs)?;
    let quantity = match &args.column {
        None => Quantity::Return { window: args.window.unwrap_or(100) },
        Some(tag) => Quantity::Column { tag: tag.clone(), window: args.window.unwrap_or(1) },
    };
    let axis = if args.minutes { Axis::Minutes } else { Axis::Steps };
    if let Some(tag) = &args.column {
        check_column(tag, &groups)?;
    }
    let plot = Plot::new(&groups, &quantity, axis, &args.level);
    let what =
        args.column.as_ref().map_or("no episode has finished".into(), |tag| format!("there is no value of {tag}"));
    let is_empty = |run: &&RunFolder| Curve::new(run, &quantity, axis).is_none_or(|curve| curve.is_empty());
    let empty: Vec<_> = groups.iter().flat_map(|g| &g.runs).filter(is_empty).map(|run| run.path.display()).collect();
    if plot.is_empty() {
        let all = empty.iter().map(|path| path.to_string()).collect::<Vec<_>>().join(", ");
        return Err(Error::config(format!(
            "nothing to plot yet: {what} in {all}; train longer, or choose another --column"
        )));
    }
    empty.iter().for_each(|path| note!("warning: {path} is left out: {what}"));
    let bytes = if is_png { plot.png()? } else { plot.svg()?.into_bytes() };
    if let Some(parent) = args.out.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    fs::write(&args.out, bytes).map_err(Error::io("write", &args.out))?;
    out!("plot       {}", paths::shown(&args.out));
    Ok(ExitCode::SUCCESS)
}

/// Checks that a run has the column `tag`.
///
/// # Errors
/// [`Error::Config`] with similar columns, or all if none is similar.
fn check_column(tag: &str, groups: &[Group]) -> Result<()> {
    let mut columns: Vec<&str> = Vec::new();
    for column in groups.iter().flat_map(|group| &group.runs).flat_map(|run| &run.progress.columns) {
        if column == tag {
            return Ok(());
        }
        if !columns.contains(&&**column) {
            columns.push(column);
        }
    }
    if columns.is_empty() {
        return Err(Error::config("nothing to plot yet: progress.csv is empty; train longer"));
    }
    let name = |column: &str| column.rsplit('/').next().unwrap_or(column).to_lowercase();
    let closest = suggest::closest(tag, columns.iter().copied());
    let mut similar: Vec<&str> = closest.into_iter().collect();
    let contains = |column: &&&str| name(column).contains(&name(tag)) && Some(**column) != closest;
    similar.extend(columns.iter().filter(contains).take(4));
    let hint = match similar.is_empty() {
        true => format!("the columns are {}", columns.join(", ")),
        false => format!("similar columns are {}", similar.join(", ")),
    };
    let runs = groups.iter().map(|group| group.runs.len()).sum::<usize>();
    let subject = if runs == 1 { "the run has" } else { "the runs have" };
    Err(Error::config(format!("{subject} no column '{tag}' in progress.csv; {hint}")))
}
