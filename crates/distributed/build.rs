//! Compiles the shim against libtorch's headers. `headers/gloo` declares the few names of Gloo that those mention: the wheel ships
//! Gloo's code inside `libtorch_cpu.so` and not its headers.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    for changed in ["src/shim.cpp", "headers", "build.rs"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = PathBuf::from(env::var_os("LIBTORCH").expect("LIBTORCH: .cargo/config.toml names the folder"));
    let include = libtorch.join("include");
    let (mut includes, mut libraries) =
        (vec![include.clone(), include.join("torch/csrc/api/include")], vec!["torch_cpu", "c10"]);
    let mut build = cc::Build::new();
    println!("cargo:rustc-check-cfg=cfg(nccl)");
    if let Some(cuda) = cuda(&libtorch) {
        includes.extend(cuda);
        libraries.extend(["torch_cuda", "c10_cuda"]);
        build.define("USE_C10D_NCCL", None).define("PLAYFIELD_NCCL", None);
        println!("cargo:rustc-cfg=nccl");
    }
    build.cpp(true).std("c++20").file("src/shim.cpp").include("headers");
    // System headers: their warnings are not ours.
    includes.iter().for_each(|folder| _ = build.flag(format!("-isystem{}", folder.display())));
    build.define("USE_C10D_GLOO", None).opt_level(1).debug(false).compile("playfield_distributed");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    for library in libraries {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}

/// The folders with the headers of CUDA and NCCL, which `make setup DEVICE=cuda` links to `nvidia` beside libtorch. `None` if this
/// libtorch has no CUDA: then there is no NCCL.
fn cuda(libtorch: &Path) -> Option<Vec<PathBuf>> {
    libtorch.join("lib/libtorch_cuda.so").exists().then_some(())?;
    let Ok(packages) = fs::read_dir(libtorch.join("nvidia")) else {
        println!("cargo:warning=no headers of CUDA in {}/nvidia: NCCL is not built", libtorch.display());
        return None;
    };
    let include = packages.flatten().map(|package| package.path().join("include"));
    let folders: Vec<PathBuf> =
        include.flat_map(|folder| [folder.join("cccl"), folder]).filter(|f| f.exists()).collect();
    Some(folders)
}
