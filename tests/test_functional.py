"""Functions on plain arrays against the float64 reference, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, elementwise_bound, magnitude, product_bound, sum_bound
from conftest import each_backend
from hypothesis import given
from hypothesis import strategies as st

from fastnn import functional

backend = each_backend("numpy", "numba", "cupy")

DTYPES = ("float32", "float64")
ACTIVATIONS = (
    ("relu", {}),
    ("leaky_relu", {"negative_slope": 0.2}),
    ("elu", {"alpha": 0.7}),
    ("selu", {}),
    ("gelu", {}),
    ("silu", {}),
    ("sigmoid", {}),
    ("tanh", {}),
    ("softplus", {"beta": 2.0}),
)
ULPS = 8  # a few functions and their arithmetic

pytestmark = pytest.mark.usefixtures("backend")


def normal(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def rounded(dtype, roundings, scale):
    """The bound of so many rounding errors of numbers of this scale."""
    limit = roundings * float(np.finfo(dtype).eps) * np.asarray(scale, np.float64)
    return Bound(limit, limit)


# ---- products ----


@given(
    st.tuples(*[st.integers(0, 40)] * 3),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["rows", "columns", "gaps"]),
)
def test_matmul(sizes, dtype, transpose_a, transpose_b, layout):
    rows, inner, columns = sizes
    lay = {
        "rows": np.ascontiguousarray,
        "columns": np.asfortranarray,
        "gaps": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    }[layout]
    a, b = normal((rows, inner), dtype), normal((inner, columns), dtype, 1)
    given_a, given_b = lay(a.T if transpose_a else a), lay(b.T if transpose_b else b)
    product = functional.matmul(given_a, given_b, None, transpose_a, transpose_b)
    assert product.dtype == dtype
    bound = product_bound(dtype, inner, magnitude(a, b))
    assert_close(product, reference.matmul(a, b), bound)


def test_matmul_takes_numpys_true():
    a = normal((5, 3))
    np.testing.assert_array_equal(
        functional.matmul(a, a, transpose_a=np.True_), functional.matmul(a, a, transpose_a=True)
    )


def test_matmul_over_its_own_argument():
    a = normal((20, 20))
    expected = reference.matmul(a, a)
    bound = product_bound("float32", 20, magnitude(a, a))
    out = functional.matmul(a, a, out=a)
    assert out is a
    assert_close(a, expected, bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear(dtype):
    x, weight, bias = normal((9, 33), dtype), normal((33, 21), dtype, 1), normal(21, dtype, 2)
    sums = reference.linear(x, weight, bias)
    bound = product_bound(dtype, 34, magnitude(x, weight) + np.abs(bias))
    assert_close(functional.linear(x, weight, bias), sums, bound)
    assert_close(functional.linear(x, weight), sums - bias.astype(np.float64), bound)
    out = np.empty((9, 25), dtype)[:, :21]
    assert functional.linear(x, weight, bias, "relu", out=out) is out
    assert_close(out, np.maximum(sums, 0.0), bound)
    leaky = functional.linear(x, weight, bias, "leaky_relu", negative_slope=0.5)
    assert_close(leaky, np.where(sums > 0, sums, 0.5 * sums), bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_backward(dtype):
    x, weight, grad = normal((9, 33), dtype), normal((33, 21), dtype, 1), normal((9, 21), dtype, 2)
    grad_x, grad_weight, grad_bias = functional.linear_backward(x, weight, grad)
    true_x, true_weight, true_bias = reference.linear_backward(x, weight, grad)
    assert_close(grad_x, true_x, product_bound(dtype, 21, magnitude(grad, weight.T)))
    assert_close(grad_weight, true_weight, product_bound(dtype, 9, magnitude(x.T, grad)))
    assert_close(grad_bias, true_bias, sum_bound(dtype, grad, axis=0))


# ---- activations ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, settings", ACTIVATIONS)
def test_activation(name, settings, dtype):
    x = np.linspace(-6, 6, 3 * 5 * 7, dtype=dtype).reshape(3, 5, 7)
    expected = reference.activation(name, x, **settings)
    function = getattr(functional, name)
    result = function(x, **settings)
    assert_close(result, expected, rounded(dtype, ULPS, np.abs(x) + 1))
    assert function(x, **settings, out=x) is x
    np.testing.assert_array_equal(x, result)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, settings", ACTIVATIONS)
def test_activation_backward(name, settings, dtype):
    x, grad = np.linspace(-6, 6, 105, dtype=dtype), normal(105, dtype)
    result = functional.activation_backward(name, x, grad, **settings)
    expected = reference.activation_derivative(name, x, **settings) * grad
    assert_close(result, expected, rounded(dtype, ULPS, 2 * np.abs(grad)))


def test_gelu_by_tanh():
    x = np.linspace(-6, 6, 105)
    result = functional.gelu(x, approximate="tanh")
    expected = reference.activation("gelu_tanh", x)
    assert_close(result, expected, rounded("float64", ULPS, np.abs(x) + 1))


@given(st.integers(1, 30), st.integers(-3, 3))
def test_out_may_overlap_in_any_way(size, shift):
    memory = normal(size + 6)
    x, out = memory[3 : 3 + size], memory[3 + shift : 3 + shift + size]
    expected = functional.silu(x.copy())
    functional.silu(x, out=out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_and_its_gradient(dtype):
    x, grad = 5 * normal((7, 21), dtype), normal((7, 21), dtype, 1)
    y = functional.softmax(x)
    assert_close(y, reference.softmax(x), rounded(dtype, 21 + ULPS, 1 + np.abs(x).max()))
    result, expected = functional.softmax_backward(y, grad), reference.softmax_backward(y, grad)
    assert_close(result, expected, rounded(dtype, 21, np.abs(grad).max()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slopes", [1, 21])
def test_prelu_and_its_gradients(slopes, dtype):
    x, slope, grad = normal((7, 21), dtype), normal(slopes, dtype, 1), normal((7, 21), dtype, 2)
    negative = np.minimum(x, 0.0).astype(np.float64)
    expected = np.where(x > 0, x, slope * negative)
    assert_close(functional.prelu(x, slope), expected, elementwise_bound(dtype, 1, expected))
    grad_x, grad_slope = functional.prelu_backward(x, slope, grad)
    expected = np.where(x > 0, grad, slope.astype(np.float64) * grad)
    assert_close(grad_x, expected, elementwise_bound(dtype, 1, expected))
    terms = grad * negative
    if slopes == 1:
        assert_close(grad_slope, [terms.sum()], sum_bound(dtype, terms.reshape(-1, 1), axis=0))
    else:
        assert_close(grad_slope, terms.sum(axis=0), sum_bound(dtype, terms, axis=0))


# ---- losses ----


def targets_of(name, outputs):
    if name == "cross_entropy":
        return np.arange(len(outputs)) % outputs.shape[1]
    values = normal(outputs.shape, outputs.dtype, 3)
    if name == "poisson":
        return np.floor(np.abs(values))
    return 1 / (1 + np.exp(-values)) if name == "binary_cross_entropy" else values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "name, truth, settings",
    [
        ("cross_entropy", reference.cross_entropy, {"label_smoothing": 0.1}),
        ("binary_cross_entropy", reference.binary_cross_entropy, {}),
        ("mse", reference.mean_squared_error, {}),
        ("mae", reference.mean_absolute_error, {}),
        ("huber", reference.huber, {"delta": 0.7}),
        ("poisson", reference.poisson, {}),
    ],
)
def test_loss(name, truth, settings, weighted, dtype):
    outputs = normal((11, 6), dtype)
    targets = targets_of(name, outputs)
    weight = np.arange(11.0) if weighted else None
    loss, grad = getattr(functional, name)(outputs, targets, weight, **settings)
    true_loss, true_grad = truth(outputs, targets, weight, **settings)
    terms = 11 + 6 + ULPS
    assert isinstance(loss, float)
    size = 2 * np.abs(outputs).max() ** 2 if name == "poisson" else 2 * true_loss  # terms cancel
    assert_close(loss, true_loss, rounded(dtype, terms, size))
    assert_close(grad, true_grad, rounded(dtype, ULPS, 1.0))


# ---- dropout and normalisation ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 100), (40, 33)])
def test_dropout(shape, dtype):
    x = normal(shape, dtype)
    keep = reference.dropout_mask(5, 2, 7, 3, *shape, 0.3)
    result = functional.dropout(x, 0.3, seed=5, epoch=2, step=7, layer=3)
    expected = reference.dropout(x, keep, 0.3)
    assert_close(result, expected, elementwise_bound(dtype, 2, expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm(dtype):
    x, gamma, beta = 3 * normal((19, 21), dtype) + 1, normal(21, dtype, 1), normal(21, dtype, 2)
    y, x_hat, mean, variance = functional.batch_norm(x, gamma, beta)
    true_y, true_mean, true_variance = reference.batch_norm_train(x, gamma, beta)
    true_hat = reference.batch_norm_train(x, np.ones(21), np.zeros(21))[0]
    roundings, largest = 19 + ULPS, np.abs(x).max()
    stretch = largest / np.sqrt(true_variance)
    assert_close(mean, true_mean, rounded(dtype, roundings, largest))
    assert_close(variance, true_variance, rounded(dtype, roundings, largest**2))
    assert_close(x_hat, true_hat, rounded(dtype, roundings, stretch * (1 + stretch)))
    scale = np.abs(gamma) * stretch * (1 + stretch) + np.abs(beta)
    assert_close(y, true_y, rounded(dtype, roundings, scale))
    grad = normal((19, 21), dtype, 3)
    grad_x, grad_gamma, grad_beta = functional.batch_norm_backward(grad, x_hat, variance, gamma)
    truth = reference.batch_norm_backward(x, gamma, grad)
    summed = (1 + stretch) * np.abs(grad).sum(axis=0)
    assert_close(grad_beta, truth[2], sum_bound(dtype, grad, axis=0))
    assert_close(grad_gamma, truth[1], rounded(dtype, roundings, stretch * summed))
    scale = np.abs(gamma) / np.sqrt(true_variance) * (1 + stretch) * summed
    assert_close(grad_x, truth[0], rounded(dtype, roundings, scale))


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_predict(dtype):
    x, gamma, beta = normal((19, 21), dtype), normal(21, dtype, 1), normal(21, dtype, 2)
    mean, variance = normal(21, dtype, 3), normal(21, dtype, 4) ** 2 + 0.5
    expected = reference.batch_norm_predict(x, gamma, beta, mean, variance)
    scale = (np.abs(x) + np.abs(mean)) * np.abs(gamma) / np.sqrt(variance) + np.abs(beta)
    result = functional.batch_norm_predict(x, mean, variance, gamma, beta, out=x)
    assert result is x
    assert_close(result, expected, rounded(dtype, ULPS, scale))


# ---- results written in place ----

X, W, GRAD = normal((5, 4)), normal((4, 3), seed=1), normal((5, 3), seed=2)
Y = functional.softmax(GRAD)
COLUMN = normal(3, seed=3) ** 2 + 0.5
IN_PLACE = {
    "linear_backward": (functional.linear_backward, (X, W, GRAD)),
    "prelu_backward": (functional.prelu_backward, (GRAD, COLUMN, Y)),
    "batch_norm": (functional.batch_norm, (GRAD, COLUMN, COLUMN)),
    "batch_norm_backward": (functional.batch_norm_backward, (GRAD, Y, COLUMN, COLUMN)),
    "activation_backward": (lambda x, g, out: functional.activation_backward("silu", x, g, out),
                            (GRAD, Y)),
    "softmax_backward": (functional.softmax_backward, (Y, GRAD)),
    "cross_entropy": (lambda z, t, out: functional.cross_entropy(z, t, out=out)[1], (GRAD, Y)),
    "mse": (lambda z, t, out: functional.mse(z, t, out=out)[1], (GRAD, Y)),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_results_over_any_argument(name):
    """An ``out`` may be any of the arguments that has a result's shape."""
    function, arguments = IN_PLACE[name]
    expected = function(*arguments, out=None)
    several = isinstance(expected, tuple)
    truths = expected if several else (expected,)
    shapes = [array.shape for array in truths]
    places = [n for n, array in enumerate(arguments) if array.shape in shapes]
    assert places
    for place in places:
        inputs = [array.copy() for array in arguments]
        outs = [None] * len(shapes)
        outs[shapes.index(inputs[place].shape)] = inputs[place]
        results = function(*inputs, out=tuple(outs) if several else outs[0])
        for result, out, truth in zip(
            results if several else (results,), outs, truths, strict=True
        ):
            assert out is None or result is out
            np.testing.assert_array_equal(result, truth)


