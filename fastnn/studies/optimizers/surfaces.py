"""Four surfaces of a loss over two weights, each with something that descent may stay at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ... import functional

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Surface:
    """A loss over two weights.

    Attributes
    ----------
    name : str
        What descent may stay at there.
    formula : str
        Of the loss, as TeX.
    loss : callable of (x, y) to an array of their shape
    gradient : callable of (x, y) to two such arrays
    start : pair of float
        Where descent begins.
    trap : pair of float
        A point of what it may stay at.
    minimum : pair of float
        Where the loss is least; of two such points, one.
    x_range, y_range : pair of float
        What is drawn.
    """

    name: str
    formula: str
    loss: Callable[[np.ndarray, np.ndarray], np.ndarray]
    gradient: Callable[[np.ndarray, np.ndarray], Pair]
    start: tuple[float, float]
    trap: tuple[float, float]
    minimum: tuple[float, float]
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def loss_at(self, point: tuple[float, float]) -> float:
        """The loss at one point."""
        return float(self.loss(*np.array(point)[:, None])[0])

    def level(self, share: float) -> float:
        """The loss on this share of the way up from the minimum to the trap."""
        bottom, top = self.loss_at(self.minimum), self.loss_at(self.trap)
        return bottom + share * (top - bottom)


TILT = 0.2
"""What makes one of the tilted well's minima the deeper."""

_LEFT, _, _RIGHT = np.sort(np.roots([1.0, 0.0, -1.0, TILT]).real).tolist()


def _tilted_well(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x**4 / 4 - x**2 / 2 + TILT * x + y**2 / 2


def _tilted_well_gradient(x: np.ndarray, y: np.ndarray) -> Pair:
    return x**3 - x + TILT, y


_INPUTS, _TARGETS = np.array([-1.0, 1.0]), np.array([0.2, 0.8])


def _neuron(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.mean((_outputs(x, y) - _TARGETS) ** 2, axis=-1)


def _neuron_gradient(x: np.ndarray, y: np.ndarray) -> Pair:
    output = _outputs(x, y)
    slope = 2.0 * (output - _TARGETS) * output * (1.0 - output)
    return np.mean(slope * _INPUTS, axis=-1), np.mean(slope, axis=-1)


def _outputs(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return functional.sigmoid(weight[..., None] * _INPUTS + bias[..., None])


def _saddle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x**2 / 2 + y**4 / 4 - y**2 / 2


def _saddle_gradient(x: np.ndarray, y: np.ndarray) -> Pair:
    return x, y**3 - y


def _valley(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2


def _valley_gradient(x: np.ndarray, y: np.ndarray) -> Pair:
    across = 200.0 * (y - x**2)
    return -2.0 * (1.0 - x) - 2.0 * x * across, across


SURFACES = (
    # The saddle's double well (below), turned and tilted.
    Surface(
        "local minimum",
        "x^4 / 4 - x^2 / 2 + x / 5 + y^2 / 2",
        _tilted_well,
        _tilted_well_gradient,
        start=(1.5, 1.0),
        trap=(_RIGHT, 0.0),
        minimum=(_LEFT, 0.0),
        x_range=(-2.0, 2.0),
        y_range=(-1.3, 1.3),
    ),
    # A sigmoid neuron of weight x and bias y. It begins saturated, where its slope is nearly 0:
    # Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward neural
    # networks", section 3.
    Surface(
        "plateau",
        r"((\sigma(y - x) - 0.2)^2 + (\sigma(y + x) - 0.8)^2) / 2",
        _neuron,
        _neuron_gradient,
        start=(-1.0, -4.0),
        trap=(-1.0, -4.0),
        minimum=(float(np.log(4.0)), 0.0),
        x_range=(-3.0, 5.0),
        y_range=(-5.0, 3.0),
    ),
    # Nesterov, 2004, "Introductory lectures on convex optimization", example 1.2.2; from (1, 0)
    # descent ends in the saddle, so that the start is a hair beside it.
    Surface(
        "saddle",
        "x^2 / 2 + y^4 / 4 - y^2 / 2",
        _saddle,
        _saddle_gradient,
        start=(1.0, 1e-4),
        trap=(0.0, 0.0),
        minimum=(0.0, 1.0),
        x_range=(-1.3, 1.3),
        y_range=(-1.5, 1.5),
    ),
    # Rosenbrock, 1960, "An automatic method for finding the greatest or least value of a function",
    # with its start; the trap is the valley's floor near it.
    Surface(
        "narrow valley",
        "(1 - x)^2 + 100 (y - x^2)^2",
        _valley,
        _valley_gradient,
        start=(-1.2, 1.0),
        trap=(-1.0, 1.0),
        minimum=(1.0, 1.0),
        x_range=(-1.6, 1.6),
        y_range=(-0.6, 1.8),
    ),
)
