"""What fastnn is meant to reach on an H100, and what it reached on the device that was measured.

A ratio is another's time over ours.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from .gpu_networks import CPU
from .processes import Rounds, best
from .targets import Outcome

COPY_PERCENT = 90.0
"""Of the bandwidth of a copy: any optimizer on many parameters."""
SMALL_NETWORKS = ("784-128-10 Adam", "8-64-64-2 Adam")
STEP_SECONDS = {1: 10e-6, 8: 10e-6, 32: 10e-6, 128: 25e-6}
"""The most seconds of a step of a small network, by batch size."""
OVER_EAGER, OVER_BEST_PEER = 10.0, 2.0
"""There, the least ratio of PyTorch's eager mode, and of the best peer."""
LARGE_NETWORK, LARGE_BATCH = "784-512-512-10 Adam", 8192
"""Where no peer is to be faster."""
LARGE_PRODUCT, PRODUCT_PERCENT = 4096, 80.0
"""Our product, of cuBLAS' speed."""
AHEAD = 1.0


def outcomes(results: Mapping[str, Any]) -> list[Outcome]:
    """Every figure that has a target and was measured; the median decides."""
    return [
        *_optimizers(results.get("optimizers", {})),
        *_networks(results.get("training", {})),
        *_products(results.get("products", {})),
        *_layers(results.get("layers", {})),
    ]


def pays_from(by_batch: Mapping[str, Rounds]) -> int | None:
    """The batch size from which on the device is faster than the CPU; None where it never is."""
    first = None
    for batch in sorted(by_batch, key=int, reverse=True):
        cell = by_batch[batch]
        if not ("fastnn" in cell and CPU in cell) or _ratio(cell, "fastnn", CPU)[0] < 1:
            break
        first = int(batch)
    return first


def best_peer(cell: Rounds) -> str | None:
    """The fastest of the other libraries, by its median."""
    peers = [name for name in cell if name not in ("fastnn", CPU)]
    return min(peers, key=lambda name: statistics.median(best(cell[name])), default=None)


def _optimizers(found: Mapping[str, Any]) -> Iterator[Outcome]:
    for name, figures in found.items():
        seconds = figures.get("seconds", {})
        if "fastnn" not in seconds:
            continue
        ours = seconds["fastnn"]
        copies = [100 * figures["bytes"] * each for each in seconds["copy"]]
        what = f"{name}, an update"
        yield _at_least(what, 0, "percent of a copy", *_over(copies, ours), COPY_PERCENT)
        if "torch" in seconds:
            how = f"PyTorch, {figures['how']['torch']}"
            yield _at_least(what, 0, how, *_over(seconds["torch"], ours), AHEAD)


def _networks(training: Mapping[str, Mapping[str, Rounds]]) -> Iterator[Outcome]:
    for title, by_batch in training.items():
        for batch, cell in by_batch.items():
            if "fastnn" not in cell:
                continue
            if title in SMALL_NETWORKS and int(batch) in STEP_SECONDS:
                yield from _small_step(title, int(batch), cell)
            elif (title, int(batch)) == (LARGE_NETWORK, LARGE_BATCH):
                yield from _beside_peer(title, int(batch), cell, AHEAD)


def _small_step(title: str, batch: int, cell: Rounds) -> Iterator[Outcome]:
    ours, most = best(cell["fastnn"]), STEP_SECONDS[batch]
    median = statistics.median(ours)
    yield Outcome(title, batch, "a step", median, min(ours), most, median <= most)
    if "torch" in cell:
        ratios = _ratio(cell, "fastnn", "torch")
        yield _at_least(title, batch, "PyTorch eager", *ratios, OVER_EAGER)
    yield from _beside_peer(title, batch, cell, OVER_BEST_PEER)


def _beside_peer(title: str, batch: int, cell: Rounds, least: float) -> Iterator[Outcome]:
    peer = best_peer(cell)
    if peer is not None:
        ratios = _ratio(cell, "fastnn", peer)
        yield _at_least(title, batch, "the best peer", *ratios, least)


def _products(found: Mapping[str, Any]) -> Iterator[Outcome]:
    seconds = found.get(f"{LARGE_PRODUCT} cubed")
    if seconds:
        theirs = [100 * each for each in seconds["cublas"]]
        percents = _over(theirs, seconds["fastnn"])
        title = f"{LARGE_PRODUCT} cubed, a product"
        yield _at_least(title, 0, "percent of cuBLAS", *percents, PRODUCT_PERCENT)


def _layers(found: Mapping[str, Any]) -> Iterator[Outcome]:
    for title, seconds in found.items():
        if title.startswith("NN") and seconds["chosen"] == "fastnn":
            ratios = _over(seconds["cublas"], seconds["fastnn"])
            yield _at_least(f"{title}, a layer", 0, "cuBLAS and a tail", *ratios, AHEAD)


def _ratio(cell: Rounds, ours: str, theirs: str) -> tuple[float, float]:
    return _over(best(cell[theirs]), best(cell[ours]))


def _over(theirs: list[float], ours: list[float]) -> tuple[float, float]:
    """The ratio of the medians, and that of the least."""
    return statistics.median(theirs) / statistics.median(ours), min(theirs) / min(ours)


def _at_least(
    what: str, batch: int, beside: str, median: float, most: float, target: float
) -> Outcome:
    return Outcome(what, batch, beside, median, most, target, median >= target)
