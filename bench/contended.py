"""Cores that are shared: two threads on one core, and both cores busy with another program.

``python -m bench.contended`` times training steps of 784-128-10 with Adam. First ours with two
threads pinned to one core beside one thread on it: waiting threads must give the core away. Then
each library that is installed while another program spins on every core, in turn with times when
nothing else runs: its slowdown is that of the number of threads that is its best when alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from .processes import (
    STEPS,
    Contender,
    best,
    contenders,
    is_installed,
    prepare_training,
    running,
    time_in_turn,
)

LAYERS, OPTIMIZER, BATCH = (784, 128, 10), "Adam", 32
MOST_ON_ONE_CORE = 1.3
"""Times that two threads on one core may take what one takes."""
LIBRARIES = ("fastnn", "jax", "torch", "sklearn", "numpy")
SLICES_SECONDS = 0.2
"""A measurement beside other programs lasts many of the slices in which a core is shared."""
_SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""

Shared = dict[str, dict[str, list[float]]]
"""Seconds of a step, a number a round, by "alone" and "busy", by number of threads."""


# ---- one core ----


def measure_one_core(batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of ours on one core, a number a round, by number of threads."""
    core = min(os.sched_getaffinity(0))
    makers = (Contender("fastnn", "fastnn", threads, cores=[core]) for threads in (1, 2))
    with running(makers) as runners:
        prepare_training(runners, LAYERS, OPTIMIZER, batch, STEPS[batch])
        return time_in_turn(runners, "train", rounds)["fastnn"]


def one_core_line(by_threads: Mapping[str, list[float]]) -> str:
    """The medians and what two threads cost."""
    one, two = (statistics.median(by_threads[threads]) for threads in ("1", "2"))
    verdict = "met" if two <= MOST_ON_ONE_CORE * one else "MISSED"
    return (
        f"one core: {one * 1e6:.1f} us a step by one thread, {two * 1e6:.1f} by two, "
        f"{two / one:.2f}x (at most {MOST_ON_ONE_CORE}): {verdict}"
    )


# ---- busy cores ----


class OtherPrograms:
    """A program that does nothing but take time, on every core; asleep unless it is wanted."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._processes: list[subprocess.Popen] = []
        for core in cores:
            process = subprocess.Popen(
                [sys.executable, "-c", _SPIN],
                preexec_fn=lambda core=core: os.sched_setaffinity(0, [core]),
            )
            process.send_signal(signal.SIGSTOP)
            self._processes.append(process)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """They run inside the block."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _signal(self, number: int) -> None:
        for process in self._processes:
            process.send_signal(number)


def measure_busy(names: Sequence[str], batch: int, rounds: int) -> dict[str, Shared]:
    """Each library, alone and beside other programs in turn."""
    found: dict[str, Shared] = {}
    with contextlib.ExitStack() as stack:
        runners = stack.enter_context(running(contenders(names)))
        others = OtherPrograms(sorted(os.sched_getaffinity(0)))
        stack.callback(others.close)
        prepare_training(runners, LAYERS, OPTIMIZER, batch, STEPS[batch])
        for _ in range(rounds):
            for runner in runners:
                shared = found.setdefault(runner.name, {"alone": {}, "busy": {}})
                for state, block in (
                    ("alone", contextlib.nullcontext()),
                    ("busy", others.running()),
                ):
                    with block:
                        seconds = runner.ask("train", SLICES_SECONDS)
                    shared[state].setdefault(str(runner.threads), []).append(seconds)
    return found


def slowdown(shared: Shared) -> float:
    """Of the number of threads that is the best when alone: its time when busy over that alone."""
    alone = best(shared["alone"])
    threads = next(threads for threads, of in shared["alone"].items() if of is alone)
    return statistics.median(shared["busy"][threads]) / statistics.median(alone)


def busy_table(found: Mapping[str, Shared]) -> str:
    """Medians by library and number of threads; the slowdowns, and whether ours is no worse."""
    lines = [f"{'microseconds a step':<28}{'alone':>12}{'busy':>12}{'slowdown':>12}"]
    for name, shared in found.items():
        for threads in shared["alone"]:
            alone, busy = (statistics.median(shared[state][threads]) for state in ("alone", "busy"))
            title = f"{name}, {threads} thr."
            lines.append(f"{title:<28}{alone * 1e6:12.1f}{busy * 1e6:12.1f}{busy / alone:11.2f}x")
    slowdowns = {name: slowdown(shared) for name, shared in found.items()}
    listed = ", ".join(f"{name} {times:.2f}x" for name, times in slowdowns.items())
    lines.append(f"slowdown at the threads that are best alone: {listed}")
    ours = slowdowns.pop("fastnn")
    less = [name for name, times in slowdowns.items() if times < ours]
    verdict = f"MISSED, {', '.join(less)} slow down less" if less else "met"
    lines.append(f"ours no worse than any peer's: {verdict}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.contended", description=__doc__)
    installed = [name for name in LIBRARIES if is_installed(name)]
    parser.add_argument("--libraries", nargs="+", default=installed, help="(%(default)s)")
    parser.add_argument("--batch", type=int, default=BATCH, choices=sorted(STEPS), metavar="BATCH")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (%(default)s)")
    options = parser.parse_args(arguments)
    print(one_core_line(measure_one_core(options.batch, options.rounds)))
    print(busy_table(measure_busy(options.libraries, options.batch, options.rounds)))


if __name__ == "__main__":
    main()
