"""What is said more simply in Python: the interpreter's own set-up, look-ups, and Gymnasium's constructors."""

import contextlib
import importlib
import io
import multiprocessing
import signal
import sys
import traceback
import warnings
from multiprocessing import resource_tracker

FROM_A_CHILD = "raised in the process of an environment"


def prepare(here, python):
    """Makes `here` importable, after everything installed, and children of `multiprocessing` Python processes."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the import of `signal` took it, though told not to
    # pygame's import says so to everybody; only its authors can do something about it.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    if str(here) not in sys.path:
        sys.path.append(str(here))
    if not getattr(sys, "argv", None):
        sys.argv = [""]
    if python is not None:
        multiprocessing.set_executable(str(python))


def describe(exception):
    """What kind it is (empty: the message says enough), its message, its traceback, the module it missed, if any."""
    while exception.args and isinstance(exception.args[0], BaseException):
        exception = exception.args[0]  # AsyncVectorEnv raises `type(exception)(exception)`
    if len(exception.args) == 4 and exception.args[0] == FROM_A_CHILD:
        return (*exception.args[1:], "")
    kind, module = type(exception).__name__, type(exception).__module__
    if isinstance(exception, (EOFError, BrokenPipeError, ConnectionResetError)) and not str(exception):
        kind, text = "", "the process of an environment died"
    else:
        text = str(exception)
    if module.startswith("gymnasium.error"):
        kind = ""
    missing = (exception.name or "") if isinstance(exception, ImportError) else ""
    return kind, text, "".join(traceback.format_exception(exception)).rstrip(), missing


def games():
    """`{"ALE/Pong-v5": "pong", ...}`: the games that the installed ale_py knows."""
    import ale_py  # noqa: F401  (registers its games)
    import gymnasium

    found = gymnasium.registry.items()
    return {name: spec.kwargs["game"] for name, spec in found if name.startswith("ALE/") and name.endswith("-v5")}


def rom_path(game):
    """The checked ROM file of `game`; whatever ale_py prints is kept off the terminal."""
    from ale_py import roms

    with contextlib.redirect_stdout(io.StringIO()):
        return roms.get_rom_path(game)


def registered():
    """Every id of Gymnasium's registry that is not one of ale_py's."""
    import gymnasium

    return [name for name, spec in gymnasium.registry.items() if "ale_py" not in str(spec.entry_point)]


def knows(name):
    """Whether `gymnasium.make` would find `name`; that of a `module:Id` shows only when it is made."""
    import gymnasium

    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401  (registers its games)
    versions = (known.rpartition("-v")[0] for known in gymnasium.registry)
    return ":" in name or name in gymnasium.registry or name in versions


def observation_space(space):
    """Shape and whether it holds bytes."""
    import gymnasium
    import numpy

    if not isinstance(space, gymnasium.spaces.Box):
        raise gymnasium.error.Error(
            f"its observation space is {space}, and only Box is supported: "
            "wrap it where it is registered (gymnasium.wrappers.FlattenObservation makes a Box of most spaces)"
        )
    return space.shape, space.dtype == numpy.uint8


def action_space(space):
    """`(n, start)` of a Discrete, `(low, high, shape, dtype)` of a Box."""
    import gymnasium
    import numpy

    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n), int(space.start)
    if not isinstance(space, gymnasium.spaces.Box) or not numpy.issubdtype(space.dtype, numpy.floating):
        raise gymnasium.error.Error(
            f"its action space is {space}, and only Discrete and Box of floats are supported: "
            "wrap it where it is registered"
        )
    low, high = (bound.astype(numpy.float32).ravel().tolist() for bound in (space.low, space.high))
    return low, high, space.shape, str(space.dtype)


def action_names(env, n):
    """What an environment calls its actions (Atari, MiniGrid): where it has names for all of them."""
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    names = list(meanings()) if callable(meanings) else []
    return names if len(names) == n and all(isinstance(name, str) for name in names) else []


def find(name):
    """The registered id in `name`, after the import of what registers it."""
    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401  (registers its games)
    module, _, name = name.rpartition(":")
    if module:
        importlib.import_module(module)
    return name


def make(name, arguments):
    """One environment."""
    import gymnasium

    return gymnasium.make(find(name), **arguments)


def make_vec(name, num_envs, mode, arguments):
    """A batch, one environment to ask for its actions' names, and whether the batch has processes of its own.

    Autoreset is same-step, or the batch is refused.
    """
    import gymnasium
    from gymnasium.vector import AutoresetMode

    name = find(name)
    spec = gymnasium.registry.get(name)
    if spec is not None and spec.entry_point is None and spec.vector_entry_point is not None:
        env = gymnasium.make_vec(name, num_envs, vectorization_mode="vector_entry_point", **arguments)
        found = env.metadata.get("autoreset_mode")
        if found != AutoresetMode.SAME_STEP:
            env.close()
            raise gymnasium.error.Error(
                f"its own vector environment resets by {found}, and only AutoresetMode.SAME_STEP is supported: "
                "give it that mode, or register an `entry_point` for a single environment"
            )
        return env, None, False
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP, "copy": False}
    if mode == "sync":
        env = gymnasium.make_vec(name, num_envs, vectorization_mode=mode, vector_kwargs=same_step, **arguments)
        return env, env.envs[0], False
    return processes(name, num_envs, same_step, arguments), gymnasium.make(name, **arguments), True


def processes(name, num_envs, vector_kwargs, arguments):
    """A batch with a process for each environment."""
    import cloudpickle
    import gymnasium

    gymnasium.logger.error = lambda *_: None  # a child's traceback: it comes as the exception, too
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # A fork of a process with libtorch's and ALE's threads in it may hang: children come from a Python of their own.
    multiprocessing.set_forkserver_preload(["numpy", "gymnasium"])
    # The tracker of semaphores, which outlives a killed program, is to tidy up without a word.
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    resource_tracker.ensure_running()
    sys.warnoptions.pop()
    # Ctrl-C goes to every process of a terminal. Its meaning is the main program's business: children are born with
    # it blocked. (The tracker unblocks it when it starts: it runs by now.)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        vector_kwargs |= {"context": "forkserver", "worker": ByValue(work)}
        return gymnasium.make_vec(
            name, num_envs, vectorization_mode="async", vector_kwargs=vector_kwargs, **arguments
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ByValue:
    """A function that travels to a child as its code, as no child can import this module."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __reduce__(self):
        import cloudpickle

        return cloudpickle.loads, (cloudpickle.dumps(self.function),)


