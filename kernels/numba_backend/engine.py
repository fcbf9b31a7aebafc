"""The compiled engine: every thread walks the same program and meets the others at barriers.

Control code only, translated by Numba (``compiled``): integers in, integers out, arithmetic left
to kernels that are called by address. A run ends, resumable, at its deadline; where it stopped is
in the control words.

The functions know each other's arguments by name: ``p`` is the table, ``o`` the word of it where
the operation's row begins, ``me`` the number of this thread among ``threads``, ``at`` the place in
the epoch; sizes are in elements, addresses and offsets in bytes.

How work is shared out decides no bit of the result: each element of a product is one chain whoever
computes it, and sums over rows are made in blocks that depend on the shape alone.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from . import table as t
from . import workers


@intrinsic
def call(typing_context, address, *arguments):
    """Call the C function at ``address`` with integers; returns an integer (or noise, if none)."""
    signature = types.int64(address, types.StarArgTuple.from_types(arguments))

    def codegen(context, builder, signature, values):
        integers = [ir.IntType(64)] * len(signature.args[1])
        function = ir.FunctionType(ir.IntType(64), integers).as_pointer()
        target = builder.inttoptr(values[0], function)
        return builder.call(target, cgutils.unpack_tuple(builder, values[1]))

    return signature, codegen


inline = njit(nogil=True, error_model="numpy")
share = inline(workers.share)


class Place(NamedTuple):
    """Where a run stands, and how many rows it has there."""

    step: int  # in the epoch
    step_in_run: int  # since the run's first: its place in scalars and record
    chunk: int
    rows: int  # of the chunk
    rows_in_step: int
    first_row: int  # of the chunk in the batch
    first: int  # of the chunk in the epoch's order
    begin: int  # the rows of the chunk that fall to this thread
    end: int
    counters: int  # the word of the first counter of this chunk
    primed: int  # 1: the step before has made ready what it can
    has_next: int  # 1: this one does so for the next


@intrinsic
def address(typing_context, words, place):
    """The address of a word of a table."""

    def codegen(context, builder, signature, values):
        return builder.ptrtoint(builder.gep(values[0], [values[1]]), ir.IntType(64))

    return types.int64(words, types.int64), codegen


@intrinsic
def load(typing_context, place):
    """The 64-bit word at an address."""

    def codegen(context, builder, signature, values):
        return builder.load(builder.inttoptr(values[0], ir.IntType(64).as_pointer()))

    return types.int64(types.int64), codegen


@intrinsic
def store(typing_context, place, word):
    """Set the 64-bit word at an address."""

    def codegen(context, builder, signature, values):
        builder.store(values[1], builder.inttoptr(values[0], ir.IntType(64).as_pointer()))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), codegen


@inline
def barrier(p, control, threads):
    """Wait until every thread of the run is here."""
    if threads > 1:
        call(p[t.BARRIER_KERNEL], address(control, 0), threads, address(p, t.PATIENCE))


@inline
def vector_count(p, columns):
    """Vectors that so many columns fill, the last one perhaps in part.

    By a shift: a tiny network's step is over in a microsecond, and a division takes hundredths.
    """
    return (columns + p[t.LANES] - 1) >> p[t.LANES_SHIFT]


@inline
def panel_count(p, columns):
    """Panels of so many columns."""
    return (columns + p[t.PANEL] - 1) >> p[t.PANEL_SHIFT]


@inline
def panel_width(p, columns, panel):
    """Columns of a panel, padded to whole vectors."""
    width = min(columns - panel * p[t.PANEL], p[t.PANEL])
    return vector_count(p, width) << p[t.LANES_SHIFT]


@inline
def product_rows(p, tiles, begin, end, inner, a, lda, b, ldb, c, ldc, vectors, accumulate, bias):
    """C[begin:end] (+)= A[begin:end] B + bias, one panel of B, in tiles as tall as they come."""
    size = p[t.ITEMSIZE]
    heights = tiles + (vectors - 1) * t.TILE_WORDS
    row = begin
    while row < end:
        rest = heights + 2 * min(end - row, t.TALLEST)
        call(p[rest + 1], inner, a + row * lda * size, lda, b, ldb, c + row * ldc * size, ldc,
             accumulate, bias)
        row += p[rest]


@inline
def in_turn(p, o, step):
    """Where the first operand begins, which may have several places in turn."""
    if p[o + t.PLACES]:
        return p[o + t.A] + step % p[o + t.PLACES] * p[o + t.PLACE_BYTES]
    return p[o + t.A]


@inline
def _linear(p, o, me, threads, at):
    """y = f(x W + b), or the gradient by the input d W' times the slope below."""
    size, panel_columns = p[t.ITEMSIZE], p[t.PANEL]
    inner, columns = p[o + t.INNER], p[o + t.COLUMNS]
    a, lda, ldc = in_turn(p, o, at.step), p[o + t.LDA], p[o + t.LDC]
    c = p[o + t.C] + at.step % 2 * p[o + t.SUMS_BYTES]
    panels = panel_count(p, columns)
    if p[o + t.BY_COLUMNS]:
        panel, last_panel = share(panels, 1, me, threads)
        begin, end = 0, at.rows
    else:
        panel, last_panel = 0, panels
        begin, end = at.begin, at.end
    while panel < last_panel and begin < end:
        width = panel_width(p, columns, panel)
        vectors = vector_count(p, width)
        b = p[o + t.B] + panel * panel_columns * (inner + p[o + t.HAS_BIAS]) * size
        out = c + panel * panel_columns * size
        k = 0
        while True:
            block = min(inner - k, t.INNER_BLOCK)
            is_last = k + block >= inner
            bias = b + inner * width * size if is_last and p[o + t.HAS_BIAS] else 0
            product_rows(p, p[t.ROW_TILES], begin, end, block, a + k * size, lda,
                          b + k * width * size, width, out, ldc, vectors, 1 if k else 0, bias)
            k += block
            if is_last:
                break
        if p[o + t.KERNEL]:
            first_column = panel * panel_columns
            valid = min(width, columns - first_column)
            slope = p[o + t.SLOPE] + (begin * p[o + t.LD_SLOPE] + first_column) * size
            out += begin * ldc * size
            if p[o + t.OPERATION] == t.LINEAR:
                call(p[o + t.KERNEL], out, ldc, out, ldc, slope, p[o + t.LD_SLOPE], end - begin,
                     valid, at.first_row + begin, first_column, begin, at.step, p[o + t.EXTRA])
            else:
                call(p[o + t.KERNEL], out, ldc, slope, p[o + t.LD_SLOPE], end - begin, valid)
        panel += 1


