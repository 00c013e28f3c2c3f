"""What is said more simply in Python: the interpreter's set-up, and look-ups. Needs no package."""

import contextlib
import importlib
import io
import multiprocessing
import signal
import sys
import traceback
import warnings


def prepare(here, python):
    """Makes `here` importable, after everything installed, and children of `multiprocessing` Python processes."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the import of `signal` took it, though told not to
    # What an environment prints is no answer of this program.
    sys.stdout = sys.stderr
    # pygame's import says so to everybody; only its authors can do something about it.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    if str(here) not in sys.path:
        sys.path.append(str(here))
    if not getattr(sys, "argv", None):
        sys.argv = [""]
    if python is not None:
        multiprocessing.set_executable(str(python))


class Described(Exception):
    """An exception of a child process, as `describe` told of it there: only text travels between processes."""


class Failed(Exception):
    """What went wrong in environment `index` of a batch."""

    def __init__(self, index, description):
        super().__init__(f"environment {index}: {description[1]}")
        self.index, self.description = index, description


def refuse(message):
    """An error whose message says enough: it is shown without the name of its class."""
    import gymnasium

    return gymnasium.error.Error(message)


def describe(exception):
    """`(kind, message, traceback, module, where)`: no kind where the message says enough; a module that was missed."""
    if isinstance(exception, Described):
        return exception.args[0]
    if isinstance(exception, Failed):
        return (*exception.description[:4], f"environment {exception.index}")
    kind = "" if type(exception).__module__.startswith("gymnasium.error") else type(exception).__name__
    missing = (exception.name or "") if isinstance(exception, ImportError) else ""
    trace = "".join(traceback.format_exception(exception)).rstrip()
    return kind, str(exception), trace, missing, ""


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


def is_atari(spec):
    """Whether ale_py registered it."""
    return "ale_py" in str(spec.entry_point)


def registered():
    """Every id of Gymnasium's registry that is not one of ale_py's."""
    import gymnasium

    return [name for name, spec in gymnasium.registry.items() if not is_atari(spec)]


def knows(name):
    """Whether `gymnasium.make` would find `name`; that of a `module:Id` shows only when it is made."""
    import gymnasium

    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401  (registers its games)
    versions = (known.rpartition("-v")[0] for known in gymnasium.registry)
    return ":" in name or name in gymnasium.registry or name in versions


def find(name):
    """The registered id in `name`, after the import of what registers it, and its spec where one is known."""
    import gymnasium

    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401  (registers its games)
    module, _, name = name.rpartition(":")
    if module:
        importlib.import_module(module)
    versions = (spec for known, spec in gymnasium.registry.items() if known.rpartition("-v")[0] == name)
    return name, gymnasium.registry.get(name) or next(versions, None)


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
