"""Each activation and its derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import figures
from ...backend import use_backend
from ...model import Sequential
from ...words import Words
from .. import drawing
from ..results import Table
from .part import ELEMENTWISE, Part

_REACH, _POINTS = 8.0, 321
_DRAWN = 5.0


@dataclass(frozen=True)
class Curves(Part):
    """Values and derivatives on a line.

    Attributes
    ----------
    z : ndarray (P,)
        From -8 to 8.
    values, derivatives : dict of str to ndarray (P,)
        By the activation's name.
    """

    z: np.ndarray
    values: dict[str, np.ndarray]
    derivatives: dict[str, np.ndarray]

    def steepest(self, name: str) -> float:
        """An activation's largest derivative."""
        return float(self.derivatives[name].max())

    def tables(self) -> dict[str, Table]:
        names = list(self.values)
        columns = {
            "activation": np.repeat(names, len(self.z)),
            "z": np.tile(self.z, len(names)),
            "value": np.concatenate([self.values[name] for name in names]),
            "derivative": np.concatenate([self.derivatives[name] for name in names]),
        }
        return {"curves": Table(columns)}

    def finding(self) -> str:
        sigmoid, tanh, relu = (self.steepest(name) for name in ("sigmoid", "tanh", "relu"))
        return (
            f"The sigmoid's derivative is never above {sigmoid:.4g}: ten of them multiply a "
            f"gradient by {sigmoid**10:.1e} at most. The largest of tanh is {tanh:.4g}, of ReLU "
            f"{relu:.4g}."
        )

    def draw(self, say: Words) -> dict[str, Any]:
        figure = figures.new(9.0, 6.3)
        columns = 4
        rows = -(-len(self.values) // columns)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis, name in zip(axes.flat, self.values, strict=False):
            axis.axhline(0.0, color="0.8", lw=0.8)
            axis.plot(self.z, self.values[name], label=say("value"))
            axis.plot(self.z, self.derivatives[name], "--", label=say("derivative"))
            axis.set(title=rf"{name}: $f' \leq$ {self.steepest(name):.3g}")
            axis.set(xlim=(-_DRAWN, _DRAWN), ylim=(-2.2, 3.2))
        for axis in axes[-1]:
            axis.set_xlabel("$z$")
        drawing.shared_legend(figure, axis, 2)
        return {"curves": figure}


def measure() -> Curves:
    """Every activation's values and derivatives, by its layer's forward and backward pass.

    >>> measure().steepest("sigmoid")
    0.25
    """
    z = np.linspace(-_REACH, _REACH, _POINTS)
    values, derivatives = {}, {}
    with use_backend("numpy"):  # nothing is compiled for a few hundred numbers
        for name, make in ELEMENTWISE.items():
            layer = Sequential(make(), dtype="float64")
            values[name] = layer(z[:, None])[:, 0]
            derivatives[name] = layer.backward(np.ones((_POINTS, 1)))[:, 0]
    return Curves(z, values, derivatives)
