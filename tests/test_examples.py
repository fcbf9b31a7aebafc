"""The examples run and show what they say; the notebook prints what is stored in it."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
NOTEBOOK = FOLDER / "digits.ipynb"

pytestmark = pytest.mark.skipif(not NOTEBOOK.exists(), reason="reads files of the checkout")


def _main(name: str) -> Any:
    return importlib.import_module(f"examples.{name}").main


def test_every_script_says_how_to_run_it() -> None:
    scripts = list(FOLDER.glob("*.py"))
    assert len(scripts) >= 3
    for script in scripts:
        module = importlib.import_module(f"examples.{script.stem}")
        assert f"python -m examples.{script.stem}" in (module.__doc__ or "")


def test_digits(capsys) -> None:
    assert _main("digits")(epochs=3) > 0.8
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 epochs, ")
    assert re.match(r"a \d, taken for a \d \(\d+% sure\):", lines[1])
    assert [len(line) for line in lines[2:]] == [16] * 8


def test_batch_sizes(capsys) -> None:
    losses = _main("batch_sizes")(epochs=2)
    assert list(losses) == [1, 10, 100, "full"]
    lasts = [values[-1] for values in losses.values()]
    assert lasts == sorted(lasts)  # more updates an epoch, less loss
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert [(row[0], int(row[1])) for row in rows] == [
        ("1", 2 * 1438),
        ("10", 2 * 144),
        ("100", 2 * 15),
        ("full", 2),
    ]


def test_own_formula(capsys) -> None:
    accuracies = _main("own_formula")(epochs=5)
    assert len(accuracies) == 3 and all(value > 0.8 for value in accuracies.values())
    assert capsys.readouterr().out.startswith("gradients are right")


# The notebook


def _cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def _code_cells() -> list[dict[str, Any]]:
    return [cell for cell in _cells() if cell["cell_type"] == "code"]


def _printed(cell: dict[str, Any]) -> str:
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def _split(text: str) -> tuple[str, list[float]]:
    """Text without what other rounding may change, and that: numbers with a fraction."""
    fractions = re.compile(r"\d+\.\d+")
    return fractions.sub("0.0", text), [float(number) for number in fractions.findall(text)]


def test_the_notebook_was_run_in_order() -> None:
    cells = _code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert cell["outputs"] and cell["metadata"] == {}
        assert all(output["output_type"] != "error" for output in cell["outputs"])
        assert {output.get("name", "stdout") for output in cell["outputs"]} == {"stdout"}
    pictures = [output for cell in cells for output in cell["outputs"] if "data" in output]
    assert len(pictures) == 4 and all("image/png" in picture["data"] for picture in pictures)


def test_the_notebook_names_no_machine() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        words = [*cell["source"], _printed(cell) if "outputs" in cell else ""]
        assert not re.search(r"(?<![.\w])/(home|root|tmp|opt|Users)/", "".join(words))


def test_the_notebooks_links_lead_somewhere() -> None:
    for cell in _cells():
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", "".join(cell["source"])):
            assert (FOLDER / link).exists(), link


def test_the_notebook_prints_what_it_stores() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    backend, names = plt.get_backend(), dict[str, Any]()
    plt.switch_backend("agg")
    try:
        for number, cell in enumerate(_code_cells(), start=1):
            code = compile("".join(cell["source"]), f"cell {number}", "exec")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
                exec(code, names)
            text, numbers = _split(printed.getvalue())
            stored_text, stored_numbers = _split(_printed(cell))
            assert text == stored_text
            assert numbers == pytest.approx(stored_numbers, rel=0.02)
    finally:
        plt.close("all")
        plt.switch_backend(backend)
    assert names["result"]["accuracy"] > 0.9
