"""A corridor with a reward at its right end: an example of an environment in Python."""

import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
    """Walk left (0) or right (1). The reward is -0.1 per step, and 1 for reaching the last cell, which ends the episode."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, cells=10, render_mode=None):
        self.observation_space = gymnasium.spaces.Box(0, 1, (cells,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.cells, self.render_mode = cells, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)  # seeds self.np_random
        self.position = int(self.np_random.integers(self.cells // 2))
        return self.observe(), {}

    def step(self, action):
        self.position = min(max(self.position + (1 if action == 1 else -1), 0), self.cells - 1)
        terminated = self.position == self.cells - 1
        return self.observe(), 1.0 if terminated else -0.1, terminated, False, {}

    def observe(self):
        return np.eye(self.cells, dtype=np.float32)[self.position]

    def render(self):
        frame = np.full((16, 16 * self.cells, 3), 230, np.uint8)
        frame[:, 16 * self.position : 16 * (self.position + 1)] = (200, 40, 40)
        return frame
