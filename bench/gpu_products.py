"""Our products beside those of cuBLAS on a CUDA device, each with what its layer needs besides.

``python -m bench.gpu_products`` prints them; with ``--write`` it also writes the table by which the
CUDA backend chooses, ``products.json``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import reference
from checks import assert_close, product_bound

from fastnn.kernels.contract import DTYPES, Activation
from fastnn.kernels.cupy_backend import choice, products
from fastnn.kernels.cupy_backend.cublas import Gemm
from fastnn.kernels.cupy_backend.device import Device, Work
from fastnn.kernels.formulas import ACTIVATIONS

from . import gpu_timing
from .cases import BATCHES
from .files import write_json
from .gpu_networks import NETWORKS
from .gpu_timing import Figure, attempt, device_name, graphs_in_turn

SQUARES = (256, 512, 1024, 2048, 4096)
_QUICK_SQUARES, _QUICK_BATCHES = (1024, 4096), (32, 8192)
LAYERS = tuple(
    dict.fromkeys(pair for network in NETWORKS for pair in itertools.pairwise(network.widths))
)
"""Inputs and outputs of every layer of the networks that are measured."""
FORMS = {"NN": "forward", "NT": "gradient by the inputs", "TN": "gradient by the weights"}
PRECISIONS = ("float32", "tf32", "bf16")
_ROUNDED_SIZE = 1024
_CHECKED_ROWS = 64
_RELU = Activation(ACTIVATIONS["relu"])
_TABLE = Path(products.__file__).parent / "products.json"
_COMMAND = "python -m bench.gpu_products --write"


class Product(NamedTuple):
    """A product made in two ways.

    Parameters
    ----------
    works : dict
        By "fastnn" and "cublas": the works that make it.
    out : array of the device
    expected, scale : ndarray
        The first rows of the truth, and of the product of the operands' sizes.
    inner : int
    """

    works: dict[str, Sequence[Work]]
    out: Any
    expected: np.ndarray
    scale: np.ndarray
    inner: int

    def verify(self, device: Device) -> None:
        """Raise AssertionError unless both ways give the truth."""
        bound = product_bound(self.out.dtype.name, self.inner + 1, self.scale)
        for name in self.works:
            try:
                assert_close(self.result(device, name), self.expected, bound)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error

    def result(self, device: Device, name: str) -> np.ndarray:
        """The first rows of what one way gives."""
        self.out.fill(np.nan)
        for work in self.works[name]:
            work.prepare(device)
            work.launch(device)
        return self.out[: len(self.expected)].get()


# ---- products ----


def square(device: Device, size: int, dtype: str, precision: str = "float32") -> Product:
    """a b, of square matrices."""
    a, b = _operands(dtype, (size, size), (size, size))
    here, there = device.array(a), device.array(b)
    out = device.empty((size, size), dtype)
    works = {
        "fastnn": [products.matmul(here, there, out, precision=precision)],
        "cublas": [Gemm(here, there, out, precision=precision)],
    }
    return _product(works, out, a, b)


def forward(device: Device, batch: int, inputs: int, outputs: int, dtype: str) -> Product:
    """y = relu(x weight + bias), and the slope."""
    x, weight = _operands(dtype, (batch, inputs), (inputs, outputs))
    bias = np.linspace(-1, 1, outputs).astype(dtype)
    there, matrix, added = (device.array(array) for array in (x, weight, bias))
    y, slope = (device.empty((batch, outputs), dtype) for _ in range(2))
    arrays = there, matrix, added, y, slope
    works = _either_way(lambda: choice.linear(np.int32(batch), *arrays, _RELU))
    plain = _product(works, y, x, weight)
    expected = np.maximum(plain.expected + reference.float64(bias), 0)
    return plain._replace(expected=expected, scale=plain.scale + np.abs(bias))


def by_inputs(device: Device, batch: int, inputs: int, outputs: int, dtype: str) -> Product:
    """(grad weight') * slope."""
    grad, weight = _operands(dtype, (batch, outputs), (inputs, outputs))
    slope = np.resize(np.array([1, 0, 2], dtype), (batch, inputs))
    there, matrix, factor = (device.array(array) for array in (grad, weight, slope))
    out = device.empty((batch, inputs), dtype)
    arrays = there, matrix, factor, out
    works = _either_way(lambda: choice.linear_grad_input(np.int32(batch), *arrays))
    plain = _product(works, out, grad, weight.T)
    head = reference.float64(slope[: len(plain.expected)])
    return plain._replace(expected=plain.expected * head, scale=plain.scale * head)


def by_weights(device: Device, batch: int, inputs: int, outputs: int, dtype: str) -> Product:
    """x' grad, and the column sums of grad."""
    x, grad = _operands(dtype, (batch, inputs), (batch, outputs))
    there, gradient = device.array(x), device.array(grad)
    out, sums = device.empty((inputs, outputs), dtype), device.empty(outputs, dtype)
    empty = functools.partial(device.empty, dtype=dtype)
    arrays = there, gradient, out, sums, False, empty
    works = _either_way(lambda: choice.linear_grad_weight(np.int32(batch), *arrays))
    return _product(works, out, x.T, grad)


MAKERS: dict[str, Callable[[Device, int, int, int, str], Product]] = {
    "NN": forward,
    "NT": by_inputs,
    "TN": by_weights,
}


def sizes_of(form: str, batch: int, inputs: int, outputs: int) -> tuple[int, int, int]:
    """Rows and columns of the result, and terms of a sum."""
    return {
        "NN": (batch, outputs, inputs),
        "NT": (batch, inputs, outputs),
        "TN": (inputs, outputs, batch),
    }[form]


def _either_way(make: Callable[[], list[Work]]) -> dict[str, Sequence[Work]]:
    """What the backend makes of a product where it takes ours, and where it takes cuBLAS'."""
    works: dict[str, Sequence[Work]] = {}
    for name in ("fastnn", "cublas"):
        with mock.patch.object(products, "uses_cublas", return_value=name == "cublas"):
            works[name] = make()
    return works


def _operands(dtype: str, *shapes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32).astype(dtype) for shape in shapes]


