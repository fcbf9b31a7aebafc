"""The checks of arguments: what passes comes back in the right type, all else is explained."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fastnn import checks


def test_unknown_name_lists_near_matches():
    error = checks.unknown_name("activation", "Relu6", ["relu", "gelu", "tanh"])
    assert str(error) == "unknown activation 'Relu6': did you mean 'relu' or 'gelu'?"


def test_unknown_name_without_near_matches_lists_all():
    error = checks.unknown_name("activation", "zzz", ["tanh", "relu"])
    assert str(error) == "unknown activation 'zzz': expected one of 'relu', 'tanh'"


@pytest.mark.parametrize("name", ["adma", None, 3, ["adam"]])
def test_lookup_refuses_what_is_not_there(name):
    with pytest.raises(ValueError, match="unknown optimizer"):
        checks.lookup("optimizer", name, {"adam": 1})


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_integers_become_int(value):
    result = checks.positive_int("epochs", value)
    assert type(result) is int
    assert result == 3


@pytest.mark.parametrize("value", [True, 3.0, "3", None, np.float64(3), np.bool_(True)])
def test_what_is_no_integer_is_a_type_error(value):
    with pytest.raises(TypeError, match="epochs must be an integer, got "):
        checks.positive_int("epochs", value)


@pytest.mark.parametrize("value", [0, -1, np.int64(-5)])
def test_positive_int_names_the_bound(value):
    with pytest.raises(ValueError, match=f"epochs must be at least 1, got {value}"):
        checks.positive_int("epochs", value)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), Fraction(1, 2), np.int64(1)])
def test_numbers_become_float(value):
    result = checks.number("lr", value)
    assert type(result) is float
    assert result == float(value)


@pytest.mark.parametrize("value", [True, "0.5", None, 1j, np.bool_(False), np.ones(1)])
def test_what_is_no_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="lr must be a number, got "):
        checks.number("lr", value)


@pytest.mark.parametrize(
    ("bounds", "value", "expected"),
    [
        ({"at_least": 0}, -0.1, "at least 0"),
        ({"above": 0}, 0, "above 0"),
        ({"at_most": 1}, 1.5, "at most 1"),
        ({"below": 1}, 1.0, "below 1"),
        ({"at_least": 0}, float("nan"), "at least 0"),
        ({}, float("nan"), "finite"),
        ({"above": 0}, float("inf"), "finite"),
    ],
)
def test_number_names_the_bound(bounds, value, expected):
    with pytest.raises(ValueError, match=f"lr must be {expected}, got {value}"):
        checks.number("lr", value, **bounds)


def test_number_allows_its_closed_bounds():
    assert checks.number("lr", 0, at_least=0, at_most=0) == 0.0


@pytest.mark.parametrize("value", [1, -0.1, 1.5, float("nan")])
def test_fraction_is_from_0_to_below_1(value):
    assert checks.fraction("p", 0) == 0.0
    with pytest.raises(ValueError, match="p must be "):
        checks.fraction("p", value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint64", "bool"])
def test_as_matrix_copies_nothing(dtype):
    matrix = np.ones((3, 2), dtype)
    assert checks.as_matrix("X", matrix) is matrix


@pytest.mark.parametrize(
    "values", [[["a", "b"]], np.array([[1, None]], object), np.ones((2, 2), complex)]
)
def test_as_matrix_refuses_other_elements(values):
    with pytest.raises(TypeError, match=r"X must hold numbers, got dtype .* \(shape \("):
        checks.as_matrix("X", values)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
def test_as_matrix_refuses_other_dimensions(shape):
    with pytest.raises(ValueError, match=r"X must have 2 dimensions .* got shape .* \(dtype"):
        checks.as_matrix("X", np.ones(shape))


def test_as_matrix_says_how_to_make_a_column():
    with pytest.raises(ValueError, match=r"X.reshape\(-1, 1\)"):
        checks.as_matrix("X", np.ones(3))


@pytest.mark.parametrize(("one", "other"), [((3,), (2,)), ((), (3,)), ((3, 2), ())])
def test_same_rows_refuses_different_numbers_of_rows(one, other):
    with pytest.raises(ValueError, match="X and y must have as many rows"):
        checks.same_rows("X", np.ones(one), "y", np.ones(other))


def test_same_rows_refuses_an_empty_set():
    with pytest.raises(ValueError, match="X must have at least one row"):
        checks.same_rows("X", np.ones((0, 3)), "y", np.ones(0))
