//! Single Atari games: saved states, screens, settings.

mod common;

use common::{config, python, sample_actions};
use playfield_core::{Action, ActionSpace, Actions, Env, EnvFactory, EnvSource, Error, Obs, StepBatch, rng};
use playfield_gymnasium::{AleRaw, AtariSource, doctor, games};
use playfield_wrappers::Factory;
use std::sync::Arc;

fn raw(id: &str, settings: &str) -> Result<AleRaw, Error> {
    AleRaw::new(id, &config(&AtariSource::new(id), id, settings))
}

fn screen(game: &AleRaw) -> Obs {
    Obs::zeros(game.spec().dtype, game.spec().frame_len())
}

/// Executes `steps` random actions and records every result.
fn record(game: &mut AleRaw, steps: usize, random: &mut rng::Rng) -> Vec<(Obs, f32, bool, u32)> {
    let mut obs = screen(game);
    (0..steps)
        .map(|_| {
            let actions = sample_actions(game.spec(), 1, random);
            let step = game.step(actions.row(0), obs.as_mut()).unwrap();
            if step.done() {
                game.reset(None, obs.as_mut()).unwrap();
            }
            (obs.clone(), step.reward, step.life_lost, game.lives())
        })
        .collect()
}

#[test]
fn a_game_resumes_exactly_from_its_saved_state() {
    python();
    let id = "ALE/Breakout-v5";
    let mut game = raw(id, "").unwrap();
    let mut obs = screen(&game);
    game.reset(Some(1), obs.as_mut()).unwrap();
    let mut random = rng::stream(1, "actions");
    let before = record(&mut game, 700, &mut random);
    assert!(before.iter().any(|(_, _, lost, _)| *lost));
    let state: playfield_core::State = serde_json::from_str(&game.save_state().unwrap().to_string()).unwrap();
    let saved_random = random.clone();
    let first = record(&mut game, 1500, &mut random);
    assert!(first.iter().any(|(_, _, lost, _)| *lost) && first.iter().any(|(_, reward, ..)| *reward > 0.0));
    let mut other = raw(id, "").unwrap();
    other.reset(Some(99), obs.as_mut()).unwrap();
    other.load_state(&state).unwrap();
    assert!(record(&mut other, 1500, &mut saved_random.clone()) == first, "another game resumes from it");
    game.load_state(&state).unwrap();
    assert!(record(&mut game, 1500, &mut saved_random.clone()) == first, "the same game returns to it");
    for nonsense in ["{}", "{\"ale\": \"AAAA\", \"lives\": 1, \"over\": false}", "{\"ale\": \"?\"}"] {
        assert!(game.load_state(&serde_json::from_str(nonsense).unwrap()).is_err(), "{nonsense}");
    }
}

/// Clears final observations that are not valid: those of rows whose episode continues.
fn clear_invalid(batch: &mut StepBatch) {
    for i in 0..batch.num_envs() {
        if !batch.done(i) {
            batch.final_obs_row_mut(i).u8().fill(0);
        }
    }
}

