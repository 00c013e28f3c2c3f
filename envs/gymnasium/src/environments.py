"""Gymnasium environments, which step in one of three ways: alone (inside playfield's wrappers), in a batch in this process,
or in a batch of processes. Vector environments are in `vector.py`.

All three use `Local`, the only place that calls an environment's `reset` and `step`. It copies and checks what they return, so
the three ways accept and refuse the same.
"""

import contextlib
import inspect
import math
import mmap
import multiprocessing
import numbers
import os
import pickle
import select
import signal
import sys
import tempfile
import threading
import time
from multiprocessing import reduction, resource_tracker

import gymnasium
import numpy as np
import playfield_helper
from gymnasium.envs.registration import load_env_creator
from playfield_helper import Described, Failed, describe, find, games, is_atari, refuse

IMAGE_AXES = (2, 3)
SMALLEST_FLOAT_IMAGE = 36  # the smallest image of a convolutional network
INT32_MAX = 2**31 - 1
SECONDS_TO_CLOSE = 10.0
MAX_RESTARTS = 10
# The first pause before a restart, in seconds; it doubles up to the second.
PAUSE, LONGEST_PAUSE = 0.1, 2.0

# The methods that return an observation.
STEPS = "reset", "step", "advance"

# Messages about restarted environments, until `take_warnings`.
pending_warnings = []


def take_warnings():
    """Removes and returns the messages about restarted environments."""
    taken = pending_warnings[:]
    pending_warnings.clear()
    return taken


def has_own_vector(spec):
    """Whether only a vector environment is registered."""
    return spec is not None and spec.entry_point is None and spec.vector_entry_point is not None


def make(name, arguments):
    """Creates one environment, without Gymnasium's passive checker: `Local` checks what it returns."""
    target, spec = find(name)
    if spec is not None and is_atari(spec):
        known = {game: full for full, game in games().items()}
        full = known.get(spec.kwargs.get("game"), "ALE/Pong-v5")
        raise refuse(
            f"this id has none of playfield's preprocessing (frame skip, frame stack, resize): write `{full}`, the same game "
            "with preprocessing, whose settings are keys of [env]"
        )
    if has_own_vector(spec):
        raise refuse(
            "only a vector environment is registered: it supports `vectorization = \"sync\"`, no rendering, no time limit of a step and "
            "no wrapper inside one environment (frame_skip, max_pool, resize, noop_max, repeat_action_probability, fire_reset)"
        )
    return gymnasium.make(target, **({"disable_env_checker": True} | arguments))


def renders(name):
    """Whether an environment renders RGB frames, by its `metadata` or by the signature of its entry point."""
    _, spec = find(name)
    if spec is None or spec.entry_point is None:
        return False
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    metadata = getattr(creator, "metadata", None)
    if metadata is None:
        return "render_mode" in inspect.signature(creator).parameters
    return "rgb_array" in metadata.get("render_modes", [])


def render_fps(name):
    """Steps per second at which a video shows an environment in real time, by its `metadata`."""
    _, spec = find(name)
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    return float((getattr(creator, "metadata", None) or {}).get("render_fps") or 30.0)


