"""The operations of the contract besides products, as calls of device functions.

An array is a CuPy array or a ``Local``; ``rows`` is a ``np.int32`` or ``Code``. An array's own
number of rows is the most that there can be: it decides how work is cut and how many blocks share
it, so that a short batch is summed in the order of a full one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..contract import Activation, Loss
from ..formulas import UpdateFormula
from .calls import (
    IN_FLIGHT,
    NO_ARRAY,
    NO_MATRIX,
    THREADS,
    Call,
    Code,
    Rows,
    Struct,
    c_type,
    share,
)
from .formulas import activation_struct, loss_struct, update_struct

AS_THEY_STAND = Code("Order{nullptr, 0}")
"""The order of rows that are taken from the first on."""
_WARP = 32
_LONG_ROW = 2048  # columns from which a block shares a row
_KEPT = (16, 64)  # bytes of a row that a thread keeps in registers; few sizes, so few kernels
_ROWS_A_THREAD = 32  # that a thread sums before partial sums are made
_SQUARES_A_THREAD = 16
_ONE_CHUNK = np.int32(1 << 30)

# ---- elements ----


def map_(
    rows: Rows,
    x: Any,
    y: Any,
    slope: Any | None,
    activation: Activation,
    learned: Sequence[Any] = (),
    learned_slopes: Sequence[Any] = (),
    place: Code | None = None,
) -> Call:
    """y = f(x), its slope, its slopes by learned numbers; with dropout where ``place`` is given.

    Parameters
    ----------
    rows : np.int32 or Code
    x, y : array, (B, O)
        y may be x.
    slope : array or None, (B, O)
    activation : Activation
    learned : sequence of array
        One number a column, or one in all.
    learned_slopes : sequence of array, (B, O)
        Given only with ``slope``.
    place : Code or None
        A ``Place``: where the dropout mask stands.

    Returns
    -------
    Call
    """
    name, text = activation_struct(activation, y.dtype.name)
    given = [*learned_slopes, *(None for _ in learned[len(learned_slopes) :])]
    numbers = (
        Struct("Learned", (number, np.int32(_size(number) > 1), _or(slopes, NO_MATRIX)))
        for number, slopes in zip(learned, given, strict=True)
    )
    function = f"map<{name}, {_bool(place is not None)}>"
    arguments = (x, y, _or(slope, NO_MATRIX), place or Code("Place{}"), *numbers)
    return replace(_each_element(function, rows, y, *arguments), formulas=text)


def multiply(rows: Rows, grad: Any, slope: Any) -> Call:
    """grad *= slope, both (B, O)."""
    return _each_element("multiply", rows, grad, grad, slope)


def gather(rows: Rows, x: Any, order: Code, out: Any) -> Call:
    """out (B, I) = rows of x (N, I), of any numeric dtype, in an order (an ``Order``)."""
    halves = x.dtype == np.float16
    function = "gather_halves" if halves else f"gather<{c_type(x.dtype)}>"
    return _each_element(function, rows, out, x, order, out)


def copy_out(rows: Rows, outputs: Any, order: Code, out: Any) -> Call:
    """out (N, O): the rows from the order's first on become outputs (B, O)."""
    return _each_element("copy_out", rows, outputs, outputs, order, out)


def find_not_finite(x: Any, flag: Any) -> Call:
    """flag (int32) becomes 1 where an element of x (N, I), of any floating dtype, is not finite."""
    function = f"find_not_finite<{c_type(x.dtype)}>"
    bits = x.view(np.uint16) if x.dtype == np.float16 else x
    call = _each_element(function, np.int32(x.shape[0]), x, bits, flag)
    return replace(call, dtype="float64" if x.dtype == np.float64 else "float32")


def _each_element(function: str, rows: Rows, shaped: Any, *arguments: Any) -> Call:
    columns = np.int32(shaped.shape[1])
    blocks = share(_size(shaped), IN_FLIGHT * THREADS)
    arguments = (rows, columns, *arguments)
    return Call(function, arguments, shaped.dtype.name, blocks, ("elementwise",))


# ---- rows ----


def softmax(rows: Rows, x: Any, y: Any) -> Call:
    """y = softmax of each row of x, both (B, O); y may be x."""
    return _each_row("softmax<{lanes}, {kept}>", rows, x, x, y)


def softmax_grad(rows: Rows, y: Any, grad: Any) -> Call:
    """grad = y (grad - sum(y grad)) in place, both (B, O)."""
    return _each_row("softmax_grad<{lanes}, {kept}>", rows, y, y, grad)


