"""The figures of the landscape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import figures
from ...words import Words
from .surroundings import RADII, SHARP

if TYPE_CHECKING:
    from . import Landscape, Place

_COLOURS = "viridis"
_LINES = {"colors": "white", "linestyles": "solid", "linewidths": 0.4}
_LEAST = 1e-6
"""A smaller loss, which has no end on a logarithmic scale, is drawn as this one."""


def contours(found: Landscape, say: Words) -> Any:
    """Each landscape from above: lines of equal loss."""
    figure = figures.new(8.2, 6.9)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    levels = _levels(found)
    for axis, place in zip(axes.flat, found.places, strict=True):
        filled = axis.contourf(found.grid, found.grid, _heights(place), levels, cmap=_COLOURS)
        axis.contour(found.grid, found.grid, _heights(place), levels, **_LINES)
        axis.plot(0.0, 0.0, "+", color="white", ms=9, mew=2)
        axis.set(title=_title(place, say), aspect="equal")
    for axis in axes[1]:
        axis.set_xlabel(say("first direction"))
    for axis in axes[:, 0]:
        axis.set_ylabel(say("second direction"))
    bar = figure.colorbar(filled, ax=axes, shrink=0.8, label=say("loss"))
    bar.set_ticks(levels[::4], labels=_powers(levels[::4]))
    return figure


def surfaces(found: Landscape, say: Words) -> Any:
    """Each landscape from aside."""
    figure = figures.new(8.2, 8.2, layout=None)
    axes = figure.subplots(2, 2, subplot_kw={"projection": "3d"})
    figure.subplots_adjust(0.0, 0.05, 0.94, 0.93, wspace=0.05, hspace=0.25)
    levels = _levels(found)
    first, second = np.meshgrid(found.grid, found.grid)
    for axis, place in zip(axes.flat, found.places, strict=True):
        limits = {"vmin": levels[0], "vmax": levels[-1]}
        axis.plot_surface(first, second, _heights(place), cmap=_COLOURS, lw=0.0, **limits)
        axis.set_zlim(levels[0], levels[-1])
        axis.set_zticks(levels[::4], _powers(levels[::4]))
        axis.set(xlabel=say("first direction"), ylabel=say("second direction"))
        axis.set_zlabel(say("loss"))
        axis.set_title(_title(place, say))
    return figure


def rises(found: Landscape, say: Words) -> Any:
    """How far the loss rises at each radius: mean and spread of each setting's networks."""
    figure = figures.new(5.6, 3.8)
    axis = figure.subplots()
    for place, colour in zip(found.places, figures.COLOURS, strict=False):
        mean, spread = place.rises.mean(axis=0), place.rises.std(axis=0, ddof=1)
        label = say(place.setting)
        axis.errorbar(RADII, mean, spread, fmt="o-", ms=4, color=colour, label=label, capsize=2)
    axis.set(xscale="log", yscale="log", xlabel=say("radius"), ylabel=say("rise of the loss"))
    axis.set_xticks(RADII, map(str, RADII))
    axis.minorticks_off()
    axis.legend()
    return figure


def _heights(place: Place) -> np.ndarray:
    """The landscape as it is drawn, (G, G): the logarithm to base 10 of the loss."""
    return np.log10(np.maximum(place.loss, _LEAST))


def _levels(found: Landscape) -> np.ndarray:
    """Powers of ten between all of the losses, four a decade; the same for every landscape."""
    losses = np.array([_heights(place) for place in found.places])
    low, high = math.floor(losses.min()), math.ceil(losses.max())
    return np.linspace(low, high, 4 * (high - low) + 1)


def _title(place: Place, say: Words) -> str:
    rise = f"{place.rises[0, SHARP]:.2g}"
    return f"{say(place.setting)}\n" + say("rise at 0.5: {rise}", rise=rise)


def _powers(exponents: np.ndarray) -> list[str]:
    return [f"$10^{{{exponent:.0f}}}$" for exponent in exponents]
