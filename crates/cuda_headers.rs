//! For the build scripts of crates with C++ that uses CUDA.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders with the headers of CUDA, which `make setup DEVICE=cuda` links to `nvidia` beside libtorch. `None` if this libtorch has no
/// CUDA, or where they are missing: then `what` is not built.
pub fn folders(libtorch: &Path, what: &str) -> Option<Vec<PathBuf>> {
    libtorch.join("lib/libtorch_cuda.so").exists().then_some(())?;
    let Ok(packages) = fs::read_dir(libtorch.join("nvidia")) else {
        println!("cargo:warning=no headers of CUDA in {}/nvidia: {what} not built", libtorch.display());
        return None;
    };
    let include = packages.flatten().map(|package| package.path().join("include"));
    Some(include.flat_map(|folder| [folder.join("cccl"), folder]).filter(|f| f.exists()).collect())
}
