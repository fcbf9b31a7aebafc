"""What pages say of the code is so: names, constants, figures."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import statistics
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pages import CHECKOUT, DOCS, fences, prose

import fastnn
from fastnn import backend, layers, optim, schedules
from fastnn.kernels import formulas
from fastnn.kernels.contract import CHUNK_ROWS, FEW_ROWS
from fastnn.kernels.cupy_backend import device, persistent, products
from fastnn.kernels.numba_backend import few_rows, table, translate

PAGES = [
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(page for page in sorted(DOCS.rglob("*.md")) if page.parent.name != "api"),
]
SOURCES = ("fastnn", "kernels", "bench", "examples", "tests/cuda", "docs", "pyproject.toml")

CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"(?<![\w-])(?:[A-Za-z_]\w*|--[a-z][\w-]+)", re.ASCII)
PATH = re.compile(r"(?<![\w./])\.?(?:\w+/)+(?:\w+\.py)?", re.ASCII)
MADE_BY_RUNS = ".benchmarks/"
OTHERS = (
    *("--benchmark-save", "--benchmark-compare", "--benchmark-compare-fail"),
    *("--package", "Convolution", "Pooling", "COLUMN", "species"),
)
"""What other programs and a reader's own files call theirs."""

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="reads files of the checkout")


def _text(page: Path) -> str:
    """A page's words, on one line."""
    return " ".join(page.read_text(encoding="utf-8").split())


# Names


@pytest.fixture(scope="module")
def known_names() -> set[str]:
    """Every word of the sources, and the names of their files."""
    roots = [CHECKOUT / name for name in SOURCES]
    files = [file for root in roots for file in (root.rglob("*.*") if root.is_dir() else [root])]
    texts = [file.read_text("utf-8") for file in files if file.suffix in (".py", ".cu", ".toml")]
    return {*NAME.findall("\n".join(texts)), *(file.stem for file in files), *OTHERS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_stands_as_code_is_in_the_sources(page: Path, known_names: set[str]) -> None:
    pieces = CODE.findall(prose(page))
    paths = {path for piece in pieces for path in PATH.findall(piece)} - {MADE_BY_RUNS}
    assert [path for path in paths if not (CHECKOUT / path).exists()] == []
    names = {name for piece in pieces for name in NAME.findall(PATH.sub("", piece))}
    assert names - known_names == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_modules_are_theirs(page: Path) -> None:
    for module, rest in re.findall(r"python -m (bench\.\w+)([^`\n]*)", page.read_text("utf-8")):
        found = importlib.util.find_spec(module)
        assert found and found.origin, module
        source = Path(found.origin).read_text(encoding="utf-8")
        assert all(f'"{option}"' in source for option in re.findall(r"--[a-z-]+", rest)), rest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_extras_exist(page: Path) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"'(?:\.|fastnn-kernels)\[([\w,]+)\]'", page.read_text("utf-8")):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), extras


def test_the_table_of_fit_has_every_argument() -> None:
    rows = {row[0]: row[-1] for row in _table_rows(DOCS / "getting-started.md")}
    named = re.findall(r"`(\w+)", " ".join(rows))
    parameters = inspect.signature(fastnn.Sequential.fit).parameters
    assert sorted(named) == sorted(list(parameters)[3:])
    for first, second in (("batch_size", "epochs"), ("seed", "progress")):
        defaults = [parameters[name].default for name in (first, second)]
        said = [str(default) for default in defaults if type(default) is int]
        assert re.findall(r"(\w+) by default", rows[f"`{first}`, `{second}`"]) == said


def test_getting_started_names_all_there_is() -> None:
    text = (DOCS / "getting-started.md").read_text(encoding="utf-8")
    named = {re.match(r"\w*", piece)[0] for piece in CODE.findall(text)}
    assert named >= layers.LAYERS.keys()
    assert named >= {kind.__name__ for kind in optim.OPTIMIZERS.values()}
    assert named >= set(fastnn._NAMES["losses"].split()) - {"Loss"}
    sentence = text.split("A name stands for a schedule")[1].split("\n\n")[0]
    assert re.findall(r'`"(\w+)"`', sentence) == list(schedules.BY_NAME)


def test_an_activation_is_added_as_contributing_says() -> None:
    blocks = fences(CHECKOUT / "CONTRIBUTING.md", "python")
    formula, entry, layer = map(textwrap.dedent, blocks)
    names = dict(vars(formulas))
    exec(formula, names)
    (use,) = eval(f"({entry.strip()})", names)
    names = vars(layers) | {"FORMULAS": {**layers.FORMULAS, use.name: use}}
    exec(layer, names)
    assert names["Mish"].formula == use.name


# Constants


def test_the_engine_page_has_the_engines_numbers() -> None:
    text = _text(DOCS / "cpu-engine.md")
    small = f"{backend._SMALL_FLOPS / 1e6:g} Mflop and {backend._SMALL_BYTES / 1e3:g} kB a chunk"
    for said in (
        f"chunks of at most {CHUNK_ROWS} rows",
        f"up to {table.INNER_BLOCK:,} terms",
        f"less than {small}",
        f"chunks of up to {translate.COLUMN_SPLIT_ROWS} rows",
        f"units of {table.UNIT_ROWS} rows",
        f"Up to {FEW_ROWS} rows",
        f"Up to {few_rows.AHEAD_ROWS} rows",
        f"`predict` of up to {FEW_ROWS} rows",
        f"some {1000 * backend.SLICE_SECONDS:g} ms",
    ):
        assert said in text, said


