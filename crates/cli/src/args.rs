//! What can be typed.

use crate::paths;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use playfield_core::Mode;
use std::path::PathBuf;

/// Reinforcement learning: train Atari-style agents, fast, on one machine.
#[derive(Debug, Parser)]
#[command(name = "playfield", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Say more where something fails (Python tracebacks, for example)
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train an agent, or go on with a run
    Train(Train),
    /// Play episodes with a trained agent and report their returns
    Eval(Eval),
    /// Film a trained agent playing an episode: a GIF
    Watch(Watch),
    /// List environments, or those whose name contains FILTER
    Envs {
        /// Part of a name
        filter: Option<String>,
    },
    /// Check what this machine has: libtorch, devices, Python, Atari
    Doctor,
    /// Teach a smaller network to act as a trained agent does: a run of its own
    Distill(Distill),
    /// Draw what a trained agent's last hidden layer makes of the episodes that it plays: a map by t-SNE
    Embed(Embed),
    /// Search for good settings: many runs with settings drawn at random, hopeless ones given up
    #[command(after_help = crate::commands::advice())]
    Sweep(Sweep),
    /// The tricks of supervised learning: list them, explain one, measure what it does
    Trick(Trick),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  playfield distill runs/dqn-pong-fast-1 --torso small
  playfield eval runs/dqn-pong-fast-1-small-1 --deterministic")]
pub struct Distill {
    /// The teacher: its run's folder
    #[arg(value_parser = path())]
    pub run: PathBuf,
    /// The student's torso: small (for vectors: half of each hidden layer's width), nips, nature, impala
    #[arg(long, value_name = "TORSO", default_value = "small")]
    pub torso: String,
    /// Agent steps that the teacher plays
    #[arg(long, value_name = "N", default_value = "200k", value_parser = count)]
    pub steps: u64,
    /// What the teacher's preferences are divided by [default: 1 for a policy, 0.01 for values of actions]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// The student's learning rate at the start; it falls to 0
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    pub learning_rate: f64,
    /// Episodes that each plays greedily at the end
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub episodes: u32,
    /// The seed of environments, actions and the student's first weights
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Use the teacher's checkpoint with the best training return rather than the latest
    #[arg(long)]
    pub best: bool,
    /// The student's folder [default: the next free one of <run>-<torso>-<n>]
    #[arg(value_parser = path(), long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

/// How a trained agent is to play.
#[derive(Args, Debug)]
pub struct Playing {
    /// The seed of environments, of sampled actions and of whatever else is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Take the best action rather than sample one
    #[arg(long)]
    pub deterministic: bool,
    /// Use the checkpoint with the best training return rather than the latest
    #[arg(long)]
    pub best: bool,
}

impl Playing {
    pub fn mode(&self) -> Mode {
        if self.deterministic { Mode::Greedy } else { Mode::Sample }
    }
}

#[derive(Args, Debug)]
pub struct Embed {
    /// The run's folder
    #[arg(value_parser = path())]
    pub run: PathBuf,
    /// About how many neighbors a point has: 5 to 50, more for more points
    #[arg(long, value_name = "P", default_value_t = 30.0)]
    pub perplexity: f64,
    /// How many observations
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=5000))]
    pub points: usize,
    /// Agent steps from one to the next
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub every: usize,
    #[command(flatten)]
    pub playing: Playing,
    /// The file to write [default: embed-<step>.png in the run's folder]
    #[arg(value_parser = path(), long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Sweep {
    /// The experiment: a TOML file
    #[arg(value_parser = path(), required_unless_present = "resume")]
    pub config: Option<PathBuf>,
    /// Go on with the sweep in this folder
    #[arg(value_parser = path(), long, value_name = "DIR", conflicts_with_all = ["config", "param", "env", "steps", "set", "dir", "seed", "keep"])]
    pub resume: Option<PathBuf>,
    /// A setting to search, as often as there are settings: uniformly, or with `:log` on a logarithmic scale
    #[arg(long, value_name = "KEY=LOW..HIGH[:log]", required_unless_present = "resume")]
    pub param: Vec<String>,
    /// How many trials [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub trials: Option<usize>,
    /// How many at a time, each on its share of the cores [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub jobs: Option<usize>,
    /// At an eighth, a quarter and a half of its steps a trial goes on if it is among the best 1/N so far
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=100))]
    pub keep: usize,
    /// The seed from which the settings are drawn (runs have that of the experiment)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Train on another environment than the file says
    #[arg(long, value_name = "ID")]
    pub env: Option<String>,
    /// Agent steps of each trial
    #[arg(long, value_name = "N", value_parser = count)]
    pub steps: Option<u64>,
    /// Change a setting of all trials
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The sweep's folder [default: the next free one of sweeps/<file>-<n>]
    #[arg(value_parser = path(), long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Trick {
    #[command(subcommand)]
    pub command: TrickCommand,
}

