"""The truth itself: against closed forms, central differences, published vectors, PyTorch."""

from __future__ import annotations

import itertools
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import reference
from checks import Bound, assert_close
from hypothesis import given
from hypothesis import strategies as st
from reference import central_difference

EPS = float(np.finfo(np.float64).eps)
TORCH = json.loads((Path(__file__).parent / "data" / "torch_numbers.json").read_text())


def assert_rounding(actual, expected, roundings=16, scale=1.0):
    """Two float64 computations of the same, each off by some roundings of numbers up to scale."""
    size = np.maximum(np.abs(np.asarray(expected, dtype=np.float64)), scale)
    bound = roundings * EPS * size
    assert_close(np.asarray(actual, dtype=np.float64), expected, Bound(bound, bound))


def assert_gradient(actual, function, point):
    """The analytic gradient agrees with the central difference; fifth derivatives up to 1000."""
    expected = central_difference(function, point)
    bound = 100 * EPS**0.8 * max(1.0, np.abs(expected).max(initial=0))
    assert_close(actual, expected, Bound(bound, bound))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def identified(section):
    return [
        pytest.param(record, id=f"{record['name']}-{number}")
        for number, record in enumerate(TORCH[section])
    ]


def test_central_difference_of_a_polynomial():
    def quartic(point):
        return point[0] ** 4 + point[0] * point[1]

    gradient = central_difference(quartic, [1.5, -2.0])
    bound = 10 * EPS**0.8
    assert_close(gradient, [4 * 1.5**3 - 2, 1.5], Bound(bound, bound))


# Products -----------------------------------------------------------------------------------


def test_linear_by_hand():
    x, weight, bias = [[1, 2]], [[3, 4, 5], [6, 7, 8]], [10, 20, 30]
    assert_rounding(reference.linear(x, weight, bias), [[25, 38, 51]])


def test_matmul_against_exact_sums():
    a, b = normal(0, 3, 50), normal(1, 50, 4)
    exact = [[math.fsum(row * column) for column in b.T] for row in a]
    assert_rounding(reference.matmul(a, b), exact, roundings=50, scale=50)


def test_linear_backward_is_the_gradient():
    x, weight, bias, grad_output = normal(0, 4, 3), normal(1, 3, 2), normal(2, 2), normal(3, 4, 2)

    def loss(x, weight, bias):
        return float((reference.linear(x, weight, bias) * grad_output).sum())

    grad_x, grad_weight, grad_bias = reference.linear_backward(x, weight, grad_output)
    assert_gradient(grad_x, lambda moved: loss(moved, weight, bias), x)
    assert_gradient(grad_weight, lambda moved: loss(x, moved, bias), weight)
    assert_gradient(grad_bias, lambda moved: loss(x, weight, moved), bias)


# Activations --------------------------------------------------------------------------------

FAR = [1e3, 3e38, 1e308, np.inf]
SETTINGS = {
    "leaky_relu": {"negative_slope": 0.2},
    "prelu": {"slope": -0.3},
    "elu": {"alpha": 0.7},
    "softplus": {"beta": 2.0, "threshold": 8.0},
}


@pytest.mark.parametrize("record", identified("activations"))
def test_activations_against_pytorch(record):
    name, x, settings = record["name"], record["x"], record["settings"]
    scale = np.maximum(np.abs(x), 1)  # PyTorch's 1 + erf(x) and the like cancel
    values = reference.activation(name, x, **settings)
    assert_rounding(values, record["values"], scale=scale)
    derivative = reference.activation_derivative(name, x, **settings)
    assert_rounding(derivative, record["derivative"], scale=scale)
    if "slope_grad" in record:
        slope_grad = reference.prelu_slope_derivative(x).sum()
        assert_rounding(slope_grad, record["slope_grad"], scale=np.abs(x).sum())


@pytest.mark.parametrize("name", reference.ACTIVATION_NAMES)
def test_activation_derivatives_against_central_differences(name):
    settings = SETTINGS.get(name, {})
    x = np.array([-7.1, -2.3, -0.4, -0.01, 0.01, 0.3, 1.7, 3.9, 6.2])
    derivative = reference.activation_derivative(name, x, **settings)
    assert_gradient(derivative, lambda x: float(reference.activation(name, x, **settings).sum()), x)