@inline
def _gather_ahead(p, o, me, threads, at):
    """The rows that come up last of those that have a place; at first, of all that have one.

    Threads share out columns. What is written here is read behind a barrier: by a later step.
    """
    size, places = p[t.ITEMSIZE], p[o + t.PLACES]
    begin, end = share(p[o + t.COLUMNS], p[t.LANES], me, threads)
    step = at.step + (places - 1 if at.primed else 0)
    while step < at.step + places and begin < end:
        first = step * p[t.BATCH]
        rows = min(p[t.BATCH], p[t.SAMPLES] - first)
        if rows > 0:
            out = p[o + t.C] + step % places * p[o + t.PLACE_BYTES] + begin * size
            call(p[o + t.KERNEL], p[o + t.A] + begin * p[o + t.SOURCE_BYTES], p[o + t.LDA],
                 p[o + t.B], first, out, p[o + t.LDC], rows, end - begin)
        step += 1


@inline
def _sweep(p, o, me, threads, at):
    """One optimizer step by this row, and the next row's product, in one pass over the weights.

    Threads share out panels, as in the product.
    """
    size, panel_columns = p[t.ITEMSIZE], p[t.PANEL]
    inner, columns = p[o + t.INNER], p[o + t.COLUMNS]
    scalars = p[t.SCALARS] + at.step_in_run * p[t.SCALARS_STEP]
    x, next_x = in_turn(p, o, at.step), in_turn(p, o, at.step + 1)
    sums = p[o + t.SUMS] + (at.step + 1) % 2 * p[o + t.SUMS_BYTES]
    panel, last_panel = share(panel_count(p, columns), 1, me, threads)
    while panel < last_panel:
        column = panel * panel_columns
        width, valid = panel_width(p, columns, panel), min(panel_columns, columns - column)
        offset, skip = column * (inner + 1) * size, column * size
        d, out = p[o + t.B] + skip, sums + skip
        _sweep_rows(p, o, offset, width, x, d, inner, valid,
                    scalars + p[o + t.DECAYED] * p[t.SCALARS_HALF], next_x, out, 0)
        _sweep_rows(p, o, offset + inner * width * size, width, p[t.ONES], d, 1, valid,
                    scalars + p[o + t.BIAS_DECAYED] * p[t.SCALARS_HALF], p[t.ONES], out, 1)
        panel += 1


@inline
def _sweep_rows(p, o, offset, width, x, d, rows, valid, scalars, next_x, out, accumulate):
    """The sweep over some rows of one panel."""
    call(p[o + t.SWEEP], p[o + t.WEIGHT] + offset, width, x, d, rows, valid, scalars, next_x, out,
         accumulate, p[o + t.SLOT_0] + offset, p[o + t.SLOT_1] + offset, p[o + t.SLOT_2] + offset)


