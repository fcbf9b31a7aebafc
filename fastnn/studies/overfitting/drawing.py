"""The figures of overfitting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ... import figures
from ...words import Words

if TYPE_CHECKING:
    from . import Overfitting

_TRAINING, _VALIDATION, _BEST = figures.COLOURS[:3]
_UNDER, _OVER = figures.COLOURS[5], figures.COLOURS[4]
_SHADE = 0.15
"""How opaque the regions are."""


def epochs(found: Overfitting, say: Words) -> Any:
    """The curves of three widths on one draw, each with its best epoch."""
    figure = figures.new(8.2, 3.6)
    shown = sorted({0, found.most_overfit, len(found.widths) - 1})
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, number in zip(axes, shown, strict=True):
        validation = found.validation_loss[number, 0]
        best, last = 1 + int(validation.argmin()), len(validation)
        count = np.arange(1, last + 1)
        shades = [
            axis.axvspan(1, best, color=_UNDER, alpha=_SHADE, lw=0, label=say("underfitting")),
            axis.axvspan(best, last, color=_OVER, alpha=_SHADE, lw=0, label=say("overfitting")),
        ]
        training = found.training_loss[number, 0]
        lines = [
            *axis.plot(count, training, color=_TRAINING, label=say("training")),
            *axis.plot(count, validation, color=_VALIDATION, label=say("validation")),
        ]
        marks = axis.plot(best, validation[best - 1], "o", color=_BEST, clip_on=False)
        axis.axvline(best, color=_BEST, ls="--", lw=1)
        axis.legend(marks, [say("best epoch: {epoch}", epoch=best)])
        axis.set(xscale="log", xlabel=say("epoch"), xlim=(1, last))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set_title(say("hidden units: {count}", count=found.widths[number]))
    axes[0].set_ylabel(say("loss"))
    figure.legend(handles=lines + shades, loc="outside lower center", ncols=4)
    return figure


def sizes(found: Overfitting, say: Words) -> Any:
    """Loss and accuracy against the width, at the end and at the best epoch."""
    figure = figures.new(8.2, 3.6)
    loss, accuracy = figure.subplots(1, 2)
    best = found.validation_loss.argmin(axis=2)[..., None]
    at_best = np.take_along_axis(found.validation_accuracy, best, axis=2)[..., 0]
    _band(loss, found.widths, found.training_loss[..., -1], _TRAINING, say("training, at the end"))
    label = say("validation, at the end")
    _band(loss, found.widths, found.validation_loss[..., -1], _VALIDATION, label)
    _band(accuracy, found.widths, found.validation_accuracy[..., -1], _VALIDATION, label)
    label = say("validation, at the best epoch")
    _band(loss, found.widths, found.validation_loss.min(axis=2), _BEST, label)
    _band(accuracy, found.widths, at_best, _BEST, label)
    for axis, name in ((loss, "loss"), (accuracy, "accuracy")):
        _shade(axis, found.widths, found.underfits, _UNDER, say("underfitting"))
        _shade(axis, found.widths, found.overfits, _OVER, say("overfitting"))
        axis.set_xscale("log", base=2)
        axis.set_xticks(found.widths, map(str, found.widths))
        axis.set(xlabel=say("hidden units"), ylabel=say(name))
    loss.legend()
    return figure


def remedies(found: Overfitting, say: Words) -> Any:
    """Each remedy's validation loss and accuracy: mean, spread, and every draw."""
    figure = figures.new(8.2, 3.4)
    axes = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(found.remedies))
    for axis, values, name in (
        (axes[0], found.remedy_loss, "validation loss"),
        (axes[1], found.remedy_accuracy, "validation accuracy"),
    ):
        axis.axvline(values[0].mean(), color="0.7", lw=1, ls=":")
        axis.plot(values, places, "o", color="0.6", ms=3)
        axis.errorbar(
            values.mean(axis=1),
            places,
            xerr=values.std(axis=1, ddof=1),
            fmt="o",
            color=_TRAINING,
            capsize=3,
        )
        axis.set(xlabel=say(name))
    label = say("test, once: {accuracy}", accuracy=f"{found.test_accuracy:.3f}")
    axes[1].plot(found.test_accuracy, found.chosen, "*", color=_VALIDATION, ms=11, label=label)
    axes[1].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))
    axes[0].set_yticks(places, [say(name) for name in found.remedies])
    axes[0].set_ylim(len(places) - 0.5, -0.5)
    return figure


def _band(axis: Any, widths: list[int], values: np.ndarray, colour: str, label: str) -> None:
    """The mean over draws (W, D), and a band of their spread."""
    mean, spread = values.mean(axis=1), values.std(axis=1, ddof=1)
    axis.plot(widths, mean, "o-", color=colour, ms=4, label=label)
    axis.fill_between(widths, mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)


def _shade(axis: Any, widths: list[int], marked: np.ndarray, colour: str, label: str) -> None:
    """Mark widths by a colour behind them, each up to half of the way to its neighbours."""
    middles = np.sqrt(np.multiply(widths[:-1], widths[1:]))
    edges = np.concatenate([[widths[0]], middles, [widths[-1]]])
    for number in np.flatnonzero(marked):
        axis.axvspan(*edges[number : number + 2], color=colour, alpha=_SHADE, lw=0, label=label)
        label = "_"