def test_prelu_slope_derivative_against_central_differences():
    x = np.array([-2.5, -0.1, 0.0, 0.3, 4.0])
    slopes = np.full(5, 0.25)
    derivative = reference.prelu_slope_derivative(x)
    assert_gradient(
        derivative,
        lambda slopes: float(reference.activation("prelu", x, slope=slopes).sum()),
        slopes,
    )


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("identity", -1, 1),
        ("sigmoid", 0, 0),
        ("tanh", 0, 0),
        ("relu", 0, 1),
        ("leaky_relu", 0.2, 1),
        ("prelu", -0.3, 1),
        ("elu", 0, 1),
        ("selu", 0, reference.SELU_SCALE),
        ("gelu", 0, 1),
        ("gelu_tanh", 0, 1),
        ("silu", 0, 1),
        ("softplus", 0, 1),
    ],
)
def test_activations_far_out(name, low, high):
    """The derivative has reached its limit, the value is finite wherever x is, NaN stays NaN."""
    settings = SETTINGS.get(name, {})
    low = 1 if name == "identity" else low
    below, above = -np.array(FAR), np.array(FAR)
    derivative = partial(reference.activation_derivative, name, **settings)
    assert_rounding(derivative(below), np.full(4, float(low)))
    assert_rounding(derivative(above), np.full(4, float(high)))
    value = partial(reference.activation, name, **settings)
    assert np.isfinite(value(below[:-1])).all()
    assert np.isfinite(value(above[:-1])).all()
    assert not np.isnan(value([-np.inf, np.inf])).any()
    assert np.isnan(value(np.nan))
    assert np.isnan(derivative(np.nan))


@pytest.mark.parametrize(
    ("name", "x", "value"),
    [
        ("sigmoid", -700.0, math.exp(-700)),
        ("gelu", -30.0, -30 * math.erfc(30 / math.sqrt(2)) / 2),
        ("gelu_tanh", -8.0, -8 * math.exp(2 * math.sqrt(2 / math.pi) * (-8 - 0.044715 * 512))),
        ("silu", -700.0, -700 * math.exp(-700)),
        ("softplus", -700.0, math.exp(-700)),
        ("elu", -1e-12, math.expm1(-1e-12)),
    ],
)
def test_activation_tails_keep_their_digits(name, x, value):
    relative = reference.activation(name, x) / value
    bound = (16 + abs(math.log(abs(value)))) * EPS  # an exponent's rounding is relative to it
    assert_close(relative, 1.0, Bound(bound, bound))


def test_derivatives_at_the_kink_are_pytorchs():
    kinks = {
        "relu": 0.0,
        "leaky_relu": 0.01,
        "prelu": 0.25,
        "elu": 1.0,
        "selu": reference.SELU_SCALE * reference.SELU_ALPHA,
    }
    for name, derivative in kinks.items():
        assert reference.activation_derivative(name, 0.0) == derivative


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.floats(-1e3, 1e3))
def test_softmax_is_a_distribution_and_ignores_a_shift(logits, shift):
    output = reference.softmax([logits])
    assert output.min() >= 0
    assert abs(output.sum() - 1) <= 8 * EPS
    size = 1 + max(map(abs, logits)) + abs(shift)
    assert np.abs(reference.softmax([np.array(logits) + shift]) - output).max() <= 8 * EPS * size


def test_softmax_backward_is_the_gradient():
    logits, grad_output = normal(0, 3, 4), normal(1, 3, 4)
    grad_logits = reference.softmax_backward(reference.softmax(logits), grad_output)
    assert_gradient(
        grad_logits, lambda z: float((reference.softmax(z) * grad_output).sum()), logits
    )


def test_softmax_against_pytorch():
    (record,) = TORCH["softmax"]
    output = reference.softmax(record["logits"])
    assert_rounding(output, record["output"])
    grad_logits = reference.softmax_backward(output, record["grad_output"])
    assert_rounding(grad_logits, record["grad_logits"])


