"""The CUDA sources of all operations but products, run on the CPU and compiled by NVRTC.

What every backend must do is said in ``test_operations``; those tests run here on the device
functions. Below stands what only these have: data read through an order, chunks, the table of
a run, short rows, long rows, and what the compilers say.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import reference
from checks import assert_close, product_bound, sum_bound
from cuda.calls import compile_together, judge, kernel_of, run
from cuda.compile import why_no_gxx
from cuda.require import require
from test_operations import (  # noqa: F401 - collected here, with the backend below
    DTYPES,
    LOSS_SETTINGS,
    SOURCES,
    dtype_of,
    every_dtype,
    output,
    random,
    run_loss,
    test_a_recorded_cross_entropy_stays_within_limits,
    test_all_finite,
    test_batch_norm,
    test_batch_norm_grad,
    test_column_sums,
    test_conventions_of_an_elementwise_loss,
    test_cross_entropy,
    test_cross_entropy_at_the_ends,
    test_dropout,
    test_dropout_of_learned_slopes,
    test_elementwise_loss,
    test_elementwise_loss_of_nan,
    test_gather,
    test_limits_keep_nan,
    test_loss_gradient_over_the_outputs,
    test_map,
    test_map_in_place,
    test_map_of_any_shape,
    test_map_with_learned_numbers,
    test_moments,
    test_multiply,
    test_norm,
    test_running_average,
    test_softmax,
    test_softmax_grad,
    test_softmax_of_nan_and_infinity,
    test_update,
    test_update_of_any_shape,
    within,
)

from fastnn.kernels.contract import IDENTITY, Activation, Dropout, Loss
from fastnn.kernels.cupy_backend import operations as ops
from fastnn.kernels.cupy_backend.calls import PROGRESS, THREADS, Call, Code, Struct
from fastnn.kernels.cupy_backend.formulas import activation_struct
from fastnn.kernels.formulas import ACTIVATIONS, LOSSES, UPDATES, UpdateFormula

# ---- a backend of device functions ----


class DeviceFunctions:
    """The contract's operations by calls of device functions, run on the CPU."""

    def map(
        self, x, y, slope=None, activation=IDENTITY, learned=(), learned_slopes=(), dropout=None
    ):
        place = None if dropout is None else place_of(dropout, x.dtype)
        run(ops.map_(rows_of(x), x, y, slope, activation, learned, learned_slopes, place))

    def multiply(self, grad, slope):
        run(ops.multiply(rows_of(grad), grad, slope))

    def gather(self, x, index, out):
        order = ops.AS_THEY_STAND if index is None else order_of(index)
        run(ops.gather(rows_of(out), x, order, out))

    def all_finite(self, x):
        flag = np.zeros(1, np.int32)
        run(ops.find_not_finite(x, flag))
        return not flag[0]

    def softmax(self, x, y):
        run(ops.softmax(rows_of(x), x, y))

    def softmax_grad(self, y, grad):
        run(ops.softmax_grad(rows_of(y), y, grad))

    def loss(self, outputs, targets, weights, scale, grad, row_losses, row_hits, loss):
        scale = outputs.dtype.type(scale)
        arguments = outputs, targets, weights, scale, grad, row_losses, row_hits, loss
        run(ops.loss(rows_of(outputs), *arguments))

    def column_sums(self, a, b, out):
        run(*ops.column_sums(rows_of(a), a, b, out, False, sums_scratch(a)))

    def moments(self, x, mean, variance):
        run(*ops.moments(rows_of(x), x, mean, variance, sums_scratch(x)))

    def batch_norm(self, x, mean, variance, gamma, beta, eps, x_hat, y):
        run(ops.batch_norm(rows_of(x), x, mean, variance, gamma, beta, eps, x_hat, y))

    def batch_norm_grad(self, grad, x_hat, variance, gamma, eps, grad_beta, grad_gamma):
        arguments = grad, x_hat, variance, gamma, eps, grad_beta, grad_gamma
        run(ops.batch_norm_grad(rows_of(grad), *arguments))

    def running_average(self, mean, variance, running_mean, running_variance, momentum, rows):
        arguments = mean, variance, running_mean, running_variance, momentum
        run(ops.running_average(np.int32(rows), *arguments))

    def update(self, weight, grad, slots, scalars, formula, clip_value=None, scale=1.0):
        flat = [array.reshape(-1) for array in (weight, grad, *slots)]
        settings = scalars, formula, clip_value, weight.dtype.type(scale)
        run(ops.update(flat[0], flat[1], flat[2:], *settings))

    def norm(self, arrays):
        flat = [array.reshape(-1) for array in arrays]
        sizes = [array.size for array in flat]
        scratch, out = (np.full(n, np.nan, flat[0].dtype) for n in (ops.norm_scratch(sizes), 1))
        run(*ops.norm(flat, scratch, out))
        return float(out[0])


