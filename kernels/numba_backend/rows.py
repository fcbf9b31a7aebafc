"""Kernels over whole rows: losses with their gradients, softmax and its gradient.

A loss kernel reads the targets of its rows through the same index as the data was gathered by, and
leaves each row's loss (times its weight) and hit (1 where the prediction is right) in a buffer;
sums over rows are made elsewhere, in one order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from llvmlite import ir

from .. import formulas
from ..tracing.dual import value_and_derivative
from ..tracing.number import Number
from ..tracing.vector import VectorMath
from .emit import I32, I64, POINTER, Kernel, only_kernel
from .extra import (
    LOSS_HITS,
    LOSS_INDEX,
    LOSS_ROWS,
    LOSS_SETTING,
    LOSS_TARGET_LD,
    LOSS_TARGETS,
    LOSS_WEIGHTS,
)

_LOSS_ARGUMENTS = "pipiiiiipp"


def cross_entropy_module(dtype: str, *, labels: bool, gradient: bool) -> ir.Module:
    """Softmax cross-entropy of each row, and its gradient by the logits in the same pass.

    Arguments: logits, ld, grad, ld_grad, rows, columns, first, first_row, scale, extra: the rows'
    places in the epoch's order and in the chunk. Targets are int64 class numbers where ``labels``,
    else a row of probabilities each. grad may be logits itself. Flops: an exp and some eight more
    an element, with the gradient. Bytes: three reads and two writes an element, all but one of each
    from the nearest cache.
    """
    kernel = only_kernel(_LOSS_ARGUMENTS, dtype)
    builder = kernel.builder
    logits, ld, grad, ld_grad, rows, columns, first, first_row, scale, extra = kernel.arguments
    math = VectorMath(builder, dtype, kernel.lanes)
    loss = _LossRows(kernel, first, first_row, scale, extra)
    classes = math.splat(builder.sitofp(columns, kernel.element))
    kind = _LabelTargets if labels else _ProbabilityTargets
    with kernel.loop(rows) as row:
        z = kernel.at(logits, builder.mul(row, ld))
        out = kernel.at(grad, builder.mul(row, ld_grad))
        targets = kind(kernel, math, loss, classes, loss.position(row))
        best = _Best(kernel)
        kernel.columns(columns, lambda column, mask: best.see(z, column, mask))
        row_max = kernel.splat(best.value())
        zero = kernel.constant(0.0)
        total, target_sum, target_dot = (kernel.variable(zero) for _ in range(3))

        def add(slot: ir.Value, value: ir.Value, mask: ir.Value | None) -> None:
            value = kernel.zero_outside(mask, value)
            builder.store(builder.fadd(builder.load(slot), value), slot)

        def measure(column: ir.Value, mask: ir.Value | None) -> None:
            logit = kernel.load_vector(kernel.at(z, column), mask)
            numerator = formulas.softmax_numerator(math, math.vector(logit), math.vector(row_max))
            if gradient:
                kernel.store_vector(numerator.value, kernel.at(out, column), mask)
            t = targets.at(column, mask)
            add(total, numerator.value, mask)
            add(target_sum, t, mask)
            add(target_dot, builder.fmul(t, builder.fsub(logit, row_max)), mask)

        kernel.columns(columns, measure)
        sums = [
            math.splat(kernel.sum_lanes(builder.load(slot)))
            for slot in (total, target_sum, target_dot)
        ]
        row_loss = formulas.cross_entropy_row(math, sums[1], math.log(sums[0]), sums[2])
        hit = builder.icmp_signed("==", best.position(), targets.label(columns))
        factor = loss.record(row, row_loss.value, hit)
        if gradient:
            ratio = sums[1] / sums[0]

            def finish(column: ir.Value, mask: ir.Value | None) -> None:
                address = kernel.at(out, column)
                numerator = math.vector(kernel.load_vector(address, mask))
                t = math.vector(targets.at(column, mask))
                value = formulas.cross_entropy_grad(math, numerator, t, ratio)
                kernel.store_vector(builder.fmul(value.value, factor), address, mask)

            kernel.columns(columns, finish)
    kernel.finish()
    return builder.module


def elementwise_loss_module(
    dtype: str, formula: formulas.LossFormula, settings: Mapping[str, float], *, gradient: bool
) -> ir.Module:
    """The mean of an elementwise loss over each row, and its gradient by the outputs.

    Arguments as a cross-entropy's; targets are values. A row is a hit where every output lies on
    its target's side (0 for the output, 1/2 for the target). Flops: the formula's. Bytes: two reads
    an element, and one write with ``gradient``.
    """
    kernel = only_kernel(_LOSS_ARGUMENTS, dtype)
    builder = kernel.builder
    outputs, ld, grad, ld_grad, rows, columns, first, first_row, scale, extra = kernel.arguments
    math = VectorMath(builder, dtype, kernel.lanes)
    loss = _LossRows(kernel, first, first_row, scale, extra)
    per_column = kernel.splat(loss.setting)

    def function(m, output, goal):
        return formula.function(m, output, goal, **settings)

    with kernel.loop(rows) as row:
        z = kernel.at(outputs, builder.mul(row, ld))
        goals = loss.target_row(loss.position(row))
        total = kernel.variable(kernel.constant(0.0))
        misses = kernel.variable(ir.Constant(kernel.mask_type, None))
        weighted = kernel.splat(loss.factor(row))

        def body(column: ir.Value, mask: ir.Value | None) -> None:
            output = kernel.load_vector(kernel.at(z, column), mask)
            goal = kernel.load_vector(kernel.at(goals, column), mask)
            numbers = (math.vector(output), math.vector(goal))
            if gradient:
                value, by_output = value_and_derivative(function)(math, *numbers)
                scaled = builder.fmul(math.vector(by_output).value, per_column)
                address = kernel.at(grad, builder.mul(row, ld_grad), column)
                kernel.store_vector(builder.fmul(scaled, weighted), address, mask)
            else:
                value = function(math, *numbers)
            value = math.vector(value).value
            sides = [
                builder.fcmp_ordered(">", number, kernel.constant(limit))
                for number, limit in ((output, 0.0), (goal, 0.5))
            ]
            nan = builder.fcmp_unordered("uno", output, goal)
            miss = builder.or_(builder.xor(*sides), nan)
            value = kernel.zero_outside(mask, value)
            if mask is not None:
                miss = builder.and_(mask, miss)
            builder.store(builder.fadd(builder.load(total), value), total)
            builder.store(builder.or_(builder.load(misses), miss), misses)

        kernel.columns(columns, body)
        row_loss = kernel.splat(kernel.sum_lanes(builder.load(total)))
        missed = builder.bitcast(builder.load(misses), ir.IntType(kernel.lanes))
        hit = builder.icmp_unsigned("==", missed, ir.Constant(missed.type, 0))
        loss.record(row, builder.fmul(row_loss, per_column), hit)
    kernel.finish()
    return builder.module


def softmax_module(dtype: str) -> ir.Module:
    """Softmax of each row. Arguments: x, ldx, y, ldy, rows, columns; y may be x itself.

    Flops: an exp and four more an element. Bytes: three reads and two writes an element, all but
    one of each from the nearest cache.
    """
    kernel = only_kernel("pipiii", dtype)
    builder = kernel.builder
    x, ldx, y, ldy, rows, columns = kernel.arguments
    math = VectorMath(builder, dtype, kernel.lanes)
    with kernel.loop(rows) as row:
        z = kernel.at(x, builder.mul(row, ldx))
        out = kernel.at(y, builder.mul(row, ldy))
        best = _Best(kernel)
        kernel.columns(columns, lambda column, mask: best.see(z, column, mask))
        row_max = math.splat(best.value())
        total = kernel.variable(kernel.constant(0.0))

        def numerators(column: ir.Value, mask: ir.Value | None) -> None:
            logit = math.vector(kernel.load_vector(kernel.at(z, column), mask))
            value = formulas.softmax_numerator(math, logit, row_max).value
            kernel.store_vector(value, kernel.at(out, column), mask)
            value = kernel.zero_outside(mask, value)
            builder.store(builder.fadd(builder.load(total), value), total)

        kernel.columns(columns, numerators)
        divisor = kernel.splat(kernel.sum_lanes(builder.load(total)))

        def divide(column: ir.Value, mask: ir.Value | None) -> None:
            address = kernel.at(out, column)
            value = builder.fdiv(kernel.load_vector(address, mask), divisor)
            kernel.store_vector(value, address, mask)

        kernel.columns(columns, divide)
    kernel.finish()
    return builder.module


def softmax_grad_module(dtype: str) -> ir.Module:
    """The gradient of softmax. Arguments: y, ldy, grad, ld_grad, rows, columns; grad in place.

    Flops: four an element. Bytes: two reads of each element, one write.
    """
    kernel = only_kernel("pipiii", dtype)
    builder = kernel.builder
    y, ldy, grad, ld_grad, rows, columns = kernel.arguments
    math = VectorMath(builder, dtype, kernel.lanes)
    with kernel.loop(rows) as row:
        outputs = kernel.at(y, builder.mul(row, ldy))
        grads = kernel.at(grad, builder.mul(row, ld_grad))
        total = kernel.variable(kernel.constant(0.0))

        def product(column: ir.Value, mask: ir.Value | None) -> None:
            value = kernel.load_vector(kernel.at(outputs, column), mask)
            by_value = kernel.load_vector(kernel.at(grads, column), mask)
            builder.store(kernel.fma(value, by_value, builder.load(total)), total)

        kernel.columns(columns, product)
        dot = math.splat(kernel.sum_lanes(builder.load(total)))

        def finish(column: ir.Value, mask: ir.Value | None) -> None:
            value = math.vector(kernel.load_vector(kernel.at(outputs, column), mask))
            address = kernel.at(grads, column)
            by_value = math.vector(kernel.load_vector(address, mask))
            result = formulas.softmax_grad(math, value, by_value, dot)
            kernel.store_vector(result.value, address, mask)

        kernel.columns(columns, finish)
    kernel.finish()
    return builder.module


class _Best:
    """The largest element of a row and the first place where it stands."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.places_type = ir.VectorType(I32, kernel.lanes)
        self.values = kernel.variable(kernel.constant(float("-inf")))
        self.places = kernel.variable(ir.Constant(self.places_type, [_NOWHERE] * kernel.lanes))

    def see(self, row: ir.Value, column: ir.Value, mask: ir.Value | None) -> None:
        kernel, builder = self.kernel, self.kernel.builder
        value = kernel.load_vector(kernel.at(row, column), mask)
        if mask is not None:
            value = builder.select(mask, value, kernel.constant(float("-inf")))
        best = builder.load(self.values)
        better = builder.fcmp_unordered(">", value, best)
        place = builder.add(kernel.splat(kernel.narrow(column)), kernel.lane_numbers())
        builder.store(builder.select(better, place, builder.load(self.places)), self.places)
        builder.store(kernel.maximum(value, best), self.values)

    def value(self) -> ir.Value:
        return self.kernel.max_lanes(self.kernel.builder.load(self.values))

    def position(self) -> ir.Value:
        """The first place of the largest element, 64 bits wide; past the end where it is NaN."""
        kernel, builder = self.kernel, self.kernel.builder
        values = builder.load(self.values)
        is_best = builder.fcmp_ordered("==", values, kernel.splat(kernel.max_lanes(values)))
        nowhere = ir.Constant(self.places_type, [_NOWHERE] * kernel.lanes)
        places = builder.select(is_best, builder.load(self.places), nowhere)
        first = kernel.call(f"llvm.vector.reduce.umin.v{kernel.lanes}i32", I32, places)
        return builder.zext(first, I64)


