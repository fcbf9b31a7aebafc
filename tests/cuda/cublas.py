"""cuBLAS's products in NumPy, as its library has them and as CuPy wraps them.

Matrices are given by their address, columns first, a leading dimension from column to column.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from .simulated import DEVICE, Allocation, Queue, StatusError, work_on

_INVALID_VALUE = 7
_KINDS = {0: np.dtype(np.float32), 1: np.dtype(np.float64)}  # cudaDataType
_OPERATIONS = {0: False, 1: True}  # cublasOperation_t: transposed?
_COMPUTES = {  # cublasComputeType_t: the dtype and how its operands are rounded
    68: ("float32", ""), 70: ("float64", ""), 75: ("float32", "bf16"), 77: ("float32", "tf32"),
}  # fmt: skip


class CUBLASError(StatusError):
    """CuPy's, of cuBLAS."""


class Cublas:
    """The functions of the library, called as through ctypes: they return a status."""

    HANDLE = 0xB1A5

    def __init__(self) -> None:
        self._queue: Queue | None = None
        self._has_workspace = False
        self._math_mode = 0

    def cublasCreate_v2(self, handle: Any) -> int:
        handle._obj.value = self.HANDLE
        return 0

    def cublasDestroy_v2(self, handle: Any) -> int:
        return 0

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        self._queue = DEVICE.queue_at(_number(stream))
        self._has_workspace = False
        return 0

    def cublasSetWorkspace_v2(self, handle: Any, workspace: Any, size: Any) -> int:
        DEVICE.memory_at(_number(workspace), _number(size), "cublasSetWorkspace")
        self._has_workspace = True
        return 0

    def cublasSetMathMode(self, handle: Any, mode: Any) -> int:
        self._math_mode = _number(mode)
        return 0

    def cublasGemmEx(
        self, handle: Any, trans_a: Any, trans_b: Any, m: Any, n: Any, k: Any, alpha: Any,
        a: Any, type_a: Any, lda: Any, b: Any, type_b: Any, ldb: Any, beta: Any,
        c: Any, type_c: Any, ldc: Any, compute: Any, algorithm: Any,
    ) -> int:  # fmt: skip
        queue = self._queue or DEVICE.null
        if queue.capture is not None and not self._has_workspace:
            DEVICE.refuse_in_capture("cuBLAS without a workspace of the caller's")
        kinds = {_number(kind) for kind in (type_a, type_b, type_c)}
        dtype, rounding = _COMPUTES[_number(compute)]
        if len(kinds) != 1 or _KINDS.get(kinds.pop()) != dtype:
            return _INVALID_VALUE
        return _gemm(
            queue, np.dtype(dtype), rounding, _number(trans_a), _number(trans_b),
            (_number(m), _number(n), _number(k)), alpha, (_number(a), _number(lda)),
            (_number(b), _number(ldb)), beta, (_number(c), _number(ldc)),
        )  # fmt: skip

    # ---- CuPy's ----

    def cupy_functions(self) -> dict[str, Any]:
        """What CuPy's module of cuBLAS has; every product goes to the current stream."""

        def gemm(dtype: str) -> Callable[..., None]:
            def call(
                handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
                A: int, lda: int, B: int, ldb: int, beta: int, C: int, ldc: int,
            ) -> None:  # fmt: skip
                DEVICE.refuse_in_capture("CuPy's call of cuBLAS")
                status = _gemm(
                    DEVICE.current().queue, np.dtype(dtype), "", transa, transb, (m, n, k), alpha,
                    (A, lda), (B, ldb), beta, (C, ldc),
                )  # fmt: skip
                if status:
                    raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")

            return call

        return {
            "CUBLASError": CUBLASError,
            "sgemm": gemm("float32"),
            "dgemm": gemm("float64"),
            "setStream": lambda handle, stream: None,  # CuPy sets the current one at each call
            "setMathMode": lambda handle, mode: self.cublasSetMathMode(handle, mode) and None,
            "getMathMode": lambda handle: self._math_mode,
            "CUBLAS_OP_N": 0,
            "CUBLAS_OP_T": 1,
            "CUBLAS_DEFAULT_MATH": 0,
            "CUBLAS_TENSOR_OP_MATH": 1,
        }


def _number(value: Any) -> int:
    """An integer out of what ctypes would pass."""
    value = getattr(value, "value", value)
    return 0 if value is None else int(value)


def _scalar(value: Any, dtype: np.dtype) -> float:
    """The number of the host that an address or a reference stands for."""
    if hasattr(value, "_obj"):
        return float(value._obj.value)
    kind = ctypes.c_float if dtype == np.float32 else ctypes.c_double
    return float(kind.from_address(_number(value)).value)


def _gemm(
    queue: Queue, dtype: np.dtype, rounding: str, trans_a: int, trans_b: int,
    size: tuple[int, int, int], alpha: Any, a: tuple[int, int], b: tuple[int, int], beta: Any,
    c: tuple[int, int],
) -> int:  # fmt: skip
    """Put c = alpha a b + beta c on a stream; return cuBLAS's status."""
    if trans_a not in _OPERATIONS or trans_b not in _OPERATIONS or min(size) < 0:
        return _INVALID_VALUE
    m, n, k = size
    rows_a, rows_b = (k if trans_a else m), (n if trans_b else k)
    if a[1] < max(1, rows_a) or b[1] < max(1, rows_b) or c[1] < max(1, m):
        return _INVALID_VALUE
    if m == 0 or n == 0:
        return 0
    factor, kept = _scalar(alpha, dtype), _scalar(beta, dtype)
    held_a, left = _columns(*a, rows_a, m + k - rows_a, dtype)
    held_b, right = _columns(*b, rows_b, n + k - rows_b, dtype)
    held_c, out = _columns(*c, m, n, dtype)

    def run() -> None:
        first, second = (
            _rounded(x.T if transposed else x, rounding).astype(np.float64)
            for x, transposed in ((left, trans_a), (right, trans_b))
        )
        with np.errstate(all="ignore"):
            found = factor * (first @ second)
            np.copyto(out, found + kept * out if kept else found, casting="unsafe")

    queue.put(work_on("a product of cuBLAS", run, [held_a, held_b, held_c]))
    return 0


def _columns(
    address: int, leading: int, rows: int, columns: int, dtype: np.dtype
) -> tuple[Allocation | None, np.ndarray]:
    """A matrix that lies columns first, as a view of the memory it lies in."""
    if rows == 0 or columns == 0:
        return None, np.empty((rows, columns), dtype)
    count = (columns - 1) * leading + rows
    allocation, memory = DEVICE.memory_at(address, count * dtype.itemsize, "a matrix of cuBLAS")
    strides = (dtype.itemsize, leading * dtype.itemsize)
    return allocation, np.ndarray((rows, columns), dtype, memory, 0, strides)


def _rounded(x: np.ndarray, rounding: str) -> np.ndarray:
    """Operands as tensor cores take them: 10 bits of mantissa, ties away, or 7, ties to even."""
    if not rounding:
        return x
    bits = np.ascontiguousarray(x).view(np.uint32)
    if rounding == "tf32":
        cut = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    else:
        cut = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, cut.view(np.float32))
