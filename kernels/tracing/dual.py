"""The derivative of a formula: dual numbers over any other reading.

A tangent that is a plain Python 0.0 or 1.0 is known while the formula is read. Multiplications
by it are left out, which keeps the code short and 0 * inf away.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from .number import Math, Number, is_constant


def value_and_derivative(function: Callable[..., Any], argument: int = 0) -> Callable[..., Any]:
    """A formula that gives (value, derivative by one of its arguments).

    Parameters
    ----------
    function : callable
        ``function(m, *numbers, **settings)``, giving one number.
    argument : int, default 0
        Which of the numbers to differentiate by.

    Returns
    -------
    callable
        Takes what ``function`` takes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.kernels.tracing import NumpyMath, value_and_derivative
    >>> square = value_and_derivative(lambda m, x: x * x)
    >>> [float(number) for number in square(NumpyMath("float64"), np.float64(3.0))]
    [9.0, 6.0]
    """

    def both(m: Any, *numbers: Any, **settings: Any) -> tuple[Any, Any]:
        dual_math = DualMath(m)
        duals = [
            Dual(dual_math, number, 1.0 if index == argument else 0.0)
            for index, number in enumerate(numbers)
        ]
        result = dual_math.dual(function(dual_math, *duals, **settings))
        like = numbers[argument]
        return tuple(
            m.constant(part, like) if is_constant(part) else part
            for part in (result.value, result.tangent)
        )

    return both


def derivative(function: Callable[..., Any], argument: int = 0) -> Callable[..., Any]:
    """A formula that gives the derivative of another by one of its arguments."""
    both = value_and_derivative(function, argument)
    return lambda m, *numbers, **settings: both(m, *numbers, **settings)[1]


class Dual(Number):
    """A value of another reading with its derivative."""

    __slots__ = ("tangent", "value")

    def __init__(self, math: DualMath, value: Any, tangent: Any) -> None:
        super().__init__(math)
        self.value = value
        self.tangent = tangent


class DualMath(Math):
    """Reads a formula into values and derivatives of the reading ``m``."""

    def __init__(self, m: Any) -> None:
        self.m = m

    def dual(self, number: Any) -> Dual:
        """A number as a Dual; one that is not yet a Dual is a constant."""
        return number if isinstance(number, Dual) else Dual(self, number, 0.0)

    def constant(self, value: float, like: Dual) -> Dual:
        """A Python number as a number of this reading."""
        return Dual(self, self.m.constant(value, like.value), 0.0)

    def binary(self, symbol: str, left: Any, right: Any) -> Dual:
        a, b = self.dual(left), self.dual(right)
        if symbol == "+":
            return Dual(self, a.value + b.value, _plus(a.tangent, b.tangent))
        if symbol == "-":
            return Dual(self, a.value - b.value, _plus(a.tangent, _minus(b.tangent)))
        if symbol == "*":
            tangent = self._products(b.value, a.tangent, a.value, b.tangent)
            return Dual(self, a.value * b.value, tangent)
        quotient = a.value / b.value
        slope = _plus(a.tangent, _minus(_times(quotient, b.tangent)))
        return Dual(self, quotient, slope if _is(slope, 0.0) else slope / b.value)

    def compare(self, symbol: str, left: Any, right: Any) -> Any:
        a, b = self.dual(left).value, self.dual(right).value
        return _COMPARISONS[symbol](a, b)

    def negative(self, x: Dual) -> Dual:
        return Dual(self, -x.value, _minus(x.tangent))

    def where(self, condition: Any, a: Any, b: Any) -> Dual:
        a, b = self.dual(a), self.dual(b)
        if is_constant(a.tangent) and is_constant(b.tangent) and a.tangent == b.tangent:
            tangent = a.tangent
        else:
            tangent = self.m.where(condition, a.tangent, b.tangent)
        return Dual(self, self.m.where(condition, a.value, b.value), tangent)

    def fma(self, a: Any, b: Any, c: Any) -> Dual:
        a, b, c = self.dual(a), self.dual(b), self.dual(c)
        tangent = self._products(b.value, a.tangent, a.value, b.tangent, c.tangent)
        return Dual(self, self.m.fma(a.value, b.value, c.value), tangent)

    def exp(self, x: Any) -> Dual:
        x = self.dual(x)
        value = self.m.exp(x.value)
        return Dual(self, value, _times(value, x.tangent))

    def expm1(self, x: Any) -> Dual:
        x = self.dual(x)
        value = self.m.expm1(x.value)
        return self._chain(x, value, lambda: value + 1.0)

    def log(self, x: Any) -> Dual:
        x = self.dual(x)
        return self._chain(x, self.m.log(x.value), lambda: 1.0 / x.value)

    def log1p(self, x: Any) -> Dual:
        x = self.dual(x)
        return self._chain(x, self.m.log1p(x.value), lambda: 1.0 / (1.0 + x.value))

    def sqrt(self, x: Any) -> Dual:
        x = self.dual(x)
        value = self.m.sqrt(x.value)
        return self._chain(x, value, lambda: 0.5 / value)

    def tanh(self, x: Any) -> Dual:
        x = self.dual(x)
        value = self.m.tanh(x.value)
        return self._chain(x, value, lambda: self.m.fma(-value, value, 1.0))

    def sigmoid(self, x: Any) -> Dual:
        x = self.dual(x)
        value = self.m.sigmoid(x.value)
        return self._chain(x, value, lambda: self.m.fma(-value, value, value))

    def erf(self, x: Any) -> Dual:
        x = self.dual(x)

        def slope() -> Any:
            return (2.0 / math.sqrt(math.pi)) * self.m.exp(-x.value * x.value)

        return self._chain(x, self.m.erf(x.value), slope)

    def abs(self, x: Any) -> Dual:
        x = self.dual(x)

        def slope() -> Any:
            zero_or_nan = self.m.where(x.value < 0.0, -1.0, x.value)
            return self.m.where(x.value > 0.0, 1.0, zero_or_nan)

        return self._chain(x, self.m.abs(x.value), slope)

    def _chain(self, x: Dual, value: Any, slope: Callable[[], Any]) -> Dual:
        """The slope is asked for only where the argument varies."""
        return Dual(self, value, 0.0 if _is(x.tangent, 0.0) else _times(slope(), x.tangent))

    def _products(self, b: Any, da: Any, a: Any, db: Any, dc: Any = 0.0) -> Any:
        """b da + a db + dc."""
        return self._accumulate(a, db, self._accumulate(b, da, dc))

    def _accumulate(self, a: Any, db: Any, total: Any) -> Any:
        if is_constant(db) or _is(total, 0.0):
            return _plus(_times(a, db), total)
        return self.m.fma(a, db, total)


_COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def _is(tangent: Any, constant: float) -> bool:
    return is_constant(tangent) and tangent == constant


def _plus(a: Any, b: Any) -> Any:
    if _is(a, 0.0):
        return b
    return a if _is(b, 0.0) else a + b


def _minus(a: Any) -> Any:
    return a if _is(a, 0.0) else -a


def _times(a: Any, tangent: Any) -> Any:
    if _is(tangent, 0.0):
        return 0.0
    if _is(tangent, 1.0):
        return a
    return -a if _is(tangent, -1.0) else a * tangent