@pytest.fixture
def backend():
    return DeviceFunctions()


def rows_of(array: np.ndarray) -> np.int32:
    return np.int32(len(array))


def order_of(index: np.ndarray, first: int = 0) -> Struct:
    return Struct("Order", (index, np.int64(first)))


def place_of(dropout: Dropout, dtype: np.dtype, first_row: int = 0) -> Struct:
    words = dropout.step, dropout.stream, dropout.seed & 0xFFFFFFFF, dropout.seed >> 32
    threshold = np.uint32(dropout.threshold)
    numbers = (*map(np.uint32, words), threshold, np.int32(first_row), dtype.type(dropout.scale))
    return Struct("Place", numbers)


def sums_scratch(array: np.ndarray) -> np.ndarray:
    return np.full(ops.column_sums_scratch(*array.shape), np.nan, array.dtype)


# ---- the kernels that tests need most, compiled together: that is several times as fast ----

COLUMNS = (
    1,
    3,
    6,
    12,
    21,
    63,
    130,
)  # one for each number of lanes, or of registers, that BLOCKS has


@pytest.fixture(scope="module", autouse=True)
def catalogue():
    if why_no_gxx() is None:
        for dtype, family in itertools.product(DTYPES, FAMILIES):
            columns = COLUMNS + LONG if family is cross_entropies else COLUMNS
            compile_together(family(dtype, columns))


EITHER = (False, True)


def cross_entropies(
    dtype: str, columns: Sequence[int], either: Sequence[bool] = EITHER
) -> Iterator[Call]:
    labels = np.zeros(1, np.int64)
    for x, chosen in loss_arguments(dtype, columns, either):
        for loss in (Loss(), Loss(limits=LIMITS)):
            yield ops.loss(ONE, x, labels, *chosen, loss)
            yield ops.loss(ONE, x, x, *chosen, loss)


def losses(dtype: str, columns: Sequence[int], either: Sequence[bool] = EITHER) -> Iterator[Call]:
    formulas = [
        Loss(formula, LOSS_SETTINGS.get(name, ()), limits=limits)
        for name, formula in LOSSES.items()
        for limits in (None, LIMITS)
    ]
    for x, chosen in loss_arguments(dtype, columns, either):
        for loss in formulas:
            yield ops.loss(ONE, x, x, *chosen, loss)


def loss_arguments(
    dtype: str, columns: Sequence[int], either: Sequence[bool]
) -> Iterator[tuple[np.ndarray, tuple]]:
    row = np.ones(1, dtype)
    for width, weighted, trains in itertools.product(columns, either, either):
        x = np.zeros((1, width), dtype)
        yield x, (row if weighted else None, row[0], x if trains else None, row, row)


def maps(dtype: str, columns: Sequence[int], either: Sequence[bool] = EITHER) -> Iterator[Call]:
    x, number = np.zeros((1, 1), dtype), np.zeros(1, dtype)
    for formula, sloped in itertools.product(ACTIVATIONS.values(), either):
        learned = [number for _ in formula.learned]
        slopes = (x, Activation(formula), learned, [x for _ in learned if sloped])
        yield ops.map_(ONE, x, x, *(slopes if sloped else (None, *slopes[1:])))
    dropout = Dropout(0.5, 1)
    yield ops.map_(ONE, x, x, x, IDENTITY, place=place_of(dropout, x.dtype))


def updates(dtype: str, columns: Sequence[int], either: Sequence[bool] = EITHER) -> Iterator[Call]:
    x = np.zeros(1, dtype)
    for formula, clips in itertools.product(UPDATES.values(), either):
        slots = [x for _ in formula.slots]
        yield ops.update(x, x, slots, x, formula, 1.0 if clips else None, x[0])


