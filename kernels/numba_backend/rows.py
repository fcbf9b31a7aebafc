"""Kernels over whole rows: losses with their gradients, softmax and its gradient.

A loss kernel reads the targets of its rows through the same index as the data was gathered by, and
leaves each row's loss (times its weight) and hit (1 where the prediction is right) in a buffer;
sums over rows are made elsewhere, in one order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import ir

from .. import formulas
from ..tracing.dual import value_and_derivative
from ..tracing.number import Number
from ..tracing.vector import VectorMath
from .emit import I32, I64, POINTER, Kernel, only_kernel
from .extra import (
    LOSS_HIGH,
    LOSS_HITS,
    LOSS_INDEX,
    LOSS_LOW,
    LOSS_ROWS,
    LOSS_SETTING,
    LOSS_TARGET_LD,
    LOSS_TARGETS,
    LOSS_WEIGHTS,
)
from .row_views import RowView, each_row

_LOSS_ARGUMENTS = "pipiiiiipp"


def cross_entropy_module(dtype: str, *, labels: bool, gradient: bool, limited: bool) -> ir.Module:
    """Softmax cross-entropy of each row, and its gradient by the logits in the same pass.

    Arguments: logits, ld, grad, ld_grad, rows, columns, first, first_row, scale, extra: the rows'
    places in the epoch's order and in the chunk. Targets are int64 class numbers where ``labels``,
    else a row of probabilities each. grad may be logits itself. What is recorded of a row stays
    within limits where ``limited``. Flops: an exp and some eight more an element, with the
    gradient. Bytes: three reads and two writes an element, all but one of each from the nearest
    cache.
    """
    kernel = only_kernel(_LOSS_ARGUMENTS, dtype)
    builder = kernel.builder
    logits, ld, grad, ld_grad, rows, columns, first, first_row, scale, extra = kernel.arguments
    math = VectorMath(builder, dtype, kernel.lanes)
    loss = _LossRows(kernel, math, first, first_row, scale, extra, limited)
    classes = math.splat(builder.sitofp(columns, kernel.element))
    kind = _LabelTargets if labels else _ProbabilityTargets

    def losses(view: RowView) -> None:
        z = view.read(lambda row: kernel.at(logits, builder.mul(row, ld)))
        out = view.write(lambda row: kernel.at(grad, builder.mul(row, ld_grad)))
        targets = kind(kernel, math, loss, classes, view)
        best = _Best(kernel, view)
        view.columns(lambda column, mask: best.see(z.load(column, mask), column, mask))
        row_max = best.value()
        total, target_sum, target_dot = (view.sum() for _ in range(3))

        def measure(column: ir.Value, mask: ir.Value | None) -> None:
            logit, largest = math.vector(z.load(column, mask)), math.vector(row_max)
            numerator = formulas.softmax_numerator(math, logit, largest)
            if gradient:
                out.store(numerator.value, column, mask)
            t = targets.at(column, mask)
            total.add(numerator.value, column, mask)
            target_sum.add(t, column, mask)
            term = formulas.cross_entropy_term(math, math.vector(t), logit, largest)
            target_dot.add(term.value, column, mask)

        view.columns(measure)
        sums = [math.vector(part.total()) for part in (total, target_sum, target_dot)]
        row_loss = formulas.cross_entropy_row(math, sums[1], math.log(sums[0]), sums[2])
        hit = builder.icmp_signed("==", best.position(), targets.label())
        weight = loss.weight(view)
        loss.record(view, loss.within_limits(row_loss), hit, weight)
        if gradient:
            ratio, factor = sums[1] / sums[0], loss.factor(weight)

            def finish(column: ir.Value, mask: ir.Value | None) -> None:
                numerator = math.vector(out.load(column, mask))
                t = math.vector(targets.at(column, mask))
                value = formulas.cross_entropy_grad(math, numerator, t, ratio)
                out.store(builder.fmul(value.value, factor), column, mask)

            view.columns(finish)
            out.flush()

    each_row(kernel, rows, columns, losses)
    kernel.finish()
    return builder.module


def elementwise_loss_module(
    dtype: str,
    formula: formulas.LossFormula,
    settings: Mapping[str, float],
    *,
    gradient: bool,
    limited: bool,
) -> ir.Module:
    """The mean or sum of an elementwise loss over each row, and its gradient by the outputs.

    Arguments as a cross-entropy's; targets are values. A row is a hit where every output lies on
    its target's side (0 for the output, 1/2 for the target). What is recorded of an element stays
    within limits where ``limited``. Flops: the formula's. Bytes: two reads an element, and one
    write with ``gradient``.
    """
    kernel = only_kernel(_LOSS_ARGUMENTS, dtype)
    builder = kernel.builder
    outputs, ld, grad, ld_grad, rows, columns, first, first_row, scale, extra = kernel.arguments
    math = VectorMath(builder, dtype, kernel.lanes)
    loss = _LossRows(kernel, math, first, first_row, scale, extra, limited)
    per_column = kernel.splat(loss.setting)

    def function(m, output, goal):
        return formula.function(m, output, goal, **settings)

    def losses(view: RowView) -> None:
        z = view.read(lambda row: kernel.at(outputs, builder.mul(row, ld)))
        out = view.write(lambda row: kernel.at(grad, builder.mul(row, ld_grad)))
        goals = view.read(loss.target_row)
        total = view.sum()
        misses = kernel.variable(ir.Constant(kernel.mask_type, None))
        weight = loss.weight(view)
        factor = loss.factor(weight)

        def body(column: ir.Value, mask: ir.Value | None) -> None:
            output, goal = z.load(column, mask), goals.load(column, mask)
            numbers = (math.vector(output), math.vector(goal))
            if gradient:
                value, by_output = value_and_derivative(function)(math, *numbers)
                scaled = builder.fmul(math.vector(by_output).value, per_column)
                out.store(builder.fmul(scaled, factor), column, mask)
            else:
                value = function(math, *numbers)
            sides = [
                builder.fcmp_ordered(">", number, kernel.constant(limit))
                for number, limit in ((output, 0.0), (goal, 0.5))
            ]
            nan = builder.fcmp_unordered("uno", output, goal)
            miss = builder.or_(builder.xor(*sides), nan)
            if mask is not None:
                miss = builder.and_(mask, miss)
            total.add(loss.within_limits(value), column, mask)
            builder.store(builder.or_(builder.load(misses), miss), misses)

        view.columns(body)
        hit = builder.not_(view.any(builder.load(misses)))
        loss.record(view, builder.fmul(total.total(), per_column), hit, weight)
        if gradient:
            out.flush()

    each_row(kernel, rows, columns, losses)
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

    def softmax(view: RowView) -> None:
        z = view.read(lambda row: kernel.at(x, builder.mul(row, ldx)))
        out = view.write(lambda row: kernel.at(y, builder.mul(row, ldy)))
        best = _Best(kernel, view)
        view.columns(lambda column, mask: best.see(z.load(column, mask), column, mask))
        row_max, total = math.vector(best.value()), view.sum()

        def numerators(column: ir.Value, mask: ir.Value | None) -> None:
            logit = math.vector(z.load(column, mask))
            value = formulas.softmax_numerator(math, logit, row_max).value
            out.store(value, column, mask)
            total.add(value, column, mask)

        view.columns(numerators)
        divisor = total.total()

        def divide(column: ir.Value, mask: ir.Value | None) -> None:
            out.store(builder.fdiv(out.load(column, mask), divisor), column, mask)

        view.columns(divide)
        out.flush()

    each_row(kernel, rows, columns, softmax)
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
    """The largest element of each row and the first place where it stands."""

    def __init__(self, kernel: Kernel, view: RowView) -> None:
        self.kernel, self.view = kernel, view
        places_type = ir.VectorType(I32, kernel.lanes)
        self.nowhere = ir.Constant(places_type, [_NOWHERE] * kernel.lanes)
        self.values = kernel.variable(kernel.constant(float("-inf")))
        self.places = kernel.variable(self.nowhere)

    def see(self, value: ir.Value, column: ir.Value, mask: ir.Value | None) -> None:
        kernel, builder = self.kernel, self.kernel.builder
        if mask is not None:
            value = builder.select(mask, value, kernel.constant(float("-inf")))
        best = builder.load(self.values)
        better = builder.fcmp_unordered(">", value, best)
        place = self.view.numbers(column)
        builder.store(builder.select(better, place, builder.load(self.places)), self.places)
        builder.store(kernel.maximum(value, best), self.values)

    def value(self) -> ir.Value:
        return self.view.largest(self.kernel.builder.load(self.values))

    def position(self) -> ir.Value:
        """The first place of the largest element, 32 bits wide; past the end where it is NaN."""
        builder = self.kernel.builder
        is_best = builder.fcmp_ordered("==", builder.load(self.values), self.value())
        return self.view.lowest(builder.select(is_best, builder.load(self.places), self.nowhere))


_NOWHERE = 0x7FFFFFFF


class _LossRows:
    """Where a loss kernel finds its rows' targets and weights, and leaves what they lose."""

    def __init__(
        self,
        kernel: Kernel,
        math: VectorMath,
        first: ir.Value,
        first_row: ir.Value,
        scale: ir.Value,
        extra: ir.Value,
        limited: bool,
    ) -> None:
        def word(number: int, kind: ir.Type) -> ir.Value:
            return kernel.load(kernel.at(extra, number, element=I64), kind)

        self.kernel, self.math, self.first = kernel, math, first
        self.index, self.targets = word(LOSS_INDEX, POINTER), word(LOSS_TARGETS, POINTER)
        self.target_ld = word(LOSS_TARGET_LD, I64)
        self.weights = word(LOSS_WEIGHTS, POINTER)
        self.row_losses, self.row_hits = (
            kernel.at(word(number, POINTER), first_row) for number in (LOSS_ROWS, LOSS_HITS)
        )
        self.setting = word(LOSS_SETTING, kernel.element)
        self.scale = kernel.splat(kernel.load(scale))
        self.limits = [
            math.splat(word(number, kernel.element))
            for number in ((LOSS_LOW, LOSS_HIGH) if limited else ())
        ]

    def position(self, row: ir.Value) -> ir.Value:
        """The row of the data set behind this row of the batch."""
        kernel, builder = self.kernel, self.kernel.builder
        place = builder.add(self.first, row)
        return self._unless_null(
            self.index, place, lambda: kernel.load(kernel.at(self.index, place, element=I64), I64)
        )

    def target_row(self, row: ir.Value) -> ir.Value:
        offset = self.kernel.builder.mul(self.position(row), self.target_ld)
        return self.kernel.at(self.targets, offset)

    def label(self, row: ir.Value) -> ir.Value:
        """The row's class number, 32 bits wide."""
        kernel = self.kernel
        place = kernel.at(self.targets, self.position(row), element=I64)
        return kernel.narrow(kernel.load(place, I64))

    def weight(self, view: RowView) -> ir.Value:
        kernel = self.kernel

        def given() -> ir.Value:
            return view.number(lambda row: kernel.load(kernel.at(self.weights, self.position(row))))

        return self._unless_null(self.weights, kernel.constant(1.0), given)

    def factor(self, weight: ir.Value) -> ir.Value:
        """What a row's gradient is multiplied by: its weight over the weight of the batch."""
        return self.kernel.builder.fmul(weight, self.scale)

    def within_limits(self, losses: Any) -> ir.Value:
        """What is recorded of a vector of losses."""
        vector = self.math.vector(losses)
        return (formulas.between(self.math, vector, *self.limits) if self.limits else vector).value

    def record(self, view: RowView, row_loss: ir.Value, hit: ir.Value, weight: ir.Value) -> None:
        """Store each row's weighted loss and hit."""
        kernel, builder = self.kernel, self.kernel.builder
        view.put(builder.fmul(row_loss, weight), self.row_losses)
        one_or_zero = builder.select(hit, kernel.constant(1.0), kernel.constant(0.0))
        view.put(one_or_zero, self.row_hits)

    def _unless_null(self, pointer: ir.Value, otherwise: ir.Value, value: Callable) -> ir.Value:
        builder = self.kernel.builder
        slot = self.kernel.variable(otherwise)
        with builder.if_then(self.kernel.is_given(pointer)):
            builder.store(value(), slot)
        return builder.load(slot)


