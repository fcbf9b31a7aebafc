"""Optimizers alone on arrays: against PyTorch's numbers and the float64 reference."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from checks import Bound, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnn
from fastnn import optim

TORCH = json.loads((Path(__file__).parent / "data" / "torch_numbers.json").read_text())
INPUTS = TORCH["optimizer_inputs"][0]
DTYPES = ("float32", "float64")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

CASES: list[tuple[str, dict[str, Any]]] = [
    (record["name"], record["settings"]) for record in TORCH["optimizers"]
]

pytestmark = pytest.mark.usefixtures("backend")


def make(name: str, keywords: dict[str, Any]) -> fastnn.Optimizer:
    renamed = {"lr" if key == "learning_rate" else key: value for key, value in keywords.items()}
    return getattr(fastnn, name)(**renamed)


def rounding(dtype: str, updates: int, path: np.ndarray, step: Any) -> Bound:
    """Some 16 roundings an update, of the weights on their path and of the steps that move them."""
    limit = 16 * updates * float(np.finfo(dtype).eps) * (np.abs(path).max(axis=0) + step)
    return Bound(limit, limit)


@pytest.mark.parametrize("record", TORCH["optimizers"], ids=lambda record: str(record["name"]))
def test_float64_steps_are_those_of_torch(record):
    optimizer = make(record["name"], record["settings"])
    weight = np.array([INPUTS["weight"]])  # two axes, so that weight decay touches it
    path = [weight.copy()]
    for update, grad in enumerate(INPUTS["gradients"], start=1):
        optimizer.step([weight], [np.array([grad])])
        path.append(weight.copy())
        if str(update) in record["weights"]:
            expected = np.array([record["weights"][str(update)]])
            steps = np.abs(np.diff(path, axis=0)).max(axis=0)
            assert_close(weight, expected, rounding("float64", update, np.array(path), steps))
    assert update == 200


@every_dtype
@pytest.mark.parametrize("name, keywords", CASES)
def test_steps_are_those_of_the_reference(name, keywords, dtype):
    rng = np.random.default_rng(0)
    weight, truth = rng.normal(size=(3, 7)).astype(dtype), getattr(reference, name)(**keywords)
    optimizer, expected = make(name, keywords), weight.astype(np.float64)
    path = [expected]
    for _ in range(10):
        grad = rng.normal(size=(3, 7)).astype(dtype)
        optimizer.step([weight], [grad])
        expected = truth.step(expected, grad)
        path.append(expected)
    assert_close(weight, expected, rounding(dtype, 10, np.array(path), optimizer.lr))


STATE = {
    "Momentum": ("velocity",),
    "Nesterov": ("velocity",),
    "Adagrad": ("sum",),
    "Adam": ("first_moment", "second_moment"),
    "AdamW": ("first_moment", "second_moment"),
}


@pytest.mark.parametrize("updates", [1, 7, 500])
@pytest.mark.parametrize("name", STATE)
def test_steps_go_on_from_a_state_that_is_put_in(name, updates):
    rng = np.random.default_rng(1)
    model = fastnn.Sequential(fastnn.Linear(3, 4), dtype="float64")
    optimizer, truth = make(name, {"learning_rate": 0.1}), getattr(reference, name)(0.1)
    optimizer.attach(model)
    optimizer.updates = truth.updates = updates
    for slot, attribute in zip(optimizer.slots, STATE[name], strict=True):
        slot["0.weight"][...] = state = rng.uniform(0.1, 2, (3, 4))
        setattr(truth, attribute, state.copy())
    expected = model[0].weight.copy()
    for _ in range(3):
        model.grads["0.weight"][...] = grad = rng.normal(size=(3, 4))
        optimizer.step(model)
        expected = truth.step(expected, grad)
        assert_close(model[0].weight, expected, rounding("float64", 3, expected[None], 0.1))
    assert optimizer.updates == updates + 3


def test_a_list_of_arrays_moves_like_each_alone():
    rng = np.random.default_rng(2)
    shapes = [(3, 4), (4,), (2, 3, 2), (0,), ()]
    together = [rng.normal(size=shape) for shape in shapes]
    apart = [array.copy() for array in together]
    grads = [rng.normal(size=shape) for shape in shapes]
    one, others = fastnn.Adam(0.1), [fastnn.Adam(0.1) for _ in shapes]
    for _ in range(3):
        one.step(together, grads)
        for other, array, grad in zip(others, apart, grads, strict=True):
            other.step([array], [grad])
    for array, expected in zip(together, apart, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adam", "RMSprop", "Adagrad"])
def test_weight_decay_touches_weights_and_not_biases(name):
    options = {"weight_decay": 0.1}
    for shape, decays in (((2, 2), True), ((4,), False)):
        array, plain = np.ones(shape), np.ones(shape)
        make(name, options).step([array], [np.full(shape, 0.5)])
        make(name, {"weight_decay": 0.0}).step([plain], [np.full(shape, 0.5)])
        # Adaptive first steps have one size whatever the gradient, up to eps.
        moved = bool((array != plain).any())
        assert moved == decays


def test_weight_decay_of_a_model_spares_biases_and_normalisation_unless_asked():
    layers = (
        fastnn.Linear(2, 3), fastnn.BatchNorm1d(3), fastnn.PReLU(),
        fastnn.Linear(3, 2, decay_bias=True),
    )  # fmt: skip
    model = fastnn.Sequential(*layers)
    model.arena.flat[:] = 1.0
    fastnn.SGD(lr=1.0, weight_decay=0.5).step(model)  # all gradients are zero
    decayed = {name for name, array in model.arena.items() if (array == 0.5).all()}
    kept = {name for name, array in model.arena.items() if (array == 1.0).all()}
    assert decayed == {"0.weight", "3.weight", "3.bias"}
    assert kept == set(model.arena) - decayed


@settings(max_examples=20)
@given(
    grad=st.lists(st.floats(-100, 100), min_size=1, max_size=5), limit=st.floats(0.01, 10),
)  # fmt: skip
def test_clipping_by_value_and_norm_in_a_loop_by_hand(grad, limit):
    grads = np.resize(grad, (1, 5))
    for options, clipped in (
        ({"clip_value": limit}, reference.clip_by_value(grads, limit)),
        ({"clip_norm": limit}, reference.clip_by_norm([grads], limit)[0]),
    ):
        model = fastnn.Sequential(fastnn.Linear(1, 5, bias=False), dtype="float64")
        model.arena.flat[:], model.grads.flat[:] = 0.0, grads
        optimizer = fastnn.SGD(lr=1.0)
        optimizer.attach(model)
        optimizer.step_model(model, 1.0, options.get("clip_norm"), options.get("clip_value"), 0)
        eps = 16 * np.finfo(np.float64).eps
        assert_close(-model[0].weight, clipped, Bound(eps * (1 + np.abs(clipped)), eps * 100))


def rotating(m, weight, grad, slots, h):
    (angle,) = slots
    angle = m.fma(h.share, grad, angle)
    return m.fma(-h.learning_rate, angle, weight), (angle,)


@every_dtype
def test_a_custom_optimizer_with_a_slot_and_a_setting(dtype):
    optimizer = fastnn.Optimizer(rotating, lr=0.5, slots=("angle",), name="rotating", share=0.25)
    weight = np.array([[1.0, -2.0]], dtype)
    for _ in range(3):
        optimizer.step([weight], [np.array([[4.0, 8.0]], dtype)])
    np.testing.assert_array_equal(weight, [[1 - 0.5 * 6, -2 - 0.5 * 12]])
    assert "share=0.25" in repr(optimizer)


def test_reset_begins_anew():
    optimizer = fastnn.Adam(0.1)
    first, second = np.ones((1, 2)), np.ones((1, 2))
    optimizer.step([first], [np.array([[1.0, 2.0]])])
    optimizer.reset()
    optimizer.step([second], [np.array([[1.0, 2.0]])])
    np.testing.assert_array_equal(first, second)
    assert optimizer.updates == 1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_go_on_by_themselves(again):
    optimizer, weight = fastnn.Adam(0.1), np.ones((1, 2))
    grad = np.array([[1.0, 2.0]])
    optimizer.step([weight], [grad])
    other, other_weight = again(optimizer), weight.copy()
    optimizer.step([weight], [grad])
    other.step([other_weight], [grad])
    np.testing.assert_array_equal(other_weight, weight)
    assert optimizer.updates == other.updates == 2


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))]
)
def test_a_copy_of_a_models_optimizer_has_its_settings_and_no_state(again):
    x, y = np.eye(4, dtype=np.float32), np.arange(4)
    model, other = (fastnn.Sequential(fastnn.Linear(4, 4), seed=seed) for seed in (0, 0))
    model.fit(x, y, optimizer=fastnn.Adam(0.1))
    optimizer = again(model.optimizer)
    assert repr(optimizer) == repr(model.optimizer)
    assert optimizer.updates == 0 and not optimizer.trains(model)
    other.fit(x, y, optimizer=optimizer)
    np.testing.assert_array_equal(other.arena.flat, model.arena.flat)
    assert model.optimizer.updates == 1


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_defaults_are_torchs(name):
    """From PyTorch's documentation, where the names are the same."""
    expected = {
        "sgd": {}, "momentum": {"momentum": 0.9}, "nesterov": {"momentum": 0.9},
        "adagrad": {"lr": 1e-2, "eps": 1e-10, "lr_decay": 0.0},
        "rmsprop": {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8},
        "adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        "adamw": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2},
    }[name]  # fmt: skip
    optimizer = optim.as_optimizer(name)
    assert {"lr": optimizer.lr, **optimizer.settings}.items() >= expected.items()


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_an_optimizer_comes_back_from_its_state(name):
    optimizer = optim.OPTIMIZERS[name](0.25)
    state = json.loads(json.dumps(optimizer.state()))
    assert repr(optim.from_state(state)).partition("(")[2] == repr(optimizer).partition("(")[2]