def gathers(dtype: str, columns: Sequence[int], either: Sequence[bool] = EITHER) -> Iterator[Call]:
    out, index = np.zeros((1, 1), dtype), np.zeros(1, np.int64)
    for source, ordered in itertools.product(SOURCES, either):
        order = order_of(index) if ordered else ops.AS_THEY_STAND
        yield ops.gather(ONE, np.zeros((1, 1), source), order, out)


def sums(dtype: str, columns: Sequence[int], either: Sequence[bool] = EITHER) -> Iterator[Call]:
    for width in columns:
        x, row = np.zeros((1, width), dtype), np.zeros(width, dtype)
        for doubled in either:
            yield from ops.column_sums(ONE, x, x if doubled else None, row, False)
            hat = x if doubled else None
            yield ops.batch_norm(ONE, x, row, row, row, row, 1e-5, hat, x)
        yield from ops.moments(ONE, x, row, row)
        yield ops.batch_norm_grad(ONE, x, x, row, row, 1e-5, row, row)
        yield ops.softmax(ONE, x, x)
        yield ops.softmax_grad(ONE, x, x)


ONE = np.int32(1)
LIMITS = (0.2, 0.9)
FAMILIES = (cross_entropies, losses, maps, updates, gathers, sums)


# ---- rows in an order, chunks, long rows ----


@every_dtype
def test_a_loss_reads_its_targets_and_weights_in_order(backend, dtype):
    rng = np.random.default_rng(0)
    index, first, rows = rng.permutation(40), 7, 9
    taken = index[first : first + rows]
    outputs, weights = random(rng, dtype, rows, 5), rng.uniform(0, 2, 40).astype(dtype)
    labels, values = rng.integers(0, 5, 40), random(rng, dtype, 40, 5, strided=True)
    for loss, targets in (
        (Loss(smoothing=0.1), labels),
        (Loss(), np.abs(values)),
        (Loss(LOSSES["huber"]), values),
    ):
        expected = run_loss(backend, dtype, outputs, targets[taken], loss, weights[taken], 0.5)
        losses, hits = np.full((2, rows), np.nan, dtype)
        grad, scale, order = (
            np.full_like(outputs, np.nan),
            outputs.dtype.type(0.5),
            order_of(index, first),
        )
        arguments = targets, weights, scale, grad, losses, hits, loss, order
        run(ops.loss(np.int32(rows), outputs, *arguments))
        for actual, truth in zip((losses, hits, grad), expected, strict=True):
            np.testing.assert_array_equal(actual, truth)


@every_dtype
def test_only_the_rows_there_are_count(dtype):
    """Arrays hold a full batch; of a short one the rest is neither read nor written."""
    rng, rows, full = np.random.default_rng(0), np.int32(5), 9
    x, poison = random(rng, dtype, full, 12), np.full((full, 12), np.nan, dtype)
    x[rows:] = np.nan
    sums = np.zeros(12, dtype)
    run(*ops.column_sums(rows, x, None, sums, False, sums_scratch(x)))
    assert np.isfinite(sums).all()
    y = poison.copy()
    run(ops.softmax(rows, x, y))
    np.testing.assert_array_equal(np.isfinite(y).all(axis=1), np.arange(full) < rows)
    y = poison.copy()
    run(ops.map_(rows, x, y, None, IDENTITY))
    np.testing.assert_array_equal(y, np.where(np.arange(full)[:, None] < rows, x, np.nan))


LONG = (600, 2100, 4200)  # more than registers hold, and what a block holds and does not


@pytest.mark.parametrize("columns", LONG)
@every_dtype
def test_long_rows(backend, dtype, columns):
    test_softmax(backend, dtype, False, (3, columns), 1.0)
    test_softmax_grad(backend, dtype, True, (3, columns))


@pytest.mark.parametrize("columns", LONG)
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@every_dtype
def test_cross_entropy_of_long_rows(backend, dtype, kind, columns):
    test_cross_entropy(backend, dtype, False, (3, columns), kind, 0.1)


@every_dtype
def test_a_loss_over_long_rows_of_values(backend, dtype):
    test_elementwise_loss(backend, dtype, False, (3, 2100), "squared_error")


