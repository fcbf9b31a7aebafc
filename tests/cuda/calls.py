"""Calls of device functions without a GPU: run under the shim, and judged by ptxas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from fastnn.kernels.cupy_backend.calls import THREADS, Call, prelude

from .compile import (
    ARCHITECTURES,
    KernelError,
    Library,
    load,
    nvrtc_each,
    why_no_gxx,
    why_no_nvrtc,
)
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
            library, name = kernel_of(call)
            grid = (blocks or call.grid,)
            library.launch(name, grid, (THREADS,), call.values(), call.shared, order=order)
        results.append([array.tobytes() for array in written])
    if not results[0] == results[1] == results[2]:
        raise KernelError("the number of blocks, or the order of threads, decides bits")


def kernel_of(call: Call) -> tuple[Library, str]:
    """The library, of this call alone or of many, that has its kernel, and the kernel's name."""
    name = _name(call)
    return _compiled.get(name) or load(_together([call])), name


def compile_together(calls: Iterable[Call]) -> None:
    """Compile the kernels of many calls of a dtype; ``run`` finds them.

    That takes a third of the time that one after another would take.
    """
    calls = list(calls)
    library = load(_together(calls))
    _compiled.update(dict.fromkeys(map(_name, calls), library))


_compiled: dict[str, Library] = {}


def _name(call: Call) -> str:
    return f"kernel_{hashlib.sha256(call.source().encode()).hexdigest()[:16]}"


def _together(calls: Iterable[Call]) -> str:
    """The source of the kernels of several calls of one dtype."""
    named = {_name(call): call for call in calls}
    (dtype,) = {call.dtype for call in named.values()}
    files = dict.fromkeys(file for call in named.values() for file in call.files)
    formulas = dict.fromkeys(call.formulas for call in named.values())
    before = prelude(dtype, tuple(files), tuple(formulas))
    return "\n".join([before, *(call.kernel(name) for name, call in named.items())])


def judge(calls: Iterable[Call], architectures: Sequence[str] = ARCHITECTURES) -> None:
    """Compile calls by NVRTC; raise unless they stay within what a device has, and their dtype."""
    require("nvrtc", why_no_nvrtc())
    alike: dict[tuple[str, int], list[Call]] = {}
    for call in calls:
        alike.setdefault((call.dtype, call.blocks_at_once), []).append(call)
    for (dtype, at_once), group in alike.items():
        for report in nvrtc_each(_together(group), architectures):
            assert report.spill_bytes == 0, report.log
            assert report.stack_bytes == 0, report.log
            assert report.registers * THREADS * at_once <= REGISTERS, report.log
            assert report.shared_bytes + max(call.shared for call in group) <= USUAL_SHARED
            if dtype == "float32":
                assert ".f64" not in report.ptx
