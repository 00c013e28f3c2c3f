//! The wrappers inside one environment, against streams of frames written out by hand.

mod common;

use common::{Event, LIFE, PLAIN, Script, TERMINATED, TRUNCATED, episode, space, spec};
use playfield_core::{Action, Dtype, Env, Error, Obs, ObsRef, Step};
use playfield_wrappers::{FireReset, FrameSkip, NoOp, StickyAction, TimeLimit};
use std::collections::BTreeSet;

const NAMES: [&str; 4] = ["NOOP", "FIRE", "LEFT", "RIGHT"];

/// The single byte that an environment of bytes shows.
fn reset(env: &mut dyn Env, seed: Option<u64>) -> u8 {
    let mut obs = Obs::zeros(Dtype::U8, 1);
    assert_eq!(env.reset(seed, obs.as_mut()).unwrap(), Step::default());
    byte(&obs)
}

fn step(env: &mut dyn Env, action: usize) -> (u8, Step) {
    let mut obs = Obs::zeros(Dtype::U8, 1);
    let step = env.step(Action::Discrete(action), obs.as_mut()).unwrap();
    (byte(&obs), step)
}

fn byte(obs: &Obs) -> u8 {
    match obs.as_ref() {
        ObsRef::U8(&[byte]) => byte,
        _ => panic!("one byte"),
    }
}

#[test]
fn fire_is_pressed_once_before_the_no_ops() {
    let script = Script::game(&NAMES, vec![]);
    let log = script.log.clone();
    let mut env = NoOp::exactly(Box::new(FireReset::new(Box::new(script))), 3).unwrap();
    assert_eq!(reset(&mut env, Some(7)), 4, "the fourth frame is the first seen");
    let expected = [Event::Reset(Some(7)), Event::Act(1), Event::Act(0), Event::Act(0), Event::Act(0)];
    assert_eq!(*log.borrow(), expected);
    assert_eq!(step(&mut env, 2), (5, Step::default()));
}

#[test]
fn a_game_without_fire_is_left_alone() {
    let script = Script::game(&["NOOP", "LEFT"], vec![]);
    let log = script.log.clone();
    let mut env = FireReset::new(Box::new(script));
    assert!(!env.presses());
    assert_eq!(reset(&mut env, None), 0);
    assert_eq!(*log.borrow(), [Event::Reset(None)]);
}

#[test]
fn a_game_that_fire_ends_is_started_without() {
    let script = Script::game(&NAMES, vec![TERMINATED]);
    let log = script.log.clone();
    let mut env = FireReset::new(Box::new(script));
    assert_eq!(reset(&mut env, Some(1)), 0);
    assert_eq!(*log.borrow(), [Event::Reset(Some(1)), Event::Act(1), Event::Reset(None)]);
}

#[test]
fn a_game_that_ends_during_no_ops_is_reset_and_the_rest_follow() {
    let script = Script::game(&NAMES, episode(1, TERMINATED));
    let log = script.log.clone();
    let mut env = NoOp::exactly(Box::new(script), 3).unwrap();
    assert_eq!(reset(&mut env, Some(1)), 1);
    let act = Event::Act(0);
    assert_eq!(*log.borrow(), [Event::Reset(Some(1)), act.clone(), act.clone(), Event::Reset(None), act]);
}

/// The numbers of frames that pass before the first observation, over many resets.
fn frames_passed(max: usize, fire: bool) -> BTreeSet<u8> {
    let mut inner: Box<dyn Env> = Box::new(Script::game(&NAMES, vec![]));
    if fire {
        inner = Box::new(FireReset::new(inner));
    }
    let mut env = NoOp::new(inner, max, u32::from(fire)).unwrap();
    (0..400).map(|i| reset(&mut env, (i == 0).then_some(3))).collect()
}

#[test]
fn no_ops_are_drawn_as_ale_draws_them() {
    assert_eq!(frames_passed(30, false), (0..30).collect());
    assert_eq!(frames_passed(30, true), (1..30).collect(), "FIRE counts as one");
    assert_eq!(frames_passed(1, false), [0].into());
}