def loss(
    rows: Rows,
    outputs: Any,
    targets: Any,
    weights: Any | None,
    scale: Any,
    grad: Any | None,
    row_losses: Any,
    row_hits: Any,
    loss: Loss,
    order: Code = AS_THEY_STAND,
) -> Call:
    """Each row's weighted loss and hit; grad, where wanted, times the row's weight and scale.

    Parameters
    ----------
    rows : np.int32 or Code
    outputs : array, (B, O)
    targets : array
        Class numbers (N,), int64, or values (N, O); taken, as weights are, in ``order``.
    weights : array or None, (N,)
    scale : np.float32, np.float64 or Code
    grad : array or None, (B, O)
        May be outputs.
    row_losses, row_hits : array, (B,)
    loss : Loss
    order : Code
        An ``Order``.

    Returns
    -------
    Call
    """
    by_outputs = _or(grad, NO_MATRIX)
    record = Struct("Record", (_or(weights, NO_ARRAY), order, scale, row_losses, row_hits))
    numbers = tuple(_real(outputs, limit) for limit in loss.limits or ())
    limits = Struct("Limited" if numbers else "Unlimited", numbers)
    if loss.formula is not None:
        name, text = loss_struct(loss, outputs.dtype.name)
        each = _real(outputs, loss.share(outputs.shape[1]))
        function = f"elementwise_loss<{name}, {{lanes}}, {limits.type}>"
        arguments = (outputs, targets, each, by_outputs, record, limits)
        return replace(_each_row(function, rows, outputs, *arguments), formulas=text)
    kind = "Labels" if len(targets.shape) == 1 else "Probabilities"
    smoothing = _real(outputs, loss.smoothing)
    function = f"cross_entropy<{{lanes}}, {{kept}}, {kind}, {limits.type}>"
    arguments = (outputs, Struct(kind, (targets,)), smoothing, by_outputs, record, limits)
    return _each_row(function, rows, outputs, *arguments)


