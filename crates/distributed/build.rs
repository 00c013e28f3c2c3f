//! Compiles the shim against libtorch's headers. `headers/gloo` declares the few names of Gloo that those mention: the wheel ships
//! Gloo's code inside `libtorch_cpu.so` and not its headers.

#[path = "../cuda_headers.rs"]
mod cuda_headers;

use std::env;
use std::path::PathBuf;

fn main() {
    for changed in ["src/shim.cpp", "headers", "build.rs", "../cuda_headers.rs", "../shim.h"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = PathBuf::from(env::var_os("LIBTORCH").expect("LIBTORCH: .cargo/config.toml names the folder"));
    let include = libtorch.join("include");
    let (mut includes, mut libraries) =
        (vec![include.clone(), include.join("torch/csrc/api/include")], vec!["torch_cpu", "c10"]);
    let mut build = cc::Build::new();
    println!("cargo:rustc-check-cfg=cfg(nccl)");
    if let Some(cuda) = cuda_headers::folders(&libtorch, "NCCL is") {
        includes.extend(cuda);
        libraries.extend(["torch_cuda", "c10_cuda"]);
        build.define("USE_C10D_NCCL", None).define("PLAYFIELD_NCCL", None);
        println!("cargo:rustc-cfg=nccl");
    }
    build.cpp(true).std("c++20").file("src/shim.cpp").include("headers").include("..");
    // System headers: their warnings are not ours.
    includes.iter().for_each(|folder| _ = build.flag(format!("-isystem{}", folder.display())));
    build.define("USE_C10D_GLOO", None).opt_level(1).debug(false).compile("playfield_distributed");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    for library in libraries {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