# Losses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", identified("losses"))
def test_losses_against_pytorch(record):
    function = getattr(reference, record["name"])
    loss, grad = function(record["outputs"], record["targets"], **record["settings"])
    assert_rounding(loss, record["loss"], scale=10)
    assert_rounding(grad, record["grad"])


@pytest.mark.parametrize("record", identified("losses"))
def test_loss_gradients_against_central_differences(record):
    function = partial(
        getattr(reference, record["name"]), targets=record["targets"], **record["settings"]
    )
    outputs = np.array(record["outputs"])
    assert_gradient(function(outputs)[1], lambda moved: function(moved)[0], outputs)


def test_cross_entropy_takes_labels_and_one_hot_rows_alike():
    logits = normal(0, 4, 3)
    by_label = reference.cross_entropy(logits, [2, 0, 1, 1], [1, 2, 3, 4], 0.1)
    by_row = reference.cross_entropy(logits, np.eye(3)[[2, 0, 1, 1]], [1, 2, 3, 4], 0.1)
    assert by_label[0] == by_row[0]
    np.testing.assert_array_equal(by_label[1], by_row[1])


def test_uniform_logits_cost_the_log_of_the_classes():
    loss, _ = reference.cross_entropy(np.full((2, 7), 3.0), [0, 6])
    assert_rounding(loss, math.log(7))


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("size", [1e3, 1e300])
def test_losses_on_logits_stay_finite(name, size):
    targets = [[1.0, 0.0], [0.0, 1.0]]
    loss, grad = getattr(reference, name)([[size, -size], [size, -size]], targets)
    assert np.isfinite(loss)
    assert loss >= size / 2
    assert np.isfinite(grad).all()


@pytest.mark.parametrize(
    "name",
    [
        "cross_entropy",
        "binary_cross_entropy",
        "mean_squared_error",
        "mean_absolute_error",
        "huber",
        "poisson",
    ],
)
def test_a_weight_of_two_is_a_row_given_twice(name):
    function = getattr(reference, name)
    outputs, targets = normal(0, 3, 2), np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    loss, grad = function(outputs, targets, [1, 2, 0])
    twice_loss, twice_grad = function(outputs[[0, 1, 1]], targets[[0, 1, 1]])
    assert_rounding(loss, twice_loss)
    assert_rounding(grad[0], twice_grad[0])
    assert_rounding(grad[1], twice_grad[1] + twice_grad[2])
    assert (grad[2] == 0).all()


def test_one_column_may_be_left_out_of_the_shape():
    outputs, targets = normal(0, 5), normal(1, 5)
    loss, grad = reference.huber(outputs, targets, [1, 2, 3, 4, 5])
    column_loss, column_grad = reference.huber(outputs[:, None], targets[:, None], [1, 2, 3, 4, 5])
    assert loss == column_loss
    np.testing.assert_array_equal(grad, column_grad[:, 0])


# Normalisation and dropout ------------------------------------------------------------------


def test_batch_norm_against_pytorch():
    (record,) = TORCH["batch_norm"]
    x, gamma, beta = record["x"], record["gamma"], record["beta"]
    output, _, _ = reference.batch_norm_train(x, gamma, beta)
    assert_rounding(output, record["output"], roundings=64)
    grads = reference.batch_norm_backward(x, gamma, record["grad_output"])
    # Dividing by the smallest deviation of the columns, about 0.1, makes grad_x tenfold.
    for grad, name in zip(grads, ("grad_x", "grad_gamma", "grad_beta"), strict=True):
        assert_rounding(grad, record[name], roundings=64, scale=10)
    mean, variance = reference.batch_norm_running(np.zeros(3), np.ones(3), x)
    assert_rounding(mean, record["running_mean"])
    assert_rounding(variance, record["running_variance"], scale=100)
    predicted = reference.batch_norm_predict(x, gamma, beta, mean, variance)
    assert_rounding(predicted, record["predicted"], roundings=64)


