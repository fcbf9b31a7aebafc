"""What the batch size changes: the loss by epochs, updates and seconds, and the gradient's noise.

Each batch size has a learning rate of its own, the best of one grid, for a rate that suits one
suits no other. The best has the lowest validation loss on average over the epochs, so that an early
fall counts.

A batch's gradient is that of all samples plus noise, whose variance falls as 1/B. The simple noise
scale, tr(Sigma) / |G|^2, is the batch size at which both are as long (McCandlish et al. 2018, "An
Empirical Model of Large-Batch Training", arXiv:1812.06162, equation 2.9): smaller batches are
mostly noise, and much larger ones hardly tell more.

The paths are those of a linear unit with two weights, all at one learning rate: the one at which
an update on the largest sample alone takes its loss to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ... import checks
from ...words import Words
from ..results import Results, Table
from ..samples import parts_of, with_first
from ..two_weights import two_weights
from ..wording import series
from . import drawing
from .noise import Variances, variances
from .paths import Paths, paths
from .training import RATES, Curve, Trainer


def study(
    data: Any = None,
    *,
    seed: int = 0,
    rows: int = 1000,
    batch_sizes: Sequence[int] = (1, 10, 30, 100),
    epochs: int = 30,
    accuracy: float | None = None,
    hidden: int = 128,
    path_updates: int = 150,
) -> BatchSize:
    """Train one network by batches of several sizes, up to all samples at once.

    Parameters
    ----------
    data : pair of arrays (X, y) or Parts, optional
        Samples and class numbers; the embedded digits by default.
    seed : int, default 0
    rows : int, default 1000
        The most samples to train on.
    batch_sizes : sequence of int, default (1, 10, 30, 100)
        Those below the number of samples; the full batch is added.
    epochs : int, default 30
    accuracy : float, optional
        The validation accuracy to be reached; by default the highest whole percent that every batch
        size reaches.
    hidden : int, default 128
        Width of the hidden layer.
    path_updates : int, default 150
        Updates of each path over the two weights.

    Returns
    -------
    BatchSize

    Raises
    ------
    ValueError, TypeError
        For data or sizes that do not fit.

    Examples
    --------
    >>> result = study(rows=60, batch_sizes=(20,), epochs=2, hidden=8, path_updates=3)
    >>> result.summary()["updates an epoch"]
    [3, 1]
    """
    checks.positive_ints(epochs=epochs, hidden=hidden, path_updates=path_updates)
    if accuracy is not None:
        accuracy = checks.number("accuracy", accuracy, at_least=0.0, at_most=1.0)
    parts = with_first(parts_of(data, seed), rows)
    samples = len(parts.train[0])
    smaller = sorted({size for size in batch_sizes if size < samples})
    sizes = [checks.positive_int("batch_sizes", size) for size in smaller] + [samples]
    unit = two_weights(parts)
    trainer = Trainer(parts, hidden, epochs, seed)
    curves = [trainer.curve(size) for size in sizes]
    if accuracy is None:
        reached = min(max(curve.accuracy) for curve in curves)
        accuracy = math.floor(100.0 * reached + 1e-9) / 100.0
    middle = sizes[(len(sizes) - 1) // 2]
    return BatchSize(
        samples,
        accuracy,
        curves,
        variances(trainer.network(), *parts.train, smaller, seed),
        paths(unit, sorted({1, middle, samples}), path_updates, seed),
    )


@dataclass(frozen=True)
class BatchSize(Results):
    """What the study of batch sizes measured.

    Attributes
    ----------
    samples : int
        That were trained on.
    target : float
        The validation accuracy to be reached.
    curves : list of Curve
        By batch size, the full batch last.
    variances : Variances
        Before training.
    paths : Paths
    """

    name: ClassVar[str] = "batch-size"
    samples: int
    target: float
    curves: list[Curve]
    variances: Variances
    paths: Paths

    @property
    def noise_scale(self) -> np.ndarray:
        """Before training and after each epoch, the median over the batch sizes.

        NaN where one of them has nothing left to learn: its gradient is 0.
        """
        return np.median([curve.noise_scale for curve in self.curves], axis=0)

    @property
    def suggested(self) -> int:
        """The power of two next to the noise scale after the first epoch, at most all samples.

        Next to that before training, where the first epoch leaves nothing to learn.
        """
        before, after = self.noise_scale[:2]
        scale = before if math.isnan(after) else after
        return min(2 ** round(math.log2(max(scale, 1.0))), self.samples)

    @property
    def goal(self) -> str:
        """The target in words."""
        return f"{100.0 * self.target:.6g}%"

    def tables(self) -> dict[str, Table]:
        return {
            "summary": self.summary(),
            "epochs": self._epochs(),
            "rates": Table(
                {
                    "batch size": [curve.batch_size for curve in self.curves for _ in RATES],
                    "learning rate": RATES * len(self.curves),
                    "mean validation loss": self._of_all(lambda curve: curve.validation_losses),
                }
            ),
            "variances": Table(
                {
                    "batch size": self.variances.batch_sizes,
                    "variance": self.variances.measured,
                    "trace / batch size": self.variances.expected,
                }
            ),
            "paths": self.paths.table(),
        }

    def _epochs(self) -> Table:
        return Table(
            {
                "batch size": self._of_all(lambda curve: [curve.batch_size] * len(curve.loss)),
                "epoch": self._of_all(lambda curve: range(len(curve.loss))),
                "updates": self._of_all(lambda curve: curve.updates),
                "seconds": self._of_all(lambda curve: curve.seconds),
                "loss": self._of_all(lambda curve: curve.loss),
                "validation accuracy": self._of_all(lambda curve: curve.accuracy),
                "trace of the covariance": self._of_all(lambda curve: curve.trace),
                "squared gradient": self._of_all(lambda curve: curve.square),
                "noise scale": self._of_all(lambda curve: curve.noise_scale),
            }
        )

    def _of_all(self, column: Callable[[Curve], Any]) -> list[Any]:
        """A column of every curve, one after the other."""
        return [value for curve in self.curves for value in column(curve)]

    def summary(self) -> Table:
        """How soon each batch size gets there, in each of the three units."""
        goal = f"to {self.goal}"
        return Table(
            {
                "batch size": [curve.batch_size for curve in self.curves],
                "learning rate": [curve.learning_rate for curve in self.curves],
                "updates an epoch": [curve.updates_an_epoch for curve in self.curves],
                "seconds an epoch": [float(np.median(np.diff(c.seconds))) for c in self.curves],
                f"epochs {goal}": self._to_target(lambda curve, epoch: epoch),
                f"updates {goal}": self._to_target(lambda curve, epoch: curve.updates[epoch]),
                f"seconds {goal}": self._to_target(lambda curve, epoch: curve.seconds[epoch]),
                "last loss": [curve.loss[-1] for curve in self.curves],
            }
        )

    def _to_target(self, unit: Callable[[Curve, int], float]) -> list[float]:
        """What each batch size took; infinite where it did not get there."""
        reached = [(curve, curve.epochs_to(self.target)) for curve in self.curves]
        return [math.inf if epoch is None else unit(curve, epoch) for curve, epoch in reached]

    def findings(self) -> list[str]:
        summary = self.summary()
        sizes = summary["batch size"]
        first, last = (1e3 * summary["seconds an epoch"][place] for place in (0, -1))
        rates = [f"{rate:.3g}" for rate in summary["learning rate"]]
        return [
            f"{self.samples:,} samples in batches of {series(sizes)} make "
            f"{series(summary['updates an epoch'])} updates an epoch. It takes {first:.2g} ms with "
            f"the smallest batches and {last:.2g} ms with all samples at once.",
            f"The best learning rates for these batch sizes are {series(rates)}.",
            self._first(),
            *self._variance(),
            self._noise(),
            self.paths.finding(),
        ]

    def _first(self) -> str:
        """Which batch size reaches the target first, in each unit."""
        summary, goal = self.summary(), self.goal
        firsts = []
        for unit in ("epochs", "updates", "seconds"):
            values = summary[f"{unit} to {goal}"]
            least = min(values)
            if not math.isfinite(least):
                return f"No batch size reaches a validation accuracy of {goal}."
            winners = [s for s, v in zip(summary["batch size"], values, strict=True) if v == least]
            firsts.append(f"{series(winners)} in {unit} ({least:.3g})")
        return f"The batch size that first reaches a validation accuracy of {goal} is " + (
            f"{series(firsts)}."
        )

    def _variance(self) -> list[str]:
        sizes = self.variances.batch_sizes
        if not sizes:
            return []
        ratio = self.variances.measured / self.variances.expected
        return [
            f"The variance of a batch's gradient falls as 1/B: times the batch size, for {sizes[0]}"
            f" to {sizes[-1]}, it is {ratio.min():.2f} to {ratio.max():.2f} times that of one "
            "sample's gradient."
        ]

    def _noise(self) -> str:
        before, first, last = (f"{self.noise_scale[epoch]:,.0f}" for epoch in (0, 1, -1))
        if math.isnan(self.noise_scale[1]):
            return (
                f"The gradient noise scale is {before} samples before training, which suggests "
                f"batches of about {self.suggested}; after the first epoch there is none, for with "
                "some of the batch sizes nothing is left to learn."
            )
        if math.isnan(self.noise_scale[-1]):
            last = "not defined"
        return (
            f"The gradient noise scale is {before} samples before training, {first} after the "
            f"first epoch and {last} after the last (medians over the batch sizes). The first "
            f"epoch's suggests batches of about {self.suggested}."
        )

    def draw(self, say: Words) -> dict[str, Any]:
        return {
            "curves": drawing.curves(self, say),
            "noise": drawing.noise(self, say),
            "paths": self.paths.draw(say, drawing.colours(self)),
        }
