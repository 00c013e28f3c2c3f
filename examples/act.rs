//! Acts with a trained policy: `cargo run --example act runs/ppo-cartpole-1` prints the return of a greedy episode of CartPole.
#![allow(clippy::print_stdout)] // not a library

use playfield::classic::CartPole;
use playfield::core::{Env, ObsMut, ObsRef, Result};
use std::path::Path;

/// The return of a greedy episode by the policy of the run in the folder `run`.
pub fn episode(run: &Path, seed: u64) -> Result<f32> {
    let mut policy = playfield::load_policy(run)?;
    let (mut env, mut obs, mut total) = (CartPole::new(), [0.0; 4], 0.0);
    env.reset(Some(seed), ObsMut::F32(&mut obs))?;
    policy.begin_episode();
    for _ in 0..500 {
        let action = policy.act(ObsRef::F32(&obs))?;
        let step = env.step(action, ObsMut::F32(&mut obs))?;
        total += step.reward;
        if step.terminated {
            break;
        }
    }
    Ok(total)
}

fn main() -> Result<()> {
    let run = std::env::args().nth(1).unwrap_or_else(|| "runs/ppo-cartpole-1".into());
    println!("return {}", episode(run.as_ref(), 1)?);
    Ok(())
}
