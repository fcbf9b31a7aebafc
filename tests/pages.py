"""The pages of Markdown in the checkout: where they are, their prose and their blocks of code."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
DOCS = CHECKOUT / "docs"

FENCE = re.compile(r"^ *```(?P<language>\w*)\n(?P<body>.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)


def fences(page: Path, language: str) -> list[str]:
    """The blocks of code in a language."""
    text = page.read_text(encoding="utf-8")
    return [fence["body"] for fence in FENCE.finditer(text) if fence["language"] == language]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))
