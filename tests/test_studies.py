"""The frame of the studies, and the curves of a history."""

from __future__ import annotations

import csv
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from fastnn import figures, korean, studies
from fastnn.cli import main
from fastnn.history import History
from fastnn.perceptron import network
from fastnn.studies import samples
from fastnn.studies.results import Results, Table
from fastnn.studies.sweeps import by_epoch
from fastnn.words import Words

FOLDER = Path(studies.__file__).parent
LETTERED = ("contact_sheet.py", "history_plot.py")
"""What else has words from the catalogue."""


@dataclass(frozen=True)
class Squares(Results):
    """A study as small as one can be."""

    name: ClassVar[str] = "squares"

    roots: np.ndarray

    def tables(self) -> dict[str, Table]:
        return {"numbers": Table({"root": self.roots, "square": self.roots**2})}

    def summary(self) -> Table:
        return self.tables()["numbers"]

    def findings(self) -> list[str]:
        return [f"the square of {self.roots[-1]} is {self.roots[-1] ** 2}"]

    def draw(self, say: Words) -> dict[str, object]:
        figure = figures.new(2.0, 2.0)
        axis = figure.subplots()
        axis.plot(self.roots, self.roots**2)
        axis.set(xlabel=say("epoch"))
        return {"curve": figure}


@pytest.fixture
def squares() -> Squares:
    return Squares(np.array([1.0, 1 / 3]))


def history() -> History:
    made = History()
    made.add_epochs(
        {
            "loss": [1.0, 0.5, 0.2],
            "val_loss": [1.1, 0.7, 0.9],
            "accuracy": [0.5, 0.7, 0.9],
            "val_accuracy": [0.4, 0.6, 0.5],
            "lr": [0.1] * 3,
        }
    )
    return made


# Results


def test_csv_reads_back_to_the_same_bits(squares: Squares, tmp_path: Path) -> None:
    (path,) = squares.to_csv(tmp_path / "made" / "here")
    assert path == tmp_path / "made" / "here" / "squares-numbers.csv"
    header, *rows = csv.reader(path.read_text().splitlines())
    assert header == ["root", "square"]
    assert [float(row[0]) for row in rows] == squares.roots.tolist()


def test_the_text_is_the_summary_and_the_findings(squares: Squares, monkeypatch) -> None:
    long = " ".join(["word"] * 30)
    monkeypatch.setattr(Squares, "findings", lambda self: ["short", long])
    assert str(squares).splitlines() == [
        "  root  square",
        "     1       1",
        "0.3333  0.1111",
        "",
        "- short",
        "- " + " ".join(["word"] * 19),
        "  " + " ".join(["word"] * 11),
    ]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lengths \{'a': 1, 'b': 2\}; expected one length"):
        Table({"a": [1], "b": [1, 2]})


def test_save_writes_numbers_and_figures(squares: Squares, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = squares.save(tmp_path)
    assert [path.name for path in paths] == ["squares-numbers.csv", "squares-curve.png"]
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_figures_speak(squares: Squares, language: str) -> None:
    words = {"en": "epoch", "ko": korean.KOREAN["epoch"]}
    assert squares.plot(language)["curve"].axes[0].get_xlabel() == words[language]


def test_languages_that_figures_do_not_speak(squares: Squares) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="unknown language 'kr'"):
        squares.plot("kr")


def test_figures_do_not_take_on_the_style_around_them(squares: Squares) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30.0}):
        figure = squares.plot()["curve"]
        assert matplotlib.rcParams["font.size"] == 30.0
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert figure.axes[0].xaxis.label.get_size() == 9.0


def test_a_missing_font_is_named(squares: Squares, monkeypatch) -> None:
    manager = pytest.importorskip("matplotlib.font_manager")
    monkeypatch.setattr(manager, "get_font_names", lambda: ["DejaVu Sans"])
    monkeypatch.setattr(manager, "findSystemFonts", list)
    with pytest.raises(ValueError, match="no font with Korean letters is installed"):
        squares.plot("ko")
    assert squares.plot("en")


def test_a_font_installed_since_matplotlib_listed_them_is_found(monkeypatch) -> None:
    manager = pytest.importorskip("matplotlib.font_manager")
    names = ["DejaVu Sans"]
    monkeypatch.setattr(manager, "get_font_names", lambda: names)
    monkeypatch.setattr(manager, "findSystemFonts", lambda: ["/new/NanumGothic.ttf"])
    added = {"/new/NanumGothic.ttf": "NanumGothic"}
    monkeypatch.setattr(manager.fontManager, "addfont", lambda path: names.append(added[path]))
    assert figures._hangul_font() == "NanumGothic"


def test_korean_names_have_letters_in_english_figures(squares: Squares, monkeypatch) -> None:
    manager = pytest.importorskip("matplotlib.font_manager")
    monkeypatch.setattr(manager, "get_font_names", lambda: ["DejaVu Sans", "NanumGothic"])
    with figures.lettering(Words("en")):
        assert figures.new(1.0, 1.0).text(0.5, 0.5, "").get_family() == [
            "DejaVu Sans",
            "NanumGothic",
        ]


