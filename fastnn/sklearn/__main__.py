"""usage: python -m fastnn.sklearn script.py [argument ...]
       python -m fastnn.sklearn -m module [argument ...]
       python -m fastnn.sklearn -c code [argument ...]

Runs somebody's script, module or code as python would, unchanged, with fastnn's estimators under
scikit-learn's names. FASTNN_VERBOSE=1 in the environment says which engine trained, and why.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType

from .patching import patch


def main(arguments: Sequence[str] | None = None) -> None:
    """Patch scikit-learn and run what the arguments name.

    Parameters
    ----------
    arguments : sequence of str, default None
        ``[script, ...]``, ``["-m", module, ...]`` or ``["-c", code, ...]``; by default those of the
        command line.

    Raises
    ------
    SystemExit
        With status 2 if there is nothing to run, 1 if the code raises; else as the code does.
    """
    match sys.argv[1:] if arguments is None else list(arguments):
        case ["-h" | "--help", *_]:
            print(__doc__, end="")
        case ["-m", module, *_] as argv:
            # argv[0] becomes the file of the module when that is found
            _run(partial(runpy.run_module, module, run_name="__main__", alter_sys=True),
                 ["-m", *argv[2:]])  # fmt: skip
        case ["-c", code, *_] as argv:
            _run(partial(_run_code, code), ["-c", *argv[2:]])
        case [script, *_] as argv if not script.startswith("-"):
            if not os.path.exists(script):
                _refuse(f"no file {script!r}")
            if not sys.flags.safe_path:
                sys.path[0] = os.path.dirname(os.path.realpath(script))
            _run(partial(runpy.run_path, script, run_name="__main__"), argv)
        case []:
            _refuse("nothing to run")
        case [option, *_]:
            _refuse(f"{option!r} is no option, or lacks what it runs")


def _refuse(problem: str) -> None:
    print(f"{__doc__}\npython -m fastnn.sklearn: {problem}", file=sys.stderr)
    sys.exit(2)


def _run(work: Callable[[], object], argv: list[str]) -> None:
    """As python does: an exception is printed from the code's own first line on."""
    patch()
    sys.argv = argv
    try:
        work()
        return
    except Exception as error:
        _leave_out_our_frames(error)
        sys.excepthook(type(error), error, error.__traceback__)
    sys.exit(1)


def _run_code(code: str) -> None:
    main_module = ModuleType("__main__")
    sys.modules["__main__"] = main_module
    exec(compile(code, "<string>", "exec"), vars(main_module))


def _leave_out_our_frames(error: Exception) -> None:
    ours = (globals(), vars(runpy))
    frames = error.__traceback__
    while frames and any(frames.tb_frame.f_globals is names for names in ours):
        frames = frames.tb_next
    error.__traceback__ = frames


if __name__ == "__main__":
    main()
