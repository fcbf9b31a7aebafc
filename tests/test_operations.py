"""Every operation of every backend against the float64 reference.

Inputs lie contiguous or as every row of a wider array; outputs likewise, between guards. Sizes are
0 and 1, odd ones, and ones on both sides of a vector, a tile and a block.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, guarded, is_poison, magnitude, product_bound, sum_bound
from hypothesis import given, settings
from hypothesis import strategies as st
from test_formulas import CASES, GATED, points, reference_optimizer, scalars_of
from test_formulas import bound as formula_bound

from fastnn.backend import get_backend
from fastnn.kernels.contract import Activation, Dropout, Loss
from fastnn.kernels.formulas import ACTIVATIONS, LOSSES, UPDATES
from fastnn.kernels.numba_backend.backend import NumbaBackend

BACKENDS = ("numpy", "numba")
DTYPES = ("float32", "float64")
GAP = 3  # columns of a wider array beside a view: no multiple of any vector
ULPS = 8  # a few roundings and functions an element
STEEPEST = 2.0  # no activation, and no slope but where it jumps, rises faster

PRODUCTS = [  # rows, inner, columns
    (0, 5, 7),
    (3, 0, 5),
    (1, 1, 1),
    (1, 64, 10),
    (5, 6, 7),
    (7, 13, 12),
    (13, 257, 65),
    (63, 7, 130),
    (64, 64, 64),
    (130, 63, 64),
    (257, 65, 33),
    (6, 1025, 5),
]
BLOCKS = [(0, 7), (1, 1), (1, 65), (5, 6), (13, 130), (64, 12), (130, 63), (257, 5)]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return get_backend(request.param)


def every_dtype(test):
    return pytest.mark.parametrize("dtype", DTYPES)(test)


def every_layout(test):
    return pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "strided"])(test)


def every_block(test):
    test = pytest.mark.parametrize("shape", BLOCKS, ids="{0[0]}x{0[1]}".format)(test)
    return every_layout(every_dtype(test))


def random(rng, dtype, *shape, strided=False):
    """Normal numbers; if ``strided``, as a part of each row of a wider array."""
    wide = (*shape[:-1], shape[-1] + GAP) if strided else shape
    return rng.normal(size=wide).astype(dtype)[..., : shape[-1]]


def output(shape, dtype, strided=False, holding=None):
    """A guarded array to write to, and a check of what lies around it."""
    if not strided or len(shape) == 1:
        view, check = guarded(shape, dtype)
    else:
        wide, check_around = guarded((*shape[:-1], shape[-1] + GAP), dtype)
        view = wide[..., : shape[-1]]

        def check():
            check_around()
            assert is_poison(wide[..., shape[-1] :]).all(), "written behind the last column"

    if holding is not None:
        view[...] = holding
    return view, check


def within(dtype, ulps, scale):
    """So many roundings of a number of this scale; a few results may be flushed."""
    number = np.finfo(dtype)
    limit = ulps * float(number.eps) * np.asarray(scale, np.float64)
    limit = limit + ulps * float(number.smallest_normal)
    return Bound(limit, limit)


def widened(bound, factor, more):
    """``factor`` times a bound and then another."""
    return Bound(factor * bound.maximum + more.maximum, factor * bound.rms + more.rms)


# Products


def check_matmul(backend, dtype, sizes, transpose_a, transpose_b, strided, seed=0):
    rows, inner, columns = sizes
    rng = np.random.default_rng(seed)
    a = random(rng, dtype, *((inner, rows) if transpose_a else (rows, inner)), strided=strided)
    b = random(
        rng, dtype, *((columns, inner) if transpose_b else (inner, columns)), strided=strided
    )
    out, check = output((rows, columns), dtype, strided)
    backend.matmul(a, b, out, transpose_a, transpose_b)
    left, right = a.T if transpose_a else a, b.T if transpose_b else b
    bound = product_bound(dtype, inner, magnitude(left, right))
    assert_close(out, reference.matmul(left, right), bound)
    check()


@pytest.mark.parametrize("sizes", PRODUCTS, ids="{0[0]}x{0[1]}x{0[2]}".format)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@every_layout
@every_dtype
def test_matmul(backend, dtype, strided, transpose_a, transpose_b, sizes):
    check_matmul(backend, dtype, sizes, transpose_a, transpose_b, strided)


SIZE = st.integers(0, 140)


@pytest.mark.parametrize("name", BACKENDS)
@settings(max_examples=30)
@given(
    st.sampled_from(DTYPES), st.tuples(SIZE, SIZE, SIZE), *[st.booleans()] * 3, st.integers(0, 9)
)
def test_matmul_of_any_shape(name, dtype, sizes, transpose_a, transpose_b, strided, seed):
    check_matmul(get_backend(name), dtype, sizes, transpose_a, transpose_b, strided, seed)


@pytest.mark.parametrize("sizes", PRODUCTS, ids="{0[0]}x{0[1]}x{0[2]}".format)
@pytest.mark.parametrize("with_bias", [False, True])
@every_layout
@every_dtype
def test_linear(backend, dtype, strided, with_bias, sizes):
    rows, inner, columns = sizes
    rng = np.random.default_rng(0)
    x = random(rng, dtype, rows, inner, strided=strided)
    weight = random(rng, dtype, inner, columns, strided=strided)
    bias = random(rng, dtype, columns) if with_bias else None
    y, check = output((rows, columns), dtype, strided)
    backend.linear(x, weight, bias, y)
    addend = np.zeros(columns) if bias is None else bias
    bound = product_bound(dtype, inner + 1, magnitude(x, weight) + np.abs(addend))
    assert_close(y, reference.linear(x, weight, addend), bound)
    check()


UNLEARNED = [name for name, formula in ACTIVATIONS.items() if not formula.learned]
SLOPE_JUMPS = ("relu", "leaky_relu", "selu")


@pytest.mark.parametrize("name", UNLEARNED)
@pytest.mark.parametrize("with_slope", [False, True])
@every_layout
@every_dtype
def test_linear_with_an_activation(backend, dtype, strided, with_slope, name):
    rng = np.random.default_rng(0)
    x, weight = random(rng, dtype, 13, 37), random(rng, dtype, 37, 70)
    bias = random(rng, dtype, 70)
    y, check = output((13, 70), dtype, strided)
    slope, check_slope = output((13, 70), dtype, strided)
    activation = Activation(ACTIVATIONS[name])
    backend.linear(x, weight, bias, y, slope if with_slope else None, activation)
    z = reference.linear(x, weight, bias)
    by_sum = product_bound(dtype, 38, magnitude(x, weight) + np.abs(bias))
    bound = widened(by_sum, STEEPEST, within(dtype, ULPS, 1 + np.abs(z)))
    assert_close(y, reference.activation(name, z), bound)
    check()
    check_slope()
    if not with_slope:
        assert is_poison(slope).all()
        return
    certain = (np.abs(z) > by_sum.maximum) | (name not in SLOPE_JUMPS)
    expected = np.where(certain, reference.activation_derivative(name, z), slope)
    assert_close(slope, expected, bound)
    assert certain.mean() > 0.99


@pytest.mark.parametrize("sizes", PRODUCTS, ids="{0[0]}x{0[1]}x{0[2]}".format)
@pytest.mark.parametrize("with_slope", [False, True])
@every_layout
@every_dtype
def test_linear_grad_input(backend, dtype, strided, with_slope, sizes):
    rows, columns, inner = sizes
    rng = np.random.default_rng(0)
    grad = random(rng, dtype, rows, inner, strided=strided)
    weight = random(rng, dtype, columns, inner, strided=strided)
    slope = random(rng, dtype, rows, columns, strided=strided) if with_slope else None
    out, check = output((rows, columns), dtype, strided)
    backend.linear_grad_input(grad, weight, slope, out)
    factor = np.ones((rows, columns)) if slope is None else slope.astype(np.float64)
    bound = product_bound(dtype, inner + 1, magnitude(grad, weight.T) * np.abs(factor))
    expected, _, _ = reference.linear_backward(np.zeros((rows, columns)), weight, grad)
    assert_close(out, expected * factor, bound)
    check()


@pytest.mark.parametrize("sizes", PRODUCTS, ids="{0[0]}x{0[1]}x{0[2]}".format)
@pytest.mark.parametrize("with_bias", [False, True])
@every_layout
@every_dtype
def test_linear_grad_weight(backend, dtype, strided, with_bias, sizes):
    rows, inputs, outputs = sizes
    rng = np.random.default_rng(0)
    x = random(rng, dtype, rows, inputs, strided=strided)
    grad = random(rng, dtype, rows, outputs, strided=strided)
    grad_weight, check = output((inputs, outputs), dtype, strided)
    grad_bias, check_bias = output((outputs,), dtype)
    backend.linear_grad_weight(x, grad, grad_weight, grad_bias if with_bias else None)
    weight = np.zeros((inputs, outputs))
    _, by_weight, by_bias = reference.linear_backward(x, weight, grad)
    assert_close(grad_weight, by_weight, product_bound(dtype, rows, magnitude(x.T, grad)))
    if with_bias:
        assert_close(grad_bias, by_bias, sum_bound(dtype, grad, axis=0))
    else:
        assert is_poison(grad_bias).all()
    check()
    check_bias()


@every_dtype
def test_products_of_nan_and_infinity(backend, dtype):
    """What is not finite stays in its row, and nothing of it is lost there."""
    rng = np.random.default_rng(0)
    x, weight, bias = random(rng, dtype, 9, 20), random(rng, dtype, 20, 35), random(rng, dtype, 35)
    x[2, 3], x[4, 5], x[6, 19] = np.nan, np.inf, -np.inf
    y, check = output((9, 35), dtype)
    backend.linear(x, weight, bias, y)
    with np.errstate(invalid="ignore"):
        expected = reference.linear(x, weight, bias)
        finite = np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
    assert_close(y, expected, product_bound(dtype, 21, magnitude(finite, weight) + np.abs(bias)))
    assert np.isnan(y[2]).all()
    assert np.isinf(y[[4, 6]]).all()
    check()


@every_dtype
def test_products_of_denormals(backend, dtype):
    rng = np.random.default_rng(0)
    x = random(rng, dtype, 7, 33) * np.finfo(dtype).smallest_normal
    weight = random(rng, dtype, 33, 18)
    out, check = output((7, 18), dtype)
    backend.matmul(x, weight, out)
    assert_close(out, reference.matmul(x, weight), product_bound(dtype, 33, magnitude(x, weight)))
    check()


@every_dtype
def test_a_row_is_the_same_bits_in_any_batch(dtype):
    """The promise of the Numba backend; a BLAS makes none."""
    backend, rng = get_backend("numba"), np.random.default_rng(0)
    x, weight, bias = random(rng, dtype, 75, 70), random(rng, dtype, 70, 85), random(rng, dtype, 85)
    gelu = Activation(ACTIVATIONS["gelu"])
    whole = np.empty((75, 85), dtype)
    backend.linear(x, weight, bias, whole, None, gelu)
    for rows in (1, 2, 5, 13, 64):
        part = np.empty((rows, 85), dtype)
        backend.linear(x[-rows:], weight, bias, part, None, gelu)
        np.testing.assert_array_equal(part, whole[-rows:])


def threaded_results(backend, dtype):
    """What operations large enough for several threads give, by name."""
    rng = np.random.default_rng(0)
    x, grad = random(rng, dtype, 700, 300), random(rng, dtype, 700, 200)
    weight, bias = random(rng, dtype, 300, 200), random(rng, dtype, 200)
    gelu, prelu = (Activation(ACTIVATIONS[name]) for name in ("gelu", "prelu"))
    results = {}

    def new(name, shape, holding=np.nan):
        results[name] = np.full(shape, holding, dtype)
        return results[name]

    backend.matmul(x, weight, new("matmul", grad.shape))
    backend.matmul(x, x, new("matmul, a transposed", (300, 300)), True, False)
    backend.matmul(x, x, new("matmul, b transposed", (700, 700)), False, True)
    backend.linear(
        x, weight, bias, new("linear", grad.shape), new("linear slope", grad.shape), gelu
    )
    backend.linear_grad_input(grad, weight, x, new("linear_grad_input", x.shape))
    backend.linear_grad_weight(x, grad, new("grad_weight", weight.shape), new("grad_bias", 200))
    outs = new("map", x.shape), new("map slope", x.shape)
    learned = new("map by learned", x.shape)
    dropout = Dropout(0.3, 1, 5)
    backend.map(x, *outs, prelu, [random(rng, dtype, 300)], [learned], dropout)
    backend.multiply(new("multiply", x.shape, 3.0), x)
    backend.softmax(x, new("softmax", x.shape))
    backend.softmax_grad(results["softmax"], new("softmax_grad", x.shape, 0.5))
    losses, hits = new("losses", 700), new("hits", 700)
    backend.loss(
        x, rng.integers(0, 300, 700), None, 0.1, new("loss", x.shape), losses, hits, Loss()
    )
    backend.moments(x, new("mean", 300), new("variance", 300))
    backend.column_sums(x, x, new("column_sums", 300))
    moments = results["mean"], results["variance"]
    backend.batch_norm(x, *moments, *moments, 1e-5, new("hat", x.shape), new("norm", x.shape))
    moved = new("update", x.shape, 0.5), x, [new("slot", x.shape, 0.1)]
    backend.update(*moved, np.array([0.1, 0.9, 1.0, 0.0], dtype), UPDATES["momentum"])
    results["norm of all"] = np.array(backend.norm([x, grad]))
    return results


@pytest.mark.parametrize("threads", [2, 3, 4])
@every_dtype
def test_threads_decide_no_bit(dtype, threads):
    one, several = (threaded_results(NumbaBackend(count), dtype) for count in (1, threads))
    for name, expected in one.items():
        np.testing.assert_array_equal(several[name], expected, err_msg=name)
        assert np.isfinite(expected).all(), name


# Elementwise


@pytest.mark.parametrize("name", UNLEARNED)
@pytest.mark.parametrize("with_slope", [False, True])
@every_dtype
def test_map(backend, dtype, with_slope, name):
    """At ordinary numbers, at the ends, at denormals, at infinities and NaN."""
    x = np.concatenate([points(dtype), [np.inf, -np.inf, np.nan]]).astype(dtype)
    x = np.resize(x, (x.size // 37 + 1, 37))
    y, check = output(x.shape, dtype, strided=True)
    slope, check_slope = output(x.shape, dtype, strided=True)
    backend.map(x, y, slope if with_slope else None, Activation(ACTIVATIONS[name]))
    expected = reference.activation(name, x)
    with np.errstate(invalid="ignore"):
        gate = np.where(np.abs(x) < 41, np.abs(x), 0.0) if name in GATED else 0.0
    flushed = 800.0 if name in GATED else STEEPEST
    assert_close(y, expected, formula_bound(dtype, np.abs(expected) + gate, flushed))
    check()
    check_slope()
    if with_slope:
        # a denormal number may count as 0, where some slopes jump
        inner = (x == 0) | (np.abs(x) >= np.finfo(dtype).smallest_normal)
        expected = reference.activation_derivative(name, x)
        bound = formula_bound(dtype, 1 + np.abs(expected) + gate, flushed)
        assert_close(slope[inner], expected[inner], Bound(*(b[inner] for b in bound)))


@every_block
def test_map_of_any_shape(backend, dtype, strided, shape):
    x = random(np.random.default_rng(0), dtype, *shape, strided=strided)
    y, check = output(shape, dtype, strided)
    slope, check_slope = output(shape, dtype, strided)
    backend.map(x, y, slope, Activation(ACTIVATIONS["elu"], (("alpha", 1.5),)))
    assert_close(y, reference.activation("elu", x, alpha=1.5), within(dtype, ULPS, 1.5))
    expected = reference.activation_derivative("elu", x, alpha=1.5)
    assert_close(slope, expected, within(dtype, ULPS, 1.5))
    check()
    check_slope()


@every_dtype
def test_map_in_place(backend, dtype):
    x = random(np.random.default_rng(0), dtype, 13, 37)
    y, check = output(x.shape, dtype, holding=x)
    backend.map(y, y, None, Activation(ACTIVATIONS["tanh"]))
    assert_close(y, np.tanh(x.astype(np.float64)), within(dtype, ULPS, 1))
    check()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("with_slopes", [False, True])
@every_layout
@every_dtype
def test_map_with_learned_numbers(backend, dtype, strided, with_slopes, shared):
    rng = np.random.default_rng(0)
    x = random(rng, dtype, 13, 37, strided=strided)
    learned = random(rng, dtype, 1 if shared else 37)
    outs = [output(x.shape, dtype, strided) for _ in range(3)]
    (y, _), (slope, _), (by_learned, _) = outs
    wanted = (slope, [by_learned]) if with_slopes else (None, [])
    prelu = Activation(ACTIVATIONS["prelu"])
    backend.map(x, y, wanted[0], prelu, [learned], wanted[1])
    slopes = np.broadcast_to(learned, x.shape)
    assert_close(y, reference.activation("prelu", x, slope=slopes), within(dtype, 1, np.abs(x)))
    if with_slopes:
        expected = reference.activation_derivative("prelu", x, slope=slopes)
        assert_close(slope, expected, within(dtype, 0, 1))
        assert_close(by_learned, reference.prelu_slope_derivative(x), within(dtype, 0, 1))
    for _, check in outs:
        check()


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (5, 16), (3, 64), (4, 130)])
@every_layout
@every_dtype
def test_dropout(backend, dtype, strided, shape):
    dropout = Dropout(0.4, layer=3, seed=2**40 + 7, epoch=2, step=5)
    x = random(np.random.default_rng(0), dtype, *shape, strided=strided)
    y, check = output(shape, dtype, strided)
    slope, check_slope = output(shape, dtype, strided)
    backend.map(x, y, slope, Activation(ACTIVATIONS["leaky_relu"]), dropout=dropout)
    keep = reference.dropout_mask(2**40 + 7, 2, 5, 3, *shape, 0.4)
    for actual, undropped in (
        (y, reference.activation("leaky_relu", x)),
        (slope, reference.activation_derivative("leaky_relu", x)),
    ):
        expected = reference.dropout(undropped, keep, 0.4)
        assert_close(actual, expected, within(dtype, 4, np.abs(expected)))
        np.testing.assert_array_equal(actual != 0, keep)
    check()
    check_slope()


@every_dtype
def test_dropout_of_learned_slopes(backend, dtype):
    x = random(np.random.default_rng(0), dtype, 5, 70)
    y, slope, by_learned = (output(x.shape, dtype)[0] for _ in range(3))
    learned = np.full(70, 0.25, dtype)
    prelu, dropout = Activation(ACTIVATIONS["prelu"]), Dropout(0.5, layer=1, seed=3)
    backend.map(x, y, slope, prelu, [learned], [by_learned], dropout)
    keep = reference.dropout_mask(3, 0, 0, 1, *x.shape, 0.5)
    expected = reference.dropout(reference.prelu_slope_derivative(x), keep, 0.5)
    assert_close(by_learned, expected, within(dtype, 2, np.abs(expected)))


@every_block
def test_multiply(backend, dtype, strided, shape):
    rng = np.random.default_rng(0)
    grad, slope = (random(rng, dtype, *shape, strided=strided) for _ in range(2))
    out, check = output(shape, dtype, strided, holding=grad)
    backend.multiply(out, slope)
    expected = grad.astype(np.float64) * slope
    assert_close(out, expected, within(dtype, 1, np.abs(expected)))
    check()


# Rows


def exponent_scale(x):
    """What the error of e^(x - max) is a multiple of, in units in its last place."""
    x = x.astype(np.float64)
    return 1 + x.max(axis=1, keepdims=True, initial=-np.inf) - x


@pytest.mark.parametrize("scale", [1.0, 1e4])
@every_block
def test_softmax(backend, dtype, strided, shape, scale):
    x = random(np.random.default_rng(0), dtype, *shape, strided=strided) * dtype_of(dtype)(scale)
    y, check = output(shape, dtype, strided)
    backend.softmax(x, y)
    expected = reference.softmax(x)
    terms = shape[1] + ULPS + exponent_scale(x)
    assert_close(y, expected, within(dtype, 1, terms * expected))
    check()


def dtype_of(name):
    return np.dtype(name).type


@every_dtype
def test_softmax_of_nan_and_infinity(backend, dtype):
    x = random(np.random.default_rng(0), dtype, 4, 19)
    x[1, 5], x[2, 18], x[3, 2] = np.nan, -np.inf, np.inf
    y, check = output(x.shape, dtype)
    backend.softmax(x, y)
    assert np.isnan(y[[1, 3]]).all()
    assert y[2, 18] == 0
    assert np.isfinite(y[[0, 2]]).all()
    check()


@every_block
def test_softmax_grad(backend, dtype, strided, shape):
    rng = np.random.default_rng(0)
    y = reference.softmax(rng.normal(size=shape)).astype(dtype)
    grad = random(rng, dtype, *shape)
    out, check = output(shape, dtype, strided, holding=grad)
    backend.softmax_grad(y, out)
    terms = np.abs(grad) + (y * np.abs(grad)).sum(axis=1, keepdims=True)
    bound = within(dtype, shape[1] + ULPS, y * terms)
    assert_close(out, reference.softmax_backward(y, grad), bound)
    check()


def run_loss(backend, dtype, outputs, targets, loss, weights=None, scale=1.0, strided=False):
    """Row losses, hits and the gradient by the outputs, all guarded."""
    rows = len(outputs)
    grad, check = output(outputs.shape, dtype, strided)
    row_losses, check_losses = output((rows,), dtype)
    row_hits, check_hits = output((rows,), dtype)
    backend.loss(outputs, targets, weights, scale, grad, row_losses, row_hits, loss)
    for each in (check, check_losses, check_hits):
        each()
    alone, hits_alone = np.empty_like(row_losses), np.empty_like(row_hits)
    backend.loss(outputs, targets, weights, scale, None, alone, hits_alone, loss)
    np.testing.assert_array_equal(alone, row_losses)
    np.testing.assert_array_equal(hits_alone, row_hits)
    return row_losses, row_hits, grad


def row_by_row(truth, outputs, targets):
    """The reference's loss and gradient of each row by itself."""
    pairs = [truth(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(outputs))]
    losses = np.array([loss for loss, _ in pairs])
    return losses, np.concatenate([np.zeros((0, outputs.shape[1])), *(g for _, g in pairs)])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@every_block
