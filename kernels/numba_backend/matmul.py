"""Products of callers' matrices: the engine's tiles, on memory that nobody has padded.

B is copied into panels a block of its rows at a time, and the copies are shared by all threads.
Tiles write whole vectors, so the last columns, where they fill no vector, are made aside and
copied. Every element is the engine's one ascending chain, whatever is copied and whoever computes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ..alignment import aligned
from . import library, memory, products
from . import table as t
from .blocks import NOTHING, Block
from .compiled import control
from .operations import threads_for
from .workers import together

FLOPS_PER_THREAD = 8_000_000
"""Less work than this is not worth another thread."""
GROUP_PANELS = 32
"""Panels copied at once: with INNER_BLOCK rows each, 8 MiB."""
IN_PLACE_ROWS = 24
"""Up to this many rows of A, a copy of B costs more than reading it as it lies."""
IN_PLACE_BLOCK = 128
"""Rows of such a B that are read across all its panels before the next: few pages at once."""

# ---- the table of a product: the engine's header, then these, then the tables of tiles ----
(
    ROWS,
    COLUMNS,
    INNER,
    A,
    LDA,
    A_TURNED,  # 1: A lies as (inner, rows)
    B,
    LDB,
    B_TURNED,  # 1: B lies as (columns, inner)
    B_LIES,  # 1: whole panels are read where they lie
    C,
    LDC,
    BIAS,  # null: none
    PACKED,  # the panels' place
    COPY,  # kernels
    TURN,
    ACTIVATION,
    MULTIPLY,
    SLOPE,
    LD_SLOPE,
) = range(t.HEADER, t.HEADER + 20)
_TILES = t.HEADER + 20


def product(
    a: Block,
    b: Block,
    c: Block,
    most_threads: Callable[[], int],
    *,
    a_turned: bool = False,
    b_turned: bool = False,
    bias: Block = NOTHING,
    activation: int = 0,
    multiply: int = 0,
    slope: Block = NOTHING,
) -> None:
    """c = a b + bias, then through a tail.

    Parameters
    ----------
    a, b, c : Block
        (rows, inner), (inner, columns), (rows, columns); a and b transposed where ``turned``.
    most_threads : callable
        Says how many at most; small products take fewer.
    bias : Block
        (columns,).
    activation, multiply : int
        Address of a map, which also writes ``slope``, or of a product with ``slope``.
    """
    inner = a.rows if a_turned else a.columns
    if not c.size:
        return
    threads = threads_for(2 * c.size * inner, FLOPS_PER_THREAD, most_threads)
    p = _template(c.dtype).copy()
    panel = int(p[t.PANEL])
    panels_size = min(inner, t.INNER_BLOCK) * memory.padded(
        min(c.columns, GROUP_PANELS * panel), c.dtype
    )
    aside = (t.UNIT_ROWS + 1) * panel
    scratch = _borrow((panels_size + threads * aside) * c.itemsize)
    packed = scratch.address + threads * aside * c.itemsize
    p[t.SCRATCH], p[t.SCRATCH_BYTES] = scratch.address, aside * c.itemsize
    p[ROWS:_TILES] = (
        c.rows,
        c.columns,
        inner,
        a.address,
        a.stride,
        a_turned,
        b.address,
        b.stride,
        b_turned,
        not b_turned and c.rows <= IN_PLACE_ROWS,
        c.address,
        c.stride,
        bias.address,
        packed,
        library.gather(c.dtype, c.dtype),
        library.plain(c.dtype, "transpose"),
        activation,
        multiply,
        slope.address,
        slope.stride,
    )
    words = aligned(t.CONTROL, "int64") if threads > 1 else p
    run, addresses = control("matmul_engine", "run", "ppii"), (p.ctypes.data, words.ctypes.data)
    try:
        together(threads, lambda me: run(*addresses, me, threads))
    finally:
        _kept.append(scratch)


@functools.cache
def _template(dtype: str) -> np.ndarray:
    """The table of a product, with what depends on the dtype alone."""
    rows, columns = (library.tile_table(dtype, kind) for kind in (products.ROWS, products.COLUMNS))
    table = np.zeros(_TILES + len(rows) + len(columns), np.int64)
    table[_TILES:] = rows + columns
    words = library.header(dtype) | {
        t.ROW_TILES: _TILES,
        t.COLUMN_TILES: _TILES + len(rows),
    }
    for word, value in words.items():
        table[word] = value
    return table


class _Scratch:
    """Memory that one product has at a time."""

    def __init__(self, size: int) -> None:
        self.array, self.size = aligned(size, "uint8"), size
        self.address = self.array.ctypes.data


_kept: list[_Scratch] = []
"""Memory of products that are done: as many pieces as products ever ran at once."""


def _borrow(size: int) -> _Scratch:
    try:
        scratch = _kept.pop()
    except IndexError:
        return _Scratch(size)
    return scratch if scratch.size >= size else _Scratch(size)