#[test]
fn no_ops_depend_on_the_seed_and_go_on_from_a_saved_state() {
    let env = || NoOp::new(Box::new(Script::game(&NAMES, vec![])), 200, 0).unwrap();
    let starts = |env: &mut NoOp, seed| [seed, None, None].map(|s| reset(env, s));
    let mut a = env();
    assert_eq!(starts(&mut a, Some(1)), starts(&mut env(), Some(1)));
    assert_ne!(starts(&mut a, Some(1)), starts(&mut env(), Some(2)));
    let saved = a.save_state().unwrap();
    let mut b = env();
    b.load_state(&saved).unwrap();
    assert_eq!(starts(&mut a, None), starts(&mut b, None));
}

#[test]
fn no_ops_need_the_action() {
    let wrong = NoOp::new(Box::new(Script::game(&["LEFT", "RIGHT"], vec![])), 30, 0).err().unwrap();
    assert!(matches!(&wrong, Error::Config(m) if m.contains("noop_max")), "{wrong}");
}

/// Frames of one byte each; the episode ends at the last.
fn flicker(frames: &[u8], last: Step) -> Script {
    let steps = episode(frames.len() - 2, last);
    Script::new(spec(&[1], Dtype::U8, &[]), frames.iter().map(|&f| Obs::U8(vec![f])).collect(), steps)
}

#[test]
fn a_skip_shows_the_larger_of_its_last_two_frames() {
    let frames = [50, 99, 99, 3, 4, 98, 98, 8, 7, 1, 1, 1, 1];
    let mut env = FrameSkip::new(Box::new(flicker(&frames, PLAIN)), 4, true).unwrap();
    assert_eq!(reset(&mut env, None), 50);
    let four = Step { reward: 4.0, ..Step::default() };
    assert_eq!(step(&mut env, 0), (4, four));
    assert_eq!(step(&mut env, 0), (8, four));
}

#[test]
fn the_frame_that_terminates_an_episode_is_not_looked_at_as_in_ale() {
    // The end after 1, 2, 3 and 4 frames of the second skip; 20 is its third frame, 90 any other.
    for (end, seen) in [(1, 4), (2, 4), (3, 4), (4, 20)] {
        let frames = [50, 99, 99, 3, 4, 90, 90, 20, 90];
        let frames = if end == 3 { [50, 99, 99, 3, 4, 90, 90, 90, 90] } else { frames };
        for last in [TERMINATED, Step { truncated: true, life_lost: true, ..TERMINATED }] {
            let mut env = FrameSkip::new(Box::new(flicker(&frames[..5 + end], last)), 4, true).unwrap();
            reset(&mut env, None);
            assert_eq!(step(&mut env, 0).0, 4);
            assert_eq!(step(&mut env, 0), (seen, Step { reward: end as f32, ..TERMINATED }), "end after {end}");
            assert_eq!(reset(&mut env, None), 50, "nothing of the old episode is left");
        }
    }
}

/// A limit inside the skip: values bootstrap from what is shown, so it is the true end, the larger of its last two frames.
#[test]
fn the_frame_that_truncates_an_episode_is_shown() {
    for last in [TRUNCATED, Step { life_lost: true, ..TRUNCATED }] {
        // The end after 1 to 4 frames of the second skip, whether the last of them is the larger or the one before.
        for end in 1..=4 {
            for (before, at_end) in [(20, 30), (30, 20)] {
                let mut frames = [50, 99, 98, 97, 96, 95, 94, 93, 92];
                (frames[3 + end], frames[4 + end]) = (before, at_end);
                let mut env = FrameSkip::new(Box::new(flicker(&frames[..5 + end], last)), 4, true).unwrap();
                reset(&mut env, None);
                step(&mut env, 0);
                let mut copy = FrameSkip::new(Box::new(flicker(&frames[..5 + end], last)), 4, true).unwrap();
                copy.load_state(&env.save_state().unwrap()).unwrap();
                for mut env in [env, copy] {
                    assert_eq!(step(&mut env, 0), (30, Step { reward: end as f32, ..TRUNCATED }), "end after {end}");
                }
            }
        }
        let mut env = FrameSkip::new(Box::new(flicker(&[50, 9, 4], last)), 1, true).unwrap();
        reset(&mut env, None);
        assert_eq!([step(&mut env, 0).0, step(&mut env, 0).0], [9, 4], "nothing is skipped, nothing is pooled");
    }
}

