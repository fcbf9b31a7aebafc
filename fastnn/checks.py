"""Checks of arguments, shared by the package: what is wrong is said before anything has changed."""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from . import arrays

Value = TypeVar("Value")


def lookup(kind: str, name: str, table: Mapping[str, Value]) -> Value:
    """The entry of a table of named things.

    Parameters
    ----------
    kind : str
        What the table holds, for the message ("schedule", "metric").
    name : str
        The name asked for.
    table : mapping of str to anything
        What is known.

    Raises
    ------
    ValueError
        The name is not in the table; the message lists near matches.

    >>> lookup("initialiser", "zeros", {"zeros": 0.0})
    0.0
    """
    try:
        return table[name]
    except (KeyError, TypeError):
        raise unknown_name(kind, name, table) from None


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error, to be raised, for a name that is not known: near matches, or else all names.

    Parameters
    ----------
    kind : str
        What was looked for ("optimizer").
    name : object
        What came.
    known : iterable of str
        The names that exist.

    >>> unknown_name("optimizer", "adma", ["adam", "adamw", "sgd"])
    ValueError("unknown optimizer 'adma': did you mean 'adam' or 'adamw'?")
    """
    names = sorted(known)
    by_lower = {known.lower(): known for known in names}
    near = [by_lower[found] for found in difflib.get_close_matches(str(name).lower(), by_lower)]
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        hint = f"expected one of {', '.join(map(repr, names))}"
    return ValueError(f"unknown {kind} {name!r}: {hint}")


def integer(name: str, value: Any, *, at_least: int | None = None) -> int:
    """The value as an int, if it is a whole number (of Python or NumPy, not a bool) in range.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : object
        What the caller gave.
    at_least : int, default None
        The smallest value allowed.

    Raises
    ------
    TypeError
        Not an integer.
    ValueError
        Too small.

    >>> integer("seed", 0, at_least=0)
    0
    """
    is_whole = type(value) is int or isinstance(value, numbers.Integral)
    if not is_whole or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    return int(value)


def boolean(name: str, value: object) -> bool:
    """The value as a bool, if it is True or False (of Python or NumPy).

    Raises
    ------
    TypeError
        Anything else, so that a misplaced argument is not taken for a yes.

    >>> boolean("shuffle", True)
    True
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")
    return bool(value)


def positive_int(name: str, value: object) -> int:
    """The value as an int, if it is a whole number of at least 1; see `integer`.

    >>> positive_int("epochs", 20)
    20
    """
    return integer(name, value, at_least=1)


def positive_ints(**values: object) -> None:
    """Raise as `positive_int` does for the first of some arguments that is none.

    >>> positive_ints(epochs=20, batch_size=32)
    """
    for name, value in values.items():
        positive_int(name, value)


def number(
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> float:
    """The value as a float, if it is a finite real number in range.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : object
        What the caller gave.
    at_least, above, at_most, below : float, default None
        The bounds: `at_least` and `at_most` are allowed values, `above` and `below` are not.

    Raises
    ------
    TypeError
        Not a real number.
    ValueError
        NaN, infinite, or out of range.

    >>> number("learning_rate", 1e-3, above=0)
    0.001
    """
    is_number = type(value) is float or isinstance(value, numbers.Real)
    if not is_number or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    try:
        result = float(value)
    except OverflowError:
        result = float("-inf") if value < 0 else float("inf")
    bounds = (
        ("at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    )
    for word, bound, holds in bounds:
        if bound is not None and not holds(result, bound):
            raise ValueError(f"{name} must be {word} {bound}, got {value}")
    if not math.isfinite(result):
        raise ValueError(f"{name} must be finite, got {value}")
    return result


def fraction(name: str, value: object) -> float:
    """The value as a float, if 0 <= value < 1 (a dropout probability, a decay rate of a mean).

    >>> fraction("momentum", 0.9)
    0.9
    """
    return number(name, value, at_least=0, below=1)


def as_matrix(name: str, values: ArrayLike) -> np.ndarray[Any, np.dtype[Any]]:
    """The values as a two-dimensional array of real numbers, not copied where that is possible.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    values : array_like, shape (B, I)
        Anything that NumPy can see as an array: lists, pandas tables, memory maps.

    Raises
    ------
    TypeError
        The elements are not numbers (strings, objects, complex), or lie on a GPU.
    ValueError
        Not two-dimensional.

    >>> as_matrix("X", [[1.0, 2.0]]).shape
    (1, 2)
    """
    return matrix(name, arrays.on_host(name, values))


def matrix(name: str, array: Any) -> Any:
    """The NumPy or CuPy array, if it is a two-dimensional one of real numbers; see `as_matrix`.

    >>> matrix("X", np.ones((1, 2))).shape
    (1, 2)
    """
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype} (shape {array.shape})")
    if array.ndim != 2:
        hint = f"; one column is {name}.reshape(-1, 1)" if array.ndim == 1 else ""
        raise ValueError(
            f"{name} must have 2 dimensions (rows, columns), got shape {array.shape}"
            f" (dtype {array.dtype}){hint}"
        )
    return array


def same_rows(name: str, values: np.ndarray, other_name: str, others: np.ndarray) -> int:
    """The number of rows that two arrays have in common.

    Raises
    ------
    ValueError
        They have different numbers of rows, or none.

    >>> same_rows("X", np.ones((3, 2)), "y", np.ones(3))
    3
    """
    if values.ndim == 0 or others.ndim == 0 or len(values) != len(others):
        raise ValueError(
            f"{name} and {other_name} must have as many rows as each other,"
            f" got shapes {values.shape} and {others.shape}"
        )
    if len(values) == 0:
        raise ValueError(f"{name} must have at least one row, got shape {values.shape}")
    return len(values)
