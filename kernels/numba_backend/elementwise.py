"""Kernels made from formulas: activations with slopes and dropout, optimizer updates; gathers.

Each function here returns a module with one function, ``NAME``, over a (rows, columns) block that
lies anywhere in memory. The formula is read as vectors (``tracing.vector``) and, for slopes, as
dual numbers over vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace

from llvmlite import ir

from .. import formulas
from ..tracing.dual import derivative, value_and_derivative
from ..tracing.vector import VectorMath
from .emit import I8, I32, I64, POINTER, Kernel, integer, only_kernel
from .extra import MAP_LEARNED, MAP_PER_LEARNED, MAP_SCALE, MAP_SEED, MAP_STREAM, MAP_THRESHOLD
from .machine import target
from .table import MOST_SLOTS

MASK_BLOCK = 64
"""Columns whose dropout words come from one row of Philox counters: four words, 16 columns each."""
_MASK_GROUP = MASK_BLOCK // 4


def map_module(
    dtype: str,
    formula: formulas.ActivationFormula,
    settings: Mapping[str, float],
    *,
    slope: bool,
    dropout: bool,
    shared: bool = False,
    learned_slopes: bool = True,
) -> ir.Module:
    """``y = f(x)``; with ``slope`` also y', and y by each learned parameter; dropout on all.

    Arguments: x, ldx, y, ldy, slope, ld_slope, rows, columns, first_row, first_column, place, step,
    extra. ``first_row`` and ``first_column`` number the elements for dropout; ``place`` is the
    first row in the outputs of learned parameters. ``shared`` says that a learned parameter is one
    number for all columns, ``learned_slopes`` that y by it is wanted.
    Flops: the formula's. Bytes: one read and one write an element, two writes with ``slope``.
    """
    kernel = only_kernel("pipipiiiiiiip", dtype)
    builder = kernel.builder
    x, ldx, y, ldy, out_slope, ld_slope, rows, columns, *place, extra = kernel.arguments
    first_row, first_column, first_place, step = place
    math = VectorMath(builder, dtype, kernel.lanes)
    learned = [
        _Learned(kernel, extra, MAP_LEARNED + MAP_PER_LEARNED * number, first_column, shared)
        for number in range(len(formula.learned))
    ]

    def function(m, *numbers):
        return formula.function(m, *numbers, **settings)

    def block(row: ir.Value, column: ir.Value, mask: ir.Value | None, keep) -> None:
        def put(value: ir.Value, base: ir.Value, stride: ir.Value) -> None:
            address = kernel.at(base, builder.mul(row, stride), column)
            kernel.store_vector(keep(value), address, mask)

        value = kernel.load_vector(kernel.at(x, builder.mul(row, ldx), column), mask)
        numbers = [math.vector(value)]
        numbers += [math.vector(parameter.load(column, mask)) for parameter in learned]
        if not slope:
            put(math.vector(function(math, *numbers)).value, y, ldy)
            return
        result, by_x = value_and_derivative(function)(math, *numbers)
        put(math.vector(result).value, y, ldy)
        put(math.vector(by_x).value, out_slope, ld_slope)
        for number, parameter in enumerate(learned if learned_slopes else (), start=1):
            by_parameter = derivative(function, number)(math, *numbers)
            out = kernel.at(parameter.out, builder.mul(first_place, parameter.ld_out))
            put(math.vector(by_parameter).value, out, parameter.ld_out)

    with kernel.loop(rows) as row:
        if dropout:
            drop = _Dropout(kernel, math, extra)
            drop.walk(row, columns, first_row, first_column, step, block)
        else:
            kernel.columns(
                columns, lambda column, mask: block(row, column, mask, lambda value: value)
            )
    kernel.finish()
    return builder.module


class _Learned:
    """A learned parameter of a formula: a number a column, or one for all of them."""

    def __init__(self, kernel: Kernel, extra, word: int, first_column, shared: bool) -> None:
        def field(offset: int, kind: ir.Type) -> ir.Value:
            return kernel.load(kernel.at(extra, word + offset, element=I64), kind)

        self.kernel, self.shared = kernel, shared
        self.values = field(0, POINTER)
        if not shared:
            self.values = kernel.at(self.values, first_column)
        self.out, self.ld_out = field(1, POINTER), field(2, I64)

    def load(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        if self.shared:
            return self.kernel.splat(self.kernel.load(self.values))
        return self.kernel.load_vector(self.kernel.at(self.values, column), mask)


class _Dropout:
    """Walks a row in the blocks that share Philox counters and zeroes what is dropped."""

    def __init__(self, kernel: Kernel, math: VectorMath, extra: ir.Value) -> None:
        self.kernel, self.math = kernel, math

        def word(number: int) -> ir.Value:
            return kernel.load(kernel.at(extra, number, element=I64), I64)

        seed = word(MAP_SEED)
        high = kernel.builder.lshr(seed, integer(32))
        self.key = tuple(self._lanes(half) for half in (seed, high))
        self.stream = self._lanes(word(MAP_STREAM))
        self.threshold = self._lanes(word(MAP_THRESHOLD))
        scale = kernel.load(kernel.at(extra, MAP_SCALE, element=I64))
        self.scale = kernel.splat(scale)

    def _lanes(self, value: ir.Value):
        return self.math.integer(self.kernel.splat(self.kernel.narrow(value)))

    def walk(self, row, columns, first_row, first_column, step, body: Callable) -> None:
        """Call ``body(row, column, mask, keep)`` for every vector of the row."""
        kernel, builder, lanes = self.kernel, self.kernel.builder, self.kernel.lanes
        number = self._lanes(builder.add(first_row, row))
        first_block = builder.sdiv(first_column, integer(MASK_BLOCK))
        end = builder.sdiv(
            builder.add(builder.add(first_column, columns), integer(MASK_BLOCK - 1)),
            integer(MASK_BLOCK),
        )
        with kernel.loop(end, first=first_block) as block:
            for part in range(0, _MASK_GROUP, lanes):
                group = builder.add(builder.mul(block, integer(_MASK_GROUP)), integer(part))
                lane = builder.add(kernel.splat(kernel.narrow(group)), kernel.lane_numbers())
                counter = (number, self.math.integer(lane), self._lanes(step), self.stream)
                words = formulas.philox(self.math, counter, self.key)
                for index, word in enumerate(words):
                    offset = builder.mul(block, integer(MASK_BLOCK))
                    offset = builder.add(offset, integer(_MASK_GROUP * index + part))
                    self._vector(row, builder.sub(offset, first_column), columns, word, body)

    def _vector(self, row, column, columns, word, body: Callable) -> None:
        kernel, builder = self.kernel, self.kernel.builder
        inside = builder.and_(
            builder.icmp_signed(">=", column, integer(0)),
            builder.icmp_signed("<", column, columns),
        )
        with builder.if_then(inside):
            kept = formulas.keep(self.math, word, self.threshold).value
            zero = kernel.constant(0.0)

            def keep(value: ir.Value) -> ir.Value:
                return builder.select(kept, builder.fmul(value, self.scale), zero)

            body(row, column, kernel.first_lanes(builder.sub(columns, column)), keep)


def multiply_module(dtype: str) -> ir.Module:
    """``d *= slope``. Arguments: d, ldd, slope, ld_slope, rows, columns.

    Flops: one an element. Bytes: two reads and one write an element.
    """
    kernel = only_kernel("pipiii", dtype)
    builder = kernel.builder
    d, ldd, slope, ld_slope, rows, columns = kernel.arguments
    with kernel.loop(rows) as row:

        def body(column: ir.Value, mask: ir.Value | None) -> None:
            address = kernel.at(d, builder.mul(row, ldd), column)
            factor = kernel.at(slope, builder.mul(row, ld_slope), column)
            product = builder.fmul(
                kernel.load_vector(address, mask), kernel.load_vector(factor, mask)
            )
            kernel.store_vector(product, address, mask)

        kernel.columns(columns, body)
    kernel.finish()
    return builder.module


_SLOTS = "p" * MOST_SLOTS
"""Every update takes so many addresses of slots, and reads those that its formula has."""


def update_module(
    dtype: str, formula: formulas.UpdateFormula, *, scaled: bool, clipped: bool
) -> ir.Module:
    """One optimizer step on a block of parameters, in place.

    Arguments: weight, ld_weight, grad, ld_grad, rows, columns, scalars, scale, the slots.
    ``scalars`` are the formula's, in its order, then the limit of ``clipped``; ``scale`` is one
    number, by which the gradient is multiplied where ``scaled``. Slots lie as the weights do.
    Bytes: 8 + 8 slots + 4 an element in float32 (the gradient often still in the nearest cache).
    """
    arguments = "pipiiipp" + _SLOTS
    kernel = only_kernel(arguments, dtype)
    builder = kernel.builder
    weight, ldw, grad, ldg, rows, columns, scalars, scale, *slots = kernel.arguments
    update = _Update(kernel, formula, scalars, clipped)
    factor = update.math.splat(kernel.load(scale)) if scaled else None
    with kernel.loop(rows) as row:

        def body(column: ir.Value, mask: ir.Value | None) -> None:
            g = kernel.load_vector(kernel.at(grad, builder.mul(row, ldg), column), mask)
            g = update.math.vector(g)
            update.apply([weight, *slots], ldw, row, column, mask, g * factor if scaled else g)

        kernel.columns(columns, body)
    kernel.finish()
    return builder.module


def outer_update_module(
    dtype: str, formula: formulas.UpdateFormula, batch: int, *, clipped: bool
) -> ir.Module:
    """One optimizer step by the gradient x' d of a few rows, which never leaves the registers.

    Arguments: weight, ld_weight, x, ldx, d, ldd, rows, columns, scalars, the slots; x and d have
    ``batch`` rows, x a column for each row of the weights. The gradient is the chain that the
    product makes, to the bit. Flops: 2 an element and row, and the formula's. Bytes: those of the
    weights and slots, read and written once.
    """
    arguments = "pipipiiip" + _SLOTS
    kernel = only_kernel(arguments, dtype)
    builder = kernel.builder
    weight, ldw, x, ldx, d, ldd, rows, columns, scalars, *slots = kernel.arguments
    update = _Update(kernel, formula, scalars, clipped)
    x_rows = [kernel.at(x, builder.mul(ldx, integer(b))) for b in range(batch)]
    d_rows = [kernel.at(d, builder.mul(ldd, integer(b))) for b in range(batch)]

    def walk(lanes: list[tuple[ir.Value, ir.Value | None]]) -> None:
        held = [
            [kernel.load_vector(kernel.at(d_row, column), mask) for column, mask in lanes]
            for d_row in d_rows
        ]
        with kernel.loop(rows) as row:
            grads = [kernel.constant(0.0)] * len(lanes)
            for x_row, d_vectors in zip(x_rows, held, strict=True):
                factor = kernel.splat(kernel.load(kernel.at(x_row, row)))
                grads = [
                    kernel.fma(factor, vector, grad)
                    for vector, grad in zip(d_vectors, grads, strict=True)
                ]
            for (column, mask), grad in zip(lanes, grads, strict=True):
                update.apply([weight, *slots], ldw, row, column, mask, update.math.vector(grad))

    kernel.column_groups(columns, _held_vectors(batch), walk)
    kernel.finish()
    return builder.module


def sweep_module(dtype: str, formula: formulas.UpdateFormula, *, clipped: bool) -> ir.Module:
    """One optimizer step by one row, and the product of the next row with the new weights.

    Arguments: weight, ld_weight, x, d, rows, columns, scalars, next_x, out, accumulate, the
    slots: out (+)= next_x weight, after weight has moved by the gradient x' d. Both are the chains
    that they are apart, to the bit. Flops: 4 an element and the formula's. Bytes: those of the
    weights and slots, read and written once, where apart the weights are read twice.
    """
    arguments = "pippiippp" + "i" + _SLOTS
    kernel = only_kernel(arguments, dtype)
    builder, zero = kernel.builder, kernel.constant(0.0)
    weight, ldw, x, d, rows, columns, scalars, next_x, out, accumulate, *slots = kernel.arguments
    update = _Update(kernel, formula, scalars, clipped)
    goes_on = builder.icmp_signed("!=", accumulate, integer(0))

    def walk(lanes: list[tuple[ir.Value, ir.Value | None]]) -> None:
        grads = [kernel.load_vector(kernel.at(d, column), mask) for column, mask in lanes]
        sums = [kernel.variable(zero) for _ in lanes]
        with builder.if_then(goes_on):
            for (column, _), total in zip(lanes, sums, strict=True):
                builder.store(kernel.load_vector(kernel.at(out, column)), total)
        with kernel.loop(rows) as row:
            factor, next_factor = (
                kernel.splat(kernel.load(kernel.at(values, row))) for values in (x, next_x)
            )
            for (column, mask), grad, total in zip(lanes, grads, sums, strict=True):
                g = update.math.vector(kernel.fma(factor, grad, zero))
                moved = update.apply([weight, *slots], ldw, row, column, mask, g)
                builder.store(kernel.fma(next_factor, moved, builder.load(total)), total)
        for (column, _), total in zip(lanes, sums, strict=True):
            kernel.store_vector(builder.load(total), kernel.at(out, column))

    kernel.column_groups(columns, _UNROLL, walk)
    kernel.finish()
    return builder.module


_UNROLL = 4
"""Vectors to a turn of a loop whose body is short."""


def _held_vectors(batch: int) -> int:
    """Neighbouring vectors whose ``batch`` rows of gradients half of the registers hold."""
    most = target().registers() // 2
    return max((v for v in (1, 2, _UNROLL) if v * batch <= most), default=1)


class _Update:
    """An optimizer's formula on vectors of weights and slots."""

    def __init__(
        self, kernel: Kernel, formula: formulas.UpdateFormula, scalars: ir.Value, clipped: bool
    ) -> None:
        self.kernel, self.formula = kernel, formula
        self.math = VectorMath(kernel.builder, kernel.dtype, kernel.lanes)

        def scalar(number: int):
            return self.math.splat(kernel.load(kernel.at(scalars, number)))

        self.names = SimpleNamespace(**{n: scalar(i) for i, n in enumerate(formula.scalars)})
        self.limit = scalar(len(formula.scalars)) if clipped else None

    def apply(self, bases, stride, row, column, mask, grad) -> ir.Value:
        """Update one vector of the weights and slots at ``bases``; the new weights."""
        kernel, math = self.kernel, self.math
        if self.limit is not None:
            grad = formulas.clip(math, grad, self.limit)
        skip = kernel.builder.mul(row, stride)
        own = bases[: 1 + len(self.formula.slots)]
        places = [kernel.at(base, skip, column) for base in own]
        weight, *old = (math.vector(kernel.load_vector(place, mask)) for place in places)
        new, moved = self.formula.function(math, weight, grad, tuple(old), self.names)
        for value, place in zip((new, *moved), places, strict=True):
            kernel.store_vector(math.vector(value).value, place, mask)
        return math.vector(new).value


