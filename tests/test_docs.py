"""The pages in docs/ and the README: examples run, commands parse, links lead somewhere."""

from __future__ import annotations

import contextlib
import doctest
import functools
import importlib
import importlib.util
import inspect
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pages import CHECKOUT, DOCS, fences, prose

import fastnn.functional
from fastnn import cli, studies
from fastnn.kernels.numba_backend import machine
from fastnn.korean import KOREAN as KOREAN_WORDS
from fastnn.studies import STUDIES

INDEX = DOCS / "README.md"
REFERENCE = DOCS / "api"
KOREAN = DOCS / "ko"
TRANSLATED = sorted({page.name for page in KOREAN.glob("*.md")} - {INDEX.name})
README = CHECKOUT / "README.md"
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.parent != REFERENCE)
WRITTEN = [README, *PAGES]
READ = [*sorted(CHECKOUT.glob("*.md")), *PAGES, *sorted(REFERENCE.glob("*.md"))]
NEEDS = {"getting-started.md": "matplotlib", "concepts.md": "matplotlib", "swap-in.md": "sklearn"}
REFERENCE_NEEDS = {"fastnn.sklearn": "sklearn"}
WITHOUT_EXAMPLE = ("Backend", "EagerWarning", "Results", "Transform", "from_torch")
"""A protocol, a warning, bases that are not made by themselves, and what needs PyTorch."""

COMMAND = re.compile(r"`((?:fastnn|python -m) [^`]+)`")
LINK = re.compile(r"\]\((?P<file>(?!https?:)[^)#\s]*)(?:#(?P<title>[^)\s]+))?\)")
PICTURE = re.compile(r"!\[(?P<text>[^]]*)\]\((?P<file>[^)]+)\)")
MEASUREMENT = re.compile(r"\d+(?:\.\d+(?:e[+-]?\d+)?%?|e[+-]?\d+|%)(?!\d|\sms)")
IN_KOREAN = " --language ko"
INSTALLS = ("python3 -m venv ", ". .venv/bin/activate", "pip install ", "git clone ")

pytestmark = pytest.mark.skipif(not INDEX.exists(), reason="reads files of the checkout")


def _name(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


@functools.cache
def _titles(page: Path) -> set[str]:
    """The anchors that a page's titles have on GitHub."""
    text = prose(page)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


# Code


@pytest.mark.parametrize("page", [page for page in WRITTEN if page.parent != KOREAN], ids=_name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch) -> None:
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(
        str(page),
        module_relative=False,
        encoding="utf-8",
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )
    assert result.failed == 0
    assert bool(result.attempted) == bool(fences(page, "pycon"))
    exec(compile("\n".join(fences(page, "python")), str(page), "exec"), {})


@pytest.mark.parametrize("page", WRITTEN, ids=_name)
def test_every_code_block_is_checked(page: Path) -> None:
    fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences[::2]) <= {"pycon", "python", "bash", "text"}
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("page", WRITTEN, ids=_name)
def test_commands_parse(page: Path, capsys) -> None:
    lines = "".join(fences(page, "bash")).splitlines()
    for line in [*lines, *COMMAND.findall(page.read_text(encoding="utf-8"))]:
        if not line.startswith(INSTALLS):
            _check_command(line)


def _check_command(line: str) -> None:
    """Fail unless a command is one of ``fastnn`` that parses, or a module of the checkout."""
    words = [word for word in shlex.split(line, comments=True) if not word.startswith("FASTNN_")]
    if words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), line
        return
    assert words[0] == "fastnn", line
    try:
        with contextlib.suppress(IndexError):  # `fastnn` alone
            cli._parser().parse_args(words[1:])
    except SystemExit as error:
        assert error.code == 0, line  # --help
    if words[1:2] == ["study"] and not words[2].startswith("-"):
        assert words[2] in (*STUDIES, "all", "NAME"), line


def test_a_wrong_option_is_found(capsys) -> None:
    for line in ("fastnn train --none-such", "fastnn trian", "fastnn study none", "rm -r folder"):
        with pytest.raises(AssertionError):
            _check_command(line)


# Links