def short(value):
    """`repr`, shortened to 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def observations_of(space, rows=None):
    """The converter of observations of `space`, or of batches of `rows`: its `copy` returns new arrays of `shape`."""
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Box):
        return BoxObservations(space, rows)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return OneHotObservations(space, rows)
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return JoinedObservations(space, rows)
    raise refuse(
        f"its observation space is {space}, and only Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple are supported: "
        "wrap it where it is registered (gymnasium.wrappers.FilterObservation drops a part, TransformObservation converts it)"
    )


def is_float_image(space):
    """Whether a Box of floats holds images: two or three axes, at least 36 × 36 pixels, and bounds of 0..1 or 0..255."""
    sides = sorted(space.shape)[-2:]
    is_large = len(space.shape) in IMAGE_AXES and min(sides) >= SMALLEST_FLOAT_IMAGE
    is_bounded = is_large and not space.low.any() and any((space.high == high).all() for high in (1, 255))
    return is_bounded and np.issubdtype(space.dtype, np.floating)


class BoxObservations:
    """Converts observations of a Box to `uint8` (images) or `float32` (vectors).

    A `uint8` space with two or three axes is an image, and so is `is_float_image`: its values are scaled from their bounds to
    0..255 and rounded, and its channels are moved to the last axis. Any other `uint8` space is a vector, scaled from its bounds to
    0..1.
    """

    def __init__(self, space, rows=None):
        if 0 in space.shape:
            raise refuse(f"its observation space is {space}, which has no elements: there is nothing to learn from")
        is_bytes = space.dtype == np.uint8
        self.is_image = len(space.shape) in IMAGE_AXES and is_bytes or is_float_image(space)
        self.channels_first = self.is_image and len(space.shape) == 3 and space.shape[0] < min(space.shape[1:])
        shape = space.shape[1:] + space.shape[:1] if self.channels_first else space.shape
        self.shape = shape or (1,)
        self.expected_shape = space.shape if rows is None else (rows, *space.shape)
        self.dtype, self.target_dtype = space.dtype, np.uint8 if self.is_image else np.float32
        self.scale = None
        if is_bytes or self.is_image:
            low, high = space.low.astype(np.float64), space.high.astype(np.float64)
            factor = (255 if self.is_image else 1) / np.maximum(high - low, 1)
            if low.any() or (factor != 1).any() or not is_bytes:
                self.scale = low, high, factor

    def copy(self, observation):
        """A converted copy, so that the environment cannot overwrite it."""
        array = np.asarray(observation)
        if array.shape != self.expected_shape:
            raise refuse(f"its observation has the shape {array.shape}, where its space says {self.expected_shape}")
        if array.dtype.kind not in ("biu" if self.dtype.kind in "biu" else "biuf"):
            raise refuse(f"its observation is {array.dtype}, where its space says {self.dtype}")
        if self.dtype == np.uint8 or self.is_image:
            low, high = (0, 255) if self.scale is None else self.scale[:2]
            inside = (low <= array) & (array <= high) if self.scale is not None or array.dtype != np.uint8 else None
            if inside is not None and not inside.all():
                outside = ~inside  # NaN, too
                raise refuse(f"its observation holds {array[outside].flat[0]}, which is outside the bounds of its space")
            if self.scale is not None:
                array = (array - low) * self.scale[2]
                array = np.rint(array) if self.is_image else array
        if self.channels_first:
            array = np.moveaxis(array, -3, -1)
        if array.dtype.itemsize > 4:
            with np.errstate(over="ignore"):  # an overflow is infinite, which CheckFinite refuses
                return np.array(array, self.target_dtype, order="C")
        return np.array(array, self.target_dtype, order="C")


class OneHotObservations:
    """Converts Discrete, MultiDiscrete and MultiBinary to a `float32` vector: a one-hot vector of each number, one after the other;
    a bit remains one element.
    """

    is_image, target_dtype = False, np.float32

    def __init__(self, space, rows=None):
        self.is_binary = isinstance(space, gymnasium.spaces.MultiBinary)
        if self.is_binary:
            counts, low = np.full(math.prod(space.shape), 2), np.array(0)
        elif isinstance(space, gymnasium.spaces.Discrete):
            counts, low = np.array([space.n]), np.array([space.start])
        else:
            counts, low = space.nvec.ravel(), space.start.ravel()
        self.low, self.high, self.offsets = low, low + counts - 1, np.cumsum(counts) - counts
        self.space, self.rows = space, 1 if rows is None else rows
        self.expected_shape = space.shape if rows is None else (rows, *space.shape)
        width = len(counts) if self.is_binary else int(counts.sum())
        if width == 0:
            raise refuse(f"its observation space is {space}, which has no elements: there is nothing to learn from")
        self.shape = (width,)
        self.target_shape = self.shape if rows is None else (rows, width)

    def copy(self, observation):
        array = np.asarray(observation)
        if array.shape != self.expected_shape:
            raise refuse(f"its observation has the shape {array.shape}, where its space says {self.expected_shape}")
        if array.dtype.kind not in "biu":
            raise refuse(f"its observation is {array.dtype}, where its space says {self.space.dtype}")
        numbers = array.reshape(self.rows, -1)
        outside = (numbers < self.low) | (numbers > self.high)
        if outside.any():
            raise refuse(f"its observation holds {numbers[outside].flat[0]}, which is outside its space, {self.space}")
        if self.is_binary:
            return numbers.astype(np.float32).reshape(self.target_shape)
        vector = np.zeros((self.rows, *self.shape), np.float32)
        np.put_along_axis(vector, numbers.astype(np.int64) - self.low + self.offsets, 1.0, axis=1)
        return vector.reshape(self.target_shape)


class JoinedObservations:
    """Converts Dict and Tuple: their parts one after the other, in the order of the space (Gymnasium sorts the keys of a plain
    dictionary).

    Without a large image they are one `float32` vector; small images are flattened, with values from 0 to 1. With a large image they
    are bytes, as `EnvSpec::of_parts` describes: the pixels of images, and four for each element of the others. `parts` then holds
    name, shape, and whether it is an image, of each.
    """

    is_image = False
    LARGEST_FLAT_IMAGE = 1024

    def __init__(self, space, rows=None):
        is_dict = isinstance(space, gymnasium.spaces.Dict)
        spaces = space.spaces.items() if is_dict else enumerate(space.spaces)
        self.type, self.rows, self.converters, leaves = dict if is_dict else (tuple, list), rows, [], []
        for key, part in spaces:
            try:
                converter = observations_of(part, rows)
            except Exception as exception:
                raise refuse(f"part {key!r} of its observation: {exception}") from None
            self.converters.append((key, converter))
            nested = isinstance(converter, JoinedObservations)
            leaves += [(f"{key}/{name}", leaf) for name, leaf in converter.leaves] if nested else [(str(key), converter)]
        if not leaves:
            raise refuse(f"its observation space is {space}, which has no parts: there is nothing to learn from")
        self.leaves, self.parts = leaves, []
        sizes = [math.prod(leaf.shape) for _, leaf in leaves]
        self.target_dtype, self.shape = np.float32, (sum(sizes),)
        if any(leaf.is_image and size > self.LARGEST_FLAT_IMAGE for (_, leaf), size in zip(leaves, sizes, strict=True)):
            itemsizes = [np.dtype(leaf.target_dtype).itemsize for _, leaf in leaves]
            self.target_dtype, self.shape = np.uint8, (int(np.dot(sizes, itemsizes)),)
            for (name, leaf), size in zip(leaves, sizes, strict=True):
                self.parts.append((name, list(leaf.shape) if leaf.is_image else [size], leaf.is_image))

    def copy(self, observation):
        arrays = []
        for part, (_, leaf) in zip(self.copies(observation), self.leaves, strict=True):
            part = part.reshape(-1) if self.rows is None else part.reshape(self.rows, -1)
            if self.parts and not leaf.is_image:
                part = np.ascontiguousarray(part, "<f4").view(np.uint8)
            elif leaf.is_image and not self.parts:
                part = part / np.float32(255)
            arrays.append(part)
        return np.concatenate(arrays, axis=-1)

    def copies(self, observation):
        """A converted copy of each leaf."""
        if not isinstance(observation, self.type):
            raise refuse(f"its observation is {short(observation)}, where its space has parts")
        if len(observation) != len(self.converters):
            raise refuse(f"its observation has {len(observation)} parts, where its space has {len(self.converters)}")
        copies = []
        for key, converter in self.converters:
            if isinstance(observation, dict) and key not in observation:
                raise refuse(f"its observation lacks the part {key!r}")
            try:
                nested = isinstance(converter, JoinedObservations)
                copies += converter.copies(observation[key]) if nested else [converter.copy(observation[key])]
            except Exception as exception:
                raise refuse(f"part {key!r} of its observation: {exception}") from None
        return copies


def layout(observations):
    """The shape of converted observations, whether they are bytes, and their parts (empty unless they are bytes of several)."""
    return list(observations.shape), observations.target_dtype == np.uint8, getattr(observations, "parts", [])


class Actions:
    """Converts playfield's actions (indices from 0, or `float32`) to elements of `space`: NumPy scalars and arrays."""

    def __init__(self, space, rows=None):
        spaces = gymnasium.spaces
        self.is_discrete, self.sizes, self.start = isinstance(space, spaces.Discrete), [], 0
        self.dtype, self.shape = space.dtype, space.shape if rows is None else (rows, *(space.shape or ()))
        if self.is_discrete:
            self.sizes, self.start = [int(space.n)], space.start
            self.description = "discrete", self.sizes
        elif isinstance(space, spaces.MultiDiscrete):
            self.sizes, self.start = space.nvec.ravel().tolist(), space.start
            self.description = "multi_discrete", self.sizes
        elif isinstance(space, spaces.MultiBinary):
            self.sizes = [2] * math.prod(space.shape)
            self.description = "multi_discrete", self.sizes
        elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            self.low, self.high = space.low, space.high
            self.description = "box", *(bound.astype(np.float32).ravel().tolist() for bound in (space.low, space.high))
        else:
            raise refuse(
                f"its action space is {space}, and only Discrete, MultiDiscrete, MultiBinary and Box of floats are supported: "
                "wrap it where it is registered"
            )
        if math.prod(space.shape) == 0:
            raise refuse(f"its action space is {space}, which has no elements: there is nothing to decide")

    def convert(self, action):
        """The action in the space's dtype. A bound of a float64 space may not be a float32, so the action is clipped again."""
        if self.is_discrete:
            return self.dtype.type(self.start + action)
        if self.sizes:
            return (action.reshape(self.shape) + self.start).astype(self.dtype)
        action = action.reshape(self.shape).astype(self.dtype)
        return action if self.dtype == np.float32 else np.minimum(np.maximum(action, self.low), self.high)

    def mask(self, value):
        """An action mask as bytes: 1 for each valid choice of each component, one component after the other. None: all are valid.

        Gymnasium's masks of a MultiDiscrete space are tuples of arrays, sb3-contrib's are one array.
        """
        if value is None:
            return b"\1" * sum(self.sizes)
        with contextlib.suppress(ValueError):
            array = np.concatenate([np.ravel(part) for part in value]) if isinstance(value, tuple) else np.ravel(value)
            if array.size == sum(self.sizes) and array.dtype.kind in "biu" and np.isin(array, (0, 1)).all():
                return array.astype(np.uint8).tobytes()
        raise refuse(f"its action mask is {short(value)}, and must have a 0 or a 1 for each of {sum(self.sizes)} choices")


