"""Environments for `playfield check`: a right one, and some of which each does one thing wrong."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Right(gymnasium.Env):
    """A noisy walk to one of two ends: 1 for the right end, -1 for the left."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = Box(-10, 10, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1), 0
        return self.observation(), {}

    def observation(self):
        return np.array([self.x, self.t / 100], np.float32)

    def step(self, action):
        self.x += (2 * action - 1) * self.np_random.uniform(0, 1)
        self.t += 1
        return self.observation(), self.reward(), abs(self.x) > 4, self.t == 100, {"t": self.t}

    def reward(self):
        return float(np.sign(self.x)) if abs(self.x) > 4 else 0.0

    def render(self):
        return np.zeros((30, 40, 3), np.uint8)


class Bounds(Right):
    observation_space = Box(-2, 2, (2,), np.float32)


class Doubles(Right):
    def observation(self):
        return super().observation().astype(np.float64)


class Shape(Right):
    def observation(self):
        return np.zeros(3, np.float32)


class Undefined(Right):
    def observation(self):
        return np.array([np.nan, 0], np.float32)


class Blank(Right):
    def observation(self):
        return np.zeros(2, np.float32)


class Large(Right):
    observation_space = Box(-np.inf, np.inf, (2,), np.float32)

    def observation(self):
        return 1000 * super().observation()


class Dark(Right):
    """An image whose pixels are 0 or 1."""

    observation_space = Box(0, 255, (30, 30), np.uint8)

    def observation(self):
        image = np.zeros((30, 30), np.uint8)
        image[self.t % 30] = 1
        return image


class NoSeed(Right):
    def reset(self):
        return super().reset()


class OnlyObservation(Right):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class FourValues(Right):
    def step(self, action):
        return super().step(action)[:4]


class Raises(Right):
    def step(self, action):
        if self.t == 3:
            raise ValueError("the third step")
        return super().step(action)


class NoReward(Right):
    def reward(self):
        return None


class UndefinedReward(Right):
    def reward(self):
        return float("nan")


class Unseeded(Right):
    """Draws from the global random stream."""

    def step(self, action):
        self.x += np.random.uniform(-1, 1)
        return super().step(action)


class SameStart(Right):
    """Seeds itself anew in every reset, with the first seed."""

    def reset(self, *, seed=None, options=None):
        self.first = seed if seed is not None else self.first
        return super().reset(seed=self.first)


class Shared(Right):
    """Keeps its state in the class."""

    total = [0]

    def step(self, action):
        self.total[0] += 1
        observation, _, *rest = super().step(action)
        return observation, float(self.total[0] % 2), *rest

    def reset(self, *, seed=None, options=None):
        self.total[0] = 0
        return super().reset(seed=seed)


class Endless(Right):
    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        return np.clip(observation, -10, 10), reward, False, False, info


class Limit(Right):
    """Returns its time limit as a termination."""

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return np.clip(observation, -10, 10), reward, truncated, False, info


class Both(Right):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, terminated or truncated, info


class Constant(Right):
    """Episodes of ten steps, which pay the same."""

    def step(self, action):
        observation, _, _, _, info = super().step(action)
        return observation, -1.0, False, self.t == 10, info


class Rich(Right):
    def reward(self):
        return 5000.0 * self.x


class Poor(Right):
    def reward(self):
        return 1e-5 * self.x


class NoInfo(Right):
    def step(self, action):
        return *super().step(action)[:4], None


class Lives(Right):
    def step(self, action):
        return *super().step(action)[:4], {"lives": 2.5, "score": 1}


class NoRenderMode(Right):
    def __init__(self):
        pass


class Lists(Right):
    """Renders a list of frames."""

    def render(self):
        return [np.zeros((30, 40, 3), np.uint8)]


class Still(Right):
    """Does not render."""

    metadata = {"render_modes": []}


class Unbounded(Right):
    action_space = Box(-np.inf, np.inf, (2,), np.float32)

    def step(self, action):
        return super().step(int(action[0] > 0))


class Frames(Right):
    """Images of floats without bounds: a vector of 12,288 elements."""

    observation_space = Box(-np.inf, np.inf, (64, 64, 3), np.float32)

    def observation(self):
        return np.full((64, 64, 3), self.x, np.float32)


class NoConstructor(Right):
    def __init__(self, level):
        pass


class NothingValid(Right):
    """Its mask is a list of zeros after the first step."""

    def step(self, action):
        return *super().step(action)[:4], {"action_mask": np.zeros(2, np.int8)}

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"action_mask": np.ones(2, np.int8)}
