"""A stand-in for the part of CuPy 14 that fastnn calls, stricter than CuPy where CuPy is silent.

``install`` puts it in CuPy's place. Arrays lie between guards and are NaN until written; kernels
are compiled by g++ and run by the shim; work waits on its stream until somebody waits for it.
What it has not, fastnn does not need: elementwise arithmetic and comparisons raise, as does NumPy
on its arrays.

What it assumes of CuPy that only a GPU can confirm is in tests/test_gpu.py.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np
from checks import poisoned

from . import compile as compiling
from .cublas import Cublas
from .memory import POISON
from .simulated import (
    DEVICE,
    Allocation,
    CUDARuntimeError,
    Event,
    Graph,
    StatusError,
    Stream,
    work_on,
)

MULTIPROCESSORS = 4
MOST_SHARED_UNASKED = 48 * 1024
COMPUTE_CAPABILITY = "90"
_THREADS_A_MULTIPROCESSOR = 2048
_SHARED_A_MULTIPROCESSOR = 233_472


class CUDADriverError(StatusError):
    """CuPy's, of the driver."""


class NVRTCError(StatusError):
    """CuPy's, of the compiler."""


class OutOfMemoryError(MemoryError):
    """CuPy's, of its pool."""


# ---- arrays ----


class MemoryPointer:
    """CuPy's: a place in device memory."""

    def __init__(self, mem: Allocation | None, offset: int = 0):
        self.mem = mem
        self.ptr = (mem.ptr if mem else 0) + offset

    def __add__(self, bytes_further: int) -> MemoryPointer:
        pointer = MemoryPointer(self.mem)
        pointer.ptr = self.ptr + bytes_further
        return pointer

    def __int__(self) -> int:
        return self.ptr


def _take(size: int, itemsize: int = 8) -> Allocation | None:
    try:
        return DEVICE.allocate(size, itemsize)
    except MemoryError as error:
        raise OutOfMemoryError(str(error)) from None


