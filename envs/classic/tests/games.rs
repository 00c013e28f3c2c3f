//! Properties of every environment of this crate, and the rules of those without physics.

use playfield_classic::{Catch, CatchConfig, Identity, IdentityBox, IdentityConfig, Recall, RecallConfig, sources};
use playfield_core::{Action, ActionSpace, Env, EnvConfig, EnvSpec, Error, Obs, ObsRef, Step};

fn config(id: &str) -> EnvConfig {
    EnvConfig { id: id.into(), ..EnvConfig::default() }
}

fn empty(spec: &EnvSpec) -> Obs {
    Obs::zeros(spec.dtype, spec.frame_len())
}

/// Steps with an action that varies with `t`, resets at the end of an episode, and records every result.
fn record(env: &mut dyn Env, obs: &mut Obs, from: usize, to: usize) -> Vec<(Step, Obs)> {
    let mut seen = Vec::new();
    for t in from..to {
        let x = [((t * 7) % 11) as f32 / 5.0 - 1.0];
        let action = match &env.spec().actions {
            ActionSpace::Discrete { n } => Action::Discrete((t * 7 / 3) % n),
            ActionSpace::Box { .. } => Action::Continuous(&x),
        };
        let step = env.step(action, obs.as_mut()).unwrap();
        seen.push((step, obs.clone()));
        if step.done() {
            env.reset(None, obs.as_mut()).unwrap();
            seen.push((Step::default(), obs.clone()));
        }
    }
    seen
}

