"""Examines one Gymnasium environment for `playfield check`: what it returns before it is converted.

A finding is `(check, level, found, advice)`; `level` is "ok", "warning" (it works) or "error" (training fails).
"""

import math
import time

import gymnasium
import numpy as np
from playfield_environments import (
    Actions,
    flag_of,
    has_own_vector,
    make,
    mask_of,
    observations_of,
    renders,
    reward_of,
    short,
)
from playfield_helper import describe, find

# The keys of `info` that playfield reads.
INFO_KEYS = ("lives", "action_mask")
# Seconds after which an examination ends, however slow the steps are.
LONGEST_PASS = 20.0
# The largest number of steps, and of seconds, of a measurement.
MEASURED_STEPS, LONGEST_MEASUREMENT = 200, 1.0
RESET = "declare it as def reset(self, *, seed=None, options=None)"


def inspect_env(name, arguments, steps):
    """The findings over `steps` random actions, and the median duration of a step in seconds (None after an error)."""
    _, spec = find(name)
    if has_own_vector(spec):
        return [], None
    env = make(name, arguments)
    try:
        inspection = Inspection(env)
        seconds = inspection.run(steps)
    finally:
        env.close()
    findings = list(inspection.findings.values())
    if seconds is not None and renders(name):
        findings.append(rendering(name, arguments))
    return findings, seconds


def step_seconds(name, arguments):
    """The median duration of a step of one environment, for `vectorization = "auto"`; None where only a vector environment is
    registered, and after an error, which training reports."""
    _, spec = find(name)
    if has_own_vector(spec):
        return None
    env = make(name, arguments)
    try:
        return Inspection(env).run(MEASURED_STEPS, LONGEST_MEASUREMENT)
    finally:
        env.close()


def rendering(name, arguments):
    """Whether `render` returns an RGB frame. Training needs none."""
    advice = "for `playfield watch`: accept render_mode in __init__, and return a uint8 array of shape (height, width, 3) from render()"
    env = None
    try:
        env = make(name, arguments | {"render_mode": "rgb_array"})
        env.reset(seed=1)
        frame = np.asarray(env.render())
        if frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8:
            return "rendering", "ok", f"frames of {frame.shape[1]} × {frame.shape[0]} pixels", None
        return "rendering", "warning", f"render() returned {frame.dtype}{list(frame.shape)}", advice
    except Exception as exception:
        if not isinstance(exception, TypeError):
            advice = "for `playfield watch`: fix what render() raises (MuJoCo without a display: set MUJOCO_GL=egl)"
        return "rendering", "warning", message(exception), advice
    finally:
        if env is not None:
            env.close()


def message(exception):
    """The exception in one line."""
    kind, text, *_ = describe(exception)
    return " ".join(f"{kind}: {text}".removeprefix(": ").split())