_NOWHERE = 0x7FFFFFFF


class _LossRows:
    """Where a loss kernel finds its rows' targets and weights, and leaves what they lose."""

    def __init__(
        self,
        kernel: Kernel,
        first: ir.Value,
        first_row: ir.Value,
        scale: ir.Value,
        extra: ir.Value,
    ) -> None:
        def word(number: int, kind: ir.Type) -> ir.Value:
            return kernel.load(kernel.at(extra, number, element=I64), kind)

        self.kernel, self.first = kernel, first
        self.index, self.targets = word(LOSS_INDEX, POINTER), word(LOSS_TARGETS, POINTER)
        self.target_ld = word(LOSS_TARGET_LD, I64)
        self.weights = word(LOSS_WEIGHTS, POINTER)
        self.row_losses, self.row_hits = (
            kernel.at(word(number, POINTER), first_row) for number in (LOSS_ROWS, LOSS_HITS)
        )
        self.setting = word(LOSS_SETTING, kernel.element)
        self.scale = kernel.load(scale)

    def position(self, row: ir.Value) -> ir.Value:
        """The row of the data set behind this row of the batch."""
        kernel, builder = self.kernel, self.kernel.builder
        place = builder.add(self.first, row)
        return self._unless_null(
            self.index, place, lambda: kernel.load(kernel.at(self.index, place, element=I64), I64)
        )

    def target_row(self, position: ir.Value) -> ir.Value:
        return self.kernel.at(self.targets, self.kernel.builder.mul(position, self.target_ld))

    def weight(self, row: ir.Value) -> ir.Value:
        kernel, position = self.kernel, self.position(row)
        return self._unless_null(
            self.weights, kernel.scalar(1.0), lambda: kernel.load(kernel.at(self.weights, position))
        )

    def factor(self, row: ir.Value) -> ir.Value:
        """What a row's gradient is multiplied by: its weight over the weight of the batch."""
        return self.kernel.builder.fmul(self.weight(row), self.scale)

    def record(self, row: ir.Value, row_loss: ir.Value, hit: ir.Value) -> ir.Value:
        """Store a row's weighted loss (given in every lane) and hit; return its splat factor."""
        kernel, builder = self.kernel, self.kernel.builder
        single = builder.extract_element(row_loss, I32(0))
        weighted = builder.fmul(single, self.weight(row))
        kernel.store(weighted, kernel.at(self.row_losses, row))
        one_or_zero = builder.select(hit, kernel.scalar(1.0), kernel.scalar(0.0))
        kernel.store(one_or_zero, kernel.at(self.row_hits, row))
        return kernel.splat(self.factor(row))

    def _unless_null(self, pointer: ir.Value, otherwise: ir.Value, value: Callable) -> ir.Value:
        builder = self.kernel.builder
        slot = self.kernel.variable(otherwise)
        with builder.if_then(self.kernel.is_given(pointer)):
            builder.store(value(), slot)
        return builder.load(slot)


