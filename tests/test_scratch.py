"""``fastnn.compat.scratch`` beside the same conventions in plain NumPy: layers and scripts."""

from __future__ import annotations

from typing import Any

import numpy as np
import plain_scratch
import pytest
from checks import Bound, assert_close
from conftest import each_backend

import fastnn
from fastnn.compat import scratch

backend = each_backend("numpy", "numba")

pytestmark = pytest.mark.usefixtures("backend")

DTYPES = ("float32", "float64")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def rounded(dtype, roundings, scale):
    """The bound of so many rounding errors of numbers of this scale."""
    limit = np.broadcast_to(roundings * float(np.finfo(dtype).eps) * np.asarray(scale), ())
    return Bound(limit, limit)


# ---- layers ----

LAYERS: dict[str, tuple[Any, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Affine": (normal((12, 5), seed=1), normal(5, seed=2)),
    "Dropout": (0.3,),
    "BatchNormalization": (1 + normal(12, seed=1) ** 2, normal(12, seed=2)),
}
ATTRIBUTES = ("dW", "db", "dgamma", "dbeta", "running_mean", "running_var", "out")


@every_dtype
@pytest.mark.parametrize("shape", [(7, 12), (7, 3, 2, 2)])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, shape, dtype):
    x = normal(shape, dtype)
    arguments = [np.asarray(a, dtype) if np.ndim(a) else a for a in LAYERS[name]]
    results = []
    for library, kind in ((scratch, dtype), (plain_scratch, "float64")):
        np.random.seed(3)
        layer = getattr(library, name)(
            *(a.astype(kind) if isinstance(a, np.ndarray) else a for a in arguments)
        )
        y = layer.forward(x.astype(kind))
        dout = normal(y.shape, dtype, 4).astype(kind)
        results.append([y, layer.backward(dout)])
        results[-1] += [vars(layer)[n] for n in ATTRIBUTES if vars(layer).get(n) is not None]
        if name in ("Dropout", "BatchNormalization"):
            results[-1].append(layer.forward(x.astype(kind), train_flg=False))
    assert len(results[0]) == len(results[1])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, rounded(dtype, 200, np.abs(expected).max()))
    assert results[0][0].dtype == results[0][1].dtype == dtype
    assert results[0][1].shape == shape


@every_dtype
@pytest.mark.parametrize("one_hot", [False, True])
def test_softmax_with_loss(one_hot, dtype):
    x, t = 3 * normal((9, 4), dtype), np.arange(9) % 4
    x[0, 0] = 200.0  # a probability of 0 elsewhere in its row, where 1e-7 is what is left
    t[0] = 1
    targets = np.eye(4, dtype=int)[t] if one_hot else t
    layer, truth = scratch.SoftmaxWithLoss(), plain_scratch.SoftmaxWithLoss()
    loss, expected = layer.forward(x, targets), truth.forward(x.astype(np.float64), targets)
    assert loss == layer.loss and layer.t is targets
    assert_close(loss, expected, rounded(dtype, 20, expected))
    assert_close(layer.y, truth.y, rounded(dtype, 20, 4))
    assert_close(layer.backward(), truth.backward(), rounded(dtype, 20, 1))


def test_relu_changes_the_gradient_in_place():
    layer, dout = scratch.Relu(), np.ones(3)
    layer.forward(np.array([-1.0, 0.0, 2.0]))
    assert layer.backward(dout) is dout
    np.testing.assert_array_equal(dout, [0, 0, 1])
    np.testing.assert_array_equal(layer.mask, [True, True, False])


def test_a_layer_sees_what_becomes_of_its_arrays():
    params = {"W1": np.ones((2, 1)), "b1": np.zeros(1)}
    layer = scratch.Affine(params["W1"], params["b1"])
    scratch.SGD(lr=1.0).update(params, {"W1": np.ones((2, 1)), "b1": np.ones(1)})
    np.testing.assert_array_equal(layer.forward(np.ones((1, 2))), [[-1.0]])


# ---- optimizers ----

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"lr": 0.3}),
    ("Momentum", {}),
    ("Momentum", {"lr": 0.1, "momentum": 0.5}),
    ("Nesterov", {}),
    ("Nesterov", {"lr": 0.1, "momentum": 0.5, "looks_ahead_twice": False}),
    ("AdaGrad", {}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.1, "decay_rate": 0.9}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "beta1": 0.5, "beta2": 0.9}),
]
STEPS = 5


