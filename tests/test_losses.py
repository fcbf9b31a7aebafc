"""Losses: values and gradients against the float64 truth, weights, folded endings, evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from checks import Bound, assert_close
from conftest import each_backend

import fastnn

backend = each_backend("numpy", "numba", "cupy")

TORCH = json.loads((Path(__file__).parent / "data" / "torch_numbers.json").read_text())["losses"]
DTYPES = ("float32", "float64")
ROWS, OUTPUTS = 9, 4
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

pytestmark = pytest.mark.usefixtures("backend")

MAKERS: dict[str, Callable[..., fastnn.Loss]] = {
    "cross_entropy": fastnn.CrossEntropyLoss,
    "binary_cross_entropy": fastnn.BCEWithLogitsLoss,
    "mean_squared_error": fastnn.MSELoss,
    "mean_absolute_error": fastnn.L1Loss,
    "huber": fastnn.HuberLoss,
    "poisson": fastnn.PoissonNLLLoss,
}


def targets_of(name: str, kind: str = "soft") -> np.ndarray:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, OUTPUTS, ROWS)
    if name == "cross_entropy":
        soft = reference.softmax(rng.normal(size=(ROWS, OUTPUTS)))
        return {"labels": labels, "one-hot": np.eye(OUTPUTS)[labels], "soft": soft}[kind]
    if name == "binary_cross_entropy":
        return rng.uniform(size=(ROWS, OUTPUTS))
    if name == "poisson":
        return rng.poisson(2.0, size=(ROWS, OUTPUTS))
    return rng.normal(size=(ROWS, OUTPUTS))


CASES = [
    ("cross_entropy", "labels", {}),
    ("cross_entropy", "one-hot", {}),
    ("cross_entropy", "soft", {}),
    ("cross_entropy", "labels", {"label_smoothing": 0.1}),
    ("cross_entropy", "soft", {"label_smoothing": 0.25}),
    ("binary_cross_entropy", "", {}),
    ("mean_squared_error", "", {}),
    ("mean_absolute_error", "", {}),
    ("huber", "", {}),
    ("huber", "", {"delta": 0.5}),
    ("poisson", "", {}),
]


def assert_loss(
    loss: fastnn.Loss, name: str, outputs: np.ndarray, targets: np.ndarray,
    weight: np.ndarray | None, settings: dict[str, Any],
) -> None:  # fmt: skip
    """Value and gradient are the reference's, for targets as they are in the outputs' dtype."""
    seen = targets if targets.ndim == 1 else targets.astype(outputs.dtype)
    expected = getattr(reference, name)(outputs, seen, weight, **settings)
    roundings = (8 + OUTPUTS + ROWS) * float(np.finfo(outputs.dtype).eps)
    size = 1 + np.abs(outputs).max() + np.abs(seen).max()  # an error's square is larger still
    value, grad = loss(outputs, targets, weight)
    assert_close(value, expected[0], Bound(roundings * size**2, roundings * size**2))
    assert grad.dtype == outputs.dtype
    assert_close(grad, expected[1], Bound(roundings * size, roundings * size))
    assert loss.value(outputs, targets, weight) == value


@every_dtype
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name, kind, settings", CASES)
def test_loss_and_gradient(name, kind, settings, weighted, dtype):
    rng = np.random.default_rng(0)
    outputs = (3 * rng.normal(size=(ROWS, OUTPUTS))).astype(dtype)
    weight = np.array([1, 0.5, 0, 2, 0.25, 1, 1, 3, 0]) if weighted else None
    assert_loss(MAKERS[name](**settings), name, outputs, targets_of(name, kind), weight, settings)


@pytest.mark.parametrize("record", TORCH, ids=lambda record: record["name"])
def test_loss_against_torch(record):
    settings = dict(record["settings"])
    weight = settings.pop("sample_weight")
    outputs, targets = np.array(record["outputs"]), np.array(record["targets"])
    value, grad = MAKERS[record["name"]](**settings)(outputs, targets, weight)
    eps = 64 * np.finfo(np.float64).eps
    assert_close(value, record["loss"], Bound(eps * record["loss"], eps * record["loss"]))
    assert_close(grad, record["grad"], Bound(eps, eps))


@every_dtype
def test_far_logits_overflow_nothing(dtype):
    far = float(np.finfo(dtype).max) / 8
    outputs = np.array([[far, -far, 0.0], [-far, -far, -far]], dtype)
    loss, grad = fastnn.CrossEntropyLoss()(outputs, [0, 2])
    assert abs(loss - np.log(3) / 2) <= 8 * np.finfo(dtype).eps
    assert np.isfinite(grad).all()
    loss, grad = fastnn.BCEWithLogitsLoss()(outputs, np.ones((2, 3)) * (outputs > 0))
    assert np.isfinite(loss) and np.isfinite(grad).all()


@pytest.mark.parametrize("place", [(0, 0), (1, 2)])
@pytest.mark.parametrize("name", MAKERS)
def test_nan_in_the_outputs_is_nan_in_the_loss(name, place):
    outputs = np.zeros((2, OUTPUTS), np.float32)
    outputs[place] = np.nan
    assert np.isnan(MAKERS[name]().value(outputs, targets_of(name)[:2]))


def test_custom_loss_is_its_formula_and_its_derivative():
    def log_cosh(m, output, target, sharpness):
        error = sharpness * (output - target)
        return m.softplus(2.0 * error) - error - 0.6931471805599453

    loss = fastnn.Loss(log_cosh, name="log_cosh", sharpness=2.0)
    outputs, targets = np.array([[0.3, -2.0], [1.0, 0.1]]), np.array([[0.0, 1.0], [1.0, -0.2]])
    value, grad = loss(outputs, targets)
    error = 2.0 * (outputs - targets)
    eps = 32 * np.finfo(np.float64).eps
    assert_close(value, np.log(np.cosh(error)).mean(), Bound(eps, eps))
    assert_close(grad, 2.0 * np.tanh(error) / 4, Bound(eps, eps))


def test_one_output_takes_targets_of_one_axis():
    outputs = np.array([[0.5], [-1.0]])
    for loss in (fastnn.MSELoss(), fastnn.BCEWithLogitsLoss()):
        assert loss.value(outputs, [0.0, 1.0]) == loss.value(outputs, [[0.0], [1.0]])


def test_class_numbers_of_any_kind_are_the_same():
    outputs = np.random.default_rng(0).normal(size=(3, 4))
    expected = fastnn.CrossEntropyLoss().value(outputs, [0, 3, 1])
    for labels in ([0.0, 3.0, 1.0], np.uint8([0, 3, 1]), np.array([[0], [3], [1]]), (0, 3, 1)):
        assert fastnn.CrossEntropyLoss().value(outputs, labels) == expected


# Endings that a loss contains, and evaluation


def network(*ending, dtype="float64", outputs=3):
    return fastnn.Sequential(
        fastnn.Linear(5, 4), fastnn.Tanh(), fastnn.Linear(4, outputs), *ending, dtype=dtype, seed=2
    )


def data(outputs=3, dtype="float64"):
    rng = np.random.default_rng(3)
    return rng.normal(size=(30, 5)).astype(dtype), rng.integers(0, outputs, 30)


@every_dtype
@pytest.mark.parametrize(
    "ending, loss, outputs",
    [(fastnn.Softmax, "cross_entropy", 3), (fastnn.Sigmoid, "binary_cross_entropy", 1)],
)
def test_an_ending_that_the_loss_contains_is_folded(ending, loss, outputs, dtype):
    x, y = data(max(outputs, 2), dtype)
    plain, ended = (
        network(dtype=dtype, outputs=outputs),
        network(ending(), dtype=dtype, outputs=outputs),
    )
    histories = [model.fit(x, y, loss=loss, epochs=3) for model in (plain, ended)]
    assert dict(histories[0]) == dict(histories[1])
    assert plain.evaluate(x, y) == ended.evaluate(x, y)
    np.testing.assert_array_equal(plain.predict_proba(x), ended.predict_proba(x))
    proba = ended.predict_proba(x)
    np.testing.assert_array_equal(proba[:, -outputs:], ended.predict(x))
    assert proba.shape == (30, max(outputs, 2))
    eps = 4 * outputs * float(np.finfo(dtype).eps)
    assert_close(proba.sum(axis=1), np.ones(30), Bound(eps, eps))


def test_an_ending_that_the_loss_does_not_contain_stays():
    x, y = data()
    model = network(fastnn.Softmax())
    loss = model.evaluate(x, np.eye(3)[y], loss="mse")["loss"]
    expected = reference.mean_squared_error(model.predict(x), np.eye(3)[y])[0]
    assert abs(loss - expected) <= 64 * np.finfo(np.float64).eps


@every_dtype
@pytest.mark.parametrize("name, kind, settings", CASES)
@pytest.mark.parametrize("rows", [1, 30, 1100])
def test_evaluate_measures_the_loss_of_all_rows(name, kind, settings, rows, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5)).astype(dtype)
    model = network(dtype=dtype, outputs=OUTPUTS)
    y = np.resize(targets_of(name, kind), (rows, *targets_of(name, kind).shape[1:]))
    weight = rng.uniform(0.5, 2, rows)
    outputs = model.predict(x)
    for weights in (None, weight):
        measured = model.evaluate(x, y, loss=MAKERS[name](**settings), sample_weight=weights)
        expected = getattr(reference, name)(outputs, y, weights, **settings)[0]
        bound = (8 + rows) * float(np.finfo(dtype).eps) * (1 + abs(expected))
        assert_close(measured["loss"], expected, Bound(bound, bound))


def by_class(outputs, y):
    return (outputs.argmax(axis=1) == y).mean()


def by_row(outputs, y):
    return ((outputs > 0) == (y > 0)).all(axis=1).mean()


@pytest.mark.parametrize(
    "loss, outputs, targets_of_labels, expected",
    [
        ("cross_entropy", 3, lambda y: y, by_class),
        ("cross_entropy", 3, lambda y: np.eye(3)[y], lambda o, y: by_class(o, y.argmax(axis=1))),
        ("binary_cross_entropy", 1, lambda y: (y > 0)[:, None].astype(float), by_row),
        ("binary_cross_entropy", 3, lambda y: np.eye(3)[y], by_row),
    ],
)
def test_accuracy_counts_rows_that_are_right_throughout(loss, outputs, targets_of_labels, expected):
    x, y = data()
    model, y = network(outputs=outputs), targets_of_labels(y)
    accuracy = model.evaluate(x, y, loss=loss)["accuracy"]
    assert abs(accuracy - expected(model.predict(x), y)) <= np.finfo(np.float64).eps


def test_evaluate_takes_metrics_by_name_and_functions():
    x, y = data()

    def largest(outputs, targets):
        return outputs.max()

    model = network()
    measured = model.evaluate(x, y, metrics=["accuracy", largest])
    assert list(measured) == ["loss", "accuracy", "largest"]
    assert measured["largest"] == model.predict(x).max()


def test_the_default_loss_follows_the_targets_and_then_the_last_fit():
    x, y = data()
    model = network()
    assert "accuracy" in model.evaluate(x, y)
    one_hot = np.eye(3)[y]
    assert set(model.evaluate(x, one_hot)) == {"loss"}
    model.fit(x, one_hot, loss="cross_entropy")
    assert model.evaluate(x, one_hot) == model.evaluate(x, y)


# Weights of rows and classes


def weights_of(class_weight, y, classes):
    counts = np.bincount(y, minlength=classes)
    if class_weight == "balanced":
        return len(y) / (classes * np.maximum(counts, 1))
    if isinstance(class_weight, dict):
        return np.array([class_weight.get(c, 1.0) for c in range(classes)])
    return np.asarray(class_weight)


@every_dtype
@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("class_weight", ["balanced", {0: 3.0, 2: 0.5}, [1.0, 2.0, 0.25]])
def test_class_weights_are_weights_of_the_rows(class_weight, one_hot, dtype):
    x, y = data(dtype=dtype)
    weight = weights_of(class_weight, y, 3)[y]
    own = np.linspace(0.5, 1.5, len(y))
    targets = np.eye(3)[y] if one_hot else y
    a, b = network(dtype=dtype), network(dtype=dtype)
    options = {"loss": "cross_entropy", "epochs": 2, "batch_size": 8}
    by_class = a.fit(x, targets, class_weight=class_weight, sample_weight=own, **options)
    by_row = b.fit(x, targets, sample_weight=own * weight, **options)
    eps = 64 * float(np.finfo(dtype).eps)
    assert_close(by_class["loss"], by_row["loss"], Bound(eps, eps))
    assert_close(a.arena.flat, b.arena.flat, Bound(eps, eps))


def test_class_weights_of_a_binary_loss():
    x, y = data(2)
    a, b = network(outputs=1), network(outputs=1)
    a.fit(x, y, loss="binary_cross_entropy", class_weight={1: 3.0})
    b.fit(x, y, loss="binary_cross_entropy", sample_weight=np.where(y == 1, 3.0, 1.0))
    np.testing.assert_array_equal(a.arena.flat, b.arena.flat)


@every_dtype
def test_a_row_of_weight_zero_counts_for_nothing(dtype):
    x, y = data(dtype=dtype)
    weight = np.ones(30)
    weight[20:] = 0.0
    a, b = network(dtype=dtype), network(dtype=dtype)
    a.fit(x, y, sample_weight=weight, batch_size="full", epochs=3, shuffle=False)
    b.fit(x[:20], y[:20], batch_size="full", epochs=3, shuffle=False)
    eps = 256 * float(np.finfo(dtype).eps)
    assert_close(a.arena.flat, b.arena.flat, Bound(eps, eps))


@every_dtype
def test_a_batch_whose_rows_all_weigh_nothing_moves_nothing(dtype):
    x, y = data(dtype=dtype)
    weight = np.ones(30)
    weight[:10] = 0.0
    a, b = network(dtype=dtype), network(dtype=dtype)
    options = {"batch_size": 10, "shuffle": False, "optimizer": "sgd"}
    history = a.fit(x, y, sample_weight=weight, **options)
    expected = b.fit(x[10:], y[10:], **options)
    np.testing.assert_array_equal(a.arena.flat, b.arena.flat)
    assert history["loss"] == expected["loss"]
