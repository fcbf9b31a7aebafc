"""What several trainings measured, as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..history import History


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