def reward_of(reward):
    """The reward as a float. CheckFinite (in Rust) refuses NaN and infinities."""
    if type(reward) is float:
        return reward
    if isinstance(reward, numbers.Real):
        try:
            return float(reward)
        except OverflowError:
            return math.inf if reward > 0 else -math.inf
    array = np.asarray(reward)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise refuse(f"its reward is {short(reward)}, and must be one number")
    return float(array.item())


def flag_of(name, flag):
    """`terminated` or `truncated` as a bool."""
    if flag is True or flag is False:
        return flag
    array = np.asarray(flag)
    if array.size != 1 or array.dtype.kind not in "biu" or array.item() not in (0, 1):
        raise refuse(f"its `{name}` is {short(flag)}, and must be True or False")
    return bool(array.item())


def mask_of(info):
    """`info["action_mask"]`, or None."""
    return info.get("action_mask") if isinstance(info, dict) else None


def lives_of(info):
    """`info["lives"]` where that is an integer, else 0. Everything else in `info` is ignored."""
    lives = info.get("lives") if isinstance(info, dict) else None
    if lives is None:
        return 0
    is_integer = isinstance(lives, (int, np.integer)) and not isinstance(lives, bool)
    return min(max(int(lives), 0), INT32_MAX) if is_integer else 0


