//! Command-line arguments.

use crate::commands::SortKey;
use crate::paths;
use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use playfield_core::Mode;
use playfield_kernels::simd::SimdLevel;
use std::path::PathBuf;

/// Reinforcement learning: train Atari-style agents, fast.
#[derive(Debug, Parser)]
#[command(
    name = "playfield",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Examples:
  playfield train configs/ppo/cartpole.toml
  playfield eval runs/ppo-cartpole-1 --episodes 30 --deterministic
  playfield watch runs/ppo-cartpole-1

Exit codes: 0 success; 2 error; 3 another process of the run failed; 130, 143 or 129 ended by Ctrl-C, SIGTERM or SIGHUP"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Print details of errors (Python tracebacks, for example)
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Execute the Python environment of a run that you have not trained in on this machine
    #[arg(long, global = true)]
    pub trust: bool,
    /// Use no instructions beyond this level, neither in own kernels nor in libtorch, as on an older processor
    #[arg(long, global = true, value_name = "LEVEL", env = "PLAYFIELD_CPU", hide_env_values = true)]
    #[arg(value_parser = cpu_level())]
    pub cpu: Option<SimdLevel>,
}

/// `baseline`, `avx2` and so on.
fn cpu_level() -> impl TypedValueParser<Value = SimdLevel> {
    PossibleValuesParser::new(SimdLevel::ALL.map(SimdLevel::name))
        .map(|name| SimdLevel::ALL.into_iter().find(|level| level.name() == name).expect("one of these names"))
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train an agent, or resume a run
    Train(Train),
    /// Train one agent in several processes on this machine
    Launch(Launch),
    /// Evaluate a trained agent and report episode returns
    Eval(Eval),
    /// Show an episode of a trained agent in the terminal, or record it as MP4 or GIF
    Watch(Watch),
    /// Show the metrics of runs in the browser: starts TensorBoard and prints its address
    Board(Board),
    /// List all environments, or those whose id contains FILTER
    Envs {
        /// Part of an id
        filter: Option<String>,
    },
    /// Check whether an environment keeps the contract: spaces, seeds, ends of episodes, rewards, speed
    Check(Check),
    /// Check the installation: libtorch, devices, Python, Atari
    Doctor {
        /// Measure the kernels of networks on this processor, instead
        #[arg(long)]
        bench: bool,
    },
    /// Distill a trained agent into a smaller network
    Distill(Distill),
    /// Plot a t-SNE embedding of the last hidden layer of a trained agent
    Embed(Embed),
    /// Export a trained policy for other programs: ONNX, TorchScript or safetensors, with a model card
    Export(Export),
    /// Search hyperparameters: random search with early stopping of the worst trials (successive halving)
    #[command(after_help = crate::commands::advice())]
    Sweep(Sweep),
    /// List the tricks of supervised learning, describe one, or measure its effect
    Trick(Trick),
    /// Print the script that completes commands and options in a shell
    #[command(after_help = "Example, for bash:
  playfield completions bash > ~/.local/share/bash-completion/completions/playfield")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands into a folder
    #[command(after_help = "Examples:
  playfield man | man -l -
  playfield man --out ~/.local/share/man/man1")]
    Man {
        /// Folder of the pages of all commands
        #[arg(value_parser = path(), long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// List runs: what they trained, how far they are, and their score
    Runs(Runs),
    /// Plot learning curves, as SVG or PNG
    Plot(Plot),
    /// Compare runs in a report: curves, results, settings and videos in one HTML file
    Report(Report),
}

#[derive(Args, Debug)]
#[command(
    after_help = "The score is the mean return of the best evaluation or, without evaluations, of the last 100 training episodes.

Examples:
  playfield runs
  playfield runs sweeps/ppo-pong-1 --sort score"
)]
pub struct Runs {
    /// The folder to search, with its subfolders
    #[arg(value_name = "DIR", default_value = "runs")]
    pub folder: PathBuf,
    /// The column to sort by; steps, score and size in descending order
    #[arg(long, value_name = "KEY", default_value = "name")]
    pub sort: SortKey,
    /// Print only one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The runs to compare.
#[derive(Args, Debug)]
pub struct Selection {
    /// Run folders, or folders of several seeds. Runs that differ only in their seed are one group; NAME=RUN,RUN defines a group
    #[arg(value_name = "[NAME=]RUN[,RUN…]", required = true)]
    pub runs: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  playfield plot runs/ppo-pong-*
  playfield plot fast=runs/a-1,runs/a-2 slow=runs/b-1,runs/b-2 --minutes --level 18 --out speed.png
  playfield plot runs/dqn-pong-1 --column train/q_mean")]
pub struct Plot {
    #[command(flatten)]
    pub selection: Selection,
    /// Output file; its name ends in .svg or .png
    #[arg(value_parser = path(), long, value_name = "FILE", default_value = "plot.svg")]
    pub out: PathBuf,
    /// Column of progress.csv (docs/metrics.md lists them) [default: the return of training episodes]
    #[arg(long, value_name = "TAG")]
    pub column: Option<String>,
    /// Plot over minutes of training instead of agent steps
    #[arg(long)]
    pub minutes: bool,
    /// Mark a value with a dashed line; repeatable
    #[arg(long, value_name = "Y", allow_negative_numbers = true)]
    pub level: Vec<f64>,
    /// Smoothing: number of episodes, or of values of the column, in the trailing mean [default: 100 episodes or 1 value]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub window: Option<usize>,
}

#[derive(Args, Debug)]
#[command(after_help = "The newest GIF of each run is part of the report, up to 4 MB each and 16 MB together.

Examples:
  playfield report runs/ppo-pong-* runs/dqn-pong-*
  playfield report small=runs/a-1,runs/a-2 large=runs/b-1,runs/b-2 --level 18 --out sizes.html")]
pub struct Report {
    #[command(flatten)]
    pub selection: Selection,
    /// Output file
    #[arg(value_parser = path(), long, value_name = "FILE", default_value = "report.html")]
    pub out: PathBuf,
    /// Return to mark and to count the steps to; repeatable [default: 90 % of the way to the best return]
    #[arg(long, value_name = "Y", allow_negative_numbers = true)]
    pub level: Vec<f64>,
    /// Smoothing: number of episodes in the trailing mean
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub window: usize,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  playfield board                                     # all runs
  playfield board runs/ppo-pong-1 runs/dqn-pong-1     # two runs")]
pub struct Board {
    /// Folders of runs, or folders that contain them [default: runs]
    #[arg(value_parser = path(), value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Port of the address [default: 6006, or the next that is free]
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  playfield distill runs/ppo-pong-1 --torso small
  playfield eval runs/ppo-pong-1-small-1 --deterministic")]
pub struct Distill {
    /// The folder of the teacher's run
    #[arg(value_parser = path())]
    pub run: PathBuf,
    /// The torso of the student: small (of an mlp: half the width of each layer), nips, nature, impala, mlp
    #[arg(long, value_name = "TORSO", default_value = "small")]
    pub torso: String,
    /// Agent steps to collect with the teacher
    #[arg(long, value_name = "N", default_value = "200k", value_parser = count)]
    pub steps: u64,
    /// Temperature of the teacher's softmax [default: 1 for policy logits, 0.01 for action values]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Initial learning rate of the student, annealed linearly to 0
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    pub learning_rate: f64,
    /// Greedy evaluation episodes of teacher and student
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub episodes: u32,
    /// Random seed of the environments, the actions and the initial weights of the student
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Use the best checkpoint of the teacher instead of the latest
    #[arg(long)]
    pub best: bool,
    /// The folder of the student's run [default: the first unused <run>-<torso>-<n>]
    #[arg(value_parser = path(), long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Print only one JSON object
    #[arg(long)]
    pub json: bool,
}

/// How to evaluate a trained agent.
#[derive(Args, Debug)]
pub struct Playing {
    /// Random seed of the environments, the sampled actions and all other random numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Select the most probable or most valuable action instead of sampling
    #[arg(long)]
    pub deterministic: bool,
    /// Use the best checkpoint instead of the latest
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
    /// The folder of the run
    #[arg(value_parser = path())]
    pub run: PathBuf,
    /// Perplexity of t-SNE, roughly the number of neighbors of a point: 5 to 50, larger for more points
    #[arg(long, value_name = "P", default_value_t = 30.0)]
    pub perplexity: f64,
    /// Number of observations to embed
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=5000))]
    pub points: usize,
    /// Agent steps between two of these observations
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub every: usize,
    #[command(flatten)]
    pub playing: Playing,
    /// Output file [default: embed-<step>.png in the folder of the run]
    #[arg(value_parser = path(), long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Sweep {
    /// Configuration file (TOML)
    #[arg(value_parser = path(), required_unless_present = "resume")]
    pub config: Option<PathBuf>,
    /// Resume the sweep in this folder
    #[arg(value_parser = path(), long, value_name = "DIR", conflicts_with_all = ["config", "param", "env", "steps", "set", "dir", "seed", "keep"])]
    pub resume: Option<PathBuf>,
    /// Setting to search, sampled uniformly, or with `:log` on a logarithmic scale; repeatable
    #[arg(long, value_name = "KEY=LOW..HIGH[:log]", required_unless_present = "resume")]
    pub param: Vec<String>,
    /// Number of trials [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub trials: Option<usize>,
    /// Number of concurrent trials; they divide the cores equally [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub jobs: Option<usize>,
    /// At 1/8, 1/4 and 1/2 of the training steps, stop trials that are not among the best 1/N so far
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=100))]
    pub keep: usize,
    /// Random seed of the sampled settings (the trials use the seed of the configuration)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Override the environment of the configuration: an id, or path/to/file.py:Class
    #[arg(long, value_name = "ID")]
    pub env: Option<String>,
    /// Agent steps of each trial
    #[arg(long, value_name = "N", value_parser = count)]
    pub steps: Option<u64>,
    /// Override a setting in all trials; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The folder of the sweep [default: the first unused sweeps/<algorithm>-<environment>-<n>]
    #[arg(value_parser = path(), long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  playfield export runs/ppo-pong-1
  playfield export runs/ppo-pong-1 --best --out pong.onnx
  playfield export runs/ppo-pong-1 --format safetensors")]
