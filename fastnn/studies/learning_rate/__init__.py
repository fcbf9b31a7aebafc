"""The learning rate: too small, right, too large, and a test that finds one.

On the parabola L x^2 / 2 a step of gradient descent multiplies x by 1 - rate L, so that it comes
nearer to the minimum for rates below 2 / L only. On data nobody knows L: the study trains one
network with rates of every size, and finds one by a range test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ... import checks
from ...cli_data import Parts
from ...history import History
from ...model import Sequential
from ...optim import SGD
from ...perceptron import network
from ...words import Words
from ..results import Results, Table
from ..samples import parts_of, with_first
from ..sweeps import sweep
from ..wording import series
from . import drawing
from .parabola import RATES_BY_CURVATURE, STEPS, on_parabola
from .range_test import SHARE, RangeTest, range_test

RATES = (0.001, 0.01, 0.1, 1.0, 3.0, 10.0)
"""What the network is trained with."""

_STILL_RIGHT = 2.0
"""A rate counts as right whose validation loss is at most so many times the least."""


def study(
    data: Any = None,
    *,
    seed: int = 0,
    rows: int = 2000,
    epochs: int = 10,
    range_updates: int = 200,
    batch_size: int = 32,
    width: int = 32,
) -> LearningRate:
    """Train one network with rates of every size, and with the one that a range test suggests.

    Parameters
    ----------
    data : pair of arrays (X, y) or Parts, optional
        Samples and class numbers; the embedded digits by default.
    seed : int, default 0
    rows : int, default 2000
        The most samples to train on.
    epochs : int, default 10
        Of each training.
    range_updates : int, default 200
        Of the range test, about.
    batch_size : int, default 32
    width : int, default 32
        Of the one hidden layer.

    Returns
    -------
    LearningRate

    Raises
    ------
    ValueError, TypeError
        For data or sizes that do not fit.

    Examples
    --------
    >>> results = study(epochs=2)
    >>> results.runs[-1].rate, results.verdict(results.runs[-1])
    (10.0, 'diverged')
    """
    checks.positive_ints(
        epochs=epochs, range_updates=range_updates, batch_size=batch_size, width=width
    )
    parts = with_first(parts_of(data, seed), rows)

    def fresh() -> Sequential:
        return network(parts, [width], seed=seed)

    tested = range_test(
        fresh(), *parts.train, updates=range_updates, batch_size=batch_size, seed=seed
    )
    rates = [*RATES, tested.suggestion]
    models = [fresh() for _ in rates]
    histories = sweep(
        models,
        parts,
        optimizers=[SGD(rate) for rate in rates],
        seeds=seed,
        epochs=epochs,
        batch_size=batch_size,
        history="update",
    )
    *runs, suggested = (
        _run(rate, model, history, parts)
        for rate, model, history in zip(rates, models, histories, strict=True)
    )
    return LearningRate(on_parabola(), runs, tested, suggested)


@dataclass(frozen=True)
class Run:
    """A training at one rate.

    Attributes
    ----------
    rate : float
    losses : ndarray (U,)
        Of every update, the one that was not finite included.
    training_loss : float
        The mean over the last epoch; infinite where the training diverged.
    validation_loss, validation_accuracy : float
        With the weights that the training left.
    diverged_at : int or None
        The update whose loss was not finite, from 1.
    keeps_finite_weights : bool
        Whether all weights that the training left are finite.
    """

    rate: float
    losses: np.ndarray
    training_loss: float
    validation_loss: float
    validation_accuracy: float
    diverged_at: int | None
    keeps_finite_weights: bool


@dataclass(frozen=True)
class LearningRate(Results):
    """What different learning rates did.

    Attributes
    ----------
    parabola : ndarray (R, steps + 1)
        x after each step, from 1, for each of ``RATES_BY_CURVATURE``.
    runs : list of Run
        With each of ``RATES``.
    tested : RangeTest
    suggested : Run
        With the rate that the range test suggests.
    """

    name: ClassVar[str] = "learning-rate"

    parabola: np.ndarray
    runs: list[Run]
    tested: RangeTest
    suggested: Run

    @property
    def best(self) -> Run:
        """The one of ``runs`` with the least validation loss."""
        return min(self.runs, key=_judged_by)

    def verdict(self, run: Run) -> str:
        """What a run's rate was: "too small", "right", "too large" or "diverged"."""
        if run.diverged_at is not None:
            return "diverged"
        if run.validation_loss <= _STILL_RIGHT * self.best.validation_loss:
            return "right"
        return "too small" if run.rate < self.best.rate else "too large"

    def summary(self) -> Table:
        runs = [*self.runs, self.suggested]
        return Table(
            {
                "chosen by": ["hand"] * len(self.runs) + ["range test"],
                "learning rate": [run.rate for run in runs],
                "verdict": [self.verdict(run) for run in runs],
                "training loss": [run.training_loss for run in runs],
                "validation loss": [run.validation_loss for run in runs],
                "validation accuracy": [run.validation_accuracy for run in runs],
                "diverged at update": [run.diverged_at or "never" for run in runs],
            }
        )

    def tables(self) -> dict[str, Table]:
        updates = [(r.rate, t, loss) for r in self.runs for t, loss in enumerate(r.losses, 1)]
        steps = [
            (rate, step, x)
            for rate, way in zip(RATES_BY_CURVATURE, self.parabola, strict=True)
            for step, x in enumerate(way)
        ]
        return {
            "rates": self.summary(),
            "updates": Table.of_rows(("learning rate", "update", "loss"), updates),
            "range": self.tested.table(),
            "parabola": Table.of_rows(("rate times curvature", "step", "x"), steps),
        }

    def findings(self) -> list[str]:
        return [
            self._finding_on_parabola(),
            *self._findings_on_rates(),
            self._finding_of_divergence(),
            self._finding_of_range_test(),
        ]

    def _finding_on_parabola(self) -> str:
        ends = ", ".join(
            f"{rate:g} / L: {abs(x):.3g}"
            for rate, x in zip(RATES_BY_CURVATURE, self.parabola[:, -1], strict=True)
        )
        return (
            f"On a parabola of curvature L, {STEPS} steps from x = 1 end at this distance from the "
            f"minimum, by rate: {ends}. It shrinks below 2 / L, and grows beyond."
        )

    def _findings_on_rates(self) -> list[str]:
        best = self.best
        found = [
            f"The learning rate {best.rate:g} is best of {len(self.runs)}: {_outcome(best)} "
            f"after {len(best.losses)} updates."
        ]
        for verdict in ("too small", "too large"):
            run = next((run for run in self.runs if self.verdict(run) == verdict), None)
            if run is not None:
                found.append(f"{run.rate:g} is {verdict}: {_outcome(run)} after as many.")
        return found

    def _finding_of_divergence(self) -> str:
        diverged = [run for run in self.runs if run.diverged_at is not None]
        if not diverged:
            return "At none of the rates did the loss stop being finite."
        ends = series([f"{run.rate:g} at update {run.diverged_at}" for run in diverged])
        kept = "finite" if all(run.keeps_finite_weights for run in diverged) else "not finite"
        return (
            f"The loss stopped being finite with the learning rate {ends}; training ended there, "
            f"and the weights that are kept, those from before that update, are {kept}."
        )

    def _finding_of_range_test(self) -> str:
        tested, run = self.tested, self.suggested
        end = "ended with a DivergedError" if tested.diverged else "came to its end"
        return (
            f"The range test {end} after {len(tested.rates)} updates with a finite loss. Its "
            f"smoothed loss was least at {tested.least_at:.3g}. It suggests {SHARE:g} times that, "
            f"{run.rate:.3g}: {run.validation_accuracy:.1%} of the validation rows are right "
            f"then, and {self.best.validation_accuracy:.1%} with the best of the other rates."
        )

    def draw(self, say: Words) -> dict[str, Any]:
        return {
            "parabola": drawing.parabola(self, say),
            "curves": drawing.curves(self, say),
            "range": drawing.range_test(self, say),
        }


def _run(rate: float, model: Sequential, history: History, parts: Parts) -> Run:
    validated = model.evaluate(*parts.validation)
    losses = np.array(history.updates["loss"])
    diverged = history.diverged is not None
    return Run(
        rate,
        losses,
        np.inf if diverged else history["loss"][-1],
        validated["loss"],
        validated["accuracy"],
        len(losses) if diverged else None,
        all(np.isfinite(array).all() for array in model.arrays().values()),
    )


def _outcome(run: Run) -> str:
    return (
        f"training loss {run.training_loss:.3g}, validation loss {run.validation_loss:.3g} and "
        f"{run.validation_accuracy:.1%} of the validation rows right"
    )


def _judged_by(run: Run) -> float:
    is_good = run.diverged_at is None and np.isfinite(run.validation_loss)
    return run.validation_loss if is_good else np.inf
