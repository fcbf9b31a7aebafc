"""Products by cuBLAS, called so that a CUDA graph can hold them.

CuPy refuses its own calls of cuBLAS while a stream is captured (github.com/cupy/cupy/issues/6290),
and gives no way to set a workspace, without which cuBLAS would allocate in a graph. So the library
that CuPy has loaded is called directly, with a handle and a workspace of our own.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .device import Device

_WORKSPACE_BYTES = 32 * 1024 * 1024
"""What NVIDIA advises for Hopper in the description of cublasSetWorkspace."""
_R_32F, _R_64F = 0, 1  # cudaDataType
_COMPUTE = {"float32": 68, "float64": 70, "tf32": 77, "bf16": 75}  # cublasComputeType_t
_DEFAULT_ALGORITHM = -1
_NONE, _TRANSPOSED = 0, 1  # cublasOperation_t


@dataclass(frozen=True)
class Gemm:
    """out = a b, or out += a b, either transposed first; rows may be those of wider arrays."""

    a: Any
    b: Any
    out: Any
    transpose_a: bool = False
    transpose_b: bool = False
    adds: bool = False
    precision: str = "float32"

    def prepare(self, device: Device) -> None:
        """Load cuBLAS, make its handle and take its workspace."""
        device.cublas().prepare()

    def launch(self, device: Device) -> None:
        """Put the product on the current stream."""
        device.cublas().gemm(self)


class Cublas:
    """A handle of cuBLAS, its workspace, and its one function.

    Parameters
    ----------
    cupy : module
    library : ctypes library
        cuBLAS.
    """

    def __init__(self, cupy: Any, library: Any) -> None:
        self._cupy, self._library = cupy, library
        handle = ctypes.c_void_p()
        self._check(library.cublasCreate_v2(ctypes.byref(handle)))
        self._handle = handle
        self._lock = threading.Lock()  # a handle has one stream at a time
        self._workspaces: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def prepare(self) -> None:
        """Take a workspace for the current stream, whose products may go beside others'.

        It lives as long as the stream.
        """
        stream = self._cupy.cuda.get_current_stream()
        if stream not in self._workspaces:
            self._workspaces[stream] = self._cupy.empty(_WORKSPACE_BYTES, np.uint8)

    def gemm(self, gemm: Gemm) -> None:
        """Put a product on the current stream.

        cuBLAS counts columns first: what it takes for a matrix is the transpose of ours, so out' =
        b' a' is asked for.
        """
        if 0 not in gemm.out.shape:
            with self._lock:
                self._use(self._cupy.cuda.get_current_stream())
                self._check(self._launch(gemm))

    def _launch(self, gemm: Gemm) -> int:
        a, b, out = gemm.a, gemm.b, gemm.out
        inner = a.shape[0 if gemm.transpose_a else 1]
        kind = _R_32F if out.dtype == np.float32 else _R_64F
        precision = gemm.precision if kind == _R_32F else "float64"
        return self._library.cublasGemmEx(
            self._handle,
            _TRANSPOSED if gemm.transpose_b else _NONE,
            _TRANSPOSED if gemm.transpose_a else _NONE,
            *(ctypes.c_int(size) for size in (out.shape[1], out.shape[0], inner)),
            _scalar(1.0, kind),
            *_matrix(b, kind),
            *_matrix(a, kind),
            _scalar(float(gemm.adds), kind),
            *_matrix(out, kind),
            ctypes.c_int(_COMPUTE[precision]),
            ctypes.c_int(_DEFAULT_ALGORITHM),
        )

    def _use(self, stream: Any) -> None:
        self._check(self._library.cublasSetStream_v2(self._handle, ctypes.c_void_p(stream.ptr)))
        # after the stream: setting that takes the workspace away
        address = ctypes.c_void_p(self._workspaces[stream].data.ptr)
        size = ctypes.c_size_t(_WORKSPACE_BYTES)
        self._check(self._library.cublasSetWorkspace_v2(self._handle, address, size))

    def _check(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(f"cuBLAS answers with status {status}")


def load(cupy: Any) -> Any:
    """The library of cuBLAS that CuPy has loaded.

    Raises
    ------
    RuntimeError
        Where there is none.
    """
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    try:
        cupy.cuda.device.get_cublas_handle()  # loads the library
        return ctypes.CDLL(f"libcublas.so.{major}")
    except (ImportError, OSError) as error:
        raise RuntimeError(f"cuBLAS does not load: {error}") from error


def takes(matrix: Any) -> bool:
    """Whether cuBLAS can read or write a matrix: no row begins before the last one has ended.

    Where there is one row alone, its stride says nothing.
    """
    return len(matrix) <= 1 or matrix.strides[0] >= matrix.shape[1] * matrix.itemsize


def _scalar(value: float, kind: int) -> Any:
    return ctypes.byref((ctypes.c_float if kind == _R_32F else ctypes.c_double)(value))


def _matrix(array: Any, kind: int) -> tuple[Any, ...]:
    return (
        ctypes.c_void_p(array.data.ptr),
        ctypes.c_int(kind),
        ctypes.c_int(max(1, array.shape[1], array.strides[0] // array.itemsize)),
    )
