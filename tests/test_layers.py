"""Every layer by itself and in stacks: forward, backward and modes, against the float64 truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, elementwise_bound, product_bound
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnn
from fastnn.gradient_check import GradientError
from fastnn.layers import ACTIVATIONS, Layer

DTYPES = ("float32", "float64")
ULPS = 8  # of a formula: a few functions of MAX_ULP each and their arithmetic
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

pytestmark = pytest.mark.usefixtures("backend")


def numbers(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def alone(layer: Layer, dtype: str) -> fastnn.Sequential:
    """A network of one layer: what gives a layer its dtype."""
    return fastnn.Sequential(layer, dtype=dtype)


def of_size(dtype: str, roundings: float, magnitude: np.ndarray | float) -> Bound:
    """So many roundings of numbers of a magnitude."""
    limit = roundings * float(np.finfo(dtype).eps) * np.asarray(magnitude)
    return Bound(limit, limit)


# Linear


@settings(max_examples=25)
@given(
    rows=st.integers(1, 20), inputs=st.integers(1, 70), outputs=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES), bias=st.booleans(),
)  # fmt: skip
def test_linear(rows, inputs, outputs, dtype, bias):
    layer = fastnn.Linear(inputs, outputs, bias=bias)
    model = alone(layer, dtype)
    if bias:
        layer.bias = numbers(dtype, outputs, seed=1)
    x, grad = numbers(dtype, rows, inputs, seed=2), numbers(dtype, rows, outputs, seed=3)
    added = layer.bias if bias else np.zeros(outputs)
    size = np.abs(x).astype(float) @ np.abs(layer.weight) + np.abs(added)
    expected = reference.linear(x, layer.weight, added)
    assert_close(model(x), expected, product_bound(dtype, inputs + 1, size))
    grad_x, grad_weight, grad_bias = reference.linear_backward(x, layer.weight, grad)
    size = np.abs(grad).astype(float) @ np.abs(layer.weight).T
    assert_close(model.backward(grad), grad_x, product_bound(dtype, outputs, size))
    size = np.abs(x).astype(float).T @ np.abs(grad)
    assert_close(layer.grad_weight, grad_weight, product_bound(dtype, rows, size))
    if bias:
        size = np.abs(grad).astype(float).sum(axis=0)
        assert_close(layer.grad_bias, grad_bias, product_bound(dtype, rows, size))
    else:
        assert layer.bias is None and layer.grad_bias is None


def test_linear_by_itself_keeps_its_weights_between_calls():
    layer = fastnn.Linear(3, 2)
    first = layer([[1.0, 2.0, 3.0]])
    assert first.dtype == np.float32 and layer.weight.any()
    np.testing.assert_array_equal(layer([[1.0, 2.0, 3.0]]), first)
    layer.weight = np.ones((3, 2))
    np.testing.assert_array_equal(layer([[1.0, 2.0, 3.0]]), [[6.0, 6.0]])


def test_an_assigned_weight_is_copied_into_the_arena():
    model = fastnn.Sequential(fastnn.Linear(3, 2), fastnn.Linear(2, 1))
    model[1].weight = [[5.0], [7.0]]
    np.testing.assert_array_equal(model.arena["1.weight"], [[5.0], [7.0]])
    assert np.shares_memory(model[1].weight, model.arena.flat)


# Activations

KINDS: dict[str, tuple[Callable[[], Layer], str, dict[str, float]]] = {
    "identity": (fastnn.Identity, "identity", {}),
    "sigmoid": (fastnn.Sigmoid, "sigmoid", {}),
    "tanh": (fastnn.Tanh, "tanh", {}),
    "relu": (fastnn.ReLU, "relu", {}),
    "leaky_relu": (fastnn.LeakyReLU, "leaky_relu", {}),
    "leaky_relu 0.2": (lambda: fastnn.LeakyReLU(0.2), "leaky_relu", {"negative_slope": 0.2}),
    "elu": (fastnn.ELU, "elu", {}),
    "elu 0.5": (lambda: fastnn.ELU(0.5), "elu", {"alpha": 0.5}),
    "selu": (fastnn.SELU, "selu", {}),
    "gelu": (fastnn.GELU, "gelu", {}),
    "gelu_tanh": (lambda: fastnn.GELU("tanh"), "gelu_tanh", {}),
    "silu": (fastnn.SiLU, "silu", {}),
    "softplus": (fastnn.Softplus, "softplus", {}),
    "softplus 2": (
        lambda: fastnn.Softplus(2.0, threshold=5.0), "softplus", {"beta": 2.0, "threshold": 5.0},
    ),
    "prelu": (fastnn.PReLU, "prelu", {}),
}  # fmt: skip
GATED = ("gelu", "gelu_tanh", "silu")
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@every_dtype
def test_activation(kind, dtype):
    make, name, keywords = KINDS[kind]
    x = (4 * numbers(dtype, 9, 37)).astype(dtype)
    grad = numbers(dtype, 9, 37, seed=1)
    model = alone(make(), dtype)
    if keywords:  # what the kernels see, in their dtype
        keywords = {key: float(np.dtype(dtype).type(value)) for key, value in keywords.items()}
    expected = reference.activation(name, x, **keywords)
    # A gate near 0 is known to a unit of 1, and so is its product with x.
    gated = np.abs(x) if name in GATED else 0.0
    assert_close(model(x), expected, of_size(dtype, ULPS, np.abs(expected) + gated))
    slope = reference.activation_derivative(name, x, **keywords)
    size = np.abs(grad) * (1 + np.abs(slope) + gated)
    assert_close(model.backward(grad), grad * slope, of_size(dtype, ULPS, size))


@every_kind
@every_dtype
def test_activation_gives_finite_numbers_for_all_finite_inputs(kind, dtype):
    largest = float(np.finfo(dtype).max) / 4
    x = np.array([[-largest, -1e4, -100.0, -1e-30, 0.0, 1e-30, 100.0, 1e4, largest]], dtype)
    model = alone(KINDS[kind][0](), dtype)
    assert np.isfinite(model(x)).all()
    assert np.isfinite(model.backward(np.ones_like(x))).all()


@every_kind
def test_activation_hands_nan_on(kind):
    model = alone(KINDS[kind][0](), "float32")
    with np.errstate(all="ignore"):
        y = model(np.array([[np.nan, 1.0]]))
    assert np.isnan(y[0, 0]) and np.isfinite(y[0, 1])


def test_every_activation_of_the_command_line_is_tested():
    assert set(ACTIVATIONS) - {"softmax"} <= set(KINDS)


@every_dtype
@pytest.mark.parametrize("columns", [1, 37])
def test_prelu_learns_its_slopes(dtype, columns):
    layer = fastnn.PReLU(columns)
    model = alone(layer, dtype)
    layer.slope = np.linspace(-0.5, 0.5, columns)
    x, grad = numbers(dtype, 11, 37), numbers(dtype, 11, 37, seed=1)
    expected = reference.activation("prelu", x, slope=layer.slope)
    assert_close(model(x), expected, elementwise_bound(dtype, 1, expected))
    slope = reference.activation_derivative("prelu", x, slope=layer.slope)
    assert_close(model.backward(grad), grad * slope, of_size(dtype, 1, np.abs(grad * slope)))
    terms = reference.prelu_slope_derivative(x) * grad
    expected = terms.sum(axis=0) if columns > 1 else terms.sum(keepdims=True)[0]
    size = np.abs(terms).sum(axis=0) if columns > 1 else np.abs(terms).sum()
    assert_close(layer.grad_slope, expected, product_bound(dtype, terms.size, size))


@every_dtype
def test_softmax(dtype):
    x, grad = 3 * numbers(dtype, 6, 19), numbers(dtype, 6, 19, seed=1)
    model = alone(fastnn.Softmax(), dtype)
    y = model(x)
    assert_close(y, reference.softmax(x), of_size(dtype, 19 + ULPS, reference.softmax(x)))
    expected = reference.softmax_backward(y, grad)
    size = np.abs(y) * (np.abs(grad) + (np.abs(y * grad)).sum(axis=1, keepdims=True))
    assert_close(model.backward(grad), expected, product_bound(dtype, 19 + 2, size))


def test_softmax_does_not_overflow():
    largest = float(np.finfo("float32").max) / 4
    x = np.float32([[largest, -largest, 0.0], [largest, largest, largest]])
    np.testing.assert_array_equal(
        fastnn.Softmax()(x), np.float32([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    )


@every_dtype
def test_custom_activation_is_its_formula_and_its_derivative(dtype):
    mish = fastnn.Activation(lambda m, x: x * m.tanh(m.softplus(x)), name="mish")
    x = numbers(dtype, 5, 21)
    model = alone(mish, dtype)
    softplus = reference.activation("softplus", x)
    expected = x * np.tanh(softplus)
    assert_close(model(x), expected, elementwise_bound(dtype, 2 * ULPS, expected))
    by_tanh = reference.activation_derivative("tanh", softplus) * reference.sigmoid(x)
    expected = np.tanh(softplus) + x * by_tanh
    assert_close(model.backward(np.ones_like(x)), expected, of_size(dtype, 2 * ULPS, 1))


def test_custom_activation_with_a_setting():
    def scaled(m, x, factor):
        return factor * m.tanh(x)

    layer = fastnn.Activation(scaled, name="scaled", factor=3.0)
    expected = 3 * np.tanh(np.float32([[0.5]]).astype(float))
    assert_close(layer([[0.5]]), expected, elementwise_bound("float32", ULPS, expected))
    assert repr(layer) == "Activation('scaled')"


# Dropout


@every_dtype
def test_dropout_keeps_what_the_mask_keeps_and_scales_it_up(dtype):
    layer = fastnn.Dropout(0.3, seed=7)
    model = alone(layer, dtype)
    x, grad = numbers(dtype, 5, 70), numbers(dtype, 5, 70, seed=1)
    for call in range(2):
        keep = reference.dropout_mask(7, 0, call, 0, 5, 70, 0.3)
        expected = reference.dropout(x, keep, 0.3)
        assert_close(model(x), expected, elementwise_bound(dtype, 2, expected))
        expected = reference.dropout(grad, keep, 0.3)
        assert_close(model.backward(grad), expected, elementwise_bound(dtype, 2, expected))


def test_dropout_drops_its_share():
    share = (fastnn.Dropout(0.2)(np.ones((500, 100))) == 0).mean()
    assert abs(share - 0.2) <= 4 * np.sqrt(0.2 * 0.8 / 50_000)  # four standard deviations


@pytest.mark.parametrize("probability, evaluating", [(0.5, True), (0.0, False)])
def test_dropout_hands_on_in_evaluation_and_without_probability(probability, evaluating):
    layer = fastnn.Dropout(probability)
    if evaluating:
        layer.eval()
    x = numbers("float32", 4, 3)
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


def test_train_and_eval_reach_every_layer_and_come_back():
    model = fastnn.Sequential(fastnn.Dropout(0.5), fastnn.Linear(3, 2), fastnn.BatchNorm1d(2))
    assert model.eval() is model
    assert [layer.training for layer in model] == [False] * 3
    assert model.train() is model
    assert [layer.training for layer in model] == [True] * 3


# Normalisation


def batch_norm_case(dtype: str):
    x = (3 + 2 * numbers(dtype, 13, 21)).astype(dtype)
    layer = fastnn.BatchNorm1d(21, eps=1e-3, momentum=0.3)
    model = alone(layer, dtype)
    layer.weight, layer.bias = numbers(dtype, 21, seed=1), numbers(dtype, 21, seed=2)
    return layer, model, x


@every_dtype
def test_batch_norm_in_training(dtype):
    layer, model, x = batch_norm_case(dtype)
    grad = numbers(dtype, 13, 21, seed=3)
    expected, _, variance = reference.batch_norm_train(x, layer.weight, layer.bias, 1e-3)
    # The mean's rounding, of 13 numbers as large as the largest, comes out over the deviation.
    amplified = np.abs(x).max(axis=0) / np.sqrt(variance + 1e-3)
    size = 1 + np.abs(layer.weight) * amplified
    assert_close(model(x), expected, of_size(dtype, 13 + ULPS, size))
    by_x, by_weight, by_bias = reference.batch_norm_backward(x, layer.weight, grad, 1e-3)
    spread = np.abs(grad).sum(axis=0) * (1 + amplified) ** 2
    size = np.abs(layer.weight) * spread / np.sqrt(variance + 1e-3)
    assert_close(model.backward(grad), by_x, of_size(dtype, 13 + ULPS, size))
    assert_close(layer.grad_weight, by_weight, of_size(dtype, 13 + ULPS, spread))
    assert_close(layer.grad_bias, by_bias, of_size(dtype, 13, spread))


@every_dtype
def test_batch_norm_moves_its_running_statistics(dtype):
    layer, model, x = batch_norm_case(dtype)
    mean, variance = np.zeros(21), np.ones(21)
    for _ in range(3):
        model(x)
        mean, variance = reference.batch_norm_running(mean, variance, x, 0.3)
    assert_close(layer.running_mean, mean, of_size(dtype, 3 * 13, np.abs(x).max()))
    assert_close(layer.running_var, variance, of_size(dtype, 3 * 13, np.abs(x).max() ** 2))


@every_dtype
def test_batch_norm_predicts_with_running_statistics(dtype):
    layer, model, x = batch_norm_case(dtype)
    layer.running_mean, layer.running_var = np.full(21, 2.0), np.full(21, 5.0)
    expected = reference.batch_norm_predict(x, layer.weight, layer.bias, 2.0, 5.0, 1e-3)
    assert_close(model.eval()(x), expected, of_size(dtype, ULPS, 1 + np.abs(expected)))
    np.testing.assert_array_equal(layer.running_mean, 2.0)
    with pytest.raises(RuntimeError, match="in training only"):
        layer.backward(x)


def test_batch_norm_refuses_one_row_in_training_only():
    layer = fastnn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="two rows at least, got 1"):
        layer(np.ones((1, 3)))
    np.testing.assert_array_equal(layer.running_mean, 0.0)
    assert layer.eval()(np.ones((1, 3))).shape == (1, 3)


@every_dtype
def test_standardize_fits_the_columns(dtype):
    x = numbers(dtype, 40, 5) * np.array([1, 10, 0.1, 1, 100], dtype) + np.array(
        [0, 5, -3, 0, 20], dtype
    )
    x[:, 3] = 7.0
    model = alone(fastnn.Standardize.fit(x), dtype)
    expected = reference.standardize(x, x)
    amplified = np.abs(x) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    assert_close(model(x), expected, of_size(dtype, ULPS, 1 + amplified))
    assert not model(x)[:, 3].any()
    inverse = 1 / np.where(x.max(axis=0) == x.min(axis=0), 1, x.std(axis=0, dtype=float))
    assert_close(model.backward(x), x * inverse, of_size(dtype, ULPS, np.abs(x * inverse)))
    assert model.parameter_count == 0


def test_flatten_makes_rows_of_one_axis():
    x = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(fastnn.Flatten()(x), x.reshape(2, 12))
    model = fastnn.Sequential(fastnn.Flatten(), fastnn.Linear(12, 2))
    np.testing.assert_array_equal(model(x), model(x.reshape(2, 12)))
    np.testing.assert_array_equal(model.predict(x), model.predict(x.reshape(2, 12)))


# Stacks against central differences

STACKS: dict[str, Callable[[], list[Layer]]] = {
    "linear": lambda: [fastnn.Linear(6, 3)],
    "no bias": lambda: [fastnn.Linear(6, 4, bias=False), fastnn.Tanh(), fastnn.Linear(4, 3)],
    "two activations": lambda: [
        fastnn.Linear(6, 4), fastnn.Tanh(), fastnn.Sigmoid(), fastnn.Linear(4, 3),
    ],
    "activation first": lambda: [fastnn.SiLU(), fastnn.Linear(6, 3)],
    "activation last": lambda: [fastnn.Linear(6, 3), fastnn.Softplus()],
    "prelu": lambda: [fastnn.Linear(6, 4), fastnn.PReLU(4), fastnn.Linear(4, 3), fastnn.PReLU()],
    "normalised": lambda: [
        fastnn.Linear(6, 4), fastnn.BatchNorm1d(4), fastnn.GELU(), fastnn.Linear(4, 3),
    ],
    "normalised first and last": lambda: [
        fastnn.BatchNorm1d(6), fastnn.Linear(6, 3), fastnn.BatchNorm1d(3),
    ],
    "softmax in the middle": lambda: [
        fastnn.Linear(6, 4), fastnn.Softmax(), fastnn.Linear(4, 3), fastnn.Tanh(),
    ],
    "folded softmax": lambda: [fastnn.Linear(6, 3), fastnn.Softmax()],
    "standardized": lambda: [
        fastnn.Standardize(np.arange(6.0), np.arange(1.0, 7.0)), fastnn.Linear(6, 3),
    ],
    "dropout": lambda: [fastnn.Linear(6, 4), fastnn.Tanh(), fastnn.Dropout(), fastnn.Linear(4, 3)],
    "deep": lambda: [
        fastnn.Linear(6, 5), fastnn.SELU(), fastnn.Linear(5, 4), fastnn.ELU(), fastnn.Linear(4, 4),
        fastnn.GELU("tanh"), fastnn.Linear(4, 3),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
def test_gradients_of_stacks_against_central_differences(name):
    model = fastnn.Sequential(*STACKS[name](), dtype="float64", seed=3)
    x = numbers("float64", 7, 6)
    errors = fastnn.check_gradients(model, x, np.arange(7) % 3, elements=12)
    assert set(errors) == {"x", *model.arena}
    assert max(errors.values()) <= 1e-6


@every_kind
def test_gradients_of_activations_against_central_differences(kind):
    model = fastnn.Sequential(
        fastnn.Linear(4, 5), KINDS[kind][0](), fastnn.Linear(5, 2), dtype="float64", seed=1
    )
    x, y = numbers("float64", 6, 4), numbers("float64", 6, 2, seed=1)
    assert max(fastnn.check_gradients(model, x, y, elements=8).values()) <= 1e-6


class Wrong(Layer):
    """Twice its inputs, with a gradient that forgets so."""

    def forward(self, x):
        return 2 * x

    def backward(self, grad):
        return grad


def test_a_wrong_gradient_is_found_and_named():
    model = fastnn.Sequential(fastnn.Linear(4, 5), Wrong(), dtype="float64")
    with pytest.raises(GradientError, match=r"gradient of x at \(\d, \d\)"):
        fastnn.check_gradients(model, numbers("float64", 6, 4), np.arange(6) % 5)


def test_the_gradient_check_leaves_everything_as_it_was():
    layers = (fastnn.Linear(4, 5), fastnn.BatchNorm1d(5), fastnn.Dropout(), fastnn.Linear(5, 2))
    model = fastnn.Sequential(*layers, dtype="float64").eval()
    before = {name: array.copy() for name, array in model.arrays().items()}
    x = numbers("float64", 6, 4)
    kept = x.copy()
    fastnn.check_gradients(model, x, np.arange(6) % 2, elements=3)
    assert not model.training and not any(layer.training for layer in model)
    np.testing.assert_array_equal(x, kept)
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, before[name])


@every_dtype
def test_layers_by_hand_give_what_the_network_gives(dtype):
    model = fastnn.Sequential(*STACKS["deep"](), dtype=dtype)
    x, grad = numbers(dtype, 7, 6), numbers(dtype, 7, 3, seed=1)
    values = x
    for layer in model:
        values = layer(values)
    np.testing.assert_array_equal(values, model(x))
    for layer in reversed(model.layers):
        grad = layer.backward(grad)
    np.testing.assert_array_equal(grad, model.backward(numbers(dtype, 7, 3, seed=1)))


def test_a_dropout_layer_keeps_its_seed_in_a_file(tmp_path):
    fastnn.Sequential(fastnn.Linear(2, 2), fastnn.Dropout(0.5, seed=7)).save(tmp_path / "m")
    assert fastnn.load(tmp_path / "m").layers[1].seed == 7