class Member:
    """An environment with asynchronous calls: `send` starts one, `recv` returns its result."""

    def call(self, method, *arguments):
        """Calls a method and waits for its result."""
        self.send(method, *arguments)
        return self.recv()


class Local(Member):
    """One environment in this process, whose results are checked and copied."""

    def __init__(self, name, arguments):
        self.env = make(name, arguments)
        self.requested_render = arguments.get("render_mode") == "rgb_array"
        self.mask_source = None
        try:
            self.observations = observations_of(self.env.observation_space)
            self.actions = Actions(self.env.action_space)
        except BaseException:
            self.env.close()
            raise

    def send(self, method, *arguments):
        self.request = method, arguments

    def recv(self):
        method, arguments = self.request
        return getattr(self, method)(*arguments)

    def describe(self):
        """`(shape, is bytes, parts, action space, action names, has a mask)`, the first three as in `layout`; names (Atari, MiniGrid)
        only where every action has one."""
        self.mask_source, names = self.find_mask(), []
        if self.actions.is_discrete:
            with contextlib.suppress(Exception):  # names are optional
                names = list(self.env.unwrapped.get_action_meanings())
            complete = [len(names)] == self.actions.sizes and all(isinstance(name, str) for name in names)
            names = names if complete else []
        return *layout(self.observations), self.actions.description, names, self.mask_source is not None

    def find_mask(self):
        """Where the environment states which actions are valid: in its method `action_masks` (as for sb3-contrib), in
        `info["action_mask"]`, or nowhere (None). Only a reset shows what `info` holds."""
        if not self.actions.sizes:
            return None
        if self.env.has_wrapper_attr("action_masks"):
            return "method"
        answer = self.env.reset(seed=0)
        info = answer[1] if isinstance(answer, (tuple, list)) and len(answer) == 2 else None
        return "info" if mask_of(info) is not None else None

    def mask(self, info, terminated=False):
        """The mask of the valid actions as bytes; None where the environment has none. A terminal state needs no action."""
        if self.mask_source is None:
            return None
        if terminated:
            return self.actions.mask(None)
        return self.actions.mask(mask_of(info) if self.mask_source == "info" else self.env.get_wrapper_attr("action_masks")())

    def reset(self, seed):
        """The first observation, the number of lives, and the action mask."""
        answer = self.env.reset(seed=seed)
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            raise refuse("its `reset` did not return (observation, info)")
        return self.observations.copy(answer[0]), lives_of(answer[1]), self.mask(answer[1])

    def step(self, action):
        """Observation, reward, terminated, truncated, lives, action mask."""
        answer = self.env.step(self.actions.convert(action))
        if not isinstance(answer, (tuple, list)) or len(answer) != 5:
            raise refuse("its `step` did not return (observation, reward, terminated, truncated, info)")
        observation, reward, terminated, truncated, info = answer
        terminated, truncated = flag_of("terminated", terminated), flag_of("truncated", truncated)
        observation, mask = self.observations.copy(observation), self.mask(info, terminated)
        return observation, reward_of(reward), terminated, truncated, lives_of(info), mask

    def advance(self, action):
        """`step` with same-step autoreset. The last element is the final observation and mask of an ended episode, else None."""
        observation, reward, terminated, truncated, lives, mask = self.step(action)
        final = None
        if terminated or truncated:
            final = observation, mask
            observation, lives, mask = self.reset(None)
        return observation, reward, terminated, truncated, lives, mask, final

    def render(self):
        """`(height, width, pixels)` of an RGB frame, or None where it does not render."""
        if self.env.render_mode != "rgb_array" and not self.requested_render:
            return None
        frame = np.asarray(self.env.render())
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            return None
        return frame.shape[0], frame.shape[1], frame.tobytes()

    def close(self):
        self.env.close()