def test_cross_entropy(backend, dtype, strided, shape, kind, smoothing):
    rng = np.random.default_rng(0)
    rows, classes = shape
    logits = random(rng, dtype, *shape, strided=strided) * dtype_of(dtype)(4)
    labels = rng.integers(0, classes, rows)
    targets = labels
    if kind == "probabilities":
        targets = reference.softmax(rng.normal(size=(rows, classes))).astype(dtype)
        labels = targets.argmax(axis=1) if rows else labels
    truth = partial(reference.cross_entropy, label_smoothing=smoothing)
    expected, by_logits = row_by_row(truth, logits, targets)
    distance = exponent_scale(logits)
    farthest = distance.max(axis=1, initial=1)
    scale = classes + ULPS + farthest
    for weights in (None, rng.uniform(0, 2, rows).astype(dtype)):
        arguments = logits, targets, Loss(smoothing=smoothing), weights, 0.37, strided
        losses, hits, grad = run_loss(backend, dtype, *arguments)
        factor = np.ones(rows) if weights is None else weights.astype(np.float64)
        bound = within(dtype, 1, scale * (farthest + 1) * factor)
        assert_close(losses, expected * factor, bound)
        np.testing.assert_array_equal(hits, logits.argmax(axis=1) == labels)
        factor = 0.37 * factor[:, None]
        assert_close(grad, by_logits * factor, within(dtype, 1, scale[:, None] * factor))


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@every_dtype
def test_cross_entropy_at_the_ends(backend, dtype, kind):
    """Far logits give finite losses; -inf rules a class out; NaN is its own row's and no hit."""
    out = -np.inf
    logits = np.array(
        [[1e4, -1e4, 0], [-3e4, 0, 3e4], [0, np.nan, 1], [5, 5, 1], [7, out, out], [7, out, 7]],
        dtype,
    )
    targets = np.array([0, 0, 1, 0, 0, 1])
    if kind == "probabilities":
        targets = np.eye(3, dtype=dtype)[targets]
    losses, hits, grad = run_loss(backend, dtype, logits, targets, Loss())
    np.testing.assert_array_equal(losses[[0, 1, 2, 4, 5]], [0.0, 6e4, np.nan, 0.0, np.inf])
    np.testing.assert_array_equal(hits, [1, 0, 0, 1, 1, 0])
    assert np.isnan(grad[2]).all()
    assert np.isfinite(grad[[0, 1, 3, 4, 5]]).all()


