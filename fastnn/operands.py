"""Arguments of operations on a caller's arrays: one dtype and layout, and where results go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import arrays
from .kernels import contract

DTYPES = tuple(map(np.dtype, contract.DTYPES))
"""What operations compute in."""
NAMES = dict(zip(DTYPES, contract.DTYPES, strict=True))
"""Their names, which NumPy makes anew each time it is asked for one."""


def together(**values: ArrayLike) -> list[np.ndarray]:
    """The arguments in one dtype, laid out as the operations take them; copied where needed.

    Parameters
    ----------
    **values : array_like
        By the names that messages give them; all in host memory, or all on a GPU.

    Returns
    -------
    list of ndarray
        In float64 if one of them is, else in float32.

    Raises
    ------
    TypeError
        They do not hold real numbers, or lie in different places.

    >>> together(x=[1, 2], grad=np.ones(2))
    [array([1., 2.]), array([1., 1.])]
    """
    given = list(values.values())
    if type(given[0]) is not np.ndarray or (dtype := given[0].dtype) not in DTYPES:
        return _converted(values)
    for value in given:
        if type(value) is not np.ndarray or value.dtype != dtype:
            return _converted(values)
    return [_rows(array, dtype) for array in given]


def _converted(values: dict[str, ArrayLike]) -> list[np.ndarray]:
    """The same of arguments that may be anything."""
    arrays.require_same_place(**values)
    given = {name: arrays.as_array(name, value) for name, value in values.items()}
    for name, array in given.items():
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise TypeError(
                f"{name} must hold real numbers of at most 64 bits, got dtype {array.dtype}"
                f" (shape {array.shape})"
            )
    is_double = any(a.dtype.kind == "f" and a.dtype.itemsize == 8 for a in given.values())
    return [_rows(array, DTYPES[is_double]) for array in given.values()]


def _rows(array: Any, dtype: np.dtype) -> Any:
    """The array itself where it has the dtype and its last axis is contiguous, else a copy."""
    if array.dtype == dtype:
        strides = array.strides
        if len(strides) == 2 and strides[1] == dtype.itemsize and strides[0] % strides[1] == 0:
            return array
    return arrays.contiguous(array, dtype)


def as_it_lies(matrix: Any, transposed: bool) -> tuple[ArrayLike, bool]:
    """A matrix and whether to transpose it, without a copy of one such as ``x.T``."""
    is_array = isinstance(matrix, np.ndarray) or arrays.is_cupy(matrix)
    if is_array and matrix.ndim == 2 and matrix.flags.f_contiguous:
        return matrix.T, not transposed
    return matrix, transposed


def with_columns(x: ArrayLike, **vectors: ArrayLike) -> list[np.ndarray]:
    """A matrix, and vectors with a number for each of its columns."""
    x, *numbers = together(x=x, **vectors)
    check_shape("x", x, (None, None))
    for name, array in zip(vectors, numbers, strict=True):
        check_shape(name, array, x.shape[1:])
    return [x, *numbers]


def check_shape(name: str, array: Any, expected: tuple[int | None, ...]) -> None:
    """Raise ValueError unless the shape is the one expected; of two lengths, None is any."""
    shape = array.shape
    if shape == expected:
        return
    if len(shape) == len(expected) == 2:
        rows, columns = expected
        if (rows is None or rows == shape[0]) and (columns is None or columns == shape[1]):
            return
    lengths = ", ".join("any" if length is None else str(length) for length in expected)
    raise ValueError(f"{name} must have shape ({lengths}), got {shape}")


def empty(shape: tuple[int, ...], beside: Any) -> Any:
    """A new array of the same dtype, in the same place."""
    return arrays.module_of(beside).empty(shape, beside.dtype)


def place(out: Any, shape: tuple[int, ...], beside: Any, name: str = "out") -> Any:
    """Where to write a result: ``out`` if it can take it, or a new array beside an argument.

    Raises
    ------
    TypeError, ValueError
        ``out`` has another dtype, place, shape or layout, or is read-only.
    """
    if out is None:
        return empty(shape, beside)
    is_like = isinstance(out, arrays.module_of(beside).ndarray)
    if not is_like or out.dtype != beside.dtype:
        where = "a GPU" if arrays.is_on_gpu(beside) else "the host"
        came = type(out).__name__ if not is_like else out.dtype
        raise TypeError(f"{name} must be an array of {beside.dtype} on {where}, got {came}")
    check_shape(name, out, shape)
    if not arrays.is_writable(out):
        raise ValueError(f"{name} must be writeable, got a read-only array")
    if _rows(out, out.dtype) is not out:
        raise ValueError(f"{name} must be contiguous in its last axis, got strides {out.strides}")
    return out


def places(out: Any, shapes: Sequence[tuple[int, ...]], beside: Any) -> list[Any]:
    """Where to write several results: a tuple of arrays, of which None is to be made.

    Raises
    ------
    TypeError, ValueError
        ``out`` is no tuple of so many, one of them cannot take its result, or two overlap.
    """
    if out is None:
        return [empty(shape, beside) for shape in shapes]
    if not isinstance(out, tuple) or len(out) != len(shapes):
        came = f"a tuple of {len(out)}" if isinstance(out, tuple) else type(out).__name__
        raise TypeError(f"out must be a tuple of {len(shapes)} arrays or None, got {came}")
    results = [
        place(given, shape, beside, f"out[{number}]")
        for number, (given, shape) in enumerate(zip(out, shapes, strict=True))
    ]
    for number, result in enumerate(results):
        for other in range(number):
            if arrays.overlap(result, results[other]):
                raise ValueError(f"out[{other}] and out[{number}] must not share memory")
    return results


def apart(
    outs: Sequence[np.ndarray | None], *inputs: np.ndarray, elementwise: bool = False
) -> list[np.ndarray]:
    """The inputs; copies of those that writing to ``outs`` would change before they are read.

    Parameters
    ----------
    outs : sequence of (ndarray or None)
        What the caller gave; what was made for the results is apart from everything.
    *inputs : ndarray
    elementwise : bool, default False
        An input may then be the output itself, element for element.
    """
    kept = list(inputs)
    for out in outs:
        if out is None:
            continue
        for place, array in enumerate(kept):
            if elementwise and array is out:
                continue
            if arrays.overlap(array, out) and not (elementwise and same_place(array, out)):
                kept[place] = array.copy()
    return kept


def same_place(array: Any, other: Any) -> bool:
    """Whether two arrays of one shape are the same elements in memory."""
    return array is other or (
        arrays.address(array) == arrays.address(other) and array.strides == other.strides
    )
