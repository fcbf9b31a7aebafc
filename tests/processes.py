"""Code in a process of its own, for what can be seen only from the beginning of one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def run_python(code: str, **environment: str) -> str:
    """Return what `code` prints in a fresh interpreter that finds fastnn where this one does."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()