class Inspection:
    """One environment and its findings: the first of each kind."""

    def __init__(self, env):
        self.env, self.findings, self.step, self.info = env, {}, 0, {}
        self.actions, self.random = Actions(env.action_space), np.random.default_rng(1)
        self.keys, self.ends = set(), {"terminated": 0, "truncated": 0, "both": 0}

    def add(self, kind, check, level, found, advice=None):
        self.findings.setdefault(kind, (check, level, found, advice))

    def where(self):
        """The call that returned the value."""
        return f"step {self.step}" if self.step else "reset"

    def run(self, steps, seconds=LONGEST_PASS):
        """Takes `steps` random actions, fewer where they last longer than `seconds`. Returns the median duration of a step, or None after
        an error."""
        durations, has_ended = [], True
        self.env.action_space.seed(1)
        end = time.monotonic() + seconds
        while self.step < steps and time.monotonic() < end and not self.has_error():
            if has_ended:
                has_ended = not self.reset()
            else:
                has_ended = self.advance(durations)
        if self.has_error():
            return None
        self.conclude()
        return float(np.median(durations)) if durations else None

    def has_error(self):
        return any(level == "error" for _, level, *_ in self.findings.values())

    def reset(self):
        """Starts an episode. Whether that worked."""
        try:
            answer = self.env.reset(seed=1 if self.step == 0 else None)
        except Exception as exception:
            text = message(exception)
            is_signature = isinstance(exception, TypeError) and ("seed" in text or "options" in text)
            advice = RESET if is_signature else "fix the exception; `playfield train --verbose` prints its traceback"
            self.add("reset", "reset", "error", text, advice)
            return False
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            self.add("reset", "reset", "error", f"reset returned {short(answer)}", "return observation, info")
            return False
        self.check_observation(answer[0])
        self.check_info(answer[1])
        return True

    def advance(self, durations):
        """Takes a random action. Whether the episode ended."""
        action, start = self.sample(), time.perf_counter()
        if action is None:
            return True
        self.step += 1
        try:
            answer = self.env.step(action)
        except Exception as exception:
            advice = "fix the exception; `playfield train --verbose` prints its traceback"
            self.add("step", "step", "error", f"{message(exception)} ({self.where()}, action {short(action)})", advice)
            return True
        durations.append(time.perf_counter() - start)
        if not isinstance(answer, (tuple, list)) or len(answer) != 5:
            size = len(answer) if isinstance(answer, (tuple, list)) else 1
            advice = "return observation, reward, terminated, truncated, info"
            self.add("step", "step", "error", f"step returned {size} values", advice)
            return True
        observation, reward, terminated, truncated, info = answer
        self.check_observation(observation)
        self.check_reward(reward)
        self.check_info(info)
        try:
            terminated, truncated = flag_of("terminated", terminated), flag_of("truncated", truncated)
        except Exception as exception:
            advice = "return bool(terminated), bool(truncated)"
            self.add("flags", "episodes", "error", f"{message(exception)} ({self.where()})", advice)
            return True
        self.ends["terminated"] += terminated
        self.ends["truncated"] += truncated
        self.ends["both"] += terminated and truncated
        return terminated or truncated

    def sample(self):
        """A random action, of the valid ones where the environment states them; None where none is."""
        if not self.actions.sizes:
            return self.env.action_space.sample()
        has_method = self.env.has_wrapper_attr("action_masks")
        try:
            mask = self.actions.mask(self.env.get_wrapper_attr("action_masks")() if has_method else mask_of(self.info))
            choices = np.split(np.frombuffer(mask, np.uint8), np.cumsum(self.actions.sizes)[:-1])
            indices = np.array([self.random.choice(np.flatnonzero(valid)) for valid in choices])
        except Exception as exception:
            advice = "return a 1 for each valid action and a 0 for the others, at least one 1"
            self.add("mask", "info", "error", f"{message(exception)} ({self.where()})", advice)
            return None
        return self.actions.convert(indices[0] if self.actions.is_discrete else indices)

    def check_observation(self, observation):
        """The observation must be convertible, and should be in its space."""
        space = self.env.observation_space
        advice = "change observation_space, or return what it says"
        try:
            observations_of(space).copy(observation)
        except Exception as exception:
            self.add("observation", "observation", "error", f"{message(exception)} ({self.where()})", advice)
            return
        for part, space, value in parts("observation", space, observation):
            if not isinstance(space, gymnasium.spaces.Box):
                continue
            array = np.asarray(value)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                index = np.argwhere(~np.isfinite(array))[0].tolist()
                found = f"{part}{index or ''} is {array[tuple(index)]} ({self.where()})"
                self.add("observation", "observation", "error", found, "return finite numbers")
                return
            outside = (array < space.low) | (array > space.high)
            if outside.any():
                index = tuple(np.argwhere(outside)[0].tolist())
                found = f"{part}{list(index) or ''} is {array[index]:g}, outside {space.low[index]:g} to {space.high[index]:g}"
                advice = "widen the bounds of observation_space, or clip"
                self.add("bounds", "observation", "warning", f"{found} ({self.where()})", advice)
            if not np.can_cast(array.dtype, space.dtype):
                found = f"{part} is {array.dtype}, and its space {space.dtype}: it is converted at each step"
                self.add("dtype", "observation", "warning", found, f"return {part}.astype(np.{space.dtype})")

    def check_reward(self, reward):
        try:
            value = reward_of(reward)
        except Exception as exception:
            self.add("reward", "reward", "error", f"{message(exception)} ({self.where()})", "return one float")
            return
        if not math.isfinite(value):
            self.add("reward", "reward", "error", f"the reward is {value} ({self.where()})", "return finite numbers")

    def check_info(self, info):
        self.info = info
        if not isinstance(info, dict):
            advice = "return a dictionary: {} where there is nothing to report"
            self.add("info", "info", "warning", f"info is {short(info)}", advice)
            return
        self.keys |= {str(key) for key in info}
        lives = info.get("lives")
        if lives is not None and (not isinstance(lives, (int, np.integer)) or isinstance(lives, bool)):
            found = f"info[\"lives\"] is {short(lives)}, and is ignored"
            self.add("lives", "info", "warning", found, "make it an int: env.episodic_life reads it")

    def conclude(self):
        """The findings of all steps together."""
        if not any(check == "observation" for check, *_ in self.findings.values()):
            self.add("observation", "observation", "ok", f"in its space, {short(self.env.observation_space)}")
        if self.ends["both"] and self.ends["both"] == self.ends["truncated"]:
            found = f"`truncated` is set only together with `terminated` ({self.ends['both']} times): it counts as terminated"
            advice = "set `terminated` where the task ends, `truncated` where a limit cuts it (its value is bootstrapped)"
            self.add("flags", "episodes", "warning", found, advice)
        read = [key for key in INFO_KEYS if key in self.keys]
        others = sorted(self.keys - set(read))
        found = f"playfield reads {', '.join(read) or 'nothing'}"
        found += f", and ignores {', '.join(others[:8])}{' …' if len(others) > 8 else ''}" if others else ""
        self.add("keys", "info", "ok", found)


def parts(name, space, value):
    """The name, space and value of each part of an observation."""
    if isinstance(space, gymnasium.spaces.Dict):
        for key, part in space.spaces.items():
            yield from parts(f"{name}[{key!r}]", part, value[key])
    elif isinstance(space, gymnasium.spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from parts(f"{name}[{index}]", part, value[index])
    else:
        yield name, space, value
