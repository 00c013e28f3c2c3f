"""Environments of a user's own, as `tiny:Id`: small enough to know every number, and some that misbehave."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode


class Count(gymnasium.Env):
    """Bytes: steps so far, the last action, the seed's lowest byte. Five lives, one lost every third step."""

    def __init__(self, scale=1, names=None):
        self.observation_space = Box(0, 255, (1, 3), np.uint8)
        self.action_space = Discrete(4, start=10)
        self.scale, self.names, self.seed = scale, names, 0

    def get_action_meanings(self):
        return self.names or []

    def _answer(self):
        return np.array([[self.t, self.last, self.seed]], np.uint8)

    def _info(self):
        return {"lives": 5 - self.t // 3}

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.seed = seed & 0xFF
        self.t, self.last = 0, 0
        return self._answer(), self._info()

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t, self.last = self.t + 1, int(action)
        return self._answer(), self.scale * self.t, self.t == 15, False, self._info()


class Clip(gymnasium.Env):
    """Says which action arrived, in doubles."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(np.array([-1.0, -2.0]), np.array([1.0, np.inf]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        return np.array([0.1, 0.2]), {}

    def step(self, action):
        assert action.dtype == np.float64 and self.action_space.contains(action)
        return action, 0.0, False, False, {}


class Unspeakable(Exception):
    """An exception that cannot travel between processes."""

    def __init__(self, what, why):
        super().__init__(f"{what} because {why}")
        self.lock = lambda: None


class Raises(Count):
    """Fails in its third step."""

    def __init__(self, how="value"):
        super().__init__()
        self.how = how

    def step(self, action):
        if self.t == 2:
            if self.how == "value":
                raise ValueError("the third step\nwent wrong")
            if self.how == "unspeakable":
                raise Unspeakable("it broke", "of\x00old age")
            if self.how == "exit":
                import os

                os._exit(3)
            if self.how == "shape":
                return np.zeros((2, 2), np.uint8), 0.0, False, False, {}
            if self.how == "tuple":
                return np.zeros((1, 3), np.uint8), 0.0, False, {}
        return super().step(action)


class Odd(Count):
    """Spaces that playfield does not take."""

    def __init__(self, which):
        super().__init__()
        if which == "observation":
            self.observation_space = Dict(a=Discrete(2))
        elif which == "action":
            self.action_space = MultiDiscrete([2, 3])
        elif which == "refuses":
            raise RuntimeError("no such level: 'nowhere'")


class Late(gymnasium.vector.VectorEnv):
    """A batch with a mind of its own about resets."""

    def __init__(self, num_envs, **kwargs):
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = Box(0, 1, (1,)), Discrete(2)


for made, limit in ((Count, 8), (Clip, 5), (Raises, None), (Odd, None)):
    gymnasium.register(f"{made.__name__}-v0", entry_point=made, max_episode_steps=limit)
gymnasium.register("Late-v0", vector_entry_point=Late)
