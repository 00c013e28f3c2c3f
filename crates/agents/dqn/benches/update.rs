//! Times one update of DQN on Pong-shaped input, by batch size and number of threads, and the selection of one action. `cargo bench -p playfield-dqn [-- fp32]`.
#![allow(clippy::print_stdout, missing_docs)]

use playfield_core::rng::stream;
use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, Mode, Obs, Policy};
use playfield_dqn::Config;
use playfield_dqn::actor::Actor;
use playfield_dqn::learner::Learner;
use playfield_nn::NetworkConfig;
use playfield_nn::config::{Precision, TorsoKind};
use playfield_replay::Transitions;
use std::time::{Duration, Instant};

fn main() {
    // As in the command line: see `cli/process`.
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
    tch::set_num_threads(1);
    let precision = if std::env::args().any(|a| a == "fp32") { Precision::Fp32 } else { Precision::Auto };
    let actions = ActionSpace::Discrete { n: 6 };
    let spec = |side: usize| EnvSpec::new("bench", &[side, side], Dtype::U8, actions.clone()).with_frame_stack(4);
    for (torso, side) in [(TorsoKind::Nature, 84), (TorsoKind::Nips, 84), (TorsoKind::Nips, 42)] {
        let (spec, network) = (spec(side), NetworkConfig { precision, torso, ..NetworkConfig::default() });
        println!("{torso:?}, {side} × {side}");
        for (batch_size, threads) in [(32, 1), (32, 2), (24, 1), (16, 1), (8, 1)] {
            let config = Config {
                batch_size,
                num_threads: threads,
                overlap: false,
                network: network.clone(),
                ..Config::default()
            };
            let mut learner = Learner::new(config, &spec, 1).expect("a network for frames");
            let some = Transitions::new(&spec, batch_size);
            let update = median(100, || {
                let losses = learner.update(1e-4, |rows, batch, _| {
                    for (part, all) in [(&mut batch.s_tm1, &some.s_tm1), (&mut batch.s_t, &some.s_t)] {
                        part.as_mut().copy_from(all.slice(rows.start * spec.obs_len(), rows.len() * spec.obs_len()));
                    }
                });
                losses.unwrap();
            });
            println!("  update of {batch_size:2}, {threads} threads   median {:7.3} ms", update.as_secs_f64() * 1e3);
        }
        let config = Config { network, ..Config::default() };
        let learner = Learner::new(config.clone(), &spec, 1).expect("a network for frames");
        let mut actor = Actor::new(&config, learner.online().deep_clone(), stream(1, "actor"));
        let (obs, mut chosen) = (Obs::zeros(Dtype::U8, spec.obs_len()), Actions::zeros(&actions, 1));
        let act = median(500, || actor.act(&obs, &[], Mode::Greedy, &mut chosen).expect("a forward pass"));
        println!("  act, batch of 1             median {:7.3} ms", act.as_secs_f64() * 1e3);
    }
}

fn median(runs: usize, mut what: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            what();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[runs / 2]
}
