"""Calls of device functions without a GPU: run under the shim, and judged by ptxas."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastnn.kernels.cupy_backend.calls import THREADS, Call

from .compile import KernelError, load, nvrtc, why_no_gxx, why_no_nvrtc
from .require import require

REGISTERS = 65_536
"""Of a multiprocessor."""
USUAL_SHARED = 48 * 1024
"""Bytes of block memory that a kernel may take unasked."""


def run(*calls: Call) -> None:
    """Make calls one after another, in place; raise unless they give the same bits however run.

    They are run by the blocks that they ask for, by one and by three, and with threads in either
    order.
    """
    require("g++", why_no_gxx())
    arrays = {id(a): a for call in calls for a in call.values() if isinstance(a, np.ndarray)}
    written = [array for array in arrays.values() if array.flags.writeable]
    before = [array.copy() for array in written]
    results = []
    for blocks, order in ((None, "ascending"), (1, "descending"), (3, "ascending")):
        for array, values in zip(written, before, strict=True):
            array[...] = values
        for call in calls:
            grid = (blocks or call.grid,)
            load(call.source()).launch(
                "kernel", grid, (THREADS,), call.values(), call.shared, order=order
            )
        results.append([array.tobytes() for array in written])
    if not results[0] == results[1] == results[2]:
        raise KernelError("the number of blocks, or the order of threads, decides bits")


def judge(calls: Iterable[Call], architecture: str) -> None:
    """Compile calls by NVRTC; raise unless they stay within what a device has, and their dtype."""
    require("nvrtc", why_no_nvrtc())
    for call in calls:
        report = nvrtc(call.source(), architecture)
        assert report.spill_bytes == 0, (call.function, report.log)
        assert report.stack_bytes == 0, (call.function, report.log)
        assert report.registers * THREADS * call.blocks_at_once <= REGISTERS, call.function
        assert report.shared_bytes + call.shared <= USUAL_SHARED, call.function
        if call.dtype == "float32":
            assert ".f64" not in report.ptx, call.function
