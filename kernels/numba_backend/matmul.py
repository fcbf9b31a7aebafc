"""Products of callers' matrices: the engine's tiles, on memory that nobody has padded.

B is copied into panels a block of its rows at a time, and the copies are shared by all threads.
Tiles write whole vectors, so the last columns, where they fill no vector, are made aside and
copied. Every element is the engine's one ascending chain, whatever is copied and whoever computes.
"""

from __future__ import annotations

import functools

import numpy as np

from . import library, memory
from . import table as t
from .blocks import NOTHING, Block
from .engine import _barrier, _compiled, _inline, _panel_width, _product_rows, _share, call
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
    threads: int,
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
    threads : int
        At most; small products take fewer.
    bias : Block
        (columns,).
    activation, multiply : int
        Address of a map, which also writes ``slope``, or of a product with ``slope``.
    """
    inner = a.rows if a_turned else a.columns
    if not c.size:
        return
    threads = threads_for(2 * c.size * inner, FLOPS_PER_THREAD, threads)
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
        c.rows, c.columns, inner, a.address, a.stride, a_turned, b.address, b.stride, b_turned,
        not b_turned and c.rows <= IN_PLACE_ROWS, c.address, c.stride, bias.address, packed,
        library.gather(c.dtype, c.dtype), library.plain(c.dtype, "transpose"), activation,
        multiply, slope.address, slope.stride,
    )
    control = memory.aligned(t.CONTROL, "int64") if threads > 1 else p
    try:
        together(threads, lambda me: _run(p, control, me, threads))
    finally:
        _kept.append(scratch)


@functools.cache
def _template(dtype: str) -> np.ndarray:
    """The table of a product, with what depends on the dtype alone."""
    rows, columns = library.tile_tables(dtype)
    support = library.support_kernels()
    table = np.zeros(_TILES + len(rows) + len(columns), np.int64)
    table[_TILES:] = rows + columns
    words = {
        t.ITEMSIZE: np.dtype(dtype).itemsize,
        t.LANES: memory.padded(1, dtype),
        t.PANEL: memory.panel_columns(dtype),
        t.BARRIER_KERNEL: support["barrier"],
        t.FLUSH_KERNEL: support["flush"],
        t.RESTORE_KERNEL: support["restore"],
        t.ROW_TILES: _TILES,
        t.COLUMN_TILES: _TILES + len(rows),
    }
    for word, value in words.items():
        table[word] = value
    return table


class _Scratch:
    """Memory that one product has at a time."""

    def __init__(self, size: int) -> None:
        self.array, self.size = memory.aligned(size, "uint8"), size
        self.address = self.array.ctypes.data


_kept: list[_Scratch] = []
"""Memory of products that are done: as many pieces as products ever ran at once."""


def _borrow(size: int) -> _Scratch:
    try:
        scratch = _kept.pop()
    except IndexError:
        return _Scratch(size)
    return scratch if scratch.size >= size else _Scratch(size)


@_inline
def _pack(p, first_panel, last_panel, k, block, me, threads):
    """Copy rows k ... k + block of the panels of B that fall to this thread."""
    size, columns = p[t.ITEMSIZE], p[COLUMNS]
    begin, end = _share(last_panel - first_panel, 1, me, threads)
    for panel in range(first_panel + begin, first_panel + end):
        column = panel * p[t.PANEL]
        width, valid = _panel_width(p, columns, panel), min(p[t.PANEL], columns - column)
        out = p[PACKED] + (panel - first_panel) * p[t.PANEL] * block * size
        if p[B_TURNED]:
            source = p[B] + (column * p[LDB] + k) * size
            call(p[TURN], source, p[LDB], out, width, valid, block)
        elif not p[B_LIES] or valid < width:
            source = p[B] + (k * p[LDB] + column) * size
            call(p[COPY], source, p[LDB] * size, 0, 0, out, width, block, valid)


@_inline
def _tiles(p, row, rows, k, inner, b, ldb, width, c, ldc, bias):
    """C[row : row + rows] (+)= A B + bias over one panel and ``inner`` rows of it from row k."""
    size, lanes = p[t.ITEMSIZE], p[t.LANES]
    a, lda = p[A], p[LDA]
    if not p[A_TURNED]:
        _product_rows(p, p[t.ROW_TILES], 0, rows, inner, a + (row * lda + k) * size, lda, b, ldb,
                      c, ldc, width // lanes, 1 if k else 0, bias)
        return
    begin = 0
    while True:
        block = min(inner - begin, t.BATCH_BLOCK)
        is_last = begin + block >= inner
        for column in range(0, width, t.NARROW * lanes):
            vectors = min((width - column) // lanes, t.NARROW)
            heights = p[t.COLUMN_TILES] + (vectors - 1) * t.TILE_WORDS
            done = 0
            while done < rows:
                rest = heights + 2 * min(rows - done, t.TALLEST)
                call(p[rest + 1], block, a + ((k + begin) * lda + row + done) * size, lda,
                     b + (begin * ldb + column) * size, ldb, c + (done * ldc + column) * size, ldc,
                     1 if k + begin else 0, bias + column * size if bias and is_last else 0)
                done += p[rest]
        begin += block
        if is_last:
            return


@_inline
def _unit(p, first_panel, panel, row, rows, k, block, me):
    """Rows of one panel of C, through a block of the inner dimension; behind the last, the tail."""
    size, columns, column = p[t.ITEMSIZE], p[COLUMNS], panel * p[t.PANEL]
    width, valid = _panel_width(p, columns, panel), min(p[t.PANEL], columns - column)
    is_last = k + block >= p[INNER]
    if p[B_LIES] and valid == width:
        b, ldb = p[B] + (k * p[LDB] + column) * size, p[LDB]
    else:
        b, ldb = p[PACKED] + (panel - first_panel) * p[t.PANEL] * block * size, width
    c, ldc = p[C] + (row * p[LDC] + column) * size, p[LDC]
    bias = p[BIAS] + column * size if is_last and p[BIAS] else 0
    if valid == width:
        _tiles(p, row, rows, k, block, b, ldb, width, c, ldc, bias)
    else:
        aside = p[t.SCRATCH] + me * p[t.SCRATCH_BYTES]
        if k:
            call(p[COPY], c, ldc * size, 0, 0, aside, width, rows, valid)
        if bias:
            spare = aside + t.UNIT_ROWS * width * size
            call(p[COPY], bias, 0, 0, 0, spare, width, 1, valid)
            bias = spare
        _tiles(p, row, rows, k, block, b, ldb, width, aside, width, bias)
        call(p[COPY], aside, width * size, 0, 0, c, ldc, rows, valid)
    if is_last and p[ACTIVATION]:
        slope = p[SLOPE] + (row * p[LD_SLOPE] + column) * size
        call(p[ACTIVATION], c, ldc, c, ldc, slope, p[LD_SLOPE], rows, valid, row, column, 0, 0, 0)
    elif is_last and p[MULTIPLY]:
        slope = p[SLOPE] + (row * p[LD_SLOPE] + column) * size
        call(p[MULTIPLY], c, ldc, slope, p[LD_SLOPE], rows, valid)


@_compiled
def _run(p, control, me, threads):
    """What each thread does: copy its panels, meet the others, do its units, meet them again."""
    saved = call(p[t.FLUSH_KERNEL])
    rows, inner = p[ROWS], p[INNER]
    panels = (p[COLUMNS] + p[t.PANEL] - 1) // p[t.PANEL]
    row_blocks = (rows + t.UNIT_ROWS - 1) // t.UNIT_ROWS
    for first_panel in range(0, panels, GROUP_PANELS):
        last_panel = min(panels, first_panel + GROUP_PANELS)
        k = 0
        while True:
            block = min(inner - k, IN_PLACE_BLOCK if p[B_LIES] else t.INNER_BLOCK)
            _pack(p, first_panel, last_panel, k, block, me, threads)
            _barrier(p, control, threads)
            begin, end = _share((last_panel - first_panel) * row_blocks, 1, me, threads)
            for unit in range(begin, end):
                row = unit % row_blocks * t.UNIT_ROWS
                _unit(p, first_panel, first_panel + unit // row_blocks, row,
                      min(t.UNIT_ROWS, rows - row), k, block, me)
            _barrier(p, control, threads)
            k += block
            if k >= inner:
                break
    call(p[t.RESTORE_KERNEL], saved)