@inline
def _linear_in_place(p, o, at):
    """y = f(x W + b) for a few rows, W as its owner keeps it; for one thread."""
    size, lanes, columns = p[t.ITEMSIZE], p[t.LANES], p[o + t.COLUMNS]
    a, lda, ldc = p[o + t.A], p[o + t.LDA], p[o + t.LDC]
    row = 0
    while row < at.rows:
        vectors = p[t.WIDEST] if at.rows - row > 1 else t.EDGE_VECTORS
        rows, column = 0, 0
        while column < columns:
            valid = min(columns - column, vectors * lanes)
            width = vector_count(p, valid)
            rest = p[t.EDGE_TILES] + (width - 1) * t.TILE_WORDS + 2 * min(at.rows - row, t.TALLEST)
            rows = p[rest]
            call(p[rest + 1], p[o + t.INNER], a + row * lda * size, lda,
                 p[o + t.B] + column * size, p[o + t.LDB],
                 p[o + t.C] + (row * ldc + column) * size, ldc, valid,
                 p[o + t.BIAS] + column * size if p[o + t.BIAS] else 0)
            column += valid
        row += rows
    if p[o + t.KERNEL]:
        call(p[o + t.KERNEL], p[o + t.C], ldc, p[o + t.C], ldc, 0, 0, at.rows, columns,
             at.first_row, 0, 0, at.step, p[o + t.EXTRA])


@inline
def _dots(p, o, me, threads, rows):
    """The gradient by the input, for few rows: dot products with the weights' rows, by panels.

    Threads share out the inputs.
    """
    size, panel_columns = p[t.ITEMSIZE], p[t.PANEL]
    inner, columns = p[o + t.INNER], p[o + t.COLUMNS]
    step = panel_columns if p[o + t.BY_COLUMNS] else p[t.LANES]
    begin, end = share(inner, step, me, threads)
    if begin >= end:
        return
    out = p[o + t.C] + begin * size
    column = 0
    while column < columns:
        width = panel_width(p, columns, column >> p[t.PANEL_SHIFT])
        weight = p[o + t.B] + (column * (inner + 1) + begin * width) * size
        call(p[o + t.KERNEL], weight, width, p[o + t.A] + column * size, p[o + t.LDA], out,
             p[o + t.LDC], rows, end - begin, width, 1 if column else 0)
        column += panel_columns
    if p[o + t.TAIL]:
        call(p[o + t.TAIL], out, p[o + t.LDC], p[o + t.SLOPE] + begin * size, p[o + t.LD_SLOPE],
             rows, end - begin)


@inline
def _grad_unit(p, o, a, rows, panel, width, unit, unit_end, grad, accumulate):
    """grad[unit:unit_end] (+)= A' D for one panel, in blocks of the batch."""
    size, lanes = p[t.ITEMSIZE], p[t.LANES]
    lda, ldd = p[o + t.LDA], p[o + t.LDB]
    d = p[o + t.B] + panel * p[t.PANEL] * size
    begin = 0
    while begin < rows:
        block = min(rows - begin, t.BATCH_BLOCK)
        column = 0
        while column < width:
            vectors = min(vector_count(p, width - column), t.NARROW)
            heights = p[t.COLUMN_TILES] + (vectors - 1) * t.TILE_WORDS
            row = unit
            while row < unit_end:
                rest = heights + 2 * min(unit_end - row, t.TALLEST)
                call(p[rest + 1], block, a + (begin * lda + row) * size, lda,
                     d + (begin * ldd + column) * size, ldd,
                     grad + ((row - unit) * width + column) * size, width,
                     1 if accumulate or begin else 0, 0)
                row += p[rest]
            column += vectors * lanes
        begin += block


@inline
def _narrow_grad_unit(p, o, a, rows, panel, columns, width, unit, unit_end, grad, accumulate,
                      turned):
    """The same for a panel of so few ``columns`` that vectors had better lie along the unit.

    grad' (+)= D' A in ``turned``, then turned over: the same chain for each element.
    """
    size, lanes = p[t.ITEMSIZE], p[t.LANES]
    lda, ldd, height = p[o + t.LDA], p[o + t.LDB], unit_end - unit
    if accumulate:
        call(p[o + t.TAIL], grad, width, turned, t.UNIT_ROWS, height, columns)
    begin = 0
    while begin < rows:
        block = min(rows - begin, t.BATCH_BLOCK)
        a_block = a + (begin * lda + unit) * size
        d = p[o + t.B] + (begin * ldd + panel * p[t.PANEL]) * size
        place = 0
        while place < height:
            vectors = min(vector_count(p, height - place), p[t.WIDEST])
            heights = p[t.COLUMN_TILES] + (vectors - 1) * t.TILE_WORDS
            column = 0
            while column < columns:
                rest = heights + 2 * min(columns - column, t.TALLEST)
                call(p[rest + 1], block, d + column * size, ldd, a_block + place * size, lda,
                     turned + (column * t.UNIT_ROWS + place) * size, t.UNIT_ROWS,
                     1 if accumulate or begin else 0, 0)
                column += p[rest]
            place += vectors * lanes
        begin += block
    call(p[o + t.TAIL], turned, t.UNIT_ROWS, grad, width, columns, height)