class SharedObservations:
    """The newest observation of an environment and the final one of its episode, in memory that two processes share: images do not
    go through a pipe. `file` is a descriptor of that memory, which the system frees when both processes have closed it.
    """

    def __init__(self, file, shape, dtype):
        memory = mmap.mmap(file, self.size(shape, dtype))
        os.close(file)
        self.newest, self.final = np.frombuffer(memory, dtype).reshape(2, *shape)

    @staticmethod
    def size(shape, dtype):
        return 2 * math.prod(shape) * np.dtype(dtype).itemsize

    @classmethod
    def create_file(cls, shape, dtype):
        """A file in memory without a name: /dev/shm, which many containers limit to 64 MB, is not used."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("playfield")
        else:
            with tempfile.TemporaryFile() as temporary:
                file = os.dup(temporary.fileno())
        os.ftruncate(file, cls.size(shape, dtype))
        return file

    def write(self, answer):
        """The result of one of `STEPS` without its observations, which are stored here. Only a final observation is in a tuple."""
        self.newest[...], *rest = answer
        if isinstance(rest[-1], tuple):
            self.final[...], mask = rest[-1]
            rest[-1] = (None, mask)
        return None, *rest

    def read(self, answer):
        """The result with its observations: views, which the next step overwrites."""
        _, *rest = answer
        if isinstance(rest[-1], tuple):
            rest[-1] = (self.final, rest[-1][1])
        return self.newest, *rest


def send(pipe, message):
    """`pipe.send` without multiprocessing's own pickler, which takes longer than the message."""
    pipe.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


