"""The ``fastnn`` command, as its users run it."""

from __future__ import annotations

import csv
import errno
import gzip
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import cli_data
from fastnn.cli import main

Run = Callable[..., tuple[int, str, str]]


def without_notices(error: str) -> str:
    """Standard error without what a first run on a machine says while it compiles."""
    return re.sub(r"^fastnn: compiling .*\n", "", error, flags=re.MULTILINE)


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys) -> Run:
    """Runs the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    threads = fastnn.get_num_threads()

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        output, error = capsys.readouterr()
        return code, output, without_notices(error)

    yield run
    fastnn.set_num_threads(threads)


@pytest.fixture
def iris(tmp_path: Path) -> str:
    """A CSV of three separate clouds with named classes in the middle column."""
    rng = np.random.default_rng(0)
    with open(tmp_path / "iris.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "species", "width"])
        for row in range(150):
            kind = row % 3
            length, width = rng.normal((5 * kind, -3 * kind), 0.5)
            writer.writerow([length, ("setosa", "versicolor", "virginica")[kind], width])
    return "iris.csv"


@pytest.fixture
def line(tmp_path: Path) -> str:
    """A CSV with a float target that is a linear function of its inputs."""
    X = np.random.default_rng(0).normal(size=(400, 3))
    rows = np.column_stack((X, 1e4 * (X @ (1.5, -2.0, 0.25)) + 125000.5))
    np.savetxt(
        tmp_path / "line.csv", rows, delimiter=",", header="a,b,c,price", comments="", fmt="%.9g"
    )
    return "line.csv"


def closing_accuracy(output: str) -> float:
    """The figure in the closing line, in percent."""
    (figure,) = re.findall(r"^test accuracy (\d+\.\d) %$", output, re.MULTILINE)
    return float(figure)


# What works


def test_train_reaches_97_percent_on_the_embedded_digits(run: Run, tmp_path: Path) -> None:
    code, output, error = run("train")
    assert (code, error) == (0, "")
    assert closing_accuracy(output) >= 97
    epochs = re.findall(
        r"^epoch +\d+/40 +training loss [\d.]+, accuracy [\d.]+ %"
        r" +validation loss [\d.]+, accuracy [\d.]+ %$",
        output,
        re.MULTILINE,
    )
    assert len(epochs) == 40
    assert output.endswith("saved digits.safetensors\n")
    assert [path.name for path in tmp_path.iterdir()] == ["digits.safetensors"]


def test_default_training_reaches_97_percent_from_other_seeds(run: Run) -> None:
    for seed in range(1, 6):
        assert closing_accuracy(run("train", "--seed", str(seed), "--quiet")[1]) >= 97


def test_every_option_at_once(run: Run) -> None:
    code, output, error = run(
        *("train", "--layers", "24,16", "--activation", "tanh", "--optimizer", "adamw"),
        *("--lr", "3e-3", "--batch-size", "64", "--epochs", "40", "--dropout", "0.05"),
        *("--label-smoothing", "0.05"),
        *("--schedule", "exponential", "--early-stopping", "2", "--seed", "3", "--threads", "2"),
        *("--backend", "numpy", "--device", "cpu", "--out", "small.safetensors"),
    )
    assert (code, error) == (0, "")
    assert closing_accuracy(output) > 85
    assert "numpy" in output
    widths = [
        layer.weight.shape
        for layer in fastnn.load("small.safetensors").layers
        if isinstance(layer, fastnn.Linear)
    ]
    assert widths == [(64, 24), (24, 16), (16, 10)]


def test_full_batch_without_hidden_layers(run: Run) -> None:
    code, output, _ = run(
        *("train", "--layers", "", "--batch-size", "full", "--epochs", "60", "--lr", "0.05")
    )
    assert code == 0
    assert closing_accuracy(output) > 85


def test_quiet_prints_the_result_alone(run: Run) -> None:
    code, output, error = run("train", "--epochs", "1", "--quiet")
    assert (code, error) == (0, "")
    assert re.fullmatch(r"test accuracy .*\n", output)


def test_same_seed_prints_the_same(run: Run) -> None:
    arguments = ("train", "--epochs", "2", "--layers", "16", "--seed", "7")
    assert run(*arguments) == run(*arguments)
    assert run(*arguments) != run(*arguments[:-1], "8")


def test_csv_with_named_classes(run: Run, iris: str, tmp_path: Path) -> None:
    options = ("--label", "species")
    code, output, _ = run("train", "--data", iris, *options, "--layers", "8", "--lr", "0.02")
    assert code == 0
    assert closing_accuracy(output) >= 95
    assert fastnn.load("iris.safetensors").classes == ["setosa", "versicolor", "virginica"]

    code, output, _ = run("evaluate", "iris.safetensors", iris, *options)
    assert code == 0
    assert re.fullmatch(r"loss [\d.]+, accuracy [\d.]+ %\n", output)

    code, output, _ = run("predict", "iris.safetensors", iris, *options)
    with open(iris, newline="") as file:
        species = [row["species"] for row in csv.DictReader(file)]
    rows = list(csv.DictReader(output.splitlines()))
    assert code == 0
    assert list(rows[0]) == ["class", *(f"probability_{name}" for name in sorted(set(species)))]
    assert np.mean([row["class"] == name for row, name in zip(rows, species, strict=True)]) >= 0.95
    probabilities = np.array([list(row.values())[1:] for row in rows], np.float32)
    assert np.abs(probabilities.sum(axis=1) - 1).max() <= 3 * np.finfo(np.float32).eps


def test_evaluate_finds_classes_by_name(run: Run, iris: str, tmp_path: Path) -> None:
    """A file with some of the classes numbers them otherwise; the model goes by the names."""
    run("train", "--data", iris, "--label", "species", "--layers", "8", "--lr", "0.02")
    lines = (tmp_path / iris).read_text().splitlines()
    some = [lines[0], *(line for line in lines if "virginica" in line)]
    (tmp_path / "some.csv").write_text("\n".join(some))
    output = run("evaluate", "iris.safetensors", "some.csv", "--label", "species")[1]
    assert float(re.search(r"accuracy ([\d.]+) %", output)[1]) >= 90

    (tmp_path / "other.csv").write_text("length,species,width\n1,daisy,2\n")
    code, _, error = run("evaluate", "iris.safetensors", "other.csv", "--label", "species")
    assert code == 2
    assert "other.csv: unknown class 'daisy'; the training data had 'setosa'" in error


def test_not_all_of_many_classes_are_named() -> None:
    known = [f"class {number}" for number in range(21)]
    strange = fastnn.data.Dataset(np.zeros((1, 2)), np.array([0]), classes=("daisy",))
    with pytest.raises(ValueError, match=r"^x\.csv: .* had 'class 0', .*'class 19', \.\.\.$"):
        cli_data.targets("x.csv", strange, known)


def test_class_numbers_may_have_gaps(run: Run, iris: str, tmp_path: Path) -> None:
    text = (tmp_path / iris).read_text()
    for name, number in (("setosa", "-7"), ("versicolor", "4"), ("virginica", "1000000000")):
        text = text.replace(name, number)
    (tmp_path / "numbered.csv").write_text(text)
    options = ("--label", "species")
    run("train", "--data", "numbered.csv", *options, "--layers", "8", "--lr", "0.02")
    assert fastnn.load("numbered.safetensors").classes == ["-7", "4", "1000000000"]
    output = run("evaluate", "numbered.safetensors", "numbered.csv", *options)[1]
    assert float(re.search(r"accuracy ([\d.]+) %", output)[1]) >= 95


def test_own_test_part_is_the_test_set(run: Run, tmp_path: Path) -> None:
    X, y = fastnn.data.digits()
    np.savez(tmp_path / "two.npz", x_train=X[:600], y_train=y[:600], x_test=X[600:], y_test=y[600:])
    code, output, _ = run("train", "--data", "two.npz", "--epochs", "10", "--layers", "64")
    assert code == 0
    assert output.startswith("510 training, 90 validation, 1197 test rows; 64 inputs to 10 classes")
    outcome = run("evaluate", "two.safetensors", "two.npz", "--part", "test")[1]
    assert f"accuracy {closing_accuracy(output)} %" in outcome


def test_predictions_of_a_binary_network(run: Run, tmp_path: Path) -> None:
    model = fastnn.Sequential(fastnn.Linear(1, 1), seed=0)
    X = np.linspace(-1, 1, 64).reshape(64, 1)
    model.fit(X, X > 0, loss="bce", optimizer=fastnn.SGD(1.0), epochs=50)
    model.save(tmp_path / "binary.safetensors")
    (tmp_path / "new.csv").write_text("x\n-1\n1\n")
    rows = list(csv.reader(run("predict", "binary.safetensors", "new.csv")[1].splitlines()))
    assert rows[0] == ["class", "probability_0", "probability_1"]
    assert [row[0] for row in rows[1:]] == ["0", "1"]


def test_predictions_of_more_classes_than_the_model_names(run: Run, tmp_path: Path) -> None:
    X, y = fastnn.data.digits()
    model = fastnn.Sequential(fastnn.Linear(64, 10))
    model.fit(X, y)
    model.classes = ["one", "two"]
    model.save(tmp_path / "short.safetensors")
    code, output, error = run("predict", "short.safetensors", "digits")
    assert (code, output) == (2, "")
    assert "short.safetensors names 2 classes; expected 10" in error


def test_predict_needs_no_labels(run: Run, iris: str, tmp_path: Path) -> None:
    run("train", "--data", iris, "--label", "species", "--layers", "8", "--epochs", "2")
    (tmp_path / "new.csv").write_text("length,width\n5.1,-2.9\n0.1,0.2\n")
    code, output, error = run("predict", "iris.safetensors", "new.csv")
    assert (code, error) == (0, "")
    assert len(output.splitlines()) == 3


def test_regression_reports_r2(run: Run, line: str) -> None:
    """The targets' unit is no matter: prices around 125,000 are learnt as well as around 1."""
    code, output, _ = run(
        *("train", "--data", line, "--label", "price", "--layers", "16"),
        *("--epochs", "100", "--lr", "0.01"),
    )
    assert code == 0
    (r2,) = re.findall(r"^test r2 ([\d.]+)$", output, re.MULTILINE)
    assert float(r2) >= 0.95

    output = run("evaluate", "line.safetensors", line, "--label", "price")[1]
    assert re.fullmatch(r"loss [\d.]+, r2 0\.9\d+\n", output)

    code, output, _ = run("predict", "line.safetensors", line, "--label", "price")
    assert code == 0
    assert output.splitlines()[0] == "output_0"
    predicted = np.array(output.splitlines()[1:], float)
    price = fastnn.data.load(line, "price").y
    assert np.abs(predicted - price).mean() <= 0.2 * price.std()


