"""Matrix-product micro-kernels: a tile of C in registers, the whole inner dimension in one loop.

Every element of C is one ascending chain of fused multiply-adds, from zero or from what C held, so
tiles of every shape, on every vector width, give the same bits.
"""

from __future__ import annotations

from llvmlite import ir

from .emit import Kernel, integer
from .machine import Tile, target
from .table import EDGE_VECTORS

ARGUMENTS = "ipipipiip"
"""inner, a, lda, b, ldb, c, ldc, accumulate (of an edge: columns), bias (or null)."""
ROWS, COLUMNS, EDGE = "rows", "columns", "edge"
"""How the operands of a tile lie: A's rows apart and B in panels; A as (inner, rows) and B as rows
of a batch; or, for a few rows, B as its owner keeps it, of which nothing behind its last column is
read."""


def tiles(kind: str) -> list[Tile]:
    """The tiles that are compiled: all that a remainder of rows or vectors can need.

    A transposed A offers its rows side by side, so narrow, tall tiles pay, and wide ones where rows
    are few; where A's rows lie far apart, six streams at once are what the caches like. A single
    row wants many columns at once: its sums are chains, of which eight keep the multipliers busy.
    """
    widest = target().widest()
    if kind == EDGE:
        wide = [Tile(vectors, 1) for vectors in range(1, EDGE_VECTORS + 1)]
        return wide + [Tile(vectors, rows) for vectors in range(1, widest + 1) for rows in (2, 4)]
    shapes = []
    for vectors in range(1, widest + 1):
        most = target().rows(vectors)
        shapes += [Tile(vectors, rows) for rows in _row_counts(most)]
    return shapes


def _row_counts(most: int) -> list[int]:
    """The heights that together cover any remainder in few calls."""
    return [rows for rows in (1, 2, 3, 4, 6, 8, 12) if rows <= most]


def name(kind: str, tile: Tile) -> str:
    """The name of a tile's function."""
    return f"product_{kind}_{tile.rows}x{tile.vectors}"


def module(dtype: str, *kinds: str) -> ir.Module:
    """All product tiles of one dtype."""
    result = ir.Module(f"products_{dtype}")
    for kind in kinds or (ROWS, COLUMNS):
        for tile in tiles(kind):
            _emit_tile(result, dtype, tile, kind)
    return result


def _emit_tile(result: ir.Module, dtype: str, tile: Tile, kind: str) -> None:
    """C[rows, vectors * lanes] = (C or 0) + A B (+ bias).

    A is (rows, inner) with leading dimension lda, or (inner, rows). Flops: 2 rows inner columns.
    Bytes: A and B once, C once (twice where it accumulates).
    """
    kernel = Kernel(result, name(kind, tile), ARGUMENTS, dtype, target().lanes(dtype))
    builder, lanes = kernel.builder, kernel.lanes
    inner, a, lda, b, ldb, c, ldc, option, bias = kernel.arguments
    row_of_c = [kernel.at(c, builder.mul(ldc, integer(row))) for row in range(tile.rows)]
    row_of_a = [kernel.at(a, builder.mul(lda, integer(row))) for row in range(tile.rows)]
    zero = kernel.constant(0.0)
    sums = [[kernel.variable(zero) for _ in range(tile.vectors)] for _ in range(tile.rows)]
    masks: list[ir.Value | None] = [None] * tile.vectors
    if kind == EDGE:
        masks[-1] = kernel.first_lanes(builder.sub(option, integer((tile.vectors - 1) * lanes)))
    else:
        with builder.if_then(builder.icmp_signed("!=", option, integer(0))):
            for row, slots in zip(row_of_c, sums, strict=True):
                for vector, slot in enumerate(slots):
                    builder.store(kernel.load_vector(kernel.at(row, vector * lanes)), slot)

    def row_of_b(begin: ir.Value) -> list[ir.Value]:
        return [
            kernel.load_vector(kernel.at(begin, vector * lanes), mask)
            for vector, mask in enumerate(masks)
        ]

    with kernel.loop(inner) as k:
        columns = row_of_b(kernel.at(b, builder.mul(k, ldb)))
        a_k = kernel.at(a, builder.mul(k, lda)) if kind == COLUMNS else None
        for row, slots in enumerate(sums):
            address = kernel.at(a_k, row) if kind == COLUMNS else kernel.at(row_of_a[row], k)
            factor = kernel.splat(kernel.load(address))
            for column, slot in zip(columns, slots, strict=True):
                builder.store(kernel.fma(factor, column, builder.load(slot)), slot)
        turn = builder.block
    _keep_rolled(kernel, turn)

    with builder.if_then(kernel.is_given(bias)):
        for vector, addend in enumerate(row_of_b(bias)):
            for slots in sums:
                builder.store(builder.fadd(builder.load(slots[vector]), addend), slots[vector])
    for row, slots in zip(row_of_c, sums, strict=True):
        for vector, slot in enumerate(slots):
            kernel.store_vector(builder.load(slot), kernel.at(row, vector * lanes))
    kernel.finish()


def _keep_rolled(kernel: Kernel, turn: ir.Block) -> None:
    """Have LLVM leave the loop that ``turn`` closes as it is.

    Unrolled by four, each load would skip three rows of B, which the hardware seems to fetch ahead
    badly: a row's product with 784 rows of 512 bytes takes 2.9 µs from the second-level cache so,
    1.8 µs row by row, and the same either way from the first.
    """
    # the name makes the node this loop's own; LLVM wants a loop's node to begin with itself
    options = [["llvm.loop.unroll.disable"], [kernel.function.name]]
    loop = kernel.builder.module.add_metadata(options)
    loop.operands = (loop, *loop.operands)
    turn.terminator.set_metadata("llvm.loop", loop)