# Words


def test_a_text_without_a_translation_is_an_error() -> None:
    with pytest.raises(KeyError):
        Words("ko")("a text that nobody has translated")


def test_translations_keep_the_values() -> None:
    def values(text: str) -> set[str]:
        return set(re.findall(r"\{(\w+)", text))

    assert {text for text, said in korean.KOREAN.items() if values(text) != values(said)} == set()
    assert any(map(values, korean.KOREAN))


def test_every_translation_is_used() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in (*FOLDER.rglob("*.py"), *map(FOLDER.parent.joinpath, LETTERED))
    )
    # A long text may be broken over lines of the source.
    joined = re.sub(r'"\n\s*"', "", sources)
    assert [text for text in korean.KOREAN if f'"{text}"' not in joined] == []


# Samples


def test_samples_are_taken_as_they_come() -> None:
    images = np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3)
    labels = np.tile([3, 8], 20)
    parts = samples.parts_of((images, labels), 0)
    assert parts.classes == ["3", "8"] and parts.outputs == 2
    assert [len(X) for X, _ in (parts.train, parts.validation, parts.test)] == [28, 6, 6]
    assert parts.train[0].shape[1] == 6 and set(parts.train[1]) == {0, 1}
    assert samples.parts_of(parts, 5) is parts


def test_pixels_become_shares_of_the_brightest() -> None:
    images = np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3)
    parts = samples.parts_of((images, np.tile([0, 1], 20)), 0)
    rows = np.concatenate([X for X, _ in (parts.train, parts.validation, parts.test)])
    assert np.array_equal(np.sort(rows.ravel()), np.arange(240, dtype=np.float32) / np.float32(255))
    (standardize, *_) = network(parts, [])
    assert np.ptp(standardize.arguments()["scale"]) == 0.0


