"""The optimizers' ways down the four surfaces, each at every rate of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...optim import OPTIMIZERS
from ..descent import descend
from .surfaces import SURFACES, Surface

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""The grid, the same for every optimizer and surface."""

HALF_WAY, GOAL = 0.5, 0.01
"""Shares of the way up from the minimum to the trap, at which a trap counts as left, and the
minimum as reached."""


@dataclass(frozen=True)
class Descent:
    """One way down.

    Attributes
    ----------
    surface : Surface
    optimizer : str
        In ``optim.OPTIMIZERS``.
    rate : float
    points : ndarray (steps + 1, 2)
    """

    surface: Surface
    optimizer: str
    rate: float
    points: np.ndarray

    @property
    def losses(self) -> np.ndarray:
        """At the points; NaN or infinite where the descent diverged."""
        with np.errstate(all="ignore"):
            return self.surface.loss(*self.points.T)

    @property
    def leaves_at(self) -> int | None:
        """The step from which on the loss stays half-way down from the trap; None for never."""
        return self._below(HALF_WAY)

    @property
    def reaches_at(self) -> int | None:
        """The step from which on the loss stays about at the minimum; None for never."""
        return self._below(GOAL)

    def _below(self, share: float) -> int | None:
        above = np.flatnonzero(~(self.losses <= self.surface.level(share)))
        first = int(above[-1]) + 1 if above.size else 0
        return first if first < len(self.points) else None


def descents(optimizers: Sequence[str], steps: int) -> list[Descent]:
    """Every optimizer's way down every surface at every rate."""
    starts = np.array([surface.start for surface in SURFACES])
    found = []
    for name in optimizers:
        for rate in RATES:
            with np.errstate(all="ignore"):  # rates that are too high diverge
                ways = descend(OPTIMIZERS[name](rate), _gradients, starts, steps)
            found += [
                Descent(surface, name, rate, ways[:, number])
                for number, surface in enumerate(SURFACES)
            ]
    return found


def best_of(tried: Sequence[Descent]) -> Descent:
    """The one that reaches the minimum in the fewest steps, or else ends lowest."""

    def order(descent: Descent) -> tuple[float, float]:
        steps, last = descent.reaches_at, float(descent.losses[-1])
        return (np.inf if steps is None else steps, last if np.isfinite(last) else np.inf)

    return min(tried, key=order)


def _gradients(points: np.ndarray, step: int) -> np.ndarray:
    """Of each surface at its own point."""
    return np.array([s.gradient(*point) for s, point in zip(SURFACES, points, strict=True)])
