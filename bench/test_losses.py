"""Softmax cross-entropy with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, poisoned

from fastnn.kernels.contract import DTYPES, Loss

from . import truth
from .cases import Case, traffic


@pytest.mark.parametrize(
    "shape", [(32, 10), (512, 10), (8192, 10), (512, 1000)], ids="{0[0]}x{0[1]}".format
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy(time, backend, dtype, shape):
    time(cross_entropy(backend, dtype, *shape))


def cross_entropy(backend: Any, dtype: str, rows: int, classes: int) -> Case:
    """Each row's loss and hit, and the gradient of the mean loss, for integer labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (rows, classes)).astype(dtype)
    labels = rng.integers(0, classes, rows)
    grad, row_losses = poisoned(logits.shape, dtype), poisoned(rows, dtype)
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
    return Case(run, verify, dtype, moved, moved)
