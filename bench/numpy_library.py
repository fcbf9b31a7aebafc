"""NumPy network code by NumPy and by fastnn's functions, which take its place in one line.

``python -m bench.numpy_library`` trains the small library of ``examples/numpy_library`` and a
from-scratch course's networks (``fastnn.compat.scratch`` beside the same in plain NumPy), in one
process and in turn, after it has checked that both give the same losses. Each runs with one thread
and with all, and is judged by the better.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import plain_scratch

import fastnn
from examples.numpy_library import nets
from fastnn.compat import scratch

from .files import write_json

BATCHES = (8, 32, 100, 512, 2048)
QUICK = (32, 512)
ROUNDS, ROUND_SECONDS = 9, 0.05
QUICK_ROUNDS, QUICK_SECONDS = 3, 0.01
CHECKED_STEPS = 3

Step = Callable[[], float]


class Case(NamedTuple):
    """A network to train in steps.

    Parameters
    ----------
    title : str
    dtype : str
    make : callable
        ``make(ours, dtype, batch)`` gives a step, by fastnn or by NumPy.
    """

    title: str
    dtype: str
    make: Callable[[bool, str, int], Step]


def library(widths: Sequence[int], optimizer: str) -> Callable[[bool, str, int], Step]:
    """Steps of a network of the small library."""

    def make(ours: bool, dtype: str, batch: int) -> Step:
        layers: list[nets.Dense | nets.Activation] = []
        for place in range(1, len(widths)):
            layers.append(nets.Dense(widths[place - 1], widths[place], place, dtype))
            if place < len(widths) - 1:
                layers.append(nets.Activation("relu"))
        network, update = nets.Network(*layers), getattr(nets, optimizer)()
        x, t = _data(batch, widths, dtype)

        def step() -> float:
            nets.functions = fastnn.functional if ours else nets.NumPyFunctions
            return network.train_step(x, t, update)

        return step

    return make


def course(widths: Sequence[int], optimizer: str, **options: Any) -> Callable[..., Step]:
    """Steps of a network as a course writes it."""

    def make(ours: bool, dtype: str, batch: int) -> Step:
        classes: ModuleType = scratch if ours else plain_scratch
        network = plain_scratch.Network(classes, widths, dtype=dtype, **options)
        update = getattr(classes, optimizer)()
        x, t = _data(batch, widths, dtype)

        def step() -> float:
            update.update(network.params, network.gradient(x, t))
            return float(network.last.loss)

        return step

    return make


CASES = (
    Case("library 784-128-10 Adam", "float32", library((784, 128, 10), "Adam")),
    Case("library 784-128-10 SGD", "float32", library((784, 128, 10), "SGD")),
    Case("library 8-64-64-2 Adam", "float32", library((8, 64, 64, 2), "Adam")),
    Case("course 784-50-10 SGD", "float64", course((784, 50, 10), "SGD")),
    Case("course 784-50-10 Adam", "float32", course((784, 50, 10), "Adam")),
    Case(
        "course 784-100-100-10, normalised, dropout, Momentum",
        "float64",
        course((784, 100, 100, 10), "Momentum", extended=True),
    ),
)


class Timing(NamedTuple):
    """Seconds a step, the median of the rounds."""

    network: str
    dtype: str
    batch: int
    numpy: float
    fastnn: float

    @property
    def ratio(self) -> float:
        """NumPy's time over ours."""
        return self.numpy / self.fastnn


def measure(quick: bool) -> list[Timing]:
    """Every case at every batch size, checked and then timed."""
    return [
        time_case(case, batch, quick) for case in CASES for batch in (QUICK if quick else BATCHES)
    ]


def time_case(case: Case, batch: int, quick: bool) -> Timing:
    """A case at a batch size."""
    verify(case, batch)
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, ROUND_SECONDS)
    steps = {
        "numpy": case.make(False, case.dtype, batch),
        "fastnn": case.make(True, case.dtype, batch),
    }
    found: dict[tuple[str, int | None], list[float]] = {}
    for _ in range(rounds):
        for threads in (1, None):
            with _threads(threads):
                for name, step in steps.items():
                    times = found.setdefault((name, threads), [])
                    times.append(_seconds_a_step(step, seconds))
    numpy, ours = (
        min(statistics.median(found[name, threads]) for threads in (1, None)) for name in steps
    )
    return Timing(case.title, case.dtype, batch, numpy, ours)


def verify(case: Case, batch: int) -> None:
    """Raise AssertionError unless both give the same losses."""
    losses = []
    for ours in (False, True):
        np.random.seed(0)
        step = case.make(ours, case.dtype, batch)
        losses.append([step() for _ in range(CHECKED_STEPS)])
    tolerance = 1e3 * np.finfo(case.dtype).eps
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance, err_msg=case.title)


def table(timings: Sequence[Timing]) -> str:
    """A line for each."""
    width = max(len(timing.network) for timing in timings)
    lines = [f"{'':{width}} {'':8} {'batch':>6} {'NumPy':>11} {'fastnn':>11} {'times':>6}"]
    lines += [
        f"{t.network:{width}} {t.dtype:8} {t.batch:6} {t.numpy * 1e6:8.1f} us"
        f" {t.fastnn * 1e6:8.1f} us {t.ratio:6.2f}"
        for t in timings
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.numpy_library", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer batches and rounds")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where to write the figures")
    options = parser.parse_args(arguments)
    timings = measure(options.quick)
    print(table(timings))
    if options.out:
        write_json(options.out, [t._asdict() | {"ratio": t.ratio} for t in timings])


def _data(batch: int, widths: Sequence[int], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.random((batch, widths[0])).astype(dtype), rng.integers(0, widths[-1], batch)


def _seconds_a_step(step: Step, seconds: float) -> float:
    """The time of a step, over as many as fill so many seconds."""
    step()
    begun, count = time.perf_counter(), 0
    while True:
        step()
        count += 1
        taken = time.perf_counter() - begun
        if taken >= seconds:
            return taken / count


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many threads for fastnn and for NumPy's BLAS; None for as many as each takes by itself."""
    import threadpoolctl  # of scikit-learn

    before = fastnn.get_num_threads()
    fastnn.set_num_threads(count)
    try:
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            yield
    finally:
        fastnn.set_num_threads(before)


if __name__ == "__main__":
    main()
