"""Benchmarks, run from a checkout: ``pytest bench --benchmark-only``, ``python -m bench.roofline``.

``tests/reference.py`` and ``tests/checks.py`` judge what is timed here as they judge it there.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
