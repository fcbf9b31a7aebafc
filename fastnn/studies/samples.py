"""What studies train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import checks, cli_data, data
from ..cli_data import Parts


def parts_of(samples: Any, seed: int) -> Parts:
    """Samples and classes in three parts, to train on, to watch and to be judged by.

    Parameters
    ----------
    samples : pair of arrays (X, y), Parts, or None
        Rows, or images, which become rows as those of :func:`fastnn.data.load` do; None for the
        embedded digits. What is in parts already stays so.
    seed : int
        Of the split.

    Raises
    ------
    ValueError, TypeError
        For inputs that are not finite numbers or all alike, and for targets that are not two
        classes or more.
    """
    if isinstance(samples, Parts):
        if samples.classes is None:
            raise ValueError("data have numbers as targets; studies expect classes")
        _check_varied(*samples.train)
        return samples
    X, y = data.digits() if samples is None else _arrays(samples)
    checks.same_rows("X", X, "y", y)
    inputs = data.as_inputs(X)
    with np.errstate(over="ignore"):  # what is too large for a network counts as infinite
        if not np.isfinite(inputs.astype(np.float32)).all():
            raise ValueError("X contains NaN or infinity; expected finite numbers")
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(f"y is {y.dtype} of shape {y.shape}; expected class numbers of shape (B,)")
    found, numbers = np.unique(y, return_inverse=True)
    train, validation, test = data.split(inputs, numbers, cli_data.SHARES, seed=seed)
    _check_varied(*train)
    return Parts(train, validation, test, [str(label) for label in found], None)


def _arrays(samples: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(samples, Sequence) or len(samples) != 2:
        raise TypeError(f"data is a {type(samples).__name__}; expected a pair of arrays (X, y)")
    X, y = samples
    return np.asarray(X), np.asarray(y)


def with_first(parts: Parts, rows: int) -> Parts:
    """The parts, but of the training part only the first rows, at most so many.

    >>> len(with_first(parts_of(None, 0), 100).train[0])
    100
    """
    checks.positive_int("rows", rows)
    X, y = (array[:rows] for array in parts.train)
    _check_varied(X, y)
    return parts._replace(train=(X, y))


def _check_varied(X: np.ndarray, y: np.ndarray) -> None:
    """Raise ValueError where the rows to train on leave nothing to be learnt."""
    if y.min() == y.max():
        raise ValueError(f"the {len(y)} rows to train on are of one class; expected at least two")
    if not (X[:1] != X).any():
        raise ValueError(f"the {len(X)} rows to train on are all alike; expected different inputs")
