"""Every operation of the contract in plain NumPy, reading the shared formulas."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import augmentation, formulas
from ..augmentation import Program
from ..contract import (
    DRAW_STREAM,
    IDENTITY,
    SHUFFLE_STREAM,
    Activation,
    Backend,
    Dropout,
    Loss,
    documented_by,
)
from ..formulas import UpdateFormula
from ..tracing import NumpyMath, derivative, value_and_derivative
from . import images as plain_images
from .philox import dropout_mask, stream_words


def apply_dropout(dropout: Dropout, first_row: int, arrays: Iterable[np.ndarray]) -> None:
    """Drop the same elements of arrays (B, O) in place, and scale what is kept.

    ``first_row`` is the place of the arrays' first row in its batch.
    """
    arrays = list(arrays)
    dropped = ~dropout_mask(dropout, first_row, *arrays[0].shape)
    for array in arrays:
        array *= dropout.scale
        array[dropped] = 0.0


def _all_quiet(operations: type[Operations]) -> type[Operations]:
    """Run each operation with NumPy's warnings off."""
    for name, operation in list(vars(operations).items()):
        if not name.startswith("_"):
            setattr(operations, name, _quiet(operation))
    return operations


def _quiet(operation: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(operation)
    def run(*arguments: Any, **keywords: Any) -> Any:
        with np.errstate(all="ignore"):
            return operation(*arguments, **keywords)

    return run


@documented_by(Backend)
@_all_quiet
class Operations:
    """The operations of :class:`fastnn.kernels.contract.Backend`, which documents each."""

    def matmul(
        self,
        a: np.ndarray,
        b: np.ndarray,
        out: np.ndarray,
        transpose_a: bool = False,
        transpose_b: bool = False,
    ) -> None:
        np.matmul(a.T if transpose_a else a, b.T if transpose_b else b, out=out)

    def linear(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None,
        y: np.ndarray,
        slope: np.ndarray | None = None,
        activation: Activation = IDENTITY,
    ) -> None:
        np.matmul(x, weight, out=y)
        if bias is not None:
            y += bias
        if slope is not None or not activation.is_identity:
            self.map(y, y, slope, activation)

    def linear_grad_input(
        self, grad: np.ndarray, weight: np.ndarray, slope: np.ndarray | None, out: np.ndarray
    ) -> None:
        np.matmul(grad, weight.T, out=out)
        if slope is not None:
            out *= slope

    def linear_grad_weight(
        self,
        x: np.ndarray,
        grad: np.ndarray,
        grad_weight: np.ndarray,
        grad_bias: np.ndarray | None = None,
    ) -> None:
        np.matmul(x.T, grad, out=grad_weight)
        if grad_bias is not None:
            np.sum(grad, axis=0, out=grad_bias)

    def map(
        self,
        x: np.ndarray,
        y: np.ndarray,
        slope: np.ndarray | None = None,
        activation: Activation = IDENTITY,
        learned: Sequence[np.ndarray] = (),
        learned_slopes: Sequence[np.ndarray] = (),
        dropout: Dropout | None = None,
    ) -> None:
        m, function, settings = _math(x.dtype), activation.formula.function, activation.keywords
        by_learned = [
            m.evaluate(derivative(function, number), x, *learned, **settings)
            for number in range(1, 1 + len(learned_slopes))
        ]
        if slope is None:
            y[...] = m.evaluate(function, x, *learned, **settings)
        else:
            both = value_and_derivative(function)
            y[...], slope[...] = m.evaluate(both, x, *learned, **settings)
        for out, value in zip(learned_slopes, by_learned, strict=True):
            out[...] = value
        if dropout is not None:
            slopes = () if slope is None else (slope,)
            apply_dropout(dropout, 0, (y, *slopes, *learned_slopes))

    def multiply(self, grad: np.ndarray, slope: np.ndarray) -> None:
        grad *= slope

    def softmax(self, x: np.ndarray, y: np.ndarray) -> None:
        row_max = x.max(axis=1, keepdims=True)
        y[...] = _math(x.dtype).evaluate(formulas.softmax_numerator, x, row_max)
        y /= y.sum(axis=1, keepdims=True)

    def softmax_grad(self, y: np.ndarray, grad: np.ndarray) -> None:
        dot = (y * grad).sum(axis=1, keepdims=True)
        grad[...] = _math(y.dtype).evaluate(formulas.softmax_grad, y, grad, dot)

    def loss(
        self,
        outputs: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | None,
        scale: float,
        grad: np.ndarray | None,
        row_losses: np.ndarray,
        row_hits: np.ndarray,
        loss: Loss,
    ) -> None:
        m = _math(outputs.dtype)
        if loss.formula is None:
            losses, hits, by_output = _cross_entropy(m, outputs, targets, loss)
        else:
            losses, hits, by_output = _elementwise_loss(m, outputs, targets, loss)
        row_weights = np.ones_like(row_losses) if weights is None else weights
        row_losses[...] = losses * row_weights
        row_hits[...] = hits
        if grad is not None:
            grad[...] = by_output * (row_weights * outputs.dtype.type(scale))[:, None]

    def moments(self, x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
        rows = len(x)
        mean[...] = x.sum(axis=0) / rows
        variance[...] = np.square(x - mean).sum(axis=0) / rows

    def batch_norm(
        self,
        x: np.ndarray,
        mean: np.ndarray,
        variance: np.ndarray,
        gamma: np.ndarray,
        beta: np.ndarray,
        eps: float,
        x_hat: np.ndarray | None,
        y: np.ndarray,
    ) -> None:
        m = _math(x.dtype)
        inverse = m.evaluate(formulas.inverse_deviation, variance, eps)
        normalised = m.evaluate(formulas.normalise, x, mean, inverse)
        if x_hat is not None:
            x_hat[...] = normalised
        y[...] = m.evaluate(formulas.scale_shift, normalised, gamma, beta)

    def batch_norm_grad(
        self,
        grad: np.ndarray,
        x_hat: np.ndarray,
        variance: np.ndarray,
        gamma: np.ndarray,
        eps: float,
        grad_beta: np.ndarray,
        grad_gamma: np.ndarray,
    ) -> None:
        m, rows = _math(grad.dtype), len(grad)
        factor = gamma * m.evaluate(formulas.inverse_deviation, variance, eps)
        means = grad_beta / rows, grad_gamma / rows
        grad[...] = m.evaluate(formulas.batch_norm_grad, grad, x_hat, *means, factor)

    def column_sums(self, a: np.ndarray, b: np.ndarray | None, out: np.ndarray) -> None:
        np.sum(a if b is None else a * b, axis=0, out=out)

    def running_average(
        self,
        mean: np.ndarray,
        variance: np.ndarray,
        running_mean: np.ndarray,
        running_variance: np.ndarray,
        momentum: float,
        rows: int,
    ) -> None:
        unbiased = variance * rows / (rows - 1)
        for running, new in ((running_mean, mean), (running_variance, unbiased)):
            m = _math(running.dtype)
            running[...] = m.evaluate(formulas.running_average, running, new, momentum)

    def update(
        self,
        weight: np.ndarray,
        grad: np.ndarray,
        slots: Sequence[np.ndarray],
        scalars: np.ndarray,
        formula: UpdateFormula,
        clip_value: float | None = None,
        scale: float = 1.0,
    ) -> None:
        m = _math(weight.dtype)
        if scale != 1.0:
            grad = grad * weight.dtype.type(scale)
        if clip_value is not None:
            grad = m.evaluate(formulas.clip, grad, clip_value)
        numbers = zip(formula.scalars, scalars.astype(weight.dtype), strict=True)
        h = SimpleNamespace(**dict(numbers))
        new, moved = m.evaluate(formula.function, weight, grad, tuple(slots), h)
        for array, value in zip((weight, *slots), (new, *moved), strict=True):
            array[...] = value

    def norm(self, arrays: Sequence[np.ndarray]) -> float:
        return float(np.sqrt(square_sum(arrays)))

    def all_finite(self, x: np.ndarray) -> bool:
        return x.size == 0 or bool(np.isfinite(x.min()) and np.isfinite(x.max()))

    def gather(self, x: np.ndarray, index: np.ndarray | None, out: np.ndarray) -> None:
        out[...] = x if index is None else x[index]

    def augment(self, images: np.ndarray, program: Program, out: np.ndarray) -> None:
        augmentation.check(images, program, out)
        plain_images.augment(images, program, out)

    def permutation(self, seed: int, epoch: int, count: int, epochs: int = 1) -> np.ndarray:
        orders: list[int] = []
        for number in range(epochs):
            words = stream_words(seed, epoch + number, SHUFFLE_STREAM, max(0, count - 1))
            others = _below(np.arange(count, 1, -1), words).tolist()
            order = list(range(count))
            for last, other in zip(range(count - 1, 0, -1), others, strict=True):
                order[last], order[other] = order[other], order[last]
            orders += order
        return np.array(orders, dtype=np.int64)

    def draws(self, seed: int, epoch: int, population: int, count: int) -> np.ndarray:
        return _below(population, stream_words(seed, epoch, DRAW_STREAM, count))


def square_sum(arrays: Iterable[np.ndarray]) -> np.float64:
    """The sum of the squares of all elements."""
    return sum((np.square(array, dtype=np.float64).sum() for array in arrays), np.float64(0.0))


@functools.cache
def _math(dtype: np.dtype) -> NumpyMath:
    return NumpyMath(dtype)


def _below(limits: Any, words: np.ndarray) -> np.ndarray:
    """A number below each limit (int64) for each random word."""
    products = words.astype(np.uint64) * np.asarray(limits, np.uint64)
    return (products >> np.uint64(32)).astype(np.int64)


_Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # losses (B,), hits (B,), gradient (B, O)


def _cross_entropy(m: NumpyMath, logits: np.ndarray, targets: np.ndarray, loss: Loss) -> _Rows:
    classes = logits.shape[1]
    if targets.ndim == 1:
        labels = targets
        targets = (np.arange(classes) == labels[:, None]).astype(logits.dtype)
    else:
        labels = _best(targets)
    hits = _best(logits) == labels
    targets = m.evaluate(formulas.smooth_target, targets, loss.smoothing, classes)
    row_max = logits.max(axis=1, keepdims=True)
    numerators = m.evaluate(formulas.softmax_numerator, logits, row_max)
    terms = m.evaluate(formulas.cross_entropy_term, targets, logits, row_max)
    total, target_sum, target_dot = (
        values.sum(axis=1, keepdims=True) for values in (numerators, targets, terms)
    )
    losses = m.evaluate(formulas.cross_entropy_row, target_sum, m.log(total), target_dot)
    ratio = target_sum / total
    grad = m.evaluate(formulas.cross_entropy_grad, numerators, targets, ratio)
    return _recorded(m, losses[:, 0], loss), hits, grad


def _best(rows: np.ndarray) -> np.ndarray:
    """The first place of each row's largest element; -1 where there is none (NaN, or all -inf)."""
    return np.where(rows.max(axis=1) > -np.inf, rows.argmax(axis=1), -1)


def _elementwise_loss(m: NumpyMath, outputs: np.ndarray, targets: np.ndarray, loss: Loss) -> _Rows:
    assert loss.formula is not None
    function = functools.partial(loss.formula.function, **loss.keywords)
    share = outputs.dtype.type(loss.share(outputs.shape[1]))
    values, by_output = m.evaluate(value_and_derivative(function), outputs, targets)
    same_side = (outputs > 0.0) == (targets > 0.5)
    hits = (same_side & ~np.isnan(outputs) & ~np.isnan(targets)).all(axis=1)
    return _recorded(m, values, loss).sum(axis=1) * share, hits, by_output * share


def _recorded(m: NumpyMath, losses: np.ndarray, loss: Loss) -> np.ndarray:
    """Losses within the limits of what is recorded."""
    return losses if loss.limits is None else m.evaluate(formulas.between, losses, *loss.limits)
