//! Errors in Python become one-line errors that say what to do, and never a panic or a deadlock.

mod common;

use common::{WAYS, config, python, try_wrapped, wrapped};
use playfield_core::{Action, Actions, Dtype, EnvSource, Error, Obs, Result, StepBatch};
use playfield_gymnasium::{AtariSource, GymSource, lookup};

/// The line and the detail of an environment's error.
fn error_of<T>(result: Result<T>) -> (String, String) {
    match result {
        Err(Error::Env { id, message, detail }) => {
            let line = format!("{id}: {message}");
            assert!(!line.contains('\n') && !line.contains("Traceback"), "not one line: {line}");
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
    let (one, _) = error_of(source.env(&config));
    let (batch, detail) = error_of(source.batch(&config, &[1, 2]));
    assert_eq!(one, batch, "one environment and a batch fail alike");
    (batch, detail)
}

#[test]
fn unknown_ids() {
    python();
    assert!(make("CartPoll-v1", "").0.starts_with("CartPoll-v1: Environment `CartPoll` doesn't exist"));
    assert!(make("no_such_module:Thing-v0", "").0.contains("`no_such_module` cannot be found: install it into .venv"));
    let (line, _) = make("tiny:Nothing-v0", "");
    assert_eq!(line, "tiny:Nothing-v0: the module `tiny` registers no `Nothing-v0`; did you mean `tiny:Function-v0`?");
    let atari = AtariSource::new("ALE/Pogn-v5");
    let unknown = "ALE/Pogn-v5: there is no such Atari game: `playfield envs` lists them";
    assert_eq!(error_of(atari.env(&config(&atari, "ALE/Pogn-v5", ""))).0, unknown);
    assert_eq!(error_of(atari.batch(&config(&atari, "ALE/Pogn-v5", ""), &[1])).0, unknown);
}

#[test]
fn lookup_finds_registered_ids() {
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
    let (line, _) = make("tiny:Odd-v0", "kwargs = { which = 'observation' }");
    assert!(line.contains("part 'mission' of its observation") && line.contains("only Box, Discrete"), "{line}");
    assert!(
        make("tiny:Odd-v0", "kwargs = { which = 'action' }")
            .0
            .contains("(2,), int32), and only Discrete, MultiDiscrete")
    );
    let (line, detail) = make("tiny:Odd-v0", "kwargs = { which = 'refuses' }");
    assert_eq!(line, "tiny:Odd-v0: RuntimeError: no such level: 'nowhere'");
    assert!(detail.starts_with("Traceback") && detail.contains("tiny.py"), "{detail}");
    assert!(make("tiny:Odd-v0", "").0.contains("missing 1 required positional argument: 'which'"));
    for (which, expected) in [
        ("empty", "(3, 0), float32), which has no elements: there is nothing to learn from"),
        ("inert", "(0,), float32), which has no elements: there is nothing to decide"),
    ] {
        let (line, _) = make("tiny:Odd-v0", &format!("kwargs = {{ which = '{which}' }}"));
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn a_vector_environment_without_autoreset_mode_is_refused() {
    python();
    let source = GymSource::new("tiny:Late-v0");
    let (line, _) = error_of(source.batch(&config(&source, "tiny:Late-v0", ""), &[1]));
    assert!(line.contains("autoreset_mode") && line.contains("is None: set it"), "{line}");
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
        let config = config(&source, id, &format!("vectorization = '{mode}'\nkwargs = {{ how = '{how}' }}"));
        let mut vec = source.batch(&config, &[1, 2]).unwrap().unwrap();
        let mut batch = StepBatch::new(vec.spec(), 2);
        vec.reset(&mut batch).unwrap();
        vec.step(&actions, &mut batch).unwrap();
        vec.step(&actions, &mut batch).unwrap();
        found.push(error_of(vec.step(&actions, &mut batch)));
        // Later calls may fail, and return at once.
        let _ = vec.step(&actions, &mut batch);
        let _ = vec.reset(&mut batch);
    }
    if how != "exit" {
        let mut env = source.env(&config(&source, id, &format!("kwargs = {{ how = '{how}' }}"))).unwrap();
        let mut obs = Obs::zeros(Dtype::U8, 3);
        env.reset(Some(1), obs.as_mut()).unwrap();
        env.step(Action::Discrete(0), obs.as_mut()).unwrap();
        env.step(Action::Discrete(0), obs.as_mut()).unwrap();
        found.push(error_of(env.step(Action::Discrete(0), obs.as_mut())));
    }
    found
}

#[test]
fn an_exception_in_a_step_is_one_line_with_its_traceback() {
    for (line, detail) in third_step("value") {
        let line = line.replace("environment 0: ", "");
        assert_eq!(line, "tiny:Raises-v0: ValueError: the third step went wrong");
        assert!(detail.contains("tiny.py") && detail.contains("in step"), "{line} / {detail}");
    }
    for (line, detail) in third_step("unspeakable") {
        assert!(line.contains(": Unspeakable: it broke because of"), "{line}");
        assert!(detail.contains("tiny.py"), "{detail}");
    }
}

#[test]
fn results_of_another_shape_are_refused() {
    for (line, _) in third_step("shape") {
        assert!(line.contains("its observation has the shape (2, 2), where its space says (1, 3)"), "{line}");
    }
    for (line, _) in third_step("tuple") {
        assert!(
            line.contains("its `step` did not return (observation, reward, terminated, truncated, info)"),
            "{line}"
        );
    }
}

#[test]
fn a_process_that_dies_is_an_error() {
    for (line, _) in third_step("exit") {
        assert_eq!(line, "tiny:Raises-v0: environment 0: its process died (exit code 3)");
    }
}

#[test]
fn invalid_actions_never_reach_an_environment() {
    python();
    let (atari, cartpole) = (AtariSource::new("ALE/Pong-v5"), GymSource::new("CartPole-v1"));
    let batches = [
        atari.batch(&config(&atari, "ALE/Pong-v5", "num_threads = 1"), &[1, 2]),
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

/// The error where environment 1 of three returns an invalid value in its third step: the same in all ways of stepping.
fn broken(kwargs: &str, settings: &str) -> Option<String> {
    let message = WAYS.map(|way| {
        let mut env = wrapped("tiny:Breaks-v0", &format!("kwargs = {{ {kwargs} }}\n{settings}\n{way}"), 3);
        let (mut batch, actions) = (StepBatch::new(env.spec(), 3), Actions::Discrete(vec![0, 1, 0]));
        env.reset(&mut batch).unwrap();
        (0..3).find_map(|_| env.step(&actions, &mut batch).err()).map(|e| e.to_string())
    });
    for (way, other) in WAYS.iter().zip(&message) {
        assert_eq!(&message[0], other, "{kwargs}: {way}");
    }
    message[0].clone()
}

#[test]
fn invalid_results_are_refused_in_every_way_of_stepping() {
    for (kwargs, expected) in [
        (
            "where = 'observation', what = 'np.full((2, 2), .9)', dtype = 'uint8'",
            "its observation is float64, where its space says uint8",
        ),
        (
            "where = 'observation', what = 'np.full((2, 2), 300)', dtype = 'uint8'",
            "its observation holds 300, which is outside the bounds of its space",
        ),
        (
            "where = 'observation', what = 'np.zeros((2, 1))'",
            "its observation has the shape (2, 1), where its space says (2,)",
        ),
        ("where = 'observation', what = '[\"a\", \"b\"]'", "its observation is <U1, where its space says float32"),
        ("where = 'observation', what = 'None'", "its observation has the shape (), where its space says (2,)"),
        (
            "where = 'observation', what = '[0, float(\"nan\")]'",
            "element 1 of its observation is NaN, and must be finite",
        ),
        ("where = 'observation', what = '[1e39, 0]'", "element 0 of its observation is inf, and must be finite"),
        (
            "where = 'reward', what = 'np.array([1.0, 100.0])'",
            "its reward is array([ 1., 100.]), and must be one number",
        ),
        ("where = 'reward', what = 'None'", "its reward is None, and must be one number"),
        ("where = 'reward', what = '\"1\"'", "its reward is '1', and must be one number"),
        ("where = 'reward', what = '[]'", "its reward is [], and must be one number"),
        ("where = 'reward', what = 'float(\"nan\")'", "its reward is NaN, and must be finite"),
        ("where = 'reward', what = '-np.inf'", "its reward is -inf, and must be finite"),
        ("where = 'reward', what = '1e39'", "its reward is inf, and must be finite"),
        ("where = 'reward', what = '10 ** 400'", "its reward is inf, and must be finite"),
        ("where = 'terminated', what = 'None'", "its `terminated` is None, and must be True or False"),
        (
            "where = 'terminated', what = '[True, False]'",
            "its `terminated` is [True, False], and must be True or False",
        ),
        ("where = 'truncated', what = '\"no\"'", "its `truncated` is 'no', and must be True or False"),
        ("where = 'truncated', what = '2'", "its `truncated` is 2, and must be True or False"),
    ] {
        let message = broken(kwargs, "").expect(kwargs);
        assert!(message.starts_with(&format!("tiny:Breaks-v0: environment 1: {expected}")), "{kwargs}: {message}");
    }
}

#[test]
fn unambiguous_results_are_accepted() {
    for (kwargs, settings) in [
        ("where = 'reward', what = 'np.array([[2.5]])'", ""),
        ("where = 'reward', what = 'np.float16(3)'", ""),
        ("where = 'reward', what = 'True'", ""),
        ("where = 'terminated', what = 'np.bool_(True)'", ""),
        ("where = 'truncated', what = 'np.array([1])'", ""),
        ("where = 'observation', what = '[1, 2]'", ""),
        ("where = 'observation', what = 'np.full((2, 2), 3, np.int64)', dtype = 'uint8'", ""),
        ("where = 'reward', what = '-np.inf'", "clip_reward = 'clamp'"),
        ("where = 'reward', what = '1e39'", "clip_reward = 'sign'"),
    ] {
        assert_eq!(broken(kwargs, settings), None, "{kwargs}, {settings}");
    }
    let message = broken("where = 'reward', what = '-np.inf'", "clip_reward = 'clamp'\nnormalize_reward = true");
    assert!(message.is_some(), "its variance would be infinite");
    assert!(broken("where = 'reward', what = 'np.nan'", "clip_reward = 'clamp'").is_some());
}

/// An id of ALE's without playfield's preprocessing: the error names the id with it.
#[test]
fn other_ids_of_atari_games_name_the_one_with_preprocessing() {
    for (id, expected) in [
        ("PongNoFrameskip-v4", "write `ALE/Pong-v5`"),
        ("BreakoutNoFrameskip-v4", "write `ALE/Breakout-v5`"),
        ("Pong-v4", "write `ALE/Pong-v5`"),
        ("PongNoFrameskip", "write `ALE/Pong-v5`"),
        ("ale_py:ALE/MsPacman-v5", "write `ALE/MsPacman-v5`"),
    ] {
        for way in WAYS {
            let message = try_wrapped(id, way, 1).err().expect(id).to_string();
            assert!(message.contains(expected) && message.contains("preprocessing"), "{id}, {way}: {message}");
        }
    }
}

#[test]
fn an_incomplete_pytorch_is_named_with_the_command() {
    for way in WAYS {
        let message = try_wrapped("tiny:Torch-v0", way, 1).err().expect("it fails").to_string();
        assert!(
            message.contains("`torch` cannot be imported") && message.contains("pip install torch"),
            "{way}: {message}"
        );
    }
}
