"""Runs formulas in every reading that computes: NumPy, vectors, and text where there is a g++."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_kernels import COMPILER, text_kernels
from vector_kernels import vector_kernel

from fastnn.kernels.tracing import NumpyMath

DTYPES = ("float32", "float64")
READINGS = ("numpy", "vector", "text")
LANES = {"float32": 16, "float64": 8}
Formulas = Mapping[str, tuple[Callable[..., Any], int]]


def every_reading(test: Any) -> Any:
    """Parametrize a test by reading and dtype."""
    test = pytest.mark.parametrize("reading", READINGS)(test)
    return pytest.mark.parametrize("dtype", DTYPES)(test)


def reader(formulas: Formulas, folder: Path) -> Callable[..., tuple[Any, ...]]:
    """Return a function of (reading, name, dtype, *arrays) that gives the formula's results.

    `formulas` gives by name each formula, which returns a tuple, and how many numbers it takes.
    """

    @cache
    def texts(dtype: str) -> dict[str, Callable[..., Any]]:
        return text_kernels(formulas, dtype, folder)

    @cache
    def vectors(name: str, dtype: str) -> Callable[..., Any]:
        formula, inputs = formulas[name]
        return vector_kernel(formula, dtype, LANES[dtype], inputs)

    def run(reading: str, name: str, dtype: str, *arrays: Any) -> tuple[Any, ...]:
        arrays = tuple(np.asarray(array, dtype) for array in arrays)
        if reading == "numpy":
            results = NumpyMath(dtype).evaluate(formulas[name][0], *arrays)
        elif reading == "vector":
            results = vectors(name, dtype)(*arrays)
        elif COMPILER is None:
            pytest.skip("no g++")
        else:
            results = texts(dtype)[name](*arrays)
        assert {result.dtype for result in results} == {np.dtype(dtype)}
        return results

    return run
