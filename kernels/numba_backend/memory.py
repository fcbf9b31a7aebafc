"""How buffers are padded, and the panels in which weights live while a program runs.

Zeros behind the last column of every panel and buffer stay zeros: kernels write whole vectors of
products only, and whatever a formula computes is stored under a mask.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..alignment import ALIGNMENT
from ..contract import DTYPES
from .machine import target
from .table import UNIT_ROWS

_NAMES = {np.dtype(name): name for name in DTYPES}
"""NumPy makes the name of a dtype anew each time it is asked."""


def padded(columns: int, dtype: str) -> int:
    """``columns`` rounded up to whole vectors."""
    lanes = target().lanes(dtype)
    return -(-columns // lanes) * lanes


def leading_dimension(columns: int, dtype: str) -> int:
    """The stride of a row buffer: an odd number of lines, so that rows use all cache sets."""
    line = ALIGNMENT // np.dtype(dtype).itemsize
    lines = -(-padded(columns, dtype) // line)
    return (lines + (lines % 2 == 0)) * line


def panel_columns(dtype: str) -> int:
    """Columns of a whole weight panel."""
    return target().widest() * target().lanes(dtype)


def panel_count(columns: int, dtype: str) -> int:
    """Panels of so many columns."""
    return -(-columns // panel_columns(dtype))


def panels_evenly(columns: int, dtype: str, threads: int) -> bool:
    """Whether threads get as many panels each."""
    return panel_count(columns, dtype) % threads == 0


def panel_size(inputs: int, outputs: int, dtype: str) -> int:
    """Elements of the panels of an (I, O) weight with its bias row."""
    return (inputs + 1) * padded(outputs, dtype)


def unit_count(shape: tuple[int, ...], dtype: str) -> int:
    """Units of an (I, O) weight, in which its gradient is made."""
    inputs, outputs = shape
    return panel_count(outputs, dtype) * -(-inputs // UNIT_ROWS)


def panels(memory: np.ndarray, inputs: int, outputs: int) -> Iterator[tuple[slice, np.ndarray]]:
    """A slice of the outputs and its panel, an (I + 1, columns) view, for one after the other."""
    dtype, rows = _NAMES[memory.dtype], inputs + 1
    wide = panel_columns(dtype)
    for begin in range(0, outputs, wide):
        columns = slice(begin, min(begin + wide, outputs))
        width = padded(columns.stop - begin, dtype)
        panel = memory[begin * rows : (begin + width) * rows].reshape(rows, width)
        yield columns, panel[:, : columns.stop - begin]


def counterparts(
    memory: np.ndarray, weight: np.ndarray, bias: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Views of panels beside those of the (I, O) weight and bias that they hold; None for zeros."""
    inputs, outputs = weight.shape
    for columns, panel in panels(memory, inputs, outputs):
        yield panel[:inputs], weight[:, columns]
        yield panel[inputs], None if bias is None else bias[columns]
