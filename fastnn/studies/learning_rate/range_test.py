"""The range test: one short run in which the learning rate rises from far too small to too large.

Source: Smith, 2015, "Cyclical learning rates for training neural networks", arXiv:1506.01186,
section 3.3. There the rate rises by equal steps, here by equal factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ... import checks
from ...model import Sequential
from ...optim import SGD
from ...schedules import Schedule
from ...steps import DivergedError
from ..results import Table

FIRST, LAST = 1e-4, 100.0
"""The rates from which to which it goes."""

SHARE = 0.1
"""What it suggests, of the rate at which the smoothed loss is least."""


@dataclass(frozen=True)
class Rising(Schedule):
    """rate = base * (last / base) ** (t / (T - 1)), T = updates; later the last rate.

    Parameters
    ----------
    last : float
        The rate at the end.
    updates : int
        T, at least 2.

    >>> Rising(last=10.0, updates=3).rates(0.1, first_update=0, count=3, updates_per_epoch=1)
    array([ 0.1,  1. , 10. ])
    """

    last: float
    updates: int

    def __post_init__(self) -> None:
        checks.number("last", self.last, above=0)
        checks.integer("updates", self.updates, at_least=2)

    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        progress = (first_update + np.arange(count)) / (self.updates - 1)
        return base * (self.last / base) ** np.minimum(progress, 1.0)


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw.

    Attributes
    ----------
    rates, losses : ndarray (U,)
        Of every update, as long as the loss was finite.
    diverged : str or None
        What :class:`fastnn.DivergedError` said, where it ended the run.
    """

    rates: np.ndarray
    losses: np.ndarray
    diverged: str | None

    @property
    def smoothed(self) -> np.ndarray:
        """The losses, each averaged with those before it."""
        return smoothed(self.losses)

    @property
    def least_at(self) -> float:
        """The rate at which the smoothed loss is least."""
        return float(self.rates[self.smoothed.argmin()])

    @property
    def suggestion(self) -> float:
        """A rate to train with."""
        return SHARE * self.least_at

    def table(self) -> Table:
        """All of it."""
        return Table(
            {
                "update": range(1, len(self.rates) + 1),
                "learning rate": self.rates,
                "loss": self.losses,
                "smoothed loss": self.smoothed,
            }
        )


def range_test(
    model: Sequential,
    X: np.ndarray,
    y: np.ndarray,
    *,
    updates: int = 200,
    batch_size: int = 32,
    seed: int = 0,
) -> RangeTest:
    """Train a network, which is spoilt by it, at rates that rise until the loss is not finite.

    Parameters
    ----------
    model : Sequential
    X, y : array
    updates : int, default 200
        About how many; whole epochs are made, at least one.
    batch_size : int, default 32
    seed : int, default 0
        Of the shuffles.

    Examples
    --------
    >>> from fastnn import Linear, ReLU, Sequential, data
    >>> X, y = data.digits()
    >>> model = Sequential(Linear(64, 32), ReLU(), Linear(32, 10), seed=0)
    >>> tested = range_test(model, X, y)
    >>> 0.01 < tested.suggestion < tested.least_at < 10.0
    True
    """
    steps = -(-len(X) // batch_size)
    epochs = max(1, round(updates / steps))
    diverged = None
    try:
        model.fit(
            X,
            y,
            optimizer=SGD(FIRST),
            schedule=Rising(LAST, max(2, epochs * steps)),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            history="update",
            progress=False,
        )
    except DivergedError as error:
        diverged = str(error)
    assert model.history is not None  # since fit began
    seen = model.history.updates
    losses, rates = np.array(seen["loss"]), np.array(seen["lr"])
    finite = np.isfinite(losses)
    return RangeTest(rates[finite], losses[finite], diverged)


def smoothed(losses: np.ndarray, keep: float = 0.9) -> np.ndarray:
    """A running average, without the bias to its start at zero (as in Adam).

    >>> smoothed(np.array([2.0, 2.0, 2.0])).round(12)
    array([2., 2., 2.])
    """
    averages, average = np.empty(len(losses)), 0.0
    for t, loss in enumerate(losses):
        average = keep * average + (1.0 - keep) * float(loss)
        averages[t] = average / (1.0 - keep ** (t + 1))
    return averages
