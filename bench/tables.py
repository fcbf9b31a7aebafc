"""The results of ``bench.peers`` and ``bench.gpu`` in words."""

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
    return "\n".join([*lines, *_beside_targets(outcomes)])


def device_tables(results: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """The same of ``bench.gpu``, whatever of it was measured."""
    lines = [results["device"]["name"]]
    for title, by_batch in results.get("training", {}).items():
        lines += ["", f"{title}: microseconds a step, median (minimum); times that of fastnn"]
        lines += _table("batch", {batch: c for batch, c in by_batch.items() if "fastnn" in c})
        lines.append(_pays(results["pays from"][title]))
    lines += _beside_targets(outcomes)
    lines += [f"FAILED {where}: {reason}" for where, reason in results["failures"].items()]
    return "\n".join(lines)


def _pays(batch: int | None) -> str:
    if batch is None:
        return "nowhere is the device faster than the CPU up to the largest batch"
    return f"the device is faster than the CPU from batch {batch} on"


def _beside_targets(outcomes: Sequence[Outcome]) -> list[str]:
    lines = ["", "times that of fastnn, and other figures: median, best (target), ! where missed"]
    for what in dict.fromkeys(outcome.what for outcome in outcomes):
        lines += ["", what, *_targets([outcome for outcome in outcomes if outcome.what == what])]
    missed = sum(not outcome.met for outcome in outcomes)
    return [*lines, "", f"{len(outcomes) - missed} of {len(outcomes)} targets met"]


def _table(corner: str, rows: Mapping[str, Any]) -> list[str]:
    names = list(dict.fromkeys(name for found in rows.values() for name in found))
    lines = [_row(corner, names)]
    for title, found in rows.items():
        ours = statistics.median(best(found["fastnn"]))
        cells = [_cell(best(found[name]), ours) if name in found else "" for name in names]
        lines.append(_row(title, cells))
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
