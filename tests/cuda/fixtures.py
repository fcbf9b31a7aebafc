"""A CUDA device for tests: a real one through CuPy, or the stand-in in CuPy's place."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import ModuleType

import pytest

from fastnn import backend as backends
from fastnn.kernels.cupy_backend import device

from .compile import why_no_gxx
from .require import is_required, require
from .standin import cublas_library, install


@functools.cache
def why_no_device() -> str | None:
    """What is missing for a real device, or None where there is one."""
    backends._make.cache_clear()  # a stand-in's may be kept there
    return backends.why_missing("cupy")


@pytest.fixture
def cupy_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """CuPy itself where there is a device, else its stand-in."""
    yield from cupy_here(monkeypatch)


def cupy_here(patch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The same, for other fixtures to yield from."""
    if why_no_device() is None:
        yield backends.get_backend("cupy").module
        return
    if is_required("cuda"):
        require("cuda", why_no_device())
    yield from stand_in(patch)


def stand_in(patch: pytest.MonkeyPatch, total_bytes: int = 1 << 34) -> Iterator[ModuleType]:
    """Let CuPy be its stand-in, and no backend know another; for a fixture to yield from."""
    require("g++", why_no_gxx())
    patch.setattr(device, "load", lambda cupy: cublas_library)
    backends._make.cache_clear()
    with install(total_bytes=total_bytes) as cupy:
        yield cupy
    backends._make.cache_clear()
