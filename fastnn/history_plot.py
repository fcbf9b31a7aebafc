"""A training's curves as a figure."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import figures
from .words import Words

if TYPE_CHECKING:
    from .history import History

_VALIDATION = "val_"
_COLUMNS = 4
"""Of panels, in a figure of many metrics."""


def plot(history: History, path: str | os.PathLike | None, language: str) -> Any:
    """The figure that :meth:`History.plot` gives."""
    if not history.epochs:
        raise ValueError("the history is empty; expected one of a network that was trained")
    say = Words(language)
    with figures.lettering(say):
        figure = _draw(history, say)
        if path is not None:
            figures.save(figure, path)
    return figure


def _draw(history: History, say: Words) -> Any:
    names = [name for name in history if name != "lr" and not name.startswith(_VALIDATION)]
    columns = min(len(names), _COLUMNS)
    rows = -(-len(names) // columns)
    figure = figures.new(4.6 * columns, 3.4 * rows)
    axes = [figure.add_subplot(rows, columns, place) for place in range(1, len(names) + 1)]
    best = _best_epoch(history.get(_VALIDATION + "loss") or history.get("loss") or ())
    for axis, name in zip(axes, names, strict=True):
        for key, label in ((name, "training"), (_VALIDATION + name, "validation")):
            if key in history:
                values = history[key]
                style = "-" if sum(map(math.isfinite, values)) > 1 else "o"
                (line,) = axis.plot(range(1, len(values) + 1), values, style, label=say(label))
                if best:
                    axis.plot(best, values[best - 1], "o", color=line.get_color(), ms=5)
        if best:
            label = say("best epoch: {epoch}", epoch=best)
            axis.axvline(best, color="0.5", lw=1, ls=":", label=label)
        axis.set_xlabel(say("epoch"))
        axis.set_ylabel(_said(name, say), parse_math=False)
        figures.whole_ticks(axis)
        axis.legend()
    return figure


def _best_epoch(losses: Sequence[float]) -> int | None:
    """The epoch of the least loss, from 1; None where none is finite."""
    finite = [(loss, epoch) for epoch, loss in enumerate(losses, 1) if math.isfinite(loss)]
    return min(finite)[1] if finite else None


def _said(name: str, say: Words) -> str:
    """A loss or an accuracy in the figure's language; other metrics by their names."""
    return say(name) if name in ("loss", "accuracy") else name