def test_the_gpu_page_has_the_gpus_numbers() -> None:
    text = _text(DOCS / "gpu-backend.md")
    for said in (
        f"compute capability {device._OLDEST / 10}",
        f"at most {persistent._WIDEST} columns",
        f"a batch at most {persistent._MOST_ROWS} rows",
        f"at most {persistent._MOST_OPERATIONS} operations",
        f"at most {persistent._MOST_ROWS_OF_A_BLOCK} rows",
        f"at least {backend.GPU_FLOPS / 1e6:g} Mflop, which is an estimate",
    ):
        assert said in text, said
    measured = json.loads(Path(products.__file__).with_suffix(".json").read_text("utf-8"))
    assert measured["measured"] or measured["largest"] == 512**3


def test_the_conventions_are_the_defaults() -> None:
    text = _text(CHECKOUT / "README.md")
    for function, name, said in (
        (fastnn.Adam, "eps", "{:.0e}, on the corrected root"),
        (fastnn.BatchNorm1d, "eps", "eps {:.0e}"),
        (fastnn.BatchNorm1d, "momentum", "the share {} of the new"),
    ):
        default = inspect.signature(function).parameters[name].default
        assert said.format(default).replace("e-0", "e-") in text


# Figures


def _results(name: str) -> Any:
    return json.loads((CHECKOUT / "bench" / "results" / name).read_text(encoding="utf-8"))


def _best(by_threads: Mapping[str, list[float]]) -> float:
    """Microseconds at the better count of threads."""
    return 1e6 * min(map(statistics.median, by_threads.values()))


def _peers(found: Mapping[str, Any]) -> dict[str, float]:
    """Microseconds by library, NumPy's with the faster kernels of its BLAS."""
    times = {name: _best(by_threads) for name, by_threads in found.items()}
    faster = times.pop("numpy, AVX-512")
    return times | {"numpy": min(times["numpy"], faster)}


def _figure(value: float, whole_from: float) -> str:
    return f"{value:,.0f}" if value >= whole_from else f"{value:.1f}"


def _table_rows(page: Path) -> Iterator[list[str]]:
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_tables_of_speed_are_what_was_measured() -> None:
    rows = {row[0]: row[1:] for row in _table_rows(DOCS / "speed.md")}
    results = _results("peers.json")
    keys = {"JAX": "jax", "PyTorch": "torch", "scikit-learn": "scikit-learn", "NumPy": "numpy"}
    batches = rows["784-128-10, Adam, batch"]
    found = [_peers(results["training"]["784-128-10 Adam"][batch]) for batch in batches]
    assert rows["fastnn, µs a step"] == [_figure(times["fastnn"], 100.0) for times in found]
    for title, key in keys.items():
        release = ".".join(results["versions"][key].split(".")[:2])
        ratios = [
            times[key.replace("scikit-learn", "sklearn")] / times["fastnn"] for times in found
        ]
        assert rows[f"{title} {release}"] == [_figure(ratio, 10.0) for ratio in ratios]
    others = {title.replace(" ", ", "): by for title, by in results["training"].items()}
    for title in others.keys() - {"784-128-10, Adam"}:
        found = [_peers(others[title][batch]) for batch in rows["batch"]]
        ratios = [sorted(times.values())[1] / times["fastnn"] for times in found]
        assert rows[title] == [_figure(ratio, 10.0) for ratio in ratios]


def test_the_sentences_of_speed_are_what_was_measured() -> None:
    results = _results("peers.json")
    one, many = (_peers(results["training"]["784-128-10 Adam"][batch]) for batch in ("1", "32"))
    small, large = (_peers(results["prediction"][net]) for net in ("8-64-64-2", "784-128-10"))

    def times_as_long(name: str) -> str:
        ratios = (times[name] / times["fastnn"] for times in (one, many))
        return " and ".join(_figure(ratio, 10.0) for ratio in ratios)

    readme, speed = _text(CHECKOUT / "README.md"), _text(DOCS / "speed.md")
    assert f"{one['fastnn']:.1f} µs at batch 1 and {many['fastnn']:.0f} µs at batch 32" in readme
    assert f"JAX takes {times_as_long('jax')} times as long" in readme
    for title, name in (("PyTorch", "torch"), ("scikit-learn", "sklearn"), ("NumPy", "numpy")):
        assert f"{title} {times_as_long(name)}" in readme
    ours = f"{small['fastnn']:.1f} µs for 8-64-64-2 and {large['fastnn']:.1f} µs for 784-128-10"
    assert ours in speed
    for title, name in (("onnxruntime", "onnxruntime"), ("NumPy", "numpy"), ("PyTorch", "torch")):
        assert f"{title} {small[name]:.1f} and {large[name]:.1f}" in speed


def test_the_slow_cases_are_what_was_measured() -> None:
    text = _text(DOCS / "when-not-to-use.md")
    ratios = {case["title"]: case["ratio"] for case in _results("sklearn_grid.json")["outcomes"]}
    sparse = ratios["784-128-10 lbfgs, float64, 1 % dense"]
    assert sparse < 1.0 and f"{sparse:.2f} of its speed for 784-128-10" in text
    found = _peers(_results("peers.json")["training"]["784-512-512-10 Adam"]["2048"])
    assert found["jax"] <= 1.05 * found["fastnn"]
    numpy = _figure(found["numpy"] / found["fastnn"], 10.0)
    said = f"JAX takes as long as fastnn does, and NumPy {numpy} times as long"
    assert f"For 784-512-512-10 at a batch of 2,048, {said}" in text
