"""What a CUDA device can do at most, and what it costs to get there."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.kernels.cupy_backend.calls import THREADS
from fastnn.kernels.cupy_backend.device import Device

from .gpu_timing import Figure, Kernel, attempt, in_turn, replay

COPIED_BYTES = 1 << 30
FMA_STEPS = 4096
_FEW_NODES, _MANY_NODES = 100, 300
_FEW_MEETINGS, _MANY_MEETINGS = 100, 1100
_LAUNCHES = 1000
_CHAINS, _UNROLLED = 8, 16
_BLOCKS_A_PROCESSOR = 8
_ON_DEVICE = 3  # cudaMemcpyDeviceToDevice

_EMPTY = "() {}"
_CHAINS_OF_FMA = f"""(real *out, real factor, real term, int count) {{
  real sums[{_CHAINS}];
  for (int chain = 0; chain < {_CHAINS}; ++chain) sums[chain] = real(chain);
  for (int step = 0; step < count; ++step) {{
#pragma unroll
    for (int again = 0; again < {_UNROLLED}; ++again)
#pragma unroll
      for (int chain = 0; chain < {_CHAINS}; ++chain)
        sums[chain] = multiply_add(sums[chain], factor, term);
  }}
  real sum = real(0);
  for (int chain = 0; chain < {_CHAINS}; ++chain) sum += sums[chain];
  out[blockIdx.x * THREADS + threadIdx.x] = sum;
}}"""
_MEETINGS = """(unsigned *arrivals, int count) {
  for (int step = 0; step < count; ++step) grid_barrier(arrivals);
}"""
_SEEN_MEETINGS = """(unsigned *arrivals, int *places, int *early, int count) {
  for (int step = 1; step <= count; ++step) {
    if (threadIdx.x == 0) places[blockIdx.x] = step;
    grid_barrier(arrivals);
    const volatile int *next = places + (blockIdx.x + 1) % gridDim.x;
    if (threadIdx.x == 0 && *next < step) *early = 1;
  }
}"""


def measure(device: Device, rounds: int, quick: bool) -> Iterator[Figure]:
    """Every figure of the machine."""
    parts = {
        "copy, bytes a second": functools.partial(copy_rates, device, rounds),
        "float32 multiply-adds, flops a second": functools.partial(flop_rates, device, rounds),
        "seconds from node to node of a graph": functools.partial(gaps, device, rounds),
        "seconds to launch a kernel": functools.partial(launches, device, rounds),
    }
    for name, part in parts.items():
        yield attempt(part, "machine", name)
    for blocks in meeting_blocks(device, quick):
        part = functools.partial(meetings, device, blocks, rounds)
        yield attempt(part, "machine", "seconds of a grid barrier", str(blocks))


def copy_rates(device: Device, rounds: int) -> list[float]:
    """Bytes read and written a second by a copy on the device."""
    size = COPIED_BYTES
    copy, source, target = copier(device, size)
    source.fill(7)
    found = in_turn({"copy": copy}, device.cupy.cuda.Device().synchronize, rounds)["copy"]
    assert np.all(target[-256:].get() == 7), "the copy is not one"
    return [2 * size / seconds for seconds in found]


def copier(device: Device, size: int) -> tuple[Any, Any, Any]:
    """A function that copies so many bytes on the current stream; what it copies, and whereto."""
    cupy = device.cupy
    source, target = (device.zeros(size, np.uint8) for _ in range(2))

    def copy() -> None:
        stream = cupy.cuda.get_current_stream()
        cupy.cuda.runtime.memcpyAsync(
            target.data.ptr, source.data.ptr, size, _ON_DEVICE, stream.ptr
        )

    return copy, source, target


def flop_rates(device: Device, rounds: int) -> list[float]:
    """Flops a second of chains of multiply-adds in registers."""
    blocks = _BLOCKS_A_PROCESSOR * device.processors
    out = device.zeros(blocks * THREADS, np.float32)
    values = (out, np.float32(1), np.float32(1), np.int32(FMA_STEPS))
    kernel = Kernel(_CHAINS_OF_FMA, values, blocks)
    fmas = _CHAINS * _UNROLLED * FMA_STEPS
    found = _alone(device, {"fma": kernel}, rounds)["fma"]
    expected = sum(range(_CHAINS)) + fmas
    assert np.all(out.get() == expected), "the multiply-adds are not all done"
    return [2 * fmas * out.size / seconds for seconds in found]


def gaps(device: Device, rounds: int) -> list[float]:
    """Seconds that one more empty kernel adds to a graph."""
    kernel = Kernel(_EMPTY, (), 1)
    works = {str(nodes): replay(device, [kernel], nodes) for nodes in (_FEW_NODES, _MANY_NODES)}
    found = in_turn(works, device.cupy.cuda.Device().synchronize, rounds)
    return _slopes(found, _FEW_NODES, _MANY_NODES)


def launches(device: Device, rounds: int) -> list[float]:
    """Seconds of the host to put an empty kernel on a stream."""
    kernel, wait = Kernel(_EMPTY, (), 1), device.cupy.cuda.Device().synchronize
    kernel.launch(device)
    found = []
    for _ in range(rounds):
        wait()
        begun = time.perf_counter()
        for _ in range(_LAUNCHES):
            kernel.launch(device)
        found.append((time.perf_counter() - begun) / _LAUNCHES)
    wait()
    return found


def meeting_blocks(device: Device, quick: bool) -> list[int]:
    """Numbers of blocks whose barrier is measured: one for each processor at most."""
    powers = [1 << power for power in range(device.processors.bit_length())]
    every = sorted({*powers, device.processors})
    return every[:: len(every) // 2] if quick and len(every) > 2 else every


def meetings(device: Device, blocks: int, rounds: int) -> list[float]:
    """Seconds that one more barrier of so many blocks adds to a kernel."""
    arrivals, early = device.zeros(1, np.uint32), device.zeros(1, np.int32)
    places = device.zeros(blocks, np.int32)
    seen = (arrivals, places, early, np.int32(_FEW_MEETINGS))
    files = ("persistent",)
    Kernel(_SEEN_MEETINGS, seen, blocks, files, meets=True).launch(device)
    assert not early.get()[0], "a block went on before another had come"
    kernels = {
        str(count): Kernel(_MEETINGS, (arrivals, np.int32(count)), blocks, files, meets=True)
        for count in (_FEW_MEETINGS, _MANY_MEETINGS)
    }
    return _slopes(_alone(device, kernels, rounds), _FEW_MEETINGS, _MANY_MEETINGS)


def _alone(device: Device, kernels: dict[str, Kernel], rounds: int) -> dict[str, list[float]]:
    works = {name: functools.partial(kernel.launch, device) for name, kernel in kernels.items()}
    return in_turn(works, device.cupy.cuda.Device().synchronize, rounds)


def _slopes(found: dict[str, list[float]], few: int, many: int) -> list[float]:
    """What one more adds, round by round."""
    pairs = zip(found[str(few)], found[str(many)], strict=True)
    return [(long - short) / (many - few) for short, long in pairs]
