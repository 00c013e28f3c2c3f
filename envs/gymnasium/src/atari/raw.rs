//! One Atari game, frame by frame: the environment inside playfield's wrappers, also for the videos of `playfield watch`.

use super::{life_lost, names, rom};
use crate::python::{self, Failure, python_seed, reported};
use data_encoding::BASE64;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use playfield_core::{Action, ActionSpace, Dtype, Env, EnvConfig, EnvSpec, Error, Image, ObsMut, Result, State, Step};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::json;

/// One game of the Arcade Learning Environment. A step is one emulator frame. The observation is the screen in ALE's gray
/// palette, `u8[height, width]` (210 × 160 in nearly every game).
///
/// It neither skips nor repeats frames and has no time limit: wrappers add these. It saves its state, including the emulator's.
/// The emulator holds the GIL, so games on several threads run one after the other: [`AtariVec`](super::AtariVec) is the fast
/// batch.
pub struct AleRaw {
    spec: EnvSpec,
    ale: Option<Py<PyAny>>,
    rom: Option<Py<PyAny>>,
    /// ALE's codes of the actions.
    actions: Vec<i32>,
    /// The buffer that ALE writes the screen into.
    screen: Option<Py<PyArray2<u8>>>,
    lives: u32,
    over: bool,
}

impl AleRaw {
    /// Creates game `id` with `full_action_space` and, from `[env.kwargs]`, `mode` and `difficulty`.
    ///
    /// # Errors
    /// [`Error::Env`] where Python, `ale_py` or the ROM is missing; [`Error::Config`] for other keys of `[env.kwargs]`, and for a
    /// mode or difficulty that the game does not have.
    pub fn new(id: &str, config: &EnvConfig) -> Result<Self> {
        let (mode, difficulty) = options(config)?;
        python::with(id, |py| {
            let path = rom(py, id)?;
            let module = py.import("ale_py")?;
            let class = module.getattr("ALEInterface")?;
            class.call_method1("setLoggerMode", (module.getattr("LoggerMode")?.getattr("Error")?,))?;
            let ale = class.call0()?;
            ale.call_method1("setFloat", ("repeat_action_probability", 0.0_f32))?;
            ale.call_method1("setInt", ("random_seed", 0))?;
            ale.call_method1("loadROM", (&path,))?;
            choose(&ale, "mode", mode, "getAvailableModes", "setMode")?;
            choose(&ale, "difficulty", difficulty, "getAvailableDifficulties", "setDifficulty")?;
            let set = if config.full_action_space { "getLegalActionSet" } else { "getMinimalActionSet" };
            let set = ale.call_method0(set)?;
            let actions = set.try_iter()?.map(|a| a?.getattr("value")?.extract()).collect::<PyResult<Vec<i32>>>()?;
            let (height, width): (usize, usize) = ale.call_method0("getScreenDims")?.extract()?;
            Ok(Self {
                spec: EnvSpec::new(id, &[height, width], Dtype::U8, ActionSpace::Discrete { n: actions.len() })
                    .with_frame_stack(config.frame_stack)
                    .with_action_names(names(&set)?),
                ale: Some(ale.unbind()),
                rom: Some(path.unbind()),
                actions,
                screen: Some(PyArray2::zeros(py, [height, width], false).unbind()),
                lives: 0,
                over: true,
            })
        })
    }

    fn ale<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.ale.as_ref().expect("only drop takes it").bind(py)
    }

    /// Copies the screen to `obs`.
    fn copy_screen(&self, py: Python<'_>, mut obs: ObsMut<'_>) -> std::result::Result<(), Failure> {
        let screen = self.screen.as_ref().expect("only drop takes it").bind(py);
        self.ale(py).call_method1(intern!(py, "getScreenGrayscale"), (screen,))?;
        obs.u8().copy_from_slice(screen.readonly().as_slice()?);
        Ok(())
    }

    fn lives_now(&self, py: Python<'_>) -> PyResult<u32> {
        let lives: i32 = self.ale(py).call_method0(intern!(py, "lives"))?.extract()?;
        Ok(lives.max(0) as u32)
    }
}

