"""Schedules: the learning rate of every update, as an array that goes into the compiled call.

Updates are numbered from 0 over the whole training, and ``t`` below is that number; an epoch is
``t // updates_per_epoch``. Schedules are immutable, except `ReduceOnPlateau`, which is told after
every epoch how training goes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from . import checks, metrics


class Schedule(ABC):
    """What every schedule can do; all but ``rates`` does nothing unless a schedule has state.

    >>> class Halves(Schedule):
    ...     def rates(self, base, first_update, count, updates_per_epoch):
    ...         return base * 0.5 ** np.arange(first_update, first_update + count)
    >>> Halves().rates(1.0, 0, 3, 1)
    array([1.  , 0.5 , 0.25])
    """

    @property
    def monitor(self) -> str | None:
        """The name in the history of the value that `observe` wants; None for no value."""
        return None

    @abstractmethod
    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        """The learning rates of consecutive updates.

        Parameters
        ----------
        base : float
            The optimizer's learning rate.
        first_update : int
            The number of the first update, from 0.
        count : int
            How many updates.
        updates_per_epoch : int
            How many updates make an epoch.

        Returns
        -------
        ndarray, shape (count,), float64
        """

    def observe(self, value: float) -> None:  # noqa: B027 - most schedules have no state
        """Take in the monitored value at the end of an epoch."""

    def reset(self) -> None:  # noqa: B027 - most schedules have no state
        """Forget everything observed."""

    def state_dict(self) -> dict[str, Any]:
        """Everything observed, as values that JSON can hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises
        ------
        ValueError
            Not a state of this schedule; nothing has changed then.
        """
        _check_keys(state, ())


@dataclass(frozen=True)
class Constant(Schedule):
    """rate = base.

    >>> Constant().rates(0.1, first_update=0, count=2, updates_per_epoch=1)
    array([0.1, 0.1])
    """

    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        return np.full(count, base, np.float64)


@dataclass(frozen=True)
class Step(Schedule):
    """rate = base * factor ** (epoch // every_epochs).

    Parameters
    ----------
    every_epochs : int
        Epochs from one step to the next.
    factor : float, default 0.1
        What each step multiplies the rate by, above 0.

    >>> Step(every_epochs=1, factor=0.5).rates(0.1, first_update=0, count=4, updates_per_epoch=2)
    array([0.1 , 0.1 , 0.05, 0.05])
    """

    every_epochs: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        checks.positive_int("every_epochs", self.every_epochs)
        checks.number("factor", self.factor, above=0)

    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        epochs = _updates(first_update, count) // updates_per_epoch
        return base * self.factor ** (epochs // self.every_epochs)


@dataclass(frozen=True)
class Exponential(Schedule):
    """rate = base * factor ** epoch.

    Parameters
    ----------
    factor : float, default 0.95
        What each epoch multiplies the rate by, above 0.

    >>> Exponential(0.5).rates(0.1, first_update=0, count=3, updates_per_epoch=1)
    array([0.1  , 0.05 , 0.025])
    """

    factor: float = 0.95

    def __post_init__(self) -> None:
        checks.number("factor", self.factor, above=0)

    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        return base * self.factor ** (_updates(first_update, count) // updates_per_epoch)


@dataclass(frozen=True)
class InverseTime(Schedule):
    """rate = base / (1 + decay * t), t in updates.

    Source: Robbins and Monro, 1951, "A stochastic approximation method": steps whose sum diverges
    while that of their squares does not.

    Parameters
    ----------
    decay : float, default 1e-3
        How fast, per update, at least 0.

    >>> InverseTime(1.0).rates(0.1, first_update=0, count=2, updates_per_epoch=1)
    array([0.1 , 0.05])
    """

    decay: float = 1e-3

    def __post_init__(self) -> None:
        checks.number("decay", self.decay, at_least=0)

    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        return base / (1 + self.decay * _updates(first_update, count))


@dataclass(frozen=True)
class Cosine(Schedule):
    """rate = minimum + (base - minimum) * (1 + cos(pi * t / T)) / 2, T = epochs in updates.

    From T on the rate stays at the minimum. Source: Loshchilov and Hutter, 2017, "SGDR: stochastic
    gradient descent with warm restarts", equation 5, without restarts.

    Parameters
    ----------
    epochs : float
        How long the descent takes, above 0; normally the epochs of the training.
    minimum : float, default 0
        The last learning rate, at most the optimizer's.

    >>> Cosine(epochs=2).rates(0.1, first_update=0, count=3, updates_per_epoch=1)
    array([0.1 , 0.05, 0.  ])
    """

    epochs: float
    minimum: float = 0.0

    def __post_init__(self) -> None:
        checks.number("epochs", self.epochs, above=0)
        checks.number("minimum", self.minimum, at_least=0)

    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        _check_minimum(self.minimum, base)
        progress = _updates(first_update, count) / (self.epochs * updates_per_epoch)
        descent = (1 + np.cos(np.pi * np.minimum(progress, 1))) / 2
        return self.minimum + (base - self.minimum) * descent


@dataclass(frozen=True)
class Warmup(Schedule):
    """rate = base * (t + 1) / W for the first W updates, then another schedule from its start.

    Source: Goyal et al., 2017, "Accurate, large minibatch SGD", section 2.2, gradual warm-up.

    Parameters
    ----------
    epochs : float, default None
        W in epochs, above 0; rounded to whole updates, at least one.
    updates : int, default None
        W in updates. One of `epochs` and `updates` is given.
    then : Schedule, default Constant()
        What follows; its update 0 is the first after the warm-up.

    >>> Warmup(updates=2).rates(0.1, first_update=0, count=3, updates_per_epoch=1)
    array([0.05, 0.1 , 0.1 ])
    """

    epochs: float | None = None
    _: KW_ONLY
    updates: int | None = None
    then: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.updates is None):
            raise ValueError(
                "one of epochs and updates must be given,"
                f" got epochs={self.epochs!r} and updates={self.updates!r}"
            )
        if self.epochs is not None:
            checks.number("epochs", self.epochs, above=0)
        else:
            checks.positive_int("updates", self.updates)
        if not isinstance(self.then, Schedule):
            raise TypeError(f"then must be a Schedule, got {self.then!r}")

    @property
    def monitor(self) -> str | None:
        return self.then.monitor

    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        length = self._length(updates_per_epoch)
        rising = min(max(length - first_update, 0), count)
        start = max(first_update - length, 0)
        return np.concatenate(
            [
                base * (_updates(first_update, rising) + 1) / length,
                self.then.rates(base, start, count - rising, updates_per_epoch),
            ]
        )

    def _length(self, updates_per_epoch: int) -> int:
        if self.updates is not None:
            return self.updates
        assert self.epochs is not None
        return max(1, round(self.epochs * updates_per_epoch))

    def observe(self, value: float) -> None:
        self.then.observe(value)

    def reset(self) -> None:
        self.then.reset()

    def state_dict(self) -> dict[str, Any]:
        return self.then.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.then.load_state_dict(state)


@dataclass
class ReduceOnPlateau(Schedule):
    """rate = max(base * factor ** reductions, minimum), reduced when a value stops improving.

    A value improves when it beats the best so far by `threshold` times the best's magnitude; NaN
    and infinities never do. The arithmetic is that of PyTorch's scheduler of the same name.

    Parameters
    ----------
    factor : float, default 0.1
        What a reduction multiplies the rate by, between 0 and 1.
    patience : int, default 10
        How many epochs in a row without improvement pass unpunished; the next one reduces.
    threshold : float, default 1e-4
        The smallest relative improvement that counts.
    minimum : float, default 0
        The lowest learning rate, at most the optimizer's.
    monitor : str, default "val_loss"
        The name in the history of the value to watch.
    mode : "min" or "max", default None
        Whether smaller or larger is better; None takes it from the monitor's name.

    >>> schedule = ReduceOnPlateau(factor=0.5, patience=0)
    >>> for val_loss in (1.0, 0.8, 0.9):
    ...     schedule.observe(val_loss)
    >>> schedule.rates(0.1, first_update=3, count=1, updates_per_epoch=1)
    array([0.05])
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    minimum: float = 0.0
    monitor: str = "val_loss"
    mode: str | None = None
    _best: float | None = field(default=None, init=False, repr=False, compare=False)
    _epochs_without: int = field(default=0, init=False, repr=False, compare=False)
    _reductions: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.number("factor", self.factor, above=0, below=1)
        checks.integer("patience", self.patience, at_least=0)
        checks.number("threshold", self.threshold, at_least=0)
        checks.number("minimum", self.minimum, at_least=0)
        if self.mode is None:
            self.mode = "max" if metrics.larger_is_better(self.monitor) else "min"
        elif self.mode not in ("min", "max"):
            raise checks.unknown_name("mode", self.mode, ("min", "max"))

    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        _check_minimum(self.minimum, base)
        return np.full(count, max(base * self.factor**self._reductions, self.minimum))

    def observe(self, value: float) -> None:
        if self._improves(value):
            self._best, self._epochs_without = float(value), 0
        else:
            self._epochs_without += 1
        if self._epochs_without > self.patience:
            self._reductions += 1
            self._epochs_without = 0

    def _improves(self, value: float) -> bool:
        if self._best is None or not np.isfinite(value):
            return bool(np.isfinite(value))
        gain = self._best - value if self.mode == "min" else value - self._best
        return bool(gain > self.threshold * abs(self._best))

    def reset(self) -> None:
        self._best, self._epochs_without, self._reductions = None, 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self._best,
            "epochs_without": self._epochs_without,
            "reductions": self._reductions,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _check_keys(state, ("best", "epochs_without", "reductions"))
        best = None if state["best"] is None else checks.number("best", state["best"])
        epochs_without = checks.integer("epochs_without", state["epochs_without"], at_least=0)
        reductions = checks.integer("reductions", state["reductions"], at_least=0)
        self._best, self._epochs_without, self._reductions = best, epochs_without, reductions


@dataclass(frozen=True)
class ByEpoch(Schedule):
    """rate = function(epoch), whatever the optimizer's learning rate.

    Parameters
    ----------
    function : callable
        Takes the epoch's number, from 0, and gives its learning rate.

    >>> ByEpoch(lambda epoch: 0.1 / (epoch + 1)).rates(1.0, 0, count=2, updates_per_epoch=1)
    array([0.1 , 0.05])
    """

    function: Callable[[int], float]

    def rates(
        self, base: float, first_update: int, count: int, updates_per_epoch: int
    ) -> np.ndarray:
        epochs = np.arange(first_update, first_update + count) // updates_per_epoch
        distinct, position = np.unique(epochs, return_inverse=True)
        values = [
            checks.number(f"the schedule's rate for epoch {epoch}", rate, at_least=0)
            for epoch, rate in ((int(epoch), self.function(int(epoch))) for epoch in distinct)
        ]
        return np.array(values, np.float64)[position]


BY_NAME: dict[str, Callable[[float], Schedule]] = {
    "constant": lambda epochs: Constant(),
    "step": lambda epochs: Step(every_epochs=max(1, round(epochs / 3))),
    "exponential": lambda epochs: Exponential(),
    "inverse_time": lambda epochs: InverseTime(),
    "cosine": lambda epochs: Cosine(epochs),
    "warmup": lambda epochs: Warmup(epochs / 10),
    "warmup_cosine": lambda epochs: Warmup(epochs / 10, then=Cosine(epochs * 9 / 10)),
    "reduce_on_plateau": lambda epochs: ReduceOnPlateau(),
}


def as_schedule(
    schedule: Schedule | str | Callable[[int], float] | None, epochs: float
) -> Schedule:
    """The schedule that is meant.

    Parameters
    ----------
    schedule : Schedule, str, callable or None
        A schedule, a name in `BY_NAME`, a function from the epoch's number (from 0) to its
        learning rate, or None for a constant rate.
    epochs : float
        How long the training will be: what a name's schedule is fitted to.

    Raises
    ------
    ValueError
        An unknown name; the message lists near matches.
    TypeError
        None of those.

    >>> as_schedule("cosine", epochs=20)
    Cosine(epochs=20, minimum=0.0)
    """
    if schedule is None:
        return Constant()
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str):
        return checks.lookup("schedule", schedule, BY_NAME)(epochs)
    if callable(schedule) and not isinstance(schedule, type):
        return ByEpoch(schedule)
    raise TypeError(
        "schedule must be a Schedule, a name, a function from epoch to rate or None,"
        f" got {schedule!r}"
    )


def _updates(first_update: int, count: int) -> np.ndarray:
    return np.arange(first_update, first_update + count, dtype=np.float64)


def _check_minimum(minimum: float, base: float) -> None:
    if not minimum <= base:
        raise ValueError(
            f"the schedule's minimum must be at most the learning rate, {base}, got {minimum}"
        )


def _check_keys(state: Mapping[str, Any], expected: tuple[str, ...]) -> None:
    if set(state) != set(expected):
        raise ValueError(
            f"a schedule's state must have the keys {sorted(expected)}, got {sorted(state)}"
        )