class ndarray:
    """CuPy's array, as far as fastnn uses it."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        shape: int | Sequence[int],
        dtype: Any = float,
        memptr: MemoryPointer | None = None,
        strides: Sequence[int] | None = None,
        order: Literal["C", "F"] = "C",
    ):
        kind = np.dtype(dtype)
        if kind.kind not in "fiub":
            raise TypeError(f"dtype must be of numbers, got {kind}")
        shape = np.broadcast_to(np.empty(()), shape).shape
        span = _span(shape, strides, kind.itemsize)
        if memptr is None:
            self._mem = _take(span, kind.itemsize)
            memory = self._mem.buffer.bytes if self._mem else np.empty(0, np.uint8)
        else:
            self._mem, memory = DEVICE.memory_at(memptr.ptr, span, "ndarray")
        self._array = np.ndarray(shape, kind, memory, 0, strides, order)
        if memptr is None and kind.itemsize in (4, 8):
            self._array[...] = poisoned((), kind)  # which checks.assert_close knows as unwritten

    @classmethod
    def _over(cls, mem: Allocation | None, array: np.ndarray) -> ndarray:
        made = cls.__new__(cls)
        made._mem, made._array = mem, array
        return made

    # -- what it is --

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype:
        return self._array.dtype

    @property
    def size(self) -> int:
        return self._array.size

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def nbytes(self) -> int:
        return self._array.nbytes

    @property
    def itemsize(self) -> int:
        return self._array.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        return self._array.strides

    @property
    def flags(self) -> Any:
        return self._array.flags

    @property
    def device(self) -> Device:
        return Device()

    @property
    def data(self) -> MemoryPointer:
        pointer = MemoryPointer(self._mem)
        pointer.ptr = self._array.ctypes.data if self._mem else 0
        return pointer

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "strides": None if self.flags.c_contiguous else self.strides,
            "data": (self.data.ptr, False),
            "version": 3,
            "stream": DEVICE.current().ptr or 1,
        }

    def __dlpack__(self, **_: Any) -> _Capsule:
        return _Capsule(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __len__(self) -> int:
        return len(self._array)

    def __repr__(self) -> str:
        return f"<array on the stand-in for a GPU: {self.shape} of {self.dtype}>"

    # -- views --

    @property
    def T(self) -> ndarray:
        return self._over(self._mem, self._array.T)

    def reshape(self, *shape: Any) -> ndarray:
        reshaped = self._array.reshape(*shape)
        if self.size and not np.shares_memory(reshaped, self._array):
            return self.copy().reshape(*shape)
        return self._over(self._mem, reshaped)

    def ravel(self) -> ndarray:
        return self.reshape(-1)

    def view(self, dtype: Any = None) -> ndarray:
        return self._over(
            self._mem, self._array.view(self.dtype if dtype is None else np.dtype(dtype))
        )

    def __getitem__(self, key: Any) -> ndarray:
        parts = key if isinstance(key, tuple) else (key,)
        for part in parts:
            is_place = isinstance(part, (int, np.integer)) and not isinstance(part, bool)
            if not (is_place or part is None or part is ... or isinstance(part, slice)):
                raise IndexError(f"the stand-in knows places and slices, got {part!r}")
        if ... not in parts:
            parts += (...,)  # an array of no dimensions, not a number
        return self._over(self._mem, self._array[parts])

    # -- work on the device --

    def _put(self, what: str, run: Callable[[], None], *others: ndarray) -> None:
        DEVICE.current().queue.put(
            work_on(what, run, [self._mem, *(other._mem for other in others)])
        )

    def __setitem__(self, key: Any, value: Any) -> None:
        target = self[key]
        there = target._array
        if isinstance(value, ndarray):
            source = value._array
            np.broadcast_to(source, there.shape)
            target._put("a copy", lambda: np.copyto(there, source, casting="unsafe"), value)
        elif np.ndim(value) == 0 and not isinstance(value, np.ndarray):
            target.fill(value)
        else:
            raise TypeError(
                f"an array on the device is set from one there or a number, got {type(value)}; "
                "use .set() for an array in host memory"
            )

    def fill(self, value: Any) -> None:
        there, number = self._array, np.asarray(value).astype(self.dtype)
        self._put("a fill", lambda: there.fill(number[()]))

    def copy(self, order: str = "C") -> ndarray:
        return self.astype(self.dtype)

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        if not copy and self.dtype == dtype:
            return self
        made = ndarray(self.shape, dtype)
        made[...] = self
        return made

    # -- to and from the host --

    def get(
        self,
        stream: Stream | None = None,
        order: str = "C",
        out: np.ndarray | None = None,
        blocking: bool = True,
    ) -> np.ndarray:
        DEVICE.refuse_in_capture("ndarray.get")
        if out is None:
            out = np.empty(self.shape, self.dtype, "F" if order == "F" else "C")
        elif not isinstance(out, np.ndarray):
            raise TypeError(
                f"Only numpy.ndarray can be obtained from cupy.ndarray, got {type(out)}"
            )
        elif out.dtype != self.dtype:
            raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype} array")
        elif out.shape != self.shape:
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual: {out.shape}")
        elif not (out.flags.c_contiguous or out.flags.f_contiguous):
            raise RuntimeError("`out` cannot be specified when it is not contiguous")
        queue = (stream or DEVICE.current()).queue
        source, host = self._array, out
        queue.put(work_on("a copy to the host", lambda: np.copyto(host, source), [self._mem]))
        if blocking or not _is_pinned(out):
            queue.finish()
            DEVICE.refuse_unfinished(self._mem)
        return out

    def set(self, arr: np.ndarray, stream: Stream | None = None) -> None:
        DEVICE.refuse_in_capture("ndarray.set")
        if not isinstance(arr, np.ndarray):
            raise TypeError(f"Only numpy.ndarray can be set to cupy.ndarray, got {type(arr)}")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        there = self._array
        # the device reads pinned memory when its turn comes, other memory is staged at once
        source = arr if _is_pinned(arr) else arr.copy()
        queue = (stream or DEVICE.current()).queue
        queue.put(work_on("a copy from the host", lambda: np.copyto(there, source), [self._mem]))

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __index__(self) -> int:
        return self.get().__index__()

    # -- what it refuses --

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in (np.ndim, np.shape, np.size):
            return function(np.broadcast_to(np.empty(()), self.shape), *args[1:], **kwargs)
        raise TypeError(f"numpy.{function.__name__} was given an array on the device")

    def _refused(self, *_: Any) -> Any:
        raise TypeError("the stand-in computes in kernels alone: no operators on its arrays")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refused
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _refused
    __rtruediv__ = __matmul__ = __rmatmul__ = __pow__ = __neg__ = __abs__ = _refused
    __iadd__ = __isub__ = __imul__ = __itruediv__ = __reduce__ = _refused


class _Capsule:
    """What the stand-in's arrays hand over as DLPack."""

    def __init__(self, array: ndarray):
        self.array = array


