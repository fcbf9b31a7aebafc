"""Every kernel on the roofline, one thread: the cases of the suites, each at one size.

Products, maps and what goes over whole rows are the operations of the backend, over blocks so large
that the Python call does not count; the others are called as the engine calls them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from fastnn.kernels.formulas import ACTIVATIONS

from . import (
    test_activations,
    test_kernels,
    test_losses,
    test_operations,
    test_optimizers,
    test_products,
)
from .cases import Case, on_roofline, roofline_table
from .engines import Engine
from .roofline import Roofline, seconds_a_step

DTYPE = "float32"
BLOCK = (1024, 528)
PRODUCT = (512, 784, 512)
PARAMETERS = 1_000_000


def kernels(backend: Any) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Each kernel's name, and how to make its case."""
    for name, (kind, tile) in test_kernels.tiles().items():
        yield name, functools.partial(test_kernels.product_tile, DTYPE, kind, tile)
    for title, turned in (
        ("a b", {}),
        ("a' b", {"transpose_a": True}),
        ("a b'", {"transpose_b": True}),
    ):
        name = f"product {title} {'x'.join(map(str, PRODUCT))}"
        yield name, functools.partial(test_products.matmul, backend, DTYPE, *PRODUCT, **turned)
    for batch in test_kernels.FEW:
        yield f"dots of {batch}", functools.partial(test_kernels.dots, DTYPE, batch)
    yield "transpose", functools.partial(test_kernels.transpose, DTYPE)
    yield "squares", functools.partial(test_kernels.squares, DTYPE)
    for name in test_optimizers.OPTIMIZERS:
        yield (
            f"update {name}",
            functools.partial(test_optimizers.update, backend, DTYPE, name, PARAMETERS),
        )
        for batch in test_kernels.FEW:
            yield (
                f"outer update {name} by {batch}",
                functools.partial(test_kernels.outer_update, DTYPE, name, batch),
            )
        yield f"sweep {name}", functools.partial(test_kernels.sweep, DTYPE, name)
    for name in ACTIVATIONS:
        yield (
            f"map {name}",
            functools.partial(test_activations.activation, backend, DTYPE, name, *BLOCK),
        )
    yield "cross-entropy", functools.partial(test_losses.cross_entropy, backend, DTYPE, *BLOCK)
    for name in test_losses.ELEMENTWISE:
        yield name, functools.partial(test_losses.elementwise, backend, DTYPE, name, *BLOCK)
    for name, make in test_operations.OPERATIONS.items():
        yield name, functools.partial(make, backend, DTYPE, *BLOCK)


def table(roofline: Roofline) -> str:
    """Verify and measure every kernel; their times beside the least that each can take."""
    measured = {}
    with Engine("numba", 1).in_use() as backend:
        for name, make in kernels(backend):
            case = make()
            case.verify()
            measured[name] = on_roofline(case, seconds_a_step(case), roofline, 1)
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return roofline_table(measured)