@every_dtype
def test_the_first_of_equal_logits_is_the_prediction(dtype):
    columns = 70
    logits = np.zeros((columns, columns), dtype)
    rows = np.arange(columns)
    logits[rows, rows] = logits[:, -1] = 3
    losses, hits = np.full((2, columns), np.nan, dtype)
    order, scale = ops.AS_THEY_STAND, logits.dtype.type(1)
    for labels, truth in ((rows, 1.0), (np.full(columns, columns - 1), rows == columns - 1)):
        arguments = labels, None, scale, None, losses, hits, Loss(), order
        run(ops.loss(np.int32(columns), logits, *arguments))
        np.testing.assert_array_equal(hits, truth)


@every_dtype
def test_dropout_of_a_later_chunk_goes_on_where_the_first_ended(dtype):
    dropout, x = Dropout(0.3, layer=2, seed=11, epoch=1, step=4), np.ones((6, 70), dtype)
    y = np.empty_like(x)
    place = place_of(dropout, x.dtype, first_row=9)
    run(ops.map_(rows_of(x), x, y, None, IDENTITY, place=place))
    keep = reference.dropout_mask(11, 1, 4, 2, 15, 70, 0.3)[9:]
    np.testing.assert_array_equal(y != 0, keep)


@every_dtype
def test_outputs_go_to_their_places(dtype):
    outputs = random(np.random.default_rng(0), dtype, 4, 7, strided=True)
    out, check = output((11, 7), dtype, holding=0)
    run(ops.copy_out(np.int32(4), outputs, Code("Order{nullptr, 5}"), out))
    expected = np.zeros((11, 7))
    expected[5:9] = outputs
    np.testing.assert_array_equal(out, expected)
    check()


@every_dtype
def test_every_half_precision_number_is_gathered(dtype):
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    out = np.empty(x.shape, dtype)
    run(ops.gather(np.int32(256), x, ops.AS_THEY_STAND, out))
    np.testing.assert_array_equal(out, x.astype(dtype))


# ---- sums over many rows ----

MANY = [(70, 700), (9000, 1), (520, 31), (300, 40)]  # more than a chunk; wide, narrow


@pytest.mark.parametrize("shape", MANY, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("whole", [False, True])
@every_dtype
def test_sums_in_chunks(dtype, shape, doubled, whole):
    rng = np.random.default_rng(0)
    rows, columns = shape
    a, b = random(rng, dtype, *shape, strided=True), random(rng, dtype, *shape)
    terms = a.astype(np.float64) * (b if doubled else 1.0)
    axis = None if whole else 0
    magnitudes, truth = np.abs(terms).sum(axis=axis), terms.sum(axis=axis)
    start = np.full(1 if whole else columns, 2, dtype)
    for adds in (False, True):
        out = start.copy()
        factors = a, b if doubled else None
        run(*ops.column_sums(np.int32(rows), *factors, out, adds, sums_scratch(a)))
        bound = product_bound(dtype, terms.size + 2, magnitudes + 2)
        assert_close(out, np.broadcast_to(truth + (2 if adds else 0), out.shape), bound)


@every_dtype
def test_a_short_batch_is_summed_in_the_order_of_a_full_one(dtype):
    """So many of its chunks as there are; in a kernel's text as well as by value."""
    rng = np.random.default_rng(0)
    x = random(rng, dtype, 700, 40)
    full = x.copy()
    full[300:] = 0
    sums = np.full((3, 40), np.nan, dtype)
    for out, rows, array in zip(
        sums, (np.int32(300), Code("300"), np.int32(700)), (x, x, full), strict=True
    ):
        run(*ops.column_sums(rows, array, None, out, False, sums_scratch(x)))
    np.testing.assert_array_equal(sums[0], sums[1])
    np.testing.assert_array_equal(sums[0], sums[2])


def test_sums_in_chunks_say_how_much_memory_they_need():
    x, out = np.zeros((9000, 1)), np.zeros(1)
    with pytest.raises(ValueError, match="scratch is None; expected 2 numbers"):
        ops.column_sums(np.int32(9000), x, None, out, False)


@every_dtype
def test_moments_in_chunks(backend, dtype):
    test_moments(backend, dtype, True, (700, 40))


# ---- parameters ----


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "rmsprop_centered_momentum"])
@every_dtype
def test_where_arrays_begin_decides_no_bit(dtype, name):
    """16 bytes are moved at once only where all arrays allow it."""
    rng, size, formula = np.random.default_rng(0), 45, UPDATES[name]
    values = [random(rng, dtype, size) for _ in range(1 + 1 + len(formula.slots))]
    values[2:] = [np.abs(value) for value in values[2:]]
    scalars = np.full(len(formula.scalars), 0.25, dtype)
    results = []
    for offsets in (
        (0, 0, 0, 0, 0),
        (1, 1, 1, 1, 1),
        (3, 3, 3, 3, 3),
        (0, 1, 0, 0, 0),
        (0, 0, 1, 0, 0),
    ):
        arrays = [shifted(v, o) for v, o in zip(values, offsets, strict=False)]
        weight, grad, *slots = arrays
        call = ops.update(weight, grad, slots, scalars, formula, 0.5)
        launch_in_place(call, 2)
        results.append(np.concatenate(arrays))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    assert (results[0][:size] != values[0]).all()


