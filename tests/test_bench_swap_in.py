"""What is timed beside scikit-learn: it is verified first, a wrong one is refused, all is run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from sklearn import neural_network

pytest.importorskip("bench", reason="the benchmarks are in the checkout only")

from bench import sklearn_grid, swap_in

LITTLE = "6-5-3"

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def little_work(monkeypatch):
    monkeypatch.setitem(sklearn_grid.EPOCHS, LITTLE, 2)
    monkeypatch.setattr(sklearn_grid, "STEPS", {1: 4, 8: 3})
    monkeypatch.setattr(sklearn_grid, "LBFGS_ROWS", 30)
    monkeypatch.setattr(sklearn_grid, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(sklearn_grid, "SPIN_SECONDS", 0.0)
    monkeypatch.setattr(sklearn_grid, "QUICK_PATIENCE", 0.0)


CASES = {
    "dense": sklearn_grid.fit_case(LITTLE, "adam", 8, "float64"),
    "sparse": sklearn_grid.fit_case(LITTLE, "sgd", 1, "float32", 0.1),
    "lbfgs": sklearn_grid.fit_case(LITTLE, "lbfgs", None, "float64"),
    "partial_fit": sklearn_grid.partial_fit_case(LITTLE, "float32"),
    "predict": sklearn_grid.predict_case(LITTLE, 3, "float64"),
}


@pytest.mark.usefixtures("little_work")
@pytest.mark.parametrize("name", CASES)
def test_a_case_is_verified_and_timed(name):
    outcome = sklearn_grid.judge(CASES[name], rounds=2, quiet=lambda: None)
    assert outcome.title.startswith(LITTLE)
    assert outcome.theirs > 0 and outcome.ours > 0
    assert outcome.met == (outcome.ratio >= sklearn_grid.NOWHERE_SLOWER)


@pytest.mark.usefixtures("little_work")
@pytest.mark.parametrize("name", CASES)
def test_an_estimator_that_computes_something_else_is_refused(monkeypatch, name):
    class Wrong(neural_network.MLPClassifier):
        engine_ = "wrong"

        def predict_proba(self, x):
            return super().predict_proba(x) * 1.01

    wrong = SimpleNamespace(MLPClassifier=Wrong)
    monkeypatch.setattr(sklearn_grid.fastnn, "sklearn", wrong)
    with pytest.raises(AssertionError, match="off by"):
        CASES[name].prepare()


@pytest.mark.parametrize("found", [np.array([1.0, np.nan]), np.array([1.0, 2.1])])
def test_what_is_not_the_same_is_refused(found):
    sklearn_grid.check_same(np.array([1.0, 2.0 + 1e-9]), np.array([1.0, 2.0]), "float64")
    with pytest.raises(AssertionError, match="off by"):
        sklearn_grid.check_same(found, np.array([1.0, 2.0]), "float64")


@pytest.mark.parametrize(("density", "kind"), [(1.0, np.ndarray), (0.1, scipy.sparse.csr_matrix)])
def test_data_have_every_class_and_as_much_as_they_say(density, kind):
    x, labels = sklearn_grid.data("50-5-3", 200, "float32", density)
    assert isinstance(x, kind)
    assert (x.shape, x.dtype) == ((200, 50), np.float32)
    assert set(labels) == {0, 1, 2}
    assert abs((x != 0).sum() / 10_000 - density) < 0.02


def test_every_target_is_of_a_case():
    titles = [case.title for case in sklearn_grid.every_case()]
    assert len(titles) == len(set(titles))
    assert set(sklearn_grid.TARGETS) <= set(titles)
    quick = {case.title for case in sklearn_grid.quick_cases()}
    assert set(sklearn_grid.TARGETS) < quick < set(titles)


def test_a_missed_target_and_another_engine_are_told():
    outcome = sklearn_grid.Outcome("a case", "scikit-learn", 1e-3, 2e-3, 0.5, 0.95, False)
    assert sklearn_grid.line(outcome).split("0.95)")[1].split() == ["!", "by", "scikit-learn"]


@pytest.mark.usefixtures("little_work")
def test_the_command_prints_and_writes_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sklearn_grid, "quick_cases", lambda: iter([CASES["predict"]]))
    out = tmp_path / "new" / "grid.json"
    sklearn_grid.main(["--quick", "--out", str(out)])
    assert CASES["predict"].title in capsys.readouterr().out
    (outcome,) = json.loads(out.read_text())["outcomes"]
    assert outcome["title"] == CASES["predict"].title


def test_one_command_runs_every_part(monkeypatch, tmp_path):
    calls = []

    def import_part(name, package):
        return SimpleNamespace(main=lambda arguments: calls.append((package + name, arguments)))

    monkeypatch.setattr(swap_in, "import_module", import_part)
    swap_in.main(["--quick", "--out", str(tmp_path)])
    swap_in.main(["--out", str(tmp_path)])
    files = {part: str(tmp_path / f"{part}.json") for part in swap_in.PARTS}
    assert calls == [
        *((f"bench.{part}", ["--quick", "--out", file]) for part, file in files.items()),
        *((f"bench.{part}", ["--out", file]) for part, file in files.items()),
    ]