@every_dtype
def test_loss_gradient_over_the_outputs(backend, dtype):
    rng = np.random.default_rng(0)
    logits, labels = random(rng, dtype, 9, 21), rng.integers(0, 21, 9)
    _, _, grad = run_loss(backend, dtype, logits, labels, Loss())
    losses, hits = np.empty((2, 9), dtype)
    backend.loss(logits, labels, None, 1.0, logits, losses, hits, Loss())
    np.testing.assert_array_equal(logits, grad)


LOSS_TRUTHS = {
    "squared_error": reference.mean_squared_error,
    "absolute_error": reference.mean_absolute_error,
    "huber": partial(reference.huber, delta=0.7),
    "binary_cross_entropy": reference.binary_cross_entropy,
    "poisson": reference.poisson,
}
LOSS_SETTINGS = {"huber": (("delta", 0.7),)}


@pytest.mark.parametrize("name", LOSSES)
@every_block
def test_elementwise_loss(backend, dtype, strided, shape, name):
    rng = np.random.default_rng(0)
    rows, columns = shape
    outputs = random(rng, dtype, *shape, strided=strided) * dtype_of(dtype)(2)
    targets = rng.uniform(0, 1, shape).astype(dtype)
    targets[::2] = outputs[::2] > 0  # rows that are hits
    loss = Loss(LOSSES[name], LOSS_SETTINGS.get(name, ()))
    expected, by_outputs = row_by_row(LOSS_TRUTHS[name], outputs, targets)
    expected_hits = ((outputs > 0) == (targets > 0.5)).all(axis=1)
    for weights in (None, rng.uniform(0, 2, rows).astype(dtype)):
        arguments = outputs, targets, loss, weights, 0.37, strided
        losses, hits, grad = run_loss(backend, dtype, *arguments)
        factor = np.ones(rows) if weights is None else weights.astype(np.float64)
        bound = within(dtype, columns + ULPS, expected * factor)
        assert_close(losses, expected * factor, bound)
        np.testing.assert_array_equal(hits, expected_hits)
        factor = 0.37 * factor[:, None]
        scale = (1 + np.abs(by_outputs * columns)) / columns * factor
        assert_close(grad, by_outputs * factor, within(dtype, ULPS, scale))