@pytest.mark.parametrize("page", READ, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(prose(page)):
        target = (page.parent / link["file"]).resolve() if link["file"] else page
        assert target.exists(), link[0]
        if link["title"]:
            assert link["title"] in _titles(target), link[0]


@functools.cache
def _index() -> list[Path]:
    """The files that the index links, in its order."""
    text = INDEX.read_text(encoding="utf-8")
    return [(DOCS / link["file"]).resolve() for link in LINK.finditer(text) if link["file"]]


def test_the_index_has_every_page() -> None:
    assert {page for page in PAGES if page != INDEX} <= set(_index())


def test_a_page_ends_with_the_next_and_the_previous() -> None:
    pages = [INDEX, *(page for page in _index() if page.parent in (DOCS, REFERENCE))]
    for before, page, following in zip(pages, pages[1:], pages[2:], strict=False):
        last_line = page.read_text(encoding="utf-8").rstrip().splitlines()[-1]
        linked = [(DOCS / link["file"]).resolve() for link in LINK.finditer(last_line)]
        assert linked == [following, before], page.name


# What pages say of the code


def _build_api() -> ModuleType:
    """The program that writes the reference."""
    return importlib.import_module("docs.build_api")


def _public_modules() -> tuple[str, ...]:
    return _build_api().MODULES if INDEX.exists() else ()


@pytest.mark.parametrize("name", _public_modules())
def test_the_reference_is_what_the_docstrings_say(name: str) -> None:
    if name in REFERENCE_NEEDS:
        pytest.importorskip(REFERENCE_NEEDS[name])
    build_api = _build_api()
    now = build_api.page(name)
    assert build_api.file(name).read_text(encoding="utf-8") == now, (
        "python -m docs.build_api writes it anew"
    )


def test_the_reference_has_every_public_name() -> None:
    build_api = _build_api()
    assert {f"fastnn.{name}" for name in fastnn._MODULES} <= set(build_api.MODULES)
    homes = [home for section in build_api.SECTIONS.values() for home in section]
    assert sorted(homes) == sorted(fastnn._NAMES)
    pages = {build_api.file(name) for name in build_api.MODULES}
    assert {*pages, REFERENCE / "README.md"} == set(REFERENCE.glob("*.md"))


def test_the_list_of_pages_is_as_written() -> None:
    pytest.importorskip("sklearn")
    assert (REFERENCE / "README.md").read_text(encoding="utf-8") == _build_api().index()


@pytest.mark.parametrize("name", _public_modules())
def test_docstrings_are_whole(name: str) -> None:
    module = pytest.importorskip(name)
    homes = getattr(module, "_NAMES", None)
    names = " ".join(homes.values()).split() if homes else _build_api().public_names(module)
    lacks = {name: _lacks(getattr(module, name)) for name in names}
    for name in lacks.keys() & {*WITHOUT_EXAMPLE}:
        lacks[name].remove("an example")
    assert {name: what for name, what in lacks.items() if what} == {}


def _lacks(value: Any) -> list[str]:
    """What the docstring of a function or class does not say, be it by a reference to another's."""
    text = inspect.getdoc(value) or ""
    lacks = [] if text.partition("\n\n")[0].count("\n") == 0 else ["a first line"]
    if not re.search("^ *>>> ", text, re.MULTILINE):
        lacks.append("an example")
    if re.search(r"([Ss]ee|those of) :\w+:`", text):
        return lacks
    named = set(re.findall(r"\w+", "\n".join(re.findall(r"^\S.*", text, re.MULTILINE))))
    return lacks + [name for name in _parameters(value) if name not in named]


def _parameters(value: Any) -> list[str]:
    """Names of parameters; none of a class that leaves its making to Python's."""
    made_by = value.__init__ if isinstance(value, type) else value
    is_ours = inspect.isfunction(made_by) and made_by.__module__ != "typing"
    return list(inspect.signature(value).parameters) if is_ours else []


def test_what_a_docstring_lacks_is_found() -> None:
    def function(first: int, second: int) -> None:
        """One line
        and another.

        Parameters
        ----------
        first : int
            Not the second.
        """

    assert _lacks(function) == ["a first line", "an example", "second"]


def test_docstrings_become_markdown() -> None:
    text = """A ``name`` of :class:`Layer`.

    Parameters
    ----------
    x : array (B, I)
        What it is.
    y : int

    >>> 1 + 1  # doctest: +SKIP
    2
    """
    assert _build_api().markdown(text).split("\n\n") == [
        "A `name` of `Layer`.",
        "**Parameters**",
        "- `x` (array (B, I)):\n  What it is.\n- `y` (int)",
        "```pycon\n>>> 1 + 1\n2\n```",
    ]


def test_swap_in_names_functions_that_exist() -> None:
    text = (DOCS / "swap-in.md").read_text(encoding="utf-8")
    part = text.split("`fastnn.functional` has the kernels")[1].split("```")[0]
    names = set(re.findall(r"`(\w+)`", part))
    assert names and all(hasattr(fastnn.functional, name) for name in names)


# Concepts, and Korean


@pytest.mark.parametrize("folder", [DOCS, KOREAN], ids=_name)
@pytest.mark.parametrize("study", STUDIES)
def test_each_study_has_a_section(study: str, folder: Path) -> None:
    sections = re.split(r"^## ", (folder / "concepts.md").read_text(encoding="utf-8"), flags=re.M)
    command = f"fastnn study {study} --out pictures" + IN_KOREAN * (folder == KOREAN)
    (section,) = (s for s in sections[1:] if f"```bash\n{command}\n```" in s)
    if folder == DOCS:
        assert section.startswith(f"{STUDIES[study]}\n")
    pictures = [picture["file"] for picture in PICTURE.finditer(section)]
    assert pictures and all(name.startswith(f"pictures/{study}-") for name in pictures)


def test_pictures_are_shown_and_described() -> None:
    shown = set()
    for page in READ:
        for picture in PICTURE.finditer(prose(page)):
            assert picture["text"], picture[0]
            shown.add((page.parent / picture["file"]).resolve())
    assert {path for path in DOCS.rglob("*.png") if path not in shown} == set()
    assert sum(path.stat().st_size for path in shown) <= 3e6


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_translation_has_all_that_the_original_has(name: str) -> None:
    """Its code too, which runs where the original's does."""
    original, translation = DOCS / name, KOREAN / name
    for language in ("pycon", "python", "bash", "text"):
        code = [block.replace(IN_KOREAN, "") for block in fences(translation, language)]
        assert code == fences(original, language)

    def parts(page: Path) -> dict[str, list[str]]:
        text = prose(page)
        return {
            "titles": re.findall(r"^#+ ", text, re.M),
            "rows": ["|" * line.count("|") for line in text.splitlines() if line[:1] == "|"],
            "pictures": [picture["file"] for picture in PICTURE.finditer(text)],
            "links": sorted(Path(link["file"]).name for link in LINK.finditer(text)),
        }

    assert parts(translation) == parts(original)


def _measurements(text: str) -> set[str]:
    """The numbers in a text that nobody would write by hand, but for milliseconds."""
    return set(MEASUREMENT.findall(text))


def test_concepts_have_the_same_numbers_in_korean() -> None:
    original, translation = (
        [_measurements(section) for section in prose(folder / "concepts.md").split("\n## ")]
        for folder in (DOCS, KOREAN)
    )
    assert original == translation


def test_no_korean_word_hangs_on_how_a_number_is_read() -> None:
    """ "1로" but "0으로": behind a value, only words that have one form for all numbers."""
    two_forms = re.compile(r"\}(은|는|이|가|을|를|과|와|로|으로)(?![가-힣])")
    assert not [text for text in KOREAN_WORDS.values() if two_forms.search(text)]


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_concepts_say_what_the_studies_print(study: str) -> None:
    if machine.target().vector_bits != 512:
        pytest.skip("the page's numbers are those of vectors of 512 bits")
    sections = prose(DOCS / "concepts.md").split("\n## ")
    (section,) = (section for section in sections if section.startswith(STUDIES[study]))
    results = studies.run(study)
    printed = f"{results.summary()} {' '.join(results.findings())}"
    assert _measurements(section) <= _measurements(printed)
