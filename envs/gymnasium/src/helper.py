"""Set-up of the interpreter, descriptions of exceptions, and look-ups of ids. Imports no package at the top level."""

import contextlib
import importlib
import io
import multiprocessing
import signal
import sys
import traceback
import warnings


def prepare(here, python):
    """Appends `here` to `sys.path`, and makes `python` the executable of `multiprocessing`'s child processes."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the import of `signal` installed its handler
    # What an environment prints is not part of this program's output.
    sys.stdout = sys.stderr
    # A warning from pygame's import, which only its authors can fix.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    if str(here) not in sys.path:
        sys.path.append(str(here))
    if not getattr(sys, "argv", None):
        sys.argv = [""]
    if python is not None:
        multiprocessing.set_executable(str(python))


class Described(Exception):
    """An exception of a child process, as described there by `describe`: processes exchange only text."""


class Failed(Exception):
    """An exception in environment `index` of a batch."""

    def __init__(self, index, description):
        super().__init__(f"environment {index}: {description[1]}")
        self.index, self.description = index, description


def refuse(message):
    """An error that is shown as its message, without the name of its class."""
    import gymnasium

    return gymnasium.error.Error(message)


def describe(exception):
    """`(kind, message, traceback, module, where)`: `kind` is empty for `refuse`, `module` is the one that failed to import."""
    if isinstance(exception, Described):
        return exception.args[0]
    if isinstance(exception, Failed):
        return (*exception.description[:4], f"environment {exception.index}")
    kind = "" if type(exception).__module__.startswith("gymnasium.error") else type(exception).__name__
    missing = (exception.name or "") if isinstance(exception, ImportError) else ""
    trace = "".join(traceback.format_exception(exception)).rstrip()
    return kind, str(exception), trace, missing, ""


def games():
    """`{"ALE/Pong-v5": "pong", ...}`: the games of the installed ale_py."""
    import ale_py  # noqa: F401  (registers its games)
    import gymnasium

    found = gymnasium.registry.items()
    return {name: spec.kwargs["game"] for name, spec in found if name.startswith("ALE/") and name.endswith("-v5")}


def rom_path(game):
    """The path of the verified ROM file of `game`, without ale_py's output."""
    from ale_py import roms

    with contextlib.redirect_stdout(io.StringIO()):
        return roms.get_rom_path(game)


def is_atari(spec):
    """Whether ale_py registered this environment."""
    return "ale_py" in str(spec.entry_point)


def registered():
    """Every id in Gymnasium's registry, without those of ale_py."""
    import gymnasium

    return [name for name, spec in gymnasium.registry.items() if not is_atari(spec)]


def is_registered(name):
    """Whether `name` is registered, or is a `module:Id`, which is registered when it is created."""
    import gymnasium

    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401  (registers its games)
    versions = (known.rpartition("-v")[0] for known in gymnasium.registry)
    return ":" in name or name in gymnasium.registry or name in versions


def find(name):
    """The id in `name`, after the import of its module, and its spec if it is registered."""
    import gymnasium

    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401  (registers its games)
    module, _, name = name.rpartition(":")
    if module:
        importlib.import_module(module)
    versions = (spec for known, spec in gymnasium.registry.items() if known.rpartition("-v")[0] == name)
    return name, gymnasium.registry.get(name) or next(versions, None)


def versions():
    """`(name, version or None, exception text)` of the interpreter and the required packages."""
    found = [("Python", sys.version.split()[0] + f" ({sys.executable})", "")]
    for name in ("numpy", "gymnasium", "ale_py"):
        try:
            module = importlib.import_module(name)
            found.append((name, f"{module.__version__} ({module.__path__[0]})", ""))
        except Exception as e:
            found.append((name, None, f"{type(e).__name__}: {e}"))
    return found