def test_batch_norm_backward_is_the_gradient():
    x, gamma, beta, grad_output = normal(0, 5, 2), normal(1, 2), normal(2, 2), normal(3, 5, 2)

    def loss(x, gamma, beta):
        output, _, _ = reference.batch_norm_train(x, gamma, beta, eps=0.1)
        return float((output * grad_output).sum())

    grad_x, grad_gamma, grad_beta = reference.batch_norm_backward(x, gamma, grad_output, eps=0.1)
    assert_gradient(grad_x, lambda moved: loss(moved, gamma, beta), x)
    assert_gradient(grad_gamma, lambda moved: loss(x, moved, beta), gamma)
    assert_gradient(grad_beta, lambda moved: loss(x, gamma, moved), beta)


def test_batch_norm_statistics():
    output, mean, variance = reference.batch_norm_train([[1], [2], [6]], [1], [0], eps=0)
    assert_rounding(mean, [3])
    assert_rounding(variance, [14 / 3])
    assert_rounding(output.mean(), 0)
    assert_rounding(output.std(), 1)


def test_running_statistics_by_hand():
    mean, variance = reference.batch_norm_running([2.0], [4.0], [[1.0], [3.0], [8.0]], 0.25)
    assert_rounding(mean, [0.75 * 2 + 0.25 * 4])
    assert_rounding(variance, [0.75 * 4 + 0.25 * 13])


def test_dropout_scales_what_it_keeps():
    result = reference.dropout([[1.0, 2.0, np.inf]], [[True, False, False]], 0.75)
    np.testing.assert_array_equal(result, [[4.0, 0.0, 0.0]])


def test_standardize_uses_training_statistics_and_leaves_constant_columns_unscaled():
    training = [[1.0, 0.1], [3.0, 0.1], [5.0, 0.1]]
    result = reference.standardize([[3.0, 0.1], [7.0, 2.1]], training)
    assert_rounding(result, [[0, 0], [4 / math.sqrt(8 / 3), 2]])


# Random numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_philox_known_answers(counter, key, words):
    """The known answers published with Random123."""
    counter, key, words = (
        [int(word, 16) for word in text.split()] for text in (counter, key, words)
    )
    assert list(reference.philox4x32(counter, key)) == words


def test_dropout_mask_keeps_its_share_of_every_column():
    mask = reference.dropout_mask(seed=7, epoch=1, step=2, layer=3, rows=400, columns=40,
                                  probability=0.25)  # fmt: skip
    deviation = math.sqrt(0.75 * 0.25 / 400)
    assert np.abs(mask.mean(axis=0) - 0.75).max() <= 5 * deviation
    assert abs(mask.mean() - 0.75) <= 5 * deviation / math.sqrt(40)


def test_dropout_mask_reads_each_word_where_the_layout_says():
    seed, probability = 2**40 + 5, 0.5
    mask = reference.dropout_mask(seed, 3, 9, 2, rows=3, columns=130, probability=probability)
    for row, block, lane in itertools.product(range(3), range(2), range(16)):
        counter = (row, 16 * block + lane, 9, 3 * 256 + 2)
        words = reference.philox4x32(counter, (5, 2**8))
        columns = [64 * block + 16 * number + lane for number in range(4)]
        assert mask[row, columns].tolist() == [word >= 2**31 for word in words]


@pytest.mark.parametrize("change", ["seed", "epoch", "step", "layer"])
def test_dropout_mask_depends_on_every_number(change):
    numbers = {"seed": 1, "epoch": 1, "step": 1, "layer": 1}
    masks = [
        reference.dropout_mask(**numbers, rows=8, columns=16, probability=0.5),
        reference.dropout_mask(**numbers | {change: 2}, rows=8, columns=16, probability=0.5),
    ]
    assert (masks[0] != masks[1]).any()


def test_dropout_mask_at_the_ends():
    shape = {"seed": 0, "epoch": 0, "step": 0, "layer": 0, "rows": 4, "columns": 5}
    assert reference.dropout_mask(**shape, probability=0.0).all()
    assert not reference.dropout_mask(**shape, probability=1.0).any()


