"""Optimizers: where momentum, Adagrad, RMSprop and Adam help, on surfaces and on data.

Each gets the same grid of learning rates, and is judged at the best of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ... import checks
from ...words import Words
from ..results import Results, Table
from ..samples import parts_of, with_first
from . import drawing, training
from .compared import COMPARED, title
from .descents import RATES, Descent, best_of, descents
from .surfaces import SURFACES, Surface
from .training import Training, trainings


def study(
    data: Any = None,
    *,
    seed: int = 0,
    rows: int = 2000,
    steps: int = 400,
    epochs: int = 10,
    networks: int = 5,
    batch_size: int = 32,
    width: int = 32,
) -> Optimizers:
    """Let every optimizer go down four surfaces, and train networks.

    Parameters
    ----------
    data : pair of arrays (X, y) or Parts, optional
        Samples and class numbers; the embedded digits by default.
    seed : int, default 0
        Of the split and of the first network; the others have the seeds after it.
    rows : int, default 2000
        The most samples to train on.
    steps : int, default 400
        On the surfaces.
    epochs : int, default 10
        Of each training.
    networks : int, default 5
        How many are trained by each optimizer at each rate.
    batch_size : int, default 32
    width : int, default 32
        Of the one hidden layer.

    Returns
    -------
    Optimizers

    Raises
    ------
    ValueError, TypeError
        For data or sizes that do not fit.

    Examples
    --------
    >>> results = study(steps=40, epochs=1, networks=1)
    >>> results.best_on(SURFACES[1], "rmsprop").leaves_at < 40
    True
    """
    checks.positive_ints(
        steps=steps, epochs=epochs, networks=networks, batch_size=batch_size, width=width
    )
    parts = with_first(parts_of(data, seed), rows)
    return Optimizers(
        descents(COMPARED, steps),
        trainings(
            COMPARED,
            parts,
            range(seed, seed + networks),
            epochs=epochs,
            batch_size=batch_size,
            width=width,
        ),
    )


@dataclass(frozen=True)
class Optimizers(Results):
    """What each optimizer did at each rate.

    Attributes
    ----------
    descents : list of Descent
    trainings : list of Training
    """

    name: ClassVar[str] = "optimizers"

    descents: list[Descent]
    trainings: list[Training]

    def on(self, surface: Surface, optimizer: str) -> list[Descent]:
        """The descents of an optimizer on a surface, a rate each."""
        return [d for d in self.descents if d.surface is surface and d.optimizer == optimizer]

    def best_on(self, surface: Surface, optimizer: str) -> Descent:
        """Of these, the one that reaches the minimum first, or else ends lowest."""
        return best_of(self.on(surface, optimizer))

    def trained_by(self, optimizer: str) -> list[Training]:
        """The trainings by an optimizer, a rate each."""
        return [t for t in self.trainings if t.optimizer == optimizer]

    def best_by(self, optimizer: str) -> Training:
        """Of these, the one with the least validation loss at the end."""
        return min(self.trained_by(optimizer), key=lambda t: t.validation_loss)

    def summary(self) -> Table:
        best = {name: self.best_by(name) for name in COMPARED}
        return Table(
            {
                "optimizer": [title(name) for name in COMPARED],
                **{
                    f"{surface.name}: steps": [
                        _or_never(self.best_on(surface, name).reaches_at) for name in COMPARED
                    ]
                    for surface in SURFACES
                },
                "rate on data": [t.rate for t in best.values()],
                "validation loss": [t.validation_loss for t in best.values()],
                "accuracy": [t.validation_accuracies[:, -1].mean() for t in best.values()],
            }
        )

    def tables(self) -> dict[str, Table]:
        best = [self.best_on(surface, name) for surface in SURFACES for name in COMPARED]
        chosen = [self.best_by(name) for name in COMPARED]
        return {
            "summary": self.summary(),
            "surfaces": self._table_of_surfaces(best),
            "paths": Table(
                {
                    "surface": [d.surface.name for d in best for _ in d.points],
                    "optimizer": [title(d.optimizer) for d in best for _ in d.points],
                    "step": [step for d in best for step in range(len(d.points))],
                    "x": np.concatenate([d.points[:, 0] for d in best]),
                    "y": np.concatenate([d.points[:, 1] for d in best]),
                    "loss": np.concatenate([d.losses for d in best]),
                }
            ),
            "rates": Table(
                {
                    "optimizer": [title(t.optimizer) for t in self.trainings],
                    "learning rate": [t.rate for t in self.trainings],
                    "validation loss": [t.validation_loss for t in self.trainings],
                }
            ),
            "epochs": _table_of_epochs(chosen),
        }

    def _table_of_surfaces(self, best: list[Descent]) -> Table:
        return Table(
            {
                "surface": [d.surface.name for d in best],
                "loss": [d.surface.formula for d in best],
                "optimizer": [title(d.optimizer) for d in best],
                "learning rate": [d.rate for d in best],
                "last loss": [d.losses[-1] for d in best],
                "left at step": [_or_never(d.leaves_at) for d in best],
                "minimum at step": [_or_never(d.reaches_at) for d in best],
                "rates that leave": [self._count_leaving(d.surface, d.optimizer) for d in best],
            }
        )

    def _count_leaving(self, surface: Surface, optimizer: str) -> int:
        return sum(d.leaves_at is not None for d in self.on(surface, optimizer))

    def findings(self) -> list[str]:
        return [*map(self._finding_on, SURFACES), *self._findings_on_data()]

    def _finding_on(self, surface: Surface) -> str:
        best = [self.best_on(surface, name) for name in COMPARED]
        steps = {title(d.optimizer): d.reaches_at for d in best}
        reached = sorted((taken, name) for name, taken in steps.items() if taken is not None)
        never = [name for name, taken in steps.items() if taken is None]
        parts = [f"{name} in {taken} steps" for taken, name in reached] or ["none"]
        if never:
            parts.append(f"not within {len(best[0].points) - 1} steps: {', '.join(never)}")
        leaving = ", ".join(
            f"{title(name)} {self._count_leaving(surface, name)}" for name in COMPARED
        )
        return (
            f"Surface with a {surface.name}, each at the best of {len(RATES)} rates: the minimum "
            f"is reached by {'; '.join(parts)}. At so many of the rates the descent gets at least "
            f"half of the way down, and stays there: {leaving}."
        )

    def _findings_on_data(self) -> list[str]:
        best = sorted(map(self.best_by, COMPARED), key=lambda t: t.validation_loss)
        first, last = best[0], best[-1]
        rates = ", ".join(f"{title(t.optimizer)} {t.rate:g}" for t in best)
        fastest = min(best, key=lambda t: float(t.training_losses[:, 0].mean()))
        wide = ", ".join(
            f"{title(name)} {self._count_good(name, 2.0 * first.validation_loss)}"
            for name in COMPARED
        )
        return [
            f"On the data, each at its best rate ({rates}), the validation loss after the last "
            f"epoch goes from {first.validation_loss:.3g} ({title(first.optimizer)}) to "
            f"{last.validation_loss:.3g} ({title(last.optimizer)}).",
            f"{title(fastest.optimizer)} has the lowest training loss in the first epoch, "
            f"{fastest.training_losses[:, 0].mean():.3g}. Of {len(training.RATES)} rates, so many "
            f"come within twice the least validation loss: {wide}.",
        ]

    def _count_good(self, optimizer: str, bound: float) -> int:
        return sum(t.validation_loss <= bound for t in self.trained_by(optimizer))

    def draw(self, say: Words) -> dict[str, Any]:
        return {
            "paths": drawing.paths(self, say),
            "descents": drawing.descents(self, say),
            "training": drawing.training(self, say),
        }


def _or_never(step: int | None) -> int | str:
    return "never" if step is None else step


def _table_of_epochs(chosen: list[Training]) -> Table:
    epochs = chosen[0].training_losses.shape[1]
    return Table(
        {
            "optimizer": [title(t.optimizer) for t in chosen for _ in range(epochs)],
            "epoch": [epoch for _ in chosen for epoch in range(1, epochs + 1)],
            "training loss": np.concatenate([t.training_losses.mean(axis=0) for t in chosen]),
            "validation loss": np.concatenate([t.validation_losses.mean(axis=0) for t in chosen]),
            "validation accuracy": np.concatenate(
                [t.validation_accuracies.mean(axis=0) for t in chosen]
            ),
        }
    )
