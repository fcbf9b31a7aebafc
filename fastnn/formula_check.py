"""Formulas of a user's own, read once where they are given, so that a mistake shows there."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from . import checks
from .kernels.tracing import TextMath, value_and_derivative
from .kernels.tracing.number import Number


def check_name(kind: str, name: object, taken: Iterable[str] = ()) -> None:
    """Raise unless ``name`` can stand for a formula in a file.

    Parameters
    ----------
    kind : str
        "activation", "loss" or "optimizer".
    name : object
        What the user called it.
    taken : iterable of str
        Names that a file would take for the built-in ones.

    Raises
    ------
    TypeError
        Not a string.
    ValueError
        Empty, or taken.

    >>> check_name("loss", "log_cosh", ["huber"])
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}; expected a string")
    if not name or name in taken:
        reason = "is one of fastnn's own" if name else "says nothing"
        raise ValueError(f"name is {name!r}, which {reason}; choose another for your {kind}")


def checked_settings(settings: Mapping[str, object]) -> dict[str, float]:
    """The settings of a formula as finite floats.

    >>> checked_settings({"slope": 2})
    {'slope': 2.0}
    """
    return {name: checks.number(name, value) for name, value in settings.items()}


def check_function(
    what: str,
    function: Callable[..., Any],
    arguments: Sequence[str],
    settings: Mapping[str, float],
) -> None:
    """Raise unless a formula of numbers and its derivative can be read.

    Parameters
    ----------
    what : str
        For the message ("activation 'mish'").
    function : callable
        ``function(m, *numbers, **settings)``, giving one number.
    arguments : sequence of str
        Names of the numbers.
    settings : mapping of str to float

    Raises
    ------
    TypeError, ValueError
        The formula branches, calls what there is not, or returns something else.

    >>> check_function("loss 'product'", lambda m, x, y: x * y, ["output", "target"], {})
    """

    def checked(m: Any, *values: Any) -> Any:
        result = function(m, *values, **settings)
        if not _is_number(result):
            raise TypeError(f"it returned {result!r}; expected one number")
        return result

    m = TextMath("float64")
    _read(what, lambda: value_and_derivative(checked)(m, *map(m.named, arguments)))


def check_update(
    what: str,
    function: Callable[..., Any],
    slots: Sequence[str],
    scalars: Sequence[str],
) -> None:
    """Raise unless an optimizer's formula can be read and gives a weight and every slot.

    Parameters
    ----------
    what : str
        For the message ("optimizer 'sign_descent'").
    function : callable
        ``function(m, weight, grad, slots, h)``.
    slots, scalars : sequence of str
        Names of the state, and of the attributes of ``h``.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_function`.

    >>> check_update("optimizer 'none'", lambda m, weight, grad, slots, h: (weight, ()), [], [])
    """

    def checked() -> None:
        m = TextMath("float64")
        h = SimpleNamespace(**{name: m.named(name) for name in scalars})
        state = tuple(map(m.named, slots))
        result = function(m, m.named("weight"), m.named("grad"), state, h)
        is_pair = isinstance(result, (tuple, list)) and len(result) == 2
        moved = result[1] if is_pair else None
        if not isinstance(moved, (tuple, list)) or len(moved) != len(slots):
            raise TypeError(
                f"it returned {result!r}; expected the weight and a tuple of {len(slots)} slots"
            )
        for value in (result[0], *moved):
            if not _is_number(value):
                raise TypeError(f"it returned {value!r} among its results; expected numbers")

    _read(f"{what} (h has {', '.join(scalars)})", checked)


def _is_number(value: object) -> bool:
    return isinstance(value, (Number, numbers.Real))


def _read(what: str, reading: Callable[[], object]) -> None:
    try:
        reading()
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        name = "" if kind is type(error) else f"{type(error).__name__}: "
        raise kind(f"the formula of {what} cannot be read: {name}{error}") from error
