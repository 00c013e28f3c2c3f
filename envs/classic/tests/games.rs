//! Properties of every environment of this crate, and the rules of those without physics.

use playfield_classic::{
    Catch, CatchConfig, Identity, IdentityBox, IdentityConfig, Recall, RecallConfig, TicTacToe, sources,
};
use playfield_core::{Action, ActionSpace, Actions, Env, EnvConfig, EnvSpec, Error, Obs, ObsRef, Step};

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
        let i = [(t * 7 / 3 % 3) as i64, (t * 5 / 3 % 2) as i64];
        let mut valid = vec![true; env.spec().mask_len()];
        env.action_mask(&mut valid);
        let action = match &env.spec().actions {
            ActionSpace::Discrete { n } => {
                let chosen = (t * 7 / 3) % n;
                Action::Discrete((chosen..chosen + n).map(|a| a % n).find(|&a| valid.get(a) != Some(&false)).unwrap())
            }
            ActionSpace::MultiDiscrete { .. } => Action::MultiDiscrete(&i),
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
        ("TicTacToe", 0),
        ("Identity", 100),
        ("IdentityMultiDiscrete", 100),
        ("IdentityBox", 100),
    ];
    assert_eq!(limits, expected);
}

/// An image of each environment that has one; it changes with the state, and drawing it changes nothing.
#[test]
fn environments_render() {
    for (id, _, source) in sources() {
        let renders = !["Recall", "Identity", "IdentityMultiDiscrete", "IdentityBox"].contains(&id);
        assert_eq!(source.renders(&config(id)).unwrap(), renders, "{id}");
        let [mut env, mut other] = [(); 2].map(|()| source.env(&config(id)).unwrap());
        let [mut obs, mut same] = [(); 2].map(|()| empty(env.spec()));
        env.reset(Some(3), obs.as_mut()).unwrap();
        other.reset(Some(3), same.as_mut()).unwrap();
        let first = env.render().unwrap();
        let (zeros, mut valid) = (Actions::zeros(&env.spec().actions, 1), [true; 9]);
        for _ in 0..3 {
            env.action_mask(&mut valid);
            let action = match zeros.row(0) {
                Action::Discrete(_) => Action::Discrete(valid.iter().position(|valid| *valid).unwrap()),
                action => action,
            };
            let step = env.step(action, obs.as_mut()).unwrap();
            env.render().unwrap();
            other.step(action, same.as_mut()).unwrap();
            if step.done() {
                break;
            }
        }
        assert_eq!(obs, same, "{id}");
        assert_eq!(first != env.render().unwrap(), renders, "{id}");
    }
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
    let board = |rows, columns| Catch::new(CatchConfig { rows, columns, ..CatchConfig::default() });
    assert_eq!(board(4, 3).unwrap().spec().shape, [4, 3]);
    assert!(board(1, 5).is_err() && board(5, 0).is_err());
    for cell in [0, 101] {
        assert!(Catch::new(CatchConfig { cell, ..CatchConfig::default() }).is_err());
    }
    let mut small = board(4, 3).unwrap();
    let large = board(10, 5).unwrap();
    let mut state = large.save_state().unwrap();
    state["ball"] = serde_json::json!([8, 4]);
    assert!(small.load_state(&state).is_err(), "a state of a larger board");
}

/// With cells of several pixels the game is the same, and its frames are those of single pixels, enlarged.
#[test]
fn catch_has_frames_of_larger_cells() {
    let config = |cell| CatchConfig { rows: 4, columns: 3, cell };
    let [mut small, mut large] = [1, 5].map(|cell| Catch::new(config(cell)).unwrap());
    assert_eq!(large.spec().shape, [20, 15]);
    let [mut frame, mut enlarged] = [&small, &large].map(|env| empty(env.spec()));
    let same = |frame: &Obs, enlarged: &Obs| {
        let [ObsRef::U8(frame), ObsRef::U8(enlarged)] = [frame, enlarged].map(Obs::as_ref) else { panic!("frames") };
        let expected = (0..20 * 15).map(|i| frame[i / 15 / 5 * 3 + i % 15 / 5]);
        assert!(enlarged.iter().copied().eq(expected), "{frame:?}, {enlarged:?}");
    };
    for seed in 0..10 {
        small.reset(Some(seed), frame.as_mut()).unwrap();
        large.reset(Some(seed), enlarged.as_mut()).unwrap();
        same(&frame, &enlarged);
        for action in [0, 2, 2] {
            let expected = small.step(Action::Discrete(action), frame.as_mut()).unwrap();
            assert_eq!(large.step(Action::Discrete(action), enlarged.as_mut()).unwrap(), expected);
            same(&frame, &enlarged);
        }
    }
}

