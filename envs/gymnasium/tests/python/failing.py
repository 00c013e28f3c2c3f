"""An environment that fails where its action is 1: it raises, exits, crashes or hangs."""

import ctypes
import os
import time

import gymnasium
import numpy as np


class Fails(gymnasium.Env):
    """Observes the steps of its episode, which lasts five. With `during = "reset"` action 1 ends the episode, and its reset fails."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, how="raise", during="step", log=None):
        self.how, self.during, self.fails_next = how, during, False
        if log:
            with open(log, "a") as file:
                file.write(f"{os.getpid()}\n")

    def fail(self):
        if self.how == "raise":
            raise ValueError("the simulator is gone")
        if self.how == "exit":
            os._exit(3)
        if self.how == "crash":
            ctypes.string_at(0)
        if self.how == "sleep":
            time.sleep(300)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            pass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.fails_next:
            self.fail()
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if action == 1 and self.during == "step":
            self.fail()
        self.fails_next = action == 1
        self.t += 1
        return np.full(1, self.t, np.float32), 1.0, self.t == 5 or self.fails_next, False, {}
