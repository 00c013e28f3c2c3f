//! `check_env` finds nothing wrong with right environments, and names what is wrong with the others.

mod common;

use common::{config, python};
use playfield_core::check::{Finding, Level};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvConfig, EnvSource, EnvSpec, Image, ObsMut, Result, Step};
use playfield_gymnasium::{AtariSource, GymSource};
use playfield_wrappers::check_env;
use std::sync::Arc;

fn check(source: Arc<dyn EnvSource>, id: &str, settings: &str, steps: u64) -> Vec<Finding> {
    python();
    let config = config(&*source, id, settings);
    check_env(&source, &config, steps)
}

fn python_class(class: &str, settings: &str) -> Vec<Finding> {
    let id = format!("{}/tests/python/wrong.py:{class}", env!("CARGO_MANIFEST_DIR"));
    check(Arc::new(GymSource::new(id.clone())), &id, settings, 1500)
}

fn bad(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.level != Level::Ok).collect()
}

/// The value found of a check.
fn found<'a>(findings: &'a [Finding], check: &str) -> &'a str {
    &findings.iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("{check}: {findings:?}")).found
}

#[test]
fn right_environments_have_no_findings() {
    let cart_pole = || playfield_classic::sources().into_iter().find(|(id, ..)| *id == "CartPole").unwrap().2;
    let tic_tac_toe = playfield_classic::sources().into_iter().find(|(id, ..)| *id == "TicTacToe").unwrap().2;
    for (source, id) in [
        (cart_pole(), "CartPole"),
        (tic_tac_toe, "TicTacToe"),
        (Arc::new(GymSource::new("CartPole-v1")) as Arc<dyn EnvSource>, "CartPole-v1"),
        (Arc::new(GymSource::new("LunarLander-v3")), "LunarLander-v3"),
        (Arc::new(GymSource::new("Blackjack-v1")), "Blackjack-v1"),
    ] {
        let findings = check(source, id, "", 2000);
        assert!(bad(&findings).is_empty(), "{id}: {:?}", bad(&findings));
        for name in ["spaces", "reward", "episodes", "seeds", "batch", "rendering", "speed"] {
            found(&findings, name);
        }
        assert!(found(&findings, "seeds").contains("another seed changes them"), "{id}");
    }
    let lake = check(Arc::new(GymSource::new("FrozenLake-v1")), "FrozenLake-v1", "", 4000);
    assert!(bad(&lake).is_empty(), "{:?}", bad(&lake));
    assert!(found(&lake, "spaces").contains("vectors f32[16], 4 actions"));
    for mode in ["sync", "async"] {
        let findings = python_class("Right", &format!("vectorization = '{mode}'"));
        assert!(bad(&findings).is_empty(), "{:?}", bad(&findings));
        assert!(found(&findings, "rendering").contains("40 × 30"));
        assert!(found(&findings, "info").contains("playfield reads nothing, and ignores t"));
        assert!(found(&findings, "speed").contains("playfield's own part"));
    }
}

/// The rows of a vector environment with next-step autoreset start their episodes later than an environment alone.
#[test]
fn a_vector_environment_is_right() {
    let id = "tiny:UnevenVector-v0";
    for mode in ["SAME_STEP", "NEXT_STEP", "DISABLED"] {
        let findings = check(Arc::new(GymSource::new(id)), id, &format!("kwargs = {{ mode = '{mode}' }}"), 200);
        assert!(findings.iter().all(|finding| finding.level != Level::Error), "{mode}: {:?}", bad(&findings));
        assert!(found(&findings, "batch").starts_with("3 environments equal 3 alone"), "{mode}");
    }
    let findings = check(Arc::new(GymSource::new("tiny:CartPoleVector-v0")), "tiny:CartPoleVector-v0", "", 200);
    assert!(findings.iter().all(|finding| finding.level != Level::Error), "{:?}", bad(&findings));
    assert!(found(&findings, "batch").contains("its rows have one seed"));
}

