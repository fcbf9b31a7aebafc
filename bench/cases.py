"""What a suite times: a piece of work, its least cost, and the check that it must pass first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from checks import Bound, elementwise_bound

from fastnn.kernels.alignment import aligned

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
        Floating-point operations of a step: of its products if it has any, else of its formula.
    roots, divisions : int, default 0
        Square roots and divisions of a step's elements; see ``bench.counts``.
    steps : int, default 1
        Steps in one ``run``; times are reported per step.
    """

    run: Callable[[], Any]
    verify: Callable[[], None]
    dtype: str
    bytes: int
    footprint: int
    flops: int = 0
    roots: int = 0
    divisions: int = 0
    steps: int = 1


def time_case(benchmark: Any, case: Case, roofline: Roofline, threads: int) -> None:
    """Verify, then time, then put the time beside the roofline, in ``benchmark.extra_info``."""
    case.verify()
    benchmark(case.run)
    if benchmark.stats is None:  # timing is disabled
        return
    seconds = benchmark.stats.stats.median / case.steps
    benchmark.extra_info.update(on_roofline(case, seconds, roofline, threads))


def on_roofline(case: Case, seconds: float, roofline: Roofline, threads: int) -> dict[str, Any]:
    """The time of a step of a case beside the least that it can take."""
    bound, least = roofline.least_seconds(case, threads)
    return {
        "seconds per step": seconds,
        "GF/s": case.flops / seconds / 1e9,
        "GB/s": case.bytes / seconds / 1e9,
        "percent of roofline": 100 * least / seconds,
        "bound by": bound,
    }


def roofline_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What ``on_roofline`` gave, a line for each name."""
    width = max(map(len, measured))
    titles = f"{'':{width}} {'time a step':>12} {'GF/s':>8} {'GB/s':>8} {'of roofline':>12}  by"
    return "\n".join([titles, *(_line(name, of, width) for name, of in measured.items())])


def _line(name: str, measured: Mapping[str, Any], width: int) -> str:
    flops = f"{measured['GF/s']:8.1f}" if measured["GF/s"] else f"{'':8}"
    return (
        f"{name:{width}} {measured['seconds per step'] * 1e6:9.2f} us {flops}"
        f" {measured['GB/s']:8.1f} {measured['percent of roofline']:10.1f} %"
        f"  {measured['bound by']}"
    )


def traffic(*arrays: np.ndarray) -> int:
    """Bytes of arrays that are each read or written once."""
    return sum(array.nbytes for array in arrays)


def placed(values: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line, as the engine's own buffers do."""
    array = aligned(values.size, values.dtype.name).reshape(values.shape)
    array[...] = values
    return array


def rounding(dtype: str, scale: Any) -> Bound:
    """The bound of a few roundings of numbers of this scale."""
    return elementwise_bound(dtype, ROUNDINGS, scale)
