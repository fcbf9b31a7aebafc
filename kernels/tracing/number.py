"""What every reading shares: a number whose arithmetic is recorded by the reading it belongs to."""

from __future__ import annotations

import difflib
import math
from typing import Any

FUNCTIONS = (
    "exp", "log", "log1p", "expm1", "sqrt", "tanh", "sigmoid", "erf", "abs",
    "softplus", "where", "maximum", "minimum", "fma",
)  # fmt: skip


class Math:
    """The functions that a formula may call, in terms of the few that a reading implements.

    A reading implements ``binary``, ``compare``, ``negative``, ``where``, ``constant`` and those
    of FUNCTIONS that are not defined here.
    """

    def __getattr__(self, name: str) -> Any:
        near = difflib.get_close_matches(name, FUNCTIONS)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise AttributeError(f"a formula can call {', '.join(FUNCTIONS)}, not {name!r}{hint}")

    def softplus(self, x: Any) -> Any:
        """log(1 + exp(x)), without overflow."""
        if is_constant(x):
            return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
        # from 40 on this is x in both dtypes, long before exp overflows
        return self.where(x > 40.0, x, self.log1p(self.exp(x)))

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of the two; NaN where either is NaN."""
        return self._extremum(a, b, lambda kept, other: kept < other)

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of the two; NaN where either is NaN."""
        return self._extremum(a, b, lambda kept, other: kept > other)

    def _extremum(self, a: Any, b: Any, loses: Any) -> Any:
        if is_constant(a):
            a, b = b, a
        if not is_constant(b):  # a constant is never NaN
            a = self.where(b == b, a, b)
        return self.where(loses(a, b), b, a)


class Number:
    """A value of one reading; arithmetic with it, or with a Python number, is left to ``math``."""

    __slots__ = ("math",)

    def __init__(self, math: Any) -> None:
        self.math = math

    def __add__(self, other: Any) -> Any:
        return self.math.binary("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return self.math.binary("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return self.math.binary("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.math.binary("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return self.math.binary("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self.math.binary("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self.math.binary("/", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.math.binary("/", other, self)

    def __neg__(self) -> Any:
        return self.math.negative(self)

    def __lt__(self, other: Any) -> Any:
        return self.math.compare("<", self, other)

    def __le__(self, other: Any) -> Any:
        return self.math.compare("<=", self, other)

    def __gt__(self, other: Any) -> Any:
        return self.math.compare(">", self, other)

    def __ge__(self, other: Any) -> Any:
        return self.math.compare(">=", self, other)

    def __eq__(self, other: Any) -> Any:
        return self.math.compare("==", self, other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError("a formula cannot branch on a number: use m.where(condition, a, b)")


class Condition:
    """The outcome of a comparison, to be handed to ``where``."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __bool__(self) -> bool:
        raise TypeError("a formula cannot branch on a condition: use m.where(condition, a, b)")


def is_constant(number: Any) -> bool:
    """Whether a number is a plain Python one, known while the formula is read."""
    return isinstance(number, int | float)
