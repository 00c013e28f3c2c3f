"""Set-up of the interpreter, descriptions of exceptions, and look-ups of ids. Imports no package at the top level."""

import contextlib
import difflib
import faulthandler
import importlib
import importlib.util
import io
import multiprocessing
import os
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
    # A crash in native code, and `os._exit`, end this program: say where.
    with contextlib.suppress(Exception):
        faulthandler.enable(all_threads=False)
    os._exit = explained_exit(os._exit, os.getpid())
    # A warning from pygame's import, which only its authors can fix.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    if str(here) not in sys.path:
        sys.path.append(str(here))
    if not getattr(sys, "argv", None):
        sys.argv = [""]
    if python is not None:
        multiprocessing.set_executable(str(python))


def explained_exit(leave, process):
    """`os._exit` (`leave`), with a message where it ends this program rather than a child of it."""

    def explained(status):
        if os.getpid() == process:
            os.write(
                2,
                f"error: an environment called os._exit({status}), which ends this program: with env.vectorization = \"async\" "
                "it ends only the environment\n".encode(),
            )
        leave(status)

    return explained


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
    """Whether `name` is registered, or is a `module:Id` or `file.py:Class`, which is imported when it is created."""
    import gymnasium

    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401  (registers its games)
    versions = (known.rpartition("-v")[0] for known in gymnasium.registry)
    return ":" in name or name.endswith(".py") or name in gymnasium.registry or name in versions


def find(name):
    """What `gymnasium.make` takes for `name`, an id or a spec, after the import of its module; and the spec if there is one."""
    import gymnasium

    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401  (registers its games)
    path, separator, attribute = name.partition(".py:")
    if separator or name.endswith(".py"):
        return find_in_file(f"{path}.py" if separator else name, attribute)
    module, _, name = name.rpartition(":")
    if module:
        importlib.import_module(module)
    versions = (spec for known, spec in gymnasium.registry.items() if known.rpartition("-v")[0] == name)
    spec = gymnasium.registry.get(name) or next(versions, None)
    if module and spec is None:
        raise refuse(f"the module `{module}` registers no `{name}`{advice(module, name)}")
    return name, spec


def advice(module, name):
    """What to write instead of `module:name`: an id that the module registers, or its file with a class."""
    import gymnasium

    ids = [
        known
        for known, spec in gymnasium.registry.items()
        if getattr(spec.entry_point, "__module__", str(spec.entry_point).partition(":")[0]) == module
    ]
    found = closest(name, ids) or (ids[0] if len(ids) == 1 else None)
    if found:
        return f"; did you mean `{module}:{found}`?"
    file, classes = getattr(sys.modules[module], "__file__", None), environments_in(sys.modules[module])
    if file and classes:
        return f": register it (gymnasium.register), or write {file}:{closest(name, classes) or classes[0]}"
    return ": call gymnasium.register in it"


def find_in_file(path, name):
    """The spec, twice, of the class (or function) `name` in the Python file `path`. It need not be registered."""
    import gymnasium

    if not name:
        raise refuse(f"the id names a file and no class: write {path}:Class")
    module = load(path)
    made = getattr(module, name, None)
    if made is None:
        classes = environments_in(module)
        found = closest(name, classes) or (classes[0] if len(classes) == 1 else None)
        hint = f"; did you mean {path}:{found}?" if found else f" (it has {', '.join(classes)})" if classes else ""
        raise refuse(f"the file has no class `{name}`{hint or ', and no subclass of gymnasium.Env'}")
    if isinstance(made, type) and issubclass(made, gymnasium.vector.VectorEnv):
        return (gymnasium.envs.registration.EnvSpec(name, vector_entry_point=made),) * 2
    is_function = callable(made) and not isinstance(made, type)
    if not is_function and not (isinstance(made, type) and issubclass(made, gymnasium.Env)):
        raise refuse(f"`{name}` is no environment: derive the class from gymnasium.Env")
    return (gymnasium.envs.registration.EnvSpec(name, entry_point=made),) * 2


def load(path):
    """The module in the Python file `path`, imported once. Modules beside it can be imported, too."""
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        files = [file for file in os.listdir(folder) if file.endswith(".py")] if os.path.isdir(folder) else []
        found = closest(name, files)
        raise refuse("there is no such file" + (f"; did you mean {os.path.join(folder, found)}?" if found else ""))
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == path and getattr(module, "__name__", "") != "__main__":
            return module
    name = os.path.basename(path).removesuffix(".py")
    # A file may have the name of another module, of Python's `random`, for example.
    taken = name in sys.modules or importlib.util.find_spec(name) is not None
    name = f"{name}_{len(sys.modules)}" if taken else name
    if os.path.dirname(path) not in sys.path:
        sys.path.append(os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def environments_in(module):
    """The names of the environment classes that `module` defines."""
    import gymnasium

    bases = gymnasium.Env, gymnasium.vector.VectorEnv
    own = ((name, value) for name, value in vars(module).items() if isinstance(value, type))
    return [name for name, value in own if issubclass(value, bases) and value.__module__ == module.__name__]


def closest(name, candidates):
    """The candidate most similar to `name`, or None."""
    lower = {candidate.lower(): candidate for candidate in reversed(candidates)}
    found = difflib.get_close_matches(name.lower(), lower, 1, 0.5)
    return lower[found[0]] if found else None


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
