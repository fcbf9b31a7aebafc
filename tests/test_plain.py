"""What compiled code sees of NumPy's array objects before it calls a kernel on them at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from fastnn.kernels.numba_backend import library
from fastnn.kernels.numba_backend.operations import ELEMENTS_PER_THREAD
from fastnn.kernels.numba_backend.plain import apply_to_plain


def multiply(grad, slope) -> bool:
    """``grad *= slope`` on plain arrays."""
    kernel = library.plain(grad.dtype.name, "multiply")
    return apply_to_plain("a0a01n", kernel, (grad, slope))


@given(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7), st.sampled_from("fd"))
def test_plain_arrays_of_any_shape_are_done(shape, kind):
    grad = np.full(shape, 3, kind)
    slope = np.arange(grad.size, dtype=kind).reshape(shape)
    assert multiply(grad, slope)
    np.testing.assert_array_equal(grad, 3 * np.arange(grad.size).reshape(shape))


def read_only(array):
    array.flags.writeable = False
    return array


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


class Own(np.ndarray):
    """A subclass, which may lie as it likes."""


OTHERS = {
    "another dtype": lambda a: a.astype("float32"),
    "another byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "another shape": lambda a: a.reshape(4, 3),
    "another number of axes": lambda a: a.ravel(),
    "columns": np.asfortranarray,
    "gaps": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "read-only": read_only,
    "unaligned": unaligned,
    "a subclass": lambda a: a.view(Own),
    "a list": lambda a: a.tolist(),
    "nothing": lambda a: None,
}


@pytest.mark.parametrize("which", OTHERS)
def test_other_arrays_are_left_to_be_looked_at(which):
    plain = np.arange(12.0).reshape(3, 4)
    other = OTHERS[which](plain + 1)
    assert not multiply(plain, other)
    np.testing.assert_array_equal(plain, np.arange(12.0).reshape(3, 4))
    if isinstance(other, np.ndarray):
        before = other.copy()
        assert not multiply(other, plain)
        np.testing.assert_array_equal(other, before)


def test_what_more_threads_pay_for_is_left_to_them():
    large = np.ones(2 * ELEMENTS_PER_THREAD, "float32")
    assert not multiply(large, large)
    assert multiply(large[1:], large[1:])