def _span(shape: Sequence[int], strides: Sequence[int] | None, itemsize: int) -> int:
    """Bytes from an array's first to behind its last."""
    if 0 in shape:
        return 0
    if strides is None:
        return int(np.prod(shape)) * itemsize
    if len(strides) != len(shape) or min(strides, default=0) < 0:
        raise ValueError(f"strides must be {len(shape)} numbers of at least 0, got {strides}")
    return sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + itemsize


# ---- making arrays ----


def empty(shape: Any, dtype: Any = float, order: Literal["C", "F"] = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: Literal["C", "F"] = "C") -> ndarray:
    made = empty(shape, np.asarray(fill_value).dtype if dtype is None else dtype, order)
    made.fill(fill_value)
    return made


def zeros(shape: Any, dtype: Any = float, order: Literal["C", "F"] = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: Literal["C", "F"] = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def empty_like(prototype: Any, dtype: Any = None) -> ndarray:
    return empty(prototype.shape, dtype or prototype.dtype)


def zeros_like(a: Any, dtype: Any = None) -> ndarray:
    return zeros(a.shape, dtype or a.dtype)


def ones_like(a: Any, dtype: Any = None) -> ndarray:
    return ones(a.shape, dtype or a.dtype)


def full_like(a: Any, fill_value: Any, dtype: Any = None) -> ndarray:
    return full(a.shape, fill_value, dtype or a.dtype)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    ends = (start,) if stop is None else (start, stop)
    return asarray(np.arange(*ends, **({} if step == 1 else {"step": step}), dtype=dtype))


def asarray(
    a: Any, dtype: Any = None, order: str | None = None, *, copy: bool | None = None,
    blocking: bool = False,
) -> ndarray:  # fmt: skip
    if not isinstance(a, ndarray) and hasattr(a, "__cuda_array_interface__"):
        a = _from_interface(a.__cuda_array_interface__)
    if isinstance(a, ndarray):
        kept = dtype is None or a.dtype == dtype
        return a if kept and not copy else a.astype(a.dtype if dtype is None else dtype)
    DEVICE.refuse_in_capture("asarray of an array in host memory")
    host = np.asarray(a, dtype)
    made = empty(host.shape, host.dtype)
    made.set(host)
    return made


def array(a: Any, dtype: Any = None, copy: bool = True) -> ndarray:
    return asarray(a, dtype, copy=copy)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    made = asarray(a, dtype)
    return made if made.flags.c_contiguous else made.copy()


def asnumpy(
    a: Any, stream: Stream | None = None, order: str = "C", out: np.ndarray | None = None, *,
    blocking: bool = True,
) -> np.ndarray:  # fmt: skip
    if isinstance(a, ndarray):
        return a.get(stream, order, out, blocking)
    return np.asarray(a)


def from_dlpack(array: Any, *, device: Any = None, copy: bool | None = None) -> ndarray:
    if array.__dlpack_device__()[0] != 2:
        raise TypeError(
            "CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack("
            "input))` instead."
        )
    capsule = array.__dlpack__(stream=DEVICE.current().ptr or 1)
    if not isinstance(capsule, _Capsule):
        raise TypeError(f"the stand-in takes its own arrays' DLPack alone, got {capsule!r}")
    whole = capsule.array
    return ndarray._over(whole._mem, whole._array)


def get_array_module(*args: Any) -> ModuleType:
    return module if any(isinstance(arg, ndarray) for arg in args) else np


def _from_interface(interface: dict[str, Any]) -> ndarray:
    kind, shape = np.dtype(interface["typestr"]), interface["shape"]
    strides = interface.get("strides")
    pointer = MemoryPointer(None, interface["data"][0])
    if 0 in shape:
        return empty(shape, kind)
    return ndarray(shape, kind, pointer, strides)


# ---- memory ----


class MemoryPool:
    """CuPy's, without a reserve."""

    def malloc(self, size: int) -> MemoryPointer:
        return MemoryPointer(_take(size))

    def used_bytes(self) -> int:
        return DEVICE.used_bytes()

    def total_bytes(self) -> int:
        return DEVICE.used_bytes()

    def free_bytes(self) -> int:
        return 0

    def n_free_blocks(self) -> int:
        return 0

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        """Nothing is kept."""

    def get_limit(self) -> int:
        return 0


_pool = MemoryPool()
_pinned: dict[int, int] = {}


def alloc_pinned_memory(size: int) -> Any:
    """Host memory that the device reads and writes by itself, when its turn comes."""
    DEVICE.refuse_in_capture("taking pinned memory")
    kind = ctypes.c_ubyte * size
    memory = type("PinnedMemoryPointer", (kind,), {
        "ptr": property(ctypes.addressof), "size": lambda self: size,
        "__del__": lambda self: _pinned.pop(ctypes.addressof(self), None),
    })()  # fmt: skip
    memory[:] = np.full(size // 8 + 1, POISON[8]).tobytes()[:size]
    _pinned[memory.ptr] = size
    return memory


def _is_pinned(array: np.ndarray) -> bool:
    first, size = array.ctypes.data, array.nbytes
    return any(at <= first and first + size <= at + length for at, length in _pinned.items())


# ---- the device, its runtime and its driver ----


class Device:
    """CuPy's Device."""

    def __init__(self, device: Any = None):
        self.id = 0 if device is None else int(device)

    compute_capability = COMPUTE_CAPABILITY

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "MultiProcessorCount": MULTIPROCESSORS,
            "MaxSharedMemoryPerBlock": MOST_SHARED_UNASKED,
            "MaxSharedMemoryPerBlockOptin": compiling.MOST_SHARED,
            "MaxSharedMemoryPerMultiprocessor": _SHARED_A_MULTIPROCESSOR,
            "MaxThreadsPerMultiProcessor": _THREADS_A_MULTIPROCESSOR,
            "CooperativeLaunch": 1,
            "WarpSize": 32,
            "L2CacheSize": 50 << 20,
        }

    @property
    def mem_info(self) -> tuple[int, int]:
        return _memory_info()

    @property
    def cublas_handle(self) -> int:
        return Cublas.HANDLE

    def synchronize(self) -> None:
        DEVICE.synchronize()

    def use(self) -> Device:
        _check_device(self.id)
        return self

    def __enter__(self) -> Device:
        return self.use()

    def __exit__(self, *_: object) -> None:
        """There is one device."""

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id


def _check_device(number: int) -> None:
    if not 0 <= number < _device_count():
        raise CUDARuntimeError("cudaErrorInvalidDevice", "invalid device ordinal")


def _device_count() -> int:
    if DEVICE.count is None:
        raise CUDARuntimeError(
            "cudaErrorInsufficientDriver",
            "CUDA driver version is insufficient for CUDA runtime version",
        )
    if DEVICE.count == 0:
        raise CUDARuntimeError("cudaErrorNoDevice", "no CUDA-capable device is detected")
    return DEVICE.count


def _memory_info() -> tuple[int, int]:
    return DEVICE.total_bytes - DEVICE.used_bytes(), DEVICE.total_bytes


def _properties(number: int) -> dict[str, Any]:
    _check_device(number)
    return {
        "name": b"stand-in",
        "major": int(COMPUTE_CAPABILITY[:-1]),
        "minor": int(COMPUTE_CAPABILITY[-1]),
        "multiProcessorCount": MULTIPROCESSORS,
        "totalGlobalMem": DEVICE.total_bytes,
        "sharedMemPerBlockOptin": compiling.MOST_SHARED,
        "maxThreadsPerMultiProcessor": _THREADS_A_MULTIPROCESSOR,
        "l2CacheSize": 50 << 20,
        "clockRate": 1_000_000,
        "memoryClockRate": 1_000_000,
        "memoryBusWidth": 1024,
    }


_HOST_TO_DEVICE, _DEVICE_TO_HOST, _DEVICE_TO_DEVICE = 1, 2, 3


def _host_bytes(address: int, size: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))


