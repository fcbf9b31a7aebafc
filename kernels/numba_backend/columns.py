"""Kernels that sum over rows or over flat buffers, and batch normalisation, which needs such sums.

Every sum runs in an order chosen from the shape alone: ascending within a block of rows, blocks
ascending, lanes folded in halves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from llvmlite import ir

from .. import formulas
from ..tracing.vector import VectorMath
from .emit import I8, I32, I64, Kernel, integer, only_kernel

SUM_BLOCK = 128
"""Rows added up before their sum is added to the total: long sums then round less."""
_CHAINS = 4
"""Sums that a core makes at once while each waits for its last addition."""


def total_module(dtype: str) -> ir.Module:
    """out[0] (+)= sum of ``values``; returns 1 while the result is finite, else 0.

    Arguments: values, count, out, accumulate, factor (a pointer). Flops and reads: one a value.
    """
    kernel = only_kernel("pipip", dtype, returns=True)
    builder = kernel.builder
    values, count, out, accumulate, factor = kernel.arguments
    total = _flat_sum(kernel, values, count, builder.fadd)
    result = builder.fmul(total, kernel.load(factor))
    add = builder.icmp_signed("!=", accumulate, integer(0))
    before = kernel.variable(kernel.scalar(0.0))
    with builder.if_then(add):
        builder.store(kernel.load(out), before)
    result = builder.fadd(builder.load(before), result)
    kernel.store(result, out)
    zero_if_finite = builder.fsub(result, result)
    finite = builder.fcmp_ordered("==", zero_if_finite, kernel.scalar(0.0))
    kernel.finish(builder.zext(finite, I64))
    return builder.module


def batch_scale_module(dtype: str) -> ir.Module:
    """out[0] = the scale of a batch by its weight (its number of rows where weights is null).

    Arguments: weights, index (or null), first, count, out. Flops: one a weight. Bytes: a weight
    and its index a row.
    """
    kernel = only_kernel("ppiip", dtype)
    builder = kernel.builder
    weights, index, first, count, out = kernel.arguments
    total = kernel.variable(builder.sitofp(count, kernel.element))
    weighted = kernel.is_given(weights)
    with builder.if_then(weighted):
        builder.store(kernel.scalar(0.0), total)
        with kernel.loop(count, SUM_BLOCK) as begin:
            part = kernel.variable(kernel.scalar(0.0))
            builder.store(kernel.scalar(0.0), part)
            with kernel.loop(_end_of_block(kernel, begin, count), first=begin) as place:
                position = kernel.variable(builder.add(first, place))
                builder.store(builder.add(first, place), position)
                indexed = kernel.is_given(index)
                with builder.if_then(indexed):
                    address = kernel.at(index, builder.load(position), element=I64)
                    builder.store(kernel.load(address, I64), position)
                value = kernel.load(kernel.at(weights, builder.load(position)))
                builder.store(builder.fadd(builder.load(part), value), part)
            builder.store(builder.fadd(builder.load(total), builder.load(part)), total)
    math = VectorMath(builder, dtype, kernel.lanes)
    scale = formulas.batch_scale(math, math.splat(builder.load(total)))
    kernel.store(builder.extract_element(scale.value, I32(0)), out)
    kernel.finish()
    return builder.module


def clip_scale_module(dtype: str) -> ir.Module:
    """out[0] = min(1, limit / norm), the norm from partial sums of squares.

    Arguments: partials, count, limit, out. The 1e-6 keeps a zero gradient a zero gradient. Flops
    and reads: one a partial sum.
    """
    kernel = only_kernel("pipp", dtype)
    builder = kernel.builder
    partials, count, limit, out = kernel.arguments
    math = VectorMath(builder, dtype, kernel.lanes)
    norm = math.sqrt(math.splat(_flat_sum(kernel, partials, count, builder.fadd)))
    scale = formulas.norm_clip(math, norm, math.splat(kernel.load(limit)))
    kernel.store(builder.extract_element(scale.value, I32(0)), out)
    kernel.finish()
    return builder.module


def squares_module(dtype: str) -> ir.Module:
    """out[0] = the sum of the squares of ``count`` values. Arguments: values, count, out.

    In chains side by side, which are added in the end: one alone would wait for itself. Flops: two
    a value. Bytes: one read a value.
    """
    kernel = only_kernel("pip", dtype)
    builder = kernel.builder
    values, count, out = kernel.arguments
    chains = [kernel.variable(kernel.constant(0.0)) for _ in range(_CHAINS)]

    def add(places: list[tuple[ir.Value, ir.Value | None]]) -> None:
        for (place, mask), chain in zip(places, chains, strict=False):
            value = kernel.load_vector(kernel.at(values, place), mask)
            builder.store(kernel.fma(value, value, builder.load(chain)), chain)

    kernel.column_groups(count, _CHAINS, add)
    total = functools.reduce(builder.fadd, map(builder.load, chains))
    kernel.store(kernel.sum_lanes(total), out)
    kernel.finish()
    return builder.module


def column_sums_module(dtype: str, *, products: bool) -> ir.Module:
    """out[c] (+)= sum over rows of a[r, c], or of a[r, c] b[r, c] where ``products``.

    Arguments: a, lda, b, ldb, rows, columns, out, accumulate. Flops: one an element, two where
    ``products``. Bytes: one read an element of each array.
    """
    kernel = only_kernel("pipiiipi", dtype)
    builder = kernel.builder
    a, lda, b, ldb, rows, columns, out, accumulate = kernel.arguments

    def body(column: ir.Value, mask: ir.Value | None) -> None:
        def term(row: ir.Value, total: ir.Value) -> ir.Value:
            value = kernel.load_vector(kernel.at(a, builder.mul(row, lda), column), mask)
            if not products:
                return builder.fadd(total, value)
            other = kernel.load_vector(kernel.at(b, builder.mul(row, ldb), column), mask)
            return kernel.fma(value, other, total)

        address = kernel.at(out, column)
        before = kernel.variable(kernel.constant(0.0))
        builder.store(kernel.constant(0.0), before)
        with builder.if_then(builder.icmp_signed("!=", accumulate, integer(0))):
            builder.store(kernel.load_vector(address, mask), before)
        total = _sum_over_rows(kernel, rows, term)
        kernel.store_vector(builder.fadd(builder.load(before), total), address, mask)

    kernel.columns(columns, body)
    kernel.finish()
    return builder.module


def moments_module(dtype: str) -> ir.Module:
    """Mean and biased variance of each column, in two passes.

    Arguments: x, ldx, rows, columns, mean, variance. Flops: four an element. Bytes: two reads an
    element, the second from a nearer cache where a column of vectors fits it.
    """
    kernel = only_kernel("piiipp", dtype)
    builder = kernel.builder
    x, ldx, rows, columns, mean, variance = kernel.arguments
    count = kernel.splat(builder.sitofp(rows, kernel.element))

    def body(column: ir.Value, mask: ir.Value | None) -> None:
        def load(row: ir.Value) -> ir.Value:
            return kernel.load_vector(kernel.at(x, builder.mul(row, ldx), column), mask)

        total = _sum_over_rows(kernel, rows, lambda row, part: builder.fadd(part, load(row)))
        average = builder.fdiv(total, count)
        kernel.store_vector(average, kernel.at(mean, column), mask)

        def square(row: ir.Value, part: ir.Value) -> ir.Value:
            deviation = builder.fsub(load(row), average)
            return kernel.fma(deviation, deviation, part)

        squares = _sum_over_rows(kernel, rows, square)
        kernel.store_vector(builder.fdiv(squares, count), kernel.at(variance, column), mask)

    kernel.columns(columns, body)
    kernel.finish()
    return builder.module


def batch_norm_module(dtype: str) -> ir.Module:
    """x_hat = (x - mean) / sqrt(variance + eps); y = gamma x_hat + beta.

    Arguments: x, ldx, x_hat (or null), ld_hat, y, ldy, rows, columns, mean, variance, gamma, beta,
    eps. (Ioffe & Szegedy 2015, algorithm 1.) Flops: four an element. Bytes: one read and two writes
    an element, one write where x_hat is null.
    """
    kernel = only_kernel("pipipiiippppp", dtype)
    builder = kernel.builder
    x, ldx, hat, ld_hat, y, ldy, rows, columns, mean, variance, gamma, beta, eps = kernel.arguments
    math = VectorMath(builder, dtype, kernel.lanes)
    epsilon = math.splat(kernel.load(eps))
    keeps_hat = kernel.is_given(hat)

    def body(column: ir.Value, mask: ir.Value | None) -> None:
        average, spread, scale, shift = (
            math.vector(kernel.load_vector(kernel.at(base, column), mask))
            for base in (mean, variance, gamma, beta)
        )
        inverse = formulas.inverse_deviation(math, spread, epsilon)
        with kernel.loop(rows) as row:
            value = kernel.load_vector(kernel.at(x, builder.mul(row, ldx), column), mask)
            x_hat = formulas.normalise(math, math.vector(value), average, inverse)
            with builder.if_then(keeps_hat):
                address = kernel.at(hat, builder.mul(row, ld_hat), column)
                kernel.store_vector(x_hat.value, address, mask)
            result = formulas.scale_shift(math, x_hat, scale, shift)
            kernel.store_vector(result.value, kernel.at(y, builder.mul(row, ldy), column), mask)

    kernel.columns(columns, body)
    kernel.finish()
    return builder.module


def batch_norm_grad_module(dtype: str) -> ir.Module:
    """The gradient by the input of a batch normalisation, in place of the gradient by its output.

    Arguments: grad, ld_grad, x_hat, ld_hat, rows, columns, variance, gamma, eps, grad_beta,
    grad_gamma, total_rows; the last two gradients are the sums over all rows of the batch. (Ioffe &
    Szegedy 2015, section 3.) Flops: five an element. Bytes: two reads and one write an element.
    """
    kernel = only_kernel("pipiiipppppi", dtype)
    builder = kernel.builder
    grad, ld_grad, hat, ld_hat, rows, columns, variance, gamma, eps, by_beta, by_gamma, count = (
        kernel.arguments
    )
    math = VectorMath(builder, dtype, kernel.lanes)
    epsilon = math.splat(kernel.load(eps))
    share = math.splat(builder.fdiv(kernel.scalar(1.0), builder.sitofp(count, kernel.element)))

    def body(column: ir.Value, mask: ir.Value | None) -> None:
        spread, scale, sum_grad, sum_product = (
            math.vector(kernel.load_vector(kernel.at(base, column), mask))
            for base in (variance, gamma, by_beta, by_gamma)
        )
        factor = scale * formulas.inverse_deviation(math, spread, epsilon)
        mean_grad, mean_product = sum_grad * share, sum_product * share
        with kernel.loop(rows) as row:
            address = kernel.at(grad, builder.mul(row, ld_grad), column)
            place = kernel.at(hat, builder.mul(row, ld_hat), column)
            result = formulas.batch_norm_grad(
                math,
                math.vector(kernel.load_vector(address, mask)),
                math.vector(kernel.load_vector(place, mask)),
                mean_grad,
                mean_product,
                factor,
            )
            kernel.store_vector(result.value, address, mask)

    kernel.columns(columns, body)
    kernel.finish()
    return builder.module


def running_average_module(dtype: str) -> ir.Module:
    """Move running mean and variance towards a batch's: the variance is made unbiased first.

    Arguments: mean, variance, running_mean, running_variance, momentum, columns, rows. Flops: seven
    a column. Bytes: four reads and two writes a column.
    """
    kernel = only_kernel("pppppii", dtype)
    builder = kernel.builder
    mean, variance, running_mean, running_variance, momentum, columns, rows = kernel.arguments
    math = VectorMath(builder, dtype, kernel.lanes)
    blend = math.splat(kernel.load(momentum))
    count = builder.sitofp(rows, kernel.element)
    unbiased = math.splat(builder.fdiv(count, builder.fsub(count, kernel.scalar(1.0))))

    def body(column: ir.Value, mask: ir.Value | None) -> None:
        for base, running, factor in (
            (mean, running_mean, None),
            (variance, running_variance, unbiased),
        ):
            address = kernel.at(running, column)
            old = math.vector(kernel.load_vector(address, mask))
            new = math.vector(kernel.load_vector(kernel.at(base, column), mask))
            if factor is not None:
                new = new * factor
            moved = formulas.running_average(math, old, new, blend)
            kernel.store_vector(moved.value, address, mask)

    kernel.columns(columns, body)
    kernel.finish()
    return builder.module


def finite_module(dtype: str) -> ir.Module:
    """Returns 1 where every value of a (rows, columns) block is finite, else 0.

    Arguments: x, row_bytes, rows, columns. Bytes: one read an element, no temporary.
    """
    kernel = only_kernel("piii", dtype, returns=True)
    builder = kernel.builder
    x, row_bytes, rows, columns = kernel.arguments
    total = kernel.variable(kernel.constant(0.0))
    with kernel.loop(rows) as row:
        begin = kernel.at(x, builder.mul(row, row_bytes), element=I8)

        def body(column: ir.Value, mask: ir.Value | None, begin=begin) -> None:
            value = kernel.load_vector(kernel.at(begin, column), mask)
            zero_if_finite = builder.fsub(value, value)
            builder.store(builder.fadd(builder.load(total), zero_if_finite), total)

        kernel.columns(columns, body)
    finite = builder.fcmp_ordered("==", kernel.sum_lanes(builder.load(total)), kernel.scalar(0.0))
    kernel.finish(builder.zext(finite, I64))
    return builder.module


def transpose_module(dtype: str) -> ir.Module:
    """out[c, r] = x[r, c]. Arguments: x, ldx, out, ld_out, rows, columns.

    Whole squares of lanes by lanes are turned over in registers, halves swapped with halves. No
    flops. Bytes: one read and one write an element.
    """
    kernel = only_kernel("pipiii", dtype)
    builder, lanes = kernel.builder, kernel.lanes
    x, ldx, out, ld_out, rows, columns = kernel.arguments
    whole_rows, whole_columns = (builder.and_(n, integer(-lanes)) for n in (rows, columns))

    def element(row: ir.Value, column: ir.Value) -> None:
        value = kernel.load(kernel.at(x, builder.mul(row, ldx), column))
        kernel.store(value, kernel.at(out, builder.mul(column, ld_out), row))

    with kernel.loop(whole_rows, lanes) as row:
        with kernel.loop(whole_columns, lanes) as column:
            begin = kernel.at(x, builder.mul(row, ldx), column)
            square = [
                kernel.load_vector(kernel.at(begin, builder.mul(ldx, integer(i))))
                for i in range(lanes)
            ]
            begin = kernel.at(out, builder.mul(column, ld_out), row)
            for i, vector in enumerate(kernel.turned_over(square)):
                kernel.store_vector(vector, kernel.at(begin, builder.mul(ld_out, integer(i))))
        with (
            kernel.loop(columns, first=whole_columns) as column,
            kernel.loop(builder.add(row, integer(lanes)), first=row) as one,
        ):
            element(one, column)
    with kernel.loop(rows, first=whole_rows) as row, kernel.loop(columns) as column:
        element(row, column)
    kernel.finish()
    return builder.module


def dots_module(dtype: str) -> ir.Module:
    """out[b, r] (+)= the dot product of d[b] with row r of x: the product with x', for few b.

    Arguments: x, ldx, d, ldd, out, ld_out, batch, rows, columns, accumulate; columns is a multiple
    of the lanes. The sums of as many rows as there are lanes are folded together. Flops: 2 batch
    rows columns. Bytes: x and d once for each row of the batch, out once.
    """
    kernel = only_kernel("pipipiiiii", dtype)
    builder, lanes = kernel.builder, kernel.lanes
    x, ldx, d, ldd, out, ld_out, batch, rows, columns, accumulate = kernel.arguments
    adds = builder.icmp_signed("!=", accumulate, integer(0))
    zero = kernel.constant(0.0)
    with kernel.loop(batch) as b:
        factor = kernel.at(d, builder.mul(b, ldd))
        sums = kernel.at(out, builder.mul(b, ld_out))

        def dots(row: ir.Value, count: int) -> list[ir.Value]:
            """The products of ``count`` rows, lane by lane."""
            parts = [kernel.variable(zero) for _ in range(count)]
            begins = [
                kernel.at(x, builder.mul(builder.add(row, integer(i)), ldx)) for i in range(count)
            ]
            with kernel.loop(columns, lanes) as column:
                weight = kernel.load_vector(kernel.at(factor, column))
                for part, begin in zip(parts, begins, strict=True):
                    value = kernel.load_vector(kernel.at(begin, column))
                    builder.store(kernel.fma(value, weight, builder.load(part)), part)
            return [builder.load(part) for part in parts]

        whole = builder.and_(rows, integer(-lanes))
        with kernel.loop(whole, lanes) as row:
            address = kernel.at(sums, row)
            before = kernel.variable(zero)
            with builder.if_then(adds):
                builder.store(kernel.load_vector(address), before)
            total = _sums_of_lanes(kernel, dots(row, lanes))
            kernel.store_vector(builder.fadd(builder.load(before), total), address)
        with kernel.loop(rows, first=whole) as row:
            address = kernel.at(sums, row)
            before = kernel.variable(kernel.scalar(0.0))
            with builder.if_then(adds):
                builder.store(kernel.load(address), before)
            (products,) = dots(row, 1)
            total = kernel.sum_lanes(products)
            kernel.store(builder.fadd(builder.load(before), total), address)
    kernel.finish()
    return builder.module


def philox_module() -> ir.Module:
    """Words of a Philox stream: out[4 n + i] = word i of counter (first + n, 0, epoch, stream).

    Arguments: out (uint32), blocks, first, seed, epoch, stream. Whole vectors of blocks are
    written: ``out`` has room for ``blocks`` rounded up to the lanes. (Salmon et al. 2011.) No
    flops, ten rounds of two 64-bit products a block. Bytes: 16 written a block.
    """
    kernel = only_kernel("piiiii", "float32")
    builder, lanes = kernel.builder, kernel.lanes
    out, blocks, first, seed, epoch, stream = kernel.arguments
    math = VectorMath(builder, "float32", lanes)

    def lane(value: ir.Value):
        return math.integer(kernel.splat(kernel.narrow(value)))

    key = (lane(seed), lane(builder.lshr(seed, integer(32))))
    words_type = ir.VectorType(I32, lanes)
    with kernel.loop(blocks, lanes) as block:
        number = kernel.splat(kernel.narrow(builder.add(first, block)))
        counter = (
            math.integer(builder.add(number, kernel.lane_numbers())),
            math.integer(ir.Constant(words_type, [0] * lanes)),
            lane(epoch),
            lane(stream),
        )
        words = [word.value for word in formulas.philox(math, counter, key)]
        for i in range(lanes):
            for w, word in enumerate(words):
                place = builder.add(builder.mul(block, integer(4)), integer(4 * i + w))
                builder.store(
                    builder.extract_element(word, I32(i)), kernel.at(out, place, element=I32)
                )
    kernel.finish()
    return builder.module


def _end_of_block(kernel: Kernel, begin: ir.Value, count: ir.Value) -> ir.Value:
    builder = kernel.builder
    end = builder.add(begin, integer(SUM_BLOCK))
    return builder.select(builder.icmp_signed("<", end, count), end, count)


def _flat_sum(
    kernel: Kernel,
    values: ir.Value,
    count: ir.Value,
    add: Callable[[ir.Value, ir.Value], ir.Value],
) -> ir.Value:
    """The sum of ``count`` values, ``add(part, value)`` lane by lane, then of the lanes."""
    builder = kernel.builder
    total = kernel.variable(kernel.constant(0.0))

    def body(place: ir.Value, mask: ir.Value | None) -> None:
        value = kernel.load_vector(kernel.at(values, place), mask)
        builder.store(add(builder.load(total), value), total)

    kernel.columns(count, body)
    return kernel.sum_lanes(builder.load(total))


def _sum_over_rows(
    kernel: Kernel, rows: ir.Value, term: Callable[[ir.Value, ir.Value], ir.Value]
) -> ir.Value:
    """The sum of ``term(row, part)`` in blocks of rows: parts ascending, then blocks ascending."""
    builder = kernel.builder
    zero = kernel.constant(0.0)
    total, part = kernel.variable(zero), kernel.variable(zero)
    builder.store(zero, total)
    with kernel.loop(rows, SUM_BLOCK) as begin:
        builder.store(zero, part)
        with kernel.loop(_end_of_block(kernel, begin, rows), first=begin) as row:
            builder.store(term(row, builder.load(part)), part)
        builder.store(builder.fadd(builder.load(total), builder.load(part)), total)
    return builder.load(total)


def _sums_of_lanes(kernel: Kernel, vectors: list[ir.Value]) -> ir.Value:
    """One vector of the sums of as many vectors as there are lanes, halves added to halves."""
    lanes = kernel.lanes
    size = lanes // 2
    while size:
        # lanes i and i + size of each vector are added; two vectors' results share one
        low = [i for i in range(2 * lanes) if i & size == 0]
        masks = [
            ir.Constant(ir.VectorType(I32, lanes), order)
            for order in (low, [i + size for i in low])
        ]
        vectors = [
            kernel.builder.fadd(
                *(kernel.builder.shuffle_vector(first, second, mask) for mask in masks)
            )
            for first, second in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        size //= 2
    return vectors[0]