class Remote(Member):
    """One environment in its own Python process, as a `Local` there. The process ends when the pipe is closed. Once its spaces are
    known (`describe`), its observations are views of shared memory: the caller copies them before the next step.

    `limit` is the longest time in seconds that a step (with the reset after the end of an episode) or a reset may take, or None.
    `core` is the processor core that it runs on, or None for any.
    """

    def __init__(self, name, arguments, limit=None, core=None):
        context = forkserver()
        self.limit, self.deadline = limit, None
        self.method, self.shared = None, None
        self.pipe, theirs = context.Pipe()
        with without_interrupts():
            self.process = context.Process(target=ByValue(serve), args=(theirs, name, arguments, core))
            self.process.start()
        theirs.close()

    def send(self, method, *arguments):
        self.method = method
        is_limited = self.limit is not None and method in STEPS
        self.deadline = time.monotonic() + self.limit if is_limited else None
        with contextlib.suppress(OSError):  # `recv` reports a process that died
            send(self.pipe, (method, arguments))

    def recv(self):
        try:
            if self.deadline is not None and not self.pipe.poll(max(self.deadline - time.monotonic(), 0.0)):
                self.process.kill()
                raise refuse(f"its step or reset took longer than {self.limit:g} s (env.step_timeout_seconds)")
            worked, answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(1.0)
            raise refuse(f"its process died ({ending(self.process.exitcode)})") from None
        if not worked:
            raise Described(answer)
        if self.method == "describe":
            self.share(shape=answer[0], dtype="uint8" if answer[1] else "float32")
        return self.shared.read(answer) if self.method in STEPS else answer

    def share(self, shape, dtype):
        """Shares memory for observations with the process."""
        file = SharedObservations.create_file(shape, dtype)
        with contextlib.suppress(OSError):  # `recv` reports a process that died
            send(self.pipe, ("share", (shape, dtype)))
            reduction.send_handle(self.pipe, file, self.process.pid)
        self.shared = SharedObservations(file, shape, dtype)

    def close(self):
        self.pipe.close()
        end([self])


