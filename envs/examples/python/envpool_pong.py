"""EnvPool's Pong, trained with the configurations of ALE's: playfield train configs/ppo/pong.toml --env envs/examples/python/envpool_pong.py:Pong"""

import envpool
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv


class Pong(VectorEnv):
    """EnvPool skips and resizes frames; playfield stacks them."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs, render_mode=None, **settings):
        self.num_envs, self.settings = num_envs, settings
        self.make(range(num_envs))
        self.single_observation_space, self.single_action_space = self.pool.observation_space, self.pool.action_space

    def make(self, seeds):
        self.pool = envpool.make(
            "Pong-v5", env_type="gymnasium", num_envs=self.num_envs, env_seed=list(seeds), stack_num=1, **self.settings
        )

    def reset(self, *, seed=None, options=None):
        if seed is not None:  # EnvPool takes seeds when it is made
            self.make(range(seed, seed + self.num_envs) if isinstance(seed, int) else seed)
        return self.pool.reset()

    def step(self, actions):
        return self.pool.step(actions.astype(np.int32))