#[test]
fn atari_games_are_right() {
    let findings = check(Arc::new(AtariSource::new("ALE/Breakout-v5")), "ALE/Breakout-v5", "", 1500);
    assert!(bad(&findings).is_empty(), "{:?}", bad(&findings));
    assert!(found(&findings, "spaces").contains("images u8[84, 84], 4 actions"));
}

#[test]
fn each_wrong_environment_is_named() {
    for (class, check, level, value, advice) in [
        ("Bounds", "observation", Level::Warning, "observation[0] is", "widen the bounds"),
        (
            "Doubles",
            "observation",
            Level::Warning,
            "observation is float64, and its space float32",
            "astype(np.float32)",
        ),
        (
            "Shape",
            "observation",
            Level::Error,
            "has the shape (3,), where its space says (2,) (reset)",
            "observation_space",
        ),
        ("Undefined", "observation", Level::Error, "observation[0] is nan (reset)", "finite"),
        ("Blank", "observation", Level::Warning, "was the same in 1,500 steps", "return what the action changes"),
        ("Large", "observation", Level::Warning, "elements from -", "normalize_obs"),
        ("Dark", "observation", Level::Warning, "pixels from 0 to 1, of 255", "0..255"),
        ("NoSeed", "reset", Level::Error, "TypeError", "def reset(self, *, seed=None, options=None)"),
        ("OnlyObservation", "reset", Level::Error, "reset returned array(", "return observation, info"),
        ("FourValues", "step", Level::Error, "step returned 4 values", "terminated, truncated, info"),
        ("Raises", "step", Level::Error, "ValueError: the third step (step 4, action", "--verbose"),
        ("NoReward", "reward", Level::Error, "its reward is None, and must be one number (step 1)", "one float"),
        ("UndefinedReward", "reward", Level::Error, "the reward is nan (step 1)", "finite"),
        ("Unseeded", "seeds", Level::Error, "with the same seed and actions differ: the", "self.np_random"),
        ("SameStart", "seeds", Level::Warning, "begins with the same observation", "super().reset(seed=seed)"),
        ("Shared", "seeds", Level::Error, "the reward of step", "self.np_random"),
        ("Endless", "episodes", Level::Warning, "no episode ended in 1,500 steps", "env.max_episode_steps"),
        ("Limit", "episodes", Level::Warning, "15 of 100 to 100 steps: 15 terminated, 0 truncated", "truncated = True"),
        ("Both", "episodes", Level::Warning, "only together with `terminated`", "where a limit cuts it"),
        (
            "Constant",
            "reward",
            Level::Warning,
            "every reward is -1, and every return is the same",
            "reward what is wanted",
        ),
        ("Rich", "reward", Level::Warning, "from -", "normalize_reward"),
        ("Poor", "reward", Level::Warning, "from -0.0000", "multiply it"),
        ("NoInfo", "info", Level::Warning, "info is None", "return a dictionary"),
        ("Lives", "info", Level::Warning, "info[\"lives\"] is 2.5, and is ignored", "make it an int"),
        ("NothingValid", "info", Level::Error, "(step 1)", "at least one 1"),
        ("NoRenderMode", "rendering", Level::Warning, "render_mode", "accept render_mode in __init__"),
        ("Lists", "rendering", Level::Warning, "render() returned uint8[1, 30, 40, 3]", "(height, width, 3)"),
        ("Unbounded", "spaces", Level::Warning, "a bound is infinite", "finite bounds"),
        ("Frames", "spaces", Level::Warning, "a vector of 12288 elements", "convolutional"),
        ("NoConstructor", "create", Level::Error, "missing 1 required positional argument: 'level'", "fix"),
    ] {
        let findings = python_class(class, "");
        let bad = bad(&findings);
        assert_eq!(bad.len(), 1, "{class}: {findings:#?}");
        let finding = bad[0];
        assert_eq!((finding.check.as_str(), finding.level), (check, level), "{class}: {finding:?}");
        assert!(finding.found.contains(value), "{class}: {finding:?}");
        assert!(finding.advice.as_ref().unwrap().contains(advice), "{class}: {finding:?}");
    }
    let still = python_class("Still", "");
    assert!(bad(&still).is_empty() && found(&still, "rendering") == "no frames", "{still:?}");
    let hidden = python_class("Rich", "clip_reward = 'clamp'");
    assert_eq!(bad(&hidden).len(), 1, "rewards are examined as they are: {hidden:?}");
}

