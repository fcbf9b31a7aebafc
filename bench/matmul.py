"""Square products of ours beside NumPy's BLAS at each of its settings, and the multiply-add peak.

``python -m bench.matmul`` runs a process for each number of threads and each set of BLAS kernels,
which OpenBLAS chooses when NumPy is imported. In it ours, NumPy's and a tile that stands still in
the nearest cache take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastnn
import fastnn.functional as F
from fastnn.kernels.numba_backend import machine

from .processes import CHECKOUT
from .roofline import peak

SIZE = 1024
KERNELS = {"as it configures itself": "", "AVX-512": "SkylakeX"}
"""What OPENBLAS_CORETYPE says; the second on a CPU that has them."""
_CALLS = 4


def measure(size: int, threads: int, rounds: int) -> dict[str, list[float]]:
    """GF/s of ours and of NumPy in turn, a number a round; of the peak, the fastest of all."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    ours, theirs = np.empty_like(a), np.empty_like(a)
    fastnn.set_num_threads(threads)
    works: dict[str, Callable[[], Any]] = {
        "fastnn": lambda: F.matmul(a, b, out=ours),
        "numpy": lambda: np.matmul(a, b, out=theirs),
    }
    for work in works.values():
        work()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * size)
    found: dict[str, list[float]] = {name: [] for name in works}
    tops = []
    for _ in range(rounds):
        tops.append(peak("float32", threads) / 1e9)
        for name, work in works.items():
            begun = time.perf_counter()
            for _ in range(_CALLS):
                work()
            seconds = (time.perf_counter() - begun) / _CALLS
            found[name].append(2 * size**3 / seconds / 1e9)
    return found | {"peak": [max(tops)]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each setting in a process of its own, and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.matmul", description=__doc__)
    parser.add_argument("--size", type=int, default=SIZE, help="rows (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.threads:
        print(json.dumps(measure(options.size, options.threads, options.rounds)))
        return
    print(f"GF/s at {options.size} cubed, float32: median (most); percent of the peak")
    for threads in sorted({1, fastnn.get_num_threads()}):
        for kernels, core in KERNELS.items():
            if core and machine.target().vector_bits < 512:
                continue
            found = _in_a_process(options, threads, core)
            print(line(f"{threads} threads, BLAS {kernels}", found))


def line(title: str, found: dict[str, list[float]]) -> str:
    """A line of the table."""
    top = found["peak"][0]
    cells = [
        f"{name} {statistics.median(found[name]):6.1f} ({max(found[name]):.1f}) "
        f"{100 * statistics.median(found[name]) / top:5.1f} %"
        for name in ("fastnn", "numpy")
    ]
    return f"{title:<42}{'   '.join(cells)}   peak {top:.1f}"


def _in_a_process(options: argparse.Namespace, threads: int, core: str) -> dict[str, list[float]]:
    environment = {"OPENBLAS_NUM_THREADS": str(threads)}
    if core:
        environment["OPENBLAS_CORETYPE"] = core
    command = [sys.executable, "-m", "bench.matmul", "--threads", str(threads)]
    command += ["--size", str(options.size), "--rounds", str(options.rounds)]
    answer = subprocess.run(
        command, env=os.environ | environment, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE
    )
    return json.loads(answer.stdout)


if __name__ == "__main__":
    main()
