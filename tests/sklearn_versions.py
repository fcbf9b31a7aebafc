"""The estimators under every scikit-learn that they are made for, a virtual environment each.

``python -m tests.sklearn_versions`` installs the newest patch of each version and this checkout
into a temporary folder, runs the tests of fastnn.sklearn, among them scikit-learn's own under the
patch, and prints a line a version. It needs an index of packages, and minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
VERSIONS = ("1.5", "1.6", "1.7", "1.8", "1.9")
TOOLS = ("pytest>=8", "hypothesis>=6.100")


def main(arguments: Sequence[str] | None = None) -> None:
    """Install, test, print; status 1 if a version fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sklearn_versions", description=__doc__)
    parser.add_argument("versions", nargs="*", default=VERSIONS, help=" ".join(VERSIONS))
    parser.add_argument("--folder", type=Path, help="keep the environments here for another time")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fastnn_") as temporary:
        folder = options.folder or Path(temporary)
        passed = [outcome(version, folder / version) for version in options.versions]
    sys.exit(not all(passed))


def outcome(version: str, environment: Path) -> bool:
    """Whether the tests pass under a version; prints how."""
    python = installed(version, environment)
    packages = "import sklearn, numpy; print(sklearn.__version__, 'numpy', numpy.__version__)"
    title = run(python, "-c", packages).stdout.strip()
    tests = sorted(map(str, (CHECKOUT / "tests").glob("test_sklearn*.py")))
    done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    last = done.stdout.strip().splitlines()[-1:] or [done.stderr[-500:]]
    print("\n  ".join([f"scikit-learn {title}: {last[0]}", *failed]), flush=True)
    return done.returncode == 0


def installed(version: str, environment: Path) -> Path:
    """The interpreter of an environment with that scikit-learn and this checkout."""
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(environment, with_pip=True)
    wanted = (f"scikit-learn=={version}.*", *TOOLS, "-e", str(CHECKOUT))
    done = run(python, "-m", "pip", "install", "--quiet", *wanted)
    if done.returncode:
        sys.exit(done.stderr)
    return python


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the interpreter does, in the checkout."""
    return subprocess.run(
        [str(python), *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=1800
    )


if __name__ == "__main__":
    main()
