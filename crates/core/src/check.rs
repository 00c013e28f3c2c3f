//! Findings about an environment: what `playfield check` reports.

use serde::Serialize;

/// The severity of a [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not be what was meant.
    Warning,
    /// Training fails, or learns from wrong data.
    Error,
}

/// One property of an environment, and whether it is as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The property: `reset`, `reward`, `seeds`, …
    pub check: String,
    /// The severity.
    pub level: Level,
    /// The observed value, in one line.
    pub found: String,
    /// What to change, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Details (a Python traceback, for example), shown with `--verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Finding {
    /// A property that is as it should be.
    pub fn ok(check: &str, found: impl Into<String>) -> Self {
        Self { check: check.into(), level: Level::Ok, found: found.into(), advice: None, detail: None }
    }

    /// A property that should probably change as `advice` says.
    pub fn warning(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: Some(advice.into()), ..Self::ok(check, found) }
    }

    /// A property that must change as `advice` says.
    pub fn error(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Error, advice: Some(advice.into()), ..Self::ok(check, found) }
    }
}

/// What a source finds in the results of its environment before they are converted ([`EnvSource::inspect`]).
///
/// [`EnvSource::inspect`]: crate::EnvSource::inspect
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The findings.
    pub findings: Vec<Finding>,
    /// The median duration of a step without playfield's part, in seconds.
    pub step_seconds: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_has_its_level_and_its_advice() {
        let parts = |finding: Finding| (finding.level, finding.found, finding.advice);
        assert_eq!(parts(Finding::ok("a", "b")), (Level::Ok, "b".into(), None));
        assert_eq!(parts(Finding::warning("a", "b", "c")), (Level::Warning, "b".into(), Some("c".into())));
        assert_eq!(parts(Finding::error("a", "b", "c")), (Level::Error, "b".into(), Some("c".into())));
    }
}
