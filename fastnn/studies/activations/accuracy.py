"""Which activation classifies best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import figures
from ...cli_data import Parts
from ...many import fit_many
from ...optim import Adam
from ...words import Words
from ..results import Table
from ..samples import network
from .part import ELEMENTWISE, HIDDEN, Part

_RATE = 1e-3


@dataclass(frozen=True)
class Accuracy(Part):
    """Accuracies on the validation rows.

    Attributes
    ----------
    accuracies : dict of str to ndarray (networks,)
        By activation.
    """

    accuracies: dict[str, np.ndarray]

    def means(self) -> dict[str, float]:
        """The mean over the networks."""
        return {name: float(values.mean()) for name, values in self.accuracies.items()}

    def deviations(self) -> dict[str, float]:
        """The standard deviation over the networks."""
        return {name: float(values.std(ddof=1)) for name, values in self.accuracies.items()}

    def tables(self) -> dict[str, Table]:
        count = len(next(iter(self.accuracies.values())))
        return {"accuracies": Table({"network": range(count), **self.accuracies})}

    def finding(self) -> str:
        means, deviations = self.means(), self.deviations()
        ranked = sorted(means, key=lambda name: -means[name])
        best = ranked[0]
        close = [n for n in ranked[1:] if means[best] - means[n] <= deviations[best]]
        others = f"; within that deviation of it: {', '.join(close)}" if close else ""
        last = ranked[-1]
        return (
            f"The best validation accuracy is {best}'s, {means[best]:.1%} with a deviation of "
            f"{deviations[best]:.1%} over {len(self.accuracies[best])} networks{others}. The "
            f"lowest is {last}'s, {means[last]:.1%}; without an activation it is "
            f"{means['identity']:.1%}."
        )

    def draw(self, say: Words) -> dict[str, Any]:
        figure = figures.new(7.0, 4.2)
        axis = figure.subplots()
        means = self.means()
        for place, name in enumerate(sorted(means, key=lambda name: means[name])):
            values = self.accuracies[name]
            axis.plot(values, np.full(len(values), place), "o", color="0.7", ms=4)
            axis.errorbar(
                means[name],
                place,
                xerr=self.deviations()[name],
                fmt="D",
                ms=5,
                capsize=3,
                color=figures.COLOURS[0],
            )
        axis.set_yticks(range(len(means)), sorted(means, key=lambda name: means[name]))
        axis.set_xlabel(say("validation accuracy: each network, mean and standard deviation"))
        return {"accuracy": figure}


def measure(parts: Parts, networks: int, epochs: int, seed: int) -> Accuracy:
    """The same network and training with every activation."""
    accuracies = {}
    seeds = range(seed, seed + networks)
    for name, activation in ELEMENTWISE.items():
        models = [network(parts, HIDDEN, activation, seed=number) for number in seeds]
        options = {"optimizers": Adam(_RATE), "epochs": epochs, "progress": False}
        fit_many(models, *parts.train, seeds=seeds, **options)
        scores = [model.evaluate(*parts.validation)["accuracy"] for model in models]
        accuracies[name] = np.array(scores)
    return Accuracy(accuracies)
