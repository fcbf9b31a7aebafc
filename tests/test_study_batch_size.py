"""The study of batch sizes: what it counts and measures, against arithmetic of its own."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import reference
from study_tables import texts

import fastnn
from fastnn.perceptron import network
from fastnn.studies.batch_size import RATES, study
from fastnn.studies.batch_size.noise import gradient_noise
from fastnn.studies.samples import parts_of, with_first
from fastnn.studies.two_weights import batches, two_weights

EPS = np.finfo(np.float32).eps
SMALL = {"rows": 300, "batch_sizes": (1, 32), "epochs": 4, "hidden": 16, "path_updates": 100}


@pytest.fixture(scope="module")
def small():
    return study(**SMALL)


@pytest.fixture(scope="module")
def parts():
    return with_first(parts_of(None, 0), SMALL["rows"])


# Trainings


def test_a_thousand_rows_at_batch_100_make_ten_updates() -> None:
    result = study(rows=1000, batch_sizes=(100, 64), epochs=1, hidden=4, path_updates=1)
    assert result.summary()["batch size"] == [64, 100, 1000]
    assert result.summary()["updates an epoch"] == [16, 10, 1]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_curve_is_that_of_fit(small, parts, place: int) -> None:
    curve, model = small.curves[place], network(parts, [16], seed=0)
    assert curve.loss[0] == model.evaluate(*parts.train)["loss"]
    history = model.fit(
        *parts.train,
        optimizer=fastnn.SGD(curve.learning_rate),
        batch_size=curve.batch_size,
        epochs=4,
        validation_data=parts.validation,
        history="update",
    )
    assert curve.updates[-1] == len(history.updates["loss"])
    assert curve.loss[-1] == model.evaluate(*parts.train)["loss"]
    assert list(curve.accuracy[1:]) == history["val_accuracy"]
    assert min(curve.validation_losses) == np.mean(history["val_loss"])


def test_each_batch_size_has_the_best_rate_of_the_grid(small) -> None:
    for curve in small.curves:
        assert curve.learning_rate in RATES
        place = RATES.index(curve.learning_rate)
        assert curve.validation_losses[place] == min(curve.validation_losses) < math.inf
    rates = small.summary()["learning rate"]
    assert rates == sorted(rates) and rates[0] < rates[-1]
    assert math.inf in small.curves[0].validation_losses  # a large rate and one sample: diverged


def test_who_is_first(small) -> None:
    goal = f"to {small.target:.0%}"
    summary = small.summary()
    for place, curve in enumerate(small.curves):
        epochs = summary[f"epochs {goal}"][place]
        assert curve.accuracy[epochs] >= small.target > max(curve.accuracy[:epochs])
        assert summary[f"updates {goal}"][place] == epochs * math.ceil(300 / curve.batch_size)
        assert summary[f"seconds {goal}"][place] == curve.seconds[epochs]
        assert curve.seconds[0] == 0.0 and (np.diff(curve.seconds) > 0.0).all()
    # The full batch needs the most epochs and the fewest updates.
    for unit, choose in (("epochs", max), ("updates", min)):
        values = summary[f"{unit} {goal}"]
        assert values[-1] == choose(values) and values.count(values[-1]) == 1


def test_an_accuracy_that_is_not_reached() -> None:
    result = study(rows=60, batch_sizes=(), epochs=1, hidden=4, path_updates=1, accuracy=1.0)
    assert result.summary()["epochs to 100%"] == [math.inf]
    assert "No batch size reaches a validation accuracy of 100%." in result.findings()


# Noise


def test_the_noise_is_that_of_all_samples_gradients(parts) -> None:
    X, y = parts.train
    model = network(parts, [16], seed=3)
    standard = model[0](X)
    weights = [model.arena[f"{layer}.weight"] for layer in (1, 3)]
    biases = [model.arena[f"{layer}.bias"] for layer in (1, 3)]
    gradients = []
    for row in range(len(X)):
        (first, second), sums = reference.dense_forward(
            weights, biases, "relu", standard[row : row + 1]
        )
        _, by_sum = reference.cross_entropy(sums[1], y[row : row + 1])
        by_hidden, by_weight, by_bias = reference.linear_backward(second, weights[1], by_sum)
        by_hidden *= reference.activation_derivative("relu", sums[0])
        _, by_weight_1, by_bias_1 = reference.linear_backward(first, weights[0], by_hidden)
        found = (by_weight_1, by_bias_1, by_weight, by_bias)
        gradients.append(np.concatenate([array.ravel() for array in found]))
    expected = np.var(gradients, axis=0).sum(), (np.mean(gradients, axis=0) ** 2).sum()
    # A square has twice the relative error of a gradient, which sums over inputs and rows.
    bound = 2 * (X.shape[1] + 16 + len(X)) * EPS
    for value, right in zip(gradient_noise(model, X, y), expected, strict=True):
        assert abs(value - right) <= bound * right


def test_the_variance_falls_as_one_over_the_batch_size(small) -> None:
    trace = small.curves[0].trace[0]
    assert small.variances.batch_sizes == [1, 32]
    for size, measured, expected in zip(
        [1, 32], small.variances.measured, small.variances.expected, strict=True
    ):
        assert expected == trace / size
        # 200 squared distances over many weights: their mean is within some percent.
        assert abs(measured / expected - 1.0) <= 0.15


def test_the_noise_scale_grows_and_suggests(small) -> None:
    for curve in small.curves[:-1]:  # four updates by the full batch are only a beginning
        assert curve.noise_scale[-1] > 3.0 * curve.noise_scale[0]
    for curve in small.curves:
        assert (curve.noise_scale == curve.trace / curve.square).all()
    scale = np.median([curve.noise_scale[1] for curve in small.curves])
    assert scale / math.sqrt(2.0) <= small.suggested <= scale * math.sqrt(2.0)
    assert math.log2(small.suggested).is_integer()


# Paths


def test_the_full_batch_goes_down_its_gradient(small) -> None:
    unit, way = small.paths.unit, small.paths.ways[300]
    X, t, rate = unit.inputs, unit.targets, small.paths.learning_rate
    right = way[0]
    for point in way:
        assert np.abs(point - right).max() <= 1e-12
        right = right - rate * X.T @ (X @ right - t) / len(t)
    assert (np.diff(unit.loss(way)) <= 1e-15).all()
    assert np.abs(way[-1] - np.linalg.solve(X.T @ X, X.T @ t)).max() <= 1e-3


def test_stochastic_steps_are_along_one_sample_each(small) -> None:
    unit, way = small.paths.unit, small.paths.ways[1]
    for step, row in zip(np.diff(way, axis=0), batches(300, 1, 0), strict=False):
        (x,) = unit.inputs[row]
        assert abs(step[0] * x[1] - step[1] * x[0]) <= 1e-12


def test_the_smaller_the_batch_the_longer_the_way(small) -> None:
    detours = [small.paths.detour(size) for size in (1, 32, 300)]
    assert detours[0] > 2.0 * detours[1] and detours[1] > 1.5 * detours[2] and detours[2] > 1.0
    starts = [way[0] for way in small.paths.ways.values()]
    assert (np.array(starts) == starts[0]).all()


def test_two_weights_are_of_inputs_that_tell_something(parts) -> None:
    unit = two_weights(parts)
    X, y = parts.train
    columns = X[:, list(unit.columns)].astype(np.float64)
    right = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    assert np.abs(unit.inputs - right).max() <= 1e-12
    assert abs(np.corrcoef(columns.T)[0, 1]) <= 0.9
    correlations = [abs(np.corrcoef(c, y == 0)[0, 1]) for c in X.T if c.std() > 0.0]
    assert abs(np.corrcoef(columns[:, 0], y == 0)[0, 1]) >= max(correlations) - 1e-6
    twice = parts._replace(train=(X[:, [36, 36]], y))
    with pytest.raises(ValueError, match=r"X's columns \(2\) will do; expected two that vary"):
        two_weights(twice)


# All of it


def test_the_same_seed_repeats(small) -> None:
    assert texts(study(**SMALL)) == texts(small) != texts(study(**SMALL, seed=1))


def test_tables_and_findings_have_the_numbers(small) -> None:
    tables = small.tables()
    assert {len(values) for values in tables["epochs"].columns.values()} == {3 * 5}
    assert {len(values) for values in tables["rates"].columns.values()} == {3 * len(RATES)}
    assert {len(values) for values in tables["paths"].columns.values()} == {3 * 101}
    text = " ".join(small.findings())
    assert "300 samples in batches of 1, 32 and 300 make 300, 10 and 1 updates an epoch" in text
    assert f"batches of about {small.suggested}." in text
    assert f"{small.paths.detour(1):.1f}, {small.paths.detour(32):.1f}" in text


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="batch_sizes must be at least 1"):
        study(**{**SMALL, "batch_sizes": (0,)})


def test_figures(small, language: str) -> None:
    drawn = small.plot(language)
    assert set(drawn) == {"curves", "noise", "paths"}
    for axis in drawn["curves"].axes:
        lines = [line for line in axis.get_lines() if line.get_linestyle() == "-"]
        for line, curve in zip(lines, small.curves, strict=True):
            assert list(line.get_ydata()) == list(curve.loss)
    full = drawn["paths"].axes[2].get_lines()[0]
    assert (np.array(full.get_xydata()) == small.paths.ways[300]).all()


def test_a_target_keeps_its_decimals() -> None:
    result = study(**SMALL, accuracy=0.125)
    assert "epochs to 12.5%" in result.summary().columns
    assert "accuracy of 12.5%" in result.findings()[2]
    with pytest.raises(ValueError, match="accuracy must be at most 1"):
        study(**SMALL, accuracy=97)


@pytest.mark.parametrize("learnt_by", [1, 4])
def test_where_nothing_is_left_to_learn_there_is_no_noise_scale(small, learnt_by) -> None:
    left = np.arange(SMALL["epochs"] + 1) < learnt_by
    curves = [
        dataclasses.replace(curve, trace=left * curve.trace, square=left * curve.square)
        for curve in small.curves
    ]
    result = dataclasses.replace(small, curves=curves)
    assert np.isnan(result.noise_scale).tolist() == (~left).tolist()
    first = 0 if learnt_by == 1 else 1
    assert 0.5**0.5 <= result.suggested / small.noise_scale[first] <= 2.0**0.5
    assert not any("nan" in finding for finding in result.findings())
