"""Memory that begins on a cache line."""

from __future__ import annotations

import numpy as np

ALIGNMENT = 64
"""Bytes of a cache line, and of the widest vector."""


def aligned(count: int, dtype: str) -> np.ndarray:
    """``count`` zeros that begin on a cache line.

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
    itemsize = np.dtype(dtype).itemsize
    raw = np.zeros(count * itemsize + ALIGNMENT, np.uint8)
    begin = -raw.ctypes.data % ALIGNMENT
    return raw[begin : begin + count * itemsize].view(dtype)
