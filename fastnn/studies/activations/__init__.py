"""What does an activation do, and which one should I take?

In parts, a file each: the functions and their derivatives; what is left of a network without them;
what a gradient loses on its way through many layers; how fast networks learn; which units die; and
how well they classify at last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ... import checks
from ...words import Words
from .. import samples
from ..results import Results, Table
from . import accuracy, curves, dead, gradients, linear, speed
from .part import Part


def study(
    data: Any = None,
    *,
    seed: int = 0,
    rows: int = 2000,
    networks: int = 10,
    epochs: int = 20,
    updates: int = 200,
    depths: Sequence[int] = (2, 5, 10, 20, 30),
) -> Activations:
    """Make the experiments.

    Parameters
    ----------
    data : pair of arrays (X, y) or Parts, optional
        Samples and class numbers; the embedded digits by default.
    seed : int, default 0
    rows : int, default 2000
        The most rows to train on.
    networks : int, default 10
        How many are trained in each setting; at least 2.
    epochs : int, default 20
        Of the trainings whose accuracy counts.
    updates : int, default 200
        Of the full-batch trainings, for the updates to a fixed error.
    depths : sequence of int, default (2, 5, 10, 20, 30)
        Hidden layers that the gradient is sent through.

    Returns
    -------
    Activations

    Raises
    ------
    ValueError, TypeError
        For data or sizes that do not fit.

    Examples
    --------
    >>> numbers = study(rows=100, networks=2, epochs=1, updates=2, depths=[2, 10])
    >>> sigmoid, relu = (numbers.gradients.at_first(name, 10) for name in ("sigmoid", "relu"))
    >>> sigmoid < 1e-4 < relu
    True
    """
    checks.positive_ints(epochs=epochs, updates=updates)
    networks = checks.integer("networks", networks, at_least=2)
    depths = sorted(checks.positive_int("depths", depth) for depth in depths)
    if not depths:
        raise ValueError("depths is empty; expected numbers of hidden layers")
    parts = samples.with_first(samples.parts_of(data, seed), rows)
    return Activations(
        curves=curves.measure(),
        linearity=linear.measure(parts.train[0], networks, seed),
        gradients=gradients.measure(parts, depths, seed),
        speed=speed.measure(parts, networks, updates, seed),
        dead=dead.measure(parts, networks, epochs, seed),
        accuracy=accuracy.measure(parts, networks, epochs, seed),
    )


@dataclass(frozen=True)
class Activations(Results):
    """The study's parts, each with its numbers."""

    name: ClassVar[str] = "activations"
    curves: curves.Curves
    linearity: linear.Linearity
    gradients: gradients.Gradients
    speed: speed.Speed
    dead: dead.Dead
    accuracy: accuracy.Accuracy

    @property
    def parts(self) -> tuple[Part, ...]:
        """In the order in which they are told."""
        return (
            self.curves,
            self.linearity,
            self.gradients,
            self.speed,
            self.dead,
            self.accuracy,
        )

    def tables(self) -> dict[str, Table]:
        return {name: table for part in self.parts for name, table in part.tables().items()}

    def summary(self) -> Table:
        means, deviations = self.accuracy.means(), self.accuracy.deviations()
        return Table(
            {
                "activation": means,
                "largest derivative": [self.curves.steepest(name) for name in means],
                "validation accuracy": means.values(),
                "standard deviation": deviations.values(),
            }
        )

    def findings(self) -> list[str]:
        return [part.finding() for part in self.parts]

    def draw(self, say: Words) -> dict[str, Any]:
        return {name: figure for part in self.parts for name, figure in part.draw(say).items()}
