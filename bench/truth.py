"""A dense ReLU network in float64, each number with how far roundings of a dtype may carry it.

The reference's formulas, carried along with their errors: those of the inputs of an operation, as
they grow through it, and its own. What is bounded so may be summed in any order, in any chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import reference
from checks import Bound, assert_close, product_bound

from .cases import rounding


class Known(NamedTuple):
    """Numbers, and the most that each may be off."""

    value: np.ndarray
    error: np.ndarray

    @property
    def largest(self) -> np.ndarray:
        """The largest size that each may have."""
        return np.abs(self.value) + self.error

    @property
    def T(self) -> Known:
        return Known(self.value.T, self.error.T)

    def check(self, actual: np.ndarray) -> None:
        """Raise AssertionError unless ``actual`` is this."""
        assert_close(actual, self.value, Bound(self.error, self.error))


def exact(value: np.ndarray) -> Known:
    """Numbers as they were given."""
    return Known(reference.float64(value), np.zeros(value.shape))


def product(dtype: str, a: Known, b: Known, bias: np.ndarray | float = 0.0) -> Known:
    """a b + bias."""
    value = a.value @ b.value
    largest = a.largest @ b.largest
    inherited = largest - np.abs(a.value) @ np.abs(b.value)
    own = product_bound(dtype, a.value.shape[1] + 1, largest + np.abs(bias)).maximum
    return Known(value + bias, inherited + own)


def forward(
    dtype: str, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], x: np.ndarray
) -> tuple[list[Known], list[Known]]:
    """The input (B, I) and the sums (B, O) of every layer; the last sums are the outputs."""
    inputs, sums = [exact(x)], []
    for weight, bias in zip(weights, biases, strict=True):
        sums.append(product(dtype, inputs[-1], exact(weight), reference.float64(bias)))
        inputs.append(Known(np.maximum(sums[-1].value, 0.0), sums[-1].error))
    return inputs[:-1], sums


def cross_entropy(dtype: str, logits: Known, labels: np.ndarray) -> tuple[Known, Known]:
    """The mean loss and its gradient by the logits (B, O)."""
    loss, grad = reference.cross_entropy(logits.value, labels)
    rows = len(labels)
    off = logits.error.max(axis=1, keepdims=True)
    moved = reference.softmax(logits.value) * np.expm1(2 * off) / rows
    own_loss, own_grad = cross_entropy_rounding(dtype, logits.value)
    sum_error = product_bound(dtype, rows, loss).maximum
    loss_error = np.mean(2 * off[:, 0] + own_loss) + sum_error
    return Known(np.array(loss), loss_error), Known(grad, moved + own_grad[:, None] / rows)


def cross_entropy_rounding(dtype: str, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What its own roundings do to each row's loss, and to each row's gradient."""
    logits = reference.float64(logits)
    spread = 1 + np.ptp(logits, axis=1)
    grad = rounding(dtype, logits.shape[1] + spread).maximum
    return grad * (1 + spread), grad


def first_step(
    dtype: str,
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    x: np.ndarray,
    labels: np.ndarray,
    optimizer: Callable[[], reference.SGD],
) -> tuple[Known, list[Known], list[Known]]:
    """The loss, and weights and biases after one update by a new optimizer."""
    inputs, sums = forward(dtype, weights, biases, x)
    loss, grad = cross_entropy(dtype, sums[-1], labels)
    new_weights, new_biases = [], []
    ones = np.ones((1, len(x)))
    for layer in reversed(range(len(weights))):
        weight = weights[layer]
        by_weight = product(dtype, inputs[layer].T, grad)
        by_bias = Known(*(row[0] for row in product(dtype, exact(ones), grad)))
        new_weights.insert(0, updated(dtype, weight, by_weight, optimizer))
        new_biases.insert(0, updated(dtype, biases[layer], by_bias, optimizer))
        if layer:
            grad = product(dtype, grad, exact(weight.T))
            below = sums[layer - 1]
            in_doubt = np.abs(below.value) <= below.error
            passes = below.value > 0.0
            error = np.where(in_doubt, grad.largest, np.where(passes, grad.error, 0.0))
            grad = Known(np.where(passes, grad.value, 0.0), error)
    return loss, new_weights, new_biases


def updated(
    dtype: str, weight: np.ndarray, grad: Known, optimizer: Callable[[], reference.SGD]
) -> Known:
    """The weight after an optimizer's first update, which rises or falls steadily with grad."""
    value, *ends = (
        optimizer().step(weight, moved)
        for moved in (grad.value, grad.value - grad.error, grad.value + grad.error)
    )
    inherited = np.maximum(*(np.abs(end - value) for end in ends))
    own = rounding(dtype, np.abs(weight) + np.abs(value - weight) + inherited).maximum
    return Known(value, inherited + own)
