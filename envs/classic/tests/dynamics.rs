//! The dynamics of the classic control problems equal Gymnasium's. `golden/generate.py` wrote the values.

use playfield_classic::{Acrobot, CartPole, MountainCar, Pendulum};
use playfield_core::{Action, Env, Obs, ObsMut};
use serde_json::Value;
use std::f64::consts::PI;

const GOLDEN: &str = include_str!("golden/dynamics.json");

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Whether two values differ by no more than the rounding of sines and cosines in two mathematical libraries.
fn close(ours: f64, theirs: f64, tolerance: f64) -> bool {
    (ours - theirs).abs() <= tolerance * theirs.abs().max(1.0)
}

/// Sets the environment to the state of each golden row, steps, and compares the results.
fn compare(id: &str, env: &mut dyn Env) {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let rows = golden[id].as_array().unwrap();
    assert!(rows.len() >= 50, "{id}: too few rows");
    let mut obs = Obs::zeros(env.spec().dtype, env.spec().obs_len());
    env.reset(Some(0), obs.as_mut()).unwrap();
    for (t, row) in rows.iter().enumerate() {
        let mut state = env.save_state().unwrap();
        state["state"] = row[0].clone();
        env.load_state(&state).unwrap();
        let step = match row[1].as_u64() {
            Some(action) => env.step(Action::Discrete(action as usize), obs.as_mut()),
            // Gymnasium clips the torques of some rows.
            None => env.step(Action::Continuous(&[row[1].as_f64().unwrap().clamp(-2.0, 2.0) as f32]), obs.as_mut()),
        };
        let step = step.unwrap();
        let after = floats(&env.save_state().unwrap()["state"]);
        for (ours, theirs) in after.iter().zip(floats(&row[4])) {
            assert!(close(*ours, theirs, 1e-13), "{id}, row {t}: {after:?} is not {}", row[4]);
        }
        let ObsMut::F32(observed) = obs.as_mut() else { panic!("{id} observes vectors") };
        assert_eq!(observed.len(), row[5].as_array().unwrap().len());
        for (ours, theirs) in observed.iter().zip(floats(&row[5])) {
            assert!(close(f64::from(*ours), theirs, 1e-7), "{id}, row {t}: {observed:?} is not {}", row[5]);
        }
        assert!(close(f64::from(step.reward), row[2].as_f64().unwrap(), 1e-7), "{id}, row {t}: {step:?}");
        assert_eq!((step.terminated, step.truncated), (row[3].as_bool().unwrap(), false), "{id}, row {t}");
    }
}

#[test]
fn cart_pole() {
    compare("CartPole", &mut CartPole::new());
}

#[test]
fn mountain_car() {
    compare("MountainCar", &mut MountainCar::new(Default::default()));
}

#[test]
fn acrobot() {
    compare("Acrobot", &mut Acrobot::new());
}

#[test]
fn pendulum() {
    compare("Pendulum", &mut Pendulum::new(Default::default()));
}

#[test]
fn initial_states_have_gymnasium_s_distributions() {
    let bounds: [(&mut dyn Env, &[f64]); 4] = [
        (&mut CartPole::new(), &[-0.05, 0.05, -0.05, 0.05, -0.05, 0.05, -0.05, 0.05]),
        (&mut MountainCar::new(Default::default()), &[-0.6, -0.4, 0.0, 0.0]),
        (&mut Acrobot::new(), &[-0.1, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0.1]),
        (&mut Pendulum::new(Default::default()), &[-PI, PI, -1.0, 1.0]),
    ];
    for (env, bounds) in bounds {
        let mut obs = Obs::zeros(env.spec().dtype, env.spec().obs_len());
        let mut observed = vec![(f64::MAX, f64::MIN); bounds.len() / 2];
        for seed in 0..500 {
            env.reset(Some(seed), obs.as_mut()).unwrap();
            let state = floats(&env.save_state().unwrap()["state"]);
            for ((low, high), x) in observed.iter_mut().zip(state) {
                (*low, *high) = (low.min(x), high.max(x));
            }
        }
        for (&(low, high), bound) in observed.iter().zip(bounds.chunks(2)) {
            let width = bound[1] - bound[0];
            assert!(low >= bound[0] && low <= bound[0] + 0.05 * width, "{}: from {low}", env.spec().id);
            assert!(high <= bound[1] && high >= bound[1] - 0.05 * width, "{}: to {high}", env.spec().id);
        }
    }
}
