"""The loop of `atari_speed.rs` in plain Python: `.venv/bin/python atari_speed.py [GAME] [ENVS] [THREADS] [STEPS]`."""

import sys
import time

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

game = sys.argv[1] if len(sys.argv) > 1 else "pong"
envs, threads, steps = (int(a) for a in (sys.argv[2:5] + ["32", "2", "2000"][len(sys.argv[2:5]) :]))
vec = AtariVectorEnv(
    game,
    envs,
    stack_num=1,
    num_threads=threads,
    autoreset_mode=AutoresetMode.SAME_STEP,
    reward_clipping=False,
)
vec.reset(seed=1)
random = np.random.default_rng(1)
start = time.perf_counter()
for _ in range(steps):
    vec.step(random.integers(vec.single_action_space.n, size=envs))
print(f"{steps * envs / (time.perf_counter() - start):.0f} agent steps/s")
