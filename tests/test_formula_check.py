"""Mistakes in formulas of one's own: said where the formula is given, by the name it was given."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastnn


def never_ends(m, x):
    return never_ends(m, x)


NUMBERS = {
    "an unknown function": (lambda m, x: m.tan(x), ValueError, "not 'tan'; did you mean tanh"),
    "a branch": (lambda m, x: x if x > 0.0 else 0.0 * x, TypeError, "use m.where"),
    "a Python maximum": (lambda m, x: max(x, 0.0), TypeError, "use m.where"),
    "a function of NumPy": (lambda m, x: np.tanh(x), TypeError, "tanh"),
    "a power": (lambda m, x: x**2, TypeError, r"\*\*"),
    "nothing": (lambda m, x: None, TypeError, "it returned None; expected one number"),
    "two numbers": (lambda m, x: (x, x), TypeError, "expected one number"),
    "a condition": (lambda m, x: x > 0.0, TypeError, "expected one number"),
    "NaN": (lambda m, x: x * float("nan"), ValueError, "constant is nan; expected a finite"),
    "too large a number": (lambda m, x: x * 10**400, ValueError, "constant is 10000"),
    "an error": (lambda m, x: x / (1 - 1) if 1 / 0 else x, ValueError, "ZeroDivisionError"),
    "no end": (never_ends, ValueError, "RecursionError"),
    "too few arguments": (lambda m: 1.0, TypeError, "positional argument"),
}


@pytest.mark.parametrize("mistake", NUMBERS)
def test_a_wrong_activation(mistake):
    formula, error, words = NUMBERS[mistake]
    with pytest.raises(error, match=f"activation 'mine' cannot be read: .*{words}"):
        fastnn.Activation(formula, name="mine")


@pytest.mark.parametrize("mistake", NUMBERS)
def test_a_wrong_loss(mistake):
    formula, error, words = NUMBERS[mistake]
    if formula.__code__.co_argcount == 2:
        with pytest.raises(error, match=f"loss 'mine' cannot be read: .*{words}"):
            fastnn.Loss(lambda m, output, target: formula(m, output), name="mine")
    else:
        with pytest.raises(error, match=words):
            fastnn.Loss(formula, name="mine")


UPDATES = {
    "the weight alone": (lambda m, w, g, slots, h: w, "expected the weight and a tuple of 1"),
    "a slot too few": (lambda m, w, g, slots, h: (w, ()), "a tuple of 1 slots"),
    "a slot too many": (lambda m, w, g, slots, h: (w, (g, g)), "a tuple of 1 slots"),
    "no number": (lambda m, w, g, slots, h: (w, (None,)), "returned None among its results"),
    "an unknown setting": (
        lambda m, w, g, slots, h: (w * h.lr, slots),
        r"h has learning_rate, keep\) .* 'lr'",
    ),
    "a branch": (lambda m, w, g, slots, h: (w if g > 0.0 else g, slots), "use m.where"),
}


@pytest.mark.parametrize("mistake", UPDATES)
def test_a_wrong_optimizer(mistake):
    formula, words = UPDATES[mistake]
    with pytest.raises((TypeError, ValueError), match=f"optimizer 'mine' .*{words}"):
        fastnn.Optimizer(formula, slots=("mean",), name="mine", keep=0.9)


def plain(m, weight, grad, slots, h):
    return m.fma(-h.learning_rate, grad, weight), slots


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"slots": "ab"}, TypeError, "slots is 'ab'; expected a tuple of names"),
        ({"slots": 3}, TypeError, "slots is 3; expected a tuple of names"),
        ({"slots": ("a", "a")}, ValueError, "expected each name once"),
        ({"slots": (1,)}, TypeError, "expected names"),
        ({"decay": ("keeep",), "keep": 0.5}, ValueError, "did you mean 'keep'"),
        ({"learning_rate": 3.0}, ValueError, "learning_rate is no setting"),
        ({"keep": "much"}, TypeError, "keep must be a number, got 'much'"),
        ({"keep": float("nan")}, ValueError, "keep must be finite"),
        ({"name": "adam"}, ValueError, "name is 'adam', which is one of fastnn's own"),
    ],
)
def test_wrong_arguments_of_an_optimizer(arguments, error, words):
    with pytest.raises(error, match=words):
        fastnn.Optimizer(plain, **arguments)


@pytest.mark.parametrize("make", [fastnn.Activation, fastnn.Loss])
@pytest.mark.parametrize("name, error", [(None, TypeError), (3, TypeError), ("", ValueError)])
def test_a_formula_needs_a_name(make, name, error):
    with pytest.raises(error, match="name is "):
        make(lambda m, *numbers: numbers[0], name=name)


def test_a_loss_cannot_take_the_name_of_another_in_files():
    with pytest.raises(ValueError, match="name is 'huber', which is one of fastnn's own"):
        fastnn.Loss(lambda m, output, target: output - target, name="huber")


@pytest.mark.parametrize(
    "value, error", [("a", TypeError), (None, TypeError), (np.nan, ValueError)]
)
def test_settings_are_finite_numbers(value, error):
    with pytest.raises(error, match="slope must be"):
        fastnn.Activation(lambda m, x, slope: slope * x, name="scaled", slope=value)


def test_what_is_right_is_taken():
    scaled = fastnn.Activation(lambda m, x, slope: slope * x, name="scaled", slope=2)
    np.testing.assert_array_equal(scaled([[1.0, -1.0]]), [[2.0, -2.0]])
    constant = fastnn.Activation(lambda m, x: 1.0, name="one")
    np.testing.assert_array_equal(constant([[5.0]]), [[1.0]])


def test_an_optimizer_of_a_formula_in_a_module_pickles():
    optimizer = pickle.loads(pickle.dumps(fastnn.Optimizer(plain, lr=0.5, name="plain")))
    weight = np.ones(2)
    optimizer.step([weight], [np.ones(2)])
    np.testing.assert_array_equal(weight, [0.5, 0.5])
