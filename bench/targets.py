"""What fastnn is meant to reach, on the machine that docs/speed.md names, and what it reached.

A ratio is a peer's time over ours. Where no number stands, ours is to be ahead: 1.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

from .processes import best

_BATCHES = (1, 8, 32, 128, 512, 2048, 8192)
_TORCH = dict(zip(_BATCHES, (20, 10, 5, 3, 2.3, 2.3, 2.3), strict=True))
RATIOS: dict[str, dict[str, dict[int, float]]] = {
    "784-128-10 SGD": {
        "jax": dict(zip(_BATCHES, (3.5, 2.5, 1.6, 1.2, 1.2, 1.15, 1.4), strict=True)),
    },
    "784-128-10 Adam": {
        "jax": dict(zip(_BATCHES, (4.5, 2.5, 1.6, 1.3, 1.2, 1.2, 1.4), strict=True)),
        "torch": _TORCH,
        "torch compiled": _TORCH,
        "sklearn": dict(zip(_BATCHES, (40, 14, 7, 4, 3, 3, 3), strict=True)),
    },
    "784-512-512-10 Adam": {
        "jax": dict(zip(_BATCHES, (3.5, 2.4, 1.5, 1.3, 1.15, 1.1, 1.25), strict=True)),
    },
    "8-64-64-2 Adam": {
        "jax": dict(zip(_BATCHES, (3, 2.5, 2, 1.5, 1.5, 1.5, 1.3), strict=True)),
    },
}
"""The least ratio, by network and optimizer, peer, batch size."""
AHEAD = 1.0
ONE_THREAD = {"8-64-64-2 SGD": 1.0e-6, "8-64-64-2 Adam": 1.2e-6}
"""The most seconds of a step of one thread at batch 1."""
PREDICTION = {"8-64-64-2": 1.5e-6, "784-128-10": 3.2e-6}
"""The most seconds of a prediction of one row, Python call included."""
ROOFLINE_OF_BATCH_1 = 100 / 1.4
"""The least percent of the roofline of any network at batch 1."""
ROOFLINE = {"784-512-512-10 Adam": {512: 80.0, 2048: 84.0, 8192: 84.0}}
"""The least percent of the roofline elsewhere, by network and optimizer, batch size."""


class Outcome(NamedTuple):
    """A figure beside its target."""

    what: str
    batch: int
    beside: str
    median: float
    best: float
    target: float
    met: bool


def outcomes(results: dict[str, Any]) -> list[Outcome]:
    """Every figure that has a target; the median decides.

    ``results`` are those of ``bench.peers``; times are in seconds, ratios theirs over ours.
    """
    return [*_ratios(results), *_times(results), *_percents(results)]


def _ratios(results: dict[str, Any]) -> Iterator[Outcome]:
    cells = [
        (title, int(batch), cell)
        for title, by_batch in results["training"].items()
        for batch, cell in by_batch.items()
    ]
    cells += [(f"{network} predict", 1, cell) for network, cell in results["prediction"].items()]
    for title, batch, cell in cells:
        ours = best(cell["fastnn"])
        for peer, by_threads in cell.items():
            if peer == "fastnn":
                continue
            theirs = best(by_threads)
            median = statistics.median(theirs) / statistics.median(ours)
            target = RATIOS.get(title, {}).get(peer, {}).get(batch, AHEAD)
            yield Outcome(
                title, batch, peer, median, min(theirs) / min(ours), target, median >= target
            )


def _times(results: dict[str, Any]) -> Iterator[Outcome]:
    figures = [(title, "one thread", results["one thread"][title], most)
               for title, most in ONE_THREAD.items()]  # fmt: skip
    figures += [
        (f"{network} predict", "Python call included", best(cell["fastnn"]), PREDICTION[network])
        for network, cell in results["prediction"].items()
    ]
    for title, how, seconds, most in figures:
        median = statistics.median(seconds)
        yield Outcome(title, 1, how, median, min(seconds), most, median <= most)


def _percents(results: dict[str, Any]) -> Iterator[Outcome]:
    for title, by_batch in results["percent of roofline"].items():
        for batch, percent in by_batch.items():
            least = ROOFLINE_OF_BATCH_1
            if int(batch) != 1:
                least = ROOFLINE.get(title, {}).get(int(batch), 0.0)
            if least:
                median, most = percent["median"], percent["best"]
                yield Outcome(
                    title, int(batch), "percent of roofline", median, most, least, median >= least
                )