/// Random games with a board of the test's own: marks, mask, winner and reward.
#[test]
fn tic_tac_toe_has_the_rules_of_the_game() {
    let lines = ["012", "345", "678", "036", "147", "258", "048", "246"];
    let won = |marks: &[f32]| lines.iter().any(|line| line.bytes().all(|cell| marks[(cell - b'0') as usize] == 1.0));
    let mut env = TicTacToe::new();
    let (mut obs, mut mask, mut returns, mut began) = (empty(env.spec()), [true; 9], [0; 3], 0);
    for seed in 0..600 {
        env.reset(Some(seed), obs.as_mut()).unwrap();
        let ours = |obs: &Obs| obs.as_ref().f32()[..9].to_vec();
        let theirs = |obs: &Obs| obs.as_ref().f32()[9..].to_vec();
        began += usize::from(!theirs(&obs).contains(&1.0));
        loop {
            let before = [ours(&obs), theirs(&obs)];
            env.action_mask(&mut mask);
            let free: Vec<usize> = (0..9).filter(|&i| before[0][i] + before[1][i] == 0.0).collect();
            assert_eq!(free, (0..9).filter(|&i| mask[i]).collect::<Vec<_>>());
            if let Some(taken) = (0..9).find(|&i| !mask[i]) {
                let error = env.step(Action::Discrete(taken), obs.as_mut()).unwrap_err().to_string();
                assert!(error.contains(&format!("cell {taken} is not empty")), "{error}");
            }
            let cell = free[seed as usize * 7 % free.len()];
            let step = env.step(Action::Discrete(cell), obs.as_mut()).unwrap();
            let [mine, other] = [ours(&obs), theirs(&obs)];
            assert!(mine[cell] == 1.0 && mine.iter().sum::<f32>() == before[0].iter().sum::<f32>() + 1.0);
            let moved = other.iter().sum::<f32>() - before[1].iter().sum::<f32>();
            let full = (0..9).all(|i| mine[i] + other[i] == 1.0);
            let ended = won(&mine) || won(&other) || full;
            assert_eq!(moved, if won(&mine) || (full && moved == 0.0) { 0.0 } else { 1.0 });
            let reward = if won(&mine) { 1.0 } else { -f32::from(won(&other)) };
            assert_eq!((step.reward, step.terminated), (reward, ended));
            if ended {
                returns[(reward + 1.0) as usize] += 1;
                assert!(env.step(Action::Discrete(cell), obs.as_mut()).is_err());
                break;
            }
        }
    }
    assert!(returns.iter().all(|&n| n > 20) && (250..350).contains(&began), "{returns:?}, {began}");
}

#[test]
fn identity_multi_rewards_the_state_in_both_components() {
    let mut env = Identity::multi_discrete();
    let mut obs = empty(env.spec());
    env.reset(Some(3), obs.as_mut()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for t in 0..200 {
        let values = obs.as_ref().f32();
        let state = [&values[..3], &values[3..]].map(|part| part.iter().position(|&x| x == 1.0).unwrap() as i64);
        assert_eq!(values.iter().sum::<f32>(), 2.0);
        seen.insert(state);
        let action = [state[0], if t % 2 == 0 { state[1] } else { 1 - state[1] }];
        let step = env.step(Action::MultiDiscrete(&action), obs.as_mut()).unwrap();
        assert_eq!(step.reward, f32::from(t % 2 == 0));
    }
    assert_eq!(seen.len(), 6);
    assert!(env.step(Action::MultiDiscrete(&[3, 0]), obs.as_mut()).is_err());
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