def work(index, make_env, *arguments):
    """In a child: AsyncVectorEnv's own worker, which tells of exceptions, and ends quietly when nobody listens."""
    import os

    from gymnasium.vector.async_vector_env import _async_worker

    try:
        _async_worker(index, lambda: tell(make_env()), *arguments)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)


def tell(env):
    """Makes exceptions text, as one that cannot be pickled would leave the parent waiting for ever."""
    import traceback

    import gymnasium

    def guarded(call, *args, **kwargs):
        try:
            return call(*args, **kwargs)
        except Exception as e:
            kind = "" if type(e).__module__.startswith("gymnasium.error") else type(e).__name__
            trace = "".join(traceback.format_exception(e)).rstrip()
            said = RuntimeError(FROM_A_CHILD, kind, str(e), trace)
        raise said

    class Tell(gymnasium.Wrapper):
        def reset(self, **kwargs):
            return guarded(self.env.reset, **kwargs)

        def step(self, action):
            return guarded(self.env.step, action)

    return Tell(env)


def close(env):
    """Ends an environment, or a batch and its processes, whatever they are doing."""
    from gymnasium.vector import AsyncVectorEnv
    from gymnasium.vector.async_vector_env import AsyncState

    if isinstance(env, AsyncVectorEnv):
        env._state = AsyncState.DEFAULT  # else it would wait for a step under way, or for a process that has died
        env.close(terminate=True)
    else:
        env.close()


def versions():
    """Of the interpreter and of what must be installed: `(name, version or None, exception text)`."""
    found = [("Python", sys.version.split()[0] + f" ({sys.executable})", "")]
    for name in ("numpy", "gymnasium", "ale_py"):
        try:
            module = importlib.import_module(name)
            found.append((name, f"{module.__version__} ({module.__path__[0]})", ""))
        except Exception as e:
            found.append((name, None, f"{type(e).__name__}: {e}"))
    return found