class _Targets(ABC):
    """The targets of the rows of a cross-entropy, smoothed."""

    def __init__(
        self,
        kernel: Kernel,
        math: VectorMath,
        loss: _LossRows,
        classes: Number,
        view: RowView,
    ) -> None:
        self.kernel, self.math, self.classes, self.view = kernel, math, classes, view
        self.smoothing = math.splat(loss.setting)
        self.find(loss)

    def at(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        """The targets of a vector of columns."""
        sharp = self.math.vector(self.sharp(column, mask))
        return formulas.smooth_target(self.math, sharp, self.smoothing, self.classes).value

    @abstractmethod
    def find(self, loss: _LossRows) -> None:
        """Take what stands for the rows in the data."""

    @abstractmethod
    def sharp(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        """The targets of a vector of columns before smoothing."""

    @abstractmethod
    def label(self) -> ir.Value:
        """The class that a right prediction names, 32 bits wide."""


class _LabelTargets(_Targets):
    """Made from the rows' class numbers."""

    def find(self, loss: _LossRows) -> None:
        self.labels = self.view.number(loss.label)

    def sharp(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        kernel, builder = self.kernel, self.kernel.builder
        hit = builder.icmp_signed("==", self.view.numbers(column), self.labels)
        return builder.select(hit, kernel.constant(1.0), kernel.constant(0.0))

    def label(self) -> ir.Value:
        return self.labels


class _ProbabilityTargets(_Targets):
    """Read from rows of probabilities."""

    def find(self, loss: _LossRows) -> None:
        self.rows = self.view.read(loss.target_row)

    def sharp(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        return self.rows.load(column, mask)

    def label(self) -> ir.Value:
        best = _Best(self.kernel, self.view)
        self.view.columns(lambda column, mask: best.see(self.rows.load(column, mask), column, mask))
        return best.position()
