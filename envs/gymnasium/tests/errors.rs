//! What goes wrong in Python comes out as one sentence that says what to do, at once, and never as a panic or a hang.

mod common;

use common::{config, python};
use playfield_core::{Action, Actions, Dtype, EnvSource, Error, Obs, Result, StepBatch};
use playfield_gymnasium::{AtariSource, GymSource, lookup};

/// The sentence and the detail of an environment's error.
fn said<T>(result: Result<T>) -> (String, String) {
    match result {
        Err(Error::Env { id, message, detail }) => {
            let line = format!("{id}: {message}");
            assert!(!line.contains('\n') && !line.contains("Traceback"), "not one sentence: {line}");
            (line, detail.unwrap_or_default())
        }
        Err(other) => panic!("not an environment's error: {other}"),
        Ok(_) => panic!("it worked"),
    }
}

fn make(id: &str, settings: &str) -> (String, String) {
    python();
    let source = GymSource::new(id);
    let config = config(&source, id, settings);
    let (one, _) = said(source.env(&config));
    let (batch, detail) = said(source.batch(&config, &[1, 2]));
    assert_eq!(one, batch, "one environment and a batch fail alike");
    (batch, detail)
}

#[test]
fn unknown_ids() {
    python();
    assert!(make("CartPoll-v1", "").0.starts_with("CartPoll-v1: Environment `CartPoll` doesn't exist"));
    assert!(make("no_such_module:Thing-v0", "").0.contains("`no_such_module` cannot be found: install it into .venv"));
    assert!(make("tiny:Nothing-v0", "").0.contains("doesn't exist"));
    let atari = AtariSource::new("ALE/Pogn-v5");
    let unknown = "ALE/Pogn-v5: there is no such Atari game: `playfield envs` lists them";
    assert_eq!(said(atari.env(&config(&atari, "ALE/Pogn-v5", ""))).0, unknown);
    assert_eq!(said(atari.batch(&config(&atari, "ALE/Pogn-v5", ""), &[1])).0, unknown);
}

#[test]
fn lookup_knows_what_can_be_made() {
    python();
    for id in ["ALE/Pong-v5", "CartPole-v1", "CartPole", "PongNoFrameskip-v4", "whatever:Id-v0"] {
        assert!(lookup(id).is_some(), "{id}");
    }
    for id in ["ALE/Pogn-v5", "CartPoll-v1", "CartPole-v", ""] {
        assert!(lookup(id).is_none(), "{id}");
    }
    let ids = playfield_gymnasium::ids().unwrap();
    for id in ["ALE/Pong-v5", "ALE/Breakout-v5", "CartPole-v1", "Pendulum-v1"] {
        assert_eq!(ids.iter().filter(|known| *known == id).count(), 1, "{id}");
    }
    assert!(ids.iter().all(|id| !id.contains("NoFrameskip")));
}

#[test]
fn packages_that_an_environment_needs_are_named_with_the_command() {
    let (line, _) = make("Ant-v5", "");
    assert!(line.contains("pip install") && line.contains("gymnasium[mujoco]"), "{line}");
}

#[test]
fn spaces_that_are_not_supported_are_named() {
    assert!(make("tiny:Odd-v0", "kwargs = { which = 'observation' }").0.contains("Dict('a': Discrete(2))"));
    assert!(make("tiny:Odd-v0", "kwargs = { which = 'action' }").0.contains("MultiDiscrete([2 3])"));
    let (line, detail) = make("tiny:Odd-v0", "kwargs = { which = 'refuses' }");
    assert_eq!(line, "tiny:Odd-v0: RuntimeError: no such level: 'nowhere'");
    assert!(detail.starts_with("Traceback") && detail.contains("tiny.py"), "{detail}");
    assert!(make("tiny:Odd-v0", "").0.contains("missing 1 required positional argument: 'which'"));
}

#[test]
fn a_batch_that_resets_itself_otherwise_is_refused() {
    python();
    let source = GymSource::new("tiny:Late-v0");
    let (line, _) = said(source.batch(&config(&source, "tiny:Late-v0", ""), &[1]));
    assert!(line.contains("NEXT_STEP") && line.contains("SAME_STEP"), "{line}");
}