@pytest.mark.parametrize("name", LOSSES)
@every_dtype
def test_elementwise_loss_of_nan(backend, dtype, name):
    outputs, targets = np.full((2, 3, 5), 0.75, dtype)
    outputs[0, 2], targets[1, 4] = np.nan, np.nan
    losses, hits, _ = run_loss(backend, dtype, outputs, targets, Loss(LOSSES[name]))
    np.testing.assert_array_equal(np.isnan(losses), [True, True, False])
    np.testing.assert_array_equal(hits, [0, 0, 1])


def element_by_element(truth, outputs, targets):
    """The reference's loss of each element by itself."""
    pairs = zip(outputs.ravel(), targets.ravel(), strict=True)
    return np.array([truth([[z]], [[t]])[0] for z, t in pairs]).reshape(outputs.shape)


@pytest.mark.parametrize("limits", [None, (0.2, 0.9)])
@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize("name", LOSSES)
@every_dtype
def test_conventions_of_an_elementwise_loss(backend, dtype, name, sums, limits):
    """A sum instead of a mean, for the gradient too; limits for what is recorded alone."""
    rng = np.random.default_rng(0)
    outputs = random(rng, dtype, 13, 5) * dtype_of(dtype)(2)
    targets = rng.uniform(0, 1, outputs.shape).astype(dtype)
    weights = rng.uniform(0, 2, 13).astype(dtype)
    plain = Loss(LOSSES[name], LOSS_SETTINGS.get(name, ()))
    loss = replace(plain, sums=sums, limits=limits)
    losses, hits, grad = run_loss(backend, dtype, outputs, targets, loss, weights, 0.37)
    elements = element_by_element(LOSS_TRUTHS[name], outputs, targets)
    if limits:
        assert (elements < limits[0]).any() and (elements > limits[1]).any()
        elements = np.clip(elements, *limits)
    expected = (elements.sum(axis=1) if sums else elements.mean(axis=1)) * weights
    assert_close(losses, expected, within(dtype, 5 + ULPS, expected))
    _, plain_hits, by_mean = run_loss(backend, dtype, outputs, targets, plain, weights, 0.37)
    np.testing.assert_array_equal(hits, plain_hits)
    by_outputs = by_mean * np.float64(5 if sums else 1)
    assert_close(grad, by_outputs, within(dtype, 3 if sums else 0, np.abs(by_outputs)))


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@every_dtype
def test_a_recorded_cross_entropy_stays_within_limits(backend, dtype, kind):
    rng, limits = np.random.default_rng(0), (0.5, 3.0)
    logits = random(rng, dtype, 37, 5) * dtype_of(dtype)(4)
    targets = rng.integers(0, 5, 37)
    if kind == "probabilities":
        targets = np.eye(5, dtype=dtype)[targets]
    weights = rng.uniform(0, 2, 37).astype(dtype)
    logits[-1, 2] = np.nan
    losses, *others = run_loss(backend, dtype, logits, targets, Loss(limits=limits), weights)
    _, *as_they_were = run_loss(backend, dtype, logits, targets, Loss(), weights)
    free, _ = row_by_row(reference.cross_entropy, logits[:-1], targets[:-1])
    assert (free < limits[0]).any() and (free > limits[1]).any()
    expected = np.append(np.clip(free, *limits), np.nan) * weights
    farthest = np.append(exponent_scale(logits[:-1]).max(axis=1), 0.0)
    bound = within(dtype, 1, (5 + ULPS + farthest) * (farthest + 1) * weights)
    assert_close(losses, expected, bound)
    for actual, same in zip(others, as_they_were, strict=True):
        np.testing.assert_array_equal(actual, same)