def shifted(values: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins so many elements behind a 16-byte boundary."""
    memory = np.zeros(values.size + 16, values.dtype)
    first = -memory.ctypes.data % 16 // memory.itemsize + offset
    memory[first : first + values.size] = values
    return memory[first : first + values.size]


def launch_in_place(call: Call, blocks: int) -> None:
    """Launch over arrays where they lie, not over copies at the start of pieces of memory."""
    require("g++", why_no_gxx())
    arguments = [
        np.uint64(value.ctypes.data) if isinstance(value, np.ndarray) else value
        for value in call.values()
    ]
    library, name = kernel_of(call)
    library.kernels[name].run((blocks,), (THREADS,), arguments, call.shared)


@pytest.mark.parametrize("diverged", [0, 1])
@every_dtype
def test_nothing_moves_once_training_has_diverged(dtype, diverged):
    progress = table(DIVERGED=diverged)
    weight, running = np.ones(9, dtype), np.ones((2, 9), dtype)
    scalars = np.array([0.5, 0], dtype)
    run(ops.update(weight, weight.copy(), [], scalars, UPDATES["sgd"], progress=progress))
    statistics = running * 3
    run(ops.running_average(np.int32(4), *statistics, *running, 0.5, progress))
    assert (weight == (1 if diverged else 0.5)).all()
    assert (running[0] == (1 if diverged else 2)).all()


def table(**words: int) -> np.ndarray:
    """A run's table with some of its words; the others are 0."""
    progress = np.zeros(len(PROGRESS), np.int64)
    for name, value in words.items():
        progress[PROGRESS.index(name)] = value
    return progress


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1.0, 1e18, 1e30])
@every_dtype
def test_no_square_of_a_norm_overflows_or_vanishes(backend, dtype, scale):
    """Its terms are divided by the largest; float32 could not hold the squares of these."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=9001) * scale).astype(dtype)
    exact = np.sqrt(np.square(x, dtype=np.float64).sum())
    assert_close(np.float64(backend.norm([x, x[:3] * 0])), exact, within(dtype, 50, exact))


@every_dtype
def test_norms_of_zeros_and_of_what_is_not_finite(backend, dtype):
    x = np.zeros(5000, dtype)
    assert backend.norm([x]) == 0
    x[4999] = -np.inf
    assert backend.norm([x]) == np.inf
    x[3] = np.nan
    assert np.isnan(backend.norm([x]))


@every_dtype
def test_norm_scale(dtype):
    for norm, scale in ((4.0, 2 / (4 + 1e-6)), (1.0, 1.0), (0.0, 1.0), (np.nan, np.nan)):
        out = np.full(1, -1, dtype)
        run(ops.norm_scale(np.array([norm], dtype), 2.0, out))
        assert_close(out, [scale], within(dtype, 16, 1.0))


# ---- steps ----


@every_dtype
def test_weigh(dtype):
    rng = np.random.default_rng(0)
    weights, index = rng.uniform(0, 2, 3000).astype(dtype), rng.permutation(3000)
    out, rows = np.full(1, np.nan, dtype), np.int32(2500)
    run(ops.weigh(rows, None, ops.AS_THEY_STAND, out))
    assert out[0] == dtype_of(dtype)(1) / dtype_of(dtype)(2500)
    run(ops.weigh(rows, weights, order_of(index, 300), out))
    taken = weights[index[300:2800]].astype(np.float64)
    bound = sum_bound(dtype, taken)
    assert np.abs(1 / np.float64(out[0]) - taken.sum()) <= 2 * bound.maximum
    run(ops.weigh(rows, np.zeros(3000, dtype), ops.AS_THEY_STAND, out))
    assert out[0] == 0


@pytest.mark.parametrize("adds", [False, True])
@every_dtype
def test_check_records_a_step(dtype, adds):
    rng = np.random.default_rng(0)
    row_losses = rng.uniform(0, 3, 2300).astype(dtype)
    row_hits = rng.integers(0, 2, 2300).astype(dtype)
    losses, hits, progress = np.full(4, 7, dtype), np.full(4, 7, dtype), table()
    scale, place = dtype_of(dtype)(0.5), np.int64(2)
    record = scale, progress, losses, hits, place, adds, True
    run(ops.check(np.int32(2300), row_losses, row_hits, *record))
    before = 7 if adds else 0
    bound = sum_bound(dtype, row_losses)
    assert_close(losses[2], row_losses.sum(dtype=np.float64) / 2 + before, bound)
    assert hits[2] == row_hits.sum() + before
    assert (losses[[0, 1, 3]] == 7).all()
    assert (hits[[0, 1, 3]] == 7).all()
    assert progress[PROGRESS.index("DIVERGED")] == 0


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every_dtype
def test_check_stops_at_what_is_not_finite(dtype, bad, stops):
    row_losses = np.ones(600, dtype)
    row_losses[555] = bad
    losses, hits, progress = np.zeros(2, dtype), np.zeros(2, dtype), table()
    one = dtype_of(dtype)(1)
    for place, values in ((0, row_losses), (1, np.ones(600, dtype))):
        record = one, progress, losses, hits, np.int64(place), False, stops
        run(ops.check(np.int32(600), values, values, *record))
    assert not np.isfinite(losses[0])
    assert progress[PROGRESS.index("DIVERGED")] == stops
    assert losses[1] == (0 if stops else 600)  # nothing after the step that diverged


@pytest.mark.parametrize("diverged", [0, 1])
def test_advance(diverged):
    progress = table(FIRST=64, STEP=2, DIVERGED=diverged)
    run(ops.advance(np.int32(32), progress, "float32"))
    moved = {} if diverged else {"FIRST": 96, "STEP": 3}
    np.testing.assert_array_equal(progress, table(**{"FIRST": 64, "STEP": 2, **moved,
                                                     "DIVERGED": diverged}))  # fmt: skip


# ---- formulas and compilers ----


def test_formulas_are_named_after_what_they_say():
    leaky = ACTIVATIONS["leaky_relu"]
    settings = [(("negative_slope", slope),) for slope in (0.1, 0.2, 0.1)]
    structs = [activation_struct(Activation(leaky, setting), "float32") for setting in settings]
    assert structs[0] == structs[2]
    assert structs[0][0] != structs[1][0]
    assert structs[0][0] != activation_struct(Activation(leaky, settings[0]), "float64")[0]


@every_dtype
def test_an_update_may_exchange_its_slots(dtype):
    def exchange(m, weight, grad, slots, h):
        return slots[0], (slots[1], weight)

    formula = UpdateFormula("ex-change", exchange, ("a", "b"), (), dict)
    arrays = [np.full(5, value, dtype) for value in (1, 2, 3)]
    weight, *slots = arrays
    run(ops.update(weight, np.zeros(5, dtype), slots, np.zeros(1, dtype), formula))
    assert [array[4] for array in arrays] == [2, 3, 1]


WIDTHS = (500, 4200)  # a row in all the registers it may take, and one in none


@pytest.mark.parametrize("family", FAMILIES)
@every_dtype
def test_ptxas_has_room(dtype, family):
    """For all that losses, activations and updates there are."""
    calls = family(dtype, WIDTHS, (True,))
    own = ("double *", "double>")  # data of float64, which are only converted
    judge(c for c in calls if dtype == "float64" or not any(w in c.kernel() for w in own))
