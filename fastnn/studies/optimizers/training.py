"""The optimizers on real data, each at every rate of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...cli_data import Parts
from ...optim import OPTIMIZERS
from ...perceptron import network
from ..sweeps import by_epoch, sweep

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""The grid, the same for every optimizer."""


@dataclass(frozen=True)
class Training:
    """What one optimizer did at one rate, to several networks.

    Epochs that a training which diverged did not come to have an infinite loss and no accuracy.

    Attributes
    ----------
    optimizer : str
        In ``optim.OPTIMIZERS``.
    rate : float
    training_losses, validation_losses, validation_accuracies : ndarray (networks, epochs)
    """

    optimizer: str
    rate: float
    training_losses: np.ndarray
    validation_losses: np.ndarray
    validation_accuracies: np.ndarray

    @property
    def validation_loss(self) -> float:
        """After the last epoch, the mean over networks; infinite where one diverged."""
        return float(self.validation_losses[:, -1].mean())


def trainings(
    optimizers: Sequence[str],
    parts: Parts,
    seeds: Sequence[int],
    *,
    epochs: int,
    batch_size: int,
    width: int,
) -> list[Training]:
    """Train a network of each seed by each optimizer at each rate, all in one call."""
    grid = [(name, rate) for name in optimizers for rate in RATES]
    histories = sweep(
        [network(parts, [width], seed=seed) for _ in grid for seed in seeds],
        parts,
        optimizers=[OPTIMIZERS[name](rate) for name, rate in grid for _ in seeds],
        seeds=[seed for _ in grid for seed in seeds],
        epochs=epochs,
        batch_size=batch_size,
        validation_data=parts.validation,
    )
    found = []
    for number, (name, rate) in enumerate(grid):
        own = histories[number * len(seeds) : (number + 1) * len(seeds)]
        found.append(
            Training(
                name,
                rate,
                by_epoch(own, "loss", epochs),
                by_epoch(own, "val_loss", epochs),
                by_epoch(own, "val_accuracy", epochs, missing=0.0),
            )
        )
    return found