@every_dtype
def test_limits_keep_nan(backend, dtype):
    outputs, targets = np.full((2, 3, 5), 0.75, dtype)
    outputs[1, 4] = np.nan
    loss = Loss(LOSSES["binary_cross_entropy"], limits=(0.1, 0.2))
    losses, _, _ = run_loss(backend, dtype, outputs, targets, loss)
    np.testing.assert_array_equal(np.isnan(losses), [False, True, False])


# Columns


@every_block
def test_moments(backend, dtype, strided, shape):
    rows, columns = shape
    x = random(np.random.default_rng(0), dtype, *shape, strided=strided) + dtype_of(dtype)(1)
    mean, check = output((columns,), dtype)
    variance, check_variance = output((columns,), dtype)
    backend.moments(x, mean, variance)
    check()
    check_variance()
    if rows == 0:
        assert np.isnan([mean, variance]).all()
        return
    _, expected, spread = reference.batch_norm_train(x, np.ones(columns), np.zeros(columns))
    bound = sum_bound(dtype, x, axis=0)
    by_mean = widened(bound, 1 / rows, within(dtype, 1, np.abs(expected)))
    assert_close(mean, expected, by_mean)
    # a mean that is off by d adds d² to the variance
    shifted = Bound(np.square(by_mean.maximum), np.square(by_mean.maximum))
    assert_close(variance, spread, widened(shifted, 1, within(dtype, rows + ULPS, spread)))


