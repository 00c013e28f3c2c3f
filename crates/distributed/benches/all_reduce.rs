//! Time and bytes of the all-reduce of a gradient, and of updates that contain it.
//!
//! Each process is a rank, by the variables of [`Config`](playfield_distributed::Config); without them the program starts two ranks on
//! 127.0.0.1. Rank 0 prints. `scripts/allreduce-cost` starts the ranks in network namespaces with limited bandwidth.
//!
//! ```text
//! cargo bench -p playfield-distributed -- [ELEMENTS [MILLISECONDS…]]
//! ```
//!
//! An update is a sleep of MILLISECONDS in place of its computation, so that many ranks fit on few cores, and the two exchanges of an
//! iteration of training: the decision to continue, and the all-reduce of the gradient, after the computation, or with the computation of the next update.
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
    let numbers: Vec<f64> = arguments.iter().map(|text| text.parse().map_err(Error::other)).collect::<Result<_>>()?;
    let (elements, updates) = match numbers.split_first() {
        Some((elements, updates)) => (*elements as usize, updates),
        None => (ELEMENTS, &[][..]),
    };
    let mut gradient: Vec<f32> = (0..elements).map(|i| (i as f32).sin()).collect();
    let print = |what: &str, (least, median, bytes): (f64, f64, f64)| {
        if group.rank() == 0 {
            println!("{what}: min {least:.3} ms, median {median:.3} ms, {bytes:.0} bytes sent");
        }
    };
    print("3 numbers", repeat(group, || group.all_reduce(&mut [0.0; 3], Reduce::Max))?);
    for (name, precision) in [("fp32", GradientPrecision::Fp32), ("bf16", GradientPrecision::Bf16)] {
        // A factor that keeps the sums of a gradient with itself finite.
        let mut sum = || {
            group.sum(&mut gradient, precision)?;
            gradient.iter_mut().for_each(|x| *x /= group.world_size() as f32);
            Ok(())
        };
        print(name, repeat(group, &mut sum)?);
        for milliseconds in updates {
            let update = || {
                thread::sleep(Duration::from_secs_f64(milliseconds / 1e3));
                group.all_reduce(&mut [0.0; 3], Reduce::Max)?;
                sum()
            };
            print(&format!("{name}, update of {milliseconds} ms"), repeat(group, update)?);
        }
        group.start_sum(gradient.clone(), precision)?;
        for milliseconds in updates {
            let update = || {
                thread::sleep(Duration::from_secs_f64(milliseconds / 1e3));
                group.all_reduce(&mut [0.0; 3], Reduce::Max)?;
                let mut sum = group.finish_sum()?;
                sum.iter_mut().for_each(|x| *x /= group.world_size() as f32);
                group.start_sum(sum, precision)
            };
            print(&format!("{name}, delayed update of {milliseconds} ms"), repeat(group, update)?);
        }
        group.finish_sum()?;
    }
    Ok(())
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
