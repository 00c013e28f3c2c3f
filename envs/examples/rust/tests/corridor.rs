//! The commands of docs/add-an-environment.md for this crate run.

use std::process::Command;

const PAGE: &str = include_str!("../../../../docs/add-an-environment.md");

#[test]
fn the_commands_of_the_page_run() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy("config.toml", dir.path().join("config.toml")).unwrap();
    let commands: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix("cargo run --release -- ")).collect();
    assert_eq!(commands.len(), 3);
    let mut said = String::new();
    for command in commands {
        let mut program = Command::new(env!("CARGO_BIN_EXE_corridor"));
        let output = program.args(command.split(' ')).current_dir(dir.path()).output().unwrap();
        said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    // Nine steps: 1 − 8 × 0.1.
    assert!(said.contains("return     0.20 ± 0.00"), "{said}");
}
