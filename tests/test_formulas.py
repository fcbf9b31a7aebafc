"""Every formula, in every reading, against the float64 reference."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, elementwise_bound
from hypothesis import given
from hypothesis import strategies as st
from readings import DTYPES, READINGS, every_reading, reader
from text_kernels import COMPILER, text_kernels
from vector_kernels import vector_kernel, vector_module

from fastnn.kernels import formulas
from fastnn.kernels.formulas import ACTIVATIONS, LOSSES, UPDATES
from fastnn.kernels.tracing import NumpyMath, derivative, function_text, value_and_derivative

ULPS = 8  # a few functions of MAX_ULP each and their arithmetic
GATED = ("gelu", "gelu_tanh", "silu")


PIECES = (
    formulas.softmax_numerator,
    formulas.softmax_grad,
    formulas.cross_entropy_term,
    formulas.cross_entropy_row,
    formulas.cross_entropy_grad,
    formulas.smooth_target,
    formulas.inverse_deviation,
    formulas.normalise,
    formulas.scale_shift,
    formulas.batch_norm_grad,
    formulas.running_average,
    formulas.clip,
    formulas.between,
    formulas.norm_clip,
)


def _update(formula):
    """The update as a function of plain numbers: weight, grad, slots, scalars."""
    slots = len(formula.slots)

    def update(m, weight, grad, *rest):
        h = SimpleNamespace(**dict(zip(formula.scalars, rest[slots:], strict=True)))
        weight, moved = formula.function(m, weight, grad, rest[:slots], h)
        return weight, *moved

    return update, 2 + slots + len(formula.scalars)


def _tuple(function):
    return lambda m, *numbers: (function(m, *numbers),)


def _elementwise():
    """Every formula on plain numbers, by name: (function that gives a tuple, inputs)."""
    table = {}
    for name, formula in ACTIVATIONS.items():
        inputs = 1 + len(formula.learned)
        table[f"activation_{name}"] = value_and_derivative(formula.function), inputs
    table["prelu_by_slope"] = _tuple(derivative(formulas.prelu, argument=1)), 2
    for name, formula in LOSSES.items():
        table[f"loss_{name}"] = value_and_derivative(formula.function), 2
    for name, formula in UPDATES.items():
        table[f"update_{name}"] = _update(formula)
    for function in PIECES:
        inputs = len(inspect.signature(function).parameters) - 1
        table[function.__name__] = _tuple(function), inputs
    return table


ELEMENTWISE = _elementwise()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return reader(ELEMENTWISE, tmp_path_factory.mktemp("text"))


def bound(dtype, scale, flushed=1.0):
    """ULPS rounding units of the scale; so many smallest normal numbers may be flushed."""
    number = np.finfo(dtype)
    limit = ULPS * float(number.eps) * np.asarray(scale, np.float64)
    limit = limit + flushed * float(number.smallest_normal)
    return Bound(limit, limit)


def points(dtype):
    number = np.finfo(dtype)
    ends = [float(number.max), 3e38, 1e30, 100.0, 88.8, 40.1, 20.1, 20.0, 19.9, 10.0, 1.0]
    ends += [float(number.eps), float(number.tiny), float(number.smallest_subnormal), 0.0]
    ends += [800.1, 745.0, 709.9, 1e5]
    x = np.concatenate([ends, -np.array(ends), np.linspace(-30, 30, 1001)])
    return x.astype(dtype)


@pytest.mark.parametrize("name", ACTIVATIONS)
@every_reading
def test_activation(run, reading, dtype, name):
    x = points(dtype)
    learned = [np.full_like(x, 0.25)] if ACTIVATIONS[name].learned else []
    settings = {"slope": learned[0]} if learned else {}
    value, slope = run(reading, f"activation_{name}", dtype, x, *learned)
    expected = reference.activation(name, x, **settings)
    # a gate near 0 or 1 is known to a unit of 1, or flushed, and so its product with x
    scale = np.abs(x.astype(np.float64)) * (np.abs(x) < 41) if name in GATED else 0.0
    flushed = 800.0 if name in GATED else 1.0
    assert_close(value, expected, bound(dtype, np.abs(expected) + scale, flushed))
    expected = reference.activation_derivative(name, x, **settings)
    assert_close(slope, expected, bound(dtype, 1 + np.abs(expected) + scale, flushed))


INFINITIES = {
    "identity": (-np.inf, np.inf),
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, np.inf),
    "leaky_relu": (-np.inf, np.inf),
    "prelu": (-np.inf, np.inf),
    "elu": (-1.0, np.inf),
    "selu": (-formulas.SELU_ALPHA * formulas.SELU_SCALE, np.inf),
    "gelu": (0.0, np.inf),
    "gelu_tanh": (0.0, np.inf),
    "silu": (0.0, np.inf),
    "softplus": (0.0, np.inf),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@every_reading
def test_activation_of_infinity_and_nan(run, reading, dtype, name):
    x = np.array([-np.inf, np.inf, np.nan], dtype)
    learned = [np.full_like(x, 0.25)] if ACTIVATIONS[name].learned else []
    value, slope = run(reading, f"activation_{name}", dtype, x, *learned)
    expected = np.array([*INFINITIES[name], np.nan])
    assert_close(value, expected, elementwise_bound(dtype, 2, expected))
    expected = reference.activation_derivative(name, x[:2])
    assert_close(slope[:2], expected, bound(dtype, 1))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("reading", ["numpy", "vector"])
@given(x=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_activation_of_a_finite_number_is_no_nan(run, reading, name, x):
    learned = [0.25] if ACTIVATIONS[name].learned else []
    value, slope = run(reading, f"activation_{name}", "float32", x, *learned)
    assert not np.isnan(value).any()
    assert np.isfinite(slope).all()


@every_reading
def test_derivative_by_the_slope(run, reading, dtype):
    x = points(dtype)
    (slope,) = run(reading, "prelu_by_slope", dtype, x, np.full_like(x, 0.25))
    assert_close(slope, reference.prelu_slope_derivative(x), bound(dtype, 0))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("leaky_relu", {"negative_slope": 0.3}),
        ("elu", {"alpha": 1.7}),
        ("softplus", {"beta": 3.0, "threshold": 5.0}),
        ("softplus", {"beta": 0.5, "threshold": 1000.0}),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_settings(dtype, name, settings):
    x = points(dtype)
    x = x[np.abs(x) < 1e38]
    both = value_and_derivative(ACTIVATIONS[name].function)
    value, slope = NumpyMath(dtype).evaluate(both, x, **settings)
    # exp knows a rounded argument's power to as many units as the argument is large
    scaled = np.minimum(np.abs(x) * settings.get("beta", 0.0), 800)
    expected = reference.activation(name, x, **settings)
    assert_close(value, expected, bound(dtype, np.abs(expected) * (1 + scaled)))
    expected = reference.activation_derivative(name, x, **settings)
    assert_close(slope, expected, bound(dtype, 1 + scaled))
    assert set(settings) == set(ACTIVATIONS[name].settings)


LOSS_TRUTHS = {
    "squared_error": reference.mean_squared_error,
    "absolute_error": reference.mean_absolute_error,
    "huber": reference.huber,
    "binary_cross_entropy": reference.binary_cross_entropy,
    "poisson": reference.poisson,
}


@pytest.mark.parametrize("name", LOSSES)
@every_reading
def test_loss(run, reading, dtype, name):
    output = np.concatenate([points(dtype)[np.abs(points(dtype)) < 1e19], [0.5, 1.5, -0.5]])
    target = np.resize(np.array([0.0, 1.0, 0.25, 0.5], dtype), output.shape)
    output = output.astype(dtype)
    loss, grad = run(reading, f"loss_{name}", dtype, output, target)
    pairs = zip(output.tolist(), target.tolist(), strict=True)
    truth = [LOSS_TRUTHS[name]([[z]], [[t]]) for z, t in pairs]
    expected = np.array([value for value, _ in truth])
    assert_close(loss, expected, bound(dtype, np.abs(expected)))
    expected = np.array([by_output.item() for _, by_output in truth])
    assert_close(grad, expected, bound(dtype, 1 + np.abs(expected)))


@pytest.mark.parametrize("name", LOSSES)
@every_reading
def test_loss_of_nan_is_nan(run, reading, dtype, name):
    loss, _ = run(reading, f"loss_{name}", dtype, [np.nan, 1.0], [1.0, np.nan])
    assert np.isnan(loss).all()


@every_reading
def test_softmax_cross_entropy(run, reading, dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (16, 10)).astype(dtype)
    labels = rng.integers(0, 10, 16)
    top = logits.max(axis=1, keepdims=True)
    hits = np.eye(10, dtype=dtype)[labels]
    (target,) = run(reading, "smooth_target", dtype, hits, 0.1, 10.0)
    (numerator,) = run(reading, "softmax_numerator", dtype, logits, top)
    total, target_sum = numerator.sum(axis=1), target.sum(axis=1)
    (terms,) = run(reading, "cross_entropy_term", dtype, target, logits, top)
    dot = terms.sum(axis=1)
    (loss,) = run(reading, "cross_entropy_row", dtype, target_sum, np.log(total), dot)
    ratio = (target_sum / total)[:, None]
    (grad,) = run(reading, "cross_entropy_grad", dtype, numerator, target, ratio)
    truth, by_logits = reference.cross_entropy(logits, labels, label_smoothing=0.1)
    assert_close(loss.mean(), truth, bound(dtype, 30))
    assert_close(grad, 16 * by_logits, bound(dtype, 1))
    output = numerator / total[:, None]
    by_output = rng.normal(size=output.shape).astype(dtype)
    dot = (output * by_output).sum(axis=1, keepdims=True)
    (grad,) = run(reading, "softmax_grad", dtype, output, by_output, dot)
    assert_close(grad, reference.softmax_backward(output, by_output), bound(dtype, 4))


@every_reading
def test_batch_normalisation(run, reading, dtype):
    rng = np.random.default_rng(0)
    x, grad_output = rng.normal(1, 2, (2, 32, 5)).astype(dtype)
    gamma, beta, old = rng.normal(size=(3, 5)).astype(dtype)
    (inverse,) = run(reading, "inverse_deviation", dtype, x.var(axis=0), 1e-5)
    (x_hat,) = run(reading, "normalise", dtype, x, x.mean(axis=0), inverse)
    (output,) = run(reading, "scale_shift", dtype, x_hat, gamma, beta)
    truth, mean, _ = reference.batch_norm_train(x, gamma, beta)
    assert_close(output, truth, bound(dtype, 8))
    means = grad_output.mean(axis=0), (grad_output * x_hat).mean(axis=0)
    factor = gamma * inverse
    (grad,) = run(reading, "batch_norm_grad", dtype, grad_output, x_hat, *means, factor)
    truth, _, _ = reference.batch_norm_backward(x, gamma, grad_output)
    assert_close(grad, truth, bound(dtype, 8))
    (moved,) = run(reading, "running_average", dtype, old, x.mean(axis=0), 0.1)
    truth, _ = reference.batch_norm_running(old, np.ones(5), x)
    assert_close(moved, truth, bound(dtype, 2 + np.abs(mean)))


@every_reading
def test_clipping(run, reading, dtype):
    grad = np.array([-3.0, -1.0, 0.5, 2.0, -np.inf, np.inf, np.nan])
    (clipped,) = run(reading, "clip", dtype, grad, 1.0)
    np.testing.assert_array_equal(clipped, [-1, -1, 0.5, 1, -1, 1, np.nan])
    (moved,) = run(reading, "between", dtype, grad, -0.5, 1.0)
    np.testing.assert_array_equal(moved, np.clip(grad, -0.5, 1.0))
    norm = np.array([0.0, 0.5, 4.0, np.inf, np.nan])
    (factor,) = run(reading, "norm_clip", dtype, norm, 2.0)
    expected = np.array([1, 1, 2 / (4 + 1e-6), 0, np.nan])
    assert_close(factor, expected, elementwise_bound(dtype, 2, expected))


# Updates


def scalars_of(name, step, learning_rate, settings):
    """The scalars of one step, each a number."""
    step = np.array([step], np.float64)
    formula = UPDATES[name]
    prepared = formula.prepare(step, np.full_like(step, learning_rate), **settings)
    assert set(prepared) == set(formula.scalars)
    return [float(np.broadcast_to(prepared[scalar], (1,))[0]) for scalar in formula.scalars]


def trained(step_once, name, weight, grads, learning_rate, settings, first_step=1, slots=None):
    """The weight and slots after one update for each of the gradients."""
    if slots is None:
        slots = [np.full_like(weight, start) for start in UPDATES[name].initial_slots(**settings)]
    for step, grad in enumerate(grads, first_step):
        scalars = scalars_of(name, step, learning_rate, settings)
        weight, *slots = step_once(weight, grad, *slots, *scalars)
    return weight, slots


SETTINGS = {
    "sgd": (reference.SGD, [{}, {"weight_decay": 0.1}]),
    "momentum": (reference.Momentum, [{}, {"momentum": 0.5, "dampening": 0.3}]),
    "nesterov": (reference.Nesterov, [{}, {"momentum": 0.7, "weight_decay": 0.1}]),
    "adagrad": (
        reference.Adagrad,
        [{}, {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "weight_decay": 0.1}],
    ),
    "rmsprop": (reference.RMSprop, [{}, {"alpha": 0.9, "weight_decay": 0.1}]),
    "rmsprop_momentum": (reference.RMSprop, [{"momentum": 0.9}, {"momentum": 0.5, "eps": 0.1}]),
    "rmsprop_centered": (reference.RMSprop, [{}, {"alpha": 0.9, "weight_decay": 0.1}]),
    "rmsprop_centered_momentum": (reference.RMSprop, [{"momentum": 0.9}]),
    "adam": (reference.Adam, [{}, {"betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.1}]),
    "adamw": (reference.AdamW, [{}, {"betas": (0.0, 0.0), "weight_decay": 0.5}]),
}
CASES = [(name, settings) for name, (_, each) in SETTINGS.items() for settings in each]


def reference_optimizer(name, learning_rate, settings):
    centered = {"centered": True} if "centered" in name else {}
    return SETTINGS[name][0](learning_rate, **settings, **centered)


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize(("name", "settings"), CASES)
@every_reading
def test_update(run, reading, dtype, name, settings, steps):
    rng = np.random.default_rng(steps)
    weight = rng.normal(size=37).astype(dtype)
    grads = (rng.normal(size=(steps, 37)) + 0.2).astype(dtype)

    def step_once(*numbers):
        return run(reading, f"update_{name}", dtype, *numbers)

    optimizer = reference_optimizer(name, 0.05, settings)
    expected = weight
    for grad in grads:
        expected = optimizer.step(expected, grad)
    actual, _ = trained(step_once, name, weight, grads, 0.05, settings)
    assert_close(actual, expected, bound(dtype, steps * (1 + np.abs(expected))))


STATE = {  # the reference's attribute for each slot
    "velocity": "velocity",
    "square_sum": "sum",
    "square_average": "square_average",
    "grad_average": "grad_average",
    "mean": "first_moment",
    "square": "second_moment",
}


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_update_from_injected_state(name, settings):
    rng = np.random.default_rng(0)
    weight, grad = rng.normal(size=(2, 50))
    slots = [rng.uniform(0.5, 1.5, 50) ** 2 for _ in UPDATES[name].slots]
    if "grad_average" in UPDATES[name].slots:
        slots[1] = 0.3 * np.sqrt(slots[0])
    optimizer = reference_optimizer(name, 0.05, settings)
    optimizer.updates = 56
    for slot, state in zip(UPDATES[name].slots, slots, strict=True):
        setattr(optimizer, STATE[slot], state)
    expected = optimizer.step(weight, grad)

    def step_once(*numbers):
        return ELEMENTWISE[f"update_{name}"][0](NumpyMath("float64"), *numbers)

    actual, moved = trained(step_once, name, weight, [grad], 0.05, settings, 57, slots)
    assert_close(actual, expected, bound("float64", 1 + np.abs(expected)))
    for slot, state in zip(UPDATES[name].slots, moved, strict=True):
        truth = getattr(optimizer, STATE[slot])
        assert_close(state, truth, bound("float64", 1 + np.abs(truth)))


@pytest.mark.parametrize("name", UPDATES)
@every_reading
def test_update_keeps_padding_and_nan(run, reading, dtype, name):
    """A zero weight with zero gradients stays zero; a NaN gradient is not swallowed."""

    def step_once(*numbers):
        return run(reading, f"update_{name}", dtype, *numbers)

    grads = np.array([[0.0, np.nan]] * 3, dtype)
    weight, slots = trained(step_once, name, np.zeros(2, dtype), grads, 0.1, {})
    assert [values[0] for values in (weight, *slots)] == [0.0] * (1 + len(slots))
    assert np.isnan([values[1] for values in (weight, *slots)]).all()


def test_decayed_scalars_exist():
    for formula in UPDATES.values():
        assert formula.decay
        assert set(formula.decay) <= set(formula.scalars)


@pytest.mark.parametrize("nesterov", [False, True])
def test_velocity_with_the_learning_rate_inside(nesterov):
    """scikit-learn's SGD: v = mu v - lr g, w += v, or w += mu v - lr g with Nesterov."""
    rng = np.random.default_rng(0)
    weight, grads = rng.normal(size=9), rng.normal(size=(10, 9))
    rates = np.linspace(0.1, 0.01, 10)
    expected, velocity = weight, np.zeros(9)
    for grad, rate in zip(grads, rates, strict=True):
        velocity = 0.9 * velocity - rate * grad
        expected = expected + (0.9 * velocity - rate * grad if nesterov else velocity)
    name = "nesterov" if nesterov else "momentum"
    update = ELEMENTWISE[f"update_{name}"][0]
    actual, slot = weight, np.zeros(9)
    for step, (grad, rate) in enumerate(zip(grads, rates, strict=True), 1):
        scalars = scalars_of(name, step, rate, {"learning_rate_in_velocity": True})
        actual, slot = update(NumpyMath("float64"), actual, grad, slot, *scalars)
    assert_close(actual, expected, bound("float64", 1 + np.abs(expected)))
    assert_close(slot, velocity, bound("float64", 1))


