"""The choice of backend, device and threads: loud about what it picked, never a silent fallback."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from . import arrays, checks, optional

if TYPE_CHECKING:
    from .kernels.contract import Backend, Plan

_CLASSES = {
    "numpy": ("numpy_backend", "NumpyBackend"),
    "numba": ("numba_backend.backend", "NumbaBackend"),
    "cupy": ("cupy_backend.backend", "CupyBackend"),
}
BACKENDS = tuple(_CLASSES)
"""Names of backends, installed or not."""
DEFAULT = "numba"
_DEVICES = {"numpy": "cpu", "numba": "cpu", "cupy": "cuda"}
GPU_FLOPS = 20_000_000
"""Work from which ``device="auto"`` takes a GPU: what a few cores do, at some 10^12 flops a second,
in the 20 µs that a GPU takes for a training step of any size. An estimate, not measured."""

SLICE_SECONDS = 0.05
"""How long compiled code may run between two looks at signals and progress."""
_SMALL_FLOPS, _SMALL_BYTES = 2_000_000, 600_000
"""What a chunk must do or touch before another thread pays: its share of the work must outweigh the
barriers, or its share of the weights must fit a nearer cache."""

_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar("backend", default=None)
_process_choice: str | None = None
_environment = os.environ.get("FASTNN_BACKEND")
_threads: int | None = None
_one_thread: contextvars.ContextVar[bool] = contextvars.ContextVar("one_thread", default=False)


def get_backend(name: str | None = None) -> Backend:
    """The backend in use, or the one named.

    Parameters
    ----------
    name : str, optional
        "numpy", "numba" or "cupy". By default the choice of ``use_backend``, else of
        ``set_backend``, else of the environment's ``FASTNN_BACKEND``, else "numba".

    Returns
    -------
    Backend
        An object with the operations of ``fastnn.Backend``, whose docstrings say what each does,
        at what cost and with what error.

    Raises
    ------
    ValueError
        For an unknown name.
    RuntimeError
        Where the backend cannot work here; the message says what is missing.

    Examples
    --------
    >>> get_backend("numpy").name
    'numpy'
    """
    return _make(name or _choice() or DEFAULT)


@functools.cache
def _make(name: str) -> Backend:
    module, class_name = checks.lookup("backend", name, _CLASSES)
    try:
        needs = _NEEDS[name]() if name in _NEEDS else ()
        found = importlib.import_module(f".kernels.{module}", __package__)
        return getattr(found, class_name)(*needs)
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(f"the {name} backend does not work here: {error}") from error


def _needs_of_cupy() -> tuple[Any, Backend]:
    """CuPy, and the backend that shuffles on the CPU, with the same results whichever it is."""
    cupy = optional.require(
        "cupy", extra="cuda13", otherwise="fastnn-kernels[cuda12] for a driver of CUDA 12"
    )
    return cupy, get_backend("numpy" if why_missing("numba") else "numba")


_NEEDS = {"numba": lambda: (get_num_threads,), "cupy": _needs_of_cupy}


def why_missing(name: str) -> str | None:
    """Why a backend cannot be used here, or None where it can."""
    try:
        get_backend(name)
    except RuntimeError as error:
        return str(error)
    return None


def set_backend(name: str) -> None:
    """Use a backend from here on, in every thread.

    Parameters
    ----------
    name : str
        "numpy", "numba" or "cupy".

    Raises
    ------
    ValueError, RuntimeError
        As :func:`get_backend`; the choice is then as it was.

    Examples
    --------
    >>> set_backend("numpy")  # doctest: +SKIP
    """
    global _process_choice
    get_backend(name)
    _process_choice = name


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[Backend]:
    """Use a backend inside a ``with`` block, which gets it as its target.

    Parameters
    ----------
    name : str
        "numpy", "numba" or "cupy".

    Raises
    ------
    ValueError, RuntimeError
        As :func:`get_backend`.

    Examples
    --------
    >>> with use_backend("numpy") as backend:
    ...     backend.name
    'numpy'
    """
    backend = get_backend(name)
    token = _chosen.set(name)
    try:
        yield backend
    finally:
        _chosen.reset(token)


class Work(NamedTuple):
    """Work that a device is chosen for: what does it all at once, and its flops."""

    what: str
    flops: int


def training_work(weights: int, batch_rows: int) -> Work:
    """The work of a training step: two flops a weight and row forward, four backward.

    >>> training_work(1000, 32)
    Work(what='a training step', flops=192000)
    """
    return Work("a training step", 6 * weights * batch_rows)


def pass_work(weights: int, rows: int) -> Work:
    """The work of a pass forward over some rows."""
    return Work("a pass over the rows", 2 * weights * rows)


def for_device(device: str | None, work: Work) -> Backend:
    """The backend for a ``device=`` argument: None follows the backend in use.

    "auto" takes the GPU if there is one and the work is large enough, else the CPU, and says on
    standard error which and why; a backend that was chosen stays.

    Raises
    ------
    ValueError
        For an unknown device, or one that contradicts the backend that was chosen.
    RuntimeError
        For "cuda" where the cupy backend cannot work; the message says what is missing.
    """
    if device is None:
        return get_backend()
    if device not in ("cpu", "cuda", "auto"):
        raise ValueError(f"device is {device!r}; expected 'cpu', 'cuda', 'auto' or None")
    chosen = _choice()
    if device == "auto":
        name, reason = (chosen, f"the {chosen} backend is in use") if chosen else _pick(work)
        return _announced(get_backend(name), reason)
    if chosen is None:
        return get_backend("cupy" if device == "cuda" else DEFAULT)
    if _DEVICES.get(chosen, device) != device:
        raise ValueError(
            f"device is {device!r}, but the {chosen} backend in use works on {_DEVICES[chosen]!r}"
        )
    return get_backend(chosen)


def for_data(device: str | None, name: str, data: Any, work: Work) -> Backend:
    """The backend for a ``device=`` argument and data, which on a GPU are worked on where they lie.

    Parameters
    ----------
    device : str or None
        None and "auto" follow data that lie on a GPU.
    name : str
        The argument's name, for the message.
    data : array_like
    work : Work

    Raises
    ------
    TypeError
        For data on a GPU, where the backend that was asked for works on the CPU.
    ValueError, RuntimeError
        As :func:`for_device`.
    """
    if device is None:
        return where_it_lies(name, data)
    if device == "auto" and arrays.is_on_gpu(data):
        return _announced(where_it_lies(name, data), f"{name} is there")
    return _fitting(for_device(device, work), name, data)


def where_it_lies(name: str, data: Any) -> Backend:
    """The backend in use or, for data on a GPU where none was chosen, that of the GPU.

    Raises
    ------
    TypeError
        For data on a GPU, where a backend was chosen that works on the CPU.
    """
    if _choice() is None:
        return for_array(data)
    return _fitting(get_backend(), name, data)


def _fitting(backend: Backend, name: str, data: Any) -> Backend:
    """The backend, if it can work on data where they lie."""
    if arrays.is_on_gpu(data) and backend.name != "cupy":
        raise TypeError(
            f"{name} is a {arrays.kind_of(data)} on a GPU, and the {backend.name} backend works on "
            f"the CPU; expected an array in host memory (of a CuPy array, {name}.get()) or the "
            "cupy backend"
        )
    return backend


def for_array(array: Any) -> Backend:
    """That of the GPU for an array there, whatever was chosen, else the backend in use."""
    return get_backend("cupy") if arrays.is_on_gpu(array) else get_backend()


def _choice() -> str | None:
    """The backend that someone chose, by whatever way."""
    return _chosen.get() or _process_choice or _environment


def _pick(work: Work) -> tuple[str, str]:
    """The backend that fits the work best, and why."""
    size = f"{work.what} is {work.flops / 1e6:.3g} Mflop"
    limit = f"the {GPU_FLOPS / 1e6:g} Mflop from which a GPU pays (an estimate, not measured)"
    if work.flops < GPU_FLOPS:
        return DEFAULT, f"{size}, below {limit}"
    missing = why_missing("cupy")
    return (DEFAULT, missing) if missing else ("cupy", f"{size}, at least {limit}")


def _announced(backend: Backend, reason: str) -> Backend:
    """The backend that "auto" picked, once standard error has its reason in one line."""
    place = "GPU" if backend.name == "cupy" else "CPU"
    print(f"fastnn: device='auto' picked the {place}: {' '.join(reason.split())}", file=sys.stderr)
    return backend


def set_num_threads(count: int | None) -> None:
    """Use at most this many threads; None for what the machine grants.

    Parameters
    ----------
    count : int or None
        From 1 to 1024. Results have the same bits at every count.

    Raises
    ------
    ValueError, TypeError
        For another number, or what is not a whole one; the choice is then as it was.

    Examples
    --------
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(None)
    """
    global _threads
    from .kernels.contract import MOST_THREADS

    if count is not None and checks.positive_int("count", count) > MOST_THREADS:
        raise ValueError(f"count is {count}; expected at most {MOST_THREADS}")
    _threads = None if count is None else int(count)


def get_num_threads() -> int:
    """The most threads that a call may use.

    That of :func:`set_num_threads`, else ``FASTNN_NUM_THREADS``, else the cores that the affinity
    mask and the container's quota grant. 1 where a thread already has whole networks to itself.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        For a ``FASTNN_NUM_THREADS`` that is not a whole number from 1 to 1024.

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    if _one_thread.get():
        return 1
    if _threads is not None:
        return _threads
    from .kernels.numba_backend.machine import available_threads

    return available_threads().count


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let what runs inside a ``with`` block take no further threads."""
    token = _one_thread.set(True)
    try:
        yield
    finally:
        _one_thread.reset(token)


def threads_for(plan: Plan) -> int:
    """Threads that pay for a plan: 1 where a step is too small to share."""
    most = get_num_threads()
    if most == 1:
        return 1
    costs = [plan.cost(row) for row in plan.chunk]
    flops, touched = (sum(cost[part] for cost in costs) for part in range(2))
    is_small = flops < _SMALL_FLOPS and touched < _SMALL_BYTES
    return 1 if is_small else most