X, Y = np.arange(80, dtype=np.float32).reshape(40, 2), np.tile([3, 8], 20)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((np.zeros((4, 2)), np.zeros(4)), ValueError, "y is float64 .* expected class numbers"),
        ((np.zeros((4, 2)), np.zeros((4, 2), int)), ValueError, "expected class numbers"),
        ((X, np.zeros_like(Y)), ValueError, "the 28 rows to train on are of one class"),
        ((np.ones_like(X), Y), ValueError, "the 28 rows to train on are all alike"),
        ((X.astype(float) * 1e300, Y), ValueError, "X contains NaN or infinity"),
        ((np.zeros((4, 2)), np.arange(3)), ValueError, "X and y must have as many rows"),
        ((np.zeros((0, 2)), np.zeros(0, int)), ValueError, "X must have at least one row"),
        ((np.array([[1.0], [np.nan]]), np.arange(2)), ValueError, "X contains NaN or infinity"),
        (np.zeros((2, 2)), TypeError, "data is a ndarray; expected a pair"),
        ((np.zeros((4, 2)),), TypeError, "data is a tuple; expected a pair"),
    ],
)
def test_data_that_are_no_classified_samples(data, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        samples.parts_of(data, 0)


def test_the_first_rows_need_two_classes() -> None:
    parts = samples.parts_of((X, Y), 0)
    with pytest.raises(ValueError, match="the 1 rows to train on are of one class"):
        samples.with_first(parts, 1)


def test_epochs_that_are_not_numbers_are_as_if_missing() -> None:
    made = History()
    made.add_epochs({"val_loss": [0.5, float("nan")]})
    assert by_epoch([made], "val_loss", 3).tolist() == [[0.5, np.inf, np.inf]]


# The registry and the command


def test_each_study_is_a_file() -> None:
    modules = {
        path.stem for path in FOLDER.iterdir() if path.stem.replace("_", "-") in studies.STUDIES
    }
    assert {name.replace("-", "_") for name in studies.STUDIES} == modules


def test_unknown_studies_and_data_for_none() -> None:
    with pytest.raises(ValueError, match="unknown study 'backpop': did you mean 'backprop'"):
        studies.run("backpop")
    with pytest.raises(ValueError, match="the study backprop brings its own"):
        studies.run("backprop", (np.zeros((4, 2)), np.zeros(4, int)))


@pytest.mark.parametrize(("seed", "message"), [(-1, "at least 0"), (2**32, "less than 2")])
def test_seeds_are_checked_alike_for_every_study(seed: int, message: str) -> None:
    for name in studies.STUDIES:
        with pytest.raises(ValueError, match=f"^seed .*{message}"):
            studies.run(name, seed=seed)


@pytest.mark.parametrize("name", studies.STUDIES)
def test_sizes_and_rates_are_checked_by_name(name: str) -> None:
    study = studies._study(name)
    defaults = {key: p.default for key, p in inspect.signature(study).parameters.items()}
    for argument, default in defaults.items():
        wrong = -1 if argument == "seed" else 0 if type(default) is int else -1.0
        if isinstance(default, int | float):
            with pytest.raises(ValueError, match=f"^{argument} must be "):
                study(**{argument: wrong})


def test_the_command(tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    assert main(["study", "backprop", "--out", str(tmp_path)]) == 0
    numbers = studies.run("backprop")
    output = capsys.readouterr().out
    assert str(numbers.summary()) in output
    assert re.sub(r"\s+", " ", numbers.findings()[0]) in re.sub(r"\s+", " ", output)
    for name, table in numbers.tables().items():
        assert (tmp_path / f"backprop-{name}.csv").read_text() == table.csv()
    assert list(tmp_path.glob("backprop-*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["backpop"], "unknown study 'backpop'"),
        (["backprop", "--data", "digits"], "the study backprop brings its own"),
        (["backprop", "--out", __file__], "cannot be written"),
        (["schedules", "--label", "sort"], "--label sort: the embedded digits have no columns"),
    ],
)
def test_the_command_refuses(arguments: list[str], message: str, capsys) -> None:
    assert main(["study", *arguments]) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


def test_all_studies_go_on_after_one_that_refuses(squares: Squares, monkeypatch, capsys) -> None:
    def run(name: str, data: object, *, seed: int) -> Squares:
        if name == "cubes":
            raise ValueError("no cubes")
        return squares

    monkeypatch.setattr(studies, "STUDIES", {"cubes": "What?", "squares": "Why?"})
    monkeypatch.setattr(studies, "takes_data", lambda name: False)
    monkeypatch.setattr(studies, "run", run)
    assert main(["study", "all"]) == 2
    captured = capsys.readouterr()
    assert captured.out.strip() == f"squares: Why?\n\n{squares}"
    assert captured.err.splitlines() == [
        "fastnn: error: cubes: no cubes",
        "fastnn: error: not all studies could be made: cubes",
    ]


# The curves of a history


def test_history_marks_the_best_epoch() -> None:
    pytest.importorskip("matplotlib")
    figure = history().plot()
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "accuracy"]
    for axis, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        lines = {line.get_label(): line for line in axis.get_lines()}
        assert list(lines["training"].get_ydata()) == history()[name]
        assert list(lines["validation"].get_ydata()) == history()["val_" + name]
        assert set(lines["best epoch: 2"].get_xdata()) == {2}


@pytest.mark.parametrize("losses", [[float("nan"), 0.5], [0.5]])
def test_history_without_validation(losses: list[float]) -> None:
    pytest.importorskip("matplotlib")
    made = History()
    made.add_epochs({"loss": losses})
    (axis,) = made.plot().axes
    labels = [line.get_label() for line in axis.get_lines()]
    assert f"best epoch: {len(losses)}" in labels and "validation" not in labels


def test_history_without_a_finite_loss_marks_nothing() -> None:
    pytest.importorskip("matplotlib")
    made = History()
    made.add({"loss": float("inf")})
    assert [line.get_label() for line in made.plot().axes[0].get_lines()] == ["training"]


def test_epochs_that_were_not_validated_keep_their_places() -> None:
    pytest.importorskip("matplotlib")
    made = History()
    made.add_epochs({"loss": [3.0, 2.0]})
    made.add_epochs({"loss": [1.0, 0.5], "val_loss": [1.5, 2.5]})  # resumed, with validation data
    made.add({"loss": 0.4})  # and without
    np.testing.assert_equal(made["val_loss"], [np.nan, np.nan, 1.5, 2.5, np.nan])
    labels = [line.get_label() for line in made.plot().axes[0].get_lines()]
    assert "best epoch: 3" in labels


def test_many_metrics_with_any_names(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = History()
    made.add({"loss": 1.0, **{f"${name}$": 1.0 for name in range(8)}, "$\\frac$ a_b": 0.5})
    figure = made.plot(tmp_path / "curves.svg")
    assert figure.get_size_inches()[0] < 20.0 and len(figure.axes) == 10
    assert figure.axes[-1].get_ylabel() == "$\\frac$ a_b"


def test_history_writes_a_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    history().plot(tmp_path / "curves.svg")
    assert b"<svg" in (tmp_path / "curves.svg").read_bytes()
    for path, error in (("curves.xyz", ValueError), ("no/curves.png", FileNotFoundError)):
        with pytest.raises(error):
            history().plot(tmp_path / path)
    with pytest.raises(ValueError, match="the history is empty"):
        History().plot()
    assert [path.name for path in tmp_path.iterdir()] == ["curves.svg"]


def test_train_draws_its_curves(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "--epochs", "1", "--layers", "8"]
    assert main([*arguments, "--plot", "curves.png"]) == 0
    assert "saved curves.png" in capsys.readouterr().out
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")
    for path, message in (("curves.xyz", "ends in 'xyz'"), ("no/curves.png", "--plot: ")):
        assert main([*arguments, "--plot", path, "--out", "other.safetensors"]) == 2
        assert message in capsys.readouterr().err and not Path("other.safetensors").exists()
