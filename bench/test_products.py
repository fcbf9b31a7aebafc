"""Matrix products, alone and with bias and activation in the tail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, poisoned, product_bound

from fastnn.kernels.contract import DTYPES, Activation
from fastnn.kernels.formulas import ACTIVATIONS

from . import truth
from .cases import BATCHES, STEEPEST, Case, rounding, traffic
from .counts import count_activation

MATMULS = ((37, 101, 53), (64, 64, 64), (256, 256, 256), (1024, 1024, 1024))
LAYERS = ((784, 128), (512, 512))


@pytest.mark.parametrize("sizes", MATMULS, ids="{0[0]}x{0[1]}x{0[2]}".format)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul(time, backend, dtype, sizes):
    time(matmul(backend, dtype, *sizes))


@pytest.mark.parametrize("sizes", LAYERS, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_linear(time, backend, activation, batch, sizes):
    time(linear(backend, "float32", activation, batch, *sizes))


@pytest.mark.parametrize("sizes", LAYERS, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("turned", ["a", "b"])
def test_backward(time, backend, turned, batch, sizes):
    inputs, outputs = sizes
    if turned == "a":  # the gradient by the weights
        time(matmul(backend, "float32", inputs, batch, outputs, transpose_a=True))
    else:  # the gradient by the inputs
        time(matmul(backend, "float32", batch, outputs, inputs, transpose_b=True))


def matmul(
    backend: Any,
    dtype: str,
    rows: int,
    inner: int,
    columns: int,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> Case:
    """out = a b, either of them given transposed."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(inner, rows) if transpose_a else (rows, inner)).astype(dtype)
    b = rng.normal(size=(columns, inner) if transpose_b else (inner, columns)).astype(dtype)
    out = poisoned((rows, columns), dtype)

    def run() -> None:
        backend.matmul(a, b, out, transpose_a, transpose_b)

    def verify() -> None:
        run()
        left, right = a.T if transpose_a else a, b.T if transpose_b else b
        bound = product_bound(dtype, inner, reference.matmul(np.abs(left), np.abs(right)))
        assert_close(out, reference.matmul(left, right), bound)

    moved = traffic(a, b, out)
    return Case(run, verify, dtype, moved, moved, flops=2 * rows * inner * columns)


def linear(backend: Any, dtype: str, activation: str, rows: int, inputs: int, outputs: int) -> Case:
    """y = f(x W + b), with the slope of f stored beside y."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, inputs)).astype(dtype)
    weight = rng.normal(0, 1 / np.sqrt(inputs), (inputs, outputs)).astype(dtype)
    bias = rng.normal(size=outputs).astype(dtype)
    y, slope = poisoned((rows, outputs), dtype), poisoned((rows, outputs), dtype)
    use = Activation(ACTIVATIONS[activation])

    def run() -> None:
        backend.linear(x, weight, bias, y, slope, use)

    def verify() -> None:
        run()
        sums = truth.product(dtype, truth.exact(x), truth.exact(weight), reference.float64(bias))
        error = STEEPEST * sums.error + rounding(dtype, 1 + np.abs(sums.value)).maximum
        assert_close(y, reference.activation(activation, sums.value), Bound(error, error))
        error = error + np.where(np.abs(sums.value) <= sums.error, STEEPEST, 0.0)
        expected = reference.activation_derivative(activation, sums.value)
        assert_close(slope, expected, Bound(error, error))

    moved = traffic(x, weight, bias, y, slope)
    asked = count_activation(use.formula, use.keywords).divided(y.size)
    return Case(run, verify, dtype, moved, moved, 2 * rows * inputs * outputs, **asked)
