"""Print the Nth ```bash fence of README.md: ``python .ci/fence.py 2``."""

import re
import sys
from pathlib import Path

FENCE = re.compile(r"^```(?P<language>\S*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def fence(number: int) -> str:
    """The body of the README's fence, counted from 1, which must be bash."""
    readme = Path(__file__).parent.parent / "README.md"
    fences = list(FENCE.finditer(readme.read_text(encoding="utf-8")))
    if len(fences) < number or fences[number - 1]["language"] != "bash":
        raise SystemExit(f"fence {number} of {readme} is not a ```bash fence")
    return fences[number - 1]["body"]


if __name__ == "__main__":
    print(fence(int(sys.argv[1])), end="")
