//! Groups of two processes: the test program starts itself again as each rank.

use playfield_core::Group as _;
use playfield_core::group::{GradientPrecision, Reduce};
use playfield_distributed::Group;
use std::env;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tch::Tensor;

/// The variable that tells the test program to be a rank, and what to do.
const SCENARIO: &str = "PLAYFIELD_TEST_SCENARIO";

/// A port that no process listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts the test program as `rank`, with a timeout of 2 s.
fn start(scenario: &str, rank: usize, port: u16, variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "a_rank", "--nocapture", "--include-ignored"]);
    command.env(SCENARIO, scenario).env("RANK", rank.to_string()).env("WORLD_SIZE", "2");
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string()).env("PLAYFIELD_GROUP_TIMEOUT", "2");
    command.envs(variables.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a rank printed: a line of the test harness may precede it.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Both ranks, from start to end.
fn both(scenario: &str) -> [String; 2] {
    let port = free_port();
    let ranks = [0, 1].map(|rank| start(scenario, rank, port, &[]));
    ranks.map(|rank| said(&rank.wait_with_output().unwrap()))
}

/// Not a test: the ranks of the others. It prints `ok` or the error.
#[test]
#[ignore = "a process of the other tests"]
fn a_rank() {
    let Ok(scenario) = env::var(SCENARIO) else { return };
    let result = Group::from_env().and_then(|group| {
        let group = group.expect("two processes");
        match scenario.as_str() {
            "operations" => operations(&group),
            "device" => group.set_device(Some(group.rank())).map(|()| assert!(!group.sums_on_device())),
            "end" | "end before gather" | "end before the background" if group.rank() == 1 => std::process::abort(),
            "end before the background" => in_the_background(&group),
            "end in the background" | "stop in the background" => {
                in_the_background(&group).and_then(|()| match scenario.as_str() {
                    _ if group.rank() == 0 => in_the_background(&group),
                    "end in the background" => std::process::abort(),
                    _ => wait(),
                })
            }
            "end before gather" => group.gather(vec![1; 1000]).map(drop),
            "stop" if group.rank() == 1 => wait(),
            "leave" if group.rank() == 1 => {
                group.leave("the disk is full");
                Ok(())
            }
            _ => group.all_reduce(&mut [1.0], Reduce::Sum),
        }
    });
    let text = result.map_or_else(|error| error.to_string(), |()| "ok".into());
    writeln!(std::io::stdout(), "\nresult: {text}").unwrap();
}

/// Does nothing, until the process is killed.
fn wait() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn in_the_background(group: &Group) -> playfield_core::Result<()> {
    group.start_sum(vec![1.0; 1000], GradientPrecision::Fp32)?;
    group.finish_sum().map(drop)
}

fn operations(group: &Group) -> playfield_core::Result<()> {
    let rank = group.rank() as f64;
    let mut values = [1.0 + rank, 10.0 * rank, -rank];
    group.all_reduce(&mut values, Reduce::Sum)?;
    assert_eq!(values, [3.0, 10.0, -1.0]);
    let mut values = [rank, -rank];
    group.all_reduce(&mut values, Reduce::Max)?;
    assert_eq!(values, [1.0, 0.0]);
    // More than a packet, and a length that two ranks do not divide.
    let mut floats: Vec<f32> = (0..300_001).map(|i| i as f32 + rank as f32).collect();
    group.sum(&mut floats, GradientPrecision::Fp32)?;
    assert!(floats.iter().enumerate().all(|(i, x)| *x == 2.0 * i as f32 + 1.0));
    // 1 + 2⁻⁹ is 1 in bf16, and 1 + 2⁻⁷ is exact; 2 + 2⁻⁷ lies between 2 and the next number, 2 + 2⁻⁶, and is rounded to even.
    let (exact, rounded) = (1.0 + 2_f32.powi(-7), 1.0 + 2_f32.powi(-9));
    let mut floats = vec![rounded; 100_001];
    floats[1] = if rank == 0.0 { exact } else { 1.0 };
    floats[2] = 3e38 * (1.0 - 2.0 * rank as f32);
    floats[3] = if rank == 0.0 { f32::NAN } else { 1.0 };
    group.sum(&mut floats, GradientPrecision::Bf16)?;
    assert!(floats[..3] == [2.0, 2.0, 0.0] && floats[3].is_nan() && floats[4..].iter().all(|x| *x == 2.0));
    // In the background, in turn with other operations; the ranks do not start at the same time.
    for (round, precision) in
        [GradientPrecision::Fp32, GradientPrecision::Bf16, GradientPrecision::Fp32].into_iter().enumerate()
    {
        std::thread::sleep(Duration::from_millis(50) * group.rank() as u32);
        group.start_sum(vec![round as f32 + rank as f32; 300_001], precision)?;
        assert_eq!((group as &dyn playfield_core::Group).mean(rank)?, 0.5);
        group.barrier()?;
        let expected = 2.0 * round as f32 + 1.0;
        assert!(group.finish_sum()?.iter().all(|x| *x == expected));
    }
    // The same of a tensor.
    let tensor = |values: &[f32]| Tensor::from_slice(values) + rank;
    let mut sums = [tensor(&[1.0, 2.0, 3.0]), tensor(&[1.0, 2.0, 3.0])];
    group.sum_on_device(&mut sums[0], GradientPrecision::Fp32)?;
    group.sum_on_device(&mut sums[1], GradientPrecision::Bf16)?;
    assert!(sums.iter().all(|sum| *sum == Tensor::from_slice(&[3.0_f32, 5.0, 7.0])), "{sums:?}");
    let mut bytes = if rank == 0.0 { b"of rank 0".to_vec() } else { vec![7; 100] };
    group.broadcast(&mut bytes)?;
    assert_eq!(bytes, b"of rank 0");
    let mut nothing = vec![1; 3 * group.rank()];
    group.broadcast(&mut nothing)?;
    assert!(nothing.is_empty());
    let all = group.gather(vec![group.rank() as u8; 5 * group.rank()])?;
    assert_eq!(all, if rank == 0.0 { vec![vec![], vec![1; 5]] } else { vec![] });
    assert_eq!((group as &dyn playfield_core::Group).mean(rank)?, 0.5);
    group.barrier()
}

#[test]
fn operations_combine_the_values_of_both_ranks() {
    for said in both("operations") {
        assert!(said.contains("result: ok"), "{said}");
    }
}

/// Without NCCL gradients go through the memory of the host. With it, a machine without a GPU says so.
#[test]
fn nccl_is_used_where_it_is_built() {
    let expected = if cfg!(nccl) { "the name of the CUDA device failed: " } else { "result: ok" };
    if !tch::Cuda::is_available() {
        both("device").iter().for_each(|said| assert!(said.contains(expected), "{said}"));
    }
}

#[test]
fn the_error_names_the_rank_that_ended() {
    let background = "all-reduce in the background";
    for (scenario, operation) in [
        ("end", "all-reduce"),
        ("end before gather", "gather"),
        ("end before the background", background),
        ("end in the background", background),
    ] {
        let [said, _] = both(scenario);
        let expected = format!("result: rank 0: {operation} failed: rank 1 has ended or does not respond");
        assert!(said.contains(&expected), "{said}");
    }
}

/// Rank 1 is alive, and does nothing for longer than the timeout.
#[test]
fn the_error_names_the_rank_that_does_not_respond() {
    for (scenario, operation) in [("stop", "all-reduce"), ("stop in the background", "all-reduce in the background")] {
        let (port, started) = (free_port(), Instant::now());
        let [rank_0, mut rank_1] = [0, 1].map(|rank| start(scenario, rank, port, &[]));
        let said = said(&rank_0.wait_with_output().unwrap());
        let expected = format!("result: rank 0: {operation} failed: rank 1 has ended or does not respond");
        assert!(said.contains(&expected), "{said}");
        assert!(started.elapsed() >= Duration::from_secs(2), "the timeout");
        rank_1.kill().unwrap();
        rank_1.wait().unwrap();
    }
}

#[test]
fn the_error_contains_the_reason_of_the_rank_that_left() {
    let [said, _] = both("leave");
    assert!(said.contains("result: rank 0: all-reduce failed: rank 1 has failed: the disk is full"), "{said}");
}

#[test]
fn a_missing_rank_is_named() {
    let said = said(&start("operations", 0, free_port(), &[]).wait_with_output().unwrap());
    assert!(said.contains("result: rank 0: joining the group failed: rank 1 of 2 did not join within 2 s"), "{said}");
}

#[test]
fn a_missing_rank_0_is_an_error() {
    let port = free_port();
    let said = said(&start("operations", 1, port, &[]).wait_with_output().unwrap());
    // "cannot connect to", or "no answer from" where libtorch's own timeout comes too late.
    let expected =
        ["rank 1: joining the group failed: ", &format!(" rank 0 at 127.0.0.1:{port} (MASTER_ADDR, MASTER_PORT)")];
    assert!(expected.iter().all(|part| said.contains(part)), "{said}");
}

#[test]
fn a_port_in_use_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = said(&start("operations", 0, port, &[]).wait_with_output().unwrap());
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}: Address already in use")), "{said}");
}