@inline
def _bias_grad(p, o, rows, panel, width, grad, accumulate):
    """grad = the column sums of D: a product with a row of ones."""
    vectors = vector_count(p, width)
    one_row = p[t.COLUMN_TILES] + (vectors - 1) * t.TILE_WORDS + 2
    call(p[one_row + 1], rows, p[t.ONES], 0, p[o + t.B] + panel * p[t.PANEL] * p[t.ITEMSIZE],
         p[o + t.LDB], grad, width, accumulate, 0)


@inline
def _update(p, o, offset, width, grad, rows, valid, scalars):
    """One optimizer step on a block of a panel."""
    call(p[o + t.KERNEL], p[o + t.WEIGHT] + offset, width, grad, width, rows, valid, scalars,
         p[t.CLIP_SCALE], p[o + t.SLOT_0] + offset, p[o + t.SLOT_1] + offset,
         p[o + t.SLOT_2] + offset)


@inline
def _outer_update(p, o, offset, width, x, ldx, d, rows, valid, scalars):
    """One optimizer step on a block of a panel, by the gradient of a few rows."""
    call(p[o + t.OUTER], p[o + t.WEIGHT] + offset, width, x, ldx, d, p[o + t.LDB], rows, valid,
         scalars, p[o + t.SLOT_0] + offset, p[o + t.SLOT_1] + offset, p[o + t.SLOT_2] + offset)


@inline
def _take(p, o, control, at):
    """The number of a piece of work that nobody has taken before."""
    return call(p[t.TAKE], address(control, at.counters + p[o + t.COUNTER]))


@inline
def _outer(p, o, work, end, blocks, unit_rows, at):
    """Units of weights updated by the gradient of a few rows: those of one panel at once."""
    size, panel_columns = p[t.ITEMSIZE], p[t.PANEL]
    inner, columns = p[o + t.INNER], p[o + t.COLUMNS]
    scalars = p[t.SCALARS] + at.step_in_run * p[t.SCALARS_STEP]
    a = in_turn(p, o, at.step)
    while work < end:
        panel, block = work // blocks, work % blocks
        last_block = min(blocks, block + end - work)
        width = panel_width(p, columns, panel)
        valid = min(width, columns - panel * panel_columns)
        begin, last = block * unit_rows, min(inner, last_block * unit_rows)
        offset = panel * panel_columns * (inner + 1) * size
        d = p[o + t.B] + panel * panel_columns * size
        _outer_update(p, o, offset + begin * width * size, width, a + begin * size, p[o + t.LDA], d,
                      last - begin, valid, scalars + p[o + t.DECAYED] * p[t.SCALARS_HALF])
        if last == inner and p[o + t.HAS_BIAS]:
            _outer_update(p, o, offset + inner * width * size, width, p[t.ONES], 0, d, 1, valid,
                          scalars + p[o + t.BIAS_DECAYED] * p[t.SCALARS_HALF])
        work += last_block - block


