"""Losses with their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, poisoned

from fastnn.kernels.contract import DTYPES, Loss
from fastnn.kernels.formulas import LOSSES, softmax_numerator
from fastnn.kernels.tracing import value_and_derivative

from . import truth
from .cases import Case, placed, rounding, traffic
from .counts import count

ELEMENTWISE = {  # the truth of each
    "squared_error": reference.mean_squared_error,
    "absolute_error": reference.mean_absolute_error,
    "huber": reference.huber,
    "binary_cross_entropy": reference.binary_cross_entropy,
    "poisson": reference.poisson,
}
_CROSS_ENTROPY_FLOPS = 7
"""Of an element besides its exponential: sum, target sum, target dot (3), gradient (2)."""


@pytest.mark.parametrize(
    "shape", [(32, 10), (512, 10), (8192, 10), (512, 1000)], ids="{0[0]}x{0[1]}".format
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy(time, backend, dtype, shape):
    time(cross_entropy(backend, dtype, *shape))


@pytest.mark.parametrize("shape", [(32, 10), (8192, 10), (512, 1000)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_loss(time, backend, name, shape):
    time(elementwise(backend, "float32", name, *shape))


def cross_entropy(backend: Any, dtype: str, rows: int, classes: int) -> Case:
    """Each row's loss and hit, and the gradient of the mean loss, for integer labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (rows, classes)).astype(dtype)
    labels = rng.integers(0, classes, rows)
    logits, grad = placed(logits), placed(poisoned(logits.shape, dtype))
    row_losses = poisoned(rows, dtype)
    row_hits = poisoned(rows, dtype)

    def run() -> None:
        backend.loss(logits, labels, None, 1.0 / rows, grad, row_losses, row_hits, Loss())

    def verify() -> None:
        run()
        mean, expected = reference.cross_entropy(logits, labels)
        by_row, by_logit = truth.cross_entropy_rounding(dtype, logits)
        error = by_logit[:, None] / rows
        assert_close(grad, expected, Bound(error, error))
        error = by_row.mean()
        assert_close(row_losses.mean(dtype=np.float64), mean, Bound(error, error))
        np.testing.assert_array_equal(row_hits, logits.argmax(axis=1) == labels)

    moved = traffic(logits, labels, grad, row_losses, row_hits)
    flops = (count(softmax_numerator, 2).flops + _CROSS_ENTROPY_FLOPS) * logits.size
    return Case(run, verify, dtype, moved, moved, flops)


def elementwise(backend: Any, dtype: str, name: str, rows: int, columns: int) -> Case:
    """The mean of a loss of each output over each row, each row's hit, and the gradient."""
    rng = np.random.default_rng(0)
    outputs = rng.normal(0, 2, (rows, columns)).astype(dtype)
    targets = rng.uniform(0, 1, outputs.shape).astype(dtype)
    targets[::2] = outputs[::2] > 0  # rows that are hits
    outputs, targets = placed(outputs), placed(targets)
    grad, row_losses = placed(poisoned(outputs.shape, dtype)), poisoned(rows, dtype)
    row_hits = poisoned(rows, dtype)
    formula = LOSSES[name]

    def run() -> None:
        loss = Loss(formula)
        backend.loss(outputs, targets, None, 1.0 / rows, grad, row_losses, row_hits, loss)

    def verify() -> None:
        run()
        mean, expected = ELEMENTWISE[name](outputs, targets)
        scale = (1 + np.abs(expected * outputs.size)) / outputs.size
        assert_close(grad, expected, rounding(dtype, scale))
        error = rounding(dtype, columns * np.float64(mean)).maximum
        assert_close(row_losses.mean(dtype=np.float64), mean, Bound(error, error))
        hits = ((outputs > 0) == (targets > 0.5)).all(axis=1)
        np.testing.assert_array_equal(row_hits, hits)

    moved = traffic(outputs, targets, grad, row_losses, row_hits)
    asked = count(value_and_derivative(formula.function), 2).of(outputs.size)
    return Case(run, verify, dtype, moved, moved, **asked)
