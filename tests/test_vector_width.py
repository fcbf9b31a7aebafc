"""The kernels cut down to narrower vectors, as on a CPU that has no wider ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastnn.kernels.numba_backend.machine import target

HERE = Path(__file__).parent
WIDTHS = (256, 128)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, tuple]]:
    """By width: the tests of the kernels in a process of its own, all at once, and its output.

    The width is the compiled kernels' alone, so the other backends' tests are left out.
    """
    files = [str(HERE / name) for name in ("test_operations.py", "test_plans.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-k", "not numpy and not cupy", *files]
    started = {}
    try:
        for bits in (bits for bits in WIDTHS if bits <= target().vector_bits):
            output = tmp_path_factory.mktemp("width") / "output"
            with output.open("w") as file:
                process = subprocess.Popen(
                    command,
                    cwd=HERE.parent,
                    env={**os.environ, "FASTNN_VECTOR_BITS": str(bits)},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            started[bits] = process, output
        yield started
    finally:
        for process, _ in started.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize("bits", WIDTHS)
def test_kernels_at_width(bits: int, runs: dict[int, tuple]) -> None:
    if bits not in runs:
        pytest.skip(f"this CPU has no vectors of {bits} bits")
    process, output = runs[bits]
    code = process.wait(timeout=180)
    assert code == 0, output.read_text()[-6000:]
    assert " passed" in output.read_text()