/// A program listens at the port and never answers, as a job that is stopped.
#[test]
fn a_server_that_never_answers_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = said(&start("operations", 1, port, &[]).wait_with_output().unwrap());
    assert!(said.contains("result: rank 1: joining the group failed") && said.contains(&port.to_string()), "{said}");
}

/// An address of documentation (RFC 5737), which no machine has, and a name that no machine can have (RFC 6761).
#[test]
fn a_wrong_address_is_an_error() {
    for (address, expected) in [
        ("192.0.2.1", "cannot listen on 192.0.2.1"),
        ("no-host.invalid", "MASTER_ADDR = 'no-host.invalid' has no address"),
    ] {
        let rank = start("operations", 0, free_port(), &[("MASTER_ADDR", address)]);
        let said = said(&rank.wait_with_output().unwrap());
        assert!(said.contains(expected), "{said}");
    }
}

/// Two jobs with the same port: the second rank 1 finds the first job's store.
#[test]
fn a_rank_that_joins_twice_is_an_error() {
    let port = free_port();
    let ranks = [0, 1, 1].map(|rank| start("stop", rank, port, &[]));
    let mut ranks = Vec::from(ranks);
    let (started, mut found) = (Instant::now(), None);
    while found.is_none() && started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
        found = (1..3).find(|i| ranks[*i].try_wait().unwrap().is_some());
    }
    let second = ranks.remove(found.expect("one of them ends"));
    let said = said(&second.wait_with_output().unwrap());
    assert!(said.contains("another process has joined as rank 1"), "{said}");
    for mut rank in ranks {
        let _ = rank.kill();
        rank.wait().unwrap();
    }
}

