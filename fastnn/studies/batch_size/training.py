"""One network trained by batches of one size or another."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...cli_data import Parts
from ...history import EpochInfo
from ...model import Sequential
from ...optim import SGD
from ...perceptron import network
from ..sweeps import by_epoch, sweep
from .noise import gradient_noise

RATES = tuple(0.005 * 2.0**power for power in range(10))
"""The learning rates to choose from, 0.005 to 2.56."""

_TIMED = 5
"""Trainings whose seconds are taken: of each epoch the fewest, which were disturbed the least."""


@dataclass(frozen=True)
class Curve:
    """A training by batches of one size; arrays have a value before it and one after each epoch.

    Attributes
    ----------
    batch_size : int
    updates_an_epoch : int
    validation_losses : list of float
        For each of ``RATES``, the mean over the epochs; infinite where training diverged.
    loss : ndarray
        Of all training samples.
    accuracy : ndarray
        Of the validation samples.
    trace : ndarray
        Sum over the weights of the variance of one sample's gradient.
    square : ndarray
        Of the length of the whole set's gradient.
    seconds : ndarray
        Of training alone, from the call of ``fit``.
    """

    batch_size: int
    updates_an_epoch: int
    validation_losses: list[float]
    loss: np.ndarray
    accuracy: np.ndarray
    trace: np.ndarray
    square: np.ndarray
    seconds: np.ndarray

    @property
    def learning_rate(self) -> float:
        """The best of ``RATES``."""
        return RATES[int(np.argmin(self.validation_losses))]

    @property
    def updates(self) -> np.ndarray:
        """How many were made by then."""
        return self.updates_an_epoch * np.arange(len(self.loss))

    @property
    def noise_scale(self) -> np.ndarray:
        """The batch size at which the gradient's noise is as long as the gradient.

        NaN where the gradient is 0, and so is that of every sample.
        """
        some = self.square > 0.0
        return np.divide(self.trace, self.square, out=np.full(len(some), np.nan), where=some)

    def epochs_to(self, accuracy: float) -> int | None:
        """The first epoch after which the validation accuracy is reached; None if there is none."""
        reached = np.flatnonzero(self.accuracy >= accuracy)
        return int(reached[0]) if len(reached) else None


class Trainer:
    """Trains a network with one hidden layer, always from the same first weights.

    Parameters
    ----------
    parts : Parts
    hidden : int
        Its width.
    epochs, seed : int
    """

    def __init__(self, parts: Parts, hidden: int, epochs: int, seed: int) -> None:
        self.parts, self.epochs, self.seed = parts, epochs, seed
        self._hidden = hidden

    def network(self) -> Sequential:
        """The network before training."""
        return network(self.parts, [self._hidden], seed=self.seed)

    def curve(self, batch_size: int) -> Curve:
        """Choose the rate, then train again to measure after each epoch, and again for the time."""
        losses = self._validation_losses(batch_size)
        rate = RATES[int(np.argmin(losses))]
        model = self.network()
        measured = [self._measure(model)]
        self._fit(model, batch_size, rate, lambda info: measured.append(self._measure(info.model)))
        loss, accuracy, trace, square = np.array(measured).T
        return Curve(
            batch_size,
            math.ceil(len(self.parts.train[0]) / batch_size),
            losses,
            loss,
            accuracy,
            trace,
            square,
            self._seconds(batch_size, rate),
        )

    def _validation_losses(self, batch_size: int) -> list[float]:
        histories = sweep(
            [self.network() for _ in RATES],
            self.parts,
            optimizers=[SGD(rate) for rate in RATES],
            batch_size=batch_size,
            validation_data=self.parts.validation,
            epochs=self.epochs,
            seeds=self.seed,
        )
        return by_epoch(histories, "val_loss", self.epochs).mean(axis=1).tolist()

    def _measure(self, model: Sequential) -> tuple[float, ...]:
        return (
            model.evaluate(*self.parts.train)["loss"],
            model.evaluate(*self.parts.validation)["accuracy"],
            *gradient_noise(model, *self.parts.train),
        )

    def _seconds(self, batch_size: int, rate: float) -> np.ndarray:
        """Since the beginning, for before it and after each epoch."""

        def stamps() -> list[float]:
            model, read = self.network(), [time.perf_counter()]
            self._fit(model, batch_size, rate, lambda _: read.append(time.perf_counter()))
            return read

        epochs = [np.diff(stamps()) for _ in range(_TIMED)]
        return np.cumsum([0.0, *np.min(epochs, axis=0)])

    def _fit(
        self,
        model: Sequential,
        batch_size: int,
        rate: float,
        callback: Callable[[EpochInfo], None],
    ) -> None:
        model.fit(
            *self.parts.train,
            optimizer=SGD(rate),
            batch_size=batch_size,
            epochs=self.epochs,
            seed=self.seed,
            callbacks=[callback],
            progress=False,
        )