#[test]
fn a_skip_without_max_pool_shows_its_last_frame_even_the_one_that_ends() {
    let mut env = FrameSkip::new(Box::new(flicker(&[50, 9, 9, 9, 3, 4], TRUNCATED)), 3, false).unwrap();
    reset(&mut env, None);
    assert_eq!(step(&mut env, 0), (9, Step { reward: 3.0, ..Step::default() }));
    assert_eq!(step(&mut env, 0), (4, Step { reward: 2.0, ..TRUNCATED }));
}

#[test]
fn a_skip_of_one_with_max_pool_is_one_frame() {
    let mut env = FrameSkip::new(Box::new(flicker(&[9, 7, 5, 3, 8], TERMINATED)), 1, true).unwrap();
    assert_eq!(reset(&mut env, None), 9);
    assert_eq!([(); 4].map(|()| step(&mut env, 0).0), [7, 5, 3, 3]);
}

#[test]
fn a_life_lost_in_any_frame_of_a_skip_is_lost_unless_the_game_is() {
    let mut env = FrameSkip::new(Box::new(Script::game(&[], vec![PLAIN, LIFE, PLAIN, PLAIN])), 4, false).unwrap();
    reset(&mut env, None);
    assert_eq!(step(&mut env, 0).1, Step { reward: 4.0, ..LIFE });
    assert!(!step(&mut env, 0).1.life_lost);
    let mut env = FrameSkip::new(Box::new(Script::game(&[], vec![LIFE, TERMINATED])), 4, false).unwrap();
    reset(&mut env, None);
    assert_eq!(step(&mut env, 0).1, Step { reward: 2.0, ..TERMINATED });
}

#[test]
fn a_skip_goes_on_from_a_saved_state() {
    let frames = [50, 99, 99, 3, 4, 90];
    let env = || FrameSkip::new(Box::new(flicker(&frames, TERMINATED)), 4, true).unwrap();
    let mut a = env();
    reset(&mut a, None);
    step(&mut a, 0);
    let mut b = env();
    b.load_state(&a.save_state().unwrap()).unwrap();
    assert_eq!(step(&mut b, 0), (4, TERMINATED), "the last observation was saved");
    let mut other = FrameSkip::new(Box::new(flicker(&frames, TERMINATED)), 4, false).unwrap();
    assert!(other.load_state(&a.save_state().unwrap()).is_err(), "a state of other settings");
}

#[test]
fn a_skip_that_ends_at_once_shows_nothing_of_an_earlier_one() {
    let mut env = FrameSkip::new(Box::new(flicker(&[50, 9, 9, 70, 3, 4], TERMINATED)), 4, true).unwrap();
    reset(&mut env, None);
    assert_eq!(step(&mut env, 0).0, 70);
    // Another game, before its last frame, whose last observation was 0x32.
    env.load_state(&serde_json::json!({ "own": ["32", "46"], "inner": 4 })).unwrap();
    assert_eq!(step(&mut env, 0), (0x32, TERMINATED));
}

#[test]
fn max_pool_is_for_frames() {
    let numbers = Script::numbers(space(2), vec![1.0]);
    assert!(matches!(FrameSkip::new(Box::new(numbers), 4, true), Err(Error::Config(_))));
}