def test_nesterov_that_looks_ahead_twice():
    """The from-scratch books' code: v = mu v - lr g, then w += mu² v - (1 + mu) lr g."""
    rng = np.random.default_rng(0)
    weight, grads = rng.normal(size=9), rng.normal(size=(10, 9))
    expected, velocity = weight, np.zeros(9)
    for grad in grads:
        velocity = 0.9 * velocity - 0.1 * grad
        expected = expected + 0.9**2 * velocity - (1 + 0.9) * 0.1 * grad
    update = ELEMENTWISE["update_nesterov"][0]
    settings = {"learning_rate_in_velocity": True, "looks_ahead_twice": True}

    def step_once(*numbers):
        return update(NumpyMath("float64"), *numbers)

    actual, slots = trained(step_once, "nesterov", weight, grads, 0.1, settings)
    assert_close(actual, expected, bound("float64", 1 + np.abs(expected)))
    assert_close(slots[0], velocity, bound("float64", 1))


def test_adam_with_eps_on_the_uncorrected_root():
    """Kingma and Ba's section 2, as in scikit-learn; a large eps shows the difference."""
    rng = np.random.default_rng(0)
    weight, grads = rng.normal(size=9), rng.normal(size=(10, 9))
    expected, mean, square = weight, np.zeros(9), np.zeros(9)
    for step, grad in enumerate(grads, 1):
        mean = 0.9 * mean + 0.1 * grad
        square = 0.999 * square + 0.001 * grad**2
        rate = 0.05 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        expected = expected - rate * mean / (np.sqrt(square) + 0.01)

    def step_once(*numbers):
        return ELEMENTWISE["update_adam"][0](NumpyMath("float64"), *numbers)

    settings = {"eps": 0.01, "eps_on_corrected": False}
    actual, _ = trained(step_once, "adam", weight, grads, 0.05, settings)
    assert_close(actual, expected, bound("float64", 64 + np.abs(expected)))


