use crate::Registry;
use crate::output::{note, out};
use crate::registry::external;
use crate::suggest;
use playfield_core::{Error, Result};
use std::process::ExitCode;

/// `playfield envs`.
pub fn envs(registry: &Registry, filter: Option<&str>) -> Result<ExitCode> {
    let matches = |id: &str| filter.is_none_or(|f| id.to_lowercase().contains(&f.to_lowercase()));
    let rows: Vec<_> = registry.rows().iter().filter(|r| matches(&r.id)).collect();
    // Without a working Python only the native environments are listed, with a warning.
    let others = external::ids().unwrap_or_else(|error| {
        note!("warning: {error}");
        Vec::new()
    });
    let found: Vec<_> = others.iter().filter(|id| matches(id)).collect();
    for row in &rows {
        out!("{:<24} {}", row.id, row.about);
    }
    for id in &found {
        out!("{id}");
    }
    match (filter, rows.len() + found.len()) {
        (Some(filter), 0) => {
            let ids = registry.rows().iter().map(|r| r.id.as_str()).chain(others.iter().map(String::as_str));
            Err(Error::config(format!("no environment id contains '{filter}'{}", suggest::hint(filter, ids))))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
