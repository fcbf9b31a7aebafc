"""The CUDA sources of all operations but products, run on the CPU and compiled by NVRTC.

What every backend must do is said in ``test_operations``; those tests run here on the device
functions, every call for several numbers of blocks and both orders of threads, which may not
change a bit. Below stands what only these have: data read through an order, chunks, the table of
a run, short rows, long rows, and what the compilers say.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import reference
from checks import assert_close, product_bound, sum_bound
from cuda.compile import ARCHITECTURES, load, nvrtc, why_no_gxx, why_no_nvrtc
from cuda.require import require
from test_operations import (  # noqa: F401 - collected here, with the backend below
    DTYPES,
    ULPS,
    every_dtype,
    exponent_scale,
    output,
    random,
    run_loss,
    test_all_finite,
    test_batch_norm,
    test_batch_norm_grad,
    test_column_sums,
    test_cross_entropy,
    test_cross_entropy_at_the_ends,
    test_dropout,
    test_dropout_of_learned_slopes,
    test_elementwise_loss,
    test_elementwise_loss_of_nan,
    test_gather,
    test_loss_gradient_over_the_outputs,
    test_map,
    test_map_in_place,
    test_map_of_any_shape,
    test_map_with_learned_numbers,
    test_moments,
    test_multiply,
    test_norm,
    test_running_average,
    test_softmax,
    test_softmax_grad,
    test_softmax_of_nan_and_infinity,
    test_update,
    test_update_of_any_shape,
    within,
)

from fastnn.kernels.contract import IDENTITY, Activation, Dropout, Loss
from fastnn.kernels.cupy_backend import operations as ops
from fastnn.kernels.cupy_backend.calls import PROGRESS, THREADS, Call, Code, Struct, prelude
from fastnn.kernels.formulas import ACTIVATIONS, LOSSES, UPDATES
from fastnn.kernels.numpy_backend.operations import Operations

# ---- a backend of device functions ----


class DeviceFunctions:
    """The contract's operations by calls of device functions, run on the CPU."""

    def map(
        self, x, y, slope=None, activation=IDENTITY, learned=(), learned_slopes=(), dropout=None
    ):
        place = None if dropout is None else place_of(dropout, x.dtype)
        run(ops.map_(rows_of(x), x, y, slope, activation, learned, learned_slopes, place))

    def multiply(self, grad, slope):
        run(ops.multiply(rows_of(grad), grad, slope))

    def gather(self, x, index, out):
        order = ops.AS_THEY_STAND if index is None else order_of(index)
        run(ops.gather(rows_of(out), x, order, out))

    def all_finite(self, x):
        flag = np.zeros(1, np.int32)
        run(ops.find_not_finite(x, flag))
        return not flag[0]

    def softmax(self, x, y):
        run(ops.softmax(rows_of(x), x, y))

    def softmax_grad(self, y, grad):
        run(ops.softmax_grad(rows_of(y), y, grad))

    def loss(self, outputs, targets, weights, scale, grad, row_losses, row_hits, loss):
        scale = outputs.dtype.type(scale)
        arguments = outputs, targets, weights, scale, grad, row_losses, row_hits, loss
        run(ops.loss(rows_of(outputs), *arguments))

    def column_sums(self, a, b, out):
        run(*ops.column_sums(rows_of(a), a, b, out, False, sums_scratch(a)))

    def moments(self, x, mean, variance):
        run(*ops.moments(rows_of(x), x, mean, variance, sums_scratch(x)))

    def batch_norm(self, x, mean, variance, gamma, beta, eps, x_hat, y):
        run(ops.batch_norm(rows_of(x), x, mean, variance, gamma, beta, eps, x_hat, y))

    def batch_norm_grad(self, grad, x_hat, variance, gamma, eps, grad_beta, grad_gamma):
        arguments = grad, x_hat, variance, gamma, eps, grad_beta, grad_gamma
        run(ops.batch_norm_grad(rows_of(grad), *arguments))

    def running_average(self, mean, variance, running_mean, running_variance, momentum, rows):
        arguments = mean, variance, running_mean, running_variance, momentum
        run(ops.running_average(np.int32(rows), *arguments))

    def update(self, weight, grad, slots, scalars, formula, clip_value=None, scale=1.0):
        flat = [array.reshape(-1) for array in (weight, grad, *slots)]
        settings = scalars, formula, clip_value, weight.dtype.type(scale)
        run(ops.update(flat[0], flat[1], flat[2:], *settings))

    def norm(self, arrays):
        flat = [array.reshape(-1) for array in arrays]
        sizes = [array.size for array in flat]
        scratch, out = (np.full(n, np.nan, flat[0].dtype) for n in (ops.norm_scratch(sizes), 1))
        run(*ops.norm(flat, scratch, out))
        return float(out[0])


@pytest.fixture
def backend():
    return DeviceFunctions()


def rows_of(array: np.ndarray) -> np.int32:
    return np.int32(len(array))


def order_of(index: np.ndarray, first: int = 0) -> Struct:
    return Struct("Order", (index, np.int64(first)))


def place_of(dropout: Dropout, dtype: np.dtype, first_row: int = 0) -> Struct:
    words = dropout.step, dropout.stream, dropout.seed & 0xFFFFFFFF, dropout.seed >> 32
    threshold = np.uint32(dropout.threshold)
    numbers = (*map(np.uint32, words), threshold, np.int32(first_row), dtype.type(dropout.scale))
    return Struct("Place", numbers)


def sums_scratch(array: np.ndarray) -> np.ndarray:
    return np.full(ops.column_sums_scratch(*array.shape), np.nan, array.dtype)


def run(*calls: Call) -> None:
    """Make calls one after another, by several numbers of blocks; all must give the same bits."""
    require("g++", why_no_gxx())
    arrays = {id(a): a for call in calls for a in call.values() if isinstance(a, np.ndarray)}
    before = [array.copy() for array in arrays.values()]
    results = []
    for blocks, order in ((None, "ascending"), (1, "descending"), (3, "ascending")):
        for array, values in zip(arrays.values(), before, strict=True):
            if array.flags.writeable:
                array[...] = values
        for call in calls:
            launch(call, blocks or call.grid, order)
        results.append([array.tobytes() for array in arrays.values()])
    assert results[0] == results[1] == results[2], "the number of blocks decides bits"


def launch(call: Call, blocks: int, order: str = "ascending") -> None:
    name = name_of(call)
    library = catalogue_library(call.dtype)
    if name not in library.kernels:
        name, library = "kernel", load(call.source())
    library.launch(name, (blocks,), (THREADS,), call.values(), call.shared, order=order)


def name_of(call: Call) -> str:
    return f"kernel_{hashlib.sha256(call.kernel().encode()).hexdigest()[:16]}"


# ---- every kind of kernel, compiled at once ----


@functools.cache
def catalogue_library(dtype: str):
    calls = {name_of(call): call for call in catalogue(dtype)}
    files = tuple(dict.fromkeys(file for call in calls.values() for file in call.files))
    before = prelude(dtype, files, [call.formulas for call in calls.values()])
    return load("\n".join([before, *(call.kernel(name) for name, call in calls.items())]))


def catalogue(dtype: str) -> Iterator[Call]:
    """Calls of every kind that the tests make."""
    backend = Recorder()
    columns = (1, 6, 12, 70, 130)
    ...