@pytest.mark.parametrize(
    "out, error, message",
    [
        ((None, None), TypeError, "out must be a tuple of 3 arrays or None, got a tuple of 2"),
        (np.empty((5, 4), "f4"), TypeError, "out must be a tuple of 3 arrays or None, got ndarray"),
        ((None, np.empty((4, 3)), None), TypeError, r"out\[1\] must be an array of float32"),
        ((None, None, np.empty(4, "f4")), ValueError, r"out\[2\] must have shape \(3\)"),
        ((None, W, W[0]), ValueError, r"out\[1\] and out\[2\] must not share memory"),
    ],
)
def test_refused_places(out, error, message):
    before = W.copy()
    with pytest.raises(error, match=message):
        functional.linear_backward(X, W, GRAD, out)
    np.testing.assert_array_equal(W, before)


# ---- arguments ----


def test_dtypes():
    single, double = np.ones((2, 2), np.float32), np.ones((2, 2))
    assert functional.matmul(single, single).dtype == np.float32
    assert functional.matmul(single, double).dtype == np.float64
    assert functional.matmul([[1, 2]], [[3], [4]]).dtype == np.float32
    assert functional.relu(np.ones(3, ">f8")).dtype == np.float64
    assert functional.relu(np.ones(3, np.float16)).dtype == np.float32


