"""No cliff: 10-w-w-10, batch 128, SGD, over widths that are no multiple of a vector.

PyTorch was reported to take 9 seconds on 16 cores where one core took 1, from a width of 45 or 46
on. ``python -m bench.cliff`` times a step at each width, ours at one thread and at all of them,
PyTorch's too where it is installed, and says how far any width stands out from its neighbours.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Mapping, Sequence

from .processes import (
    STEPS,
    Rounds,
    contenders,
    is_installed,
    prepare_training,
    running,
    time_in_turn,
)

WIDTHS = range(40, 51)
BATCH = 128


def measure(widths: Sequence[int], rounds: int) -> dict[int, Rounds]:
    """Seconds of a step, a number a round, by width, library and number of threads.

    Every round goes through all widths: what else the machine does then hits all of them.
    """
    names = ["fastnn", *(["torch"] if is_installed("torch") else [])]
    found: dict[int, Rounds] = {}
    with running(contenders(names)) as runners:
        for _ in range(rounds):
            for width in widths:
                layers = [10, width, width, 10]
                prepare_training(runners, layers, "SGD", BATCH, STEPS[BATCH])
                for name, by_threads in time_in_turn(runners, "train", 1).items():
                    kept = found.setdefault(width, {}).setdefault(name, {})
                    for threads, seconds in by_threads.items():
                        kept.setdefault(threads, []).extend(seconds)
    return found


def steepest(by_width: Mapping[int, float]) -> float:
    """How many times as long as the width before it any width takes, at most."""
    seconds = [by_width[width] for width in sorted(by_width)]
    return max((after / before for before, after in itertools.pairwise(seconds)), default=1.0)


def table(found: Mapping[int, Rounds]) -> str:
    """Microseconds a step by width, median (minimum), and the steepest rise of each column."""
    columns = [(name, threads) for name, of in next(iter(found.values())).items() for threads in of]
    lines = [
        f"microseconds a step of 10-w-w-10, batch {BATCH}, SGD: median (minimum)",
        _row("w", [f"{name}, {threads} thr." for name, threads in columns]),
    ]
    summaries = [
        {
            column: {width: summary(of[column[0]][column[1]]) for width, of in found.items()}
            for column in columns
        }
        for summary in (statistics.median, min)
    ]
    for width in sorted(found):
        cells = [[by[column][width] * 1e6 for by in summaries] for column in columns]
        lines.append(_row(str(width), [f"{median:.1f} ({least:.1f})" for median, least in cells]))
    rises = [[steepest(by[column]) for by in summaries] for column in columns]
    lines.append(_row("steepest rise", [f"{one:.2f}x ({other:.2f}x)" for one, other in rises]))
    return "\n".join(lines)


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:<14}" + "".join(f"{cell:>20}" for cell in cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.cliff", description=__doc__)
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS, help="(40 to 50)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (%(default)s)")
    options = parser.parse_args(arguments)
    print(table(measure(options.widths, options.rounds)))


if __name__ == "__main__":
    main()