@every_dtype
@pytest.mark.parametrize("name, settings", OPTIMIZERS)
def test_optimizer(name, settings, dtype):
    """Parameters of all shapes and layouts, and the states by the book's names."""
    values = {
        "W1": normal((4, 3), dtype),
        "b1": normal(3, dtype, 1),
        "filters": normal((2, 3, 2, 2), dtype, 2),
        "turned": normal((3, 5), dtype, 3).T,
        "gaps": normal((4, 6), dtype, 4)[:, ::2],
    }
    expected = {key: value.astype(np.float64) for key, value in values.items()}
    ours = getattr(scratch, name)(**settings)
    truth = getattr(plain_scratch, name)(**settings)
    for step in range(STEPS):
        grads = {key: normal(v.shape, dtype, 5 + step) for key, v in values.items()}
        ours.update(values, grads)
        truth.update(expected, grads)
    for key, value in values.items():
        bound = rounded(dtype, 16 * STEPS, 1 + np.abs(expected[key]).max())
        assert_close(value, expected[key], bound)
        for state in truth.states:
            true_state = vars(truth)[state][key]
            bound = rounded(dtype, 16 * STEPS, np.abs(true_state).max())
            assert_close(vars(ours)[state][key], true_state, bound)
    if name == "Adam":
        assert ours.iter == STEPS


@pytest.mark.parametrize("kind", [float, np.float64])
@pytest.mark.parametrize("name", sorted({name for name, _ in OPTIMIZERS}))
def test_optimizer_of_numbers(name, kind):
    """The book first compares its optimizers on f(x, y) = x² / 20 + y², with plain numbers."""
    paths = []
    for library, number in ((scratch, kind), (plain_scratch, np.array)):
        optimizer = getattr(library, name)(lr=0.1)
        params = {"x": number(-7.0), "y": number(2.0)}
        for _ in range(STEPS):
            optimizer.update(params, {"x": params["x"] / 10.0, "y": 2.0 * params["y"]})
        assert library is plain_scratch or all(isinstance(p, float) for p in params.values())
        paths.append(np.array([params["x"], params["y"]]))
    assert_close(*paths, rounded("float64", 16 * STEPS, 7))


@pytest.mark.parametrize("name", ["Momentum", "AdaGrad", "Adam"])
def test_states_begin_with_the_first_update(name):
    optimizer = getattr(scratch, name)()
    states = type(optimizer)._states
    assert all(vars(optimizer)[state] is None for state in states)
    optimizer.update({"W": np.ones(2)}, {"W": np.ones(2)})
    assert all(set(vars(optimizer)[state]) == {"W"} for state in states)


# ---- scripts ----

SCRIPTS = [
    ("SGD", {"lr": 0.1}, {"widths": (64, 50, 10)}),
    ("SGD", {"lr": 0.1}, {"widths": (64, 30, 20, 10), "extended": True}),
    # not Adam: of a bias before a normalisation, whose gradient is rounding, it would make steps
    ("Momentum", {}, {"widths": (64, 30, 10), "activation": "Sigmoid", "extended": True}),
    ("Adam", {}, {"widths": (64, 30, 20, 10)}),
    ("AdaGrad", {}, {"widths": (64, 30, 10), "activation": "Sigmoid"}),
    ("Nesterov", {"lr": 0.02}, {"widths": (64, 30, 10)}),
    ("RMSprop", {"lr": 0.001}, {"widths": (64, 30, 10)}),
]
DRIFT = 1e3
"""How far rounding may have grown after these steps: what a chaotic path makes of one error."""


@every_dtype
@pytest.mark.parametrize("optimizer, settings, network", SCRIPTS)
def test_a_script_prints_the_same_losses(optimizer, settings, network, dtype):
    X, y = fastnn.data.digits()
    x = X.astype(dtype)
    losses, accuracies = [], []
    for library in (scratch, plain_scratch):
        net = plain_scratch.Network(library, dtype=dtype, **network)
        update = getattr(library, optimizer)(**settings)
        losses.append(np.array(plain_scratch.train(net, update, x, y, 60, 50)))
        accuracies.append((net.predict(x).argmax(axis=1) == y).mean())
    assert losses[0].dtype == losses[1].dtype
    assert losses[1][-5:].mean() < losses[1][:5].mean()
    assert_close(losses[0], losses[1], rounded(dtype, DRIFT, losses[1].max()))
    assert abs(accuracies[0] - accuracies[1]) <= (0.0 if dtype == "float64" else 0.005)


def test_star_import_gives_the_names_of_the_book():
    names: dict[str, Any] = {}
    exec("from fastnn.compat.scratch import *", names)
    layers = {"Relu", "Sigmoid", "Affine", "SoftmaxWithLoss", "Dropout", "BatchNormalization"}
    optimizers = {"SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"}
    assert {name for name in names if name[0] != "_"} == layers | optimizers
