"""What ``fastnn doctor`` prints: versions, the CPU, threads, backends and the cache folder."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from typing import Any

import fastnn

from . import backend

Fact = tuple[str, str]

_FEATURES = ("sse4.2", "avx2", "fma", "avx512f", "avx512vl", "amx-tile", "neon", "sve")
"""CPU features that a kernel's speed depends on, of those that LLVM names."""


def facts() -> Iterator[Fact]:
    """Name and value of each fact about this installation and machine, in reading order.

    What cannot be found out is told by its reason: a broken installation is what this is for.

    Examples
    --------
    >>> next(iter(facts()))[0]
    'fastnn'
    """
    yield "fastnn", f"{fastnn.__version__} ({fastnn.__path__[0]})"
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    for package in ("NumPy", "Numba", "llvmlite", "tqdm"):
        yield package, _or_reason(partial(metadata.version, package))
    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}"
    for name, find in (
        ("CPU", _cpu),
        ("features", _features),
        ("vectors", _vectors),
        ("threads", _threads),
    ):
        yield name, _or_reason(find)
    for name in backend.BACKENDS:
        yield name, _or_reason(partial(_backend, name))
    if not backend.why_missing("cupy"):
        yield from _gpu()
    yield "cache", _or_reason(_cache)


def _or_reason(find: Callable[[], str]) -> str:
    try:
        return find()
    except metadata.PackageNotFoundError:
        return "missing"
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        return f"unknown: {error}"


def _cpu() -> str:
    from .kernels.numba_backend import machine

    return machine.cpu_model()


def _features() -> str:
    from .kernels.numba_backend import machine

    present = machine.target().features.split(",")
    return " ".join(name for name in _FEATURES if f"+{name}" in present) or "none that matter"


def _vectors() -> str:
    from .kernels.numba_backend import machine

    target = machine.target()
    return (
        f"{target.vector_bits} bits: {target.lanes('float32')} float32 or "
        f"{target.lanes('float64')} float64 at once"
    )


def _threads() -> str:
    from .kernels.numba_backend import machine

    granted = machine.available_threads()
    return f"{granted.count} ({granted.reason}); 1 where a step is too small to share"


def _backend(name: str) -> str:
    reason = backend.why_missing(name)
    if reason:
        return f"missing: {reason}"
    return "found, in use" if backend.get_backend().name == name else "found"


def _gpu() -> Iterator[Fact]:
    """The device that the cupy backend works on, and the software under it."""
    cuda = backend.get_backend("cupy").module.cuda
    yield "GPU", _or_reason(lambda: _device(cuda))
    yield "CUDA", _or_reason(lambda: _versions(cuda))


def _device(cuda: Any) -> str:
    device = cuda.Device()
    name = cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    major, minor = device.compute_capability[:-1], device.compute_capability[-1]
    free, total = cuda.runtime.memGetInfo()
    return (
        f"{name}, compute capability {major}.{minor}, {total / 1e9:.1f} GB of memory "
        f"({free / 1e9:.1f} free)"
    )


def _versions(cuda: Any) -> str:
    driver, runtime = (
        f"{number // 1000}.{number % 1000 // 10}"
        for number in (cuda.runtime.driverGetVersion(), cuda.runtime.runtimeGetVersion())
    )
    compiler = ".".join(map(str, cuda.nvrtc.getVersion()))
    return f"driver for {driver}, runtime {runtime}, NVRTC {compiler}"


def _cache() -> str:
    from .kernels import cache

    folder = cache.folder()
    if folder is None:
        return "none: no private folder can be written, so each process compiles anew"
    sizes = [path.stat().st_size for path in folder.iterdir() if path.is_file()]
    return f"{folder} ({len(sizes)} files, {sum(sizes) / 1e6:.1f} MB)"
