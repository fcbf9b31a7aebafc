"""Arrays in host memory and on a GPU: told apart, and taken without a copy where they lie.

What a caller gives becomes a NumPy array or, where it lies on a CUDA device, a CuPy array over the
same memory: CuPy's own, and whatever has ``__cuda_array_interface__`` or ``__dlpack__`` (tensors
of PyTorch, JAX, Numba). Nothing moves between host and device but by a function that says so.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import numpy as np

from .kernels import alignment

_CUDA_KINDS = (2, 13)
"""DLPack's numbers for the memory of a CUDA device, and for memory that host and device share."""


def is_on_gpu(value: Any) -> bool:
    """Whether a value is an array on a CUDA device, of whatever library.

    >>> is_on_gpu([1.0, 2.0])
    False
    """
    if isinstance(value, (np.ndarray, list, tuple)):
        return False
    if hasattr(value, "__dlpack_device__"):
        return value.__dlpack_device__()[0] in _CUDA_KINDS
    return hasattr(value, "__cuda_array_interface__")


def is_cupy(value: Any) -> bool:
    """Whether a value is an array of CuPy itself."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def kind_of(value: Any) -> str:
    """The type of a value with its package, for messages.

    >>> kind_of(np.ones(2))
    'numpy.ndarray'
    """
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"


def is_writable(array: Any) -> bool:
    """Whether a NumPy array may be written to, as CuPy arrays always may."""
    return not isinstance(array, np.ndarray) or array.flags.writeable


def as_array(name: str, value: Any) -> Any:
    """The value as a NumPy array or, if it lies on a GPU, as a CuPy array over the same memory.

    Parameters
    ----------
    name : str
        The argument's name, for messages.
    value : array_like
        Anything that NumPy sees as an array, or that :func:`is_on_gpu`.

    Raises
    ------
    TypeError
        A tensor that records operations for its gradient.
    RuntimeError
        An array on a GPU, where the cupy backend does not work.

    >>> as_array("x", [1.0, 2.0])
    array([1., 2.])
    """
    if type(value) is np.ndarray:
        return value
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(f"{name} is a tensor that requires grad; give {name}.detach()")
    if not is_on_gpu(value):
        only_dlpack = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        return np.from_dlpack(value) if only_dlpack else np.asarray(value)
    if is_cupy(value):
        return value
    cupy = _cupy()
    # DLPack first: it lets the stream of the caller's library finish what writes the array
    return cupy.from_dlpack(value) if hasattr(value, "__dlpack__") else cupy.asarray(value)


def on_host(name: str, value: Any) -> np.ndarray:
    """The value as a NumPy array, where that takes no copy from a GPU.

    Raises
    ------
    TypeError
        An array on a GPU.

    >>> on_host("x", [1.0, 2.0])
    array([1., 2.])
    """
    if is_on_gpu(value):
        raise TypeError(
            f"{name} is a {kind_of(value)} on a GPU; expected an array in host memory (of a CuPy "
            f"array, {name}.get())"
        )
    return as_array(name, value)


def to_host(name: str, value: Any) -> np.ndarray:
    """The value as a NumPy array, copied to host memory if it lies on a GPU.

    >>> to_host("y", [0, 1])
    array([0, 1])
    """
    array = as_array(name, value)
    return array if isinstance(array, np.ndarray) else array.get()


def beside(other: Any, array: np.ndarray) -> Any:
    """A NumPy array where another array lies: itself, or a copy on the GPU."""
    return module_of(other).asarray(array)


def require_same_place(**values: Any) -> None:
    """Raise TypeError where some values lie on a GPU and others, not mere numbers, do not.

    >>> require_same_place(x=[1.0], weight=[[2.0]], bias=None)
    """
    on_gpu = [name for name, value in values.items() if is_on_gpu(value)]
    if not on_gpu:
        return
    for name, value in values.items():
        if name not in on_gpu and value is not None and np.ndim(value) > 0:
            raise TypeError(
                f"{on_gpu[0]} is on a GPU and {name} is in host memory; expected both in one place"
            )


def module_of(array: Any) -> ModuleType:
    """The module that makes arrays where this NumPy or CuPy array lies.

    >>> module_of(np.zeros(2)).__name__
    'numpy'
    """
    return np if isinstance(array, np.ndarray) else _cupy()


def contiguous(array: Any, dtype: Any) -> Any:
    """The NumPy or CuPy array itself if it is C-contiguous and of the dtype, else such a copy.

    An axis of one element has the stride that it would have in a longer array: NumPy takes an array
    for contiguous whatever it is, those who walk its rows do not.

    >>> contiguous(np.ones((1, 3)).T, np.float64).strides
    (8, 8)
    """
    if array.dtype == dtype and array.flags.c_contiguous:
        if 1 not in array.shape or not array.size:
            return array
        steps = [array.itemsize * math.prod(array.shape[1 + axis :]) for axis in range(array.ndim)]
        if array.strides == tuple(steps):
            return array
    copy = module_of(array).empty(array.shape, dtype)
    copy[...] = array
    return copy


def overlap(a: Any, b: Any) -> bool:
    """Whether the extents of two NumPy or CuPy arrays in memory meet.

    >>> numbers = np.zeros(4)
    >>> overlap(numbers[:3], numbers[2:]), overlap(numbers[:2], numbers[2:])
    (True, False)
    """
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.may_share_memory(a, b)
    (begin, end), (other_begin, other_end) = _extent(a), _extent(b)
    return begin < other_end and other_begin < end


def address(array: Any) -> int:
    """Where the first element of a NumPy or CuPy array is."""
    return alignment.address(array) if isinstance(array, np.ndarray) else array.data.ptr


def _extent(array: Any) -> tuple[int, int]:
    """First and last address of an array, the last excluded."""
    if not array.size:
        return 0, 0
    reach = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    begin = address(array) + sum(step for step in reach if step < 0)
    return begin, begin + sum(map(abs, reach)) + array.itemsize


def _cupy() -> ModuleType:
    from .backend import get_backend

    return get_backend("cupy").module
