//! Time and bytes of the all-reduce of a gradient, and of updates that contain it.
//!
//! Each process is a rank, by the variables of [`Config`](playfield_distributed::Config); without them the program starts two ranks on
//! 127.0.0.1. Rank 0 prints. `scripts/allreduce-cost` starts the ranks in network namespaces with limited bandwidth.
//!
//! ```text
//! cargo bench -p playfield-distributed -- [ELEMENTS [BEFORE+AFTER[:N]…]]
//! ```
//!
//! An update is the decision to continue (an exchange of three numbers), two sleeps of BEFORE and AFTER milliseconds in place of its
//! computation, so that many ranks fit on few cores, and an all-reduce of the gradient: after the computation, or, where BEFORE is not 0,
//! overlapping with the next decision and the next BEFORE. With `:N` it is one of the first N elements only, as of a gradient
//! that is approximated, after the computation.
#![allow(clippy::print_stdout, missing_docs)]

use playfield_core::group::{GradientPrecision, Group as _, Reduce};
use playfield_core::{Error, Result};
use playfield_distributed::Group;
use std::env;
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The parameters of the nature network for Pong.
const ELEMENTS: usize = 1_687_719;

/// Repetitions of each measurement, after one that is not counted.
const REPETITIONS: usize = 15;

fn main() -> Result<()> {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // As in training.
    tch::set_num_threads(1);
    match Group::from_env()? {
        Some(group) => measure(&group, &arguments),
        None => start_two_ranks(&arguments),
    }
}

fn start_two_ranks(arguments: &[String]) -> Result<()> {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(Error::other)?.port();
    let rank = |rank: usize| {
        let mut command = Command::new(env::current_exe()?);
        command.args(arguments).env("RANK", rank.to_string()).env("WORLD_SIZE", "2");
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string()).spawn()
    };
    for rank in [rank(0), rank(1)] {
        let status = rank.and_then(|mut child| child.wait()).map_err(Error::other)?;
        if !status.success() {
            return Err(Error::other(format!("a rank has failed: {status}")));
        }
    }
    Ok(())
}

fn measure(group: &Group, arguments: &[String]) -> Result<()> {
    let (elements, updates) = match arguments.split_first() {
        Some((elements, updates)) => (elements.parse().map_err(Error::other)?, updates),
        None => (ELEMENTS, &[][..]),
    };
    let updates: Vec<_> = updates.iter().map(|text| Ok((text, parse_update(text)?))).collect::<Result<_>>()?;
    let gradient: Vec<f32> = (0..elements).map(|i| (i as f32).sin()).collect();
    let print = |what: &str, (least, median, bytes): (f64, f64, f64)| {
        if group.rank() == 0 {
            println!("{what}: min {least:.3} ms, median {median:.3} ms, {bytes:.0} bytes sent");
        }
    };
    print("3 numbers", repeat(group, || group.all_reduce(&mut [0.0; 3], Reduce::Max))?);
    for (name, precision) in [("fp32", GradientPrecision::Fp32), ("bf16", GradientPrecision::Bf16)] {
        // A factor that keeps the sums of values with themselves finite.
        let mean = |values: &mut [f32]| values.iter_mut().for_each(|x| *x /= group.world_size() as f32);
        let sum = |values: &mut [f32]| {
            group.sum(values, precision)?;
            mean(values);
            Ok(())
        };
        let mut values = gradient.clone();
        print(name, repeat(group, || sum(&mut values))?);
        for (text, Update { before, after, elements }) in &updates {
            let mut values = gradient.clone();
            let update = || {
                group.all_reduce(&mut [0.0; 3], Reduce::Max)?;
                thread::sleep(*before + *after);
                sum(&mut values[..elements.unwrap_or(gradient.len())])
            };
            print(&format!("{name}, update of {text} ms"), repeat(group, update)?);
            if before.is_zero() || elements.is_some() {
                continue;
            }
            group.start_sum(values, precision)?;
            let overlapped = || {
                group.all_reduce(&mut [0.0; 3], Reduce::Max)?;
                thread::sleep(*before);
                let mut values = group.finish_sum()?;
                mean(&mut values);
                thread::sleep(*after);
                group.start_sum(values, precision)
            };
            print(&format!("{name}, overlapped update of {text} ms"), repeat(group, overlapped)?);
            group.finish_sum()?;
        }
    }
    Ok(())
}

/// The computation of an update, before and after the exchange that may overlap with it, and the elements of the exchange, where it is not one
/// of the whole gradient.
struct Update {
    before: Duration,
    after: Duration,
    elements: Option<usize>,
}

/// `BEFORE+AFTER` in milliseconds, or `BEFORE+AFTER:N`.
fn parse_update(text: &str) -> Result<Update> {
    let parse = |text: &str| {
        let milliseconds: f64 = text.parse().map_err(Error::other)?;
        Duration::try_from_secs_f64(milliseconds / 1e3).map_err(Error::other)
    };
    let (times, elements) = text.split_once(':').map_or((text, None), |(times, n)| (times, Some(n)));
    let (before, after) =
        times.split_once('+').ok_or_else(|| Error::other(format!("`{text}` is not BEFORE+AFTER or BEFORE+AFTER:N")))?;
    let elements = elements.map(|n| n.parse().map_err(Error::other)).transpose()?;
    Ok(Update { before: parse(before)?, after: parse(after)?, elements })
}

/// The shortest and the median time of `operation` in milliseconds, and the bytes that this rank's network namespace sends for one.
fn repeat(group: &Group, mut operation: impl FnMut() -> Result<()>) -> Result<(f64, f64, f64)> {
    operation()?;
    group.barrier()?;
    let (before, mut times) = (bytes_sent(), Vec::new());
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        operation()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let bytes = (bytes_sent() - before) / REPETITIONS as f64;
    group.barrier()?;
    times.sort_by(f64::total_cmp);
    Ok((times[0], times[REPETITIONS / 2], bytes))
}

/// The bytes that the network interfaces of this process's namespace have sent, headers included; 0 where Linux does not say.
fn bytes_sent() -> f64 {
    let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let sent = |line: &str| line.split_once(':')?.1.split_whitespace().nth(8)?.parse::<f64>().ok();
    table.lines().filter_map(sent).sum()
}
