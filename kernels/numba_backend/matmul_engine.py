"""What each thread of a standalone product does, translated by Numba (``compiled``)."""

from __future__ import annotations

from . import matmul as f
from . import table as t
from .engine import barrier, call, inline, panel_count, panel_width, product_rows, share


@inline
def _pack(p, first_panel, last_panel, k, block, me, threads):
    """Copy rows k ... k + block of the panels of B that fall to this thread."""
    size, columns = p[t.ITEMSIZE], p[f.COLUMNS]
    begin, end = share(last_panel - first_panel, 1, me, threads)
    for panel in range(first_panel + begin, first_panel + end):
        column = panel * p[t.PANEL]
        width, valid = panel_width(p, columns, panel), min(p[t.PANEL], columns - column)
        out = p[f.PACKED] + (panel - first_panel) * p[t.PANEL] * block * size
        if p[f.B_TURNED]:
            source = p[f.B] + (column * p[f.LDB] + k) * size
            call(p[f.TURN], source, p[f.LDB], out, width, valid, block)
        elif not p[f.B_LIES] or valid < width:
            source = p[f.B] + (k * p[f.LDB] + column) * size
            call(p[f.COPY], source, p[f.LDB] * size, 0, 0, out, width, block, valid)


@inline
def _tiles(p, row, rows, k, inner, b, ldb, width, c, ldc, bias):
    """C[row : row + rows] (+)= A B + bias over one panel and ``inner`` rows of it from row k."""
    size, lanes = p[t.ITEMSIZE], p[t.LANES]
    a, lda = p[f.A], p[f.LDA]
    if not p[f.A_TURNED]:
        product_rows(p, p[t.ROW_TILES], 0, rows, inner, a + (row * lda + k) * size, lda, b, ldb,
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


@inline
def _unit(p, first_panel, panel, row, rows, k, block, me):
    """Rows of one panel of C, through a block of the inner dimension; behind the last, the tail."""
    size, columns, column = p[t.ITEMSIZE], p[f.COLUMNS], panel * p[t.PANEL]
    width, valid = panel_width(p, columns, panel), min(p[t.PANEL], columns - column)
    is_last = k + block >= p[f.INNER]
    if p[f.B_LIES] and valid == width:
        b, ldb = p[f.B] + (k * p[f.LDB] + column) * size, p[f.LDB]
    else:
        b, ldb = p[f.PACKED] + (panel - first_panel) * p[t.PANEL] * block * size, width
    c, ldc = p[f.C] + (row * p[f.LDC] + column) * size, p[f.LDC]
    bias = p[f.BIAS] + column * size if is_last and p[f.BIAS] else 0
    if valid == width:
        _tiles(p, row, rows, k, block, b, ldb, width, c, ldc, bias)
    else:
        aside = p[t.SCRATCH] + me * p[t.SCRATCH_BYTES]
        if k:
            call(p[f.COPY], c, ldc * size, 0, 0, aside, width, rows, valid)
        if bias:
            spare = aside + t.UNIT_ROWS * width * size
            call(p[f.COPY], bias, 0, 0, 0, spare, width, 1, valid)
            bias = spare
        _tiles(p, row, rows, k, block, b, ldb, width, aside, width, bias)
        call(p[f.COPY], aside, width * size, 0, 0, c, ldc, rows, valid)
    if is_last and p[f.ACTIVATION]:
        slope = p[f.SLOPE] + (row * p[f.LD_SLOPE] + column) * size
        call(p[f.ACTIVATION], c, ldc, c, ldc, slope, p[f.LD_SLOPE], rows, valid, row, column, 0, 0,
             0)
    elif is_last and p[f.MULTIPLY]:
        slope = p[f.SLOPE] + (row * p[f.LD_SLOPE] + column) * size
        call(p[f.MULTIPLY], c, ldc, slope, p[f.LD_SLOPE], rows, valid)


@inline
def run(p, control, me, threads):
    """What each thread does: copy its panels, meet the others, do its units, meet them again."""
    saved = call(p[t.FLUSH_KERNEL])
    rows, inner = p[f.ROWS], p[f.INNER]
    panels = panel_count(p, p[f.COLUMNS])
    row_blocks = (rows + t.UNIT_ROWS - 1) // t.UNIT_ROWS
    for first_panel in range(0, panels, f.GROUP_PANELS):
        last_panel = min(panels, first_panel + f.GROUP_PANELS)
        k = 0
        while True:
            block = min(inner - k, f.IN_PLACE_BLOCK if p[f.B_LIES] else t.INNER_BLOCK)
            _pack(p, first_panel, last_panel, k, block, me, threads)
            barrier(p, control, threads)
            begin, end = share((last_panel - first_panel) * row_blocks, 1, me, threads)
            for unit in range(begin, end):
                row = unit % row_blocks * t.UNIT_ROWS
                _unit(p, first_panel, first_panel + unit // row_blocks, row,
                      min(t.UNIT_ROWS, rows - row), k, block, me)
            barrier(p, control, threads)
            k += block
            if k >= inner:
                break
    call(p[t.RESTORE_KERNEL], saved)
    return 0
