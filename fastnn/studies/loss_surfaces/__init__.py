"""Why stochastic, mini-batch and full-batch descent behave so differently.

Each sample has a loss surface of its own, and an update on it goes down that one: a linear unit
with two weights shows it. On a network, an update on each of some samples shows what becomes of the
loss of the others. And on a loss with several minima, a mean over samples, descent from many starts
shows who gets out of the wrong ones: at the same learning rates and by the same number of updates,
so that stochastic descent reads fewer samples than the others do. Momentum of 0.9 makes a step up
to ten times as long as the rate says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ... import checks, figures
from ...words import Words
from .. import drawing
from ..results import Results, Table
from ..samples import parts_of, with_first
from ..two_weights import TwoWeights, two_weights
from . import responses
from .escape import Escape, escape
from .responses import Responses


def study(
    data: Any = None,
    *,
    seed: int = 0,
    rows: int = 1000,
    hidden: int = 32,
    per_class: int = 20,
    epochs: int = 2,
    learning_rate: float = 0.02,
    samples: int = 30,
    starts: int = 200,
    updates: int = 500,
    batch_sizes: Sequence[int] = (1, 5),
    momentum: float = 0.9,
    learning_rates: Sequence[float] = (0.025, 0.05, 0.1, 0.2, 0.4),
) -> LossSurfaces:
    """Look at the losses of single samples, and at who escapes a local minimum.

    Parameters
    ----------
    data : pair of arrays (X, y) or Parts, optional
        For the surfaces and the network; the embedded digits by default.
    seed : int, default 0
    rows : int, default 1000
        The most samples of the data to use.
    hidden : int, default 32
        Width of the network's hidden layer.
    per_class : int, default 20
        Samples of each class that the network is updated on, one at a time.
    epochs : int, default 2
        Of stochastic descent, after which that is done again.
    learning_rate : float, default 0.02
        Of that descent and of those updates.
    samples : int, default 30
        Generated samples, the mean of whose losses has several minima.
    starts : int, default 200
        Of descents on it.
    updates : int, default 500
        Of each of them.
    batch_sizes : sequence of int, default (1, 5)
        Samples drawn for an update, those below ``samples``; the full batch is added.
    momentum : float, default 0.9
        Beside none.
    learning_rates : sequence of float, default (0.025, 0.05, 0.1, 0.2, 0.4)
        Of those descents.

    Returns
    -------
    LossSurfaces

    Raises
    ------
    ValueError, TypeError
        For data or sizes that do not fit.

    Examples
    --------
    >>> result = study(rows=100, per_class=1, starts=4, updates=2, learning_rates=(0.1,))
    >>> result.summary()["batch size"]
    [1, 5, 30, 1, 5, 30]
    """
    checks.positive_ints(
        hidden=hidden,
        per_class=per_class,
        epochs=epochs,
        samples=samples,
        starts=starts,
        updates=updates,
    )
    checks.number("learning_rate", learning_rate, above=0.0)
    parts = with_first(parts_of(data, seed), rows)
    return LossSurfaces(
        _pair(two_weights(parts)),
        responses.responses(
            parts,
            hidden=hidden,
            per_class=per_class,
            epochs=epochs,
            learning_rate=learning_rate,
            seed=seed,
        ),
        escape(
            samples=samples,
            starts=starts,
            updates=updates,
            batch_sizes=batch_sizes,
            momentum=momentum,
            learning_rates=learning_rates,
            seed=seed,
        ),
    )


@dataclass(frozen=True)
class Pair:
    """An update of a unit with two weights on one sample, A, from the minimum of all samples' loss.

    Attributes
    ----------
    unit : TwoWeights
    a, b : int
        Rows of the samples: A is that with the steepest loss there, B that whose loss the update
        raises most.
    updated : ndarray (2,)
        The weights after it.
    """

    unit: TwoWeights
    a: int
    b: int
    updated: np.ndarray

    def losses(self, weights: np.ndarray) -> list[float]:
        """Of A, of B and of all samples."""
        return [float(self.unit.loss(weights, rows)) for rows in ([self.a], [self.b], None)]


def _pair(unit: TwoWeights) -> Pair:
    begin, every = unit.minimum, np.arange(len(unit.targets))[:, np.newaxis]
    slopes = unit.gradient(np.broadcast_to(begin, (len(every), 2)), every)
    a = int((slopes**2).sum(axis=1).argmax())
    updated = begin - unit.safe_rate * slopes[a]
    change = [unit.loss(updated, row) - unit.loss(begin, row) for row in every]
    return Pair(unit, a, int(np.argmax(change)), updated)


@dataclass(frozen=True)
class LossSurfaces(Results):
    """What the study of loss surfaces measured.

    Attributes
    ----------
    pair : Pair
    responses : list of Responses
        Before training and after some of it.
    escape : Escape
    """

    name: ClassVar[str] = "loss-surfaces"
    pair: Pair
    responses: list[Responses]
    escape: Escape

    def tables(self) -> dict[str, Table]:
        before, after = (self.pair.losses(w) for w in (self.pair.unit.minimum, self.pair.updated))
        return {
            "surfaces": Table(
                {"loss of": ["A", "B", "all"], "before": before, "after an update on A": after}
            ),
            "updates": responses.table(self.responses),
            "escape": self.escape.table(),
        }

    def summary(self) -> Table:
        """The share of starts that reach the global minimum, at each descent's best rate."""
        kinds, escape = list(self.escape.shares), self.escape
        return Table(
            {
                "batch size": [size for _, size in kinds],
                "momentum": [momentum for momentum, _ in kinds],
                "begun there": [escape.begun for _ in kinds],
                f"share at rate {escape.shown_rate:g}": [escape.shown(*kind) for kind in kinds],
                "share at the best rate": [escape.best(*kind) for kind in kinds],
            }
        )

    def findings(self) -> list[str]:
        before, after = (self.pair.losses(w) for w in (self.pair.unit.minimum, self.pair.updated))
        return [
            "Where all samples' loss is least, single samples still pull. An update on sample A, "
            f"the one with the steepest loss there, takes its loss from {before[0]:.3f} to "
            f"{after[0]:.3f}, that of sample B from {before[1]:.3f} to {after[1]:.3f}, and that of "
            f"all from {before[2]:.3f} to {after[2]:.3f}.",
            *(one.finding() for one in self.responses),
            *self.escape.findings(),
        ]

    def draw(self, say: Words) -> dict[str, Any]:
        return {
            "surfaces": self._draw_surfaces(say),
            "updates": responses.draw(self.responses, say),
            **self.escape.draw(say),
        }

    def _draw_surfaces(self, say: Words) -> Any:
        """The same update over the loss of A, of B and of all samples."""
        pair, unit = self.pair, self.pair.unit
        figure = figures.new(10.0, 4.0)
        axes = figure.subplots(1, 3, sharex=True, sharey=True)
        way = np.stack([unit.minimum, pair.updated])
        around = np.concatenate([way, unit.minimum + np.array([[1.5, 1.5], [-1.5, -1.5]])])
        losses = zip(pair.losses(way[0]), pair.losses(way[1]), strict=True)
        names = (say("sample A"), say("sample B"), say("all samples"))
        for axis, name, (before, after), rows in zip(
            axes, names, losses, ([pair.a], [pair.b], None), strict=True
        ):
            drawing.contours(axis, *unit.surface(around, rows))
            drawing.path(axis, way, figures.COLOURS[1])
            change = say("loss {before} to {after}", before=f"{before:.2f}", after=f"{after:.2f}")
            axis.set(title=f"{name}: {change}", xlabel="$w_1$")
        axes[0].set_ylabel("$w_2$")
        figure.suptitle(say("one update on sample A, from the minimum of all samples' loss"))
        return figure
