//! The program and its tests find libtorch at run time where the build found it (`LIBTORCH` in `.cargo/config.toml`).

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let libtorch = std::env::var("LIBTORCH").expect("LIBTORCH is set in .cargo/config.toml");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
}
