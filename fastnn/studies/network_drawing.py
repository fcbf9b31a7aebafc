"""Networks drawn as circles and arrows, with numbers in and on them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .. import figures, optional

Place = tuple[float, float]


class NetworkDrawing:
    """A figure of circles, arrows and text; places are inches from its lower left corner.

    Parameters
    ----------
    size : (float, float)
        Width and height.
    title : str
    radius : float
        Of the circles.
    """

    def __init__(self, size: tuple[float, float], title: str, *, radius: float) -> None:
        self.figure = figures.new(*size)
        self.radius = radius
        self._axis = self.figure.add_subplot()
        self._axis.set(xlim=(0.0, size[0]), ylim=(0.0, size[1]), aspect="equal")
        self._axis.set_axis_off()
        self._axis.set_title(title)

    def node(self, at: Place, lines: Iterable[str], *, beside: Iterable[str] = ()) -> None:
        """A circle with lines of text in it, and others above it, or below in the lower half."""
        patches = optional.require("matplotlib.patches", extra="plot")
        colour = figures.COLOURS[0]
        self._axis.add_patch(patches.Circle(at, self.radius, fc="white", ec=colour, lw=1.5))
        self._text(at, lines)
        is_low = at[1] < self._axis.get_ylim()[1] / 2.0
        edge = at[1] + (self.radius + 0.1) * (-1.0 if is_low else 1.0)
        self._text((at[0], edge), beside, "top" if is_low else "bottom")

    def arrow(self, start: Place, end: Place, lines: Iterable[str], share: float) -> None:
        """An arrow from circle to circle, with lines of text at a share of the way."""
        away = self.radius / math.dist(start, end)
        style = {"arrowstyle": "-|>", "color": "0.5", "shrinkA": 0.0, "shrinkB": 0.0}
        tail, head = _between(start, end, away), _between(start, end, 1.0 - away)
        self._axis.annotate("", head, tail, arrowprops=style, zorder=1)
        self._text(_between(start, end, share), lines)

    def _text(self, at: Place, lines: Iterable[str], vertical: str = "center") -> None:
        box = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"}
        self._axis.text(*at, "\n".join(lines), ha="center", va=vertical, bbox=box, zorder=3)


def _between(start: Place, end: Place, share: float) -> Place:
    """The point at a share of the way."""
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
