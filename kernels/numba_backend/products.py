"""Matrix-product micro-kernels: a tile of C in registers, the whole inner dimension in one loop.

Every element of C is one ascending chain of fused multiply-adds, from zero or from what C held, so
tiles of every shape, on every vector width, give the same bits.
"""

from __future__ import annotations

from llvmlite import ir

from .emit import Kernel, integer
from .machine import Tile, target
from .table import NARROW

ARGUMENTS = "ipipipiip"
"""inner, a, lda, b, ldb, c, ldc, accumulate, bias: see :func:`_emit_tile`."""


def tiles(transposed: bool) -> list[Tile]:
    """The tiles that are compiled: all that a remainder of rows or vectors can need.

    A transposed A offers its rows side by side, so narrow, tall tiles pay; where A's rows lie far
    apart, six streams at once are what the caches like.
    """
    widest = min(NARROW, target().widest()) if transposed else target().widest()
    shapes = []
    for vectors in range(1, widest + 1):
        most = target().rows(vectors)
        shapes += [Tile(vectors, rows) for rows in _row_counts(most)]
    return shapes


def _row_counts(most: int) -> list[int]:
    """The heights that together cover any remainder in few calls."""
    return [rows for rows in (1, 2, 3, 4, 6, 8, 12) if rows <= most]


def name(transposed: bool, tile: Tile) -> str:
    """The name of a tile's function."""
    return f"product_{'columns' if transposed else 'rows'}_{tile.rows}x{tile.vectors}"


def module(dtype: str) -> ir.Module:
    """All product tiles of one dtype."""
    result = ir.Module(f"products_{dtype}")
    for transposed in (False, True):
        for tile in tiles(transposed):
            _emit_tile(result, dtype, tile, transposed)
    return result


def _emit_tile(result: ir.Module, dtype: str, tile: Tile, transposed: bool) -> None:
    """C[rows, vectors * lanes] = (C or 0) + A B (+ bias).

    A is (rows, inner) with leading dimension lda, or (inner, rows) where ``transposed``. Flops:
    2 rows inner columns. Bytes: A and B once, C once (twice where it accumulates).
    """
    kernel = Kernel(result, name(transposed, tile), ARGUMENTS, dtype, target().lanes(dtype))
    builder, lanes = kernel.builder, kernel.lanes
    inner, a, lda, b, ldb, c, ldc, accumulate, bias = kernel.arguments
    row_of_c = [kernel.at(c, builder.mul(ldc, integer(row))) for row in range(tile.rows)]
    row_of_a = [kernel.at(a, builder.mul(lda, integer(row))) for row in range(tile.rows)]
    zero = kernel.constant(0.0)
    sums = [[kernel.variable(zero) for _ in range(tile.vectors)] for _ in range(tile.rows)]
    with builder.if_then(builder.icmp_signed("!=", accumulate, integer(0))):
        for row, slots in zip(row_of_c, sums, strict=True):
            for vector, slot in enumerate(slots):
                builder.store(kernel.load_vector(kernel.at(row, vector * lanes)), slot)

    with kernel.loop(inner) as k:
        row_of_b = kernel.at(b, builder.mul(k, ldb))
        columns = [
            kernel.load_vector(kernel.at(row_of_b, vector * lanes))
            for vector in range(tile.vectors)
        ]
        a_k = kernel.at(a, builder.mul(k, lda)) if transposed else None
        for row, slots in enumerate(sums):
            address = kernel.at(a_k, row) if transposed else kernel.at(row_of_a[row], k)
            factor = kernel.splat(kernel.load(address))
            for column, slot in zip(columns, slots, strict=True):
                builder.store(kernel.fma(factor, column, builder.load(slot)), slot)

    no_bias = builder.icmp_unsigned("==", builder.ptrtoint(bias, ir.IntType(64)), integer(0))
    with builder.if_then(builder.not_(no_bias)):
        for vector in range(tile.vectors):
            addend = kernel.load_vector(kernel.at(bias, vector * lanes))
            for slots in sums:
                builder.store(builder.fadd(builder.load(slots[vector]), addend), slots[vector])
    for row, slots in zip(row_of_c, sums, strict=True):
        for vector, slot in enumerate(slots):
            kernel.store_vector(builder.load(slot), kernel.at(row, vector * lanes))
    kernel.finish()
