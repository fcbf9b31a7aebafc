"""Products of callers' matrices: the engine's tiles, on memory that nobody has padded.

B is copied into panels a block of its rows at a time, and the copies are shared by all threads.
Tiles write whole vectors, so the last columns, where they fill no vector, are made aside and
copied. Every element is the engine's one ascending chain, whatever is copied and whoever computes.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

import numpy as np

from ..alignment import address, aligned
from ..contract import DTYPES
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
IN_PLACE_ROWS = 64
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
    ACTIVATION,  # kernels, null: none
    MULTIPLY,
    SLOPE,
    LD_SLOPE,
    COPY,  # kernels of the dtype
    TURN,
) = range(t.HEADER, t.HEADER + 20)
_WORD = np.dtype(np.int64).itemsize
_WORDS = struct.Struct(f"{COPY - ROWS}q")
"""Those that every product has its own of."""
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
    room = _borrow(c.dtype)
    aside = threads * room.aside
    begin = room.at_least(aside + room.panels(inner, c.columns))
    _WORDS.pack_into(
        room.table.data,
        ROWS * _WORD,
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
        begin + aside * c.itemsize,
        activation,
        multiply,
        slope.address,
        slope.stride,
    )
    run, words = control("matmul_engine", "run", "ppii"), room.words
    meeting = aligned(t.CONTROL, "int64") if threads > 1 else None
    shared = words if meeting is None else address(meeting)
    try:
        together(threads, lambda me: run(words, shared, me, threads))
    finally:
        _kept[c.dtype].append(room)


@functools.cache
def _template(dtype: str) -> np.ndarray:
    """The table of a product, with what depends on the dtype alone."""
    rows, columns = (library.tile_table(dtype, kind) for kind in (products.ROWS, products.COLUMNS))
    table = np.zeros(_TILES + len(rows) + len(columns), np.int64)
    table[_TILES:] = rows + columns
    words = library.header(dtype) | {
        t.ROW_TILES: _TILES,
        t.COLUMN_TILES: _TILES + len(rows),
        COPY: library.gather(dtype, dtype),
        TURN: library.plain(dtype, "transpose"),
    }
    for word, value in words.items():
        table[word] = value
    return table


class _Room:
    """What one product has at a time: its table, and memory for panels and asides."""

    def __init__(self, dtype: str) -> None:
        self.table = _template(dtype).copy()
        self.words = self.table.ctypes.data
        self._panel, self._itemsize = memory.panel_columns(dtype), np.dtype(dtype).itemsize
        self.aside = (t.UNIT_ROWS + 1) * self._panel
        """Elements that a thread needs."""
        self._size, self._memory = -1, np.zeros(0, np.uint8)
        self.table[t.SCRATCH_BYTES] = self.aside * self._itemsize

    def panels(self, inner: int, columns: int) -> int:
        """Elements of as many panels of B as are copied at once."""
        count = min(-(-columns // self._panel), GROUP_PANELS)
        return min(inner, t.INNER_BLOCK) * count * self._panel

    def at_least(self, size: int) -> int:
        """The address of so many elements."""
        if size > self._size:
            self._size, self._memory = size, aligned(size * self._itemsize, "uint8")
            self._address = self.table[t.SCRATCH] = self._memory.ctypes.data
        return self._address


_kept: dict[str, list[_Room]] = {dtype: [] for dtype in DTYPES}
"""Rooms of products that are done: as many as products ever ran at once."""


def _borrow(dtype: str) -> _Room:
    try:
        return _kept[dtype].pop()
    except IndexError:
        return _Room(dtype)