@given(st.integers(0, 2**64 - 1), st.integers(0, 100), st.integers(0, 40))
def test_shuffle_is_a_permutation(seed, epoch, n):
    assert sorted(reference.shuffle(seed, epoch, n)) == list(range(n))


def test_shuffle_of_two_and_three_by_hand():
    for seed in range(4):
        word0, word1, _, _ = reference.philox4x32((0, 0, 5, 0xFFFFFFFF), (seed, 0))
        assert reference.shuffle(seed, 5, 2).tolist() == ([0, 1] if word0 >> 31 else [1, 0])
        order = [0, 1, 2]
        first = word0 * 3 >> 32
        order[2], order[first] = order[first], order[2]
        second = word1 * 2 >> 32
        order[1], order[second] = order[second], order[1]
        assert reference.shuffle(seed, 5, 3).tolist() == order


def test_every_order_is_as_likely():
    orders = [tuple(reference.shuffle(0, epoch, 3).tolist()) for epoch in range(1200)]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert max(abs(count - 200) for count in counts) <= 5 * math.sqrt(1200 * 1 / 6 * 5 / 6)


def test_draws_reach_every_row_as_often():
    rows = reference.draw(seed=3, epoch=0, n=10, count=2000)
    counts = np.bincount(rows, minlength=10)
    assert len(counts) == 10
    assert np.abs(counts - 200).max() <= 5 * math.sqrt(2000 * 0.1 * 0.9)
    words = reference.philox4x32((1, 0, 0, 0xFFFFFFFE), (3, 0))
    assert rows[4:8].tolist() == [word * 10 >> 32 for word in words]


# Optimizers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("record", identified("optimizers"))
def test_optimizers_against_pytorch(record):
    (inputs,) = TORCH["optimizer_inputs"]
    optimizer = getattr(reference, record["name"])(**record["settings"])
    weight = np.array(inputs["weight"])
    largest = np.abs(weight)
    for update, gradient in enumerate(inputs["gradients"], start=1):
        weight = optimizer.step(weight, gradient)
        largest = np.maximum(largest, np.abs(weight))
        expected = record["weights"].get(str(update))
        if expected is not None:
            assert_rounding(weight, expected, roundings=4 * (update + 3), scale=largest)
    assert optimizer.updates == 200
    assert sorted(record["weights"], key=int) == ["1", "2", "10", "200"]


STATE = {
    "SGD": [],
    "Momentum": ["velocity"],
    "Nesterov": ["velocity"],
    "Adagrad": ["sum"],
    "RMSprop": ["square_average", "grad_average", "velocity"],
    "Adam": ["first_moment", "second_moment"],
    "AdamW": ["first_moment", "second_moment"],
}


@pytest.mark.parametrize("name", STATE)
def test_a_run_goes_on_from_injected_state(name):
    (inputs,) = TORCH["optimizer_inputs"]
    settings = {"learning_rate": 0.1, "weight_decay": 0.1}
    if name == "RMSprop":
        settings |= {"centered": True, "momentum": 0.5}
    unbroken, resumed = (getattr(reference, name)(**settings) for _ in range(2))
    weight = np.array(inputs["weight"])
    for gradient in inputs["gradients"][:5]:
        weight = unbroken.step(weight, gradient)
    for attribute in [*STATE[name], "updates"]:
        setattr(resumed, attribute, getattr(unbroken, attribute))
    for gradient in inputs["gradients"][5:10]:
        np.testing.assert_array_equal(
            unbroken.step(weight, gradient), resumed.step(weight, gradient)
        )


def test_step_leaves_its_inputs_alone():
    for name in STATE:
        optimizer = getattr(reference, name)(learning_rate=0.1, weight_decay=0.1)
        weight, grad = np.ones(3), np.full(3, 2.0)
        optimizer.step(weight, grad)
        optimizer.step(weight, grad)
        assert (weight == 1).all()
        assert (grad == 2).all()


