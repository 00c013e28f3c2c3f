//! The virtual environment with the Python packages: the `.venv` that `make setup` creates.

use std::path::{Path, PathBuf};

/// A virtual environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Venv {
    /// Its folder.
    pub(crate) root: PathBuf,
    /// Its Python version, `(3, 11)`, where its `pyvenv.cfg` has it.
    pub(crate) version: Option<(u32, u32)>,
}

impl Venv {
    /// Its Python program.
    pub(crate) fn python(&self) -> PathBuf {
        self.root.join("bin/python")
    }
}

/// The virtual environment that `PLAYFIELD_VENV` names, or else the first of: `.venv` in a parent folder of the running program,
/// `VIRTUAL_ENV`, and `.venv` of the repository in which this crate was compiled.
///
/// # Errors
/// A message if `PLAYFIELD_VENV` names another folder or none.
pub(crate) fn find() -> Result<Option<Venv>, String> {
    let program = std::env::current_exe().unwrap_or_default();
    let above = program.ancestors().skip(1).map(|dir| dir.join(".venv"));
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv");
    if let Some(root) = named("PLAYFIELD_VENV") {
        let wrong = || format!("PLAYFIELD_VENV={} is not a virtual environment: correct or unset it", root.display());
        return read(&root).ok_or_else(wrong).map(Some);
    }
    let mut candidates = above.chain(named("VIRTUAL_ENV")).chain([compiled]);
    Ok(candidates.find_map(|root| read(&root)))
}

fn read(root: &Path) -> Option<Venv> {
    let root = root.canonicalize().ok()?;
    let config = std::fs::read_to_string(root.join("pyvenv.cfg")).ok()?;
    Some(Venv { version: version(&config), root })
}

/// `version = 3.11.7` (venv) or `version_info = 3.11.7.final.0` (virtualenv, uv).
fn version(config: &str) -> Option<(u32, u32)> {
    let value = config.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        ["version", "version_info"].contains(&key.trim()).then(|| value.trim())
    })?;
    let mut parts = value.split('.').map(str::parse::<u32>);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_written_by_each_tool() {
        assert_eq!(version("home = /usr/bin\nversion = 3.11.7\n"), Some((3, 11)));
        assert_eq!(version("home = /usr/bin\nversion_info = 3.12.1.final.0\n"), Some((3, 12)));
        assert_eq!(version("home = /usr/bin\n"), None);
        assert_eq!(version("version = three\n"), None);
    }

    #[test]
    fn a_folder_without_pyvenv_cfg_is_not_a_virtual_environment() {
        assert_eq!(read(Path::new(env!("CARGO_MANIFEST_DIR"))), None);
    }
}
