"""Write the reference, a page for each public module, from the docstrings.

``python -m docs.build_api``, from the checkout's root.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

FOLDER = Path(__file__).parent / "api"
MODULES = (
    "fastnn",
    "fastnn.data",
    "fastnn.augment",
    "fastnn.schedules",
    "fastnn.metrics",
    "fastnn.init",
    "fastnn.functional",
    "fastnn.sklearn",
    "fastnn.compat.scratch",
    "fastnn.studies",
)
SECTIONS = {  # of the page of fastnn itself, by where its names are defined
    "Networks": ("model", "loading", "many"),
    "Layers": ("layers",),
    "Losses": ("losses",),
    "Optimizers": ("optim",),
    "Training": ("history", "early_stopping", "steps", "gradient_check"),
    "Networks of other libraries": ("lifts.arrays", "lifts.scikit_learn", "lifts.pytorch"),
    "Backends and threads": ("backend", "kernels.contract"),
}
_WIDTH = 92
_LISTS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns")
_PROMPT = (">>>", "...")


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name in MODULES:
        file(name).write_text(page(name), encoding="utf-8")
    (FOLDER / "README.md").write_text(index(), encoding="utf-8")


def file(module: str) -> Path:
    """Where a module's page is."""
    return FOLDER / f"{module.removeprefix('fastnn.').replace('.', '-')}.md"


def index() -> str:
    """The page of all modules."""
    lines = [
        f"- [`{name}`]({file(name).name}): {_first_paragraph(import_module(name))}"
        for name in MODULES
    ]
    head = "# Reference\n\nEvery public name, from the docstrings (`python -m docs.build_api`)."
    return f"{head}\n\n" + "\n".join(lines) + "\n\nBefore: [speed](../speed.md)\n"


def page(name: str) -> str:
    """The page of a module."""
    module = import_module(name)
    parts = [f"# {name}", markdown(module.__doc__ or "")]
    if name == "fastnn":
        for title, homes in SECTIONS.items():
            parts.append(f"## {title}")
            for home in homes:
                parts += _entries(module, module._NAMES[home].split(), 3)
    else:
        parts += _entries(module, public_names(module), 2)
    return "\n\n".join([*parts, "[All modules](README.md)"]) + "\n"


def public_names(module: ModuleType) -> list[str]:
    """What a module offers: its ``__all__``, else what it defines or imports ``as`` the same."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    names = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names if alias.asname == alias.name]
    return [name for name in names if not name.startswith("_")]


# Names


def _entries(module: ModuleType, names: Sequence[str], level: int) -> Iterator[str]:
    known = {name: getattr(module, name) for name in names}
    for name, value in known.items():
        yield f"{'#' * level} {name}"
        if isinstance(value, type):
            yield from _class(name, value, known, level + 1)
        else:
            yield _call(name, value)
            yield markdown(value.__doc__ or "")


def _class(name: str, value: type, known: Mapping[str, Any], level: int) -> Iterator[str]:
    if _is_ours(value.__init__):
        yield _call(name, value.__init__, skip=1)
    yield from _kind(value, known)
    yield markdown(value.__doc__ or "")
    for attribute, member in _members(value, known).items():
        skip = 0 if isinstance(member, staticmethod) else 1
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        is_private = attribute.startswith("_") and attribute != "__call__"
        if is_private or not (_is_ours(function) and member.__doc__):
            continue
        yield f"{'#' * level} {name}.{attribute}"
        if not isinstance(member, property):
            yield _call(f"{name}.{attribute}", function, skip)
        yield markdown(member.__doc__)


def _members(value: type, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a class defines, and what it has from bases that have no entry."""
    bases = itertools.takewhile(lambda base: base not in known.values(), value.__mro__[1:])
    private = [base for base in bases if base.__name__.startswith("_")]
    return ChainMap(*map(vars, (value, *private)))


def _kind(value: type, known: Mapping[str, Any]) -> Iterator[str]:
    """What a class is a kind of: the nearest base that has an entry, or an exception's own."""
    for base in value.__mro__[1:-1]:
        if base in known.values() or issubclass(base, Exception):
            yield f"A kind of `{base.__name__}`."
            return


def _is_ours(function: Any) -> bool:
    return isinstance(function, FunctionType) and function.__module__.startswith("fastnn")


def _call(name: str, function: Callable[..., Any], skip: int = 0) -> str:
    """The call in a fence, without types: those are in the docstring."""
    if hasattr(function, "__signature__"):  # made after that of another library's version
        return _fenced("python", [f"{name}(...)"])
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=parameter.empty, default=_shown(parameter.default))
        for parameter in list(signature.parameters.values())[skip:]
    ]
    bare = signature.replace(parameters=parameters, return_annotation=signature.empty)
    lines = textwrap.wrap(f"{name}{bare}", _WIDTH, subsequent_indent="    ")
    return _fenced("python", lines)


class _Dots:
    """A default whose text would not say what it is, say a function."""

    def __repr__(self) -> str:
        return "..."


def _shown(default: Any) -> Any:
    is_plain = default is None or default is inspect.Parameter.empty
    return default if is_plain or isinstance(default, int | float | str | tuple) else _Dots()


# Docstrings


def markdown(docstring: str) -> str:
    """A docstring as Markdown: its sections as lists, its examples in fences."""
    lines = inspect.cleandoc(docstring).splitlines()
    starts = [n for n in range(len(lines) - 1) if set(lines[n + 1]) == {"-"} and lines[n].strip()]
    parts = [_text(lines[: starts[0]] if starts else lines)]
    for start, end in itertools.pairwise([*starts, len(lines)]):
        title, body = lines[start], lines[start + 2 : end]
        examples = next((n for n, line in enumerate(body) if line.startswith(">>>")), len(body))
        is_list = examples if title in _LISTS else 0
        parts += [f"**{title}**", _list(body[:is_list]), _text(body[is_list:])]
    return "\n\n".join(part for part in parts if part)


def _list(lines: list[str]) -> str:
    """Entries, each a line with its description indented below it."""
    result: list[str] = []
    for line in filter(None, lines):
        if line.startswith(" "):
            first = not result[-1].startswith(" ")
            result[-1] += ":" * first
            result.append("  " + _roles(line.strip()))
        else:
            name, _, kind = line.partition(" : ")
            result.append(f"- `{name}`" + (f" ({_roles(kind)})" if kind else ""))
    return "\n".join(result)


def _text(lines: list[str]) -> str:
    """Paragraphs, with examples and indented code in fences."""
    blocks, code = [], False
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        block_lines = block.splitlines()
        prompts = [n for n, line in enumerate(block_lines) if line.strip().startswith(_PROMPT)]
        if code and block.startswith(" "):
            blocks.append(_fenced("python", textwrap.dedent(block).splitlines()))
        elif prompts:
            before, example = block_lines[: prompts[0]], block_lines[prompts[0] :]
            blocks += ["\n".join(map(_roles, before))] if before else []
            blocks.append(_fenced("pycon", map(_without_directive, example)))
        elif block:
            code = block.endswith("::")
            text = "\n".join(map(_roles, block_lines)).replace("::", ":")
            blocks += [text] if text != ":" else []
    return "\n\n".join(blocks)


def _roles(text: str) -> str:
    """Text with reStructuredText's marks of code as Markdown's."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def _without_directive(line: str) -> str:
    return re.sub(r"\s*# doctest: .*$", "", line)


def _fenced(language: str, lines: Iterable[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _first_paragraph(module: ModuleType) -> str:
    paragraph = inspect.cleandoc(module.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    return _roles(paragraph)


if __name__ == "__main__":
    main()
