"""What a suite times: a piece of work, its least cost, and the check that it must pass first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from checks import Bound, elementwise_bound

if TYPE_CHECKING:
    from .roofline import Roofline

BATCHES = (1, 8, 32, 128, 512, 2048, 8192)
ROUNDINGS = 8
"""Units in the last place that a few operations and functions an element may be off."""
STEEPEST = 2.0
"""No activation, and no slope but where it jumps, rises faster; no slope jumps higher."""


@dataclass(frozen=True)
class Case:
    """A piece of work to time.

    Parameters
    ----------
    run : callable
        The work, as often as one likes.
    verify : callable
        Does the work once and raises AssertionError where its result is not the truth's.
    dtype : str
    bytes : int
        What a step must at least read and write.
    footprint : int
        Bytes that steps come back to: they decide which cache the work can live in.
    flops : int, default 0
        Floating-point operations of the products of a step; 0 where the bytes decide.
    steps : int, default 1
        Steps in one ``run``; times are reported per step.
    """

    run: Callable[[], Any]
    verify: Callable[[], None]
    dtype: str
    bytes: int
    footprint: int
    flops: int = 0
    steps: int = 1


def time_case(benchmark: Any, case: Case, roofline: Roofline, threads: int) -> None:
    """Verify, then time, then put the time beside the roofline, in ``benchmark.extra_info``."""
    case.verify()
    benchmark(case.run)
    if benchmark.stats is None:  # timing is disabled
        return
    seconds = benchmark.stats.stats.median / case.steps
    bound, least = roofline.least_seconds(case, threads)
    benchmark.extra_info.update(
        {
            "seconds per step": seconds,
            "GF/s": case.flops / seconds / 1e9,
            "GB/s": case.bytes / seconds / 1e9,
            "percent of roofline": 100 * least / seconds,
            "bound by": bound,
        }
    )


def traffic(*arrays: np.ndarray) -> int:
    """Bytes of arrays that are each read or written once."""
    return sum(array.nbytes for array in arrays)


def rounding(dtype: str, scale: Any) -> Bound:
    """The bound of a few roundings of numbers of this scale."""
    return elementwise_bound(dtype, ROUNDINGS, scale)
