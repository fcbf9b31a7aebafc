"""The NumPy reading: a formula evaluated on arrays of one dtype."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .number import Math


class NumpyMath(Math):
    """Reads formulas with arrays (or scalars) of one dtype.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        The dtype of every number; Python constants take it.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype is {self.dtype}; expected float32 or float64")

    def evaluate(self, function: Any, *numbers: Any, **settings: Any) -> Any:
        """``function(self, *numbers, **settings)`` with NumPy's warnings off.

        A formula may overflow where its result is not taken, and NaN is an answer, not an event.
        """
        with np.errstate(all="ignore"):
            return function(self, *numbers, **settings)

    def constant(self, value: float, like: Any) -> Any:
        """A Python number as a number of this reading, with the shape of ``like``."""
        return np.full_like(like, value)

    def exp(self, x: Any) -> Any:
        return self._quietly(np.exp, x)

    def log(self, x: Any) -> Any:
        return self._quietly(np.log, x)

    def log1p(self, x: Any) -> Any:
        return self._quietly(np.log1p, x)

    def expm1(self, x: Any) -> Any:
        return self._quietly(np.expm1, x)

    def sqrt(self, x: Any) -> Any:
        return self._quietly(np.sqrt, x)

    def tanh(self, x: Any) -> Any:
        return self._quietly(np.tanh, x)

    def sigmoid(self, x: Any) -> Any:
        return self._quietly(lambda x: 1.0 / (1.0 + np.exp(-x)), x)

    def erf(self, x: Any) -> Any:
        return np.asarray(_erf(x), self.dtype)[()]

    def abs(self, x: Any) -> Any:
        return self._quietly(np.abs, x)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return np.where(condition, *(self._number(value) for value in (a, b)))[()]

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c; rounded twice in float64, once but for rare ties in float32."""
        with np.errstate(all="ignore"):
            if self.dtype == np.float64:
                return a * b + c
            return (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)

    def integer(self, value: Any) -> Any:
        """A Python int as an unsigned 32-bit integer; arithmetic on those is modulo 2³²."""
        return np.uint32(value)

    def multiply_wide(self, a: Any, b: int) -> tuple[Any, Any]:
        """The high and the low 32 bits of the product of a with the constant b."""
        product = np.multiply(a, b, dtype=np.uint64)
        return (product >> np.uint64(32)).astype(np.uint32), product.astype(np.uint32)

    def _number(self, value: Any) -> Any:
        return self.dtype.type(value) if isinstance(value, int | float) else value

    def _quietly(self, function: Any, x: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(self._number(x))


_erf = np.frompyfunc(math.erf, 1, 1)
