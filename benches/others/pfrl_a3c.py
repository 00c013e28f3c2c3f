"""Agent steps per second of PFRL's A3C on Pong: two processes, the network and settings of its Atari example, start-up included."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # Each process has one core.

import tempfile
import time
import warnings

import ale_py
import gymnasium
import numpy as np
import pfrl
import torch
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from pfrl.utils import random_seed
from pfrl.utils.async_ import AbnormalExitWarning
from torch import nn

PROCESSES, STEPS = 2, 8_000


class Pong:
    """Gymnasium's Pong behind the older interface, which PFRL calls."""

    spec = None

    def __init__(self, seed):
        gymnasium.register_envs(ale_py)
        env = AtariPreprocessing(gymnasium.make("PongNoFrameskip-v4"), frame_skip=4, noop_max=30)
        self.env, self.seed = FrameStackObservation(env, 4), seed
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space

    def reset(self):
        obs, _ = self.env.reset(seed=self.seed)
        self.seed = None
        return np.asarray(obs)

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(int(action))
        return np.asarray(obs), float(np.sign(reward)), terminated, {**info, "needs_reset": truncated}

    def close(self):
        self.env.close()


def main():
    torch.set_num_threads(1)
    # A process that fails is an error, not a fast one.
    warnings.simplefilter("error", AbnormalExitWarning)
    # random.seed refuses NumPy's integers since Python 3.11.
    set_random_seed = random_seed.set_random_seed
    random_seed.set_random_seed = lambda seed: set_random_seed(int(seed))
    policy = nn.Sequential(nn.Linear(256, 6), pfrl.policies.SoftmaxCategoricalHead())
    model = nn.Sequential(
        nn.Conv2d(4, 16, 8, stride=4), nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(2592, 256), nn.ReLU(),
        pfrl.nn.Branched(policy, nn.Linear(256, 1)),
    )
    optimizer = pfrl.optimizers.SharedRMSpropEpsInsideSqrt(model.parameters(), lr=7e-4, eps=1e-1, alpha=0.99)
    agent = pfrl.agents.A3C(
        model, optimizer, t_max=5, gamma=0.99, beta=1e-2, max_grad_norm=40.0,
        phi=lambda obs: np.asarray(obs, dtype=np.float32) / 255,
    )
    start = time.perf_counter()
    pfrl.experiments.train_agent_async(
        agent=agent, outdir=tempfile.mkdtemp(), processes=PROCESSES, make_env=lambda process, test: Pong(process),
        profile=False, steps=STEPS, eval_interval=10**9, eval_n_steps=None, eval_n_episodes=1, use_tensorboard=False,
    )
    print(f"steps/s {STEPS / (time.perf_counter() - start):.1f}")


if __name__ == "__main__":
    main()
