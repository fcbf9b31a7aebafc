"""The figures of the optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import figures
from ...words import Words
from .. import drawing
from .compared import COMPARED, title
from .surfaces import SURFACES, Surface

if TYPE_CHECKING:
    from . import Optimizers

_COLOURS = dict(zip(COMPARED, figures.COLOURS, strict=False))


def paths(found: Optimizers, say: Words) -> Any:
    """Each optimizer's best way down each surface, over lines of equal loss."""
    return _on_surfaces(found, say, _draw_paths)


def descents(found: Optimizers, say: Words) -> Any:
    """The losses along these ways."""
    return _on_surfaces(found, say, _draw_losses)


def training(found: Optimizers, say: Words) -> Any:
    """Each optimizer on the data: by epochs at its best rate, and at the end by the rate."""
    figure = figures.new(10.0, 3.6)
    losses, accuracies, rates = figure.subplots(1, 3)
    for name in COMPARED:
        best, style = found.best_by(name), {"color": _COLOURS[name], "label": title(name)}
        epochs = range(1, best.training_losses.shape[1] + 1)
        losses.plot(epochs, best.training_losses.mean(axis=0), **style)
        accuracies.plot(epochs, best.validation_accuracies.mean(axis=0), **style)
        tried = found.trained_by(name)
        rates.plot([t.rate for t in tried], [t.validation_loss for t in tried], ".-", **style)
    losses.set(yscale="log", xlabel=say("epoch"), ylabel=say("training loss"))
    accuracies.set(xlabel=say("epoch"), ylabel=say("validation accuracy"))
    rates.set(xscale="log", xlabel=say("learning rate"), ylabel=say("validation loss"))
    lowest = min(t.validation_loss for t in found.trainings)
    # The lowest rate has hardly trained: what is far above it diverges.
    top = 2.0 * max(found.trained_by(name)[0].validation_loss for name in COMPARED)
    drawing.losses_to_the_top(rates, top, 0.7 * lowest)
    for axis in (losses, accuracies):
        figures.whole_ticks(axis)
    drawing.shared_legend(figure, losses, len(COMPARED), "upper")
    return figure


def _on_surfaces(
    found: Optimizers, say: Words, draw: Callable[[Optimizers, Words, Any, Surface], None]
) -> Any:
    figure = figures.new(10.0, 8.0)
    axes = figure.subplots(2, 2)
    for axis, surface in zip(axes.flat, SURFACES, strict=True):
        draw(found, say, axis, surface)
        axis.set_title(f"{say(surface.name)}\n${surface.formula}$")
    drawing.shared_legend(figure, axes[0, 0], len(COMPARED) + 1, "upper")
    return figure


def _draw_paths(found: Optimizers, say: Words, axis: Any, surface: Surface) -> None:
    x, y = (np.linspace(*ends, 160) for ends in (surface.x_range, surface.y_range))
    drawing.contours(axis, x, y, surface.loss(*np.meshgrid(x, y)))
    for name in COMPARED:
        points = found.best_on(surface, name).points
        drawing.path(axis, points, _COLOURS[name], title(name))
    axis.plot(*surface.minimum, "*", color="black", ms=12, mfc="white", label=say("global minimum"))
    axis.set(xlim=surface.x_range, ylim=surface.y_range, xlabel="x", ylabel="y")


def _draw_losses(found: Optimizers, say: Words, axis: Any, surface: Surface) -> None:
    bottom = surface.loss_at(surface.minimum)
    for name in COMPARED:
        above = found.best_on(surface, name).losses - bottom
        axis.plot(above, color=_COLOURS[name], label=title(name))
    top = 2.0 * (surface.loss_at(surface.start) - bottom)
    drawing.losses_to_the_top(axis, top)
    axis.set(xlabel=say("step"), ylabel=say("loss above the minimum"))
