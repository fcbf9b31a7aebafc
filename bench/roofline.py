"""What this machine can do: multiply-adds, roots and divisions, bytes of each cache and of memory.

``python -m bench.roofline`` prints it and writes it as JSON, ``--kernels`` also prints what every
kernel makes of it. All of it is measured with the engine's own kernels: a product tile whose
operands stand still in the nearest cache; and reading (is all of it finite?), copying (a gather)
and a triad (an SGD update) over memory of each size. A bandwidth is that of the fastest of the
three, which is fair to work of any mix. Roots and divisions are done in registers.

A piece of work can take no less than its flops at that peak, its square roots and divisions at
their throughput, or its bytes at the bandwidth of the caches, each of which keeps as much as it can
of what the work comes back to, the nearest first (Williams, Waterman and Patterson 2009).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastnn import get_num_threads
from fastnn.kernels.alignment import aligned
from fastnn.kernels.contract import DTYPES
from fastnn.kernels.formulas import UPDATES
from fastnn.kernels.numba_backend import library, machine, memory, objects, products
from fastnn.kernels.numba_backend.operations import apply
from fastnn.kernels.numba_backend.table import MOST_SLOTS, TALLEST
from fastnn.kernels.numba_backend.workers import together

from .divider import DIVISIONS, KINDS, PAIRS, ROOTS, divider_operands, divider_work

if TYPE_CHECKING:
    from .cases import Case

PRIVATE = ("L1", "L2")
"""Caches of which every core has its own."""
MEMORY = "memory"
FLOPS, DIVIDER = "flops", "divider"
_USUAL_CACHES = {"L1": 32 << 10, "L2": 512 << 10, "L3": 8 << 20}
_BEYOND_CACHES = 4
"""Memory is measured over so many times the last cache."""
_TILE_INNER = 1 << 16
_STREAM_BYTES = 1 << 26
"""A call passes over a smaller array until it has read so much."""
_NO_MOVE = 2.0**-30
"""A learning rate at which ones stay ones, however often they are updated by ones."""
_CALLS = 10
"""Calls of a tile, some milliseconds, that show how many cores there are."""
_MEASUREMENTS = 15
_SECONDS = 0.002
"""A measurement takes about so long; the fastest of several counts."""


@dataclass(frozen=True)
class Roofline:
    """The limits of a machine.

    Parameters
    ----------
    description : dict of str to str
        The machine, in words.
    caches : dict of str to int
        Bytes by level, nearest first; "L1" and "L2" for each core, "L3" for all.
    peak : dict
        Flops a second by dtype, then by number of threads.
    bandwidth : dict
        Bytes a second by level, then by number of threads.
    divider : dict
        Elements a second by kind (``divider.KINDS``), then by dtype, then by number of threads.
    """

    description: dict[str, str]
    caches: dict[str, int]
    peak: dict[str, dict[int, float]]
    bandwidth: dict[str, dict[int, float]]
    divider: dict[str, dict[str, dict[int, float]]]

    def least_seconds(self, case: Case, threads: int) -> tuple[str, float]:
        """What bounds a step of a case, and the least it can take.

        The bound is FLOPS, DIVIDER or the name of the farthest level that bytes come from.
        """
        level = self.level(case.footprint, threads)
        limits = {
            level: self._moving(case, threads),
            FLOPS: case.flops / self.peak[case.dtype][threads],
            DIVIDER: self._dividing(case, threads),
        }
        bound = max(limits, key=limits.__getitem__)
        return bound, limits[bound]

    def _moving(self, case: Case, threads: int) -> float:
        """Seconds that the bytes need where every cache keeps what it can, the nearest first."""
        left, seconds = case.footprint, 0.0
        for level, rates in self.bandwidth.items():
            held = min(left, self._capacity(level, threads))
            seconds += case.bytes * (held / case.footprint) / rates[threads]
            left -= held
        return seconds

    def _capacity(self, level: str, threads: int) -> float:
        """Bytes that a level holds for so many threads together."""
        if level == MEMORY:
            return float("inf")
        return self.caches[level] * (threads if level in PRIVATE else 1)

    def _dividing(self, case: Case, threads: int) -> float:
        """Seconds that the divider needs: roots and divisions in pairs, then what is left over."""
        pairs = min(case.roots, case.divisions)
        amounts = {ROOTS: case.roots - pairs, DIVISIONS: case.divisions - pairs, PAIRS: pairs}
        return sum(
            amount / self.divider[kind][case.dtype][threads] for kind, amount in amounts.items()
        )

    def level(self, footprint: int, threads: int) -> str:
        """The nearest cache, those of all threads together, that holds so many bytes."""
        levels = (*self.caches, MEMORY)
        return next(level for level in levels if footprint <= self._capacity(level, threads))

    def __str__(self) -> str:
        lines = [f"{name:<20} {text}" for name, text in self.description.items()]
        for dtype, rates in self.peak.items():
            lines += [
                f"{'peak':<20} {rate / 1e9:9.1f} GF/s  {dtype}, {_threads(threads)}"
                for threads, rate in rates.items()
            ]
        for kind, by_dtype in self.divider.items():
            lines += [
                f"{kind:<22} {rate / 1e9:7.2f} G/s   {dtype}, {_threads(threads)}"
                for dtype, rates in by_dtype.items()
                for threads, rate in rates.items()
            ]
        for level, rates in self.bandwidth.items():
            size = f"{self.caches[level] >> 10} KiB, " if level in self.caches else ""
            lines += [
                f"{level:<20} {rate / 1e9:9.1f} GB/s  {size}{_threads(threads)}"
                for threads, rate in rates.items()
            ]
        return "\n".join(lines)


def measure(thread_counts: Sequence[int] | None = None) -> Roofline:
    """Measure this machine, in a few seconds.

    Parameters
    ----------
    thread_counts : sequence of int, optional
        By default 1 and all that the machine grants.
    """
    counts = sorted({1, get_num_threads(), *(thread_counts or ())})
    caches, found = cache_sizes()
    sizes = {**caches, MEMORY: _beyond(caches)}
    return Roofline(
        description={
            "CPU": machine.cpu_model(),
            "vectors": f"{machine.target().vector_bits} bits",
            "caches": found,
            "system": platform.platform(),
        },
        caches=caches,
        peak={dtype: {count: peak(dtype, count) for count in counts} for dtype in DTYPES},
        bandwidth={
            level: {count: bandwidth(_part(level, caches, size, count), count) for count in counts}
            for level, size in sizes.items()
        },
        divider={
            kind: {
                dtype: {count: dividing(kind, dtype, count) for count in counts} for dtype in DTYPES
            }
            for kind in KINDS
        },
    )


def cache_sizes() -> tuple[dict[str, int], str]:
    """Bytes of each data cache by level, nearest first, and where the figures come from."""
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = {}
    for index in sorted(folder.glob("index*")):
        if (index / "type").read_text().strip() != "Instruction":
            level = f"L{(index / 'level').read_text().strip()}"
            sizes[level] = int((index / "size").read_text().strip().removesuffix("K")) << 10
    if sizes:
        return dict(sorted(sizes.items())), str(folder)
    return dict(_USUAL_CACHES), "unknown to this system; usual sizes are taken"


def available_memory() -> int | None:
    """Bytes of memory that nobody uses; None where the system does not say."""
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _beyond(caches: dict[str, int]) -> int:
    """A size that no cache holds, in the memory there is."""
    wanted = _BEYOND_CACHES * max(caches.values())
    free = available_memory()
    return wanted if free is None else min(wanted, free // 4)


def _part(level: str, caches: dict[str, int], size: int, threads: int) -> int:
    """Bytes for each thread: half a cache, but more than the private ones hold."""
    if level in PRIVATE:
        return size // 2
    private = max(caches.get(name, 0) for name in PRIVATE)
    return max(size // 2 // threads, 2 * private)


# ---- measurements ----


Works = Iterator[tuple[Callable[[int], None], int]]
"""Calls that take a thread's number, each with the flops or bytes of one call."""