/// The pool of wrapped games, which is used where ALE's batch does not support a setting, equals that batch frame for frame, and
/// resumes exactly. Without no-ops nothing is random.
#[test]
fn a_pool_of_games_equals_the_batch_and_resumes_exactly() {
    python();
    let id = "ALE/Breakout-v5";
    let source = Arc::new(AtariSource::new(id));
    let settings = "noop_max = 0\nmax_episode_steps = 150\nepisodic_life = true\nnum_threads = 2";
    let make = |settings: &str| Factory::new(source.clone(), config(&*source, id, settings)).unwrap();
    let (fast, slow) = (make(settings), make(&format!("{settings}\nkwargs = {{ mode = 0, difficulty = 0 }}")));
    assert_eq!(fast.spec(), slow.spec());
    let seeds = rng::seeds(2, "env", 2);
    let (mut a, mut b) = (fast.vec(&seeds).unwrap(), slow.vec(&seeds).unwrap());
    let (mut at_a, mut at_b) = (StepBatch::new(a.spec(), 2), StepBatch::new(b.spec(), 2));
    a.reset(&mut at_a).unwrap();
    b.reset(&mut at_b).unwrap();
    assert!(at_a.obs == at_b.obs, "first observations");
    assert!(a.save_state().unwrap().is_none(), "ALE's batch does not save its state");
    let mut random = rng::stream(2, "actions");
    let mut saved = None;
    let mut after = Vec::new();
    for t in 0..400 {
        let actions = sample_actions(a.spec(), 2, &mut random);
        a.step(&actions, &mut at_a).unwrap();
        b.step(&actions, &mut at_b).unwrap();
        clear_invalid(&mut at_a);
        clear_invalid(&mut at_b);
        assert!(at_a == at_b, "step {t}");
        match t {
            260 => saved = b.save_state().unwrap(),
            261.. => after.push((actions, at_b.clone())),
            _ => {}
        }
    }
    assert!(after.iter().any(|(_, b)| b.episode[0].is_some()) && after.iter().any(|(_, b)| b.life_lost[1]));
    let mut again = slow.vec(&rng::seeds(77, "env", 2)).unwrap();
    again.reset(&mut at_b).unwrap();
    again.load_state(&saved.expect("single games save their state")).unwrap();
    for (t, (actions, expected)) in after.iter().enumerate() {
        again.step(actions, &mut at_b).unwrap();
        clear_invalid(&mut at_b);
        assert!(&at_b == expected, "step {t} after the resume");
    }
}

/// A life lost in the step that the time limit truncates: ALE's batch and the pool report only the truncation.
#[test]
fn a_truncation_reports_no_lost_life() {
    python();
    let id = "ALE/Breakout-v5";
    let source = Arc::new(AtariSource::new(id));
    for kwargs in ["{}", "{ mode = 0, difficulty = 0 }"] {
        let first_event = |limit: usize| {
            let settings =
                format!("noop_max = 0\nepisodic_life = true\nmax_episode_steps = {limit}\nkwargs = {kwargs}");
            let mut env = Factory::new(source.clone(), config(&*source, id, &settings)).unwrap().vec(&[1]).unwrap();
            let mut batch = StepBatch::new(env.spec(), 1);
            env.reset(&mut batch).unwrap();
            for step in 1.. {
                env.step(&Actions::Discrete(vec![0]), &mut batch).unwrap();
                if batch.life_lost[0] || batch.done(0) {
                    return (step, batch.life_lost[0], batch.truncated[0]);
                }
            }
            unreachable!()
        };
        let (step, life_lost, truncated) = first_event(0);
        assert_eq!((life_lost, truncated), (true, false));
        assert_eq!(first_event(step), (step, false, true), "{kwargs}");
    }
}

#[test]
fn the_seeds_determine_the_games() {
    python();
    let id = "ALE/Pong-v5";
    let source = AtariSource::new(id);
    let settings = config(&source, id, "num_threads = 2\nrepeat_action_probability = 0.25");
    let run = |seed: u64, threads: usize| {
        let config = playfield_core::EnvConfig { num_threads: threads, ..settings.clone() };
        let mut vec = source.batch(&config, &rng::seeds(seed, "env", 3)).unwrap().unwrap();
        let mut batch = StepBatch::new(vec.spec(), 3);
        vec.reset(&mut batch).unwrap();
        let mut seen = vec![batch.obs.clone()];
        for t in 0..60 {
            vec.step(&Actions::Discrete(vec![t % 6, 2, 3]), &mut batch).unwrap();
            seen.push(batch.obs.clone());
        }
        // A second reset starts from the same seeds, even during a step.
        vec.send(&Actions::Discrete(vec![0, 0, 0])).unwrap();
        vec.reset(&mut batch).unwrap();
        assert!(batch.obs == seen[0], "a second reset");
        // A batch can be dropped during a step.
        vec.send(&Actions::Discrete(vec![0, 0, 0])).unwrap();
        seen
    };
    assert!(run(1, 1) == run(1, 2), "threads change nothing");
    assert!(run(1, 2) != run(2, 2), "seeds change the games");
}

