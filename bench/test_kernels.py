"""Kernels that work only inside a run, by themselves: tiles, few rows, transposing, squares.

They are called as the engine calls them, over weights that lie as it keeps them; calls in a row are
made by compiled code, so that what is timed is theirs alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, poisoned, product_bound, sum_bound
from llvmlite import ir

import fastnn
from fastnn.kernels.formulas import UpdateFormula
from fastnn.kernels.numba_backend import emit, library, memory, objects, products
from fastnn.kernels.numba_backend.machine import Tile, target
from fastnn.kernels.numba_backend.operations import apply
from fastnn.kernels.numba_backend.table import MOST_SLOTS

from . import truth
from .cases import Case, placed, traffic
from .counts import count_update
from .engines import Engine
from .test_optimizers import LEARNING_RATE, OPTIMIZERS

ENGINES = [Engine("numba", 1)]
CALLS = 8
"""Calls of a kernel in one run of its case."""
TILE_INNER = 528
"""An odd number of cache lines, as the rows of the engine's buffers have."""
INPUTS = 784
"""Rows of a panel of weights; a kernel over few rows of data sees one panel at a time."""
FEW = (1, 8)


def tiles() -> dict[str, tuple[str, Tile]]:
    """For each kind of product and each width of its tiles, the tallest: kind and tile by name."""
    tallest: dict[tuple[str, int], Tile] = {}
    for kind in (products.ROWS, products.COLUMNS, products.EDGE):
        for tile in products.tiles(kind):
            tallest[kind, tile.vectors] = max(
                tile, tallest.get((kind, tile.vectors), tile), key=lambda tile: tile.rows
            )
    return {products.name(kind, tile): (kind, tile) for (kind, _), tile in tallest.items()}


@pytest.mark.parametrize("name", tiles())
def test_tile(time, name):
    time(product_tile("float32", *tiles()[name]))


@pytest.mark.parametrize("batch", FEW)
def test_dots(time, batch):
    time(dots("float32", batch))


@pytest.mark.parametrize("batch", FEW)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_outer_update(time, name, batch):
    time(outer_update("float32", name, batch))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sweep(time, name):
    time(sweep("float32", name))


def test_transpose(time):
    time(transpose("float32"))


def test_squares(time):
    time(squares("float32"))


# ---- cases ----


def product_tile(dtype: str, kind: str, tile: Tile) -> Case:
    """c = a b: a tile, a's rows apart or transposed, b a panel."""
    addresses = objects.build_part(
        f"tiles to time {kind} {dtype}", lambda: products.module(dtype, kind)
    )
    columns = tile.vectors * target().lanes(dtype)
    shape = (tile.rows, TILE_INNER) if kind != products.COLUMNS else (TILE_INNER, tile.rows)
    a, b = _random(dtype, *shape), _random(dtype, TILE_INNER, columns)
    c = poisoned((tile.rows, columns), dtype)
    option = columns if kind == products.EDGE else 0
    run = _calls(
        addresses[products.name(kind, tile)],
        TILE_INNER,
        *_place(a),
        *_place(b),
        *_place(c),
        option,
        0,
    )

    def verify() -> None:
        run()
        left = a if kind != products.COLUMNS else a.T
        bound = product_bound(dtype, TILE_INNER, reference.matmul(np.abs(left), np.abs(b)))
        assert_close(c, reference.matmul(left, b), bound)

    moved = traffic(a, b, c)
    return Case(run, verify, dtype, moved, moved, 2 * c.size * TILE_INNER, steps=CALLS)


def dots(dtype: str, batch: int) -> Case:
    """The gradient of a few rows by their inputs, from one panel of weights."""
    columns = memory.panel_columns(dtype)
    weight, grad = _random(dtype, INPUTS, columns), _random(dtype, batch, columns)
    out = poisoned((batch, INPUTS), dtype)
    run = _calls(
        library.plain(dtype, "dots"),
        *_place(weight),
        *_place(grad),
        *_place(out),
        batch,
        INPUTS,
        columns,
        0,
    )

    def verify() -> None:
        run()
        bound = product_bound(dtype, columns, reference.matmul(np.abs(grad), np.abs(weight.T)))
        assert_close(out, reference.matmul(grad, weight.T), bound)

    moved = traffic(weight, grad, out)
    return Case(run, verify, dtype, moved, moved, 2 * batch * weight.size, steps=CALLS)


def transpose(dtype: str) -> Case:
    """A panel of weights turned over."""
    x = _random(dtype, INPUTS, memory.panel_columns(dtype))
    out = poisoned(x.shape[::-1], dtype)
    run = _calls(library.plain(dtype, "transpose"), *_place(x), *_place(out), *x.shape)

    def verify() -> None:
        run()
        assert_close(out, x.T, Bound(np.zeros(out.shape), np.zeros(out.shape)))

    return Case(run, verify, dtype, traffic(x, out), traffic(x, out), steps=CALLS)


