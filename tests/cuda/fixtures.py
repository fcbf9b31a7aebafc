"""A CUDA device for tests: the stand-in for CuPy, in CuPy's place."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from fastnn import backend as backends
from fastnn.kernels.cupy_backend import device

from .compile import why_no_gxx
from .require import require
from .standin import cublas_library, install


def stand_in(patch: pytest.MonkeyPatch, total_bytes: int = 1 << 34) -> Iterator[ModuleType]:
    """Let CuPy be its stand-in, and no backend know another; for a fixture to yield from."""
    require("g++", why_no_gxx())
    patch.setattr(device, "load", lambda cupy: cublas_library)
    backends._make.cache_clear()
    with install(total_bytes=total_bytes) as cupy:
        yield cupy
    backends._make.cache_clear()
