//! The wrappers of one environment, against streams of frames written by hand.

mod common;

use common::{Event, LIFE, PLAIN, Script, TERMINATED, TRUNCATED, episode, space, spec};
use playfield_core::{Action, Dtype, Env, Error, Obs, ObsRef, Step};
use playfield_wrappers::{FireReset, FrameSkip, NoopReset, StickyAction, TimeLimit, WrappedEnv};
use std::collections::BTreeSet;

const NAMES: [&str; 4] = ["NOOP", "FIRE", "LEFT", "RIGHT"];

/// Wrapped environments of a script.
fn fire(script: Script) -> WrappedEnv<FireReset> {
    let wrapper = FireReset::new(script.spec());
    WrappedEnv::new(Box::new(script), wrapper)
}

fn noops(env: impl Env + 'static, count: u32) -> WrappedEnv<NoopReset> {
    let wrapper = NoopReset::fixed(env.spec(), count).unwrap();
    WrappedEnv::new(Box::new(env), wrapper)
}

fn skip(script: Script, skip: usize, max_pool: bool) -> WrappedEnv<FrameSkip> {
    let wrapper = FrameSkip::new(script.spec(), skip, max_pool).unwrap();
    WrappedEnv::new(Box::new(script), wrapper)
}

/// Resets an environment that observes one byte, and returns it.
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
    let mut env = noops(fire(script), 3);
    assert_eq!(reset(&mut env, Some(7)), 4, "the fourth frame is the first observation");
    let expected = [Event::Reset(Some(7)), Event::Act(1), Event::Act(0), Event::Act(0), Event::Act(0)];
    assert_eq!(*log.borrow(), expected);
    assert_eq!(step(&mut env, 2), (5, Step::default()));
}

#[test]
fn a_game_without_fire_is_unchanged() {
    let script = Script::game(&["NOOP", "LEFT"], vec![]);
    let log = script.log.clone();
    let mut env = fire(script);
    assert_eq!(FireReset::new(env.spec()).frames(), 0);
    assert_eq!(reset(&mut env, None), 0);
    assert_eq!(*log.borrow(), [Event::Reset(None)]);
}

#[test]
fn an_episode_that_fire_ends_is_started_without_it() {
    let script = Script::game(&NAMES, vec![TERMINATED]);
    let log = script.log.clone();
    let mut env = fire(script);
    assert_eq!(reset(&mut env, Some(1)), 0);
    assert_eq!(*log.borrow(), [Event::Reset(Some(1)), Event::Act(1), Event::Reset(None)]);
}

#[test]
fn an_episode_that_ends_during_no_ops_is_reset_and_the_rest_follow() {
    let script = Script::game(&NAMES, episode(1, TERMINATED));
    let log = script.log.clone();
    let mut env = noops(script, 3);
    assert_eq!(reset(&mut env, Some(1)), 1);
    let act = Event::Act(0);
    assert_eq!(*log.borrow(), [Event::Reset(Some(1)), act.clone(), act.clone(), Event::Reset(None), act]);
}

/// The numbers of frames before the first observation, over many resets.
fn frames_passed(max: usize, fire: bool) -> BTreeSet<u8> {
    let mut inner: Box<dyn Env> = Box::new(Script::game(&NAMES, vec![]));
    if fire {
        let wrapper = FireReset::new(inner.spec());
        inner = Box::new(WrappedEnv::new(inner, wrapper));
    }
    let wrapper = NoopReset::new(inner.spec(), max, u32::from(fire)).unwrap();
    let mut env = WrappedEnv::new(inner, wrapper);
    (0..400).map(|i| reset(&mut env, (i == 0).then_some(3))).collect()
}

#[test]
fn no_ops_are_sampled_as_in_ale() {
    assert_eq!(frames_passed(30, false), (0..30).collect());
    assert_eq!(frames_passed(30, true), (1..30).collect(), "FIRE counts as one");
    assert_eq!(frames_passed(1, false), [0].into());
}

#[test]
fn no_ops_depend_on_the_seed_and_resume_from_a_saved_state() {
    let env = || {
        let script = Script::game(&NAMES, vec![]);
        let wrapper = NoopReset::new(script.spec(), 200, 0).unwrap();
        WrappedEnv::new(Box::new(script), wrapper)
    };
    let starts = |env: &mut WrappedEnv<NoopReset>, seed| [seed, None, None].map(|s| reset(env, s));
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
    let wrong = NoopReset::new(Script::game(&["LEFT", "RIGHT"], vec![]).spec(), 30, 0).err().unwrap();
    assert!(matches!(&wrong, Error::Config(m) if m.contains("noop_max")), "{wrong}");
}

/// Frames of one byte each. The episode ends at the last.
fn flicker(frames: &[u8], last: Step) -> Script {
    let steps = episode(frames.len() - 2, last);
    Script::new(spec(&[1], Dtype::U8, &[]), frames.iter().map(|&f| Obs::U8(vec![f])).collect(), steps)
}