def _product(works: dict[str, Sequence[Work]], out: Any, a: np.ndarray, b: np.ndarray) -> Product:
    head = a[:_CHECKED_ROWS]
    expected = reference.matmul(head, b)
    return Product(works, out, expected, reference.matmul(np.abs(head), np.abs(b)), a.shape[1])


# ---- figures ----


def measure(device: Device, rounds: int, quick: bool) -> Iterator[Figure]:
    """Seconds of every product, and the errors where operands are rounded."""
    for size in _QUICK_SQUARES if quick else SQUARES:
        make = functools.partial(square, device, size, "float32")
        yield attempt(functools.partial(_time, device, make, rounds), "products", f"{size} cubed")
    for form, batch, layer in _points(_QUICK_BATCHES if quick else BATCHES):
        make = functools.partial(MAKERS[form], device, batch, *layer, "float32")
        sizes = sizes_of(form, batch, *layer)
        where, found = attempt(
            functools.partial(_time, device, make, rounds), "layers", _title(form, sizes)
        )
        if where[0] == "layers":
            theirs = products.uses_cublas(form, *sizes, "float32", "float32")
            found["chosen"] = "cublas" if theirs else "fastnn"
        yield where, found
    for precision in PRECISIONS:
        work = functools.partial(rounding_errors, device, precision)
        yield attempt(work, "rounding", precision)


def rounding_errors(device: Device, precision: str) -> dict[str, float]:
    """The largest error of an element of a product, over the sum of its terms' sizes."""
    product = square(device, _ROUNDED_SIZE, "float32", precision)
    errors = {}
    for name in product.works:
        off = np.abs(product.result(device, name) - product.expected)
        errors[name] = float((off / product.scale).max())
    return errors


def table(device: Device, rounds: int) -> dict[str, Any]:
    """What ``products.json`` holds; see ``products.product_table``."""
    measured = []
    for dtype in DTYPES:
        for form, batch, layer in _points(BATCHES):
            make = functools.partial(MAKERS[form], device, batch, *layer, dtype)
            found = _time(device, make, rounds)
            ours, theirs = (statistics.median(found[name]) for name in ("fastnn", "cublas"))
            rows, columns, inner = sizes_of(form, batch, *layer)
            measured.append(
                {
                    "form": form, "dtype": dtype, "precision": "float32",
                    "rows": rows, "columns": columns, "inner": inner,
                    "ours": ours, "cublas": theirs,
                }
            )  # fmt: skip
    found = {"device": device_name(device), "command": _COMMAND, "measured": measured}
    return products.product_table() | found


def _points(batches: Iterable[int]) -> Iterator[tuple[str, int, tuple[int, int]]]:
    return ((form, batch, layer) for form in FORMS for layer in LAYERS for batch in batches)


def _title(form: str, sizes: tuple[int, int, int]) -> str:
    return f"{form} {'x'.join(map(str, sizes))}"


def _time(device: Device, make: Callable[[], Product], rounds: int) -> dict[str, list[float]]:
    product = make()
    product.verify(device)
    return graphs_in_turn(device, product.works, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_products", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write {_TABLE.name}")
    options = parser.parse_args(arguments)
    try:
        device = gpu_timing.device()
    except RuntimeError as error:
        sys.exit(str(error))
    found = table(device, options.rounds)
    print(f"microseconds on {found['device']}; rows x columns x inner")
    for point in found["measured"]:
        print(line(point))
    if options.write:
        write_json(_TABLE, found)


def line(point: dict[str, Any]) -> str:
    """A point of the table in words."""
    title = _title(point["form"], (point["rows"], point["columns"], point["inner"]))
    ours, theirs = point["ours"] * 1e6, point["cublas"] * 1e6
    return f"{title:<24}{point['dtype']:<8} ours {ours:9.2f}   cuBLAS {theirs:9.2f}"


if __name__ == "__main__":
    main()
