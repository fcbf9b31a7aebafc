"""Times on a CUDA device, and figures that say where they belong."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastnn.kernels.cupy_backend.calls import THREADS, prelude
from fastnn.kernels.cupy_backend.device import Device, Work

FAILURES = "failures"
LEAST_SECONDS = 0.02
"""A measurement repeats its work until it has taken so long."""
_WORKS_A_GRAPH = 20

Figure = tuple[tuple[str, ...], Any]
"""Where in the results something belongs, and what it is."""


def device() -> Device:
    """The device of the CUDA backend.

    Raises
    ------
    RuntimeError
        Where there is none; the message says what is missing.
    """
    from fastnn import get_backend

    return Device(get_backend("cupy").module)


def device_name(device: Device) -> str:
    """What its maker calls it."""
    runtime = device.cupy.cuda.runtime
    return runtime.getDeviceProperties(runtime.getDevice())["name"].decode()


def attempt(work: Callable[[], Any], *where: str) -> Figure:
    """What the work gives, at its place; or why it failed, among the failures."""
    try:
        return where, work()
    except Exception as error:
        traceback.print_exc()
        return failure(error, *where)


def failure(error: Exception, *where: str) -> Figure:
    """An error as a figure."""
    return (FAILURES, " ".join(where)), f"{type(error).__name__}: {error}"


def in_turn(
    works: Mapping[str, Callable[[], Any]],
    wait: Callable[[], Any],
    rounds: int,
    least: float | None = None,
) -> dict[str, list[float]]:
    """Seconds of a call of each work, a number a round.

    Calls follow one another for about ``least`` seconds (default: LEAST_SECONDS); then ``wait``
    awaits what they have left to the device.
    """
    least = LEAST_SECONDS if least is None else least
    counts = {name: _calls(work, wait, least) for name, work in works.items()}
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(_seconds(work, wait, counts[name]) / counts[name])
    return found


def _calls(work: Callable[[], Any], wait: Callable[[], Any], least: float) -> int:
    """How many calls take so long; they also warm up everything."""
    work()
    wait()
    count = 1
    while _seconds(work, wait, count) < least:
        count *= 2
    return count


def _seconds(work: Callable[[], Any], wait: Callable[[], Any], count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        work()
    wait()
    return time.perf_counter() - begun


# ---- graphs ----


def graphs_in_turn(
    device: Device, works: Mapping[str, Sequence[Work]], rounds: int
) -> dict[str, list[float]]:
    """The same for works of the device, many of each in a CUDA graph, as training has them.

    Launched alone, small ones would take as long as their launch.
    """
    replays = {name: replay(device, each, _WORKS_A_GRAPH) for name, each in works.items()}
    found = in_turn(replays, device.cupy.cuda.Device().synchronize, rounds)
    return {name: [one / _WORKS_A_GRAPH for one in seconds] for name, seconds in found.items()}


def replay(device: Device, works: Iterable[Work], times: int) -> Callable[[], None]:
    """A function that puts a graph of the works, so many times over, on a stream."""
    repeated = list(works) * times
    stream = device.stream()
    with device.on(stream):
        device.prepare(repeated)
        graph = device.capture(stream, repeated)

    def launch() -> None:
        assert repeated  # what the graph works on lives as long as it
        graph.launch(stream)

    return launch


# ---- kernels of the benchmarks' own ----


@dataclass(frozen=True)
class Kernel:
    """A kernel in C++ text, which ends in ``kernel(parameters) { body }``.

    Parameters
    ----------
    text : str
        From the parameters on.
    values : tuple
        Arrays and NumPy scalars.
    blocks : int
    files : tuple of str
        The ``.cu`` files that it needs.
    meets : bool
        Whether its blocks wait for one another.
    """

    text: str
    values: tuple[Any, ...]
    blocks: int
    files: tuple[str, ...] = ()
    meets: bool = False

    def prepare(self, device: Device) -> None:
        """Compile and load it."""
        self._function(device)

    def launch(self, device: Device) -> None:
        """Put it on the current stream."""
        self._function(device)(
            (self.blocks,), (THREADS,), self.values, enable_cooperative_groups=self.meets
        )

    def _function(self, device: Device) -> Callable[..., None]:
        head = 'extern "C" __global__ void __launch_bounds__(THREADS) kernel'
        return device.function(f"{prelude('float32', self.files, ())}\n{head}{self.text}\n", 0)