def _memcpy_async(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    if kind not in (_HOST_TO_DEVICE, _DEVICE_TO_HOST, _DEVICE_TO_DEVICE):
        raise CUDARuntimeError("cudaErrorInvalidMemcpyDirection", f"kind {kind}")
    allocations = []

    def side(address: int, on_host: bool) -> np.ndarray:
        if on_host:
            return _host_bytes(address, size)
        allocation, memory = DEVICE.memory_at(address, size, "memcpyAsync")
        allocations.append(allocation)
        return memory

    target = side(dst, kind == _DEVICE_TO_HOST)
    source = side(src, kind == _HOST_TO_DEVICE)
    pinned = all(
        map(_is_pinned, [a for a in (source, target) if not DEVICE.owner(a.ctypes.data, 1)])
    )
    if not pinned:
        DEVICE.refuse_in_capture("memcpyAsync of memory that is not pinned")
        source = source.copy() if kind == _HOST_TO_DEVICE else source
    queue = DEVICE.queue_at(stream)
    queue.put(work_on("memcpyAsync", lambda: np.copyto(target, source), allocations))
    if not pinned and kind == _DEVICE_TO_HOST:
        queue.finish()


def _memcpy(dst: int, src: int, size: int, kind: int) -> None:
    DEVICE.refuse_in_capture("memcpy")
    _memcpy_async(dst, src, size, kind, 0)
    DEVICE.null.finish()


def _memset_async(ptr: int, value: int, size: int, stream: int) -> None:
    allocation, memory = DEVICE.memory_at(ptr, size, "memsetAsync")
    DEVICE.queue_at(stream).put(
        work_on("memsetAsync", lambda: memory.fill(value & 0xFF), [allocation])
    )


def _stream_synchronize(stream: int) -> None:
    DEVICE.refuse_in_capture("streamSynchronize")
    DEVICE.queue_at(stream).finish()


# ---- kernels ----


class Function:
    """CuPy's Function: a kernel of a loaded module."""

    _known: ClassVar[dict[int, Function]] = {}
    _addresses = itertools.count(0x7000, 16)

    def __init__(self, kernel: compiling.Kernel, module: Module):
        self._kernel, self._module = kernel, module
        self.ptr = next(Function._addresses)
        self.most_shared = MOST_SHARED_UNASKED
        Function._known[self.ptr] = self

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared_mem: int = 0,
        stream: Stream | None = None,
        enable_cooperative_groups: bool = False,
    ) -> None:
        """Check everything now, run when the stream's turn comes."""
        kernel = self._kernel
        kernel.check_arguments([_type(argument) for argument in args])
        kernel.check_shape(grid, block, shared_mem)
        if shared_mem > self.most_shared:
            raise CUDADriverError(
                "CUDA_ERROR_INVALID_VALUE",
                f"kernel {kernel.name} asks for {shared_mem} bytes of shared memory, which "
                f"funcSetAttribute has not raised from {self.most_shared}",
            )
        resident = MULTIPROCESSORS * _resident(self, int(np.prod(block)), shared_mem)
        if enable_cooperative_groups and int(np.prod(grid)) > resident:
            raise CUDADriverError(
                "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
                f"kernel {kernel.name}: {grid} blocks, of which {resident} can be resident",
            )
        arrays = [argument for argument in args if isinstance(argument, ndarray)]
        values = [np.uint64(a.data.ptr) if isinstance(a, ndarray) else a for a in args]

        def run() -> None:
            kernel.run(grid, block, values, shared_mem, cooperative=enable_cooperative_groups)

        (stream or DEVICE.current()).queue.put(
            work_on(f"kernel {kernel.name}", run, [a._mem for a in arrays])
        )