#[test]
fn a_time_limit_truncates_and_leaves_a_termination_alone() {
    let mut env = TimeLimit::new(Box::new(Script::game(&[], vec![])), 3);
    for _ in 0..2 {
        reset(&mut env, None);
        let truncated = [(); 3].map(|()| step(&mut env, 0).1.truncated);
        assert_eq!(truncated, [false, false, true]);
    }
    let mut env = TimeLimit::new(Box::new(Script::game(&[], episode(2, TERMINATED))), 3);
    reset(&mut env, None);
    assert_eq!([(); 3].map(|()| step(&mut env, 0).1), [PLAIN, PLAIN, TERMINATED]);
    let mut env = TimeLimit::new(Box::new(Script::game(&[], episode(1, TRUNCATED))), 3);
    reset(&mut env, None);
    assert_eq!([(); 2].map(|()| step(&mut env, 0).1), [PLAIN, TRUNCATED], "the environment's own limit");
}

#[test]
fn a_time_limit_goes_on_from_a_saved_state() {
    let env = || TimeLimit::new(Box::new(Script::game(&[], vec![])), 3);
    let mut a = env();
    reset(&mut a, None);
    step(&mut a, 0);
    let mut b = env();
    b.load_state(&a.save_state().unwrap()).unwrap();
    assert_eq!([(); 2].map(|()| step(&mut b, 0).1.truncated), [false, true]);
}

/// The actions that a [`StickyAction`] of this probability executes where 1, 2, 3, 1, 2, 3, … are asked for.
fn executed(probability: f64, names: &[&str]) -> Vec<usize> {
    let script = Script::game(names, vec![]);
    let log = script.log.clone();
    let mut env = StickyAction::new(Box::new(script), probability);
    reset(&mut env, Some(5));
    for t in 0..3000 {
        step(&mut env, 1 + t % 3);
    }
    let log = log.borrow();
    log.iter().filter_map(|e| if let Event::Act(a) = e { Some(*a) } else { None }).collect()
}

#[test]
fn sticky_actions_repeat_the_last_executed_with_their_probability() {
    let asked = |t: usize| 1 + t % 3;
    assert!(executed(0.0, &NAMES).iter().enumerate().all(|(t, &a)| a == asked(t)));
    assert!(executed(1.0, &NAMES).iter().all(|&a| a == 0), "the NOOP before the first action, for ever");
    assert!(executed(1.0, &[]).iter().all(|&a| a == 1), "no NOOP: the first action, for ever");
    let some = executed(0.25, &NAMES);
    // Each of the three actions comes in turn, so that what was repeated differs from what was asked for, unless it was
    // repeated three times.
    let repeats = (1..some.len()).filter(|&t| some[t] == some[t - 1] && some[t] != asked(t)).count();
    let rate = repeats as f64 / some.len() as f64;
    assert!((0.21..0.27).contains(&rate), "repeated {rate} of the time, not 0.25 − 0.25³");
    assert!((1..some.len()).all(|t| some[t] == asked(t) || some[t] == some[t - 1]));
}

#[test]
fn sticky_actions_go_on_from_a_saved_state() {
    let env = || {
        let script = Script::game(&NAMES, vec![]);
        (script.log.clone(), StickyAction::new(Box::new(script), 0.5))
    };
    let (log_a, mut a) = env();
    reset(&mut a, Some(3));
    for t in 0..10 {
        step(&mut a, t % 4);
    }
    let (log_b, mut b) = env();
    b.load_state(&a.save_state().unwrap()).unwrap();
    log_a.borrow_mut().clear();
    for env in [&mut a, &mut b] {
        for t in 0..50 {
            step(env, t % 4);
        }
    }
    assert_eq!(log_a, log_b);
}

#[test]
fn sticky_actions_may_be_vectors() {
    let actions = playfield_core::ActionSpace::Box { low: vec![-1.0], high: vec![1.0] };
    let mut env = StickyAction::new(Box::new(Script::numbers(actions, vec![1.0])), 1.0);
    let mut obs = Obs::zeros(Dtype::F32, 1);
    env.reset(Some(0), obs.as_mut()).unwrap();
    env.step(Action::Continuous(&[0.5]), obs.as_mut()).unwrap();
    env.step(Action::Continuous(&[0.7]), obs.as_mut()).unwrap();
    assert_eq!(env.save_state().unwrap()["own"][1], serde_json::json!({"Continuous": [0.5]}));
}
