"""Why layers need an activation: without, several are one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import figures
from ...layers import Layer, Linear
from ...many import fit_many
from ...model import Sequential
from ...optim import Adam
from ...words import Words
from .. import drawing
from ..results import Table
from .part import ELEMENTWISE, Part, seeds

_STACKS = (2, 3)
_WIDTH = 64
_XOR_ACTIVATIONS = ("identity", "tanh", "relu")
_XOR_HIDDEN, _XOR_EPOCHS, _XOR_RATE = 8, 60, 0.01
_ROWS_A_CORNER, _NOISE = 50, 0.3
_CORNERS = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
_REACH, _POINTS = 2.0, 41


@dataclass(frozen=True)
class Linearity(Part):
    """Linear layers beside the one that their product is, and networks on XOR.

    XOR's points are four clouds, of which opposite ones are of one class.

    Attributes
    ----------
    differences : dict of int to float
        By the number of linear layers, the largest difference of their outputs to those of the one
        layer with their matrices' product, relative to the largest output.
    eps : float
        The distance from 1 to the next number of the layers' precision.
    points : ndarray (B, 2)
    classes : ndarray (B,)
    accuracies : dict of str to ndarray (networks,)
        On these points, by the activation between the layers.
    line : ndarray (P,)
        Of either coordinate.
    regions : dict of str to ndarray (P, P)
        The first network's probability of class 1; rows are the second coordinate.
    """

    differences: dict[int, float]
    eps: float
    points: np.ndarray
    classes: np.ndarray
    accuracies: dict[str, np.ndarray]
    line: np.ndarray
    regions: dict[str, np.ndarray]

    def tables(self) -> dict[str, Table]:
        across, up = (axis.ravel() for axis in np.meshgrid(self.line, self.line))
        regions = {name: region.ravel() for name, region in self.regions.items()}
        points = {"x1": self.points[:, 0], "x2": self.points[:, 1], "class": self.classes}
        networks = len(next(iter(self.accuracies.values())))
        collapse = {"layers": self.differences, "difference": self.differences.values()}
        return {
            "collapse": Table(collapse),
            "xor": Table({"network": range(networks), **self.accuracies}),
            "xor-points": Table(points),
            "xor-regions": Table({"x1": across, "x2": up, **regions}),
        }

    def finding(self) -> str:
        counts, largest = " or ".join(map(str, self.differences)), max(self.differences.values())
        means = {name: values.mean() for name, values in self.accuracies.items()}
        networks = len(self.accuracies["identity"])
        others = (f"{name} {mean:.1%}" for name, mean in means.items() if name != "identity")
        return (
            f"Without an activation {counts} linear layers are one, that of their matrices' "
            f"product: outputs differ by {largest:.1e} of the largest, {largest / self.eps:.1f} "
            "times the rounding of a number. On XOR such networks are right on "
            f"{means['identity']:.1%} of the points, the mean of {networks}; with an activation: "
            f"{', '.join(others)}."
        )

    def draw(self, say: Words) -> dict[str, Any]:
        figure = figures.new(9.0, 3.5)
        for axis, (name, region) in zip(
            figure.subplots(1, len(self.regions), sharey=True), self.regions.items(), strict=True
        ):
            levels = np.linspace(0.0, 1.0, 11)
            axis.contourf(self.line, self.line, region, levels, cmap="coolwarm", alpha=0.5)
            axis.contour(self.line, self.line, region, [0.5], colors="black", linewidths=1.2)
            for number, marker in ((0, "o"), (1, "^")):
                cloud = self.points[self.classes == number]
                label = say("class {number}", number=number)
                axis.plot(*cloud.T, marker, color=figures.COLOURS[number], ms=3, label=label)
            accuracy = f"{self.accuracies[name][0]:.1%}"
            axis.set_title(say("{name}: {accuracy} right", name=name, accuracy=accuracy))
            axis.set(aspect="equal", xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH))
        drawing.shared_legend(figure, axis, 2)
        return {"xor": figure}


def measure(inputs: np.ndarray, networks: int, seed: int) -> Linearity:
    """Linear layers on rows of data, and networks of two hidden layers on XOR."""
    eps = float(np.finfo(np.float32).eps)
    differences = {count: _difference(inputs, count, seed) for count in _STACKS}
    points, classes = _xor(seed)
    line = np.linspace(-_REACH, _REACH, _POINTS)
    plane = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    accuracies, regions = {}, {}
    for name in _XOR_ACTIVATIONS:
        models = [_classifier(name, number) for number in seeds(seed, networks)]
        adam = Adam(_XOR_RATE)
        fit_many(models, points, classes, optimizers=adam, epochs=_XOR_EPOCHS, progress=False)
        scores = [model.evaluate(points, classes)["accuracy"] for model in models]
        accuracies[name] = np.array(scores)
        regions[name] = models[0].predict_proba(plane)[:, 1].reshape(_POINTS, _POINTS)
    return Linearity(differences, eps, points, classes, accuracies, line, regions)


def _difference(inputs: np.ndarray, count: int, seed: int) -> float:
    """Of a stack of linear layers to the one layer of their product, relative to its outputs."""
    columns = inputs.shape[1]
    stack = [Linear(columns if not number else _WIDTH, _WIDTH) for number in range(count)]
    outputs = Sequential(*stack, seed=seed)(inputs)
    weight, bias = np.eye(columns), np.zeros(columns)
    for layer in stack:
        weight, bias = weight @ layer.weight, bias @ layer.weight + layer.bias
    one = inputs @ weight + bias
    return float(np.abs(outputs - one).max() / np.abs(one).max())


def _xor(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many points around each corner of a square, and whether their signs differ."""
    generator = np.random.Generator(np.random.Philox(seed))
    centres = np.repeat(_CORNERS, _ROWS_A_CORNER, axis=0)
    points = centres + generator.normal(0.0, _NOISE, centres.shape)
    return points.astype(np.float32), (centres[:, 0] != centres[:, 1]).astype(np.int64)


def _classifier(activation: str, seed: int) -> Sequential:
    stack: list[Layer] = []
    for inputs in (2, _XOR_HIDDEN):
        stack += [Linear(inputs, _XOR_HIDDEN), ELEMENTWISE[activation]()]
    return Sequential(*stack, Linear(_XOR_HIDDEN, 2), seed=seed)