def test_whole_numbers_are_numbers_if_asked(run: Run, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 1000, (200, 1)).repeat(2, axis=1)
    np.savetxt(tmp_path / "age.csv", rows, delimiter=",", header="days,age", comments="", fmt="%d")
    options = ("train", "--data", "age.csv", "--label", "age", "--layers", "8", "--epochs", "60")
    code, _, error = run(*options)
    assert code == 2
    assert "rather than classes, train with --regression" in error
    code, output, _ = run(*options, "--lr", "0.01", "--regression")
    assert code == 0
    assert float(re.search(r"^test r2 ([\d.]+)$", output, re.MULTILINE)[1]) >= 0.95


def test_idx_folder(run: Run, tmp_path: Path) -> None:
    X, y = fastnn.data.digits()
    (tmp_path / "small").mkdir()
    for kind, header, values in (
        ("images-idx3", [0, 0, 8, 3, 0, 0, 1, 44, 0, 0, 0, 8, 0, 0, 0, 8], X[:300] * 255),
        ("labels-idx1", [0, 0, 8, 1, 0, 0, 1, 44], y[:300]),
    ):
        with gzip.open(tmp_path / "small" / f"t10k-{kind}-ubyte.gz", "wb") as file:
            file.write(bytes(header) + values.astype(np.uint8).tobytes())
    code, output, _ = run("train", "--data", "small", "--epochs", "20")
    assert code == 0
    assert closing_accuracy(output) > 75


