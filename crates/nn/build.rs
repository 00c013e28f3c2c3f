//! Compiles the shim for CUDA graphs, where libtorch has CUDA.

#[path = "../cuda_headers.rs"]
mod cuda_headers;

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    for changed in ["src/cuda_graph.cpp", "build.rs", "../cuda_headers.rs", "../shim.h"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rustc-check-cfg=cfg(cuda_graphs)");
    let libtorch = PathBuf::from(env::var_os("LIBTORCH").expect("LIBTORCH: .cargo/config.toml names the folder"));
    let Some(mut includes) = cuda_headers::folders(&libtorch, "CUDA graphs are") else { return };
    includes.push(libtorch.join("include"));
    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").file("src/cuda_graph.cpp").include("..");
    // System headers: their warnings are not ours.
    includes.iter().for_each(|folder| _ = build.flag(format!("-isystem{}", folder.display())));
    build.opt_level(1).debug(false).compile("playfield_cuda_graph");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    for library in ["torch_cpu", "torch_cuda", "c10", "c10_cuda"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    // CUDA's own library, which libtorch's headers call: the folder has it with its version only.
    let files = fs::read_dir(libtorch.join("lib")).into_iter().flatten().flatten();
    let mut names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let runtime = names.find(|name| name.starts_with("libcudart.so")).expect("libcudart.so beside libtorch_cuda.so");
    println!("cargo:rustc-link-lib=dylib:+verbatim={runtime}");
    println!("cargo:rustc-cfg=cuda_graphs");
}