@inline
def _weights(p, o, control, me, threads, at):
    """The weight gradient of a layer, stored or consumed by the update; or the update alone.

    A unit is some rows of one panel; the last unit of a panel has the bias too. The same thread
    takes the same units in every step, unless threads share out work as they go.
    """
    if p[o + t.SWEEP] and at.has_next:
        _sweep(p, o, me, threads, at)
        return
    inner, columns = p[o + t.INNER], p[o + t.COLUMNS]
    panels, blocks = panel_count(p, columns), _blocks(inner)
    unit_rows = _unit_rows(p, inner, blocks)
    work, end = share(panels * blocks, blocks if p[o + t.BY_COLUMNS] else 1, me, threads)
    if p[o + t.OUTER] and at.rows == p[o + t.OUTER_ROWS]:
        _outer(p, o, work, end, blocks, unit_rows, at)
        return
    if p[t.SHARES_AS_IT_GOES]:
        work, end = _take(p, o, control, at), panels * blocks
    while work < end:
        _unit(p, o, work // blocks, work % blocks, blocks, unit_rows, at)
        work = _take(p, o, control, at) if p[t.SHARES_AS_IT_GOES] else work + 1


@inline
def _blocks(inner):
    """The units of a panel."""
    return (inner + t.UNIT_ROWS - 1) // t.UNIT_ROWS


@inline
def _unit_rows(p, inner, blocks):
    """Rows of a unit, but for the last of its panel, which has what is left."""
    return vector_count(p, (inner + blocks - 1) // blocks) << p[t.LANES_SHIFT]


@inline
def _unit(p, o, panel, block, blocks, unit_rows, at):
    """The gradient of one unit of weights, stored or consumed by the update; or the update."""
    size, panel_columns = p[t.ITEMSIZE], p[t.PANEL]
    inner, columns = p[o + t.INNER], p[o + t.COLUMNS]
    makes = p[o + t.OPERATION] == t.GRAD_WEIGHT
    updates = not makes or p[o + t.UPDATES]
    in_scratch = makes and p[o + t.UPDATES]
    scratch = p[t.SCRATCH]
    scalars = p[t.SCALARS] + at.step_in_run * p[t.SCALARS_STEP]
    add = 1 if at.chunk else 0
    width = panel_width(p, columns, panel)
    valid = min(width, columns - panel * panel_columns)
    begin, last = block * unit_rows, min(inner, (block + 1) * unit_rows)
    panel_offset = panel * panel_columns * (inner + 1) * size
    offset = panel_offset + begin * width * size
    grad = scratch if in_scratch else p[o + t.GRAD] + offset
    a = in_turn(p, o, at.step)
    if makes and valid <= p[t.LANES] // 2:
        turned = scratch + t.UNIT_ROWS * width * size
        _narrow_grad_unit(p, o, a, at.rows, panel, valid, width, begin, last, grad, add, turned)
    elif makes:
        _grad_unit(p, o, a, at.rows, panel, width, begin, last, grad, add)
    if updates:
        _update(p, o, offset, width, grad, last - begin, valid,
                scalars + p[o + t.DECAYED] * p[t.SCALARS_HALF])
    if block == blocks - 1 and p[o + t.HAS_BIAS]:
        offset = panel_offset + inner * width * size
        grad = scratch if in_scratch else p[o + t.GRAD] + offset
        if makes:
            _bias_grad(p, o, at.rows, panel, width, grad, add)
        if updates:
            _update(p, o, offset, width, grad, 1, valid,
                    scalars + p[o + t.BIAS_DECAYED] * p[t.SCALARS_HALF])


@inline
def _transpose(p, o, me, threads):
    """The panels of W' from the panels of W; threads share out W's rows by panels of W'."""
    size, panel_columns = p[t.ITEMSIZE], p[t.PANEL]
    inner, columns = p[o + t.INNER], p[o + t.COLUMNS]
    out_panels = panel_count(p, inner)
    out_panel, last = share(out_panels, 1, me, threads)
    while out_panel < last:
        out_width = panel_width(p, inner, out_panel)
        begin = out_panel * panel_columns
        rows = min(panel_columns, inner - begin)
        out = p[o + t.C] + begin * columns * size
        column = 0
        while column < columns:
            panel = column >> p[t.PANEL_SHIFT]
            width = panel_width(p, columns, panel)
            source = p[o + t.B] + (column * (inner + 1) + begin * width) * size
            call(p[o + t.KERNEL], source, width, out + column * out_width * size, out_width,
                 rows, min(panel_columns, columns - column))
            column += panel_columns
        out_panel += 1


@inline
def _by_rows(p, o, at):
    """Operations in which each row stands alone."""
    size, operation, kernel = p[t.ITEMSIZE], p[o + t.OPERATION], p[o + t.KERNEL]
    begin, end = at.begin, at.end
    count, columns = end - begin, p[o + t.COLUMNS]
    if count <= 0:
        return
    lda, ldb, ldc, ld_slope = p[o + t.LDA], p[o + t.LDB], p[o + t.LDC], p[o + t.LD_SLOPE]
    a, b = in_turn(p, o, at.step) + begin * lda * size, p[o + t.B] + begin * ldb * size
    c, slope = p[o + t.C] + begin * ldc * size, p[o + t.SLOPE] + begin * ld_slope * size
    first_argument = o + t.ARGUMENTS
    if operation == t.GATHER:
        call(kernel, p[o + t.A], lda, p[o + t.B], at.first + begin, c, ldc, count, columns)
    elif operation == t.MAP:
        call(kernel, a, lda, c, ldc, slope, ld_slope, count, columns, at.first_row + begin, 0,
             begin, at.step, p[o + t.EXTRA])
    elif operation == t.MULTIPLY:
        call(kernel, c, ldc, slope, ld_slope, count, columns)
    elif operation == t.LOSS:
        call(kernel, a, lda, c, ldc, count, columns, at.first + begin, begin, p[t.BATCH_SCALE],
             p[o + t.EXTRA])
    elif operation == t.SOFTMAX:
        call(kernel, a, lda, c, ldc, count, columns)
    elif operation == t.COPY_OUT:
        call(kernel, a, lda * size, 0, 0, c + at.first * ldc * size, ldc, count, columns)
    elif operation == t.BATCH_NORM:
        call(kernel, a, lda, b if p[o + t.B] else 0, ldb, c, ldc, count, columns, p[first_argument],
             p[first_argument + 1], p[first_argument + 2], p[first_argument + 3],
             p[first_argument + 4])
    elif operation == t.BATCH_NORM_GRAD:
        call(kernel, c, ldc, b, ldb, count, columns, p[first_argument], p[first_argument + 1],
             p[first_argument + 2], p[first_argument + 3], p[first_argument + 4], at.rows)


@inline
def _by_columns(p, o, me, threads, at):
    """Operations that need all rows of a column; threads share out columns."""
    size, operation, kernel = p[t.ITEMSIZE], p[o + t.OPERATION], p[o + t.KERNEL]
    begin, end = share(p[o + t.COLUMNS], p[t.LANES], me, threads)
    if begin >= end:
        return
    skip = begin * size
    a, c = p[o + t.A] + skip, p[o + t.C] + skip
    if operation == t.MOMENTS:
        call(kernel, a, p[o + t.LDA], at.rows, end - begin, c, p[o + t.SLOPE] + skip)
    elif operation == t.COLUMN_TOTAL:
        call(kernel, a, p[o + t.LDA], p[o + t.B] + skip, p[o + t.LDB], at.rows, end - begin, c,
             1 if at.chunk else 0)
    elif operation == t.RUNNING:
        call(kernel, a, p[o + t.B] + skip, c, p[o + t.SLOPE] + skip, p[o + t.ARGUMENTS],
             end - begin, at.rows)


@inline
def _total(p, o, at):
    """Add up the chunk's loss and hits; returns whether the loss is finite.

    Every thread does this, in the same order, into places of its own, so that all agree without
    another barrier; the first thread's places are the record.
    """
    record = at.step_in_run * p[t.RECORD_STEP]
    call(p[t.TOTAL_KERNEL], p[o + t.B], at.rows, p[t.HITS] + record, at.chunk, p[t.ONES])
    return call(p[t.TOTAL_KERNEL], p[o + t.A], at.rows, p[t.LOSSES] + record, at.chunk,
                p[t.BATCH_SCALE])


@inline
def _squares(p, o, me, threads):
    """Partial sums of squares of the stored gradients, in blocks of a fixed size."""
    size, count, block = p[t.ITEMSIZE], p[o + t.COLUMNS], p[o + t.INNER]
    work, end = share((count + block - 1) // block, 1, me, threads)
    while work < end:
        begin = work * block
        call(p[o + t.KERNEL], p[o + t.A] + begin * size, min(block, count - begin),
             p[o + t.PARTIALS] + work * size)
        work += 1


@inline
def _weight_squares(p, o, me, threads):
    """Partial sums of the squares of a weight, and of its bias where that is decayed.

    The units, and who takes them, are those of the weight's gradient: they lie in the cache of
    that thread.
    """
    size, panel_columns = p[t.ITEMSIZE], p[t.PANEL]
    inner, columns = p[o + t.INNER], p[o + t.COLUMNS]
    blocks = _blocks(inner)
    unit_rows = _unit_rows(p, inner, blocks)
    work, end = share(panel_count(p, columns) * blocks, blocks if p[o + t.BY_COLUMNS] else 1, me,
                      threads)
    while work < end:
        panel, block = work // blocks, work % blocks
        width, begin = panel_width(p, columns, panel), block * unit_rows
        last = inner + p[o + t.BIAS_DECAYED] if block == blocks - 1 else begin + unit_rows
        offset = (panel * panel_columns * (inner + 1) + begin * width) * size
        call(p[o + t.KERNEL], p[o + t.WEIGHT] + offset, (last - begin) * width,
             p[o + t.PARTIALS] + work * size)
        work += 1


@inline
def _square_sum(p, o, at):
    """Record the sum of a step's partial sums of squares; for the thread that keeps the record."""
    out = p[t.SQUARE_SUMS] + at.step_in_run * p[t.RECORD_STEP]
    call(p[t.TOTAL_KERNEL], p[o + t.PARTIALS], p[o + t.COLUMNS], out, 0, p[t.ONES])


@inline
def _flat_update(p, o, me, threads, step):
    """One optimizer step on a vector of parameters that no product reads."""
    begin, end = share(p[o + t.COLUMNS], p[t.LANES], me, threads)
    if begin < end:
        skip = begin * p[t.ITEMSIZE]
        scalars = p[t.SCALARS] + step * p[t.SCALARS_STEP]
        scalars += p[o + t.DECAYED] * p[t.SCALARS_HALF]
        _update(p, o, skip, 0, p[o + t.GRAD] + skip, 1, end - begin, scalars)


@inline
def _part(at, begin, end):
    """The same place, with these rows to do."""
    return Place(at.step, at.step_in_run, at.chunk, at.rows, at.rows_in_step, at.first_row,
                 at.first, begin, end, at.counters, at.primed, at.has_next)


@inline
def _operate(p, o, control, me, threads, at):
    """Do one operation; returns whether training may go on."""
    operation = p[o + t.OPERATION]
    if p[o + t.BY_EVERYONE]:
        me, threads, at = 0, 1, _part(at, 0, at.rows)
    if operation == t.LINEAR or operation == t.GRAD_INPUT:
        _linear(p, o, me, threads, at)
    elif operation == t.GRAD_WEIGHT or operation == t.UPDATE:
        _weights(p, o, control, me, threads, at)
    elif operation == t.GATHER and p[o + t.PLACES]:
        _gather_ahead(p, o, me, threads, at)
    elif operation == t.LINEAR_IN_PLACE:
        _linear_in_place(p, o, at)
    elif operation == t.DOTS:
        _dots(p, o, me, threads, at.rows)
    elif operation == t.TRANSPOSE:
        if at.chunk == 0:
            _transpose(p, o, me, threads)
    elif operation == t.WEIGH:
        # without weights it is the same for all steps of an epoch but a short last one
        if at.chunk == 0 and (p[o + t.A] or at.step_in_run == 0 or at.step == 0
                              or at.rows_in_step < p[t.BATCH]):
            call(p[o + t.KERNEL], p[o + t.A], p[o + t.B], at.first, at.rows_in_step,
                 p[t.BATCH_SCALE])
    elif operation == t.CHECK:
        if not _total(p, o, at) and p[o + t.STRICT]:
            return False
    elif operation == t.SQUARES:
        _squares(p, o, me, threads)
    elif operation == t.WEIGHT_SQUARES:
        if at.chunk == 0:
            _weight_squares(p, o, me, threads)
    elif operation == t.SQUARE_SUM:
        if at.chunk == 0 and me == 0:
            _square_sum(p, o, at)
    elif operation == t.CLIP:
        if me == 0:
            call(p[o + t.KERNEL], p[o + t.PARTIALS], p[o + t.COLUMNS], p[o + t.A],
                 p[t.CLIP_SCALE])
    elif operation == t.SUM:
        if me == 0:
            call(p[t.TOTAL_KERNEL], p[o + t.A], p[o + t.COLUMNS], p[o + t.C], 0, p[t.ONES])
    elif operation == t.FLAT_UPDATE:
        _flat_update(p, o, me, threads, at.step_in_run)
    elif operation == t.MOMENTS or operation == t.COLUMN_TOTAL or operation == t.RUNNING:
        _by_columns(p, o, me, threads, at)
    else:
        _by_rows(p, o, at)
    return True


@inline
def _by_blocks(p, o, control, me, threads, at):
    """Do a group of operations for one block of rows after another, as this thread gets ready.

    A thread that has lost its core to another program for a while does less; no result depends on
    who did what.
    """
    block = _take(p, o, control, at)
    while block < p[t.BLOCK_COUNT]:
        begin = min(at.rows, p[p[t.BLOCKS] + block])
        end = min(at.rows, p[p[t.BLOCKS] + block + 1])
        if begin < end:
            part = _part(at, begin, end)
            operation = o
            while operation < p[o + t.GROUP_END]:
                _operate(p, operation, control, me, threads, part)
                operation += t.WIDTH
        block = _take(p, o, control, at)


@inline
def _is_made_ahead(p, o):
    """Whether the step before makes ready what this operation is to make."""
    operation = p[o + t.OPERATION]
    return operation == t.GATHER or (operation == t.LINEAR and p[o + t.SUMS_BYTES] > 0)


@inline
def _walk(p, o, end, control, me, threads, at):
    """Do the operations from word ``o`` of the table up to ``end``.

    Returns where it came to: ``end``, or, where a chunk takes long and the deadline has passed,
    the operation to go on with; or DIVERGED_HERE.
    """
    meetings = 0
    while o < end:
        # what the step before has made ready neither is done again nor waits for anybody
        made = at.primed and _is_made_ahead(p, o)
        if made and p[o + t.OPERATION] == t.LINEAR:
            pass
        elif p[o + t.GROUP_END]:
            _by_blocks(p, o, control, me, threads, at)
            o = p[o + t.GROUP_END] - t.WIDTH
        elif not _operate(p, o, control, me, threads, at):
            return t.DIVERGED_HERE
        if p[o + t.BARRIER] and not made:
            meetings += 1
            if me == 0 and p[t.TAKES_LONG] and _late(p, control):
                control[t.PAUSE + meetings % 2] = 1
            barrier(p, control, threads)
            if p[t.TAKES_LONG] and control[t.PAUSE + meetings % 2]:
                return o + t.WIDTH
        o += t.WIDTH
    return end


@inline
def _clear(control, begin, count):
    """Set the counters of the next chunk to zero: all threads are past the last one's."""
    for place in range(begin, begin + count):
        control[place] = 0


@inline
def _late(p, control):
    """Whether the deadline has passed."""
    call(p[t.CLOCK], address(control, t.TIME))
    return control[t.TIME] * 1_000_000_000 + control[t.TIME_NANO] >= control[t.DEADLINE]


@inline
def _next_epoch(p, control):
    """Go on to its part of the order and its dropout masks; for a run of one thread.

    Scalars and record go on where those of the last epoch end: the first step of the run lies that
    much further back.
    """
    move, end = p[t.MOVES], p[t.MOVES] + 16 * p[t.MOVE_COUNT]
    while move < end:
        store(load(move), load(load(move)) + load(move + 8))
        move += 16
    control[t.FIRST_STEP] -= control[t.LAST_STEP]
    control[t.EPOCHS] -= 1


@inline
def run(p, control, me, threads):
    """Walk the program from the step and chunk in ``control`` until its end or the deadline.

    Every thread of the run calls this with its number. Returns, in each of them, RUNNING_ON at the
    last step, STOPPED at the deadline, or DIVERGED where a loss was not finite (before the update
    that it would have spoiled).
    """
    saved = call(p[t.FLUSH_KERNEL])
    if me == 0 and threads > 1:
        control[t.RUNG] = call(p[t.TAKE], control[t.BELL]) + 1
    step, chunk, last_step = control[t.STEP], control[t.CHUNK], control[t.LAST_STEP]
    turn, status, primed = 0, t.RUNNING_ON, control[t.PRIMED]
    operation = max(p[t.CHUNK_BEGIN], control[t.NEXT_OPERATION])
    while step < last_step and status == t.RUNNING_ON:
        begin, first_row = step * p[t.BATCH], chunk * p[t.CHUNK_ROWS]
        rows_in_step = min(p[t.BATCH], p[t.SAMPLES] - begin)
        rows = min(p[t.CHUNK_ROWS], rows_in_step - first_row)
        mine, mine_end = share(rows, p[t.ROW_STEP], me, threads)
        counters = t.CONTROL + turn % 2 * p[t.COUNTERS]
        if me == 0 and p[t.SHARES_AS_IT_GOES]:
            _clear(control, t.CONTROL + (turn + 1) % 2 * p[t.COUNTERS], p[t.COUNTERS])
        has_next = 1 if p[t.LOOKS_AHEAD] and step + 1 < last_step else 0
        at = Place(step, step - control[t.FIRST_STEP], chunk, rows, rows_in_step, first_row,
                   begin + first_row, mine, mine_end, counters, primed, has_next)
        step_ends = first_row + rows == rows_in_step
        end = p[t.STEP_END] if step_ends else p[t.CHUNK_END]
        operation = _walk(p, operation, end, control, me, threads, at)
        if operation < end:
            status = t.DIVERGED if operation == t.DIVERGED_HERE else t.STOPPED
            break
        operation = p[t.CHUNK_BEGIN]
        turn += 1
        if me == 0 and turn % p[t.CHECK_EVERY] == 0 and _late(p, control):
            control[t.STOP + turn % 2] = 1
        barrier(p, control, threads)
        if control[t.STOP + turn % 2]:
            status = t.STOPPED
        step, chunk = (step + 1, 0) if step_ends else (step, chunk + 1)
        primed = has_next
        if step == last_step and control[t.EPOCHS]:
            _next_epoch(p, control)
            step = 0
    if status == t.STOPPED and step == last_step:
        status = t.RUNNING_ON
    bell, rung = control[t.BELL], control[t.RUNG]
    watch, looks, restore = p[t.WATCH], p[t.LOOKS], p[t.RESTORE_KERNEL]
    barrier(p, control, threads)
    if me == 0:
        control[t.STEP], control[t.CHUNK], control[t.STATUS] = step, chunk, status
        control[t.PRIMED], control[t.NEXT_OPERATION] = primed, operation
    call(restore, saved)
    if me > 0:
        # the caller need not wait for this thread any more: nothing of the run is touched
        call(watch, bell, rung, looks)
    return status


@inline
def predict(p, seen, x, out):
    """Outputs of a few rows, in this thread: x and out point to array objects.

    Returns 0 where x is no array of the program's columns and dtype that can be read in place, has
    too many rows, or NaN or infinity among its elements; ``out`` is then untouched.
    """
    gather, copy_out = p[t.CHUNK_BEGIN], p[t.CHUNK_END] - t.WIDTH
    call(p[t.DESCRIBE], address(out, 0), address(seen, 0))
    p[copy_out + t.C], dtype = seen[t.ARRAY_DATA], seen[t.ARRAY_TYPE]
    call(p[t.DESCRIBE], address(x, 0), address(seen, 0))
    rows, columns = seen[t.ARRAY_ROWS], seen[t.ARRAY_COLUMNS]
    if (seen[t.ARRAY_AXES] != 2 or seen[t.ARRAY_TYPE] != dtype or rows < 1
            or rows > p[t.CHUNK_ROWS] or columns != p[gather + t.COLUMNS]
            or (columns > 1 and seen[t.ARRAY_STEP] != p[t.ITEMSIZE])):
        return 0
    saved = call(p[t.FLUSH_KERNEL])
    p[gather + t.A], p[gather + t.LDA] = seen[t.ARRAY_DATA], seen[t.ARRAY_ROW_BYTES]
    finite = call(p[gather + t.TAIL], seen[t.ARRAY_DATA], seen[t.ARRAY_ROW_BYTES], rows, columns)
    if finite:
        at = Place(0, 0, 0, rows, rows, 0, 0, 0, rows, 0, 0, 0)
        _walk(p, gather, p[t.CHUNK_END], p, 0, 1, at)
    call(p[t.RESTORE_KERNEL], saved)
    return finite
