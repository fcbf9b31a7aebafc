"""What ``fastnn doctor`` prints: versions, the CPU, threads, backends and the cache folder."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

import fastnn

Fact = tuple[str, str]


def facts() -> Iterator[Fact]:
    """Name and value of each fact about this installation and machine, in reading order.

    Examples
    --------
    >>> next(iter(facts()))[0]
    'fastnn'
    """
    yield from _versions()
    yield from _processor()
    yield from _backends()


def _versions() -> Iterator[Fact]:
    yield "fastnn", f"{fastnn.__version__} ({', '.join(fastnn.__path__)})"
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    for package in ("NumPy", "Numba", "llvmlite"):
        yield package, metadata.version(package)


def _processor() -> Iterator[Fact]:
    from fastnn.kernels.numba_backend import machine

    yield "CPU", machine.cpu_model()
    try:
        target = machine.target()
    except (RuntimeError, ValueError) as error:
        yield "vectors", f"none: {error}"
    else:
        present = [name for name in _FEATURES if f"+{name}" in target.features.split(",")]
        yield "features", " ".join(present) or "none of " + " ".join(_FEATURES)
        yield "vectors", f"{target.vector_bits} bits"
    threads = machine.available_threads()
    yield "threads", f"{threads.count} ({threads.reason}); small networks use 1"


_FEATURES = ("sse4.2", "avx2", "fma", "avx512f", "avx512vl", "amx-tile", "neon", "sve")


def _backends() -> Iterator[Fact]:
    from fastnn.kernels.numba_backend import objects

    from . import backend

    for name in backend.BACKENDS:
        reason = backend.why_missing(name)
        chosen = " (in use)" if name == backend.get_backend() else ""
        yield name, f"missing: {reason}" if reason else f"found{chosen}"
    folder = objects.cache_folder()
    yield "cache", str(folder) if folder else "none can be written: compiled anew in each process"
