"""Optimizer updates as functions: against the float64 reference, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from checks import Bound, assert_close
from conftest import each_backend
from hypothesis import given
from hypothesis import strategies as st

from fastnn import functional

backend = each_backend("numpy", "numba", "cupy")

pytestmark = pytest.mark.usefixtures("backend")

DTYPES = ("float32", "float64")
STEPS = 5
CASES: list[tuple[str, Any, int, dict[str, Any]]] = [  # reference, number of states, settings
    ("sgd_update", reference.SGD, 0, {"weight_decay": 0.1}),
    ("momentum_update", reference.Momentum, 1, {"momentum": 0.7}),
    ("nesterov_update", reference.Nesterov, 1, {"momentum": 0.7, "weight_decay": 0.1}),
    ("adagrad_update", reference.Adagrad, 1, {"eps": 1e-3}),
    ("rmsprop_update", reference.RMSprop, 1, {"alpha": 0.9}),
    ("adam_update", reference.Adam, 2, {"betas": [0.5, 0.9]}),
    ("adamw_update", reference.AdamW, 2, {"weight_decay": 0.2}),
]


def rounding(dtype: str, updates: int, size: Any) -> Bound:
    """Some 16 roundings an update of numbers of this size."""
    limit = 16 * updates * float(np.finfo(dtype).eps) * np.asarray(size)
    return Bound(limit, limit)


def moved(name, weight, states, steps, dtype, **settings):
    """Update a weight by random gradients; the path of the reference, were it to do the same."""
    rng = np.random.default_rng(1)
    for step in range(1, steps + 1):
        grad = rng.normal(size=weight.shape).astype(dtype)
        number = {"step": step} if name.startswith("adam") else {}
        function = getattr(functional, name)
        assert function(weight, grad, *states, lr=0.1, **number, **settings) is None
        yield grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, truth, states, settings", CASES)
def test_update(name, truth, states, settings, dtype):
    weight = np.random.default_rng(0).normal(size=(3, 7)).astype(dtype)
    slots = [np.zeros_like(weight) for _ in range(states)]
    optimizer, expected = truth(0.1, **settings), weight.astype(np.float64)
    for grad in moved(name, weight, slots, STEPS, dtype, **settings):
        expected = optimizer.step(expected, grad)
    assert_close(weight, expected, rounding(dtype, STEPS, 1 + np.abs(expected)))


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_rmsprop_by_the_states_that_are_given(centered, momentum):
    weight = np.random.default_rng(0).normal(size=7)
    states = {"grad_average": np.zeros(7)} if centered else {}
    settings = {}
    if momentum:
        states["velocity"], settings["momentum"] = np.zeros(7), momentum
    optimizer = reference.RMSprop(0.1, centered=centered, momentum=momentum)
    expected, square = weight.copy(), np.zeros(7)
    for grad in moved("rmsprop_update", weight, [square], STEPS, "float64", **states, **settings):
        expected = optimizer.step(expected, grad)
    assert_close(weight, expected, rounding("float64", STEPS, 1 + np.abs(expected)))


LAYOUTS = {
    "columns": np.asfortranarray,
    "gaps": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "turned": lambda a: np.ascontiguousarray(a.T).T,
}


@given(
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(["float32", "float64", "int64"]),
)
def test_any_shape_and_layout(shape, layout, grad_dtype):
    rng = np.random.default_rng(2)
    values = [np.array(rng.normal(size=shape)) for _ in range(3)]
    for state in values[1:]:
        np.abs(state, out=state)
    grad = np.array(5 * rng.normal(size=shape)).astype(grad_dtype)
    plain = [array.copy() for array in values]
    functional.adam_update(*plain[:1], grad.astype(np.float64), *plain[1:], 0.1, 1)
    lay = LAYOUTS[layout] if shape else np.copy
    laid = [lay(array) for array in values]
    functional.adam_update(*laid[:1], grad, *laid[1:], 0.1, 1)
    for array, expected in zip(laid, plain, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_gradient_in_the_memory_of_its_weight():
    memory = np.arange(1.0, 6.0)
    expected = memory[:4] - 0.5 * memory[1:]
    functional.sgd_update(memory[:4], memory[1:], 0.5)
    np.testing.assert_array_equal(memory[:4], expected)


ONES = np.ones(3)
READ_ONLY = np.broadcast_to(1.0, (3,))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda w: functional.sgd_update([1.0], ONES, 0.1), TypeError, "weight must be an array"),
        (
            lambda w: functional.sgd_update(np.ones(3, int), ONES, 0.1),
            TypeError,
            "weight must be an array of float32 or float64, got int64",
        ),
        (lambda w: functional.sgd_update(READ_ONLY, ONES, 0.1), ValueError, "weight is .*read-on"),
        (lambda w: functional.sgd_update(w, np.ones(2), 0.1), ValueError, r"grad must .*\(3,\)"),
        (lambda w: functional.sgd_update(w, ["a"] * 3, 0.1), ValueError, "grad must hold real"),
        (lambda w: functional.sgd_update(w, w, -0.1), ValueError, "lr must be at least 0"),
        (lambda w: functional.sgd_update(w, w, np.ones(1)), TypeError, "lr must be a number"),
        (
            lambda w: functional.sgd_update(w, w, 0.1, wieght_decay=1.0),
            ValueError,
            "unknown setting of sgd 'wieght_decay': did you mean 'weight_decay'",
        ),
        (
            lambda w: functional.momentum_update(w, w, np.zeros(3), 0.1, dampening=0.1),
            ValueError,
            "unknown setting of momentum 'dampening'",
        ),
        (lambda w: functional.momentum_update(w, w, w, 0.1), ValueError, "must be different"),
        (
            lambda w: functional.adagrad_update(w, w, np.zeros(3, "f4"), 0.1),
            ValueError,
            r"square_sum must be like weight, float64 of shape \(3,\), got float32",
        ),
        (
            lambda w: functional.adam_update(w, w, np.zeros(3), np.zeros(3), 0.1, 0),
            ValueError,
            "step must be at least 1",
        ),
        (
            lambda w: functional.adam_update(
                w, w, np.zeros(3), np.zeros(3), 0.1, 1, betas=(0.9, 1.0)
            ),
            ValueError,
            r"betas\[1\] must be below 1",
        ),
    ],
)
def test_refusals(call, error, message):
    weight = np.ones(3)
    with pytest.raises(error, match=message):
        call(weight)
    np.testing.assert_array_equal(weight, 1.0)