def _type(argument: Any) -> str:
    if isinstance(argument, ndarray):
        return compiling.pointer_to(argument.dtype)
    if isinstance(argument, np.ndarray):
        return "a NumPy array, which lies in host memory"
    return compiling.spelt_type(argument)


class Module:
    """CuPy's Module: a loaded binary."""

    def __init__(self) -> None:
        self._library: compiling.Library | None = None

    def load(self, cubin: bytes) -> None:
        DEVICE.refuse_in_capture("Module.load")
        if not isinstance(cubin, bytes):
            raise TypeError(f"cubin must be bytes, got {type(cubin)}")
        try:
            self._library = compiling.load_binary(cubin)
        except compiling.CompileError as error:
            raise CUDADriverError("CUDA_ERROR_INVALID_IMAGE", str(error)) from None

    def get_function(self, name: str) -> Function:
        kernels = self._library.kernels if self._library else {}
        if name not in kernels:
            raise CUDADriverError("CUDA_ERROR_NOT_FOUND", f"named symbol not found: {name}")
        return Function(kernels[name], self)


_MAX_DYNAMIC_SHARED = 8


def _function(ptr: int) -> Function:
    if ptr not in Function._known:
        raise CUDADriverError("CUDA_ERROR_INVALID_HANDLE", f"no function at {ptr:#x}")
    return Function._known[ptr]


