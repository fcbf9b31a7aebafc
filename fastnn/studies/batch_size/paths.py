"""Ways down a loss of two weights, by one sample, some samples or all of them at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import figures
from ...optim import SGD
from ...words import Words
from .. import drawing
from ..descent import descend
from ..results import Table
from ..two_weights import TwoWeights, batches
from ..wording import kind_of_descent, series

_START = (2.0, -0.5)
"""Where the paths begin, from the minimum."""


@dataclass(frozen=True)
class Paths:
    """Ways of one start, one learning rate and one number of updates.

    Attributes
    ----------
    unit : TwoWeights
    learning_rate : float
    ways : dict of int to ndarray (updates + 1, 2)
        By batch size.
    """

    unit: TwoWeights
    learning_rate: float
    ways: dict[int, np.ndarray]

    @property
    def updates(self) -> int:
        """Of each way."""
        return len(next(iter(self.ways.values()))) - 1

    def detour(self, batch_size: int) -> float:
        """The length of a way over the distance from the start to the minimum."""
        way = self.ways[batch_size]
        length = np.linalg.norm(np.diff(way, axis=0), axis=1).sum()
        return float(length / np.linalg.norm(way[0] - self.unit.minimum))

    def table(self) -> Table:
        """Every point of every way."""
        ways = self.ways.items()
        return Table(
            {
                "batch size": [size for size, way in ways for _ in way],
                "update": [update for _, way in ways for update in range(len(way))],
                "w1": [weight for _, way in ways for weight in way[:, 0]],
                "w2": [weight for _, way in ways for weight in way[:, 1]],
                "loss": [loss for _, way in ways for loss in self.unit.loss(way)],
            }
        )

    def finding(self) -> str:
        """How far each goes, and where it ends."""
        sizes = list(self.ways)
        detours = [f"{self.detour(size):.1f}" for size in sizes]
        losses = [f"{self.unit.loss(self.ways[size][-1]):.3f}" for size in sizes]
        return (
            f"On the loss of a unit with two weights, {self.updates} updates at one learning rate "
            f"by batches of {series(sizes)} go a way {series(detours)} times as long as the "
            f"straight one, and end at losses of {series(losses)}; the least is "
            f"{self.unit.loss(self.unit.minimum):.3f}."
        )

    def draw(self, say: Words, colours: Mapping[int, str]) -> Any:
        """A panel for each way, over lines of equal loss of all samples; colours by batch size."""
        figure = figures.new(10.0, 3.8)
        axes = figure.subplots(1, len(self.ways), sharex=True, sharey=True, squeeze=False)[0]
        surface = self.unit.surface(np.concatenate(list(self.ways.values())))
        samples = len(self.unit.targets)
        for axis, (size, way) in zip(axes, self.ways.items(), strict=True):
            drawing.contours(axis, *surface)
            drawing.path(axis, way, colours[size])
            axis.plot(*self.unit.minimum, "+", color="black", ms=10)
            axis.set(title=kind_of_descent(say, size, samples), xlabel="$w_1$")
        axes[0].set_ylabel("$w_2$")
        return figure


def paths(unit: TwoWeights, batch_sizes: list[int], updates: int, seed: int) -> Paths:
    """Go down from one place, by batches of each size."""
    start = (unit.minimum + _START)[np.newaxis]

    def way(size: int) -> np.ndarray:
        drawn = batches(len(unit.targets), size, seed)
        return descend(
            SGD(unit.safe_rate),
            lambda weights, _: unit.gradient(weights, next(drawn)[np.newaxis]),
            start,
            updates,
        )[:, 0]

    return Paths(unit, unit.safe_rate, {size: way(size) for size in batch_sizes})
