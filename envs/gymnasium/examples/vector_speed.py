"""The loop of `vector_speed.rs` in plain Python and by Gymnasium's vector environments:
`.venv/bin/python vector_speed.py [ENVS] [SECONDS] [STEPS]`, with the seconds that a step of one environment computes.
"""

import sys
import time

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv


class Busy(gymnasium.Env):
    """Computes for `seconds` in each step. Its episodes have 100 steps, its observations `shape` elements of `dtype`."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, seconds=0.0, shape=(4,), dtype="float32"):
        self.observation_space = gymnasium.spaces.Box(0, 255 if dtype == "uint8" else 1, tuple(shape), np.dtype(dtype).type)
        self.seconds, self.observation = seconds, np.zeros(tuple(shape), dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation, {}

    def step(self, action):
        self.t += 1
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass
        return self.observation, 1.0, self.t == 100, False, {}


def make(seconds, shape, dtype):
    """With the wrapper that `gymnasium.make` adds to a class that is not registered."""
    return gymnasium.wrappers.OrderEnforcing(Busy(seconds, shape, dtype))


def measure(name, step, envs, steps):
    """Prints microseconds per step of one environment."""
    step(max(steps // 10, 1))
    start = time.perf_counter()
    step(steps)
    print(f"{name:20} {(time.perf_counter() - start) / (steps * envs) * 1e6:9.2f} µs", flush=True)


def main():
    envs, seconds, steps = (float(a) for a in (sys.argv[1:4] + ["32", "0", "2000"][len(sys.argv[1:4]) :]))
    envs, steps = int(envs), int(steps)
    shape, dtype = ((210, 160, 3), "uint8") if "image" in sys.argv else ((4,), "float32")
    random = np.random.default_rng(1)

    plain = [make(seconds, shape, dtype) for _ in range(envs)]
    for env in plain:
        env.reset()

    def loop(steps):
        for _ in range(steps):
            actions = random.integers(2, size=envs)
            for env, action in zip(plain, actions, strict=True):
                if env.step(action)[2]:
                    env.reset()

    measure("plain loop", loop, envs, steps)
    for kind in (SyncVectorEnv, AsyncVectorEnv):
        vector = kind([lambda: make(seconds, shape, dtype)] * envs, autoreset_mode=AutoresetMode.SAME_STEP)
        vector.reset()

        def advance(steps, vector=vector):
            for _ in range(steps):
                vector.step(random.integers(2, size=envs))

        measure(kind.__name__, advance, envs, steps)
        vector.close()


if __name__ == "__main__":
    main()
