"""The readings of a formula: NumPy arrays, LLVM vectors, CUDA C++ text, and its derivative."""

from __future__ import annotations

from typing import Any

from .dual import Dual, DualMath, derivative, value_and_derivative
from .numpy_math import NumpyMath
from .text import PREAMBLE, TextMath, function_text

__all__ = [
    "MAX_ULP",
    "PREAMBLE",
    "Dual",
    "DualMath",
    "IntegerVector",
    "NumpyMath",
    "TextMath",
    "Vector",
    "VectorMath",
    "derivative",
    "function_text",
    "value_and_derivative",
]

_OF_VECTOR = ("MAX_ULP", "IntegerVector", "Vector", "VectorMath")


def __getattr__(name: str) -> Any:
    # llvmlite is loaded only where vectors are built
    if name in _OF_VECTOR:
        from . import vector

        return getattr(vector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