@pytest.mark.parametrize("keeps_hat", [False, True])
@every_block
def test_batch_norm(backend, dtype, strided, shape, keeps_hat):
    rng = np.random.default_rng(0)
    x = random(rng, dtype, *shape, strided=strided)
    mean, gamma, beta = random(rng, dtype, 3, shape[1])
    variance = rng.uniform(0, 2, shape[1]).astype(dtype)
    y, check = output(shape, dtype, strided)
    x_hat, check_hat = output(shape, dtype, strided)
    backend.batch_norm(x, mean, variance, gamma, beta, 1e-5, x_hat if keeps_hat else None, y)
    plain = reference.batch_norm_predict(x, 1.0, 0.0, mean, variance)
    expected = reference.batch_norm_predict(x, gamma, beta, mean, variance)
    assert_close(y, expected, within(dtype, ULPS, np.abs(gamma * plain) + np.abs(beta)))
    if keeps_hat:
        assert_close(x_hat, plain, within(dtype, ULPS, np.abs(plain)))
    else:
        assert is_poison(x_hat).all()
    check()
    check_hat()


@every_block
def test_batch_norm_grad(backend, dtype, strided, shape):
    rows, columns = shape
    rng = np.random.default_rng(0)
    x, grad = (random(rng, dtype, *shape) for _ in range(2))
    gamma = random(rng, dtype, columns)
    out, check = output(shape, dtype, strided, holding=grad)
    if rows == 0:
        x_hat, (variance, by_beta, by_gamma) = x, np.ones((3, columns), dtype)
        expected = bound_scale = np.zeros(shape)
    else:
        _, mean, spread = reference.batch_norm_train(x, gamma, gamma)
        x_hat = ((x - mean) / np.sqrt(spread + 1e-5)).astype(dtype)
        expected, *sums = reference.batch_norm_backward(x, gamma, grad)
        variance, by_gamma, by_beta = (values.astype(dtype) for values in (spread, *sums))
        by_means = np.abs(grad).mean(axis=0), np.abs(grad * x_hat).mean(axis=0)
        terms = np.abs(grad) + by_means[0] + np.abs(x_hat) * by_means[1]
        bound_scale = np.abs(gamma) / np.sqrt(spread + 1e-5) * terms
    backend.batch_norm_grad(out, x_hat, variance, gamma, 1e-5, by_beta, by_gamma)
    sums = within("float64", rows, bound_scale)  # the reference's own, whose errors are as large
    assert_close(out, expected, widened(sums, 1, within(dtype, ULPS, bound_scale)))
    check()