#[test]
fn a_skip_observes_the_maximum_of_its_last_two_frames() {
    let frames = [50, 99, 99, 3, 4, 98, 98, 8, 7, 1, 1, 1, 1];
    let mut env = skip(flicker(&frames, PLAIN), 4, true);
    assert_eq!(reset(&mut env, None), 50);
    let four = Step { reward: 4.0, ..Step::default() };
    assert_eq!(step(&mut env, 0), (4, four));
    assert_eq!(step(&mut env, 0), (8, four));
}

#[test]
fn the_frame_that_terminates_an_episode_is_ignored_as_in_ale() {
    // The end after 1, 2, 3 and 4 frames of the second skip; 20 is its third frame, 90 any other.
    for (end, observed) in [(1, 4), (2, 4), (3, 4), (4, 20)] {
        let frames = [50, 99, 99, 3, 4, 90, 90, 20, 90];
        let frames = if end == 3 { [50, 99, 99, 3, 4, 90, 90, 90, 90] } else { frames };
        for last in [TERMINATED, Step { truncated: true, life_lost: true, ..TERMINATED }] {
            let mut env = skip(flicker(&frames[..5 + end], last), 4, true);
            reset(&mut env, None);
            assert_eq!(step(&mut env, 0).0, 4);
            assert_eq!(step(&mut env, 0), (observed, Step { reward: end as f32, ..TERMINATED }), "end after {end}");
            assert_eq!(reset(&mut env, None), 50, "a new episode starts from its own frame");
        }
    }
}

/// A limit inside the skip: the value bootstraps from the observation, so it is the maximum of the true last two frames.
#[test]
fn the_frame_that_truncates_an_episode_is_observed() {
    for last in [TRUNCATED, Step { life_lost: true, ..TRUNCATED }] {
        // The end after 1 to 4 frames of the second skip, where the last frame is the larger or the one before it is.
        for end in 1..=4 {
            for (before, at_end) in [(20, 30), (30, 20)] {
                let mut frames = [50, 99, 98, 97, 96, 95, 94, 93, 92];
                (frames[3 + end], frames[4 + end]) = (before, at_end);
                let mut env = skip(flicker(&frames[..5 + end], last), 4, true);
                reset(&mut env, None);
                step(&mut env, 0);
                let mut copy = skip(flicker(&frames[..5 + end], last), 4, true);
                copy.load_state(&env.save_state().unwrap()).unwrap();
                for mut env in [env, copy] {
                    assert_eq!(step(&mut env, 0), (30, Step { reward: end as f32, ..TRUNCATED }), "end after {end}");
                }
            }
        }
        let mut env = skip(flicker(&[50, 9, 4], last), 1, true);
        reset(&mut env, None);
        assert_eq!([step(&mut env, 0).0, step(&mut env, 0).0], [9, 4], "nothing is skipped or pooled");
    }
}

#[test]
fn a_skip_without_max_pool_observes_its_last_frame() {
    let mut env = skip(flicker(&[50, 9, 9, 9, 3, 4], TRUNCATED), 3, false);
    reset(&mut env, None);
    assert_eq!(step(&mut env, 0), (9, Step { reward: 3.0, ..Step::default() }));
    assert_eq!(step(&mut env, 0), (4, Step { reward: 2.0, ..TRUNCATED }));
}

#[test]
fn a_skip_of_one_with_max_pool_is_one_frame() {
    let mut env = skip(flicker(&[9, 7, 5, 3, 8], TERMINATED), 1, true);
    assert_eq!(reset(&mut env, None), 9);
    assert_eq!([(); 4].map(|()| step(&mut env, 0).0), [7, 5, 3, 3]);
}

#[test]
fn a_life_lost_in_any_frame_of_a_skip_is_reported_unless_the_episode_ends() {
    let mut env = skip(Script::game(&[], vec![PLAIN, LIFE, PLAIN, PLAIN]), 4, false);
    reset(&mut env, None);
    assert_eq!(step(&mut env, 0).1, Step { reward: 4.0, ..LIFE });
    assert!(!step(&mut env, 0).1.life_lost);
    let mut env = skip(Script::game(&[], vec![LIFE, TERMINATED]), 4, false);
    reset(&mut env, None);
    assert_eq!(step(&mut env, 0).1, Step { reward: 2.0, ..TERMINATED });
}

#[test]
fn a_skip_resumes_from_a_saved_state() {
    let frames = [50, 99, 99, 3, 4, 90];
    let env = || skip(flicker(&frames, TERMINATED), 4, true);
    let mut a = env();
    reset(&mut a, None);
    step(&mut a, 0);
    let mut b = env();
    b.load_state(&a.save_state().unwrap()).unwrap();
    assert_eq!(step(&mut b, 0), (4, TERMINATED), "the last observation was saved");
    let mut other = skip(flicker(&frames, TERMINATED), 4, false);
    assert!(other.load_state(&a.save_state().unwrap()).is_err(), "a state of other settings");
}

