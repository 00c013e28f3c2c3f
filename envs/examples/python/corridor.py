"""A corridor of ten cells, with a reward at its right end: an example of a Gymnasium environment.

Importing this module registers it, so that it can be created by `env.id = "corridor:Corridor-v0"`.
"""

import gymnasium
import numpy as np

CELLS = 10


class Corridor(gymnasium.Env):
    """Walk left (0) or right (1). The reward is -0.1 per step, and 1 for reaching the last cell, which ends the episode."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(0, 1, shape=(CELLS,), dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.position = 0

    def _observation(self):
        cells = np.zeros(CELLS, dtype=np.float32)
        cells[self.position] = 1
        return cells

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = 0
        return self._observation(), {}

    def step(self, action):
        self.position = min(max(self.position + (1 if action == 1 else -1), 0), CELLS - 1)
        terminated = self.position == CELLS - 1
        return self._observation(), 1.0 if terminated else -0.1, terminated, False, {}


gymnasium.register("Corridor-v0", entry_point="corridor:Corridor", max_episode_steps=100)