@pytest.mark.parametrize("products", [False, True])
@every_block
def test_column_sums(backend, dtype, strided, shape, products):
    rng = np.random.default_rng(0)
    a, b = (random(rng, dtype, *shape, strided=strided) for _ in range(2))
    out, check = output((shape[1],), dtype)
    backend.column_sums(a, b if products else None, out)
    terms = a.astype(np.float64) * (b if products else 1.0)
    bound = product_bound(dtype, shape[0] + 1, np.abs(terms).sum(axis=0))
    assert_close(out, terms.sum(axis=0), bound)
    check()


@pytest.mark.parametrize("columns", [1, 13, 65])
@every_dtype
def test_running_average(backend, dtype, columns):
    rng = np.random.default_rng(0)
    x = random(rng, dtype, 12, columns)
    old = rng.uniform(0, 2, (2, columns)).astype(dtype)
    arrays = [output((columns,), dtype, holding=values) for values in old]
    (running_mean, _), (running_variance, _) = arrays
    moments = x.mean(axis=0, dtype=np.float64), x.var(axis=0, dtype=np.float64)
    mean, variance = (values.astype(dtype) for values in moments)
    backend.running_average(mean, variance, running_mean, running_variance, 0.1, 12)
    expected = reference.batch_norm_running(*old, x, 0.1)
    for (actual, check), truth, size in zip(arrays, expected, old + 1, strict=True):
        assert_close(actual, truth, within(dtype, ULPS, size))
        check()


