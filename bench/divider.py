"""How many square roots and divisions a core does a second.

They go through a unit of their own that takes many cycles for a vector, so that it, rather than
bytes, bounds an optimizer such as Adam in a near cache. A root and a division, one after the other,
may take less than the two apart, and are measured as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnn.kernels.alignment import aligned
from fastnn.kernels.numba_backend import objects
from fastnn.kernels.numba_backend.emit import NAME, Kernel, only_kernel
from fastnn.kernels.numba_backend.operations import apply
from fastnn.kernels.tracing import Vector, VectorMath

ROOTS, DIVISIONS, PAIRS = KINDS = ("square roots", "divisions", "a root and a division")
_CHAINS = 8
"""Vectors at work at once: more than one takes for its result, so that the divider never waits."""
_TURNS = 1000
_SHIFT = 1.7
"""Keeps operands away from 1, which a divider might be quick about."""


def divider_work(kind: str, operands: Sequence[np.ndarray]) -> tuple[Callable[[int], None], int]:
    """A call that does nothing but one of KINDS to a thread's own operands, and how many."""
    module = _chains(kind, operands[0].dtype.name).builder.module
    kernel = objects.build(module)[NAME]
    places = [array.ctypes.data for array in operands]

    def work(me: int) -> None:
        apply(kernel, _TURNS, places[me])

    return work, _TURNS * operands[0].size


def divider_operands(dtype: str) -> np.ndarray:
    """Numbers to begin with, a vector for each chain."""
    values = aligned(_CHAINS * only_kernel("", dtype).lanes, dtype)
    values[:] = np.linspace(1.1, 3.0, values.size)
    return values


def divider_step(m: Any, kind: str, x: Any) -> Any:
    """The formula that is repeated; it never comes to rest at a number of few bits."""
    if kind == ROOTS:
        return m.sqrt(x + _SHIFT)
    return _SHIFT / (x if kind == DIVISIONS else m.sqrt(x))


def _chains(kind: str, dtype: str) -> Kernel:
    """Arguments: turns, values (read, and written at the end): chains that do not meet."""
    kernel = only_kernel("ip", dtype)
    builder, math = kernel.builder, VectorMath(kernel.builder, dtype, kernel.lanes)
    turns, values = kernel.arguments
    places = [kernel.at(values, number * kernel.lanes) for number in range(_CHAINS)]
    chains = [kernel.variable(kernel.load_vector(place)) for place in places]
    with kernel.loop(turns):
        for chain in chains:
            moved: Vector = divider_step(math, kind, math.vector(builder.load(chain)))
            builder.store(moved.value, chain)
    for chain, place in zip(chains, places, strict=True):
        kernel.store_vector(builder.load(chain), place)
    kernel.finish()
    return kernel