def ending(code):
    """How a process ended, from its exit code."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return "no exit code" if code is None else f"exit code {code}"


class Restarting(Member):
    """A `Remote` that is replaced where it fails, at most `MAX_RESTARTS` times. Its episode is truncated: the reward of the failed
    step is 0, and its final observation is the last one before.
    """

    def __init__(self, index, name, arguments, limit, core):
        self.start = lambda: Remote(name, arguments, limit, core)
        self.index, self.remote, self.restarts = index, self.start(), 0
        self.method, self.seed, self.last = None, 0, None

    @property
    def process(self):
        return self.remote.process

    @property
    def pipe(self):
        return self.remote.pipe

    def send(self, method, *arguments):
        self.method = method
        if method == "reset" and arguments[0] is not None:
            self.seed = arguments[0]
        self.remote.send(method, *arguments)

    def recv(self):
        try:
            answer = self.remote.recv()
        except Exception as exception:
            if self.method not in STEPS:
                raise
            first, (observation, lives, mask) = self.restart(exception), self.last or (None, 0, None)
            cut = (0.0, False, True)
            answer = {
                "reset": first,
                "step": (observation, *cut, lives, mask),
                "advance": (first[0], *cut, *first[1:], (observation, mask)),
            }[self.method]
        if self.method in STEPS:
            lives, mask = answer[1:] if self.method == "reset" else answer[4:6]
            self.last = answer[0].copy(), lives, mask
        return answer

    def restart(self, exception):
        """Starts a new process, until one works. Returns the result of its first reset."""
        while True:
            kind, message, *_ = describe(exception)
            message = " ".join(f"{kind}: {message}".removeprefix(": ").split())
            if self.restarts == MAX_RESTARTS:
                raise exception
            pause = min(PAUSE * 2**self.restarts, LONGEST_PAUSE)
            self.restarts += 1
            where = "an environment" if self.index is None else f"environment {self.index}"
            restart = f"restart {self.restarts} of at most {MAX_RESTARTS}, its episode is truncated"
            pending_warnings.append(f"{where} failed ({message}): {restart}")
            self.remote.close()
            time.sleep(pause)
            self.remote = self.start()
            try:
                self.remote.recv()
                self.remote.call("describe")
                # The seed of its first episode could lead to the same failure.
                seed = np.random.SeedSequence([self.seed, self.restarts]).generate_state(1)[0]
                return self.remote.call("reset", int(seed >> 1))
            except Exception as again:
                exception = again

    def close(self):
        self.remote.close()


def end(remotes):
    """Joins processes whose pipes are closed, and kills those that do not end in time."""
    deadline = time.monotonic() + SECONDS_TO_CLOSE
    for remote in remotes:
        remote.process.join(max(deadline - time.monotonic(), 0.0))
        if remote.process.is_alive():
            remote.process.kill()
            remote.process.join()


@contextlib.contextmanager
def without_interrupts():
    """A terminal sends Ctrl-C to every process. Only the main program handles it: processes that start here have it blocked, and so
    have their children.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forkserver():
    """The context of child processes: a fork of this process, with the threads of libtorch and ALE, could deadlock."""
    import cloudpickle

    for module in (playfield_helper, sys.modules[__name__]):
        cloudpickle.register_pickle_by_value(module)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numpy", "gymnasium"])
    # Without a safe path the server would import the standard library's modules from the working directory, if it has such files.
    # Children get this process's `sys.path`.
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    # The semaphore tracker outlives a killed program and cleans up without a warning. It unblocks SIGINT when it starts, so
    # it must run before any child starts.
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    resource_tracker.ensure_running()
    with without_interrupts():
        multiprocessing.forkserver.ensure_running()
    sys.warnoptions.pop()
    if before is None:
        del os.environ["PYTHONSAFEPATH"]
    else:
        os.environ["PYTHONSAFEPATH"] = before
    return context


class ByValue:
    """A function that is pickled by value, as a child process cannot import this module."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __reduce__(self):
        import cloudpickle

        return cloudpickle.loads, (cloudpickle.dumps(self.function),)


def end_after_parent(pipe):
    """Ends this process some time after the pipe is closed: the environment may hang, and not be closed."""
    poll = select.poll()
    poll.register(pipe.fileno(), 0)  # reports only that the other end is closed
    poll.poll()
    time.sleep(SECONDS_TO_CLOSE)
    os._exit(1)


def serve(pipe, name, arguments, core):
    """The main function of a child: creates an environment, executes requests until the pipe is closed, and closes it."""
    # Of the processes that one step wakes, none interrupts the program that wakes the others.
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        if core is not None:
            os.sched_setaffinity(0, {core})
    # The end of the program closes the pipes, so each environment can close what it has started. A handler, unlike SIG_IGN,
    # is not inherited by an environment's own child processes.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    sys.stdout = sys.stderr
    threading.Thread(target=end_after_parent, args=(pipe,), daemon=True).start()
    local, shared = None, None

    def reply_to(call, *arguments):
        try:
            answer = call(*arguments)
            reply = True, shared.write(answer) if call.__name__ in STEPS else answer
        except BaseException as exception:
            reply = False, describe(exception)
        send(pipe, reply)

    def start():
        nonlocal local
        local = Local(name, arguments)

    try:
        reply_to(start)
        while local is not None:
            method, values = pipe.recv()
            if method == "share":
                shared = SharedObservations(reduction.recv_handle(pipe), *values)
            else:
                reply_to(getattr(local, method), *values)
    except (EOFError, OSError):
        pass
    finally:
        if local is not None:
            with contextlib.suppress(BaseException):
                local.close()
        os._exit(0)


def create_member(index, name, arguments, process, core=None):
    """An environment in this process (`sync`) or in its own (`async`); `recv` waits until the latter is created."""
    mode, limit, restarts = process
    if mode == "sync":
        return Local(name, arguments)
    return Restarting(index, name, arguments, limit, core) if restarts else Remote(name, arguments, limit, core)


def cores_of(size):
    """The processor core of each of `size` processes: the same number on every core that this program may use. None for any core,
    where they cannot be divided evenly.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    return [cores[index % len(cores)] for index in range(size)] if size % len(cores) == 0 else [None] * size