impl Env for AleRaw {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<Step> {
        let lives = python::with(&self.spec.id, |py| {
            if let Some(seed) = seed {
                // ALE reads its seed when it loads a ROM, which resets mode and difficulty.
                let ale = self.ale(py);
                let old = ale.call_method0("cloneState")?;
                let (mode, difficulty) = (old.call_method0("getCurrentMode")?, old.call_method0("getDifficulty")?);
                ale.call_method1("setInt", ("random_seed", python_seed(seed)))?;
                ale.call_method1("loadROM", (&self.rom,))?;
                ale.call_method1("setMode", (mode,))?;
                ale.call_method1("setDifficulty", (difficulty,))?;
            }
            self.ale(py).call_method0(intern!(py, "reset_game"))?;
            self.copy_screen(py, obs)?;
            Ok(self.lives_now(py)?)
        })?;
        (self.lives, self.over) = (lives, false);
        Ok(Step::default())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Step> {
        let Action::Discrete(index) = action else {
            return Err(Error::config(format!("{}: an Atari action is discrete", self.spec.id)));
        };
        let Some(&action) = self.actions.get(index) else {
            let last = self.actions.len() - 1;
            return Err(Error::config(format!("{}: action {index}: there are actions 0 to {last}", self.spec.id)));
        };
        if self.over {
            return Err(Error::env(&self.spec.id, "the episode has ended: call `reset` first"));
        }
        let (reward, over, lives) = python::with(&self.spec.id, |py| {
            let ale = self.ale(py);
            let reward: i32 = ale.call_method1(intern!(py, "act"), (action,))?.extract()?;
            let over: bool = ale.call_method0(intern!(py, "game_over"))?.extract()?;
            self.copy_screen(py, obs)?;
            Ok((reward as f32, over, self.lives_now(py)?))
        })?;
        let life_lost = !over && life_lost(self.lives, lives);
        (self.lives, self.over) = (lives, over);
        Ok(Step { reward, terminated: over, truncated: false, life_lost })
    }

    /// The complete state of the emulator, including its random generator (about 14 kB), in base64.
    fn save_state(&self) -> Option<State> {
        let saved = python::with(&self.spec.id, |py| {
            let state = self.ale(py).call_method0("cloneSystemState")?.call_method0("serialize")?;
            let bytes = state.cast_into::<PyBytes>().map_err(PyErr::from)?;
            Ok(BASE64.encode(bytes.as_bytes()))
        });
        Some(json!({ "ale": saved.ok()?, "lives": self.lives, "over": self.over }))
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        let wrong = || Error::env(&self.spec.id, "the saved state is not one of an Atari game");
        let bytes = state["ale"].as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok()).ok_or_else(wrong)?;
        let lives = state["lives"].as_u64().and_then(|l| u32::try_from(l).ok()).ok_or_else(wrong)?;
        let over = state["over"].as_bool().ok_or_else(wrong)?;
        python::with(&self.spec.id, |py| {
            let state = py.import("ale_py")?.getattr("ALEState")?.call1((PyBytes::new(py, &bytes),))?;
            self.ale(py).call_method1("restoreSystemState", (state,))?;
            Ok(())
        })
        .map_err(|_| wrong())?;
        (self.lives, self.over) = (lives, over);
        Ok(())
    }

    fn render(&mut self) -> Result<Option<Image>> {
        python::with(&self.spec.id, |py| {
            let flat = self.ale(py).call_method0("getScreenRGB")?.call_method0("ravel")?;
            let rgb = flat.cast_into::<PyArray1<u8>>().map_err(PyErr::from)?.readonly().as_slice()?.to_vec();
            let [height, width] = self.spec.shape[..] else { unreachable!("a screen has two axes") };
            Ok(Some(Image { width, height, rgb }))
        })
    }

    fn lives(&self) -> u32 {
        self.lives
    }
}

impl Drop for AleRaw {
    fn drop(&mut self) {
        let held = (self.ale.take(), self.rom.take(), self.screen.take());
        Python::attach(|_| drop(held));
    }
}

/// Parses `mode` and `difficulty` of `[env.kwargs]`.
fn options(config: &EnvConfig) -> Result<(Option<i64>, Option<i64>)> {
    let (mut mode, mut difficulty) = (None, None);
    for (key, value) in &config.kwargs {
        let target = match key.as_str() {
            "mode" => &mut mode,
            "difficulty" => &mut difficulty,
            _ => {
                let known = "an Atari game has `mode` and `difficulty`; its other settings are keys of [env]";
                return Err(Error::config(format!("[env.kwargs]: unknown key `{key}`: {known}")));
            }
        };
        let wrong = || Error::config(format!("[env.kwargs]: `{key}` must be an integer"));
        *target = Some(value.as_integer().ok_or_else(wrong)?);
    }
    Ok((mode, difficulty))
}

/// Sets the mode or difficulty, if the game has it.
fn choose(
    ale: &Bound<'_, PyAny>,
    what: &str,
    wanted: Option<i64>,
    list: &str,
    set: &str,
) -> std::result::Result<(), Failure> {
    let Some(wanted) = wanted else { return Ok(()) };
    let known: Vec<i64> = ale.call_method0(list)?.extract()?;
    if !known.contains(&wanted) {
        let message = format!("[env.kwargs]: `{what} = {wanted}`: this game has {known:?}");
        return Err(reported(Error::config(message)));
    }
    ale.call_method1(set, (wanted,))?;
    Ok(())
}
