"""The kernels cut down to narrower vectors, as on a CPU that has no wider ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastnn.kernels.numba_backend.machine import target

HERE = Path(__file__).parent


@pytest.mark.parametrize("bits", [256, 128])
def test_kernels_at_width(bits):
    if bits > target().vector_bits:
        pytest.skip(f"this CPU has no vectors of {bits} bits")
    files = [str(HERE / name) for name in ("test_operations.py", "test_plans.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "not numpy", *files]
    result = subprocess.run(
        command,
        cwd=HERE.parent,
        env={**os.environ, "FASTNN_VECTOR_BITS": str(bits)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