def _set_attribute(f: int, attribute: int, value: int) -> None:
    function = _function(f)
    if attribute != _MAX_DYNAMIC_SHARED or not 0 <= value <= compiling.MOST_SHARED:
        raise CUDADriverError(
            "CUDA_ERROR_INVALID_VALUE", f"attribute {attribute} cannot be {value}"
        )
    function.most_shared = value


def _resident(function: Function, block_size: int, shared: int) -> int:
    """Blocks of a kernel that fit a multiprocessor (registers are not known here)."""
    by_shared = _SHARED_A_MULTIPROCESSOR // (shared + 1024)
    return min(_THREADS_A_MULTIPROCESSOR // (-(-block_size // 32) * 32), by_shared, 32)


# ---- the compiler ----


class _Programs:
    """NVRTC's calls: programs by handle."""

    ARCHITECTURES = (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121)

    def __init__(self) -> None:
        self._sources: dict[int, str] = {}
        self._logs: dict[int, str] = {}
        self._binaries: dict[int, bytes] = {}
        self._handles = itertools.count(1)

    def create(self, src: str, name: str, headers: Any, include_names: Any) -> int:
        if headers or include_names:
            raise NVRTCError("NVRTC_ERROR_INVALID_INPUT", "the stand-in includes nothing")
        handle = next(self._handles)
        self._sources[handle] = src
        return handle

    def compile(self, prog: int, options: Sequence[str] = ()) -> None:
        source = self._of(self._sources, prog)
        known = {"--std=c++17", "--fmad=false", "-default-device", "--ptxas-options=-v"}
        architectures = {f"--gpu-architecture=sm_{number}" for number in self.ARCHITECTURES}
        for option in options:
            if option not in known | architectures:
                raise NVRTCError("NVRTC_ERROR_INVALID_OPTION", option)
        try:
            self._binaries[prog] = compiling.build(source).read_bytes()
            self._logs[prog] = ""
        except compiling.CompileError as error:
            self._logs[prog] = str(error)
            raise NVRTCError("NVRTC_ERROR_COMPILATION", str(error)) from None

    def binary(self, prog: int) -> bytes:
        return self._of(self._binaries, prog)

    def log(self, prog: int) -> str:
        return self._of(self._logs, prog)

    def destroy(self, prog: int) -> None:
        self._of(self._sources, prog)
        for kept in (self._sources, self._logs, self._binaries):
            kept.pop(prog, None)

    @staticmethod
    def _of(kept: dict[int, Any], prog: int) -> Any:
        if prog not in kept:
            raise NVRTCError("NVRTC_ERROR_INVALID_PROGRAM", f"program {prog}")
        return kept[prog]


# ---- the modules ----


def _module(name: str, **names: Any) -> ModuleType:
    made = ModuleType(name, "Stands in for CuPy; see tests/cuda/standin.py.")
    vars(made).update(names)
    return made


def _missing(name: str) -> Callable[[str], Any]:
    def __getattr__(attribute: str) -> Any:
        raise AttributeError(f"the stand-in for {name} has no {attribute!r}")

    return __getattr__


_programs = _Programs()
cublas_library = Cublas()
"""What stands in for the library of cuBLAS itself, as ctypes would load it."""

runtime = _module(
    "cupy.cuda.runtime",
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=_device_count,
    getDevice=lambda: 0,
    setDevice=_check_device,
    getDeviceProperties=_properties,
    memGetInfo=_memory_info,
    memcpyAsync=_memcpy_async,
    memcpy=_memcpy,
    memsetAsync=_memset_async,
    deviceSynchronize=DEVICE.synchronize,
    streamSynchronize=_stream_synchronize,
    streamIsCapturing=lambda stream: DEVICE.queue_at(stream).capture is not None,
    driverGetVersion=lambda: 0 if DEVICE.count is None else 13_000,
    runtimeGetVersion=lambda: 13_000,
    memcpyHostToHost=0,
    memcpyHostToDevice=_HOST_TO_DEVICE,
    memcpyDeviceToHost=_DEVICE_TO_HOST,
    memcpyDeviceToDevice=_DEVICE_TO_DEVICE,
    streamCaptureModeGlobal=0,
    streamCaptureModeThreadLocal=1,
    streamCaptureModeRelaxed=2,
    is_hip=False,
)
driver = _module(
    "cupy.cuda.driver",
    CUDADriverError=CUDADriverError,
    funcSetAttribute=_set_attribute,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=_MAX_DYNAMIC_SHARED,
    occupancyMaxActiveBlocksPerMultiprocessor=lambda func, blockSize, dynamicSMemSize: _resident(
        _function(func), blockSize, dynamicSMemSize
    ),
)
nvrtc = _module(
    "cupy.cuda.nvrtc",
    NVRTCError=NVRTCError,
    createProgram=_programs.create,
    compileProgram=_programs.compile,
    getCUBIN=_programs.binary,
    getProgramLog=_programs.log,
    destroyProgram=_programs.destroy,
    # a cache of binaries by version holds nothing that another shim made
    getVersion=lambda: (13, compiling.shim_version()),
    getSupportedArchs=lambda: _Programs.ARCHITECTURES,
)
cuda = _module(
    "cupy.cuda",
    Device=Device,
    Stream=Stream,
    Event=Event,
    Graph=Graph,
    MemoryPool=MemoryPool,
    MemoryPointer=MemoryPointer,
    Function=Function,
    Module=Module,
    alloc=_pool.malloc,
    alloc_pinned_memory=alloc_pinned_memory,
    get_current_stream=DEVICE.current,
    get_elapsed_time=lambda start, end: start.milliseconds_until(end),
    get_device_id=lambda: 0,
    get_cublas_handle=lambda: Cublas.HANDLE,
    is_available=lambda: DEVICE.count is not None and DEVICE.count > 0,
    runtime=runtime,
    driver=driver,
    nvrtc=nvrtc,
    cublas=_module("cupy.cuda.cublas", **cublas_library.cupy_functions()),
    function=_module("cupy.cuda.function", Function=Function, Module=Module),
    stream=_module("cupy.cuda.stream", Stream=Stream, Event=Event),
    graph=_module("cupy.cuda.graph", Graph=Graph),
    memory=_module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError, MemoryPool=MemoryPool),
    device=_module("cupy.cuda.device", Device=Device, get_cublas_handle=lambda: Cublas.HANDLE),
)
module = _module(
    "cupy",
    __version__="14.2.0",
    cuda=cuda,
    ndarray=ndarray,
    newaxis=None,
    get_default_memory_pool=lambda: _pool,
    **{f.__name__: f for f in (
        empty, full, zeros, ones, empty_like, zeros_like, ones_like, full_like, arange, asarray,
        array, ascontiguousarray, asnumpy, from_dlpack, get_array_module,
    )},
    **{name: getattr(np, name) for name in (
        "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float32", "float64", "dtype",
    )},
)  # fmt: skip
_MODULES = {
    made.__name__: made
    for made in (module, cuda, *(m for m in vars(cuda).values() if isinstance(m, ModuleType)))
}
_MODULES["cupy_backends.cuda.libs.cublas"] = cuda.cublas
for _name, _made in _MODULES.items():
    _made.__getattr__ = _missing(_name)  # type: ignore[method-assign]


@contextmanager
def install(*, devices: int | None = 1, total_bytes: int = 1 << 34) -> Iterator[ModuleType]:
    """Stand in for CuPy meanwhile.

    Parameters
    ----------
    devices : int or None
        How many the driver knows; None where there is no driver. Default: 1.
    total_bytes : int
        The device's memory. Default: 16 GiB.

    Yields
    ------
    module
        What ``import cupy`` gives.

    Raises
    ------
    KernelError
        On leaving: something was written beside an array or to freed memory, or a capture was
        begun and not ended.
    """
    before = {name: sys.modules.get(name) for name in _MODULES}
    sys.modules.update(_MODULES)
    DEVICE.count, DEVICE.total_bytes = devices, total_bytes
    try:
        yield module
        DEVICE.close()
    finally:
        DEVICE.forget()
        for name, was in before.items():
            if was is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = was