def squares(dtype: str) -> Case:
    """The sum of the squares of a panel of weights."""
    x, out = _random(dtype, INPUTS, memory.panel_columns(dtype)), poisoned(1, dtype)
    run = _calls(library.plain(dtype, "squares"), x.ctypes.data, x.size, out.ctypes.data)

    def verify() -> None:
        run()
        terms = reference.float64(x) ** 2
        assert_close(out[0], terms.sum(), sum_bound(dtype, terms))

    return Case(run, verify, dtype, traffic(x), traffic(x), 2 * x.size, steps=CALLS)


def outer_update(dtype: str, name: str, batch: int) -> Case:
    """The update of a panel of weights by the gradient of a few rows."""
    trained = _Trained(dtype, name, batch)
    kernel = library.outer_update(dtype, trained.formula, batch, False)
    arguments = (
        *_place(trained.weight),
        *_place(trained.x),
        *_place(trained.grad),
        *trained.weight.shape,
        trained.scalars.ctypes.data,
        *trained.slot_addresses(),
    )
    once = functools.partial(apply, kernel, *arguments)

    def verify() -> None:
        trained.reset()
        once()
        trained.check()

    return trained.case(_calls(kernel, *arguments), verify, 2 * batch)


def sweep(dtype: str, name: str) -> Case:
    """The update of a panel of weights by one row, and the product of the next."""
    trained = _Trained(dtype, name, 1)
    weight = trained.weight
    following = _random(dtype, 1, INPUTS, seed=5)
    out = poisoned((1, weight.shape[1]), dtype)
    kernel = library.sweep(dtype, trained.formula, False)
    arguments = (
        *_place(weight),
        trained.x.ctypes.data,
        trained.grad.ctypes.data,
        *weight.shape,
        trained.scalars.ctypes.data,
        following.ctypes.data,
        out.ctypes.data,
        0,
        *trained.slot_addresses(),
    )
    once = functools.partial(apply, kernel, *arguments)

    def verify() -> None:
        trained.reset()
        once()
        trained.check()
        truth.product(dtype, truth.exact(following), truth.exact(weight)).check(out)

    return trained.case(_calls(kernel, *arguments), verify, 4)


class _Trained:
    """A panel of weights, its slots, and the rows that move it."""

    def __init__(self, dtype: str, name: str, batch: int) -> None:
        optimizer = getattr(fastnn, name)(LEARNING_RATE)
        self.dtype, self.name = dtype, name
        self.formula: UpdateFormula = optimizer.formula
        shape = INPUTS, memory.panel_columns(dtype)
        self.x, self.grad = _random(dtype, batch, INPUTS, seed=1), _random(dtype, batch, shape[1])
        self.before = _random(dtype, *shape, seed=2)
        self.weight = placed(self.before)
        self.starts = self.formula.initial_slots(**optimizer.settings)
        self.slots = [placed(self.before) for _ in self.starts]
        self.scalars = optimizer.scalars(0, np.array([LEARNING_RATE]), dtype)[0, 1].copy()
        self.reset()

    def reset(self) -> None:
        """The state before the first step."""
        self.weight[:] = self.before
        for slot, start in zip(self.slots, self.starts, strict=True):
            slot.fill(start)

    def slot_addresses(self) -> list[int]:
        """As many as every update kernel takes."""
        addresses = [slot.ctypes.data for slot in self.slots]
        return addresses + [0] * (MOST_SLOTS - len(addresses))

    def check(self) -> None:
        """Raise AssertionError unless the weights are those after the first step."""
        by_weight = truth.product(self.dtype, truth.exact(self.x.T), truth.exact(self.grad))
        optimizer = functools.partial(getattr(reference, self.name), LEARNING_RATE)
        truth.updated(self.dtype, self.before, by_weight, optimizer).check(self.weight)

    def case(
        self, run: Callable[[], None], verify: Callable[[], None], flops_an_element: int
    ) -> Case:
        """The case that reads and writes weights and slots once."""
        kept = traffic(self.weight, *self.slots)
        size = self.weight.size
        return Case(
            run,
            verify,
            self.dtype,
            2 * kept + traffic(self.x, self.grad),
            kept,
            flops_an_element * size,
            **count_update(self.formula).divided(size),
            steps=CALLS,
        )


# ---- calling ----


def _random(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def _place(array: np.ndarray) -> tuple[int, int]:
    """Where rows begin, and how far apart."""
    return array.ctypes.data, array.shape[1]


def _calls(kernel: int, *arguments: int) -> Callable[[], None]:
    """A function that calls a kernel CALLS times with these arguments."""
    repeat = _repeater(len(arguments))

    def run() -> None:
        apply(repeat, CALLS, kernel, *arguments)

    return run


@functools.cache
def _repeater(count: int) -> int:
    """A kernel that calls another with ``count`` integers. Arguments: times, kernel, integers."""
    kernel = emit.only_kernel("i" * (2 + count), "float32")
    times, address, *arguments = kernel.arguments
    signature = ir.FunctionType(emit.I64, [emit.I64] * count)
    function = kernel.builder.inttoptr(address, signature.as_pointer())
    with kernel.loop(times):
        kernel.builder.call(function, arguments)
    kernel.finish()
    return objects.build(kernel.builder.module)[emit.NAME]