def test_nan_gradients_become_nan_weights():
    for name in STATE:
        optimizer = getattr(reference, name)(learning_rate=0.1)
        assert np.isnan(optimizer.step([1.0], [np.nan])).all()
    assert np.isnan(reference.clip_by_value([np.nan], 1)).all()
    assert np.isnan(reference.clip_by_norm([[np.nan, 1]], 1)[0]).all()


@pytest.mark.parametrize("record", TORCH["clip_by_norm"], ids=lambda r: f"norm {r['max_norm']}")
def test_clip_by_norm_against_pytorch(record):
    grads = [np.array(grad) for grad in record["grads"]]
    clipped = reference.clip_by_norm(grads, record["max_norm"])
    for actual, expected in zip(clipped, record["clipped"], strict=True):
        assert_rounding(actual, expected)
    norm = math.sqrt(sum((array**2).sum() for array in clipped))
    assert norm <= record["max_norm"]


def test_clip_by_value_holds_both_ends():
    clipped = reference.clip_by_value([-5.0, -0.5, 0.5, np.inf], 2.0)
    np.testing.assert_array_equal(clipped, [-2.0, -0.5, 0.5, 2.0])


# Schedules and initialisers -----------------------------------------------------------------


@pytest.mark.parametrize("record", identified("schedules"))
def test_schedules_against_pytorch(record):
    schedule = partial(getattr(reference, record["name"]), record["rate"], **record["settings"])
    values = [schedule(t) for t in range(len(record["values"]))]
    assert_rounding(values, record["values"], roundings=32)  # PyTorch's cosine is recursive


def test_cosine_stays_at_its_minimum():
    assert reference.cosine_rate(1.0, 50, total=10, minimum=0.25) == 0.25
    assert reference.cosine_rate(1.0, 50, total=10) == 0


def test_constant_and_warm_up():
    rates = [reference.warm_up_rate(0.4, t, 4, reference.constant_rate) for t in range(6)]
    assert_rounding(rates, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    falling = partial(reference.step_rate, step_size=2, gamma=0.5)
    rates = [reference.warm_up_rate(0.4, t, 2, falling) for t in range(6)]
    assert_rounding(rates, [0.2, 0.4, 0.4, 0.4, 0.2, 0.2])


@pytest.mark.parametrize(
    ("name", "variance"), [("glorot", 2 / 400), ("he", 2 / 300), ("lecun", 1 / 300)]
)
def test_initialisers(name, variance):
    deviation = reference.initialiser_deviation(name, 300, 100)
    assert_rounding(deviation**2, variance)
    limit = reference.initialiser_limit(name, 300, 100)
    assert_rounding(limit**2 / 3, variance)  # the variance of a uniform number in [-limit, limit]


# Whole trainings ----------------------------------------------------------------------------


@pytest.mark.parametrize("record", TORCH["trainings"], ids=lambda record: record["optimizer"])
def test_training_against_pytorch(record):
    weights, biases, losses = reference.train_dense(
        record["weights"],
        record["biases"],
        record["activation"],
        reference.cross_entropy,
        partial(getattr(reference, record["optimizer"]), **record["settings"]),
        [(record["x"], record["labels"])] * len(record["losses"]),
    )
    # Twenty updates of three layers, each of some twenty roundings of numbers up to 4.
    roundings = 20 * 3 * 20
    assert losses[-1] < losses[0]
    assert_rounding(losses, record["losses"], roundings, scale=4)
    for actual, expected in zip(weights, record["trained_weights"], strict=True):
        assert_rounding(actual, expected, roundings, scale=4)
    for actual, expected in zip(biases, record["trained_biases"], strict=True):
        assert_rounding(actual, expected, roundings, scale=4)


def test_biases_do_not_decay():
    weights, biases, _ = reference.train_dense(
        [[[2.0]]],
        [[3.0]],
        "relu",
        lambda outputs: (0.0, np.zeros_like(outputs)),
        partial(reference.SGD, 0.5, weight_decay=0.5),
        [([[1.0]],)],
    )
    assert weights[0] == 1.5
    assert biases[0] == 3.0
