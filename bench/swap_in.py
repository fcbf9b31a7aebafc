"""Everything that is swapped in for code of other libraries, beside what it replaces.

``python -m bench.swap_in`` runs the parts one after another, each of which verifies before it
times, prints a table and writes a file: scikit-learn's estimators (``bench.sklearn_grid``), a
network library in NumPy (``bench.numpy_library``), many networks at once (``bench.many``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .peers import RESULTS

PARTS = ("sklearn_grid", "numpy_library", "many")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every part."""
    parser = argparse.ArgumentParser(prog="python -m bench.swap_in", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases of each, in a minute")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (%(default)s)")
    options = parser.parse_args(arguments)
    for part in PARTS:
        print(f"\n== {part}", flush=True)
        file = options.out / f"{part}.json"
        # imported when its turn comes: each needs other libraries
        module = import_module(f".{part}", __package__)
        module.main([*(["--quick"] if options.quick else []), "--out", str(file)])


if __name__ == "__main__":
    main()