#[test]
fn action_sets_and_screens() {
    python();
    let game = raw("ALE/Breakout-v5", "").unwrap();
    assert_eq!(game.spec().action_names, ["NOOP", "FIRE", "RIGHT", "LEFT"]);
    assert_eq!(game.spec().shape, [210, 160]);
    let source = AtariSource::new("ALE/Breakout-v5");
    for full in [false, true] {
        let config = config(&source, "ALE/Breakout-v5", &format!("full_action_space = {full}"));
        let (one, vec) = (source.env(&config).unwrap(), source.batch(&config, &[1]).unwrap().unwrap());
        assert_eq!(one.spec().actions, ActionSpace::Discrete { n: if full { 18 } else { 4 } });
        assert_eq!((&one.spec().actions, &one.spec().action_names), (&vec.spec().actions, &vec.spec().action_names));
        assert_eq!(vec.spec().shape, [84, 84]);
    }
    let mut game = raw("ALE/SpaceInvaders-v5", "").unwrap();
    let mut gray = screen(&game);
    game.reset(Some(1), gray.as_mut()).unwrap();
    record(&mut game, 60, &mut rng::stream(1, "actions"));
    game.step(Action::Discrete(0), gray.as_mut()).unwrap();
    let rgb = game.render().unwrap().unwrap().rgb;
    let Obs::U8(gray) = gray else { panic!("frames are bytes") };
    assert_eq!(rgb.len(), 210 * 160 * 3);
    assert!(rgb.chunks(3).any(|p| p[0] != p[1]), "the frame has colors");
    // ALE's gray palette is close to the luma of its colors.
    let luma = |p: &[u8]| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]);
    assert!(rgb.chunks(3).zip(&gray).all(|(p, &g)| (luma(p) - f32::from(g)).abs() < 8.0));
}

#[test]
fn modes_and_difficulties() {
    python();
    let first = |settings: &str| {
        let mut game = raw("ALE/SpaceInvaders-v5", settings).unwrap();
        let mut obs = screen(&game);
        game.reset(Some(1), obs.as_mut()).unwrap();
        record(&mut game, 200, &mut rng::stream(1, "actions"));
        game.step(Action::Discrete(0), obs.as_mut()).unwrap();
        obs
    };
    assert!(first("") == first("kwargs = { mode = 0, difficulty = 0 }"));
    assert!(first("") != first("kwargs = { mode = 9 }"), "a mode survives the reload of the ROM with a seed");
    let refused = |settings: &str| match raw("ALE/Pong-v5", settings) {
        Err(Error::Config(message)) => message,
        other => panic!("{:?}", other.map(|_| ())),
    };
    assert!(refused("kwargs = { mode = 77 }").contains("mode = 77"));
    assert!(refused("kwargs = { difficulty = -1 }").contains("[0, 1, 2, 3]"));
    assert!(refused("kwargs = { mode = 'hard' }").contains("must be an integer"));
    assert!(refused("kwargs = { frameskip = 4 }").contains("`frameskip`"));
}

#[test]
fn a_game_that_is_over_must_be_reset() {
    python();
    let mut game = raw("ALE/Pong-v5", "").unwrap();
    let mut obs = screen(&game);
    assert!(game.step(Action::Discrete(0), obs.as_mut()).is_err(), "before the first reset");
    game.reset(None, obs.as_mut()).unwrap();
    assert!(matches!(game.step(Action::Discrete(6), obs.as_mut()), Err(Error::Config(_))));
    assert!(matches!(game.step(Action::Continuous(&[0.0]), obs.as_mut()), Err(Error::Config(_))));
    game.step(Action::Discrete(5), obs.as_mut()).unwrap();
}

#[test]
fn doctor_finds_every_part() {
    python();
    let known = games().unwrap();
    assert!(known.len() > 90 && known.is_sorted() && known.iter().all(|id| id.starts_with("ALE/")));
    let report = doctor();
    let names: Vec<_> = report.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Python", "numpy", "gymnasium", "ale_py", "Atari"]);
    for (name, found) in report {
        found.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