/// The environment's third step fails: in one environment, in a batch, in processes.
fn third_step(how: &str) -> Vec<(String, String)> {
    python();
    let id = "tiny:Raises-v0";
    let source = GymSource::new(id);
    let actions = Actions::Discrete(vec![0, 0]);
    let mut found = Vec::new();
    for mode in ["sync", "async"] {
        if mode == "sync" && how == "exit" {
            continue; // it would end this test
        }
        let config = config(&source, id, &format!("vectorisation = '{mode}'\nkwargs = {{ how = '{how}' }}"));
        let mut vec = source.batch(&config, &[1, 2]).unwrap().unwrap();
        let mut batch = StepBatch::new(vec.spec(), 2);
        vec.reset(&mut batch).unwrap();
        vec.step(&actions, &mut batch).unwrap();
        vec.step(&actions, &mut batch).unwrap();
        found.push(said(vec.step(&actions, &mut batch)));
        // Whatever comes after a failure may fail, and does so at once.
        let _ = vec.step(&actions, &mut batch);
        let _ = vec.reset(&mut batch);
    }
    if how != "exit" {
        let mut env = source.env(&config(&source, id, &format!("kwargs = {{ how = '{how}' }}"))).unwrap();
        let mut obs = Obs::zeros(Dtype::U8, 3);
        env.reset(Some(1), obs.as_mut()).unwrap();
        env.step(Action::Discrete(0), obs.as_mut()).unwrap();
        env.step(Action::Discrete(0), obs.as_mut()).unwrap();
        found.push(said(env.step(Action::Discrete(0), obs.as_mut())));
    }
    found
}

#[test]
fn an_exception_in_a_step_is_one_sentence_with_its_traceback() {
    for (line, detail) in third_step("value") {
        assert_eq!(line, "tiny:Raises-v0: ValueError: the third step went wrong");
        assert!(detail.contains("tiny.py") && detail.contains("in step"), "{line} / {detail}");
    }
    for (line, detail) in third_step("unspeakable") {
        assert!(line.starts_with("tiny:Raises-v0: Unspeakable: it broke because of"), "{line}");
        assert!(detail.contains("tiny.py"), "{detail}");
    }
}

#[test]
fn answers_of_another_shape_are_refused() {
    for (line, _) in third_step("shape") {
        assert!(line.contains("observation") || line.contains("shape") || line.contains("broadcast"), "{line}");
    }
    for (line, _) in third_step("tuple") {
        assert!(
            line.contains("did not return") || line.contains("values to unpack") || line.contains("tuple"),
            "{line}"
        );
    }
}

#[test]
fn a_process_that_dies_is_an_error() {
    for (line, _) in third_step("exit") {
        assert_eq!(line, "tiny:Raises-v0: the process of an environment died");
    }
}

#[test]
fn wrong_actions_never_reach_an_environment() {
    python();
    let (atari, cartpole) = (AtariSource::new("ALE/Pong-v5"), GymSource::new("CartPole-v1"));
    let batches = [
        atari.batch(&config(&atari, "ALE/Pong-v5", "threads = 1"), &[1, 2]),
        cartpole.batch(&config(&cartpole, "CartPole-v1", ""), &[1, 2]),
    ];
    for vec in batches {
        let mut vec = vec.unwrap().unwrap();
        let mut batch = StepBatch::new(vec.spec(), 2);
        vec.reset(&mut batch).unwrap();
        let wrong = [
            Actions::Discrete(vec![0, 99]),
            Actions::Discrete(vec![-1, 0]),
            Actions::Discrete(vec![0]),
            Actions::Continuous { values: vec![0.0, 0.0], dim: 1 },
        ];
        for actions in wrong {
            assert!(matches!(vec.send(&actions), Err(Error::Config(_))), "{actions:?}");
        }
        assert!(vec.recv(&mut batch).is_err(), "nothing was sent");
        vec.send(&Actions::Discrete(vec![0, 0])).unwrap();
        assert!(vec.send(&Actions::Discrete(vec![0, 0])).is_err(), "sent twice");
        vec.recv(&mut batch).unwrap();
    }
}