_SOURCES = {
    "float32": (ir.FloatType(), "fpext"),
    "float64": (ir.DoubleType(), "fptrunc"),
    "float16": (ir.HalfType(), "fpext"),
    "uint8": (I8, "uitofp"),
    "int8": (I8, "sitofp"),
    "uint16": (ir.IntType(16), "uitofp"),
    "int16": (ir.IntType(16), "sitofp"),
    "int32": (I32, "sitofp"),
    "uint32": (I32, "uitofp"),
    "int64": (I64, "sitofp"),
    "uint64": (I64, "uitofp"),
    "bool": (I8, "uitofp"),
}
SOURCES = tuple(_SOURCES)
"""Dtypes of data that are converted as they are gathered."""


def gather_module(dtype: str, source: str) -> ir.Module:
    """Rows of ``data`` named by ``index``, converted to ``dtype``.

    Arguments: data, row_bytes, index (or null: the rows as they stand), first, out, ld_out, rows,
    columns: out[r] = data[index[first + r]]. Bytes: a read of the source and a write an element.
    """
    kernel = only_kernel("pipipiii", dtype)
    builder = kernel.builder
    data, row_bytes, index, first, out, ld_out, rows, columns = kernel.arguments
    element, cast = _SOURCES[source]
    indexed = kernel.is_given(index)
    with kernel.loop(rows) as row:
        position = builder.add(first, row)
        number = kernel.variable(position)
        with builder.if_then(indexed):
            builder.store(kernel.load(kernel.at(index, position, element=I64), I64), number)
        offset = builder.mul(builder.load(number), row_bytes)
        begin = kernel.at(data, offset, element=I8)

        def body(column: ir.Value, mask: ir.Value | None, row=row, begin=begin) -> None:
            values = kernel.load_vector(kernel.at(begin, column, element=element), mask, element)
            if source != dtype:
                values = getattr(builder, cast)(values, kernel.vector_type)
            kernel.store_vector(values, kernel.at(out, builder.mul(row, ld_out), column), mask)

        kernel.columns(columns, body)
    kernel.finish()
    return builder.module