# Optimizers


@pytest.mark.parametrize("shape", [(1,), (13,), (64,), (257,), (13, 7), (65, 130)])
@pytest.mark.parametrize("name", ["sgd", "adam"])
@every_dtype
def test_update_of_any_shape(backend, dtype, name, shape):
    check_update(backend, dtype, name, {}, shape)


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize(
    ("clip_value", "scale"), [(None, 1.0), (0.5, 1.0), (None, 0.3), (0.3, 0.6)]
)
@every_dtype
def test_update(backend, dtype, name, settings, clip_value, scale):
    check_update(backend, dtype, name, settings, (37,), clip_value, scale)


def check_update(backend, dtype, name, settings, shape, clip_value=None, scale=1.0):
    """Three steps of an optimizer."""
    rng = np.random.default_rng(0)
    formula, optimizer = UPDATES[name], reference_optimizer(name, 0.05, settings)
    expected = random(rng, dtype, *shape)
    weight, check = output(shape, dtype, holding=expected)
    starts = formula.initial_slots(**settings)
    slots = [output(shape, dtype, holding=start) for start in starts]
    for step in (1, 2, 3):
        grad = random(rng, dtype, *shape) + dtype_of(dtype)(0.2)
        scalars = np.array(scalars_of(name, step, 0.05, settings), dtype)
        arrays = [slot for slot, _ in slots]
        backend.update(weight, grad, arrays, scalars, formula, clip_value, scale)
        moved = grad.astype(np.float64) * scale
        if clip_value is not None:
            moved = reference.clip_by_value(moved, clip_value)
        expected = optimizer.step(expected, moved)
    assert_close(weight, expected, within(dtype, 3 * ULPS, 1 + np.abs(expected)))
    for each in (check, *(check for _, check in slots)):
        each()


@every_dtype
def test_norm(backend, dtype):
    rng = np.random.default_rng(0)
    shapes = [(1,), (7, 13), (65,), (130, 70), (5000,)]
    arrays = [random(rng, dtype, *shape) for shape in shapes]
    squares = np.concatenate([array.ravel().astype(np.float64) ** 2 for array in arrays])
    bound = sum_bound(dtype, squares)
    norm = backend.norm(arrays)
    assert isinstance(norm, float)
    expected = np.sqrt(squares.sum())
    relative = widened(bound, 0.5 / expected, within(dtype, ULPS, expected))
    assert_close(np.float64(norm), expected, relative)
    arrays[3][100, 69] = np.nan
    assert np.isnan(backend.norm(arrays))


# Data


@pytest.mark.parametrize("dtype", ("float16", *DTYPES))
def test_all_finite(backend, dtype):
    largest = np.finfo(dtype).max
    x = np.full((13, 70 + GAP), largest, dtype)
    x[:, 70:] = np.nan
    x = x[:, :70]
    assert backend.all_finite(x)
    assert backend.all_finite(np.zeros((0, 7), dtype))
    assert backend.all_finite(-x[:1, :1])
    for place in [(0, 0), (0, 69), (6, 33), (12, 0), (12, 69)]:
        for bad in (np.nan, np.inf, -np.inf):
            x[place] = bad
            assert not backend.all_finite(x)
        x[place] = largest


SOURCES = ("float16", "float32", "float64", "uint8", "int8", "uint16", "int16", "int32", "uint32",
           "int64", "uint64", "bool")  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
@every_layout
@every_dtype
def test_gather(backend, dtype, strided, source):
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2, (9, 37 + GAP)) if source == "bool" else None
    if numbers is None:
        numbers = rng.uniform(0, 100, (9, 37 + GAP))
    x = numbers.astype(source)
    x = x[:, :37] if strided else np.ascontiguousarray(x[:, :37])
    for index in (None, np.array([8, 0, 0, 5]), np.array([], np.int64)):
        expected = (x if index is None else x[index]).astype(dtype)
        out, check = output(expected.shape, dtype, strided)
        backend.gather(x, index, out)
        np.testing.assert_array_equal(out, expected)
        check()


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3), (2**63 + 11, 400)])
def test_random_orders(backend, seed, epoch):
    for count in (0, 1, 2, 5, 64, 257):
        order = backend.permutation(seed, epoch, count)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(order, reference.shuffle(seed, epoch, count))
    for population, count in ((1, 3), (10, 0), (10, 101), (2**31, 7)):
        drawn = backend.draws(seed, epoch, population, count)
        assert drawn.dtype == np.int64
        np.testing.assert_array_equal(drawn, reference.draw(seed, epoch, population, count))
