"""Memory that begins on a cache line."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

ALIGNMENT = 64
"""Bytes of a cache line, and of the widest vector."""


_WORD = ctypes.c_size_t


def aligned(count: int, dtype: str) -> np.ndarray:
    """``count`` zeros that begin on a cache line, of which nobody else has the rest of the last.

    Parameters
    ----------
    count : int
    dtype : str

    Returns
    -------
    ndarray (count,)

    Examples
    --------
    >>> aligned(3, "float32")
    array([0., 0., 0.], dtype=float32)
    """
    size = count * np.dtype(dtype).itemsize
    lines = -(-size // ALIGNMENT)
    raw = np.zeros((lines + 1) * ALIGNMENT, np.uint8)
    begin = -raw.ctypes.data % ALIGNMENT
    return raw[begin : begin + size].view(dtype)


def address(array: Any) -> int:
    """Where a NumPy array begins, in a fifth of the time that ``array.ctypes.data`` takes.

    The first field of ``PyArrayObject_fields``, of NumPy's binary interface, behind the head.
    """
    return _WORD.from_address(id(array) + object.__basicsize__).value
