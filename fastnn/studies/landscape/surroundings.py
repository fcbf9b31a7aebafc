"""The loss around a network's weights."""

from __future__ import annotations

import copy

import numpy as np

from ...arena import Arena
from ...evaluation import Evaluation
from ...losses import CrossEntropyLoss
from ...model import Sequential
from ...runs import Runs
from ...training_data import TrainingData

RADII = (0.125, 0.25, 0.5, 1.0)
SHARP = RADII.index(0.5)
"""The radius at which the mean rise of the loss is taken as the sharpness."""


class Surroundings:
    """The loss on some rows around a network's weights.

    Parameters
    ----------
    model : Sequential
        A copy is moved about; the network stays as it is.
    X, y : array (B, I) and class numbers (B,)

    Examples
    --------
    >>> from fastnn import data, Linear
    >>> X, y = data.digits()
    >>> model = Sequential(Linear(64, 10), seed=0)
    >>> around = Surroundings(model, X, y)
    >>> around.loss(0.0) == model.evaluate(X, y)["loss"]
    True
    """

    def __init__(self, model: Sequential, X: np.ndarray, y: np.ndarray) -> None:
        self._model, self._runs = copy.deepcopy(model), Runs()
        self._centre = Arena(model.arena.parameters, "float64")
        self._centre.flat[:] = model.arena.flat
        rows = TrainingData(self._model, X, y, CrossEntropyLoss())
        self._evaluation = Evaluation(self._model, rows, metrics=())

    def direction(self, generator: np.random.Generator) -> np.ndarray:
        """A random direction (P,) among all P parameters, normalised neuron by neuron.

        Normal numbers, each column of a weight scaled to the column's norm (Li et al. 2018,
        section 4); 0 for all other parameters.
        """
        direction = self._centre.like()
        for name, weight in self._centre.items():
            if weight.ndim == 2:
                drawn = generator.standard_normal(weight.shape)
                scale = np.linalg.norm(weight, axis=0) / np.linalg.norm(drawn, axis=0)
                direction[name][...] = drawn * scale
        return direction.flat

    def loss(self, shift: np.ndarray | float) -> float:
        """The mean loss with the parameters moved by a shift (P,)."""
        self._model.arena.flat[:] = self._centre.flat + shift
        return self._evaluation.measure(self._runs)["loss"]

    def over(self, plane: tuple[np.ndarray, np.ndarray], grid: np.ndarray) -> np.ndarray:
        """The loss (G, G) at steps along a plane's directions: rows are steps along the second."""
        first, second = plane
        return np.array([[self.loss(a * first + b * second) for a in grid] for b in grid])

    def rises(self, generator: np.random.Generator, directions: int) -> np.ndarray:
        """How far the loss rises at each radius, (R,): the mean over directions, both ways."""
        found = np.zeros(len(RADII))
        for _ in range(directions):
            direction = self.direction(generator)
            found += [
                (self.loss(radius * direction) + self.loss(-radius * direction)) / 2
                for radius in RADII
            ]
        return found / directions - self.loss(0.0)
