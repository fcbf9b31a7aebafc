"""How many updates it takes to a fixed error, with ReLU and with tanh.

Source: Krizhevsky, Sutskever and Hinton, 2012, "ImageNet classification with deep convolutional
neural networks", section 3.1, whose figure 1 this asks again of a small network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import figures
from ...cli_data import Parts
from ...many import fit_many
from ...optim import SGD
from ...words import Words
from ..results import Table
from .part import Part, seeds, untrained

ERRORS = (0.1, 0.01)
"""The shares of training rows that may be wrong."""
_ACTIVATIONS = ("relu", "tanh")
_RATE = 0.3


@dataclass(frozen=True)
class Speed(Part):
    """Training errors of full-batch descent.

    Attributes
    ----------
    errors : dict of str to ndarray (networks, updates)
        The share of training rows that are wrong before each update, by activation.
    """

    errors: dict[str, np.ndarray]

    def updates_to(self, error: float, activation: str) -> list[float]:
        """Updates until a network's error is this or less, by network; infinity for never."""
        reached = self.errors[activation] <= error
        return [float(r.argmax()) if r.any() else math.inf for r in reached]

    def tables(self) -> dict[str, Table]:
        rows = [
            (name, number, *counts)
            for name in self.errors
            for number, counts in enumerate(
                zip(*(self.updates_to(error, name) for error in ERRORS), strict=True)
            )
        ]
        titles = ("activation", "network", *(f"updates to {error:.0%}" for error in ERRORS))
        means = {name: errors.mean(axis=0) for name, errors in self.errors.items()}
        updates = range(len(next(iter(means.values()))))
        return {
            "updates": Table.of_rows(titles, rows),
            "training-errors": Table({"updates": updates, **means}),
        }

    def finding(self) -> str:
        parts = []
        for error in ERRORS:
            counts = (f"{name} {self._median(error, name)}" for name in self.errors)
            parts.append(f"to an error of {error:.0%} on the training rows {', '.join(counts)}")
        return f"Updates of full-batch SGD({_RATE}), medians of the networks: {'; '.join(parts)}."

    def _median(self, error: float, activation: str) -> str:
        median = float(np.median(self.updates_to(error, activation)))
        limit = self.errors[activation].shape[1]
        return f"{median:g}" if math.isfinite(median) else f"more than {limit - 1}"

    def draw(self, say: Words) -> dict[str, Any]:
        figure = figures.new(6.5, 4.0)
        axis = figure.subplots()
        for colour, (name, errors) in zip(figures.COLOURS, self.errors.items(), strict=False):
            updates = np.arange(errors.shape[1])
            low, middle, high = np.quantile(errors, (0.0, 0.5, 1.0), axis=0)
            axis.semilogy(updates, middle, color=colour, label=name)
            axis.fill_between(updates, low, high, color=colour, alpha=0.2, lw=0.0)
        for error in ERRORS:
            axis.axhline(error, color="0.6", lw=0.8, ls="--")
        title = say("median of {count} networks, and their range", count=len(errors))
        axis.set(xlabel=say("updates"), ylabel=say("training error"), title=title)
        axis.legend()
        return {"updates": figure}


def measure(parts: Parts, networks: int, updates: int, seed: int) -> Speed:
    """Networks of either activation at the same rate."""
    errors = {}
    for name in _ACTIVATIONS:
        histories = fit_many(
            untrained(name, parts, seeds(seed, networks)),
            *parts.train,
            optimizers=SGD(_RATE),
            batch_size="full",
            epochs=updates,
            progress=False,
        )
        errors[name] = 1.0 - np.array([history["accuracy"] for history in histories])
    return Speed(errors)
