"""Early stopping: when a training no longer improves, and which weights were its best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks
from . import metrics as metric_functions

if TYPE_CHECKING:
    from .model import Sequential

_BEST = "best "
"""Before the names of the best weights, among a checkpoint's tensors."""


@dataclass
class EarlyStopping:
    """Stops when a value has not improved for a while, and brings the best weights back.

    Parameters
    ----------
    patience : int, default 10
        Epochs without improvement.
    monitor : str, optional
        A name of the history; by default "val_loss" where there is one, else "loss".
    min_delta : float, default 0
        What counts as an improvement, in the unit of what is monitored.
    restore_best : bool, default True

    Raises
    ------
    ValueError, TypeError
        For a patience below 1, or a negative ``min_delta``.

    Notes
    -----
    Prechelt, "Early stopping - but when?", 1998.

    Examples
    --------
    >>> EarlyStopping(patience=3, monitor="val_accuracy").min_delta
    0.0
    """

    patience: int = 10
    monitor: str | None = None
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        checks.positive_int("patience", self.patience)
        if not (self.monitor is None or isinstance(self.monitor, str)):
            raise TypeError(f"monitor is {self.monitor!r}; expected a name of the history or None")
        checks.number("min_delta", self.min_delta, at_least=0.0)
        checks.boolean("restore_best", self.restore_best)


class Watch:
    """Early stopping at work in one training.

    Parameters
    ----------
    early_stopping : EarlyStopping, int or None
        A number is the patience; None never stops.
    validates : bool
        Whether the history has "val_loss".

    Attributes
    ----------
    monitor : str or None
        What is watched.
    best : dict of str to ndarray
        Copies of the weights at the best value so far, where they are to be restored.
    """

    def __init__(self, early_stopping: EarlyStopping | int | None, validates: bool) -> None:
        if isinstance(early_stopping, bool) or not (
            early_stopping is None or isinstance(early_stopping, (int, EarlyStopping))
        ):
            raise TypeError(
                f"early_stopping is {early_stopping!r}; expected fastnn.EarlyStopping, a patience "
                "or None"
            )
        if isinstance(early_stopping, int):
            early_stopping = EarlyStopping(early_stopping)
        self.settings = early_stopping
        self.monitor: str | None = None
        self._sign = 1.0
        if early_stopping is not None:
            self.monitor = early_stopping.monitor or ("val_loss" if validates else "loss")
            self._sign = -1.0 if metric_functions.larger_is_better(self.monitor) else 1.0
        self.best: dict[str, np.ndarray] = {}
        self.best_value, self.best_epoch, self.waited = math.nan, -1, 0

    @property
    def done(self) -> bool:
        """Whether patience has run out."""
        return self.settings is not None and self.waited >= self.settings.patience

    def see(self, epoch: int, logs: Mapping[str, float], model: Sequential) -> None:
        """Take an epoch's value into account."""
        if self.settings is None or self.monitor is None:
            return
        value = logs[self.monitor]
        gain = self._sign * (self.best_value - value)
        if self.best_epoch < 0 or gain > self.settings.min_delta:
            self.best_value, self.best_epoch, self.waited = value, epoch, 0
            if self.settings.restore_best:
                self.best = {name: array.copy() for name, array in model.arrays().items()}
        else:
            self.waited += 1

    def restore(self, model: Sequential) -> None:
        """Give the model the best weights."""
        for name, array in model.arrays().items():
            if name in self.best:
                array[...] = self.best[name]

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Tensors and metadata that a checkpoint keeps."""
        tensors = {_BEST + name: array for name, array in self.best.items()}
        return tensors, {
            "value": self.best_value.hex(),
            "epoch": self.best_epoch,
            "waited": self.waited,
        }

    def load(self, tensors: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave; other tensors are passed over."""
        self.best_value = float.fromhex(state["value"])
        self.best_epoch, self.waited = state["epoch"], state["waited"]
        self.best = {
            name.removeprefix(_BEST): array
            for name, array in tensors.items()
            if name.startswith(_BEST)
        }
