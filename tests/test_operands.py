"""Arrays of callers as operations take them: addresses, overlaps, layouts."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import arrays, operands
from fastnn.kernels.alignment import address

MATRIX = np.arange(12.0).reshape(3, 4)
READ_ONLY = np.frombuffer(bytes(32))
LAYOUTS = {
    "contiguous": MATRIX,
    "columns": MATRIX.T,
    "gaps": MATRIX[:, ::2],
    "rows backwards": MATRIX[::-1],
    "inside": MATRIX[1:, 1:],
    "read-only": READ_ONLY,
    "empty": np.empty((0, 3)),
    "a number": np.array(1.0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_address(layout):
    array = LAYOUTS[layout]
    assert address(array) == array.ctypes.data
    assert arrays.address(array) == array.ctypes.data


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_contiguous(layout, dtype):
    array = LAYOUTS[layout]
    result = arrays.contiguous(array, np.dtype(dtype))
    np.testing.assert_array_equal(result, array.astype(dtype))
    assert result.flags.c_contiguous and result.dtype == dtype
    lies_so = array.flags.c_contiguous and array.dtype == dtype
    assert (result is array) == lies_so


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1, 1)])
def test_an_axis_of_one_gets_the_stride_of_a_longer_one(shape):
    odd = np.lib.stride_tricks.as_strided(np.zeros(9), shape, (40, 8) if shape[0] == 1 else (8, 40))
    assert odd.flags.c_contiguous
    result = arrays.contiguous(odd, odd.dtype)
    assert result is not odd and result.strides == (8 * shape[1], 8)


def test_inputs_are_copied_only_where_results_would_change_them():
    memory = np.arange(10.0)
    out, inside, beside = memory[:5], memory[2:7], memory[5:]
    copies = operands.apart([None, out], out, inside, beside)
    assert [copy is given for copy, given in zip(copies, (out, inside, beside), strict=True)] == [
        False, False, True,
    ]  # fmt: skip
    kept = operands.apart([out], out, memory[:5], inside, elementwise=True)
    assert np.shares_memory(kept[0], out) and np.shares_memory(kept[1], out)
    assert not np.shares_memory(kept[2], out)
    assert operands.apart((), out) == [out]