def peak(dtype: str, threads: int) -> float:
    """Flops a second of the fastest product tile whose operands stand still."""
    most = memory.panel_columns(dtype)
    sizes = (_TILE_INNER + TALLEST, most, TALLEST * most)
    operands = [[_ones(size, dtype) for size in sizes] for _ in range(threads)]
    return max(_rate(work, flops, threads) for work, flops in tile_works(operands))


def cores_at_hand(threads: int) -> float:
    """How many cores' multiply-adds so many threads make together, just now; in milliseconds."""
    sizes = (_TILE_INNER + TALLEST, *(TALLEST * memory.panel_columns("float32"),) * 2)
    operands = [[_ones(size, "float32") for size in sizes] for _ in range(threads)]
    work, _ = list(tile_works(operands))[-1]

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        together(count, lambda me: [work(me) for _ in range(_CALLS)])
        return time.perf_counter() - begun

    together(threads, work)
    alone, all_together = (min(seconds(count) for _ in range(3)) for count in (1, threads))
    return threads * alone / all_together


def bandwidth(size: int, threads: int) -> float:
    """Bytes a second of the fastest of reading, copying and a triad over ``size`` a thread."""
    arrays = [_ones(size // 4 // 32 * 32, "float32") for _ in range(threads)]
    return max(_rate(work, moved, threads) for work, moved in stream_works(arrays))


def dividing(kind: str, dtype: str, threads: int) -> float:
    """Elements a second of one of ``divider.KINDS``."""
    operands = [divider_operands(dtype) for _ in range(threads)]
    work, elements = divider_work(kind, operands)
    return _rate(work, elements, threads)


def seconds_a_step(case: Case) -> float:
    """Seconds that a step of a case takes, of the fastest measurement."""
    return 1 / _rate(lambda me: case.run(), case.steps, 1)


def tile_works(operands: Sequence[Sequence[np.ndarray]]) -> Works:
    """Each product tile that is as tall as its width allows, over a thread's own (a, b, c)."""
    dtype = operands[0][0].dtype.name
    addresses = objects.build_part(f"tiles to measure {dtype}", lambda: products.module(dtype))
    places = [[array.ctypes.data for array in own] for own in operands]
    for kind in (products.ROWS, products.COLUMNS):
        for tile in products.tiles(kind):
            if tile.rows < machine.target().rows(tile.vectors):
                continue
            kernel = addresses[products.name(kind, tile)]
            columns = tile.vectors * machine.target().lanes(dtype)

            def work(me: int, kernel: int = kernel, columns: int = columns) -> None:
                a, b, c = places[me]
                apply(kernel, _TILE_INNER, a, 0, b, 0, c, columns, 0, 0)

            yield work, 2 * tile.rows * columns * _TILE_INNER


def stream_works(arrays: Sequence[np.ndarray]) -> Works:
    """Reading, copying and a triad over each thread's own float32 array, often enough to time."""
    count = arrays[0].size // 2
    passes = max(1, _STREAM_BYTES // arrays[0].nbytes)
    firsts = [array.ctypes.data for array in arrays]
    seconds = [array[count:].ctypes.data for array in arrays]
    update = UPDATES["sgd"]
    rates = {"learning_rate": _NO_MOVE, "weight_decay": 0.0}
    scalars = np.array([rates[name] for name in update.scalars], np.float32)
    read_kernel = library.plain("float32", "finite")
    copy_kernel = library.gather("float32", "float32")
    triad_kernel = library.update("float32", update, False, False)

    # a stride of 0 between rows makes every row another pass over the same memory
    def read(me: int) -> None:
        apply(read_kernel, firsts[me], 0, passes, 2 * count)

    def copy(me: int) -> None:
        apply(copy_kernel, firsts[me], 0, 0, 0, seconds[me], 0, passes, count)

    def triad(me: int) -> None:
        no_slots = [0] * MOST_SLOTS
        place = scalars.ctypes.data
        apply(triad_kernel, firsts[me], 0, seconds[me], 0, passes, count, place, 0, *no_slots)

    for work, touched in ((read, 2), (copy, 2), (triad, 3)):
        yield work, 4 * touched * count * passes


def _ones(count: int, dtype: str) -> np.ndarray:
    array = aligned(count, dtype)
    array.fill(1.0)
    return array


def _rate(work: Callable[[int], None], amount: int, threads: int) -> float:
    """``amount`` times threads a second, of the fastest measurement."""
    times = 1

    def often(me: int) -> None:
        for _ in range(times):
            work(me)

    fastest = float("inf")
    together(threads, work)
    for _ in range(_MEASUREMENTS):
        begun = time.perf_counter()
        together(threads, often)
        seconds = time.perf_counter() - begun
        fastest = min(fastest, seconds / times)
        times = max(times, int(_SECONDS / fastest))
    return amount * threads / fastest


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the roofline of this machine and write it as JSON; on demand, every kernel on it."""
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(".benchmarks/roofline.json"))
    parser.add_argument("--kernels", action="store_true", help="measure every kernel too")
    options = parser.parse_args(arguments)
    out, measured = options.out, measure()
    print(measured)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(asdict(measured), indent=2) + "\n")
    os.replace(aside, out)
    print(f"written to {out}")
    if options.kernels:
        from . import kernels

        print(kernels.table(measured))


if __name__ == "__main__":
    main()
