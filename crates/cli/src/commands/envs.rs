use crate::Registry;
use crate::output::{note, out};
use crate::registry::elsewhere;
use crate::suggest;
use playfield_core::{Error, Result};
use std::process::ExitCode;

/// `playfield envs`.
pub fn envs(registry: &Registry, filter: Option<&str>) -> Result<ExitCode> {
    let wanted = |id: &str| filter.is_none_or(|f| id.to_lowercase().contains(&f.to_lowercase()));
    let rows: Vec<_> = registry.rows().iter().filter(|r| wanted(&r.id)).collect();
    // Python's list may fail where Python is not set up: that is worth a word, and no reason to hide the others.
    let others = elsewhere::ids().unwrap_or_else(|error| {
        note!("warning: {error}");
        Vec::new()
    });
    let found: Vec<_> = others.iter().filter(|id| wanted(id)).collect();
    for row in &rows {
        out!("{:<28} {}", row.id, row.about);
    }
    for id in &found {
        out!("{id}");
    }
    match (filter, rows.len() + found.len()) {
        (Some(filter), 0) => {
            let ids = registry.rows().iter().map(|r| r.id.as_str()).chain(others.iter().map(String::as_str));
            Err(Error::config(format!("no environment's name contains '{filter}'{}", suggest::hint(filter, ids))))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