def test_scalars_and_nothing():
    assert functional.relu(-2.0) == 0.0
    assert functional.relu(np.ones((0, 3))).shape == (0, 3)
    assert functional.softmax(np.ones((0, 3))).shape == (0, 3)
    for shape in [(0,), (0, 3), (1, 0), (0, 1), (3, 0, 1)]:
        out = np.empty(shape)
        assert functional.relu(out, out) is out
    np.testing.assert_array_equal(functional.matmul(np.ones((2, 0)), np.ones((0, 2))), 0.0)


TWO, THREE = np.ones((2, 2)), np.ones((3, 3))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: functional.matmul(TWO, THREE), ValueError, r"b must have shape \(2, any\)"),
        (lambda: functional.matmul(TWO, TWO, THREE), ValueError, r"out must have shape \(2, 2\)"),
        (lambda: functional.matmul(TWO, np.ones(2)), ValueError, "b must have shape"),
        (lambda: functional.matmul(TWO, TWO, None, "no"), TypeError, "transpose_a must be True or"),
        (lambda: functional.matmul("ab", TWO), TypeError, "a must hold real numbers"),
        (lambda: functional.matmul(TWO * 1j, TWO), TypeError, "a must hold real numbers"),
        (lambda: functional.relu(TWO, np.ones((2, 2), "f4")), TypeError, "out must be .* float64"),
        (lambda: functional.relu(TWO, [1.0]), TypeError, "out must be an array of float64"),
        (
            lambda: functional.relu(TWO, np.broadcast_to(1.0, (2, 2))),
            ValueError,
            "out must be writeable",
        ),
        (
            lambda: functional.relu(TWO, np.ones((2, 4))[:, ::2]),
            ValueError,
            "out must be contiguous in its last axis",
        ),
        (lambda: functional.linear(TWO, THREE), ValueError, r"weight must have shape \(2, any\)"),
        (lambda: functional.linear(TWO, TWO, [1.0]), ValueError, r"bias must have shape \(2\)"),
        (lambda: functional.linear(TWO, TWO, None, "rleu"), ValueError, "did you mean 'relu'"),
        (lambda: functional.linear(TWO, TWO, None, "prelu"), ValueError, "unknown activation"),
        (
            lambda: functional.linear(TWO, TWO, None, "elu", alhpa=1.0),
            ValueError,
            "unknown setting of elu 'alhpa': did you mean 'alpha'",
        ),
        (lambda: functional.gelu(TWO, "tnah"), ValueError, "did you mean 'tanh'"),
        (lambda: functional.softmax(np.ones(3)), ValueError, "x must have shape"),
        (lambda: functional.cross_entropy(TWO, [0, 2]), ValueError, "expected 0 to 1"),
        (lambda: functional.dropout(TWO, 1.0), ValueError, "p must be below 1"),
        (lambda: functional.dropout(TWO, 0.5, layer=256), ValueError, "layer must be below 256"),
        (lambda: functional.dropout(TWO, 0.5, 2**64), ValueError, "seed must be below 1844"),
        (lambda: functional.dropout(TWO, epoch=2**24), ValueError, "epoch must be below 1677"),
        (lambda: functional.dropout(TWO, step=2**32), ValueError, "step must be below 4294"),
        (lambda: functional.softplus(TWO, 0.0), ValueError, "beta must be above 0"),
        (
            lambda: functional.activation_backward("softplus", TWO, TWO, beta=-1),
            ValueError,
            "beta must be above 0",
        ),
        (lambda: functional.batch_norm(TWO, [1.0], [1.0]), ValueError, "gamma must have shape"),
        (
            lambda: functional.batch_norm(np.ones((0, 1)), [1.0], [1.0]),
            ValueError,
            "x must have at least one row",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
