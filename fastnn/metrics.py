"""Metrics: how good outputs are, as one number over a whole set.

Every metric is a function ``(outputs, targets) -> float``. Outputs are what ``predict`` gives:
logits (B, O) for classes, one logit (B, 1) or (B,) for two classes, values for regression. What
lies on a GPU is copied to host memory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checks

Metric = Callable[[ArrayLike, ArrayLike], float]

# Outputs of a training that diverges: the metric's own infinity or NaN says so.
_quietly = np.errstate(over="ignore", invalid="ignore")


def accuracy(outputs: ArrayLike, targets: ArrayLike) -> float:
    """The fraction of rows whose class is right; a row with a NaN in it never is.

    Parameters
    ----------
    outputs : array_like, shape (B, O), (B, 1) or (B,)
        Logits or probabilities with a column a class: the largest wins, the first of equals. One
        column is a logit: class 1 above 0.
    targets : array_like, shape (B,) or (B, O)
        Class numbers, or one-hot or soft labels, whose largest is the class. For one column,
        0 and 1 or probabilities: class 1 above 0.5.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError
        Shapes that do not fit, no rows, or a class number without a column.

    >>> accuracy([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]], [0, 1, 1])
    0.6666666666666666
    """
    columns = _columns(outputs)
    if columns.shape[1] == 1:
        return binary_accuracy(columns, targets)
    labels = _class_numbers(columns, targets)
    finite_order = ~np.isnan(columns).any(axis=1)
    return float(np.mean((columns.argmax(axis=1) == labels) & finite_order))


def binary_accuracy(outputs: ArrayLike, targets: ArrayLike) -> float:
    """The fraction of elements on the right side, each a yes-or-no of its own; NaN never is.

    Parameters
    ----------
    outputs : array_like, shape (B, O) or (B,)
        Logits: yes above 0.
    targets : array_like, shape as outputs
        0 and 1, or probabilities: yes above 0.5.

    Returns
    -------
    float
        From 0 to 1.

    >>> binary_accuracy([-1.0, 2.0], [0, 1])
    1.0
    """
    outputs, targets = _paired(outputs, targets)
    right = ((outputs > 0) == (targets > 0.5)) & ~np.isnan(outputs)
    return float(np.mean(right))


def top_k(outputs: ArrayLike, targets: ArrayLike, k: int = 5) -> float:
    """The fraction of rows with fewer than k classes above the right one; NaN rows are wrong.

    Parameters
    ----------
    outputs : array_like, shape (B, O)
        Logits or probabilities, O at least k.
    targets : array_like, shape (B,) or (B, O)
        As in `accuracy`.
    k : int, default 5
        How many guesses a row has; of equal outputs the earlier class counts as above.

    Returns
    -------
    float
        From 0 to 1.

    >>> top_k([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [1, 2], k=2)
    0.5
    """
    columns = _columns(outputs)
    classes = columns.shape[1]
    if checks.positive_int("k", k) > classes:
        raise ValueError(f"k must be at most the number of classes, {classes}, got {k}")
    labels = _class_numbers(columns, targets)[:, None]
    own = np.take_along_axis(columns, labels, axis=1)
    above = (columns > own) | ((columns == own) & (np.arange(classes) < labels))
    finite_order = ~np.isnan(columns).any(axis=1)
    return float(np.mean((above.sum(axis=1) < k) & finite_order))


@_quietly
def mean_squared_error(outputs: ArrayLike, targets: ArrayLike) -> float:
    """The mean over all elements of (output - target)².

    Parameters
    ----------
    outputs, targets : array_like, shape (B, O) or (B,)
        Both alike; (B,) and (B, 1) are the same.

    Returns
    -------
    float
        NaN if any element is.

    >>> mean_squared_error([1.0, 4.0], [0.0, 2.0])
    2.5
    """
    outputs, targets = _paired(outputs, targets)
    return float(np.mean((outputs - targets) ** 2))


@_quietly
def mean_absolute_error(outputs: ArrayLike, targets: ArrayLike) -> float:
    """The mean over all elements of |output - target|; see :func:`mean_squared_error`.

    >>> mean_absolute_error([1.0, 4.0], [0.0, 2.0])
    1.5
    """
    outputs, targets = _paired(outputs, targets)
    return float(np.mean(np.abs(outputs - targets)))


@_quietly
def r2(outputs: ArrayLike, targets: ArrayLike) -> float:
    """Coefficient of determination, 1 - residual / total sum of squares, the mean over columns.

    1 is perfect and 0 is no better than the mean of the targets. A column of equal targets has no
    total: it counts 1 if it is met exactly, else 0, as in scikit-learn.

    Parameters
    ----------
    outputs, targets : array_like, shape (B, O) or (B,)
        Both alike; (B,) and (B, 1) are the same.

    Returns
    -------
    float
        At most 1; NaN if any element is.

    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    0.7857142857142857
    """
    outputs, targets = _paired(outputs, targets)
    residual = np.sum((targets - outputs) ** 2, axis=0)
    total = np.sum((targets - targets.mean(axis=0)) ** 2, axis=0)
    constant = total == 0
    ratio = np.where(constant, np.sign(residual), residual / np.where(constant, 1, total))
    return float(np.mean(1 - ratio))


METRICS: dict[str, Metric] = {
    function.__name__: function
    for function in (
        accuracy,
        binary_accuracy,
        top_k,
        mean_squared_error,
        mean_absolute_error,
        r2,
    )
}

SMALLER_IS_BETTER = ("loss", "mean_squared_error", "mean_absolute_error")


def resolve(metric: str | Metric) -> Metric:
    """The metric of that name; a function comes back as it is.

    Parameters
    ----------
    metric : str or callable

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        An unknown name; the message lists near matches.

    >>> resolve("accuracy") is accuracy
    True
    """
    return metric if callable(metric) else checks.lookup("metric", metric, METRICS)


def larger_is_better(monitor: str) -> bool:
    """Whether a quantity of the history should grow.

    Parameters
    ----------
    monitor : str
        "loss" or a metric's name, with "val_" in front for the validation data's.

    Returns
    -------
    bool

    Raises
    ------
    TypeError, ValueError
        Not a name, or none that has a known direction.

    >>> larger_is_better("val_loss"), larger_is_better("val_accuracy")
    (False, True)
    """
    if not isinstance(monitor, str):
        raise TypeError(f"monitor is {monitor!r}; expected a name of the history")
    quantity = monitor.removeprefix("val_")
    if quantity in SMALLER_IS_BETTER:
        return False
    checks.lookup("quantity to monitor", quantity, {"loss": None, **METRICS})
    return True


def _columns(values: ArrayLike, name: str = "outputs") -> np.ndarray:
    array = arrays.to_host(name, values)
    return checks.as_matrix(name, array[:, None] if array.ndim == 1 else array)


def _paired(outputs: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64 and with equal shapes, so that (B, 1) against (B,) is never broadcast."""
    columns = _columns(outputs)
    others = _columns(targets, "targets")
    if not columns.shape[1]:
        raise ValueError(f"outputs must have at least one column, got shape {columns.shape}")
    checks.same_rows("outputs", columns, "targets", others)
    if columns.shape != others.shape:
        raise ValueError(
            f"targets must have the outputs' shape, {columns.shape}, got {others.shape}"
        )
    return columns.astype(np.float64), others.astype(np.float64)


def _class_numbers(outputs: np.ndarray, targets: ArrayLike) -> np.ndarray:
    labels = arrays.to_host("targets", targets)
    checks.same_rows("outputs", outputs, "targets", labels)
    if labels.shape == outputs.shape:
        return labels.argmax(axis=1)
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise ValueError(
            f"targets must be class numbers of shape ({len(outputs)},) or labels of shape"
            f" {outputs.shape}, got shape {labels.shape} (dtype {labels.dtype})"
        )
    if labels.min() < 0 or labels.max() >= outputs.shape[1]:
        raise ValueError(
            f"targets must be class numbers from 0 to {outputs.shape[1] - 1},"
            f" got {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int64)
