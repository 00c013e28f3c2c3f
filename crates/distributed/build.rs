//! Compiles the shim against libtorch's headers. `headers/gloo` declares the few names of Gloo that those mention: the wheel ships
//! Gloo's code inside `libtorch_cpu.so` and not its headers.

use std::env;
use std::path::PathBuf;

fn main() {
    for changed in ["src/shim.cpp", "headers", "build.rs"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = PathBuf::from(env::var_os("LIBTORCH").expect("LIBTORCH: .cargo/config.toml names the folder"));
    let include = libtorch.join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .file("src/shim.cpp")
        .include("headers")
        // System headers: their warnings are not ours.
        .flag(format!("-isystem{}", include.display()))
        .flag(format!("-isystem{}", include.join("torch/csrc/api/include").display()))
        .define("USE_C10D_GLOO", None)
        .opt_level(1)
        .debug(false)
        .compile("playfield_distributed");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    for library in ["torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