class _Targets(ABC):
    """The targets of one row of a cross-entropy, smoothed; ``position`` is the row of the data."""

    def __init__(
        self,
        kernel: Kernel,
        math: VectorMath,
        loss: _LossRows,
        classes: Number,
        position: ir.Value,
    ) -> None:
        self.kernel, self.math, self.classes = kernel, math, classes
        self.found = self.find(loss, position)
        self.smoothing = math.splat(loss.setting)

    def at(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        """The targets of a vector of columns."""
        sharp = self.math.vector(self.sharp(column, mask))
        return formulas.smooth_target(self.math, sharp, self.smoothing, self.classes).value

    @abstractmethod
    def find(self, loss: _LossRows, position: ir.Value) -> ir.Value:
        """What stands for the row in the data."""

    @abstractmethod
    def sharp(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        """The targets of a vector of columns before smoothing."""

    @abstractmethod
    def label(self, columns: ir.Value) -> ir.Value:
        """The class that a right prediction names."""


class _LabelTargets(_Targets):
    """Made from a row's class number."""

    def find(self, loss: _LossRows, position: ir.Value) -> ir.Value:
        kernel = self.kernel
        return kernel.load(kernel.at(loss.targets, position, element=I64), I64)

    def sharp(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        kernel, builder = self.kernel, self.kernel.builder
        place = builder.add(kernel.splat(kernel.narrow(column)), kernel.lane_numbers())
        hit = builder.icmp_signed("==", place, kernel.splat(kernel.narrow(self.found)))
        return builder.select(hit, kernel.constant(1.0), kernel.constant(0.0))

    def label(self, columns: ir.Value) -> ir.Value:
        return self.found


class _ProbabilityTargets(_Targets):
    """Read from a row of probabilities."""

    def find(self, loss: _LossRows, position: ir.Value) -> ir.Value:
        return loss.target_row(position)

    def sharp(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        return self.kernel.load_vector(self.kernel.at(self.found, column), mask)

    def label(self, columns: ir.Value) -> ir.Value:
        best = _Best(self.kernel)
        self.kernel.columns(columns, lambda column, mask: best.see(self.found, column, mask))
        return best.position()
