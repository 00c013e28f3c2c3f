//! The program `playfield`.

fn main() -> std::process::ExitCode {
    playfield::Registry::standard().run()
}