def _each_row(function: str, rows: Rows, shaped: Any, *arguments: Any) -> Call:
    most, columns = shaped.shape
    lanes = THREADS if columns > _LONG_ROW else _lanes(columns)
    kept = [size // shaped.dtype.itemsize for size in _KEPT]
    enough = [turns for turns in (1, *kept) if turns >= share(columns, lanes)]
    function = function.format(lanes=lanes, kept=enough[0] if enough else 0)
    arguments = (rows, np.int32(columns), *arguments)
    blocks, shared = share(most, THREADS // lanes), _reduction(shaped) if lanes > _WARP else 0
    return Call(function, arguments, shaped.dtype.name, blocks, ("rows",), shared=shared)


# ---- columns ----


def column_sums(
    rows: Rows, a: Any, b: Any | None, out: Any, adds: bool, scratch: Any | None = None
) -> list[Call]:
    """out = column sums of a, or of a b; the sum of all where out has one number.

    Parameters
    ----------
    rows : np.int32 or Code
    a, b : array, (B, O)
    out : array, (O,) or (1,)
    adds : bool
        Whether the sums are added to out.
    scratch : array or None
        As many numbers as :func:`column_sums_scratch` says.

    Returns
    -------
    list of Call
    """
    term = Struct("Plain", (a,)) if b is None else Struct("Product", (a, b))
    finish = Struct("Add" if adds else "Assign", (out,))
    return _column_sums(rows, a, term, finish, _size(out) == 1, scratch)


def column_sums_scratch(rows: int, columns: int) -> int:
    """How many numbers of working memory sums over so many rows need."""
    chunks, strips = share(rows, _chunk_rows(columns)), share(columns, _lanes(columns))
    return chunks * columns if chunks > 1 else strips


def moments(rows: Rows, x: Any, mean: Any, variance: Any, scratch: Any | None = None) -> list[Call]:
    """Mean and biased variance (O,) of each column of x (B, O), in two passes."""
    square = Struct("SquaredDeviation", (x, mean))
    return [
        *_column_sums(rows, x, Struct("Plain", (x,)), Struct("Mean", (mean, rows)), False, scratch),
        *_column_sums(rows, x, square, Struct("Mean", (variance, rows)), False, scratch),
    ]


def _column_sums(
    rows: Rows, shaped: Any, term: Struct, finish: Struct, whole: bool, scratch: Any | None
) -> list[Call]:
    """Sums of a term's columns, or of all of it, where it has the shape of an array."""
    most, columns = shaped.shape
    dtype, chunk_rows = shaped.dtype.name, _chunk_rows(columns)
    strips, chunks = share(columns, _lanes(columns)), share(most, chunk_rows)
    width = strips if whole else columns
    if chunks <= 1 and (width == 1 or not whole):
        return [_sums(rows, columns, _ONE_CHUNK, term, finish, whole, dtype, strips)]
    if scratch is None:
        raise ValueError(
            f"scratch is None; expected {column_sums_scratch(most, columns)} numbers for "
            f"{most} rows of {columns} columns"
        )
    partial = Struct("Partial", (Struct("Matrix<real>", (scratch, np.int64(width))),))
    cut = np.int32(chunk_rows)
    parts = _sums(rows, columns, cut, term, partial, whole, dtype, strips * chunks)
    if whole:
        rest, left, stride = _chunks(rows, chunk_rows, strips), 1, 1
    else:
        rest, left, stride = _chunks(rows, chunk_rows, 1), columns, columns
    term = Struct("Plain", (Struct("Matrix<real>", (scratch, np.int64(stride))),))
    blocks = share(left, _lanes(left))
    return [parts, _sums(rest, left, _ONE_CHUNK, term, finish, whole, dtype, blocks)]


def _sums(
    rows: Rows,
    columns: int,
    chunk_rows: np.int32,
    term: Struct,
    finish: Struct,
    whole: bool,
    dtype: str,
    blocks: int,
) -> Call:
    kinds = f"{_lanes(columns)}, {_bool(whole)}, {term.type}, {finish.type}"
    arguments = (rows, np.int32(columns), chunk_rows, term, finish)
    shared = THREADS * np.dtype(dtype).itemsize
    return Call(f"column_sums<{kinds}>", arguments, dtype, blocks, ("columns",), shared=shared)


def _chunks(rows: Rows, chunk_rows: int, strips: int) -> Rows:
    """How many partial sums there are, one under another; one without rows."""
    if isinstance(rows, Code):
        return Code(f"((({rows.text}) - 1) / {chunk_rows} + 1) * {strips}")
    return np.int32(max(1, share(int(rows), chunk_rows)) * strips)


def _chunk_rows(columns: int) -> int:
    return _ROWS_A_THREAD * (THREADS // _lanes(columns))


def batch_norm(
    rows: Rows,
    x: Any,
    mean: Any,
    variance: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    x_hat: Any | None,
    y: Any,
) -> Call:
    """x_hat = (x - mean) / sqrt(variance + eps), where wanted; y = gamma x_hat + beta."""
    statistics = (mean, variance, gamma, beta, _real(x, eps))
    return _down_columns("batch_norm", rows, x, *statistics, _or(x_hat, NO_MATRIX), y)


def batch_norm_grad(
    rows: Rows,
    grad: Any,
    x_hat: Any,
    variance: Any,
    gamma: Any,
    eps: float,
    grad_beta: Any,
    grad_gamma: Any,
) -> Call:
    """The gradient by x, in place of the gradient by y, from its column sums."""
    statistics = (variance, gamma, _real(grad, eps), grad_beta, grad_gamma)
    return _down_columns("batch_norm_grad", rows, grad, x_hat, *statistics)


def _down_columns(function: str, rows: Rows, shaped: Any, *arguments: Any) -> Call:
    most, columns = shaped.shape
    lanes = _lanes(columns)
    blocks = share(columns, lanes) * share(most, IN_FLIGHT * (THREADS // lanes))
    arguments = (rows, np.int32(columns), shaped, *arguments)
    return Call(f"{function}<{lanes}>", arguments, shaped.dtype.name, blocks, ("columns",))


def running_average(
    rows: Rows,
    mean: Any,
    variance: Any,
    running_mean: Any,
    running_variance: Any,
    momentum: float,
    progress: Any | None = None,
) -> Call:
    """Move the running statistics (O,) towards a batch's of ``rows`` rows, unless it diverged."""
    columns = _size(mean)
    moved = (running_mean, running_variance, _real(mean, momentum), _or(progress, NO_ARRAY))
    arguments = (rows, np.int32(columns), mean, variance, *moved)
    return Call("running_average", arguments, mean.dtype.name, share(columns), ("columns",))


# ---- parameters ----


def update(
    weight: Any,
    grad: Any,
    slots: Sequence[Any],
    scalars: Any,
    formula: UpdateFormula,
    clip_value: float | None = None,
    scale: Any | None = None,
    progress: Any | None = None,
) -> Call:
    """One optimizer step in place, unless training has diverged.

    Parameters
    ----------
    weight, grad : array, (n,)
    slots : sequence of array, (n,)
    scalars : array or Code
        In the formula's order.
    formula : UpdateFormula
    clip_value : float or None
        Gradients are moved into [-clip_value, clip_value].
    scale : np.float32, np.float64, Code or None
        The gradient is multiplied by it first; 1 where it is None.
    progress : array, Code or None
        A run's table.

    Returns
    -------
    Call
    """
    dtype, size = weight.dtype.name, _size(weight)
    name, text = update_struct(formula, clip_value is not None, dtype)
    state = Struct(f"Slots<{len(slots)}>", tuple(slots))
    limits = (_real(weight, clip_value or 0.0), _real(weight, 1.0) if scale is None else scale)
    arguments = (np.int64(size), weight, grad, state, scalars, *limits, _or(progress, NO_ARRAY))
    blocks = share(size, THREADS * (16 // weight.dtype.itemsize))
    return Call(f"update<{name}>", arguments, dtype, blocks, ("updates",), formulas=text)


def norm(arrays: Sequence[Any], scratch: Any, out: Any) -> list[Call]:
    """out = the Euclidean norm of all the arrays (n,) together.

    ``scratch`` has as many numbers as :func:`norm_scratch` says.
    """
    calls, chunks = [], 0
    for array in arrays:
        mine = share(_size(array), THREADS * _SQUARES_A_THREAD)
        arguments = (np.int64(_size(array)), array, scratch, np.int64(chunks))
        function = f"squares<{_SQUARES_A_THREAD}>"
        calls.append(_reducing(function, array, *arguments, blocks=mine))
        chunks += mine
    return [*calls, _reducing("norm_of", out, np.int32(chunks), scratch, out)]


def norm_scratch(sizes: Sequence[int]) -> int:
    """How many numbers of working memory the norm of arrays of such sizes needs."""
    return 2 * sum(share(size, THREADS * _SQUARES_A_THREAD) for size in sizes)


def norm_scale(norm: Any, limit: float, out: Any) -> Call:
    """out = the factor that makes a gradient of this norm one of the limit at most."""
    return Call("norm_scale", (norm, _real(out, limit), out), out.dtype.name, 1, ("updates",))


# ---- steps ----


def weigh(rows: Rows, weights: Any | None, order: Code, scale: Any) -> Call:
    """scale = one over the weight of a batch: of its rows' weights (N,), or its number of rows."""
    arguments = (rows, _or(weights, NO_ARRAY), order, scale)
    return _reducing("weigh", scale, *arguments, file="steps")


def check(
    rows: Rows,
    row_losses: Any,
    row_hits: Any,
    scale: Any,
    progress: Any,
    losses: Any,
    hits: Any,
    place: Any,
    adds: bool,
    stops: bool,
) -> Call:
    """Record a batch's loss and hits; mark the run as diverged where the loss is not finite.

    Parameters
    ----------
    rows : np.int32 or Code
    row_losses, row_hits : array, (B,)
    scale : np.float32, np.float64 or Code
        The loss is the sum of its rows' times this.
    progress : array or Code
        The run's table.
    losses, hits : array
        The record of steps.
    place : np.int64 or Code
        The step's place in it.
    adds : bool
        Whether earlier chunks of the step are there already.
    stops : bool
        Whether training diverges by a loss that is not finite.

    Returns
    -------
    Call
    """
    function = f"check<{_bool(adds)}, {_bool(stops)}>"
    arguments = (rows, row_losses, row_hits, scale, progress, place, losses, hits)
    return _reducing(function, row_losses, *arguments, file="steps")


def record_square(norm: Any, progress: Any, place: Any, squares: Any) -> Call:
    """Record the square of a norm, at a step's place of ``squares``."""
    return Call("record_square", (norm, progress, place, squares), norm.dtype.name, 1, ("steps",))


def advance(rows: Rows, progress: Any, dtype: str) -> Call:
    """On to the next step's rows, ``rows`` further, unless training has diverged."""
    return Call("advance", (rows, progress), dtype, 1, ("steps",))


def _reducing(
    function: str, shaped: Any, *arguments: Any, blocks: int = 1, file: str = "updates"
) -> Call:
    """A call whose blocks sum over their warps."""
    shared = _reduction(shaped)
    return Call(function, arguments, shaped.dtype.name, blocks, (file,), shared=shared)


# ---- what they share ----


def _reduction(array: Any) -> int:
    """Bytes of block memory in which a block's warps meet."""
    return THREADS // _WARP * array.dtype.itemsize


def _lanes(columns: int) -> int:
    """Threads side by side, of a warp, that so many columns occupy."""
    return min(_WARP, _power_of_two(columns))


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()


def _size(array: Any) -> int:
    return math.prod(array.shape)


def _real(array: Any, number: float) -> Any:
    """A number by value, of an array's dtype."""
    return np.dtype(array.dtype).type(number)


def _or(array: Any | None, absent: Code) -> Any:
    return absent if array is None else array


def _bool(flag: bool) -> str:
    return "true" if flag else "false"
