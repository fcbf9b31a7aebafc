"""The operations that are no products, maps, losses or updates, each over a block of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, poisoned, product_bound

from fastnn.kernels.formulas import softmax_numerator

from .cases import Case, placed, rounding, traffic
from .counts import count

EPSILON, MOMENTUM = 1e-5, 0.1
SHAPES = ((32, 128), (1024, 512))


def _random(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def _output(dtype: str, *shape: int) -> np.ndarray:
    return placed(poisoned(shape, dtype))


def _sums(dtype: str, terms: np.ndarray) -> Bound:
    """The bound of column sums of such terms, a last one added to those of the blocks."""
    return product_bound(dtype, len(terms) + 1, np.abs(terms).sum(axis=0))


def multiply(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """grad *= slope; what is timed only changes signs, so that it can go on for ever."""
    grad, slope = (_random(dtype, rows, columns, seed=seed) for seed in range(2))

    def run() -> None:
        backend.multiply(grad, slope)

    def verify() -> None:
        grad[:], slope[:] = (_random(dtype, rows, columns, seed=seed) for seed in range(2))
        expected = reference.float64(grad) * slope
        run()
        assert_close(grad, expected, rounding(dtype, np.abs(expected)))
        np.sign(slope, out=slope)

    return Case(
        run, verify, dtype, traffic(grad, slope, grad), traffic(grad, slope), flops=grad.size
    )


def softmax(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """The softmax of each row."""
    x, y = _random(dtype, rows, columns), _output(dtype, rows, columns)

    def run() -> None:
        backend.softmax(x, y)

    def verify() -> None:
        run()
        expected = reference.softmax(x)
        terms = 1 + columns + np.ptp(x, axis=1, keepdims=True)
        assert_close(y, expected, rounding(dtype, terms * expected))

    moved = traffic(x, y)
    flops = (count(softmax_numerator, 2).flops + 2) * x.size  # a sum and a product with 1 / sum
    return Case(run, verify, dtype, moved, moved, flops)


def softmax_grad(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """The gradient by the logits, in place of that by the softmax of each row."""
    y = placed(reference.softmax(_random(dtype, rows, columns)).astype(dtype))
    before = _random(dtype, rows, columns, seed=1)
    grad = placed(before)

    def run() -> None:
        backend.softmax_grad(y, grad)

    def verify() -> None:
        grad[:] = before
        run()
        terms = np.abs(before) + (y * np.abs(before)).sum(axis=1, keepdims=True)
        bound = rounding(dtype, (1 + columns) * y * terms)
        assert_close(grad, reference.softmax_backward(y, before), bound)

    return Case(run, verify, dtype, traffic(y, grad, grad), traffic(y, grad), flops=4 * y.size)


def column_sums(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """The sum of each column."""
    a, out = _random(dtype, rows, columns), _output(dtype, columns)

    def run() -> None:
        backend.column_sums(a, None, out)

    def verify() -> None:
        run()
        assert_close(out, reference.float64(a).sum(axis=0), _sums(dtype, a))

    moved = traffic(a, out)
    return Case(run, verify, dtype, moved, moved, flops=a.size)


def column_sums_of_products(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """The sum of each column of a product of two."""
    a, b = (_random(dtype, rows, columns, seed=seed) for seed in range(2))
    out = _output(dtype, columns)

    def run() -> None:
        backend.column_sums(a, b, out)

    def verify() -> None:
        run()
        terms = reference.float64(a) * b
        assert_close(out, terms.sum(axis=0), _sums(dtype, terms))

    moved = traffic(a, b, out)
    return Case(run, verify, dtype, moved, moved, flops=2 * a.size)


def moments(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """The mean and the variance of each column."""
    x = _random(dtype, rows, columns)
    mean, variance = (_output(dtype, columns) for _ in range(2))

    def run() -> None:
        backend.moments(x, mean, variance)

    def verify() -> None:
        run()
        _, expected, spread = reference.batch_norm_train(x, np.ones(columns), np.zeros(columns))
        error = _sums(dtype, x).maximum / rows + rounding(dtype, np.abs(expected)).maximum
        assert_close(mean, expected, Bound(error, error))
        # a mean that is off by d adds d² to the variance
        error = error**2 + rounding(dtype, rows * spread).maximum
        assert_close(variance, spread, Bound(error, error))

    return Case(run, verify, dtype, traffic(x, x, mean, variance), traffic(x), flops=4 * x.size)


def batch_norm(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """x_hat and y of a batch normalisation in training."""
    x = _random(dtype, rows, columns)
    mean, gamma, beta = _random(dtype, 3, columns, seed=1)
    variance = np.random.default_rng(2).uniform(0.5, 2, columns).astype(dtype)
    x_hat, y = (_output(dtype, rows, columns) for _ in range(2))

    def run() -> None:
        backend.batch_norm(x, mean, variance, gamma, beta, EPSILON, x_hat, y)

    def verify() -> None:
        run()
        plain = reference.batch_norm_predict(x, 1.0, 0.0, mean, variance, EPSILON)
        expected = reference.batch_norm_predict(x, gamma, beta, mean, variance, EPSILON)
        assert_close(x_hat, plain, rounding(dtype, np.abs(plain)))
        assert_close(y, expected, rounding(dtype, np.abs(gamma * plain) + np.abs(beta)))

    moved = traffic(x, x_hat, y)
    return Case(run, verify, dtype, moved, moved, flops=4 * x.size)


def batch_norm_grad(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """The gradient by x, in place; what is timed neither grows nor fades."""
    x, before = (_random(dtype, rows, columns, seed=seed) for seed in range(2))
    gamma, grad = _random(dtype, columns, seed=2), placed(before)
    _, mean, spread = reference.batch_norm_train(x, gamma, gamma, EPSILON)
    deviation = np.sqrt(spread + EPSILON)
    x_hat = placed(((x - mean) / deviation).astype(dtype))
    expected, *sums = reference.batch_norm_backward(x, gamma, before, EPSILON)
    variance, by_gamma, by_beta = (values.astype(dtype) for values in (spread, *sums))
    scale = gamma.copy()

    def run() -> None:
        backend.batch_norm_grad(grad, x_hat, variance, scale, EPSILON, by_beta, by_gamma)

    def verify() -> None:
        grad[:], scale[:] = before, gamma
        run()
        terms = np.abs(before) + np.abs(before).mean(axis=0)
        terms = terms + np.abs(x_hat) * np.abs(before * x_hat).mean(axis=0)
        bound = rounding(dtype, np.abs(gamma) / deviation * terms)
        own = rounding("float64", rows * bound.maximum / np.finfo(dtype).eps).maximum
        assert_close(grad, expected, Bound(bound.maximum + own, bound.rms + own))
        scale[:] = deviation

    moved = traffic(grad, x_hat, grad)
    return Case(run, verify, dtype, moved, traffic(grad, x_hat), flops=5 * grad.size)


def running_average(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """The running statistics of as many columns as there are numbers in such a block."""
    count, total = rows * columns, rows + 1
    batch = np.random.default_rng(0).uniform(0.5, 2, (2, count)).astype(dtype)
    before = np.random.default_rng(1).uniform(0.5, 2, (2, count)).astype(dtype)
    running = before.copy()

    def run() -> None:
        backend.running_average(*batch, *running, MOMENTUM, total)

    def verify() -> None:
        running[:] = before
        run()
        new = reference.float64(batch) * np.array([[1.0], [total / (total - 1)]])
        expected = (1 - MOMENTUM) * reference.float64(before) + MOMENTUM * new
        assert_close(running, expected, rounding(dtype, expected))

    return Case(run, verify, dtype, traffic(batch, running, running), traffic(batch, running))


def norm(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """The Euclidean norm of all numbers."""
    x = _random(dtype, rows, columns)

    def run() -> float:
        return backend.norm([x])

    def verify() -> None:
        squares = reference.float64(x) ** 2
        total = squares.sum()
        error = product_bound(dtype, x.size, total).maximum / (2 * np.sqrt(total))
        error = error + rounding(dtype, np.sqrt(total)).maximum
        assert_close(np.float64(run()), np.sqrt(total), Bound(error, error))

    return Case(run, verify, dtype, traffic(x), traffic(x), flops=2 * x.size)


def all_finite(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """Whether there is no NaN and no infinity."""
    x = _random(dtype, rows, columns)

    def run() -> bool:
        return backend.all_finite(x)

    def verify() -> None:
        assert run() is True
        for bad in (np.nan, np.inf):
            kept, x[-1, -1] = x[-1, -1], bad
            found = run()
            x[-1, -1] = kept
            assert found is False

    return Case(run, verify, dtype, traffic(x), traffic(x))


def gather(backend: Any, dtype: str, rows: int, columns: int) -> Case:
    """Rows in another order."""
    x, out = _random(dtype, rows, columns), _output(dtype, rows, columns)
    index = np.random.default_rng(1).permutation(rows)

    def run() -> None:
        backend.gather(x, index, out)

    def verify() -> None:
        run()
        assert_close(out, x[index], Bound(np.zeros(x.shape), np.zeros(x.shape)))

    moved = traffic(x, index, out)
    return Case(run, verify, dtype, moved, moved)


OPERATIONS: dict[str, Callable[[Any, str, int, int], Case]] = {
    make.__name__: make
    for make in (
        multiply,
        softmax,
        softmax_grad,
        column_sums,
        column_sums_of_products,
        moments,
        batch_norm,
        batch_norm_grad,
        running_average,
        norm,
        all_finite,
        gather,
    )
}


@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(time, backend, name, shape):
    time(OPERATIONS[name](backend, "float32", *shape))