/// An environment that hangs is found with a time limit, also where it would crash this program.
#[test]
fn a_time_limit_is_part_of_the_check() {
    let id = format!("{}/tests/python/failing.py:Fails", env!("CARGO_MANIFEST_DIR"));
    for (settings, expected) in [
        ("kwargs = { how = 'sleep' }", "environment 0: its step or reset took longer than 0.5 s"),
        (
            "kwargs = { how = 'sleep' }\nvectorization = 'async'",
            "environment 0: its step or reset took longer than 0.5 s",
        ),
        ("kwargs = { how = 'crash' }\nvectorization = 'async'", "environment 0: its process died (SIGSEGV)"),
    ] {
        let settings = format!("step_timeout_seconds = 0.5\n{settings}");
        let findings = check(Arc::new(GymSource::new(id.clone())), &id, &settings, 100);
        let [finding] = bad(&findings)[..] else { panic!("{findings:?}") };
        assert_eq!((finding.check.as_str(), finding.level), ("step", Level::Error));
        assert!(finding.found.contains(expected), "{finding:?}");
    }
}

/// An environment in Rust with one property that is wrong.
struct Wrong {
    spec: EnvSpec,
    wrong: &'static str,
    state: u64,
    steps: u32,
}

impl Wrong {
    fn new(wrong: &'static str) -> Self {
        Self {
            spec: EnvSpec::new("Wrong", &[1], Dtype::F32, ActionSpace::Discrete { n: 2 }),
            wrong,
            state: 0,
            steps: 0,
        }
    }

    fn next(&mut self, mut obs: ObsMut<'_>) {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        obs.f32()[0] = (self.state >> 40) as f32 / (1 << 24) as f32;
        if self.wrong == "nan" && self.steps == 5 {
            obs.f32()[0] = f32::NAN;
        }
    }
}

impl Env for Wrong {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        match (seed, self.wrong) {
            (Some(_), "seed") => self.state = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            (Some(seed), _) => self.state = seed,
            _ => {}
        }
        self.steps = 0;
        self.next(obs);
        Ok(Step::default())
    }
    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        self.steps += 1;
        self.next(obs);
        assert!(self.wrong != "panic" || self.steps < 5, "no such cell");
        let terminated = self.state >> 61 == 0;
        let reward = if action == Action::Discrete(1) { 1.0 } else { 0.0 };
        Ok(Step { reward, terminated, truncated: terminated && self.wrong == "both", life_lost: false })
    }
    fn render(&mut self) -> Result<Option<Image>> {
        Ok(Some(Image { width: 2, height: 1, rgb: vec![0; 6] }))
    }
}

#[test]
fn environments_in_rust_are_checked() {
    let check = |wrong: &'static str| {
        let source: Arc<dyn EnvSource> = Arc::new(playfield_core::env::source(move |_| Ok(Wrong::new(wrong))));
        check_env(&source, &EnvConfig { id: "Wrong".into(), ..EnvConfig::default() }, 500)
    };
    let right = check("nothing");
    assert!(bad(&right).is_empty() && found(&right, "rendering") == "frames of 2 × 1 pixels", "{right:?}");
    for (wrong, name, level, value) in [
        ("nan", "step", Level::Error, "element 0 of its observation is NaN"),
        ("seed", "seeds", Level::Error, "the same seed and actions differ: the observation of step 0"),
        ("panic", "step", Level::Error, "no such cell"),
        ("both", "episodes", Level::Warning, "both set"),
    ] {
        let findings = check(wrong);
        let bad = bad(&findings);
        assert_eq!(bad.len(), 1, "{wrong}: {findings:#?}");
        assert_eq!((bad[0].check.as_str(), bad[0].level), (name, level), "{wrong}: {findings:#?}");
        assert!(bad[0].found.contains(value), "{wrong}: {findings:#?}");
    }
}
