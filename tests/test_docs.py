"""Every example of the pages in docs/ runs and prints what it says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import fastnn.functional

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINK = re.compile(r"\]\(#([^)]+)\)")

pytestmark = pytest.mark.skipif(not PAGES, reason="reads files of the checkout")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path) -> None:
    pytest.importorskip("sklearn")
    result = doctest.testfile(
        str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_is_an_example(page: Path) -> None:
    fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences[::2]) == {"pycon"} and set(fences[1::2]) == {""}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_a_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    titles = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    assert set(LINK.findall(text)) <= titles


def test_swap_in_names_functions_that_exist() -> None:
    text = (DOCS / "swap-in.md").read_text(encoding="utf-8")
    part = text.split("`fastnn.functional` has the kernels")[1].split("```")[0]
    names = set(re.findall(r"`(\w+)`", part))
    assert names and all(hasattr(fastnn.functional, name) for name in names)
