"""The seam to CuPy: kernels compiled, kept and launched; streams, graphs, arrays of a device."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from .. import cache
from .calls import THREADS, Call
from .cublas import Cublas, load

_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_SHARED_WITHOUT_ASKING = 48 * 1024
_OLDEST = 80
"""The compute capability, ten times, from which devices copy asynchronously into block memory."""
_OPTIONS = ("--std=c++17", "--fmad=false", "-default-device")
"""No contraction: formulas say where they fuse."""


class Work(Protocol):
    """Something that runs on the device: a call, or a product of cuBLAS."""

    def prepare(self, device: Device) -> None:
        """Compile and load whatever :meth:`launch` needs."""

    def launch(self, device: Device) -> None:
        """Put it on the current stream."""


class Device:
    """A GPU, through CuPy.

    Parameters
    ----------
    cupy : module

    Raises
    ------
    RuntimeError
        Without a driver, a device, or one that is new enough; the message says which.
    """

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        _check(cupy)
        device = cupy.cuda.Device()
        capability = int(device.compute_capability)
        if capability < _OLDEST:
            raise RuntimeError(
                f"the device has compute capability {capability / 10}; expected {_OLDEST / 10} or "
                "newer"
            )
        self._id = device.id
        self.processors = int(device.attributes["MultiProcessorCount"])
        self.block_memory = int(device.attributes["MaxSharedMemoryPerBlockOptin"])
        self.architecture = f"sm_{capability}"
        self._functions: dict[tuple[int, str], Any] = {}
        self._functions_of: dict[Hashable, Callable[..., None]] = {}
        self._modules: list[Any] = []
        self._cublas: Cublas | None = None

    # -- kernels --

    def prepare(self, works: Iterable[Work]) -> None:
        """Compile and load every kernel: nothing may be loaded while a stream is captured."""
        for work in works:
            work.prepare(self)

    def function(self, source: str, shared: int) -> Callable[..., None]:
        """The function ``kernel`` of a source, allowed so many bytes of block memory."""
        key = shared, source
        if key not in self._functions:
            module = self.cupy.cuda.function.Module()
            module.load(self._binary(source))
            function = module.get_function("kernel")
            if shared > _SHARED_WITHOUT_ASKING:
                self.cupy.cuda.driver.funcSetAttribute(function.ptr, _MAX_DYNAMIC_SHARED, shared)
            self._functions[key] = function
            self._modules.append(module)  # the code lives as long as its module
        return self._functions[key]

    def launch(self, call: Call) -> None:
        """Put a call on the current stream, as a kernel of its own."""
        function = self.function_of(call)
        function((call.grid,), (THREADS,), call.values(), shared_mem=call.shared)

    def function_of(self, call: Call) -> Callable[..., None]:
        """The function of a call, by what its text depends on: that is long to write."""
        key = call.signature()
        if key not in self._functions_of:
            self._functions_of[key] = self.function(call.source(), call.shared)
        return self._functions_of[key]

    def _binary(self, source: str) -> bytes:
        nvrtc = self.cupy.cuda.nvrtc
        what = "\0".join((source, self.architecture, str(nvrtc.getVersion()), *_OPTIONS))
        name = f"{hashlib.sha256(what.encode()).hexdigest()}.cubin"
        binary = cache.read(name)
        if binary is None:
            binary = self._compile(source)
            cache.write(name, binary)
        return binary

    def _compile(self, source: str) -> bytes:
        nvrtc = self.cupy.cuda.nvrtc
        program = nvrtc.createProgram(source, "kernel.cu", (), ())
        try:
            nvrtc.compileProgram(program, (f"--gpu-architecture={self.architecture}", *_OPTIONS))
            return nvrtc.getCUBIN(program)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise RuntimeError(f"a CUDA kernel does not compile: {error}\n{log}") from error
        finally:
            nvrtc.destroyProgram(program)

    def cublas(self) -> Cublas:
        """cuBLAS, loaded on first use."""
        if self._cublas is None:
            self._cublas = Cublas(self.cupy, load(self.cupy))
        return self._cublas

    # -- arrays --

    def is_array(self, array: Any) -> bool:
        """Whether it lies on the device, as an array of CuPy."""
        return isinstance(array, self.cupy.ndarray)

    def array(self, values: Any, dtype: Any = None) -> Any:
        """An array on the device, C-contiguous: itself if it is one, else a copy."""
        if self.is_array(values):
            return self.cupy.ascontiguousarray(values, dtype)
        values = np.ascontiguousarray(values, dtype)
        # cupy.asarray would pin as much memory of the host, and keep it
        there = self.empty(values.shape, values.dtype)
        there.set(values)
        return there

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Memory of the host that the device can copy from by itself."""
        count, kind = int(np.prod(shape)), np.dtype(dtype)
        memory = self.cupy.cuda.alloc_pinned_memory(max(1, count) * kind.itemsize)
        return np.frombuffer(memory, kind, count).reshape(shape)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Memory from CuPy's pool, holding anything."""
        return self.cupy.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """The same, holding zeros."""
        return self.cupy.zeros(shape, dtype)

    def free_bytes(self) -> int:
        """Memory that could still be taken, CuPy's own reserve included."""
        pool = self.cupy.get_default_memory_pool()
        return int(self.cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())

    # -- streams --

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Work on this device, whichever is the thread's current one."""
        with self.cupy.cuda.Device(self._id):
            yield

    @contextlib.contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """Work on a stream of our own, after what the caller's current stream has been given."""
        caller = self.cupy.cuda.get_current_stream()
        stream.wait_event(caller.record())
        with stream:
            yield

    def stream(self) -> Any:
        """A stream that others do not wait for: only such a one can be captured."""
        return self.cupy.cuda.Stream(non_blocking=True)

    def capture(self, stream: Any, works: Iterable[Work]) -> Any:
        """A graph of works that are prepared, in order; ``stream`` is the current one."""
        stream.begin_capture()
        try:
            for work in works:
                work.launch(self)
        finally:
            graph = stream.end_capture()
        return graph


def _check(cupy: Any) -> None:
    """Raise RuntimeError unless there is a driver and a device."""
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise RuntimeError(f"no NVIDIA driver or device answers: {error}") from error
    if count == 0:
        raise RuntimeError("the NVIDIA driver knows no device")
