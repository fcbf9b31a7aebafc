"""Steps of networks on a CUDA device, ours and its peers', and ours on the CPU beside them.

Each library has a process of its own, and each is judged by plain NumPy before it is timed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from . import contenders
from .cases import BATCHES
from .gpu_timing import FAILURES, Figure
from .peers import Network
from .processes import (
    CHECKED_STEPS,
    LEAST_SECONDS,
    SAME_LOSS,
    Contender,
    Rounds,
    best,
    is_installed,
    running,
)

NETWORKS = tuple(
    Network(layers, "Adam") for layers in ("784-128-10", "8-64-64-2", "784-512-512-10")
)
CPU = "fastnn, CPU"
LIBRARIES = {
    "fastnn": "fastnn cuda",
    "jax": "jax cuda",
    "torch": "torch cuda",
    "torch compiled": "torch cuda compiled",
    "torch graph": "torch cuda graph",
}
"""Contenders on the device, by the names that figures have."""
PRECISIONS = {"float32": "fastnn cuda", "tf32": "fastnn cuda tf32", "bf16": "fastnn cuda bf16"}
_WITHIN = {"tf32": 5e-3, "bf16": 3e-2}
"""How far a mean loss may lie from NumPy's, relatively, where products round their operands."""
_PRECISION_BATCHES = (512, 2048, 8192)
_QUICK_BATCHES = (1, 32, 128, 8192)
_ROWS, _MOST_STEPS = 60_000, 1000
_ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # else JAX takes most of the device's memory
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compilers would outlive the wait for them
}


def steps_of(batch: int) -> int:
    """Steps of an epoch, which one wait for the device ends."""
    return min(_MOST_STEPS, _ROWS // batch)


def measure(rounds: int, quick: bool) -> Iterator[Figure]:
    """Seconds of a step by network, batch and library, a number a round."""
    there = {name: which for name, which in LIBRARIES.items() if is_installed(_package(which))}
    for name in LIBRARIES.keys() - there.keys():
        yield (FAILURES, f"networks {name}"), "not installed"
    batches = _QUICK_BATCHES if quick else BATCHES
    makers = itertools.chain(_on_device(there), _on_cpu())
    for network, batch, cell in _cells(makers, NETWORKS, batches, rounds):
        yield ("training", str(network), str(batch)), cell.seconds
        yield from _failures(network, batch, cell)


def measure_precision(rounds: int, quick: bool) -> Iterator[Figure]:
    """Seconds of a step where products round their operands, and how far the loss then lies off."""
    batches = _PRECISION_BATCHES[-1:] if quick else _PRECISION_BATCHES
    for network, batch, cell in _cells(_on_device(PRECISIONS), NETWORKS[-1:], batches, rounds):
        where = ("precision", str(network), str(batch))
        yield (*where, "seconds"), {name: best(found) for name, found in cell.seconds.items()}
        yield (*where, "relative error of the loss"), cell.errors
        yield from _failures(network, batch, cell)


def _package(contender: str) -> str:
    return contender.partition(" ")[0]


def _on_device(libraries: Mapping[str, str]) -> Iterator[Contender]:
    cores = len(os.sched_getaffinity(0))
    return (Contender(which, name, cores, _ENVIRONMENT) for name, which in libraries.items())


def _on_cpu() -> Iterator[Contender]:
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        yield Contender("fastnn", CPU, threads)


class Cell(NamedTuple):
    """What was found at a batch size: seconds, the losses' relative errors, why some failed."""

    seconds: Rounds
    errors: dict[str, float]
    failures: dict[str, str]


def measure_cell(runners: list[Contender], network: Network, batch: int, rounds: int) -> Cell:
    """Verify all, then time in turn those that are right; those that failed are made anew."""
    cell, steps = Cell({}, {}, {}), steps_of(batch)
    short = contenders.Task(network.widths, network.optimizer, batch, min(CHECKED_STEPS, steps))
    truth = contenders.numpy(short, 1).epoch()()
    failed: set[int] = set()

    def guarded(place: int, work: Callable[[Contender], float]) -> float | None:
        runner = runners[place]
        try:
            return work(runner)
        except (RuntimeError, AssertionError) as error:
            cell.failures[runner.name] = str(error)
            failed.add(place)
            return None

    places = range(len(runners))
    ready = functools.partial(_ready, short=short, steps=steps, truth=truth)
    with ThreadPoolExecutor(len(runners)) as pool:  # compilers need not wait for one another
        errors = list(pool.map(lambda place: guarded(place, ready), places))
    for place, error in zip(places, errors, strict=True):
        if error is not None:
            cell.errors[runners[place].name] = error
    for _ in range(rounds):
        for place in places:
            if place not in failed and (found := guarded(place, _step_seconds)) is not None:
                runner = runners[place]
                by_threads = cell.seconds.setdefault(runner.name, {})
                by_threads.setdefault(str(runner.threads), []).append(found)
    for place in failed:
        runners[place].close()
        runners[place] = dataclasses.replace(runners[place])
    return cell


def _cells(
    makers: Iterable[Contender], networks: Sequence[Network], batches: Sequence[int], rounds: int
) -> Iterator[tuple[Network, int, Cell]]:
    with running(makers) as runners:
        for network in networks:
            for batch in batches:
                cell = measure_cell(runners, network, batch, rounds)
                _report(network, batch, cell.seconds)
                yield network, batch, cell


def _failures(network: Network, batch: int, cell: Cell) -> Iterator[Figure]:
    for name, reason in cell.failures.items():
        yield (FAILURES, f"{network} {batch} {name}"), reason


def _ready(runner: Contender, short: contenders.Task, steps: int, truth: float) -> float:
    """Get an epoch ready, if the loss of a short one is right; how far it is off."""
    runner.ask("prepare", short)
    loss = runner.ask("learn")
    error, within = abs(loss - truth) / truth, _WITHIN.get(runner.name, SAME_LOSS)
    if not error <= within:
        raise AssertionError(f"the loss is {loss:.6g}; NumPy's is {truth:.6g}")
    runner.ask("prepare", short._replace(steps=steps))
    runner.ask("learn")
    return error


def _step_seconds(runner: Contender) -> float:
    return runner.ask("train", LEAST_SECONDS)


def _report(network: Network, batch: int, found: Mapping[str, Any]) -> None:
    parts = [f"{name} {statistics.median(best(of)) * 1e6:.1f}" for name, of in found.items()]
    print(f"{network} {batch}: {', '.join(parts)} us", file=sys.stderr)
