"""The noise in a gradient that only some of the samples tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...layers import Linear
from ...losses import CrossEntropyLoss
from ...model import Sequential

_DRAWS = 200
"""Batches that a variance is measured on."""


def gradient_noise(model: Sequential, X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """How one sample's gradient differs from that of the whole set.

    The samples are all that there is: they make the loss, and batches are drawn from them. So both
    numbers are exact, not estimates. A sample's gradient by a weight matrix is the outer product of
    what goes into the layer and what comes back to it, so that its square is the product of theirs
    (Goodfellow 2015, "Efficient Per-Example Gradient Computations", arXiv:1510.01799).

    Parameters
    ----------
    model : Sequential
        Whose trained layers are Linear.
    X : array (N, I)
    y : array (N,)
        Class numbers.

    Returns
    -------
    trace : float
        Of the covariance of a sample's gradient: the sum of the variances by all weights.
    square : float
        The squared length of the gradient of the mean loss.
    """
    values, inputs = X, []
    for layer in model.layers:
        inputs.append(values)
        values = layer.forward(values)
    back = CrossEntropyLoss()(values, y)[1]  # of the mean: N times as much is a sample's own
    squares = np.zeros(len(X))
    for layer, values in zip(reversed(model.layers), reversed(inputs), strict=True):
        if isinstance(layer, Linear):
            squares += _squares(back) * (_squares(values) + 1.0)  # a bias multiplies 1
        back = layer.backward(back)
    square = float((model.grads.flat.astype(np.float64) ** 2).sum())
    return len(X) * float(squares.sum()) - square, square


@dataclass(frozen=True)
class Variances:
    """The squared distance of a batch's gradient from the whole set's, on average.

    Attributes
    ----------
    batch_sizes : list of int
    measured : ndarray
        On batches of rows that are each drawn anew.
    expected : ndarray
        The trace over the batch size.
    """

    batch_sizes: list[int]
    measured: np.ndarray
    expected: np.ndarray


def variances(
    model: Sequential, X: np.ndarray, y: np.ndarray, batch_sizes: list[int], seed: int
) -> Variances:
    """Measure the variance of the gradient of batches of several sizes, at a network's weights."""
    generator = np.random.default_rng(seed)
    whole = _gradient(model, X, y)
    measured = []
    for size in batch_sizes:
        drawn = generator.integers(len(X), size=(_DRAWS, size))
        measured.append(
            np.mean([((_gradient(model, X[rows], y[rows]) - whole) ** 2).sum() for rows in drawn])
        )
    trace, _ = gradient_noise(model, X, y)
    return Variances(batch_sizes, np.array(measured), trace / np.array(batch_sizes))


def _gradient(model: Sequential, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the mean loss of some samples by all weights, float64."""
    model.backward(CrossEntropyLoss()(model(X), y)[1])
    return model.grads.flat.astype(np.float64)


def _squares(rows: np.ndarray) -> np.ndarray:
    return (rows.astype(np.float64) ** 2).sum(axis=1)
