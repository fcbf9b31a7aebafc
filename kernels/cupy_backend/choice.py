"""Products of a layer by our kernels or by cuBLAS, whichever the table says is faster.

cuBLAS makes the product alone; what our kernels do as they finish a sum is then a pass of its own.
``rows`` is a NumPy number: how many rows of the arrays count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..contract import IDENTITY, Activation
from . import operations, products
from .calls import Code
from .cublas import Gemm, takes
from .device import Work


def matmul(
    a: Any, b: Any, out: Any, transpose_a: bool = False, transpose_b: bool = False
) -> list[Work]:
    """The work of out = a b, either transposed first."""
    form = f"{'NT'[transpose_a]}{'NT'[transpose_b]}"
    (rows, columns), inner = out.shape, a.shape[0 if transpose_a else 1]
    if _by_cublas(form, (rows, columns, inner), (a, b, out), "float32"):
        return [Gemm(a, b, out, transpose_a, transpose_b)]
    return [products.matmul(a, b, out, transpose_a, transpose_b)]


def linear(
    rows: np.int32,
    x: Any,
    weight: Any,
    bias: Any | None,
    y: Any,
    slope: Any | None = None,
    activation: Activation = IDENTITY,
    place: Code | None = None,
    precision: str = "float32",
) -> list[Work]:
    """The work of y = f(x weight + bias) and its slope, under a dropout mask at ``place``."""
    inputs, outputs = weight.shape
    if _by_cublas("NN", (int(rows), outputs, inputs), (x, weight, y), precision):
        return [
            Gemm(x[:rows], weight, y[:rows], precision=precision),
            products.finish_linear(rows, bias, y, slope, activation, place),
        ]
    arrays = x, weight, bias, y, slope
    return [products.linear(rows, *arrays, activation, place, precision=precision)]


def linear_grad_input(
    rows: np.int32,
    grad: Any,
    weight: Any,
    slope: Any | None,
    out: Any,
    precision: str = "float32",
) -> list[Work]:
    """The work of out = (grad weight') * slope."""
    inputs, outputs = weight.shape
    if not _by_cublas("NT", (int(rows), inputs, outputs), (grad, weight, out), precision):
        arrays = grad, weight, slope, out
        return [products.linear_grad_input(rows, *arrays, precision=precision)]
    works: list[Work] = [
        Gemm(grad[:rows], weight, out[:rows], transpose_b=True, precision=precision)
    ]
    if slope is not None:
        works.append(operations.multiply(rows, out, slope))
    return works


def linear_grad_weight(
    rows: np.int32,
    x: Any,
    grad: Any,
    grad_weight: Any,
    grad_bias: Any | None,
    adds: bool,
    empty: Callable[[Any], Any],
    precision: str = "float32",
) -> list[Work]:
    """The work of grad_weight = x' grad and grad_bias = column sums of grad.

    ``empty`` makes an array of working memory of a shape.
    """
    (inputs, outputs), dtype = grad_weight.shape, np.dtype(grad.dtype).name
    arrays = x, grad, grad_weight, grad_bias
    if not _by_cublas("TN", (inputs, outputs, int(rows)), (x, grad, grad_weight), precision):
        count = products.slices(int(rows), inputs, outputs, dtype, precision)
        if count == 1:
            return [products.linear_grad_weight(rows, *arrays, adds, precision=precision)]
        partial = empty((count * (inputs + 1), outputs))
        return [*products.sliced_grad_weight(rows, *arrays, partial, adds, precision)]
    works: list[Work] = [
        Gemm(x[:rows], grad[:rows], grad_weight, transpose_a=True, adds=adds, precision=precision)
    ]
    if grad_bias is not None:
        scratch = empty(operations.column_sums_scratch(*grad.shape))
        works += operations.column_sums(rows, grad, None, grad_bias, adds, scratch)
    return works


def _by_cublas(
    form: str, sizes: tuple[int, int, int], matrices: tuple[Any, Any, Any], precision: str
) -> bool:
    dtype = np.dtype(matrices[0].dtype).name
    return all(map(takes, matrices)) and products.uses_cublas(form, *sizes, dtype, precision)
