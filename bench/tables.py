"""The results of ``bench.peers`` in words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .processes import best
from .targets import Outcome


def tables(results: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """Microseconds (median, minimum), ratios, and every figure that has a target beside it."""
    lines = []
    for title, by_batch in results["training"].items():
        lines += ["", f"{title}: microseconds a step, median (minimum); times that of fastnn"]
        lines += _table("batch", by_batch)
    for network, found in results["prediction"].items():
        lines += ["", f"{network}: microseconds a prediction of one row"]
        lines += _table("", {"": found})
    lines += ["", "times that of fastnn, and other figures: median, best (target), ! where missed"]
    for what in dict.fromkeys(outcome.what for outcome in outcomes):
        lines += ["", what, *_targets([outcome for outcome in outcomes if outcome.what == what])]
    missed = sum(not outcome.met for outcome in outcomes)
    lines += ["", f"{len(outcomes) - missed} of {len(outcomes)} targets met"]
    return "\n".join(lines)


def _table(corner: str, rows: Mapping[str, Any]) -> list[str]:
    names = list(next(iter(rows.values())))
    lines = [_row(corner, names)]
    for title, found in rows.items():
        ours = statistics.median(best(found["fastnn"]))
        lines.append(_row(title, [_cell(best(found[name]), ours) for name in names]))
    return lines


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:<6}" + "".join(f"{cell:>28}" for cell in cells)


def _cell(seconds: Sequence[float], ours: float) -> str:
    median = statistics.median(seconds)
    return f"{median * 1e6:.1f} ({min(seconds) * 1e6:.1f})  {median / ours:5.2f}x"


def _targets(outcomes: Sequence[Outcome]) -> list[str]:
    columns = list(dict.fromkeys(outcome.beside for outcome in outcomes))
    lines = [_row("batch", columns)]
    for batch in sorted({outcome.batch for outcome in outcomes}):
        shown = {
            outcome.beside: _beside_target(outcome)
            for outcome in outcomes
            if outcome.batch == batch
        }
        lines.append(_row(str(batch), [shown.get(column, "") for column in columns]))
    return lines


def _beside_target(outcome: Outcome) -> str:
    scale, unit = (1e6, " us") if outcome.target < 1e-3 else (1, "")
    median, fastest, target = (
        f"{number * scale:.2f}" for number in (outcome.median, outcome.best, outcome.target)
    )
    return f"{median} {fastest} ({target}){unit} {' ' if outcome.met else '!'}"
