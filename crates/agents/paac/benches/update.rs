//! Times the two halves of PAAC's arithmetic on Pong-shaped input: acting for 32 environments, and one update on 160
//! transitions. `cargo bench -p playfield-paac [-- fp32]`
#![allow(clippy::print_stdout, missing_docs)]

use playfield_core::{ActionSpace, Actions, Dtype, EnvSpec, FrameStack, Obs, Rollout, RolloutPolicy, StepBatch};
use playfield_nn::NetworkConfig;
use playfield_nn::config::Precision;
use playfield_paac::learner::Learner;
use std::time::Instant;

fn main() {
    // As the command line does: see `cli/process`.
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
    tch::set_num_threads(1);
    let fp32 = std::env::args().any(|a| a == "fp32");
    let precision = if fp32 { Precision::Fp32 } else { Precision::Auto };
    let network = NetworkConfig { precision, ..NetworkConfig::default() };
    let num_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (n, config) = (32, playfield_paac::Config { network, num_threads, ..playfield_paac::Config::default() });
    let actions = ActionSpace::Discrete { n: 6 };
    let spec = EnvSpec::new("bench", &[84, 84], Dtype::U8, actions).with_frame_stack(4);
    let mut learner = Learner::new(&config, &spec, n, 1).expect("a network for frames");
    let (mut batch, mut history) = (StepBatch::new(&spec, n), FrameStack::new(&spec, n));
    let (mut actions, mut rollout) =
        (Actions::zeros(&spec.actions, n), Rollout::new(&spec, n, config.rollout_steps, config.gamma));
    if let Obs::U8(frames) = &mut batch.obs {
        frames.iter_mut().enumerate().for_each(|(i, p)| *p = (i * 7 % 251) as u8);
    }
    history.reset(&batch);
    let (mut act, mut learn, mut shift) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..40 {
        rollout.clear();
        for t in 0..config.rollout_steps {
            rollout.store_observations(0, &history);
            let start = Instant::now();
            learner.actor.store_observations(t, 0, &history, &batch.obs);
            let decisions = rollout.decisions(0, n);
            learner.actor.sample(history.observations(), &[], &mut actions, decisions).expect("a forward pass");
            act.push(start.elapsed());
            let start = Instant::now();
            history.push(&batch);
            shift.push(start.elapsed());
            rollout.record(0, &actions, &batch, |_| 0.0);
        }
        rollout.store_observations(0, &history);
        learner.actor.store_observations(config.rollout_steps, 0, &history, &batch.obs);
        let start = Instant::now();
        learner.update(&rollout, 0).expect("a finite gradient");
        learn.push(start.elapsed());
    }
    for (name, times) in
        [("act, 32 observations", &mut act), ("stack 32 frames", &mut shift), ("update, 160 transitions", &mut learn)]
    {
        times.sort();
        println!("{name:24} median {:7.3} ms", times[times.len() / 2].as_secs_f64() * 1e3);
    }
}
