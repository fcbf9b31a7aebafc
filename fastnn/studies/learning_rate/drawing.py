"""The figures of the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ... import figures
from ...words import Words
from .. import drawing
from .parabola import RATES_BY_CURVATURE
from .range_test import smoothed

if TYPE_CHECKING:
    from . import LearningRate, Run


def parabola(found: LearningRate, say: Words) -> Any:
    """Each rate's steps on the parabola."""
    figure = figures.new(10.0, 2.6)
    axes = figure.subplots(1, len(RATES_BY_CURVATURE), sharey=True)
    reach = 1.1 * float(np.abs(found.parabola).max())
    x = np.linspace(-reach, reach, 200)
    for axis, rate, way in zip(axes, RATES_BY_CURVATURE, found.parabola, strict=True):
        axis.plot(x, x**2 / 2, color="0.7")
        axis.plot(way, way**2 / 2, ".-", lw=1.0)
        axis.plot(way[0], way[0] ** 2 / 2, "o", mfc="white", ms=6, color=figures.COLOURS[0])
        axis.set(title=say("rate {rate} / L", rate=f"{rate:g}"), xlabel="x")
    axes[0].set_ylabel(say("loss"))
    return figure


def curves(found: LearningRate, say: Words) -> Any:
    """The smoothed loss at each rate, and the accuracy that it came to."""
    figure = figures.new(10.0, 4.0)
    updates, ends = figure.subplots(1, 2, width_ratios=(3, 2))
    lowest = np.inf
    for run, colour in zip(found.runs, figures.COLOURS, strict=False):
        losses = smoothed(run.losses[np.isfinite(run.losses)])
        lowest = min(lowest, losses.min())
        updates.plot(losses, color=colour, label=_label(run, say))
        mark = "o" if run.diverged_at is None else "x"
        ends.plot(run.rate, run.validation_accuracy, mark, color=colour, ms=7, mew=2)
    top = 100.0 * found.runs[0].losses[0]
    drawing.losses_to_the_top(updates, top, lowest / 2.0)
    updates.set(xlabel=say("update"), ylabel=say("training loss, smoothed"))
    updates.legend(title=say("learning rate"), ncols=2, loc="upper right")
    rate, accuracy = found.suggested.rate, found.suggested.validation_accuracy
    ends.axvline(rate, color="0.3", ls=":")
    label = say("by the range test: {rate}", rate=f"{rate:.2g}")
    ends.plot(rate, accuracy, "D", color="0.3", ms=7, label=label)
    ends.set(xscale="log", xlabel=say("learning rate"), ylabel=say("validation accuracy"))
    ends.set(ylim=(0.0, 1.05))
    ends.legend(loc="lower left")
    return figure


def range_test(found: LearningRate, say: Words) -> Any:
    """The loss as the rate rises, and what is suggested."""
    figure = figures.new(8.0, 3.6)
    axis, tested = figure.subplots(), found.tested
    axis.plot(tested.rates, tested.losses, color="0.75", lw=1.0, label=say("loss"))
    axis.plot(tested.rates, tested.smoothed, lw=2.0, label=say("loss, smoothed"))
    axis.axvline(
        tested.least_at, color=figures.COLOURS[1], ls="--", label=say("least smoothed loss")
    )
    axis.axvline(
        tested.suggestion,
        color=figures.COLOURS[2],
        label=say("suggested: {rate}", rate=f"{tested.suggestion:.3g}"),
    )
    axis.set(xscale="log", ylim=(0.0, 2.0 * tested.losses[0]))
    axis.set(xlabel=say("learning rate, rising from update to update"), ylabel=say("loss"))
    axis.legend(loc="lower left")
    return figure


def _label(run: Run, say: Words) -> str:
    if run.diverged_at is None:
        return f"{run.rate:g}"
    return say("{rate}: diverged at update {update}", rate=f"{run.rate:g}", update=run.diverged_at)