#[test]
fn different_world_sizes_are_an_error() {
    let port = free_port();
    let ranks = [start("operations", 0, port, &[]), start("operations", 1, port, &[("WORLD_SIZE", "3")])];
    let said = ranks.map(|rank| said(&rank.wait_with_output().unwrap()));
    assert!(said[0].contains("rank 1 has WORLD_SIZE = 3, and this one 2"), "{}", said[0]);
}

/// The ports at which the processes of a group listen, from the kernel's list of sockets: all are on 127.0.0.1.
#[test]
#[cfg(target_os = "linux")]
fn nothing_listens_on_another_address() {
    let port = free_port();
    let mut ranks = [0, 1].map(|rank| start("stop", rank, port, &[]));
    let listening = |pid: u32| -> Vec<String> {
        let sockets = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let sockets: Vec<String> = sockets
            .filter_map(|fd| {
                std::fs::read_link(fd.path())
                    .ok()?
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')
                    .map(String::from)
            })
            .collect();
        let tables = ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap());
        let rows = tables.iter().flat_map(|table| table.lines().skip(1));
        let rows = rows.map(|row| row.split_whitespace().collect::<Vec<_>>());
        // Column 3 is the state (0A: listening), column 9 the inode, column 1 the address in hexadecimal.
        rows.filter(|row| row[3] == "0A" && sockets.iter().any(|s| s == row[9])).map(|row| row[1].to_string()).collect()
    };
    let (started, mut found) = (Instant::now(), [vec![], vec![]]);
    // The store and a connection of rank 0, a connection of rank 1.
    while (found[0].len() < 2 || found[1].is_empty()) && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
        found = [0, 1].map(|rank| listening(ranks[rank].id()));
    }
    assert!(found[0].len() >= 2 && !found[1].is_empty(), "{found:?}");
    let loopback = format!("{:08X}:", u32::from_ne_bytes([127, 0, 0, 1]));
    assert!(found.iter().flatten().all(|address| address.starts_with(&loopback)), "{found:?}");
    for rank in &mut ranks {
        rank.kill().unwrap();
        rank.wait().unwrap();
    }
}