def one(name, arguments, process):
    """One environment, used through `call`. `process` is its mode, the time limit of a step, and whether it restarts."""
    made = create_member(None, name, arguments, process)
    try:
        if not isinstance(made, Local):
            made.recv()
    except BaseException:
        made.close()
        raise
    return made


def joined(masks):
    """The masks of all environments as bytes; None where they have none."""
    return None if masks[0] is None else b"".join(masks)


class Batch:
    """A batch of environments, each in this process or in its own. An exception names its environment."""

    def __init__(self, name, size, arguments, process):
        self.members, self.waiting, self.failed = [], False, False
        try:
            for index, core in enumerate(cores_of(size)):
                self.members.append(create_member(index, name, arguments, process, core))
            for made in self.members:
                if not isinstance(made, Local):
                    made.recv()
            descriptions = self.call("describe", [()] * size)
            for index, description in enumerate(descriptions):
                if description != descriptions[0]:
                    raise refuse(f"environment {index} has other spaces than environment 0")
            self.description = descriptions[0]
            shape, is_bytes, *_ = self.description
            # The observations of the last step: a fresh array of images costs more in page faults than in copies.
            self.observations = np.empty((size, *shape), np.uint8 if is_bytes else np.float32)
        except BaseException:
            self.close()
            raise

    def send(self, actions):
        """Starts a step with `actions[i]` in environment `i`."""
        self.send_all("advance", [(action,) for action in actions])
        self.waiting = True

    def recv(self):
        """Observations, rewards, terminated, truncated, lives, action masks, `(row, final observation, final mask)` of ended episodes,
        and which environments ignored their action (None: none)."""
        results = self.recv_all(self.observe)
        rewards, terminated, truncated, lives, masks, last = zip(*results, strict=True)
        finals = [(row, *final) for row, final in enumerate(last) if final is not None]
        return self.observations, rewards, terminated, truncated, lives, joined(masks), finals, None

    def observe(self, index, result):
        """The result of a step or reset without its observation, which is copied to `observations`."""
        self.observations[index], *rest = result
        return rest

    def reset(self, seeds):
        """Observations, lives and action masks of new episodes. The results of a step in progress are discarded."""
        if self.waiting:
            self.recv_all()
        self.send_all("reset", [(seed,) for seed in seeds])
        lives, masks = zip(*self.recv_all(self.observe), strict=True)
        return self.observations, lives, joined(masks)

    def call(self, method, rows):
        self.send_all(method, rows)
        return self.recv_all()

    def send_all(self, method, rows):
        if self.failed:
            raise refuse("no step is possible after a failure")
        for member, arguments in zip(self.members, rows, strict=True):
            member.send(method, *arguments)

    def recv_all(self, convert=None):
        """The result of every member, or of `convert(index, result)`. After an exception in one the batch cannot be used."""
        self.waiting, results = False, []
        for index, member in enumerate(self.members):
            try:
                result = member.recv()
                results.append(result if convert is None else convert(index, result))
            except BaseException as exception:
                self.failed = True
                raise Failed(index, describe(exception)) from exception
        return results

    def close(self):
        """Closes every environment, also during a step; the processes close in parallel."""
        remotes = [member for member in self.members if not isinstance(member, Local)]
        for remote in remotes:
            remote.pipe.close()
        end(remotes)
        for member in self.members:
            if isinstance(member, Local):
                with contextlib.suppress(Exception):
                    member.close()
