"""Descent on functions of a few variables, from many starts at once, by fastnn's optimizers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..optim import Optimizer


def descend(
    optimizer: Optimizer,
    gradient: Callable[[np.ndarray, int], np.ndarray],
    start: np.ndarray,
    steps: int,
) -> np.ndarray:
    """The ways down from several starts.

    Parameters
    ----------
    optimizer : Optimizer
        A fresh one; it updates every variable of every start by itself.
    gradient : callable of (points (S, D), step) to an array (S, D)
        The gradient at the points, in update number ``step``, from 0.
    start : array (S, D)
    steps : int

    Returns
    -------
    ndarray (steps + 1, S, D), float64
        Where each was before the first update and after every one.

    Examples
    --------
    >>> from fastnn import SGD
    >>> path = descend(SGD(0.25), lambda points, step: 2 * points, np.array([[4.0, -8.0]]), 3)
    >>> path[:, 0].tolist()
    [[4.0, -8.0], [2.0, -4.0], [1.0, -2.0], [0.5, -1.0]]
    """
    points = np.array(start, dtype=np.float64)
    path = np.empty((steps + 1, *points.shape))
    path[0] = points
    for step in range(steps):
        slope = np.ascontiguousarray(gradient(points, step), dtype=np.float64)
        optimizer.step([points], [slope])
        path[step + 1] = points
    return path