#[derive(Debug, Subcommand)]
pub enum TrickCommand {
    /// List all tricks
    List,
    /// What a trick is, where it comes from, which tests hold it
    Show {
        /// The trick's name
        name: String,
    },
    /// Train with a trick and without it, over seeds, and say what that showed
    #[command(after_help = "Examples:
  playfield trick run attention
  playfield trick run all --seeds 5      # the page docs/tricks.md: most of an hour on 2 cores")]
    Run {
        /// The trick's name, or `all` for every trick and a page of what they showed
        name: String,
        /// How many seeds; fewer than 4 cannot show anything
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
        seeds: u64,
        /// Print JSON and nothing else
        #[arg(long)]
        json: bool,
        /// The folder for plots and numbers [default: tricks; of `all`, which writes tricks.md too: docs]
        #[arg(value_parser = path(), long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  playfield train configs/dqn/pong-fast.toml
  playfield train configs/paac/pong.toml --env ALE/Breakout-v5 --seed 3 --set learning_rate=1e-3
  playfield train --resume runs/dqn-pong-fast-1")]
pub struct Train {
    /// The experiment: a TOML file
    #[arg(value_parser = path(), required_unless_present = "resume")]
    pub config: Option<PathBuf>,
    /// Go on with the run in this folder, with its own settings
    #[arg(value_parser = path(), long, value_name = "RUN", conflicts_with_all = ["config", "env", "seed", "run_dir", "set"])]
    pub resume: Option<PathBuf>,
    /// Train on another environment than the file says
    #[arg(long, value_name = "ID")]
    pub env: Option<String>,
    /// The seed from which everything random derives
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Agent steps in all (10_000, 500k and 5M are understood)
    #[arg(long, value_name = "N", value_parser = count)]
    pub steps: Option<u64>,
    /// The run's folder [default: the next free one of runs/<algorithm>-<file>-<n>]
    #[arg(value_parser = path(), long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Change a setting: a dotted key, or its last part where only one section has it
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where the network lives: cpu, cuda, cuda:N or auto
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Film the trained agent when all steps are done, as `playfield watch` does
    #[arg(long)]
    pub gif: bool,
}

#[derive(Args, Debug)]
pub struct Watch {
    /// The run's folder
    #[arg(value_parser = path())]
    pub run: PathBuf,
    /// The file to write [default: videos/<step>.gif in the run's folder]
    #[arg(value_parser = path(), long, value_name = "FILE")]
    pub gif: Option<PathBuf>,
    /// Seconds to film at most
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    #[command(flatten)]
    pub playing: Playing,
    /// Where the network lives: cpu, cuda, cuda:N or auto [default: as in training]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

#[derive(Args, Debug)]
pub struct Eval {
    /// The run's folder
    #[arg(value_parser = path())]
    pub run: PathBuf,
    /// How many episodes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub episodes: u32,
    #[command(flatten)]
    pub playing: Playing,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
    /// Where the network lives: cpu, cuda, cuda:N or auto [default: as in training]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

/// A path, made absolute.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(paths::absolute)
}

/// A number of steps as people write them: `5000000`, `5_000_000`, `5M`, `4.1M`, `500k`.
pub fn count(text: &str) -> Result<u64, String> {
    let expected = || "not a whole number of steps, such as 5000000, 5_000_000 or 5M".into();
    whole(text).filter(|n| (1..=1_000_000_000_000_000).contains(n)).ok_or_else(expected)
}

/// A whole number, not negative, however it is written: `1_000`, `1e6`, `1.`, `4.1M`, `16.1k`. Exact: no float is involved.
pub fn whole(text: &str) -> Option<u64> {
    let text = text.trim().replace('_', "");
    let (text, unit) = match text.strip_suffix(['k', 'K', 'M']) {
        Some(number) => (number, if text.ends_with('M') { 6 } else { 3 }),
        None => (text.as_str(), 0),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{before}{after}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // The decimal point moves to the right by this many places.
    let places = exponent.parse::<i64>().ok()?.checked_add(unit)?.checked_sub(after.len() as i64)?;
    let digits = digits.trim_start_matches('0');
    let written = match usize::try_from(places) {
        Ok(_) if digits.is_empty() => String::new(),
        Ok(places) if places <= 20 => format!("{digits}{}", "0".repeat(places)),
        Ok(_) => return None,
        Err(_) => {
            let (whole, fraction) = digits.split_at(digits.len().saturating_sub(places.unsigned_abs() as usize));
            fraction.bytes().all(|b| b == b'0').then(|| whole.to_string())?
        }
    };
    format!("0{written}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn steps_as_people_write_them() {
        let written =
            ["7", "5_000_000", "5M", "1.5M", "500k", "1e6", "4.1M", "16.1k", "1.", "0.001M", "2.50e1", "70e-1"];
        let meant = [7, 5_000_000, 5_000_000, 1_500_000, 500_000, 1_000_000, 4_100_000, 16_100, 1, 1_000, 25, 7];
        assert_eq!(written.map(|t| count(t).unwrap()), meant);
        // Every number of hundreds, in millions: none of them is exact as a float times a million.
        for hundreds in 1..50_000_u64 {
            assert_eq!(count(&format!("{}.{:04}M", hundreds / 10_000, hundreds % 10_000)), Ok(hundreds * 100));
        }
        assert_eq!(whole("0"), Some(0));
        assert_eq!(whole("18446744073709551615"), Some(u64::MAX));
        for bad in [
            "",
            "0",
            "-5",
            "1.5",
            "M",
            "five",
            "inf",
            "NaN",
            "1e300",
            "1.00001k",
            "e3",
            ".",
            "1e",
            "+1",
            "0.5",
            "1e99999999999999999999",
            "18446744073709551616",
            "1e-400",
        ] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }
}