def test_inspect_shows_layers_and_plan(run: Run) -> None:
    run("train", "--epochs", "1", "--layers", "32", "--quiet")
    code, output, _ = run("inspect", "digits.safetensors", "--batch-size", "16")
    assert code == 0
    for word in ("Standardize", "Linear", "ReLU", "Dropout", "64", "32", "flop", "MB", "Adam"):
        assert word in output


def test_doctor_names_what_it_found(run: Run) -> None:
    code, output, _ = run("doctor")
    assert code == 0
    facts = dict(re.findall(r"^(\S+(?: \S+)*) {2,}(.+)$", output, re.MULTILINE))
    assert facts["fastnn"].startswith(fastnn.__version__)
    assert facts["NumPy"] == np.__version__
    for name in ("Python", "Numba", "llvmlite", "CPU", "vectors", "threads", "cache"):
        assert facts[name]


def test_doctor_says_where_the_thread_count_is_from(run: Run, monkeypatch) -> None:
    monkeypatch.setenv("FASTNN_NUM_THREADS", "3")
    assert re.search(r"^threads +3 \(FASTNN_NUM_THREADS\)", run("doctor")[1], re.MULTILINE)


# What fails


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "required: COMMAND"),
        ("trian", "trian"),
        ("train --epochs 0", "whole number from 1, got '0'"),
        ("train --batch-size half", "whole number from 1, got 'half'"),
        ("train --layers 12,x", "whole number from 1, got 'x'"),
        ("train --optimizer adma", "did you mean 'adam'"),
        ("train --activation rleu", "did you mean 'relu'"),
        ("train --schedule cosinus", "did you mean 'cosine'"),
        ("train --backend nunba", "did you mean 'numba'"),
        ("train --dropout 1.5", "1.5"),
        ("train --lr -1", "-1"),
        ("train --seed -1", "-1"),
        ("train --out no/such/folder/m.safetensors", "no/such/folder"),
        ("train --data no-such-file.csv", "no-such-file.csv"),
        ("train --data iris.csv --label kind", "kind"),
        (
            "train --data iris.csv --label species --regression",
            "iris.csv: labels are names, such as 'setosa'",
        ),
        ("train --data iris.csv", "label"),
        ("train --data broken.csv", "broken.csv"),
        ("train --data holes.csv", "holes.csv: inputs contain NaN or infinity"),
        ("train --device tpu", "'tpu'"),
        ("train --label-smoothing 1.5", "1.5"),
        (
            "evaluate digits.safetensors iris.csv --label species",
            "iris.csv: labels are names, such as 'setosa'",
        ),
        ("evaluate digits.safetensors digits --part test", "one part"),
        ("train --data broken.npz", "broken.npz"),
        ("evaluate no-such-model digits", "no-such-model"),
        ("evaluate broken.npz digits", "broken.npz: not a model file"),
        ("inspect broken.npz", "broken.npz: not a model file"),
        ("predict digits.safetensors iris.csv --label species", "64"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    arguments: str, message: str, run: Run, iris: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "broken.csv").write_bytes(b"a,label\n1,\xff\n")
    (tmp_path / "holes.csv").write_text("a,label\n1,0\nnan,1\n2,0\n3,1\n4,0\n")
    fastnn.Sequential(fastnn.Linear(64, 10), seed=0).save(tmp_path / "digits.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, output, error = run(*arguments.split())
    assert code == 2
    assert output == ""
    assert re.fullmatch(r"fastnn: error: .*\n", error)
    assert message in error
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_divergence_is_code_1_and_saves_nothing(run: Run, tmp_path: Path) -> None:
    code, output, error = run("train", "--optimizer", "sgd", "--lr", "1e30", "--epochs", "5")
    assert code == 1
    assert not re.search("^test ", output, re.MULTILINE)
    assert re.fullmatch(r"fastnn: error: .*\n", error)
    assert not list(tmp_path.iterdir())


def test_failed_save_is_code_1(run: Run, monkeypatch) -> None:
    def full(model: object, path: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fastnn.Sequential, "save", full)
    code, _, error = run("train", "--epochs", "1", "--layers", "8")
    assert code == 1
    assert "No space left on device" in error


def command(*arguments: str, folder: Path, stderr: int = subprocess.PIPE) -> subprocess.Popen:
    """The command in a process of its own, finding fastnn where this one does."""
    code = f"import sys; sys.path[:0] = {sys.path!r}; from fastnn.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def read_terminal(terminal: int) -> str:
    """What came in; nothing once the other end is closed, which Linux calls an error."""
    try:
        return os.read(terminal, 4096).decode(errors="replace")
    except OSError as error:
        assert error.errno == errno.EIO
        return ""


def test_progress_bar_on_a_terminal_alone(tmp_path: Path) -> None:
    termios = pytest.importorskip("termios", reason="pseudo-terminals are of POSIX")
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    with command("train", "--epochs", "3", folder=tmp_path, stderr=stderr) as process:
        os.close(stderr)
        shown = "".join(iter(lambda: read_terminal(terminal), ""))
        output = process.stdout.read()
    os.close(terminal)
    assert process.returncode == 0
    assert "100%|" in shown and "update/s" in shown
    assert "\r" not in output and len(re.findall("^epoch", output, re.MULTILINE)) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is a POSIX signal")
def test_interrupt_is_code_130_and_saves_nothing(tmp_path: Path) -> None:
    with command("train", "--epochs", "1000000", folder=tmp_path) as process:
        while not process.stdout.readline().startswith("epoch"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert without_notices(error) == "fastnn: error: interrupted\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
def test_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    fastnn.Sequential(fastnn.Linear(64, 10), seed=0).save(tmp_path / "digits.safetensors")
    with command("predict", "digits.safetensors", "digits", folder=tmp_path) as process:
        process.stdout.readline()
        process.stdout.close()
        assert without_notices(process.stderr.read()) == ""
    assert process.returncode == 141


def test_module_runs_as_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fastnn", "--version"],
        cwd=Path(fastnn.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert result.stdout == f"fastnn {fastnn.__version__}\n"
