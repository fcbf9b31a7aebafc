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
from .part import ELEMENTWISE, Part, seeds, untrained

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
        best, *others = self._ranked()
        close = [name for name in others if means[best] - means[name] <= deviations[best]]
        return (
            f"The best validation accuracy is {best}'s, {means[best]:.1%}, with a deviation of "
            f"{deviations[best]:.1%} over {len(self.accuracies[best])} networks; less than that "
            f"below it: {', '.join(close) or 'none'}. The sigmoid has {means['sigmoid']:.1%}, "
            f"identity, no activation at all, {means['identity']:.1%}."
        )

    def draw(self, say: Words) -> dict[str, Any]:
        figure = figures.new(7.0, 4.2)
        axis = figure.subplots()
        ranked = self._ranked()[::-1]
        means, deviations = self.means(), self.deviations()
        for place, name in enumerate(ranked):
            values = self.accuracies[name]
            axis.plot(values, np.full(len(values), place), "o", color="black", alpha=0.2, ms=4)
        spread = {"xerr": [deviations[name] for name in ranked], "fmt": "D", "ms": 5, "capsize": 3}
        axis.errorbar([means[name] for name in ranked], range(len(ranked)), **spread)
        axis.set_yticks(range(len(ranked)), ranked)
        axis.set_xlabel(say("validation accuracy"))
        axis.set_title(say("mean and standard deviation of {count} networks", count=len(values)))
        return {"accuracy": figure}

    def _ranked(self) -> list[str]:
        """Names from the best mean to the worst."""
        means = self.means()
        return sorted(means, key=lambda name: -means[name])


def measure(parts: Parts, networks: int, epochs: int, seed: int) -> Accuracy:
    """The same network and training with every activation."""
    accuracies = {}
    numbers = seeds(seed, networks)
    for name in ELEMENTWISE:
        models = untrained(name, parts, numbers)
        fit_many(
            models,
            *parts.train,
            optimizers=Adam(_RATE),
            seeds=numbers,
            epochs=epochs,
            progress=False,
        )
        scores = [model.evaluate(*parts.validation)["accuracy"] for model in models]
        accuracies[name] = np.array(scores)
    return Accuracy(accuracies)
