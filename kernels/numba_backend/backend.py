"""The operations of the compiled backend on callers' arrays, and the start of a run."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .. import augmentation
from ..alignment import address
from ..augmentation import Program
from ..contract import (
    CHUNK_ROWS,
    DRAW_STREAM,
    DTYPES,
    IDENTITY,
    SHUFFLE_STREAM,
    Activation,
    Backend,
    Binding,
    Dropout,
    Loss,
    Plan,
    Run,
    check_precision,
    documented_by,
)
from ..formulas import UpdateFormula
from . import library, memory
from . import table as t
from .blocks import (
    NOTHING,
    Block,
    alike,
    block,
    dtype_name,
    joined,
    matrix,
    number,
    vector,
)
from .compiled import control
from .elementwise import SOURCES
from .extra import Learned, loss_words, map_words, signed
from .machine import available_threads
from .matmul import product
from .operations import (
    apply,
    apply_by_blocks,
    by_columns,
    by_parts,
    by_rows,
    shared_out,
    threads_for,
)
from .plain import apply_to_plain
from .predictor import Predictor
from .run import NumbaRun

_FINITE_ELEMENTS = 1 << 16
"""Elements looked at at once where only NumPy knows the dtype or the layout."""
_AUGMENTED_ELEMENTS = 1 << 16
"""Fewer elements of images than this are not worth another thread."""
_IMAGE_LETTERS = {"uint8": "b", "float32": "s", "float64": "d"}


@documented_by(Backend)
class NumbaBackend:
    """Kernels compiled for this CPU; :class:`fastnn.kernels.contract.Backend` says what each does.

    Parameters
    ----------
    threads : int, callable or None
        At most so many threads work on an operation, or what the callable says at each; by
        default as many as the machine grants. No result depends on it.
    """

    name = "numba"
    module = np
    chunk_rows = CHUNK_ROWS

    def __init__(self, threads: int | Callable[[], int] | None = None) -> None:
        if threads is None:
            threads = available_threads().count
        self._threads = threads if callable(threads) else lambda: threads

    # -- products --

    def matmul(
        self,
        a: np.ndarray,
        b: np.ndarray,
        out: np.ndarray,
        transpose_a: bool = False,
        transpose_b: bool = False,
    ) -> None:
        left = matrix("a", a)
        rows, inner = a.shape[::-1] if transpose_a else a.shape
        shape = (None, inner) if transpose_b else (inner, None)
        right = matrix("b", b, shape, left)
        columns = b.shape[0 if transpose_b else 1]
        result = matrix("out", out, (rows, columns), left, written=True)
        product(left, right, result, self._threads, a_turned=transpose_a, b_turned=transpose_b)

    def linear(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None,
        y: np.ndarray,
        slope: np.ndarray | None = None,
        activation: Activation = IDENTITY,
    ) -> None:
        inputs = matrix("x", x)
        weights = matrix("weight", weight, (inputs.columns, None), inputs)
        shape = (inputs.rows, weights.columns)
        out = matrix("y", y, shape, inputs, written=True)
        added, slopes, kernel = NOTHING, NOTHING, 0
        if bias is not None:
            added = vector("bias", bias, weights.columns, inputs)
        if slope is not None:
            slopes = matrix("slope", slope, shape, inputs, written=True)
        if slope is not None or not activation.is_identity:
            _learned(activation, (), (), x, inputs, slope is not None)
            kernel = library.activation(inputs.dtype, activation, slope is not None, False, False)
        product(inputs, weights, out, self._threads, bias=added, activation=kernel, slope=slopes)

    def linear_grad_input(
        self, grad: np.ndarray, weight: np.ndarray, slope: np.ndarray | None, out: np.ndarray
    ) -> None:
        grads = matrix("grad", grad)
        weights = matrix("weight", weight, (None, grads.columns), grads)
        shape = (grads.rows, weights.rows)
        result = matrix("out", out, shape, grads, written=True)
        slopes, kernel = NOTHING, 0
        if slope is not None:
            slopes = matrix("slope", slope, shape, grads)
            kernel = library.plain(grads.dtype, "multiply")
        product(grads, weights, result, self._threads, b_turned=True, multiply=kernel, slope=slopes)

    def linear_grad_weight(
        self,
        x: np.ndarray,
        grad: np.ndarray,
        grad_weight: np.ndarray,
        grad_bias: np.ndarray | None = None,
    ) -> None:
        inputs = matrix("x", x)
        grads = matrix("grad", grad, (inputs.rows, None), inputs)
        shape = (inputs.columns, grads.columns)
        out = matrix("grad_weight", grad_weight, shape, inputs, written=True)
        if grad_bias is not None:
            sums = vector("grad_bias", grad_bias, grads.columns, inputs, written=True)
            self._column_sums(grads, NOTHING, sums)
        product(inputs, grads, out, self._threads, a_turned=True)

    # -- element by element --

    def map(
        self,
        x: np.ndarray,
        y: np.ndarray,
        slope: np.ndarray | None = None,
        activation: Activation = IDENTITY,
        learned: Sequence[np.ndarray] = (),
        learned_slopes: Sequence[np.ndarray] = (),
        dropout: Dropout | None = None,
    ) -> None:
        dtype, with_slope = dtype_name(x), slope is not None
        if dtype and not (activation.formula.learned or learned or learned_slopes or dropout):
            kernel = library.activation(dtype, activation, with_slope, False, False)
            pattern = "a0a0001n00000" if slope is None else "a0a0a01n00000"
            if apply_to_plain(pattern, kernel, (x, y) if slope is None else (x, y, slope)):
                return
        blocks = alike(("y", "slope"), x=x, y=y, slope=slope)
        parameters = _learned(activation, learned, learned_slopes, x, blocks[0], with_slope)
        in_place = bool(parameters) or dropout is not None
        source, out, slopes = blocks if in_place else joined(blocks)
        shared = bool(parameters) and learned[0].size == 1 and source.columns != 1
        kernel = library.activation(
            source.dtype, activation, with_slope, dropout is not None, shared
        )
        step = 0 if dropout is None else dropout.step

        def work(row: int, column: int, rows: int, columns: int) -> None:
            numbers = [
                Learned(values.address, out.at(row), out.stride) for values, out in parameters
            ]
            words = map_words(source.dtype, dropout, numbers) if in_place else None
            apply(
                kernel,
                source.at(row, column),
                source.stride,
                out.at(row, column),
                out.stride,
                slopes.at(row, column),
                slopes.stride,
                rows,
                columns,
                row,
                column,
                0,
                step,
                0 if words is None else address(words),
            )

        if in_place:
            by_rows(self._threads, source, lambda row, count: work(row, 0, count, source.columns))
        else:
            by_parts(self._threads, source, work)

    def multiply(self, grad: np.ndarray, slope: np.ndarray) -> None:
        dtype = dtype_name(grad)
        if dtype:
            kernel = library.plain(dtype, "multiply")
            if apply_to_plain("a0a01n", kernel, (grad, slope)):
                return
        out, factor = joined(alike(("grad",), grad=grad, slope=slope))
        kernel = library.plain(out.dtype, "multiply")

        def work(row: int, column: int, rows: int, columns: int) -> None:
            apply(
                kernel,
                out.at(row, column),
                out.stride,
                factor.at(row, column),
                factor.stride,
                rows,
                columns,
            )

        by_parts(self._threads, out, work)

    def update(
        self,
        weight: np.ndarray,
        grad: np.ndarray,
        slots: Sequence[np.ndarray],
        scalars: np.ndarray,
        formula: UpdateFormula,
        clip_value: float | None = None,
        scale: float = 1.0,
    ) -> None:
        if len(slots) != len(formula.slots) or len(scalars) != len(formula.scalars):
            raise ValueError(
                f"{formula.name} takes slots {formula.slots} and scalars {formula.scalars};"
                f" got {len(slots)} slots and {len(scalars)} scalars"
            )
        dtype = block("weight", weight, written=True).dtype
        kernel = library.update(dtype, formula, scale != 1.0, clip_value is not None)
        values, factor = np.ascontiguousarray(scalars, dtype), number(scale, dtype)
        if clip_value is not None:
            values = np.append(values, np.array(clip_value, dtype))
        numbers = address(values), ctypes.addressof(factor)
        pattern = "a0a01nii" + "a" * len(slots) + "0" * (t.MOST_SLOTS - len(slots))
        if apply_to_plain(pattern, kernel, (weight, grad, *slots), *numbers):
            return
        named = {f"slots[{place}]": slot for place, slot in enumerate(slots)}
        blocks = joined(alike(("weight", *named), weight=weight, grad=grad, **named))

        def work(row: int, column: int, rows: int, columns: int) -> None:
            for r in range(row, row + rows):
                weights, grads, *states = (b.at(r, column) for b in blocks)
                states += [0] * (t.MOST_SLOTS - len(states))
                apply(kernel, weights, 0, grads, 0, 1, columns, *numbers, *states)

        by_parts(self._threads, blocks[0], work)

    # -- row by row --

    def softmax(self, x: np.ndarray, y: np.ndarray) -> None:
        logits, out = alike(("y",), x=x, y=y)
        self._softmax("softmax", logits, out)

    def softmax_grad(self, y: np.ndarray, grad: np.ndarray) -> None:
        outputs, out = alike(("grad",), y=y, grad=grad)
        self._softmax("softmax_grad", outputs, out)

    def _softmax(self, name: str, source: Block, out: Block) -> None:
        kernel = library.plain(source.dtype, name)

        def work(row: int, count: int) -> None:
            apply(
                kernel, source.at(row), source.stride, out.at(row), out.stride, count, out.columns
            )

        by_rows(self._threads, out, work)

    def loss(
        self,
        outputs: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | None,
        scale: float,
        grad: np.ndarray | None,
        row_losses: np.ndarray,
        row_hits: np.ndarray,
        loss: Loss,
    ) -> None:
        made = matrix("outputs", outputs)
        labels = targets.ndim == 1 and loss.formula is None
        words = _loss_words(made, targets, weights, row_losses, row_hits, loss, labels)
        out = NOTHING
        if grad is not None:
            out = matrix("grad", grad, outputs.shape, made, written=True)
        kernel = library.loss(made.dtype, loss, labels, grad is not None)
        factor, extra = number(scale, made.dtype), address(words)

        def work(row: int, count: int) -> None:
            apply(
                kernel,
                made.at(row),
                made.stride,
                out.at(row),
                out.stride,
                count,
                made.columns,
                row,
                row,
                ctypes.addressof(factor),
                extra,
            )

        by_rows(self._threads, made, work)

    # -- normalisation, column by column --

    def moments(self, x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
        values = matrix("x", x)
        averages = vector("mean", mean, values.columns, values, written=True)
        spreads = vector("variance", variance, values.columns, values, written=True)
        kernel = library.plain(values.dtype, "moments")

        def work(column: int, count: int) -> None:
            apply(
                kernel,
                values.at(0, column),
                values.stride,
                values.rows,
                count,
                averages.at(0, column),
                spreads.at(0, column),
            )

        by_columns(self._threads, values, work)

    def batch_norm(
        self,
        x: np.ndarray,
        mean: np.ndarray,
        variance: np.ndarray,
        gamma: np.ndarray,
        beta: np.ndarray,
        eps: float,
        x_hat: np.ndarray | None,
        y: np.ndarray,
    ) -> None:
        values, hat, out = alike(("x_hat", "y"), x=x, x_hat=x_hat, y=y)
        statistics = [
            vector(name, array, values.columns, values).address
            for name, array in (
                ("mean", mean),
                ("variance", variance),
                ("gamma", gamma),
                ("beta", beta),
            )
        ]
        kernel = library.plain(values.dtype, "batch_norm")
        epsilon = number(eps, values.dtype)

        def work(row: int, count: int) -> None:
            apply(
                kernel,
                values.at(row),
                values.stride,
                hat.at(row),
                hat.stride,
                out.at(row),
                out.stride,
                count,
                values.columns,
                *statistics,
                ctypes.addressof(epsilon),
            )

        by_rows(self._threads, values, work)

    def batch_norm_grad(
        self,
        grad: np.ndarray,
        x_hat: np.ndarray,
        variance: np.ndarray,
        gamma: np.ndarray,
        eps: float,
        grad_beta: np.ndarray,
        grad_gamma: np.ndarray,
    ) -> None:
        out, hat = alike(("grad",), grad=grad, x_hat=x_hat)
        spread, scale, by_beta, by_gamma = (
            vector(name, array, out.columns, out).address
            for name, array in (
                ("variance", variance),
                ("gamma", gamma),
                ("grad_beta", grad_beta),
                ("grad_gamma", grad_gamma),
            )
        )
        kernel = library.plain(out.dtype, "batch_norm_grad")
        epsilon = number(eps, out.dtype)

        def work(row: int, count: int) -> None:
            apply(
                kernel,
                out.at(row),
                out.stride,
                hat.at(row),
                hat.stride,
                count,
                out.columns,
                spread,
                scale,
                ctypes.addressof(epsilon),
                by_beta,
                by_gamma,
                out.rows,
            )

        by_rows(self._threads, out, work)

    def column_sums(self, a: np.ndarray, b: np.ndarray | None, out: np.ndarray) -> None:
        values = matrix("a", a)
        factors = NOTHING if b is None else matrix("b", b, a.shape, values)
        self._column_sums(values, factors, vector("out", out, values.columns, values, written=True))

    def _column_sums(self, values: Block, factors: Block, sums: Block) -> None:
        kernel = library.column_sums(values.dtype, factors is not NOTHING)

        def work(column: int, count: int) -> None:
            apply(
                kernel,
                values.at(0, column),
                values.stride,
                factors.at(0, column),
                factors.stride,
                values.rows,
                count,
                sums.at(0, column),
                0,
            )

        by_columns(self._threads, values, work)

    def running_average(
        self,
        mean: np.ndarray,
        variance: np.ndarray,
        running_mean: np.ndarray,
        running_variance: np.ndarray,
        momentum: float,
        rows: int,
    ) -> None:
        averages = block("mean", mean)
        statistics = [
            vector(name, array, averages.size, averages, written=name.startswith("running")).address
            for name, array in (
                ("mean", mean),
                ("variance", variance),
                ("running_mean", running_mean),
                ("running_variance", running_variance),
            )
        ]
        share = number(momentum, averages.dtype)
        kernel = library.plain(averages.dtype, "running_average")
        apply(kernel, *statistics, ctypes.addressof(share), averages.size, rows)

    # -- whole arrays --

    def norm(self, arrays: Sequence[np.ndarray]) -> float:
        blocks = [block(f"arrays[{place}]", array) for place, array in enumerate(arrays)]
        return math.sqrt(sum(self._squares(values) for values in blocks))

    def _squares(self, values: Block) -> float:
        """The sum of squares, in blocks of a fixed size a row."""
        (values,) = joined([values])
        per_row = -(-values.columns // t.SQUARES_BLOCK)
        partials = np.empty((values.rows, per_row), values.dtype)
        kernel, out = library.plain(values.dtype, "squares"), block("partials", partials)

        def work(row: int, column: int, rows: int, columns: int) -> None:
            for r in range(row, row + rows):
                apply_by_blocks(
                    kernel,
                    values.at(r, column),
                    columns,
                    t.SQUARES_BLOCK,
                    values.itemsize,
                    out.at(r, column // t.SQUARES_BLOCK),
                )

        by_parts(self._threads, values, work, t.SQUARES_BLOCK)
        return float(partials.sum(dtype=np.float64))

    def all_finite(self, x: np.ndarray) -> bool:
        if x.dtype.kind in "biu":
            return True
        known = x.dtype.isnative and x.dtype.name in DTYPES
        if not known or not (x.flags.c_contiguous or x.flags.f_contiguous):
            parts = np.nditer(
                x, ["external_loop", "buffered", "zerosize_ok"], buffersize=_FINITE_ELEMENTS
            )
            return all(np.isfinite(part).all() for part in parts)
        (values,) = joined([block("x", x if x.flags.c_contiguous else x.T)])
        kernel, found = library.plain(values.dtype, "finite"), []

        def work(row: int, column: int, rows: int, columns: int) -> None:
            found.append(apply(kernel, values.at(row, column), 0, rows, columns))

        by_parts(self._threads, values, work)
        return all(found)

    def gather(self, x: np.ndarray, index: np.ndarray | None, out: np.ndarray) -> None:
        result = block("out", out, written=True)
        if x.dtype.name not in SOURCES or not x.dtype.isnative:
            raise TypeError(f"x must hold one of {', '.join(SOURCES)}; got {x.dtype}")
        if x.ndim != out.ndim or x.ndim not in (1, 2) or x.shape[1:] != out.shape[1:]:
            raise ValueError(f"x and out must have rows alike, got shapes {x.shape}, {out.shape}")
        if x.ndim == 1:
            x, result = x[:, None], result._replace(rows=result.columns, columns=1, stride=1)
        if x.shape[1] > 1 and x.strides[1] != x.itemsize:
            raise ValueError(f"x must be contiguous in its last axis, got strides {x.strides}")
        _check_index(index, len(x), result.rows)
        kernel = library.gather(result.dtype, x.dtype.name)
        data, order = address(x), 0 if index is None else address(index)

        def work(row: int, count: int) -> None:
            apply(
                kernel,
                data,
                x.strides[0],
                order,
                row,
                result.at(row),
                result.stride,
                count,
                result.columns,
            )

        by_rows(self._threads, result, work)

    # -- random numbers --

    def augment(self, images: np.ndarray, program: Program, out: np.ndarray) -> None:
        augmentation.check(images, program, out)
        letter = _IMAGE_LETTERS[images.dtype.name]
        kernel = control("images", "augment", f"{letter * 2}{'i' * 7}pipdsipd")
        count, size = len(images), math.prod(images.shape[1:])
        quantiles = augmentation.normal_quantiles()

        def work(first: int, number: int) -> None:
            words = np.empty(augmentation.WORDS // 2, np.int64)
            scratch = np.empty(2 * size)
            kernel(
                images.ctypes.data,
                out.ctypes.data,
                images.dtype.kind == "u",
                first,
                first + number,
                count,
                *images.shape[1:],
                program.kinds.ctypes.data,
                len(program.kinds),
                program.integers.ctypes.data,
                program.numbers.ctypes.data,
                quantiles.ctypes.data,
                library.philox(),
                words.ctypes.data,
                scratch.ctypes.data,
            )

        shared_out(threads_for(images.size, _AUGMENTED_ELEMENTS, self._threads), count, 1, work)

    def permutation(self, seed: int, epoch: int, count: int, epochs: int = 1) -> np.ndarray:
        orders = np.empty(epochs * count, np.int64)
        words = _room_for_words(count)
        control("shuffle", "permute", "piipiiii")(
            orders.ctypes.data,
            count,
            epochs,
            words.ctypes.data,
            library.philox(),
            signed(seed),
            epoch,
            SHUFFLE_STREAM,
        )
        return orders

    def draws(self, seed: int, epoch: int, population: int, count: int) -> np.ndarray:
        words, blocks = _room_for_words(count), -(-count // 4)
        arguments = words.ctypes.data, blocks, 0, signed(seed), epoch, DRAW_STREAM
        apply(library.philox(), *arguments)
        numbers = words[:count].astype(np.uint64)
        numbers *= np.uint64(population)
        numbers >>= np.uint64(32)
        return numbers.view(np.int64)

    # -- runs --

    def start(self, plan: Plan, binding: Binding, spare: Run | None = None) -> NumbaRun:
        check_precision(plan.precision, plan.dtype, self.name)
        if isinstance(spare, NumbaRun) and spare.takes(plan, binding):
            spare.bind(binding)
            return spare
        return NumbaRun(plan, binding)

    def predictor(self, plan: Plan, arrays: Mapping[str, np.ndarray]) -> Predictor:
        return Predictor(plan, arrays)


def _learned(
    activation: Activation,
    learned: Sequence[np.ndarray],
    slopes: Sequence[np.ndarray],
    x: np.ndarray,
    source: Block,
    with_slopes: bool,
) -> list[tuple[Block, Block]]:
    """Each learned parameter of a formula, and the place of the derivatives by it."""
    names, expected = activation.formula.learned, len(activation.formula.learned)
    if len(learned) != expected or len(slopes) != (expected if with_slopes else 0):
        raise ValueError(
            f"{activation.formula.name} takes {expected} learned parameters {names}, and learned"
            f" slopes if slope is given; got {len(learned)} and {len(slopes)}"
        )
    result = []
    for place, values in enumerate(learned):
        length = 1 if values.shape == (1,) else source.columns
        parameter = vector(f"learned[{place}]", values, length, source)
        out = NOTHING
        if with_slopes:
            name = f"learned_slopes[{place}]"
            out = alike((name,), x=x, **{name: slopes[place]})[1]
        result.append((parameter, out))
    return result


def _loss_words(
    outputs: Block,
    targets: np.ndarray,
    weights: np.ndarray | None,
    row_losses: np.ndarray,
    row_hits: np.ndarray,
    loss: Loss,
    labels: bool,
) -> np.ndarray:
    """The extra words of a loss over a caller's arrays, checked."""
    rows, columns = outputs.rows, outputs.columns
    if labels:
        if targets.dtype != np.int64 or targets.shape != (rows,) or not targets.flags.c_contiguous:
            raise TypeError(
                f"targets must be {rows} contiguous int64 class numbers, got {targets.dtype} of"
                f" shape {targets.shape}, strides {targets.strides}"
            )
        place, stride = address(targets), 0
    else:
        goals = matrix("targets", targets, (rows, columns), outputs)
        place, stride = goals.address, goals.stride
    return loss_words(
        outputs.dtype,
        loss,
        columns,
        targets=place,
        target_ld=stride,
        weights=0 if weights is None else vector("weights", weights, rows, outputs).address,
        row_losses=vector("row_losses", row_losses, rows, outputs, written=True).address,
        row_hits=vector("row_hits", row_hits, rows, outputs, written=True).address,
    )


def _check_index(index: np.ndarray | None, population: int, rows: int) -> None:
    """Raise where a gather would read outside the data."""
    if index is None:
        if population != rows:
            raise ValueError(f"out must have x's {population} rows, got {rows}")
        return
    if index.dtype != np.int64 or index.shape != (rows,) or not index.flags.c_contiguous:
        raise TypeError(
            f"index must be {rows} contiguous int64 row numbers, got {index.dtype} of shape"
            f" {index.shape}, strides {index.strides}"
        )
    if rows and not (index.min() >= 0 and index.max() < population):
        raise IndexError(
            f"index must be from 0 to {population - 1}, got {index.min()} to {index.max()}"
        )


def _room_for_words(count: int) -> np.ndarray:
    """Where the kernel of random numbers may put ``count`` words, by whole vectors of blocks."""
    return np.empty(4 * memory.padded(-(-count // 4), "float32"), np.uint32)