#[test]
fn an_environment_resumes_from_its_saved_state_bit_for_bit() {
    for (id, _, source) in sources() {
        let mut env = source.env(&config(id)).unwrap();
        let mut obs = empty(env.spec());
        env.reset(Some(5), obs.as_mut()).unwrap();
        record(env.as_mut(), &mut obs, 0, 34);
        let text = serde_json::to_string(&env.save_state().unwrap()).unwrap();
        let expected = record(env.as_mut(), &mut obs, 34, 150);

        let mut other = source.env(&config(id)).unwrap();
        other.load_state(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(record(other.as_mut(), &mut obs, 34, 150), expected, "{id}");
    }
}

#[test]
fn the_seed_determines_the_episode() {
    for (id, _, source) in sources() {
        let game = |seed| {
            let mut env = source.env(&config(id)).unwrap();
            let mut obs = empty(env.spec());
            env.reset(Some(seed), obs.as_mut()).unwrap();
            record(env.as_mut(), &mut obs, 0, 100)
        };
        assert_eq!(game(1), game(1), "{id}");
        assert_ne!(game(1), game(2), "{id}");
    }
}

#[test]
fn invalid_settings_actions_and_states_are_errors() {
    for (id, _, source) in sources() {
        let mut unknown = config(id);
        unknown.kwargs.insert("color".into(), "red".into());
        let error = source.env(&unknown).err().expect("an unknown key is refused");
        assert!(matches!(&error, Error::Config(m) if m.contains("color")), "{id}: {error}");

        let mut env = source.env(&config(id)).unwrap();
        let mut obs = empty(env.spec());
        env.reset(Some(0), obs.as_mut()).unwrap();
        assert!(env.step(Action::Discrete(99), obs.as_mut()).is_err(), "{id}");
        assert!(env.step(Action::Continuous(&[0.0, 0.0]), obs.as_mut()).is_err(), "{id}");
        assert!(env.load_state(&serde_json::json!({"rng": 3})).is_err(), "{id}");
    }
}

#[test]
fn ids_and_limits() {
    let limits: Vec<_> = sources()
        .iter()
        .map(|(id, _, source)| {
            let defaults = source.defaults();
            let resolved = EnvConfig::resolve(&[("id".to_string(), (*id).into())].into_iter().collect(), defaults);
            let resolved = resolved.unwrap();
            assert_eq!(source.env(&resolved).unwrap().spec().id, *id);
            (*id, resolved.max_episode_steps)
        })
        .collect();
    let expected = [
        ("CartPole", 500),
        ("Acrobot", 500),
        ("MountainCar", 200),
        ("Pendulum", 200),
        ("Catch", 0),
        ("Recall", 0),
        ("Identity", 100),
        ("IdentityBox", 100),
    ];
    assert_eq!(limits, expected);
}

/// The cue is observed once, the query after the wait, and only the action after the query is rewarded.
#[test]
fn recall_rewards_the_cue_s_action() {
    for wait in [1, 3, 10] {
        let mut env = Recall::new(&RecallConfig { wait }).unwrap();
        let mut obs = empty(env.spec());
        let mut cues = [0, 0];
        for seed in 0..40 {
            env.reset(Some(seed), obs.as_mut()).unwrap();
            let cue = obs.as_ref().f32()[0];
            assert!(cue.abs() == 1.0 && obs.as_ref().f32()[1] == 0.0);
            let right = usize::from(cue > 0.0);
            cues[right] += 1;
            for t in 1..=wait {
                let step = env.step(Action::Discrete(t % 2), obs.as_mut()).unwrap();
                assert_eq!((step, obs.as_ref().f32()), (Step::default(), &[0.0, f32::from(t == wait)][..]));
            }
            let answer = seed as usize % 2;
            let step = env.step(Action::Discrete(answer), obs.as_mut()).unwrap();
            assert_eq!((step.reward, step.terminated), (if answer == right { 1.0 } else { -1.0 }, true));
            assert!(env.step(Action::Discrete(0), obs.as_mut()).is_err());
        }
        assert!(cues.iter().all(|&n| n > 8), "{cues:?}");
    }
    assert!(matches!(Recall::new(&RecallConfig { wait: 0 }), Err(Error::Config(_))));
}

#[test]
fn catch_observes_ball_and_paddle_and_rewards_at_the_end() {
    let (mut caught, mut missed) = (0, 0);
    for seed in 0..40 {
        let mut env = Catch::new(CatchConfig::default()).unwrap();
        assert_eq!(env.spec().shape, [10, 5]);
        let mut obs = empty(env.spec());
        env.reset(Some(seed), obs.as_mut()).unwrap();
        let lit = |obs: &Obs| {
            let ObsRef::U8(board) = obs.as_ref() else { panic!("frames") };
            assert!(board.iter().all(|p| [0, 255].contains(p)));
            board.iter().enumerate().filter(|(_, p)| **p == 255).map(|(at, _)| (at / 5, at % 5)).collect::<Vec<_>>()
        };
        let ball = lit(&obs)[0].1;
        assert_eq!(lit(&obs), [(0, ball), (9, 2)]);
        let mut paddle = 2_usize;
        for row in 1..=9 {
            let action = (seed as usize + row) % 3;
            paddle = (paddle + action).saturating_sub(1).min(4);
            let step = env.step(Action::Discrete(action), obs.as_mut()).unwrap();
            let mut expected = vec![(row, ball), (9, paddle)];
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(lit(&obs), expected);
            assert_eq!(step.terminated, row == 9);
            let reward = if row < 9 {
                0.0
            } else if ball == paddle {
                1.0
            } else {
                -1.0
            };
            assert_eq!(step.reward, reward);
        }
        if ball == paddle {
            caught += 1
        } else {
            missed += 1
        }
        assert!(env.step(Action::Discrete(0), obs.as_mut()).is_err(), "the episode is over");
    }
    assert!(caught > 0 && missed > 0);
}

#[test]
fn catch_has_boards_of_valid_sizes() {
    let board = |rows, columns| Catch::new(CatchConfig { rows, columns });
    assert_eq!(board(4, 3).unwrap().spec().shape, [4, 3]);
    assert!(board(1, 5).is_err() && board(5, 0).is_err());
    let mut small = board(4, 3).unwrap();
    let large = board(10, 5).unwrap();
    let mut state = large.save_state().unwrap();
    state["ball"] = serde_json::json!([8, 4]);
    assert!(small.load_state(&state).is_err(), "a state of a larger board");
}

#[test]
fn identity_rewards_the_observed_state() {
    let mut env = Identity::new(&IdentityConfig::default()).unwrap();
    let mut obs = empty(env.spec());
    env.reset(Some(3), obs.as_mut()).unwrap();
    let mut counts = [0; 4];
    for t in 0..400 {
        let ObsRef::F32(seen) = obs.as_ref() else { panic!("numbers") };
        let state = seen.iter().position(|&x| x == 1.0).unwrap();
        assert_eq!(seen.iter().sum::<f32>(), 1.0);
        counts[state] += 1;
        let action = if t % 2 == 0 { state } else { (state + 1) % 4 };
        let step = env.step(Action::Discrete(action), obs.as_mut()).unwrap();
        assert_eq!(step, Step { reward: f32::from(t % 2 == 0), ..Step::default() });
    }
    assert!(counts.iter().all(|&c| c > 60), "states are not equally likely: {counts:?}");
}

#[test]
fn identity_box_rewards_closeness() {
    let mut env = IdentityBox::new();
    let mut obs = empty(env.spec());
    env.reset(Some(3), obs.as_mut()).unwrap();
    for t in 0..100 {
        let ObsRef::F32(&[state]) = obs.as_ref() else { panic!("a number") };
        assert!((-1.0..1.0).contains(&state));
        let action = [state, state / 2.0, 1.0][t % 3];
        let step = env.step(Action::Continuous(&[action]), obs.as_mut()).unwrap();
        let error = action - state;
        assert_eq!(step.reward, -error * error);
    }
    for outside in [5.0, -1.01, f32::NAN] {
        assert!(env.step(Action::Continuous(&[outside]), obs.as_mut()).is_err(), "{outside}");
    }
}
