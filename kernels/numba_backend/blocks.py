"""Callers' arrays as kernels see them: checked, then addresses, strides and counts.

A kernel believes the integers it is given, so nothing gets past here that would let it read or
write outside the caller's arrays.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

from ..alignment import address
from ..contract import DTYPES

_DTYPES = {np.dtype(name): name for name in DTYPES}
_NUMBERS = {"float32": ctypes.c_float, "float64": ctypes.c_double}


class Block(NamedTuple):
    """Rows of numbers in memory; ``stride`` counts elements from one row to the next."""

    address: int
    stride: int
    rows: int
    columns: int
    itemsize: int
    dtype: str

    @property
    def size(self) -> int:
        """Elements in all."""
        return self.rows * self.columns

    def at(self, row: int, column: int = 0) -> int:
        """The address of an element."""
        return self.address + (row * self.stride + column) * self.itemsize


NOTHING = Block(0, 0, 0, 0, 0, "")
"""Stands for an array that was not given: each of its addresses is null."""


def block(
    name: str, array: np.ndarray | None, like: Block | None = None, *, written: bool = False
) -> Block:
    """An array of any shape as rows: as its last axis has them, all other axes in one.

    Parameters
    ----------
    name : str
        The argument's name, for messages.
    array : ndarray
        Of at most two dimensions, or contiguous; the last axis contiguous.
    like : Block or None
        The dtype must be the same.
    written : bool
        Whether a kernel writes to it.

    Raises
    ------
    TypeError
        Not an array of float32 or float64, or not of the other's dtype.
    ValueError
        Not laid out so, or read-only where it is written.
    """
    dtype = _DTYPES.get(array.dtype) if isinstance(array, np.ndarray) else None
    if array is None or dtype is None or (like is not None and dtype != like.dtype):
        expected = " or ".join(DTYPES) if like is None else like.dtype
        raise TypeError(f"{name} must be an array of {expected}, got {_describe(array)}")
    itemsize, flags = array.itemsize, array.flags
    if array.ndim == 2:
        rows, columns = array.shape
    else:
        columns = array.shape[-1] if array.ndim else 1
        rows = array.size // columns if columns else 0
    row_bytes, lies_well = columns * itemsize, flags.c_contiguous
    if not lies_well and array.ndim == 2:
        row_bytes, step = array.strides
        row_lies_well = columns <= 1 or step == itemsize
        lies_well = not rows or (row_lies_well and (rows == 1 or row_bytes % itemsize == 0))
    if not lies_well:
        raise ValueError(
            f"{name} must be contiguous in its last axis (and wholly, beyond two dimensions),"
            f" got strides {array.strides} for shape {array.shape} of {array.dtype}"
        )
    if written:
        check_writeable(name, array)
    return Block(address(array), row_bytes // itemsize, rows, columns, itemsize, dtype)


def matrix(
    name: str,
    array: np.ndarray,
    shape: tuple[int | None, int | None] = (None, None),
    like: Block | None = None,
    *,
    written: bool = False,
) -> Block:
    """A block of an array of two dimensions; ``shape`` has None where any length will do."""
    result = block(name, array, like, written=written)
    rows, columns = shape
    if array.ndim != 2 or rows not in (None, result.rows) or columns not in (None, result.columns):
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must have shape ({expected}), got {array.shape}")
    return result


def vector(
    name: str, array: np.ndarray, length: int, like: Block, *, written: bool = False
) -> Block:
    """A block of one contiguous row of ``length`` numbers."""
    result = block(name, array, like, written=written)
    if array.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {array.shape}")
    return result


def alike(writes: tuple[str, ...], **arrays: np.ndarray | None) -> list[Block]:
    """Blocks of arrays that have the first one's shape and dtype; NOTHING for None."""
    (first_name, first), *rest = arrays.items()
    blocks = [block(first_name, first, written=first_name in writes)]
    assert first is not None  # or it was refused
    for name, array in rest:
        if array is None:
            blocks.append(NOTHING)
            continue
        blocks.append(block(name, array, blocks[0], written=name in writes))
        if array.shape != first.shape:
            raise ValueError(
                f"{name} must have {first_name}'s shape {first.shape}, got {array.shape}"
            )
    return blocks


def joined(blocks: list[Block]) -> list[Block]:
    """The same blocks as one long row each, if no row of any is apart from the next."""
    if blocks[0].rows == 1:
        return blocks
    for b in blocks:
        if b.rows > 1 and b.stride != b.columns:
            return blocks
    size = blocks[0].size
    return [Block(b.address, size, 1, size, b.itemsize, b.dtype) for b in blocks]


def check_writeable(name: str, array: np.ndarray) -> None:
    """Raise ValueError where an array that would be written is read-only."""
    if not array.flags.writeable:
        raise ValueError(f"{name} is written in place, but it is read-only")


def number(value: float, dtype: str) -> Any:
    """A C number of ``dtype``; its address is ``ctypes.addressof`` it, for as long as it lives."""
    return _NUMBERS[dtype](value)


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"dtype {value.dtype} (shape {value.shape})"
    return type(value).__name__
