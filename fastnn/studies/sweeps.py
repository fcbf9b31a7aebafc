"""Trainings at several settings, at some of which the loss may diverge."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..cli_data import Parts
from ..history import History
from ..many import fit_many
from ..model import Sequential


def sweep(models: Sequence[Sequential], parts: Parts, **settings: Any) -> list[History]:
    """Train networks on the training part; of those that diverge only their histories tell.

    Parameters
    ----------
    models : sequence of Sequential
    parts : Parts
    **settings
        As :func:`fastnn.fit_many` takes them.

    Returns
    -------
    list of History
        In the order of ``models``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return fit_many(models, *parts.train, progress=False, **settings)


def by_epoch(
    histories: Sequence[History], name: str, epochs: int, missing: float = np.inf
) -> np.ndarray:
    """One quantity of several histories.

    Parameters
    ----------
    histories : sequence of History
    name : str
        Such as "val_loss".
    epochs : int
        How many the trainings were to have.
    missing : float, default infinity
        What stands for epochs that a training which diverged did not come to, and for NaN.

    Returns
    -------
    ndarray (len(histories), epochs)

    Examples
    --------
    >>> finished, diverged = History(), History()
    >>> finished.add_epochs({"loss": [0.5, 0.25]})
    >>> by_epoch([finished, diverged], "loss", 2)
    array([[0.5 , 0.25],
           [ inf,  inf]])
    """
    values = np.full((len(histories), epochs), missing)
    for row, history in zip(values, histories, strict=True):
        row[: history.epochs] = history.get(name, [])
    return np.where(np.isnan(values), missing, values)