pub struct Export {
    /// The folder of the run
    #[arg(value_parser = path())]
    pub run: PathBuf,
    /// File format
    #[arg(long, value_enum, default_value_t = ExportFormat::Onnx)]
    pub format: ExportFormat,
    /// Use the best checkpoint instead of the latest
    #[arg(long)]
    pub best: bool,
    /// Output file [default: policy-<step>.<format> in the folder of the run]
    #[arg(value_parser = path(), long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum ExportFormat {
    /// For onnxruntime and most other inference engines
    Onnx,
    /// For PyTorch and libtorch
    #[value(name = "torchscript")]
    TorchScript,
    /// Weights with PyTorch's names, and code for them
    #[value(name = "safetensors")]
    SafeTensors,
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
    /// Describe a trick: its effect, its source, the tests that verify it
    Show {
        /// The trick's name
        name: String,
    },
    /// Train with and without a trick over several seeds and compare the results
    #[command(after_help = "Examples:
  playfield trick run attention
  playfield trick run all --seeds 5      # the page docs/tricks.md: a quarter of an hour to an hour on 2 cores")]
    Run {
        /// The trick's name, or `all` for every trick and a page of all results
        name: String,
        /// Number of seeds; with fewer than 4 no difference can be significant
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
        seeds: u64,
        /// Print only JSON
        #[arg(long)]
        json: bool,
        /// Output folder for plots and values [default: tricks; for `all`, which also writes tricks.md: docs]
        #[arg(value_parser = path(), long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  playfield train configs/ppo/pong-fast.toml
  playfield train configs/paac/pong.toml --env ALE/Breakout-v5 --seed 3 --set learning_rate=1e-3
  playfield train configs/ppo/cartpole.toml --seeds 5
  playfield train --resume runs/ppo-pong-1")]
pub struct Train {
    /// Configuration file (TOML)
    #[arg(value_parser = path(), required_unless_present = "resume")]
    pub config: Option<PathBuf>,
    /// Resume the run in this folder with its saved settings; of a folder of --seeds, every run that is not complete
    #[arg(value_parser = path(), long, value_name = "RUN", conflicts_with_all = ["config", "env", "seed", "seeds", "run_dir", "set"])]
    pub resume: Option<PathBuf>,
    /// Override the environment of the configuration: an id, or path/to/file.py:Class
    #[arg(long, value_name = "ID")]
    pub env: Option<String>,
    /// Random seed of the run [default: that of the configuration, or 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Train N runs, with consecutive seeds from --seed on, and report their results together
    #[arg(long, value_name = "N", conflicts_with = "gif", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: Option<u64>,
    /// With --seeds: number of concurrent runs; they divide the cores equally [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub jobs: Option<usize>,
    /// Total number of agent steps (accepts 10_000, 500k and 5M)
    #[arg(long, value_name = "N", value_parser = count)]
    pub steps: Option<u64>,
    /// The folder of the run [default: the first unused runs/<algorithm>-<environment>-<n>; with --seeds runs/…-seeds-<n>]
    #[arg(value_parser = path(), long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Override a setting by its dotted key, or by the last part if that is unambiguous; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Device of the network: cpu, cuda, cuda:N or auto
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Record an episode of the trained agent at the end, as `playfield watch --video` does
    #[arg(long)]
    pub gif: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Each process has a part of the environments, and all average their gradients (docs/scale-out.md).

Example:
  playfield launch --processes 4 --max-restarts 2 -- train configs/ppo/pong-fast.toml"
)]
pub struct Launch {
    /// Number of processes; they divide the cores equally
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub processes: usize,
    /// Restarts after a failure, each from the last checkpoint
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_restarts: u32,
    /// Seconds that a process waits for the others [default: 600]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<f64>,
    /// The command of each process: train and its arguments
    #[arg(last = true, required = true, value_name = "train …")]
    pub command: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  playfield check envs/corridor.py:Corridor
  playfield check CartPole-v1 --steps 10k
  playfield check corridor.py:Corridor --set env.kwargs.length=20 --set env.max_episode_steps=100

The exit code is 2 if there is an error, else 0.")]
pub struct Check {
    /// The environment: an id that `playfield envs` lists, path/to/file.py:Class, or module:Id
    pub env: String,
    /// Override a setting of [env]; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Number of random actions
    #[arg(long, value_name = "N", default_value = "2000", value_parser = count)]
    pub steps: u64,
    /// Print only one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  playfield watch runs/ppo-pong-1                              # in the terminal
  playfield watch runs/ppo-pong-1 --video pong.mp4 --overlay")]
pub struct Watch {
    /// The folder of the run
    #[arg(value_parser = path())]
    pub run: PathBuf,
    /// Record the episode as .mp4 or .gif instead of showing it [default without a terminal: videos/<step>.gif in the folder of
    /// the run]
    #[arg(value_parser = path(), long, alias = "gif", value_name = "FILE")]
    pub video: Option<PathBuf>,
    /// Show the value of each observation and the probability (or value) of each action
    #[arg(long)]
    pub overlay: bool,
    /// Maximum length, in seconds
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    #[command(flatten)]
    pub playing: Playing,
    /// Device of the network: cpu, cuda, cuda:N or auto [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

#[derive(Args, Debug)]
pub struct Eval {
    /// The folder of the run
    #[arg(value_parser = path())]
    pub run: PathBuf,
    /// Number of episodes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub episodes: u32,
    #[command(flatten)]
    pub playing: Playing,
    /// Print only one JSON object
    #[arg(long)]
    pub json: bool,
    /// Device of the network: cpu, cuda, cuda:N or auto [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

/// Parses a path and makes it absolute.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(paths::absolute)
}

/// Parses a number of steps: `5000000`, `5_000_000`, `5M`, `4.1M`, `500k`.
pub fn count(text: &str) -> Result<u64, String> {
    let expected = || "write a whole number of steps from 1 on, such as 5000000, 5_000_000 or 5M".into();
    whole(text).filter(|n| (1..=1_000_000_000_000_000).contains(n)).ok_or_else(expected)
}

/// Parses a nonnegative whole number: `1_000`, `1e6`, `1.`, `4.1M`, `16.1k`. Exact, without floating-point arithmetic.
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
    fn step_counts_are_parsed() {
        let written =
            ["7", "5_000_000", "5M", "1.5M", "500k", "1e6", "4.1M", "16.1k", "1.", "0.001M", "2.50e1", "70e-1"];
        let expected = [7, 5_000_000, 5_000_000, 1_500_000, 500_000, 1_000_000, 4_100_000, 16_100, 1, 1_000, 25, 7];
        assert_eq!(written.map(|t| count(t).unwrap()), expected);
        // Multiples of 100, written in millions: multiplying a float by a million would be inexact.
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
