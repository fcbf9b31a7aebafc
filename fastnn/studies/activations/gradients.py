"""What is left of the gradient once it has come through many layers.

Sources: Hochreiter, 1991, and Glorot and Bengio, 2010, on gradients that vanish; He et al., 2015,
and Klambauer et al., 2017, on initial weights that keep them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ... import figures, init
from ...backend import use_backend
from ...cli_data import Parts
from ...layers import Activation, Layer, Linear
from ...losses import CrossEntropyLoss
from ...model import Sequential
from ...perceptron import standardize
from ...words import Words
from .. import drawing
from ..results import Table
from .part import ELEMENTWISE, Part

_ACTIVATIONS = ("sigmoid", "tanh", "relu", "selu")
_DEVIATION = 0.01
_SMALL = f"normal {_DEVIATION}"
"""What weights are called that are merely small."""
_ROWS, _WIDTH = 100, 64

Setting = tuple[str, str, int]
"""Activation, initialiser and hidden layers."""


@dataclass(frozen=True)
class Gradients(Part):
    """The size of the gradient at every hidden layer of untrained networks.

    Attributes
    ----------
    depths : list of int
        Of the networks, in hidden layers.
    sizes : dict of (activation, initialiser, depth) to ndarray (depth,)
        The norm of dL/dz of each hidden layer, from the first, relative to the last one's.
    """

    depths: list[int]
    sizes: dict[Setting, np.ndarray]

    def at_first(self, activation: str, depth: int, initialiser: str | None = None) -> float:
        """What arrives at the first layer; with the activation's own initialiser by default."""
        initialiser = initialiser or init.default_for(activation)
        return float(self.sizes[activation, initialiser, depth][0])

    def tables(self) -> dict[str, Table]:
        rows = [
            (*setting, number, size)
            for setting, sizes in self.sizes.items()
            for number, size in enumerate(sizes, start=1)
        ]
        titles = ("activation", "initialiser", "hidden layers", "layer", "relative gradient")
        return {"gradients": Table.of_rows(titles, rows)}

    def finding(self) -> str:
        deepest = self.depths[-1]
        arrived = (f"{name} {self.at_first(name, deepest):.2g}" for name in _ACTIVATIONS)
        small = self.at_first("relu", deepest, _SMALL)
        return (
            f"Through {deepest} layers, this share of the gradient arrives at the first, each "
            f"activation with its own initialiser: {', '.join(arrived)}. ReLU with weights of "
            f"deviation {_DEVIATION} instead: {small:.2g}."
        )

    def draw(self, say: Words) -> dict[str, Any]:
        return {"gradients": self._draw_depths(say), "initialisers": self._draw_initialisers(say)}

    def _draw_depths(self, say: Words) -> Any:
        figure = figures.new(9.0, 3.8)
        layers, depths = figure.subplots(1, 2, sharey=True)
        deepest = self.depths[-1]
        for name in _ACTIVATIONS:
            sizes = self.sizes[name, init.default_for(name), deepest]
            layers.semilogy(np.arange(1, deepest + 1), sizes, label=name)
            arrived = [self.at_first(name, depth) for depth in self.depths]
            depths.semilogy(self.depths, arrived, "o-", ms=4, label=name)
        layers.set(title=say("each of {count} layers", count=deepest), xlabel=say("layer"))
        layers.set_ylabel(say("gradient, relative to the last layer's"))
        depths.set(title=say("first layer"), xlabel=say("hidden layers"))
        depths.legend()
        return figure

    def _draw_initialisers(self, say: Words) -> Any:
        figure = figures.new(9.0, 5.8)
        deepest = self.depths[-1]
        axes = figure.subplots(2, 2, sharex=True, sharey=True)
        for axis, name in zip(axes.flat, _ACTIVATIONS, strict=True):
            # In square layers Glorot's variance is LeCun's: dashes show the line below.
            for initialiser, line in zip(_initialisers(), ("-", "-", "--", "-"), strict=True):
                sizes = self.sizes[name, initialiser, deepest]
                axis.semilogy(np.arange(1, deepest + 1), sizes, line, label=initialiser)
            axis.set_title(name)
        for axis in axes[1]:
            axis.set_xlabel(say("layer"))
        figure.supylabel(say("gradient, relative to the last layer's"), size="medium")
        drawing.shared_legend(figure, axis, 4)
        return figure


def measure(parts: Parts, depths: Sequence[int], seed: int) -> Gradients:
    """One backward pass through a fresh network of each setting."""
    inputs, classes = parts.train
    sizes = {}
    for activation in _ACTIVATIONS:
        for name, initialiser in _initialisers().items():
            for depth in depths:
                stack: list[Layer] = [standardize(inputs)]
                width = inputs.shape[1]
                for _ in range(depth):
                    stack += [Linear(width, _WIDTH, init=initialiser), ELEMENTWISE[activation]()]
                    width = _WIDTH
                stack.append(Linear(width, parts.outputs, init=initialiser))
                model = Sequential(*stack, seed=seed, dtype="float64")
                norms = _norms(model, inputs[:_ROWS], classes[:_ROWS])
                sizes[activation, name, depth] = norms / norms[-1]
    return Gradients(list(depths), sizes)


def _initialisers() -> dict[str, init.Initialiser]:
    """Those that the activations have by default, and weights that are merely small."""
    names = ("glorot_uniform", "he_uniform", "lecun_normal")
    return {name: init.resolve(name) for name in names} | {_SMALL: _small}


def _small(generator: np.random.Generator, shape: tuple[int, int], dtype: DTypeLike) -> np.ndarray:
    return generator.normal(0.0, _DEVIATION, shape).astype(dtype)


def _norms(model: Sequential, inputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The norm of the gradient by what goes into each activation."""
    norms = []
    with use_backend("numpy"):  # float64, so that what vanishes does not underflow
        _, grad = CrossEntropyLoss()(model(inputs), classes)
        for layer in reversed(model.layers):
            grad = layer.backward(grad)
            if isinstance(layer, Activation):
                norms.append(np.linalg.norm(grad))
    return np.array(norms[::-1])