#[test]
fn a_skip_that_ends_at_once_ignores_the_frames_of_an_earlier_one() {
    let mut env = skip(flicker(&[50, 9, 9, 70, 3, 4], TERMINATED), 4, true);
    reset(&mut env, None);
    assert_eq!(step(&mut env, 0).0, 70);
    // Another episode, before its last frame; its last observation was 0x32.
    env.load_state(&serde_json::json!({ "own": ["32", "46"], "inner": 4 })).unwrap();
    assert_eq!(step(&mut env, 0), (0x32, TERMINATED));
}

#[test]
fn max_pool_is_for_frames() {
    let numbers = Script::numbers(space(2), vec![1.0]);
    assert!(matches!(FrameSkip::new(numbers.spec(), 4, true), Err(Error::Config(_))));
}

#[test]
fn a_time_limit_truncates_unless_the_episode_terminates() {
    let mut env = WrappedEnv::new(Box::new(Script::game(&[], vec![])), TimeLimit::new(3));
    for _ in 0..2 {
        reset(&mut env, None);
        let truncated = [(); 3].map(|()| step(&mut env, 0).1.truncated);
        assert_eq!(truncated, [false, false, true]);
    }
    let mut env = WrappedEnv::new(Box::new(Script::game(&[], episode(2, TERMINATED))), TimeLimit::new(3));
    reset(&mut env, None);
    assert_eq!([(); 3].map(|()| step(&mut env, 0).1), [PLAIN, PLAIN, TERMINATED]);
    let mut env = WrappedEnv::new(Box::new(Script::game(&[], episode(1, TRUNCATED))), TimeLimit::new(3));
    reset(&mut env, None);
    assert_eq!([(); 2].map(|()| step(&mut env, 0).1), [PLAIN, TRUNCATED], "the environment's own limit");
}

#[test]
fn a_time_limit_resumes_from_a_saved_state() {
    let env = || WrappedEnv::new(Box::new(Script::game(&[], vec![])), TimeLimit::new(3));
    let mut a = env();
    reset(&mut a, None);
    step(&mut a, 0);
    let mut b = env();
    b.load_state(&a.save_state().unwrap()).unwrap();
    assert_eq!([(); 2].map(|()| step(&mut b, 0).1.truncated), [false, true]);
}

/// The actions that a [`StickyAction`] of this probability executes where 1, 2, 3, 1, 2, 3, … are sent.
fn executed(probability: f64, names: &[&str]) -> Vec<usize> {
    let script = Script::game(names, vec![]);
    let log = script.log.clone();
    let mut env = WrappedEnv::new(Box::new(script), StickyAction::new(probability));
    reset(&mut env, Some(5));
    for t in 0..3000 {
        step(&mut env, 1 + t % 3);
    }
    let log = log.borrow();
    log.iter().filter_map(|e| if let Event::Act(a) = e { Some(*a) } else { None }).collect()
}

#[test]
fn sticky_actions_repeat_the_last_executed_with_their_probability() {
    let sent = |t: usize| 1 + t % 3;
    assert!(executed(0.0, &NAMES).iter().enumerate().all(|(t, &a)| a == sent(t)));
    assert!(executed(1.0, &NAMES).iter().all(|&a| a == 0), "always the NOOP before the first action");
    assert!(executed(1.0, &[]).iter().all(|&a| a == 1), "without NOOP: always the first action");
    let some = executed(0.25, &NAMES);
    // The three actions are sent in turn, so a repeated action differs from the one sent, unless it was repeated three
    // times.
    let repeats = (1..some.len()).filter(|&t| some[t] == some[t - 1] && some[t] != sent(t)).count();
    let rate = repeats as f64 / some.len() as f64;
    assert!((0.21..0.27).contains(&rate), "repeated {rate} of the time, not 0.25 − 0.25³");
    assert!((1..some.len()).all(|t| some[t] == sent(t) || some[t] == some[t - 1]));
}

#[test]
fn sticky_actions_resume_from_a_saved_state() {
    let env = || {
        let script = Script::game(&NAMES, vec![]);
        (script.log.clone(), WrappedEnv::new(Box::new(script), StickyAction::new(0.5)))
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
    let mut env = WrappedEnv::new(Box::new(Script::numbers(actions, vec![1.0])), StickyAction::new(1.0));
    let mut obs = Obs::zeros(Dtype::F32, 1);
    env.reset(Some(0), obs.as_mut()).unwrap();
    env.step(Action::Continuous(&[0.5]), obs.as_mut()).unwrap();
    env.step(Action::Continuous(&[0.7]), obs.as_mut()).unwrap();
    assert_eq!(env.save_state().unwrap()["own"][1], serde_json::json!({"Continuous": [0.5]}));
}
