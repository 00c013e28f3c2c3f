"""A user's environments, as `tiny:Id`: small ones with known results, and some that return invalid ones."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
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


class Flicker(Count):
    """Odd steps are brighter, so that the maximum of two frames differs from the last one."""

    def _answer(self):
        return np.array([[200 if self.t % 2 else self.t, self.last, self.seed]], np.uint8)


class Bounds(gymnasium.Env):
    """Checks its action and returns it as the observation. Neither of its finite bounds is a float32 number."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float64)

    def __init__(self, dtype):
        low, high = np.array([-0.1, 1 / 3, -np.inf], dtype), np.array([0.1, 8 / 9, np.inf], dtype)
        self.action_space = Box(low, high, dtype=np.dtype(dtype).type)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3), {}

    def step(self, action):
        assert action.dtype == self.action_space.dtype and self.action_space.contains(action), action
        return action, 0.0, False, False, {}


class Steps(gymnasium.Env):
    """Episodes of five steps. The observation is the number of steps so far."""

    observation_space = Box(-9, 9, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), self.info()

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), 1.0, self.t == 5, False, self.info()

    def info(self):
        return {}


class Cores(Steps):
    """The observation is the number of processor cores that its process may use, and the sum of their numbers."""

    observation_space = Box(0, 1e9, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        import os

        cores = os.sched_getaffinity(0)
        return np.array([len(cores), sum(cores)], np.float32), {}


class Slow(Steps):
    """Each step takes 50 ms."""

    def step(self, action):
        import time

        time.sleep(0.05)
        return super().step(action)


class Same(Steps):
    """Returns the same array object each time: the number of steps, and that times the action."""

    observation_space = Box(-9, 9, (2,), np.float32)

    def __init__(self):
        self.array = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        self.array[:] = 0
        return self.array, {}

    def step(self, action):
        self.t += 1
        self.array[:] = self.t, self.t * action
        return self.array, 1.0, False, False, {}


class Info(Steps):
    """Returns an `info` of any kind."""

    def __init__(self, kind):
        self.kind = kind

    def info(self):
        u = self.np_random.random()
        return {
            "none": {"winner": 1 if u < 0.5 else None},
            "ragged": {"path": np.zeros(int(10 * u))},
            "dict": {"deep": {"a": {"b": u}} if u < 0.5 else {"a": 3}},
            "huge": {"id": 10**40 if u < 0.5 else -1, "lives": 10**40},
            "mixed": {"a": 1} if u < 0.5 else {"a": "text", "b": lambda: 3},
            "names": {name: [3.5, "?", None, {}][int(4 * u)] for name in ("lives", "final_obs", "final_info", "_lives")},
            "lives": {"lives": np.int64(9 - self.t) if u < 0.5 else 9 - self.t, "final_obs": u},
            "nothing": None,
        }[self.kind]


class Bytes(Steps):
    """Bytes of a shape, with bounds of 0 and `high`."""

    def __init__(self, shape, values, high=255):
        self.observation_space = Box(0, high, tuple(shape), np.uint8)
        self.array = np.array(values, np.uint8).reshape(shape)

    def reset(self, *, seed=None, options=None):
        return self.array, {}

    def step(self, action):
        return self.array, 0.0, False, False, {}


class Pixels(Steps):
    """Floats from 0 to `high`: the pixel of channel c is (c + 1) / 4 of it. `first`: channels are the first axis."""

    def __init__(self, side=36, channels=3, high=1.0, first=False):
        pixels = np.full((side, side + 1), high / 4, np.float32)
        stacked = pixels[..., None] * np.arange(1, channels + 1) if channels else pixels
        self.array = (np.moveaxis(stacked, -1, 0) if first else stacked).astype(np.float32)
        self.observation_space = Box(0, high, self.array.shape, np.float32)

    def reset(self, *, seed=None, options=None):
        return self.array, {}

    def step(self, action):
        return self.array * (2 if action else 1), 0.0, False, False, {}


class Scalar(Steps):
    """Observes one number and returns its action, one number."""

    observation_space, action_space = Box(-9, 9, (), np.float32), Box(-1, 1, (), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.float32(3), {}

    def step(self, action):
        return action, float(action), False, False, {}


class Frames(Bytes):
    """RGB frames of 24 × 16 pixels."""

    def __init__(self):
        super().__init__((24, 16, 3), np.arange(24 * 16 * 3) % 256)


class Numpy(Steps):
    """Requires an action of the type that `sample()` returns, and returns it as the reward."""

    action_space = Discrete(3, start=5)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def step(self, action):
        assert self.action_space.contains(action) and isinstance(action, type(self.action_space.sample()))
        observation, _, *rest = super().step(action)
        return observation, action.item(), *rest

    def render(self):
        return np.full((2, 3, 3), 7, np.uint8)


class Ends(Steps):
    """Ends in its first step, with one life less."""

    def __init__(self, flags):
        self.flags = flags

    def info(self):
        return {"lives": 3 - self.t}

    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        return observation, reward, *self.flags, info


class Breaks(Steps):
    """Returns an invalid value in its third step: `where` is the result, `what` the value."""

    def __init__(self, where, what, dtype="float32"):
        self.observation_space = Box(0, 9, (2, 2) if dtype == "uint8" else (2,), np.dtype(dtype).type)
        self.where, self.value = where, eval(what, {"np": np})
        self.good = np.zeros(self.observation_space.shape, dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.good, {}

    def step(self, action):
        answer = {"observation": self.good, "reward": 1.0, "terminated": False, "truncated": False, "info": {}}
        self.t += 1
        # Environments of one batch have the same arguments: those with action 1 return the invalid value.
        if self.t == 3 and action == 1:
            answer[self.where] = self.value
        return tuple(answer.values())


class Simulator(Steps):
    """Has its own process, which `close` ends. Both are logged."""

    def __init__(self, log, hang=False):
        import subprocess

        self.process = subprocess.Popen(["sleep", "321"])
        self.log, self.hang = log, hang
        self._write("made")

    def _write(self, what):
        with open(self.log, "a") as file:
            file.write(f"{what} {self.process.pid}\n")

    def step(self, action):
        if self.hang and self.t == 1:
            import time

            time.sleep(300)
        return super().step(action)

    def close(self):
        self.process.kill()
        self.process.wait()
        self._write("closed")


class Torch(Steps):
    """Needs a PyTorch that is incomplete."""

    def __init__(self):
        raise ImportError("libcudnn.so.9: cannot open shared object file: No such file or directory")


def function(**kwargs):
    """An entry point that is not a class: whether it takes `render_mode` is unknown."""
    return Same(**kwargs)


class Unspeakable(Exception):
    """An exception that cannot be pickled."""

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


class Parts(gymnasium.Env):
    """Observations with parts of every kind. Episodes end after three steps; `wrong` is what the second step gets wrong."""

    action_space = Discrete(2)

    def __init__(self, wrong=""):
        self.wrong = wrong
        self.observation_space = Dict(
            {
                "cell": Discrete(3, start=5),
                "bits": MultiBinary(2),
                "digits": MultiDiscrete([2, 3]),
                "pair": Tuple((Box(-1, 1, (), np.float32), Box(0, 5, (1, 2), np.uint8))),
            }
        )

    def _answer(self):
        t = self.t
        answer = {
            "pair": (np.float32(t / 4), np.array([[t % 3, 5]], np.uint8)),
            "cell": np.int64(5 + t % 3),
            "bits": np.array([t % 2, 1], np.int8),
            "digits": np.array([t % 2, t % 3]),
        }
        wrong = {"cell": 8, "bits": np.array([0, 2]), "digits": np.array([0.0, 1.0]), "pair": (0.0,)}
        if t == 2 and self.wrong in wrong:
            answer[self.wrong] = wrong[self.wrong]
        if t == 2 and self.wrong == "missing":
            answer["other"] = answer.pop("cell")
        return answer

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._answer(), {}

    def step(self, action):
        self.t += 1
        return self._answer(), 0.0, self.t == 3, False, {}


class Cameras(gymnasium.Env):
    """Observations with a channel-first image beside other parts, one of them nested. Episodes end after three steps."""

    action_space = Discrete(2)
    observation_space = Dict(
        {
            "camera": Box(0, 255, (3, 36, 40), np.uint8),
            "deep": Dict({"position": Box(-9, 9, (2,), np.float32), "icon": Box(0, 255, (2, 3), np.uint8)}),
            "kind": Discrete(3),
        }
    )

    def __init__(self):
        channel, row, column = np.indices((3, 36, 40))
        self.pixels = 100 * channel + 7 * row + column

    def _answer(self):
        return {
            "camera": ((self.pixels + self.t) % 256).astype(np.uint8),
            "deep": {
                "position": np.array([self.t, -1.5], np.float32),
                "icon": np.arange(6, dtype=np.uint8).reshape(2, 3) + np.uint8(self.t),
            },
            "kind": self.t % 3,
        }

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._answer(), {}

    def step(self, action):
        self.t += 1
        return self._answer(), 0.0, self.t == 3, False, {}


class Masked(gymnasium.Env):
    """One choice of each component is invalid, another at each step; the reward holds the action. Truncated after 4 steps.

    `actions`: discrete, multi or binary. `source`: the mask is in `info`, or returned by `action_masks`.
    """

    observation_space = Dict(t=Box(0, 10, (1,), np.float32), parity=Discrete(2))

    def __init__(self, actions, source, wrong=None):
        spaces = {"discrete": Discrete(4, start=-1), "multi": MultiDiscrete([3, 4], start=[1, 2]), "binary": MultiBinary((1, 2))}
        self.action_space = spaces[actions]
        self.sizes = {"discrete": [4], "multi": [3, 4], "binary": [2, 2]}[actions]
        self.start = {"discrete": [-1], "multi": [1, 2], "binary": [0, 0]}[actions]
        self.kind, self.source, self.wrong = actions, source, wrong
        if source == "method":
            self.action_masks = lambda: np.concatenate(self._masks())

    def _masks(self):
        # Of two choices, the first is invalid at odd steps only.
        masks = [np.ones(size, np.int8) for size in self.sizes]
        for mask in masks:
            mask[self.t % len(mask)] = 0
        if self.wrong is not None and self.t == 2:
            masks[-1] = {"none": np.zeros_like(masks[-1]), "shape": masks[-1][1:], "values": masks[-1] + 5}[self.wrong]
        return masks

    def _answer(self):
        return {"t": np.array([self.t], np.float32), "parity": self.t % 2}

    def _info(self):
        if self.source != "info":
            return {}
        masks = self._masks()
        return {"action_mask": masks[0] if self.kind == "discrete" else tuple(masks)}

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._answer(), self._info()

    def step(self, action):
        assert self.action_space.contains(action), action
        indices = np.ravel(action) - self.start
        valid = all(mask[index] for mask, index in zip(self._masks(), indices, strict=True))
        self.t += 1
        reward = float(indices @ [10, 1][: len(indices)]) if valid else -100.0
        return self._answer(), reward, False, self.t == 4, self._info()


def masked_vector(num_envs, max_episode_steps=None, **kwargs):
    """The same as a registered vector environment."""
    from gymnasium.vector import SyncVectorEnv

    return SyncVectorEnv([lambda: Masked(**kwargs)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def parts_vector(num_envs, max_episode_steps=None, **kwargs):
    """The same as a registered vector environment."""
    from gymnasium.vector import SyncVectorEnv

    return SyncVectorEnv([lambda: Parts(**kwargs)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def cameras_vector(num_envs, max_episode_steps=None, **kwargs):
    """The same as a registered vector environment."""
    from gymnasium.vector import SyncVectorEnv

    return SyncVectorEnv([Cameras] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


class Odd(Count):
    """Spaces that playfield does not support."""

    def __init__(self, which):
        super().__init__()
        if which == "observation":
            self.observation_space = Dict(a=Discrete(2), mission=Text(10))
        elif which == "action":
            self.action_space = Box(0, 5, (2,), np.int32)
        elif which == "empty":
            self.observation_space = Box(0, 1, (3, 0), np.float32)
        elif which == "inert":
            self.action_space = Box(0, 1, (0,), np.float32)
        elif which == "refuses":
            raise RuntimeError("no such level: 'nowhere'")


class Late(gymnasium.vector.VectorEnv):
    """A vector environment that does not state its autoreset mode."""

    def __init__(self, num_envs, **kwargs):
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = Box(0, 1, (1,)), Discrete(2)


class Uneven(gymnasium.Env):
    """Episodes of 2 to 5 steps, terminated where their number is even, else truncated. Masks and lives change at each step."""

    observation_space, action_space = Box(-9, 9, (3,), np.float32), Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.action, self.length = 0, -1, int(self.np_random.integers(2, 6))
        return self._answer()

    def _answer(self):
        mask = np.ones(3, np.int8)
        mask[(self.t + self.length) % 3] = 0
        return np.array([self.t, self.length, self.action], np.float32), {"action_mask": mask, "lives": 9 - self.t // 2}

    def step(self, action):
        self.t, self.action = self.t + 1, int(action)
        observation, info = self._answer()
        ended, is_even = self.t == self.length, self.length % 2 == 0
        return observation, float(10 * self.t + action), ended and is_even, ended and not is_even, info


def uneven_vector(num_envs, mode, max_episode_steps=None):
    """The same as a vector environment with the autoreset mode `mode`."""
    from gymnasium.vector import SyncVectorEnv

    return SyncVectorEnv([Uneven] * num_envs, autoreset_mode=AutoresetMode[mode])


def cartpole_vector(num_envs, max_episode_steps=None):
    """Gymnasium's own: next-step autoreset, and one seed for all."""
    from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

    return CartPoleVectorEnv(num_envs)


def vector(num_envs, max_episode_steps=None, **kwargs):
    """A registered vector environment."""
    from gymnasium.vector import SyncVectorEnv

    make = lambda: gymnasium.make("Count-v0", **kwargs)
    return SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def manual_vector(num_envs, max_episode_steps=None, **kwargs):
    """A registered vector environment without autoreset."""
    from gymnasium.vector import SyncVectorEnv

    make = lambda: gymnasium.make("Count-v0", **kwargs)
    return SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.DISABLED)


for made, limit in ((Count, 8), (Flicker, 8), (Same, 3), (Raises, None), (Odd, None)):
    gymnasium.register(f"{made.__name__}-v0", entry_point=made, max_episode_steps=limit)
for made in (Masked, Parts, Cameras, Bounds, Info, Bytes, Frames, Pixels, Scalar, Numpy, Ends, Breaks, Simulator, Torch):
    gymnasium.register(f"{made.__name__}-v0", entry_point=made)
gymnasium.register("Function-v0", entry_point=function, max_episode_steps=3)
gymnasium.register("Late-v0", vector_entry_point=Late)
gymnasium.register("Vector-v0", vector_entry_point=vector)
gymnasium.register("ManualVector-v0", vector_entry_point=manual_vector)
gymnasium.register("Cores-v0", entry_point=Cores)
gymnasium.register("Slow-v0", entry_point=Slow)
gymnasium.register("Uneven-v0", entry_point=Uneven)
gymnasium.register("UnevenVector-v0", vector_entry_point=uneven_vector)
gymnasium.register("CartPoleVector-v0", vector_entry_point=cartpole_vector)
gymnasium.register("PartsVector-v0", vector_entry_point=parts_vector)
gymnasium.register("CamerasVector-v0", vector_entry_point=cameras_vector)
gymnasium.register("MaskedVector-v0", vector_entry_point=masked_vector)
