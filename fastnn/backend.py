"""The choice of backend, device and threads: loud about what it picked, never a silent fallback."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import checks

if TYPE_CHECKING:
    from .kernels.contract import Backend, Plan

_CLASSES = {
    "numpy": ("numpy_backend", "NumpyBackend"),
    "numba": ("numba_backend.backend", "NumbaBackend"),
    "cupy": ("cupy_backend", "CupyBackend"),
}
BACKENDS = tuple(_CLASSES)
"""Names of backends, installed or not."""
DEFAULT = "numba"
_DEVICES = {"numpy": "cpu", "numba": "cpu", "cupy": "cuda"}

SLICE_SECONDS = 0.05
"""How long compiled code may run between two looks at signals and progress."""
_SMALL_FLOPS, _SMALL_BYTES = 2_000_000, 600_000
"""What a chunk must do or touch before another thread pays: its share of the work must outweigh the
barriers, or its share of the weights must fit a nearer cache."""

_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar("backend", default=None)
_process_choice: str | None = None
_environment = os.environ.get("FASTNN_BACKEND")
_threads: int | None = None


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
        An object with the operations of ``fastnn.kernels.contract.Backend``.

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
    return _make(name or _chosen.get() or _process_choice or _environment or DEFAULT)


@functools.cache
def _make(name: str) -> Backend:
    module, class_name = checks.lookup("backend", name, _CLASSES)
    try:
        found = importlib.import_module(f".kernels.{module}", __package__)
        make = getattr(found, class_name)
        return make(get_num_threads) if name == "numba" else make()
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(f"the {name} backend does not work here: {error}") from error


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
    """
    global _process_choice
    get_backend(name)
    _process_choice = name


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[Backend]:
    """Use a backend inside a ``with`` block.

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


def for_device(device: str | None) -> Backend:
    """The backend for a ``device=`` argument: None follows the backend in use.

    Raises
    ------
    ValueError
        For an unknown device, or one that contradicts the backend that was chosen.
    """
    if device is None:
        return get_backend()
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; expected 'cpu', 'cuda' or None")
    chosen = _chosen.get() or _process_choice or _environment
    if chosen is None:
        return get_backend("cupy" if device == "cuda" else DEFAULT)
    if _DEVICES.get(chosen, device) != device:
        raise ValueError(
            f"device is {device!r}, but the {chosen} backend in use works on {_DEVICES[chosen]!r}"
        )
    return get_backend(chosen)


def set_num_threads(count: int | None) -> None:
    """Use at most this many threads; None for what the machine grants.

    Parameters
    ----------
    count : int or None
        From 1 to 1024. Results have the same bits at every count.
    """
    global _threads
    from .kernels.contract import MOST_THREADS

    if count is not None and checks.positive_int("count", count) > MOST_THREADS:
        raise ValueError(f"count is {count}; expected at most {MOST_THREADS}")
    _threads = None if count is None else int(count)


def get_num_threads() -> int:
    """The most threads that a call may use.

    That of :func:`set_num_threads`, else ``FASTNN_NUM_THREADS``, else the cores that the affinity
    mask and the container's quota grant.
    """
    if _threads is not None:
        return _threads
    from .kernels.numba_backend.machine import available_threads

    return available_threads().count


def threads_for(plan: Plan) -> int:
    """Threads that pay for a plan: 1 where a step is too small to share."""
    costs = [plan.cost(row) for row in plan.chunk]
    flops, touched = (sum(cost[part] for cost in costs) for part in range(2))
    is_small = flops < _SMALL_FLOPS and touched < _SMALL_BYTES
    return 1 if is_small else get_num_threads()