def test_scalars_come_for_many_steps_at_once():
    steps = np.arange(1.0, 8.0)
    for name, formula in UPDATES.items():
        rates = 0.1 / steps
        together = formula.prepare(steps, rates)
        for index, (step, rate) in enumerate(zip(steps, rates, strict=True)):
            alone = scalars_of(name, step, rate, {})
            broadcast = [np.broadcast_to(together[key], steps.shape) for key in formula.scalars]
            assert alone == [values[index] for values in broadcast]


# Random numbers

KNOWN_ANSWERS = [  # Random123's published vectors: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def philox_words(m, *numbers):
    return formulas.philox(m, numbers[:4], numbers[4:])


@pytest.fixture(scope="module", params=READINGS)
def philox(request, tmp_path_factory):
    if request.param == "vector":
        return vector_kernel(philox_words, "float32", 16, inputs=6, element="uint32")
    if request.param == "numpy":
        return lambda *numbers: NumpyMath("float32").evaluate(philox_words, *numbers)
    if COMPILER is None:
        pytest.skip("no g++")
    return text_kernels({"philox": (philox_words, 6)}, "uint32", tmp_path_factory.mktemp("p"))[
        "philox"
    ]


def test_philox_gives_the_published_words(philox):
    counters, keys, answers = (
        np.array(part, np.uint32).T for part in zip(*KNOWN_ANSWERS, strict=True)
    )
    np.testing.assert_array_equal(philox(*counters, *keys), answers)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6))
def test_philox_is_the_reference(philox, words):
    numbers = [np.array([word], np.uint32) for word in words]
    result = [int(word[0]) for word in philox(*numbers)]
    assert result == list(reference.philox4x32(words[:4], words[4:]))


def test_keep():
    words = np.array([0, 99, 100, 2**32 - 1], np.uint32)
    kept = formulas.keep(NumpyMath("float32"), words, np.uint32(100))
    np.testing.assert_array_equal(kept, [False, False, True, True])


# What float32 kernels are made of


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_no_double_in_float32(name):
    formula, inputs = ELEMENTWISE[name]
    module, _ = vector_module("kernel", formula, "float32", 16, inputs)
    assert "double" not in str(module)
    text = function_text("f", formula, [f"x{number}" for number in range(inputs)], "float32")
    assert "double" not in text
    assert not re.findall(r"(?<![\w.])[\d.]+(?:e[+-]?\d+)?(?![\w.])", _statements(text))
    assert not re.findall(r"\b(?:exp|log|log1p|expm1|sqrt|tanh|erf|fabs|fma)\(", text)


def _statements(text):
    return re.sub(r"\bt\d+\b", "", text)
