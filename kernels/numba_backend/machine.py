"""What this CPU can do: its vector width, the tiles that fit its registers, the threads it grants.

``FASTNN_VECTOR_BITS`` (512, 256 or 128) cuts the vectors down, which is how the narrower tiles are
tested on a wide machine.
"""

from __future__ import annotations

import functools
import math
import os
import pathlib
import platform
import sys
from dataclasses import dataclass
from typing import NamedTuple

import llvmlite.binding as llvm

from ..contract import MOST_THREADS


class Tile(NamedTuple):
    """The shape of one product tile held in registers."""

    vectors: int
    rows: int


class Target(NamedTuple):
    """The CPU as the code generator sees it."""

    name: str
    features: str
    vector_bits: int

    def lanes(self, dtype: str) -> int:
        """Elements of ``dtype`` ("float32" or "float64") in one vector."""
        return self.vector_bits // (32 if dtype == "float32" else 64)

    def widest(self) -> int:
        """Vectors across the widest tile, which is also the width of a weight panel.

        A tile needs rows * vectors accumulators, ``vectors`` registers for the row of B and one
        for the broadcast element of A: 6x4 takes 29 of the 32 registers of AVX-512 and NEON, 6x2
        takes 15 of the 16 of AVX2 and SSE.
        """
        return 4 if self.registers() == 32 else 2

    def rows(self, vectors: int) -> int:
        """The most rows that a tile ``vectors`` wide can have without spilling."""
        accumulators = self.registers() - vectors - 1
        return min(12, accumulators // vectors // 2 * 2)

    def registers(self) -> int:
        """Vectors that the registers hold."""
        return 32 if self.vector_bits == 512 or is_arm() else 16


def is_arm() -> bool:
    """Whether this is a 64-bit ARM, by either of the names that systems have for it."""
    return platform.machine().lower() in ("aarch64", "arm64")


@functools.cache
def target() -> Target:
    """The target of every compiled kernel in this process.

    Raises
    ------
    RuntimeError
        When the CPU has no fused multiply-add (a product would call a library function for each
        element); ``use_backend("numpy")`` works there.
    ValueError
        When ``FASTNN_VECTOR_BITS`` is none of 512, 256, 128 or more than the CPU has.
    """
    features = llvm.get_host_cpu_features()
    if not is_arm() and not features.get("fma"):
        raise RuntimeError(
            "the numba backend needs a CPU with fused multiply-add (FMA3), and this one has none; "
            'fastnn.use_backend("numpy") works here'
        )
    widest = 128
    if not is_arm():
        widest = 512 if features.get("avx512f") else 256 if features.get("avx2") else 128
    asked = os.environ.get("FASTNN_VECTOR_BITS", str(widest))
    if asked not in ("128", "256", "512") or int(asked) > widest:
        raise ValueError(
            f"FASTNN_VECTOR_BITS is {asked!r}; this CPU takes "
            + ", ".join(bits for bits in ("128", "256", "512") if int(bits) <= widest)
        )
    bits = int(asked)
    if bits < 512:
        for name in [name for name in features if name.startswith("avx512")]:
            features[name] = False
    return Target(llvm.get_host_cpu_name(), features.flatten(), bits)


@dataclass(frozen=True)
class Threads:
    """How many threads a run may use, and the reason."""

    count: int
    reason: str


def available_threads() -> Threads:
    """Threads granted by ``FASTNN_NUM_THREADS``, else by affinity mask and container quota."""
    asked = os.environ.get("FASTNN_NUM_THREADS")
    if asked is not None:
        if not asked.isdecimal() or not 1 <= int(asked) <= MOST_THREADS:
            raise ValueError(
                f"FASTNN_NUM_THREADS is {asked!r}; expected a whole number from 1 to {MOST_THREADS}"
            )
        return Threads(int(asked), "FASTNN_NUM_THREADS")
    return granted_cores()


def granted_cores() -> Threads:
    """A thread for each core that this process may run on at once."""
    if hasattr(os, "sched_getaffinity"):
        cores, reason = len(os.sched_getaffinity(0)), "cores in the affinity mask"
    else:
        cores, reason = os.cpu_count() or 1, "cores of the machine"
    quota = _container_quota()
    if quota is not None and quota < cores:
        return Threads(quota, "container quota")
    return Threads(cores, reason)


def _container_quota() -> int | None:
    """Whole cores granted by the control group, or None where there is no limit."""
    try:
        limit, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return max(1, math.ceil(int(limit) / int(period)))


def cpu_model() -> str:
    """The CPU's name as the operating system gives it."""
    if sys.platform == "linux":
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
